"""From a finished study to the files of the run directory.

A second look at the winner: trained again with fresh seeds and fresh folds, beside the rivals close to it.

The first comparison picks its winner by the scores it then reports, so its differences are too good on average. Here
the winner is named before a single score is seen: the differences are unbiased for these rows. The rows are the same,
so what the data set itself happens to favour is not removed; only new data can do that.

Why the ranking is as it is: claims, health and costs of a run, with the networks where frames are not enough.
"""

import math
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial

from actlab.config import Configuration
from actlab.data.splits import SplitRows
from actlab.data.table import Table
from actlab.data.target import Target
from actlab.diagnostics.health import HealthMonitor, HealthRecord
from actlab.diagnostics.measures import (
    BinRecord,
    ConvergenceRecord,
    StepCost,
    bin_records,
    convergence_records,
    deviation_from_affine,
    maxout_error,
    median_costs,
    n_rows,
    step_costs,
)
from actlab.members import Split, derive_seed
from actlab.model.ensemble import save
from actlab.networks.trained import TrainedNetwork
from actlab.report.optuna_figures import draw_study, importance_shares
from actlab.report.page import write_report
from actlab.report.tensorboard import write_comparison
from actlab.run_files import CurveRecord, MemberRecord, RunDirectory, jsonable, to_frame, write_frame, write_json
from actlab.runs.evaluate import (
    CURVES,
    MEMBERS,
    Evaluation,
    Setting,
    TrialResult,
    baseline_of,
    evaluate,
    level_text,
    snapshots_in,
    variants_of,
)
from actlab.runs.model_building import RunNetworks, ship
from actlab.runs.progress import PopulationProgress
from actlab.runs.references import ReferencePrediction, mean_scores, reference_predictions
from actlab.settings import ALPHA
from actlab.verdict.claims import Measurements, claims
from actlab.verdict.significance import compare_all, ranking
from actlab.verdict.summary import choose, comparison_of, fold_ratio, scores_of, summarise

MAX_RIVALS = 3


def confirm(
    evaluation: Evaluation,
    table: Table,
    members: pd.DataFrame,
    summary: Mapping[str, Any],
    settings: Mapping[int, Setting],
    directory: Path,
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, Any]:
    """Train winner and rivals again and compare them, as summary.json holds it under `confirmation`.

    Only settings that inner validation chose in at least one fold before are trained again; among them the choice per
    fold is made anew, on the fresh folds' inner validation. Comparisons are two-sided corrected resampled t-tests with
    the winner, paired by the fresh (repeat, fold), Holm-adjusted over the rivals.

    Args:
        evaluation: That of the first look.
        table: The data.
        members: members.csv of the first look; its names of activations are kept.
        summary: Winner, ranking, comparisons and rope of the first look.
        settings: Trial number to setting.
        directory: Keeps what an interruption leaves.
        callbacks: Passed on to the training.
    """
    names = [str(summary["winner"]), *rivals(summary)]
    chosen = choose(members)
    trials = sorted(set(chosen[chosen.activation.isin(names)].trial.tolist()))
    name_of = dict(zip(members.trial.tolist(), members.activation.tolist(), strict=True))
    fresh = replace(evaluation, seed=derive_seed(evaluation.seed, "confirm"))
    snapshots = snapshots_in(directory, fresh, table)
    results = evaluate({trial: settings[trial] for trial in trials}, fresh, table, callbacks, snapshots)
    again = [replace(r, activation=name_of[result.number]) for result in results for r in result.member_records()]
    found = scores_of(choose(to_frame(again, MemberRecord)))
    scores = {name: found[name] for name in names}
    # a fold has as many rows as before
    comparisons = compare_all(scores, names[0], fold_ratio(summary), summary["rope"]) if len(names) > 1 else ()
    return {
        "seed": fresh.seed,
        "winner": names[0],
        "rivals": names[1:],
        "means": {name: float(scores[name].mean()) for name in ranking(scores)},
        "comparisons": [c.to_dict() | first_look(summary, names[0], c.b) for c in comparisons],
        "n_members": len(again),
    }


def rivals(summary: Mapping[str, Any], at_most: int = MAX_RIVALS) -> list[str]:
    """Who is trained again beside the winner: those not shown to differ, or no longer if the choice of the winner
    were paid for too, best first; else the runner-up."""
    unpaid = {found["b"] for found in summary["comparisons"] if (found["p_all_pairs"] or 0.0) >= ALPHA}
    order = [str(row["activation"]) for row in summary["ranking"] if row["activation"] != summary["winner"]]
    close = [name for name in order if name in unpaid.union(summary["indistinguishable_from_winner"])]
    return (close or order[:1])[:at_most]


def first_look(summary: Mapping[str, Any], winner: str, rival: str) -> dict[str, Any]:
    """Difference and verdict that the first comparison gave the same pair, seen from the winner."""
    found = comparison_of(summary["comparisons"], winner, rival) or {"difference": None, "verdict": None}
    return {"first_difference": found["difference"], "first_verdict": found["verdict"]}


# user attributes of a trial
HEALTH, CONVERGENCE = "health", "convergence"
# Networks whose pre-activations are looked at.
MAX_NETWORKS = 6


def attributes_of(result: TrialResult, monitor: HealthMonitor, target_sd: float) -> dict[str, list[Any]]:
    """Health and convergence of a trial's members as its study keeps them: rows of plain values."""
    reached = convergence_records(result.outcomes, target_sd)
    name = result.setting.label
    return {
        HEALTH: [_row(replace(record, activation=name)) for record in monitor.of(result.number)],
        CONVERGENCE: [_row(replace(record, activation=name)) for record in reached],
    }


def _row(record: HealthRecord | ConvergenceRecord) -> list[Any]:
    return list(jsonable(list(vars(record).values())))


def explaining_frames(attributes: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """health.csv and convergence.csv from the user attributes of finished trials."""
    health = [HealthRecord(*_numbers(row)) for own in attributes for row in own.get(HEALTH, [])]
    reached = [ConvergenceRecord(*_numbers(row)) for own in attributes for row in own.get(CONVERGENCE, [])]
    return to_frame(health, HealthRecord), to_frame(reached, ConvergenceRecord)


def _numbers(row: Sequence[Any]) -> list[Any]:
    return [math.nan if value is None else value for value in row]


def explain(
    frames: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    test_train_ratio: float,
    rope: float,
    networks: RunNetworks,
    settings: Mapping[int, Setting],
    references: Iterable[ReferencePrediction] = (),
) -> dict[str, Any]:
    """`claims`, `health` and `costs` of summary.json, for a run in which every activation had the same trials.

    With factors, the claims are about the variants of the first levels.

    Args:
        frames: members, health and convergence.
        test_train_ratio: Rows in the test fold over rows outside it.
        rope: `summary["rope"]`.
        networks: The run's networks; those of identity are checked by value.
        settings: Trial number to setting.
        references: Predictions of the references; ridge's scores are put beside identity's.
    """
    name_of = first_variants(settings)
    members, health, convergence = (_renamed(frame, name_of) for frame in frames)
    costs = costs_of(members, settings, networks)
    found = Measurements(
        members,
        test_train_ratio,
        rope,
        health=health,
        convergence=convergence,
        costs={name: (cost.activation_us, cost.network_us) for name, cost in costs.items()},
        deviation_from_affine=_identity_deviation(members, networks, settings),
        maxout_error={name: maxout_error(name) for name in ("relu", "leaky_relu")},
        ridge={(r.repeat, r.fold): r.score for r in references if r.name == "ridge"},
    )
    return {"claims": claims(found), "health": found.context(), "costs": median_costs(costs)}


def first_variants(settings: Mapping[int, Setting]) -> dict[str, str]:
    """The name of each activation's first variant, to the activation itself."""
    labels: dict[str, str] = {}
    for _, setting in sorted(settings.items()):
        labels.setdefault(setting.activation, setting.label)
    return {label: activation for activation, label in labels.items()}


def _renamed(frame: pd.DataFrame, name_of: Mapping[str, str]) -> pd.DataFrame:
    return frame[frame.activation.isin(name_of)].assign(activation=lambda rows: rows.activation.map(name_of))


def costs_of(members: pd.DataFrame, settings: Mapping[int, Setting], networks: RunNetworks) -> dict[str, StepCost]:
    """Step costs of every activation, each with the widths of its first trial, at the run's batch size."""
    widths: dict[str, tuple[int, ...]] = {}
    for trial in sorted(set(members.trial.tolist())):
        widths.setdefault(settings[trial].activation, settings[trial].hidden)
    first = int(members.trial.iloc[0])
    n_features = [network.n_features for network in networks.load(first, settings[first])]
    return step_costs(widths, max(n_features, default=1), networks.evaluation.data.batch_size)


def _identity_deviation(members: pd.DataFrame, networks: RunNetworks, settings: Mapping[int, Setting]) -> float:
    chosen = choose(members)
    own = networks.load_chosen(chosen[chosen.activation == "identity"], settings)
    return deviation_from_affine(own) if own else math.nan


def pre_activation_frame(own: Sequence[TrainedNetwork], networks: RunNetworks) -> pd.DataFrame:
    """pre_activations.csv: histograms of some networks of a run, each on its own inner-validation rows.

    Of more than `MAX_NETWORKS` evenly spaced ones.
    """
    shown = [own[place] for place in np.unique(np.linspace(0, len(own) - 1, MAX_NETWORKS).astype(int))]
    limit = n_rows(len(shown), max(max(network.member.hidden, default=1) for network in shown))

    def inputs(network: TrainedNetwork) -> torch.Tensor:
        rows = networks.splits[network.member.split].validation
        rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
        return torch.from_numpy(network.preprocessor.transform(networks.table.features.iloc[rows]))

    return to_frame(bin_records((network, inputs(network)) for network in shown), BinRecord)


PACKAGES = ("actlab", "torch", "lightning", "torchmetrics", "optuna", "numpy", "pandas", "scikit-learn", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def frames(done: Sequence[FrozenTrial]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """members.csv and curves.csv of trials that are done."""
    members = [MemberRecord(**_with_nan(row)) for trial in done for row in trial.user_attrs[MEMBERS]]
    curves = [CurveRecord(**_with_nan(row)) for trial in done for row in curve_rows(trial)]
    return to_frame(members, MemberRecord), to_frame(curves, CurveRecord)


def curve_rows(trial: FrozenTrial) -> list[dict[str, Any]]:
    """A trial's curves; they are stored without their names, which would take most of the room."""
    names = [field.name for field in fields(CurveRecord)]
    return [dict(zip(names, row, strict=True)) for row in trial.user_attrs[CURVES]]


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in row.items()}


def _searched(settings: Mapping[int, Setting]) -> dict[int, dict[str, str | float]]:
    """What trials can differ in besides activation and learning rate, for TensorBoard's table of settings."""
    return {
        number: {
            "hidden": level_text(setting.hidden),
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
    networks: RunNetworks
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
        summary = self._header(len(done))
        grid, ratio = self.configuration.compare, fold_ratio(summary)
        baseline = baseline_of(grid.baseline, variants_of(self.configuration))
        summary |= summarise(members, ratio, baseline, self.rates, self.is_equal_budget, grid.rope)
        chosen = choose(members)
        print("training the networks of the model on all rows outside their folds", file=sys.stderr)
        with PopulationProgress() as progress:
            networks, summary["ensemble"] = ship(self.networks, chosen, settings, grid, [progress])
        references = list(reference_predictions(self.table, self.splits, self.configuration.data))
        summary["references"] = mean_scores(references)
        if self.is_equal_budget:
            explaining = (members, health, convergence)
            summary |= explain(explaining, ratio, summary["rope"], self.networks, settings, references)
            if grid.confirm:
                summary["confirmation"] = self._confirm(members, summary, settings)
        else:
            summary["trials"] = _trial_rows(members, settings)
            summary["importances"] = importance_shares(study)
        summary["versions"] = versions()
        if networks:
            self._save(networks, summary)
        bins = self._pre_activations(chosen[chosen.activation == summary["winner"]], settings)
        write_comparison(self.run, members, curves, summary, _searched(settings), health, bins)
        draw_study(study, self.run.figures)
        write_json(self.run.summary, summary)
        write_report(self.run.path)
        # what the model needs is in the checkpoint; networks that are asked for again are trained again, bit by bit
        shutil.rmtree(self.run.weights, ignore_errors=True)
        return dict(jsonable(summary))

    def _confirm(
        self, members: pd.DataFrame, summary: Mapping[str, Any], settings: Mapping[int, Setting]
    ) -> dict[str, Any]:
        print("training the winner and its rivals again, with fresh seeds and folds", file=sys.stderr)
        with PopulationProgress() as progress:
            return confirm(
                self.networks.evaluation, self.table, members, summary, settings, self.run.weights, [progress]
            )

    def _pre_activations(self, winner: pd.DataFrame, settings: Mapping[int, Setting]) -> pd.DataFrame | None:
        """Histograms of the winner's networks; None where it has none that is finite."""
        own = self.networks.load_chosen(winner, settings)
        if not own:
            return None
        bins = pre_activation_frame(own, self.networks)
        write_frame(self.run.pre_activations, bins)
        return bins

    def _save(self, networks: Sequence[TrainedNetwork], summary: dict[str, Any]) -> None:
        """The networks as a model, and their out-of-fold predictions."""
        write_frame(self.run.predictions, self.networks.predictions(networks))
        scores = {"test_score": summary["ensemble"]["test_score"], "sha256": self.table.content_hash}
        config = jsonable(self.configuration.to_dict())
        save(self.networks.ensemble(networks, config, scores, versions()), self.run.checkpoint)

    def _header(self, n_trials: int) -> dict[str, Any]:
        configuration, table = self.configuration, self.table
        some = next(iter(self.splits.values()))
        return {
            "metric": Target.of(configuration.data.target_transform).metric,
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
