"""From a finished study to the files of the run directory."""

import math
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial

from actlab.config import Configuration
from actlab.data.splits import fold_sizes
from actlab.data.target import Target
from actlab.diagnostics import measures
from actlab.diagnostics.health import HealthMonitor, HealthRecord
from actlab.diagnostics.measures import BinRecord, ConvergenceRecord, StepCost
from actlab.networks.trained import TrainedNetwork
from actlab.report.optuna_figures import draw_study, importance_shares
from actlab.report.page import write_report
from actlab.report.tensorboard import write_comparison
from actlab.run_files import CurveRecord, MemberRecord, RunDirectory, jsonable, to_frame, write_frame, write_json
from actlab.runs.evaluate import (
    CURVES,
    MEMBERS,
    Setting,
    TrialResult,
    baseline_of,
    variants,
)
from actlab.runs.model_building import RunNetworks, ship
from actlab.runs.progress import PopulationProgress
from actlab.runs.references import mean_scores, reference_predictions
from actlab.settings import CompareSettings, ProtocolSettings
from actlab.verdict.claims import Measurements, claims
from actlab.verdict.race import Terms, default_budget, look_reached, run
from actlab.verdict.summary import choose, fold_ratio, repeat_scores, summarise

PACKAGES = ("actlab", "torch", "lightning", "torchmetrics", "optuna", "numpy", "pandas", "scikit-learn", "scipy")
# user attributes of a trial, which are also files of the run, and what their rows are
HEALTH, CONVERGENCE = "health", "convergence"
RECORDS: dict[str, type[Any]] = {
    MEMBERS: MemberRecord,
    CURVES: CurveRecord,
    HEALTH: HealthRecord,
    CONVERGENCE: ConvergenceRecord,
}
# Networks whose pre-activations are looked at.
MAX_NETWORKS = 6


def terms_of(asked: CompareSettings, n_settings: int) -> Terms:
    """What the race of so many settings is held under."""
    protocol = asked.splitting("compare")
    n_networks, n_repeats = protocol.folds * protocol.inner, protocol.repeats - 1
    if asked.protocol == "grid":
        return Terms.grid(n_networks, asked.rope, n_repeats)
    budget = asked.budget or default_budget(n_networks, n_settings)
    terms = Terms.race(n_networks, budget, asked.rope, n_repeats)
    if asked.confirm:
        reached = (look_reached(terms, n_settings) or (0, 0.0))[0]
        further = min((look for look, _ in terms.looks if look > reached), default=reached)
        terms = replace(terms, budget=max(budget, further * n_networks * n_settings))
    return terms


def score_of(trial: FrozenTrial, fold_sizes: Sequence[int]) -> float:
    """The root of the mean squared error over all rows that a cell's networks tested; nan where one has no score."""
    rows = trial.user_attrs[MEMBERS]
    total, n_inner = 0.0, len(rows) / len(fold_sizes)
    for row in rows:
        if row["test_score"] is None:
            return math.nan
        total += fold_sizes[row["fold"]] * row["test_score"] ** 2 / n_inner
    return math.sqrt(total / sum(fold_sizes))


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def attributes_of(result: TrialResult, monitor: HealthMonitor, target_sd: float) -> dict[str, list[Any]]:
    """A trial's records as its study keeps them: without names of columns, most of the room (members have them)."""
    records: dict[str, list[Any]] = {
        CURVES: result.curve_records(),
        HEALTH: monitor.of(result.number),
        CONVERGENCE: measures.convergence_records(result.outcomes, target_sd),
    }
    named = {key: [vars(one) | {"activation": result.setting.label} for one in own] for key, own in records.items()}
    rows = {key: [jsonable(list(record.values())) for record in own] for key, own in named.items()}
    return {MEMBERS: [jsonable(vars(record)) for record in result.member_records()], **rows}


def frames(attributes: Iterable[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Key of `RECORDS` to its frame, from the user attributes of finished trials."""
    kept = list(attributes)
    return {
        key: to_frame([_record(kind, row) for own in kept for row in own.get(key, [])], kind)
        for key, kind in RECORDS.items()
    }


def _record(kind: type[Any], row: Any) -> Any:
    values = row if isinstance(row, dict) else dict(zip([c.name for c in fields(kind)], row, strict=True))
    return kind(**{name: math.nan if value is None else value for name, value in values.items()})


def first_variants(settings: Mapping[int, Setting]) -> dict[str, str]:
    """The name of each activation's first variant, to the activation itself."""
    # later ones are overwritten by earlier ones
    labels = {setting.activation: setting.label for _, setting in sorted(settings.items(), reverse=True)}
    return {label: activation for activation, label in labels.items()}


def write_pre_activations(
    run: RunDirectory, own: Sequence[TrainedNetwork], networks: RunNetworks
) -> pd.DataFrame | None:
    """pre_activations.csv: up to `MAX_NETWORKS` networks, evenly spaced, each on its own inner-validation rows."""
    if not own:
        return None
    shown = [own[place] for place in np.unique(np.linspace(0, len(own) - 1, MAX_NETWORKS).astype(int))]
    limit = measures.n_rows(len(shown), max(max(network.member.hidden, default=1) for network in shown))

    def inputs(network: TrainedNetwork) -> torch.Tensor:
        rows = networks.splits[network.member.split].validation
        rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
        return torch.from_numpy(network.preprocessor.transform(networks.table.features.iloc[rows]))

    bins = to_frame(measures.bin_records((network, inputs(network)) for network in shown), BinRecord)
    write_frame(run.pre_activations, bins)
    return bins


@dataclass(frozen=True)
class ResultFiles:
    """What the files of a run are written from; `trials` are finished, in the order of the results, as `settings`."""

    command: str
    configuration: Configuration
    run: RunDirectory
    networks: RunNetworks
    study: optuna.Study
    trials: Sequence[FrozenTrial]
    settings: Mapping[int, Setting]

    def write(self) -> dict[str, Any]:
        """Every file of the run directory; returns the summary, which is written last."""
        self.run.sweep()
        records = frames(trial.user_attrs for trial in self.trials)
        for key, frame in records.items():
            write_frame(getattr(self.run, key), frame)
        members, asked, summary = records[MEMBERS], self.configuration, self._header()
        baseline, ratio = baseline_of(asked.compare.baseline, variants(asked)), fold_ratio(summary)
        is_comparison, sizes = self.command == "compare", fold_sizes(self.networks.table.n_rows, asked.compare.folds)
        terms = terms_of(asked.compare, members.activation.nunique())
        race = run(repeat_scores(members, sizes), terms) if is_comparison else None
        summary |= summarise(members, sizes, race, baseline, [] if is_comparison else asked.search.learning_rate)
        chosen = choose(members, is_comparison)
        print("training the networks of the model on all rows outside their folds", file=sys.stderr)
        with PopulationProgress() as progress:
            networks, summary["ensemble"] = ship(self.networks, chosen, self.settings, asked.compare, [progress])
        references = list(reference_predictions(self.networks.table, self.networks.splits, asked.data))
        summary["references"] = mean_scores(references)
        if is_comparison:
            ridge = {(one.repeat, one.fold): one.score for one in references if one.name == "ridge"}
            summary |= self._claims(records, ratio, asked.compare.rope, ridge)
        else:
            scores = members.groupby("trial").val_score.mean()
            summary["trials"] = [
                {"trial": number, "activation": setting.label, "learning_rate": setting.learning_rate}
                | setting.searched
                | {"val_score": float(scores[number])}
                for number, setting in self.settings.items()
            ]
            summary["importances"] = importance_shares(self.study)
        summary["versions"] = versions()
        if networks:
            self.networks.write_model(self.run, networks, jsonable(asked.to_dict()), versions())
        winner = self.networks.load_chosen(chosen[chosen.activation == summary["winner"]], self.settings)
        bins = write_pre_activations(self.run, winner, self.networks)
        searched = {number: setting.searched for number, setting in self.settings.items()}
        write_comparison(self.run, members, records[CURVES], summary, searched, records[HEALTH], bins)
        draw_study(self.study, self.run.figures)
        write_json(self.run.summary, summary)
        write_report(self.run.path)
        # what the model needs is in the checkpoint; networks that are asked for again are trained again, bit by bit
        shutil.rmtree(self.run.weights, ignore_errors=True)
        return dict(jsonable(summary))

    def _claims(
        self, records: Mapping[str, pd.DataFrame], ratio: float, rope: float, ridge: Mapping[tuple[int, int], float]
    ) -> dict[str, Any]:
        """`claims`, `health` and `costs` of summary.json; with factors, about the variants of the first levels."""
        name_of = first_variants(self.settings)
        members, health, convergence = (
            frame[frame.activation.isin(name_of)].assign(activation=lambda rows: rows.activation.map(name_of))
            for frame in (records[MEMBERS], records[HEALTH], records[CONVERGENCE])
        )
        costs = self._costs(members)
        chosen = choose(members, is_comparison=True)
        linear = self.networks.load_chosen(chosen[chosen.activation == "identity"], self.settings)
        measured = Measurements(
            members,
            ratio,
            rope,
            health=health,
            convergence=convergence,
            costs={name: (cost.activation_us, cost.network_us) for name, cost in costs.items()},
            deviation_from_affine=measures.deviation_from_affine(linear) if linear else math.nan,
            maxout_error={name: measures.maxout_error(name) for name in ("relu", "leaky_relu")},
            ridge=ridge,
        )
        return {"claims": claims(measured), "health": measured.context(), "costs": measures.median_costs(costs)}

    def _costs(self, members: pd.DataFrame) -> dict[str, StepCost]:
        """Step costs of every activation, each with the widths of its first trial, at the run's batch size."""
        widths: dict[str, tuple[int, ...]] = {}
        for trial in sorted(set(members.trial.tolist())):
            widths.setdefault(self.settings[trial].activation, self.settings[trial].hidden)
        first = int(members.trial.iloc[0])
        n_features = [network.n_features for network in self.networks.load(first, self.settings[first])]
        return measures.step_costs(widths, max(n_features, default=1), self.configuration.data.batch_size)

    def _header(self) -> dict[str, Any]:
        configuration, table = self.configuration, self.networks.table
        some = next(iter(self.networks.splits.values()))
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
                **{column.name: getattr(configuration.compare, column.name) for column in fields(ProtocolSettings)},
                **{f"n_{part}": len(rows) for part, rows in vars(some).items()},
                "n_trials": len(self.trials),
                "max_epochs": configuration.trainer["max_epochs"],
                "patience": configuration.optimizer.patience,
                "hidden": configuration.model.hidden,
                "seed": configuration.seed,
            },
        }
