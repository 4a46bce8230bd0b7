"""actlab from Python: run a comparison or a search, and look at its results as pandas frames and figures.

run = actlab.compare("houses.csv", "price", compare={"folds": 3})
run.ranking
run.figures()["ranking"]
run.predict("new_houses.csv")

A frame, of pandas or polars, stands wherever a file does.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from actlab.errors import InputError
from actlab.report.finished import FinishedRun, read_finished
from actlab.report.several import read_several, refuse_several
from actlab.report.words import answer, remarks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(FinishedRun):
    """The results of a run. Nothing here trains; only `predict` needs torch.

    Frames have the columns of the run directory's files, and are None where the run did not record them.
    """

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """The activations, best first; empty for a fit."""
        return pd.DataFrame(self.ranking_rows)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Verdicts of every activation against the best and against the baseline (`against`); differences, intervals
        and costs are shares of the mean of `a`. Empty where nothing was tested."""
        return pd.DataFrame(self.summary.get("comparisons") or [])

    @property
    def answer(self) -> str:
        """The result in one sentence, and what belongs beside it; an `InputError` for a fit, which compares nothing."""
        if not self.is_ranked:
            raise InputError(f"{self.path} is a fit of one activation: it answers no comparison")
        return " ".join([answer(self.summary), *remarks(self.summary)])

    def figures(self) -> dict[str, "Figure"]:
        """The report's figures by name, newly drawn; a notebook shows one as the last value of a cell."""
        from actlab.report.page import draw

        return draw(self)

    def report(self) -> Path:
        """Make report.html and the figures' files again; returns the page's path."""
        from actlab.report.page import write_report

        return write_report(self.path)

    def predict(
        self,
        data: Any,
        interval: float | None = None,
        allow_code: bool = False,
        mean: bool = False,
        bad_cells: Literal["refuse", "missing"] = "refuse",
    ) -> pd.DataFrame:
        """Predictions of the winner's averaged networks for the rows of a file or a frame.

        Where the target is learned by its logarithm a prediction is its median: as many values are above as below. What
        is unlike training is warned of (`PredictionWarning`), and rows with cells that training never had have no
        interval.

        Args:
            data: What `compare` takes. The target column is not needed.
            interval: Add `lower` and `upper` of this coverage, for example 0.9.
            allow_code: Import an activation class that the checkpoint names, which runs its module's code.
            mean: Predict means rather than medians: the right ones to add up.
            bad_cells: Whether cells of numeric columns that are no numbers are refused, or taken as missing.

        Returns:
            The id column (if any), as text, and `prediction`, in the order of the rows.

        Raises:
            InputError: no checkpoint, or a file or value that cannot be read.
        """
        from actlab.model.prediction import predict_rows

        return predict_rows(self.directory.checkpoint, data, interval, None, allow_code, mean, bad_cells)

    def _repr_html_(self) -> str:
        return str(self.ranking.to_html(index=False)) if self.is_ranked else f"<pre>{self!r}</pre>"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.command} of {len(self.members)} networks)"


def load_run(directory: str | Path) -> Run:
    """The results of a finished run, from its files alone; an `InputError` for what is none, or not finished."""
    refuse_several(directory)
    finished = read_finished(directory)
    return Run(finished.directory, finished.summary)


def load_runs(directory: str | Path) -> dict[str, Run]:
    """The runs of a finished comparison on several data sets, by the data set's name; ranks.csv compares them. An
    `InputError` where the directory holds something else, or the comparison is not finished."""
    run, summary = read_several(directory)
    return {entry["name"]: load_run(run.path / entry["name"]) for entry in summary["data_sets"]}


def compare(csv: Any, target: str, **overrides: Any) -> Run:
    """Compare activations fairly, as `actlab compare` does; goes on with what is in the run directory already.

    Args:
        csv: The path of a file, or a frame: its types say what its columns are. A frame's run goes on when it is given
            again with the same content, by which config.yaml names it.
        target: Name of the column to predict.
        overrides: The configuration's keys, groups as mappings: `out="runs/mine"`, `seed=1`, `trainer={"max_epochs":
            50}`, `compare={"activations": ["relu", "silu"], "folds": 3}`. `config` names a YAML file with more.

    Raises:
        InputError: an unknown key, a bad value, or the run directory holds another run.
    """
    return _train("compare", csv, target, overrides)


def search(csv: Any, target: str, **overrides: Any) -> Run:
    """Search activation and learning rate together, as `actlab search` does; see `compare` for the arguments."""
    return _train("search", csv, target, overrides)


def _train(command: str, csv: Any, target: str, overrides: Mapping[str, Any]) -> Run:
    from actlab.config import configure
    from actlab.data.sources import FRAME_KEY, open_source
    from actlab.data.table import read_table
    from actlab.runs.compare_search import compare as run_comparison
    from actlab.runs.compare_search import search as run_search

    keys = {key: _as_in_yaml(value) for key, value in overrides.items()}
    files = ["--config", keys.pop("config")] if "config" in keys else []
    frame = None if isinstance(csv, str | Path) else open_source(csv)
    path = str(csv) if frame is None else f"{FRAME_KEY}{frame.sha256}"
    configuration = configure(command, files, {"data": {"csv": path, "target": target}}, keys)
    table = None if frame is None else read_table(configuration.data, source=frame)
    return load_run((run_comparison if command == "compare" else run_search)(configuration, table)[0].path)


def _as_in_yaml(value: Any) -> Any:
    """Paths as the text a YAML file would have for them, also inside groups of keys."""
    if hasattr(value, "columns"):
        raise InputError("a key takes the path of a file, not a frame; write the frame to a file, and name that")
    if isinstance(value, Mapping):
        return {str(key): _as_in_yaml(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
