"""What `compare` and `search` share: the run directory and its study, evaluating trials, and writing the results."""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from actlab import summary as summaries
from actlab.assembly import Networks
from actlab.configuration import Configuration, differences, to_yaml
from actlab.ensemble import save
from actlab.errors import InputError
from actlab.progress import PopulationProgress
from actlab.records import (
    CurveRecord,
    MemberRecord,
    RunDirectory,
    plain,
    to_frame,
    write_frame,
    write_json,
    write_text,
)
from actlab.references import reference_scores
from actlab.splits import make_splits
from actlab.studies import Cell, Study, open_storage
from actlab.table import Table
from actlab.trials import Evaluation, Setting, evaluate

# the most members that train as one population: their states lie in memory together
POPULATION_MEMBERS = 1500
PACKAGES = ("actlab", "torch", "lightning", "torchmetrics", "optuna", "numpy", "pandas", "scikit-learn", "scipy")
FINGERPRINT = "actlab"


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


class Experiment:
    """A run: its configuration, data, directory and study.

    Args:
        command: `compare` or `search`.
        configuration: What was asked for.
        table: The data.
        sampler: What proposes trials, where they are not all queued.

    Raises:
        InputError: the directory belongs to another configuration or other data; the message lists what differs.
    """

    def __init__(
        self,
        command: str,
        configuration: Configuration,
        table: Table,
        sampler: optuna.samplers.BaseSampler | None = None,
    ) -> None:
        self.command, self.configuration, self.table = command, configuration, table
        self.run = choose_directory(command, configuration)
        self.run.create()
        self.evaluation = Evaluation(
            configuration.data,
            configuration.compare,
            configuration.optimizer,
            configuration.trainer,
            configuration.seed,
        )
        self.splits = make_splits(table.n_rows, configuration.compare, configuration.seed)
        self.networks = Networks(self.run.weights, self.evaluation, table, self.splits)
        self.progress: PopulationProgress | None = None
        storage = open_storage(self.run.journal, configuration.storage)
        name = "actlab" if configuration.storage is None else self.run.path.name
        self.study = Study(storage, name, sampler)
        self._check_fingerprint()
        if not self.run.config.exists():
            write_text(self.run.config, to_yaml(configuration.to_dict()))

    def _check_fingerprint(self) -> None:
        asked = {
            "command": self.command,
            "data": self.table.content_hash,
            "config": plain(self.configuration.compared()),
            "versions": versions(),
        }
        stored = self.study.optuna.user_attrs.get(FINGERPRINT)
        if stored is None:
            self.study.optuna.set_user_attr(FINGERPRINT, asked)
            return
        changed = differences(stored["versions"], asked["versions"])
        if changed:
            print(f"warning: this run was started with other versions: {'; '.join(changed)}", file=sys.stderr)
        lines = differences(_stable(stored), _stable(asked))
        if lines:
            raise InputError(
                f"{self.run.path} holds a run of another configuration ({'; '.join(lines)}); "
                "go on with the old one, choose another --out, or add --fresh"
            )

    def evaluate(self, claimed: Mapping[int, optuna.Trial], settings: Mapping[int, Setting]) -> None:
        """Train claimed trials as one population and tell the study.

        Args:
            claimed: Number in the results to Optuna trial.
            settings: The same numbers to what is to be evaluated.
        """
        callbacks = [self.progress] if self.progress else []
        for result in evaluate(dict(settings), self.evaluation, self.table, callbacks):
            self.networks.keep(result.number, result.outcomes)
            value = result.value
            self.study.complete(
                claimed[result.number],
                value if np.isfinite(value) else np.inf,
                {
                    "number": result.number,
                    "members": [plain(asdict(record)) for record in result.member_records()],
                    "curves": [plain(list(asdict(record).values())) for record in result.curve_records()],
                },
            )

    def frames(self, done: Sequence[FrozenTrial]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """members.csv and curves.csv of completed trials."""
        members = [MemberRecord(**_numbers(row)) for trial in done for row in trial.user_attrs["members"]]
        curves = [
            CurveRecord(*(np.nan if value is None else value for value in row))
            for trial in done
            for row in trial.user_attrs["curves"]
        ]
        return to_frame(members, MemberRecord), to_frame(curves, CurveRecord)

    def write(
        self,
        done: Sequence[FrozenTrial],
        settings: Mapping[int, Setting],
        rates: list[float],
        is_equal_budget: bool,
        log: Callable[[RunDirectory, pd.DataFrame, pd.DataFrame, dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Everything of the run directory, from the study; returns the summary.

        Args:
            done: Completed trials in the order of the results.
            settings: Number in the results to setting.
            rates: Learning rates tried, or the ends of their range.
            is_equal_budget: Whether comparisons between activations are fair.
            log: Writes the TensorBoard comparison.
        """
        members, curves = self.frames(done)
        write_frame(self.run.members, members)
        write_frame(self.run.curves, curves)
        n_test = len(next(iter(self.splits.values())).test)
        # inner validation belongs to the training procedure: all rows outside the test fold count
        ratio = n_test / (self.table.n_rows - n_test)
        found = summaries.summarise(members, ratio, self.configuration.compare.baseline, rates, is_equal_budget)
        summary = self._header() | found
        chosen = summaries.choose(members)
        networks = self.networks.gather(chosen[chosen.activation == found["winner"]], settings)
        # activation and rate both picked per fold on validation: an estimate no test row has touched
        nested = self.networks.gather(chosen.sort_values("val").groupby(summaries.PAIR).head(1), settings)
        summary["ensemble"] = {
            "activation": found["winner"],
            "n_members": len(networks),
            "test_score": self.networks.score(networks),
            "test_score_chosen_on_validation": self.networks.score(nested),
        }
        summary["references"] = reference_scores(self.table, self.splits, self.configuration.data)
        summary["versions"] = versions()
        if networks:
            scores = {"test_score": summary["ensemble"]["test_score"], "sha256": self.table.content_hash}
            config = plain(self.configuration.to_dict())
            save(self.networks.ensemble(networks, config, scores, versions()), self.run.checkpoint)
        write_json(self.run.summary, summary)
        log(self.run, members, curves, summary)
        return dict(plain(summary))

    def _header(self) -> dict[str, Any]:
        configuration, table = self.configuration, self.table
        some = next(iter(self.splits.values()))
        return {
            "metric": "log_rmse" if configuration.data.target_transform == "log" else "rmse",
            "command": self.command,
            "data": {
                "csv": configuration.data.csv,
                "target": table.schema.target,
                "n_rows": table.n_rows,
                "n_columns": len(table.schema.columns),
                "sha256": table.content_hash,
            },
            "protocol": {
                "folds": configuration.compare.folds,
                "inner": configuration.compare.inner,
                "repeats": configuration.compare.repeats,
                "validation_fraction": configuration.compare.validation_fraction,
                "n_training": len(some.training),
                "n_validation": len(some.validation),
                "n_test": len(some.test),
                "max_epochs": configuration.trainer["max_epochs"],
                "patience": configuration.optimizer.patience,
                "hidden": configuration.model.hidden,
                "seed": configuration.seed,
            },
        }


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in row.items()}


def _stable(fingerprint: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fingerprint.items() if key != "versions"}


def choose_directory(command: str, configuration: Configuration) -> RunDirectory:
    """The run directory: `--out`, else runs/COMMAND-NAME; with `--fresh` the first of it, it-2, it-3, ... not there.

    Raises:
        InputError: the path is a file, or a directory of something else.
    """
    path = Path(configuration.out or f"runs/{command}-{configuration.name}")
    if configuration.fresh:
        base, number = path, 2
        while path.exists():
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; name a directory")
    run = RunDirectory(path)
    if path.is_dir() and any(path.iterdir()) and not (run.journal.exists() or run.config.exists()):
        raise InputError(f"--out {path} is a directory with other files in it; name a new one")
    return run


def all_cells(activations: Sequence[str], rates: Sequence[float]) -> list[Cell]:
    """The grid in the order of the results: every activation at every learning rate."""
    return [Cell({"activation": name, "learning_rate": rate}) for name in activations for rate in rates]
