"""A finished run as its files tell it: frames and summary, read once, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from actlab.data.target import LOG, Target
from actlab.errors import InputError
from actlab.run_files import RunDirectory
from actlab.verdict.summary import choose

# Learning rates that still have room for a number in each cell of a figure.
MAX_GRID_RATES = 12


@dataclass(frozen=True)
class FinishedRun:
    """A run directory that holds results. Frames are read when first asked for; what a run lacks is None."""

    directory: RunDirectory
    summary: dict[str, Any]

    def part(self, key: str) -> dict[str, Any]:
        """A mapping of the summary; empty where it has none."""
        return self.summary.get(key) or {}

    @property
    def command(self) -> str:
        """`compare`, `search` or `fit`."""
        return str(self.summary.get("command") or ("compare" if "ranking" in self.summary else "fit"))

    @property
    def is_ranked(self) -> bool:
        """Whether activations were tried against each other; a `fit` trains one of them."""
        return bool(self.summary.get("ranking"))

    @property
    def is_grid(self) -> bool:
        """Whether all activations were tried at the same few learning rates."""
        return self.command != "search" and self.members.learning_rate.nunique() <= MAX_GRID_RATES

    @property
    def target(self) -> Target:
        return Target.of_metric(str(self.summary.get("metric", LOG.metric)))

    @cached_property
    def members(self) -> pd.DataFrame:
        """One row a network: its setting, fold, seed, epochs and scores."""
        return self.directory.read_members()

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """One row a trial and epoch: mean and spread of training and validation scores."""
        return _optional(self.directory.curves)

    @cached_property
    def health(self) -> pd.DataFrame | None:
        """One row a network, hidden layer and moment: dead and saturated units, mean output, gradient ratio."""
        return _optional(self.directory.health)

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """Out-of-fold predictions of the shipped networks: row, id (as text), repeat, fold, actual, predicted."""
        # NA is an id like any other
        missing = {"actual": [""], "predicted": [""]}
        return _optional(self.directory.predictions, dtype={"id": str}, keep_default_na=False, na_values=missing)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The rows of the setting that inner validation chose for each activation."""
        return choose(self.members, self.command == "compare")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml; empty where it is gone or damaged."""
        try:
            return self.directory.read_config()
        except InputError:
            return {}

    @property
    def ranking_rows(self) -> list[Mapping[str, Any]]:
        """The summary's rows, best first; none for a fit."""
        return list(self.summary.get("ranking") or [])

    @property
    def order(self) -> list[str]:
        """Activations, best first; for a fit the one it trained."""
        names = [str(row["activation"]) for row in self.ranking_rows]
        return names or [str(name) for name in self.members.activation.unique()]


def read_finished(path: str | Path) -> FinishedRun:
    """The finished run in a directory.

    Raises:
        InputError: there is no such directory, it is not a run's, or its run is not finished.
    """
    run = RunDirectory(path)
    if not run.path.is_dir():
        raise InputError(f"{run.path} is not a directory; name a run directory, such as runs/compare-house_prices")
    if not run.summary.exists():
        if run.config.exists() or run.journal.exists():
            raise InputError(f"the run in {run.path} is not finished: start its command again and it goes on")
        raise InputError(f"{run.path} is not a run directory: it has no summary.json")
    summary = run.read_summary()
    if not run.members.exists():
        raise InputError(f"{run.members} is not there: the run in {run.path} is not complete")
    return FinishedRun(run, summary)


def one_curve(curves: pd.DataFrame) -> pd.DataFrame:
    """The first trial's rows of curves.csv, by epoch, to where fewer than half of its members still train.

    A mean over the few that are left says who they are and not how training goes on.
    """
    rows = curves[curves.trial == curves.trial.min()].sort_values("epoch")
    kept: pd.DataFrame = rows[rows.members * 2 >= rows.members.max()]
    return kept


def _optional(path: Path, **options: Any) -> pd.DataFrame | None:
    try:
        frame = pd.read_csv(path, **options)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    return frame if len(frame) else None
