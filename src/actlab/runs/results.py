"""From a finished study to the files of the run directory."""

import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from actlab.configuration import Configuration
from actlab.data.splits import SplitRows
from actlab.data.table import Table
from actlab.members import Split
from actlab.model.ensemble import save
from actlab.records import CurveRecord, MemberRecord, RunDirectory, plain, to_frame, write_frame, write_json
from actlab.report.page import write_report
from actlab.report.study_figures import draw_study, importances
from actlab.report.tensorboard_log import write_comparison
from actlab.runs.assembly import Network, Networks
from actlab.runs.confirm import confirm
from actlab.runs.investigation import explain, explaining_frames, pre_activation_frame
from actlab.runs.progress import PopulationProgress
from actlab.runs.references import mean_scores, reference_predictions
from actlab.runs.shipping import ship
from actlab.runs.trial_settings import baseline_of
from actlab.runs.trials import Setting
from actlab.verdict import summary as summaries

PACKAGES = ("actlab", "torch", "lightning", "torchmetrics", "optuna", "numpy", "pandas", "scikit-learn", "scipy")
# user attributes of a trial
MEMBERS, CURVES = "members", "curves"


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def frames(done: Sequence[FrozenTrial]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """members.csv and curves.csv of trials that are done."""
    members = [MemberRecord(**_numbers(row)) for trial in done for row in trial.user_attrs[MEMBERS]]
    curves = [CurveRecord(**_numbers(row)) for trial in done for row in curve_rows(trial)]
    return to_frame(members, MemberRecord), to_frame(curves, CurveRecord)


def curve_rows(trial: FrozenTrial) -> list[dict[str, Any]]:
    """A trial's curves; they are stored without their names, which would take most of the room."""
    names = [field.name for field in fields(CurveRecord)]
    return [dict(zip(names, row, strict=True)) for row in trial.user_attrs[CURVES]]


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in row.items()}


def _searched(settings: Mapping[int, Setting]) -> dict[int, dict[str, str | float]]:
    """What trials can differ in besides activation and learning rate, for TensorBoard's table of settings."""
    return {
        number: {
            "hidden": "-".join(map(str, setting.hidden)),
            "dropout": setting.dropout,
            "weight_decay": setting.weight_decay,
            "init": setting.init,
        }
        for number, setting in settings.items()
    }


def _trial_rows(members: pd.DataFrame, settings: Mapping[int, Setting]) -> list[dict[str, Any]]:
    """A search's trials with everything that it may have chosen, in their order."""
    scores = members.groupby("trial").val_score.mean()
    searched = _searched(settings)
    return [
        {
            "trial": number,
            "activation": setting.label,
            "learning_rate": setting.learning_rate,
            **searched[number],
            "val_score": float(scores[number]),
        }
        for number, setting in settings.items()
    ]


@dataclass(frozen=True)
class Results:
    """What the files of a run are written from.

    Args:
        command: `compare` or `search`.
        configuration: What was asked for.
        run: Where the files go.
        table: The data.
        splits: Its splits.
        networks: The trained networks.
        rates: Learning rates tried, or the ends of their range.
        is_equal_budget: Whether comparisons between activations are fair.
    """

    command: str
    configuration: Configuration
    run: RunDirectory
    table: Table
    splits: Mapping[Split, SplitRows]
    networks: Networks
    rates: list[float]
    is_equal_budget: bool

    def write(
        self, done: Sequence[FrozenTrial], settings: Mapping[int, Setting], study: optuna.Study
    ) -> dict[str, Any]:
        """Every file of the run directory; returns the summary, which is written last.

        Args:
            done: Finished trials in the order of the results.
            settings: Number in the results to setting.
            study: For Optuna's own figures.
        """
        self.run.sweep()
        members, curves = frames(done)
        write_frame(self.run.members, members)
        write_frame(self.run.curves, curves)
        health, convergence = explaining_frames([trial.user_attrs for trial in done])
        write_frame(self.run.health, health)
        write_frame(self.run.convergence, convergence)
        n_test = len(next(iter(self.splits.values())).test)
        # inner validation belongs to the training procedure: all rows outside the test fold count
        ratio = n_test / (self.table.n_rows - n_test)
        grid, baseline = self.configuration.compare, baseline_of(self.configuration)
        found = summaries.summarise(members, ratio, baseline, self.rates, self.is_equal_budget, grid.rope)
        summary = self._header(len(done)) | found
        chosen = summaries.choose(members)
        print("training the networks of the model on all rows outside their folds", file=sys.stderr)
        with PopulationProgress() as progress:
            networks, summary["ensemble"] = ship(self.networks, chosen, settings, grid, [progress])
        references = list(reference_predictions(self.table, self.splits, self.configuration.data))
        summary["references"] = mean_scores(references)
        if self.is_equal_budget:
            explaining = (members, health, convergence)
            summary |= explain(explaining, ratio, found["rope"], self.networks, settings, references)
            if grid.confirm:
                summary["confirmation"] = confirm(self.networks.evaluation, self.table, members, found, settings)
        else:
            summary["trials"] = _trial_rows(members, settings)
            summary["importances"] = importances(study)
        summary["versions"] = versions()
        if networks:
            self._save(networks, summary)
        bins = self._pre_activations(chosen[chosen.activation == found["winner"]], settings)
        write_comparison(self.run, members, curves, summary, _searched(settings), health, bins)
        draw_study(study, self.run.figures)
        write_json(self.run.summary, summary)
        write_report(self.run.path)
        # what the model needs is in the checkpoint; networks that are asked for again are trained again, bit by bit
        shutil.rmtree(self.run.weights, ignore_errors=True)
        return dict(plain(summary))

    def _pre_activations(self, winner: pd.DataFrame, settings: Mapping[int, Setting]) -> pd.DataFrame | None:
        """Histograms of the winner's networks; None where it has none that is finite."""
        own = self.networks.gather(winner, settings)
        if not own:
            return None
        bins = pre_activation_frame(own, self.networks)
        write_frame(self.run.pre_activations, bins)
        return bins

    def _save(self, networks: Sequence[Network], summary: dict[str, Any]) -> None:
        """The networks as a model, and their out-of-fold predictions."""
        write_frame(self.run.predictions, self.networks.predictions(networks))
        scores = {"test_score": summary["ensemble"]["test_score"], "sha256": self.table.content_hash}
        config = plain(self.configuration.to_dict())
        save(self.networks.ensemble(networks, config, scores, versions()), self.run.checkpoint)

    def _header(self, n_trials: int) -> dict[str, Any]:
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
                "n_trials": n_trials,
                "max_epochs": configuration.trainer["max_epochs"],
                "patience": configuration.optimizer.patience,
                "hidden": configuration.model.hidden,
                "seed": configuration.seed,
            },
        }
