"""From a finished study to the files of the run directory."""

import math
import platform
import shutil
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial

from actlab.config import Configuration
from actlab.data.layout import RowLayout, without_gaps
from actlab.data.splits import Rows, splits_of
from actlab.data.table import Table
from actlab.data.target import Target
from actlab.data.windows import N_UNITS, time_blocks
from actlab.diagnostics import measures
from actlab.diagnostics.health import HealthMonitor, HealthRecord
from actlab.diagnostics.measures import BinRecord, ConvergenceRecord, StepCost
from actlab.members import Split
from actlab.model.checkpoint import config_hash
from actlab.networks.trained import TrainedNetwork
from actlab.report.optuna_figures import draw_study, importance_shares
from actlab.report.page import write_report
from actlab.report.tensorboard import write_comparison
from actlab.run_files import (
    CurveRecord,
    MemberRecord,
    OutOfFold,
    RunDirectory,
    jsonable,
    to_frame,
    write_frame,
    write_json,
    write_out_of_fold,
)
from actlab.runs.evaluate import CURVES, MEMBERS, Setting, TrialResult, baseline_of, variants
from actlab.runs.model_building import Float32Array, RunNetworks, ship
from actlab.runs.progress import PopulationProgress
from actlab.runs.references import mean_scores, reference_predictions, test_file_scores
from actlab.settings import CompareSettings, ProtocolSettings
from actlab.verdict.claims import Measurements, claims
from actlab.verdict.race import Race, Terms, default_budget, look_reached
from actlab.verdict.race import run as run_race
from actlab.verdict.simultaneous import FloatArray, RowNoise, Units, row_sums
from actlab.verdict.summary import choose, race_record, repeat_scores, summarise
from actlab.verdict.what_matters import ACTIVATION, what_matters

PACKAGES = ("actlab", "torch", "lightning", "torchmetrics", "optuna", "numpy", "pandas", "scikit-learn", "scipy")
# user attributes of a trial, which are also files of the run, and what their rows are
HEALTH, CONVERGENCE = "health", "convergence"
RECORDS: dict[str, type[Any]] = {
    MEMBERS: MemberRecord,
    CURVES: CurveRecord,
    HEALTH: HealthRecord,
    CONVERGENCE: ConvergenceRecord,
}
# keys of the Trainer that are about a machine
MACHINE_KEYS = ("devices", "accelerator", "enable_progress_bar")
# user attribute of a trial that counts: what its networks predict for rows that they never saw, standardised
PREDICTIONS = "standardised_predictions"
# Rows beyond which predictions are not kept for each network.
MANY_ROWS = 200_000
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


def asked_hash(asked: Configuration) -> str:
    """Of everything that the results of a run depend on: not where its tables lie, nor what the machine is."""
    content = jsonable(asked.compared())
    for key in ("csv", "test_csv"):
        content["data"].pop(key)
    for key in MACHINE_KEYS:
        content["trainer"].pop(key, None)
    return config_hash(content)


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def attributes_of(
    result: TrialResult, monitor: HealthMonitor, target_sd: float, predictions: Float32Array | None = None
) -> dict[str, Any]:
    """A trial's records as its study keeps them: without names of columns, most of the room (members have them).

    `predictions` (draws, n) are those of rows that its networks never saw; they are what later looks need.
    """
    records: dict[str, list[Any]] = {
        CURVES: result.curve_records(),
        HEALTH: monitor.of(result.number),
        CONVERGENCE: measures.convergence_records(result.outcomes, target_sd),
    }
    named = {key: [vars(one) | {"activation": result.setting.label} for one in own] for key, own in records.items()}
    rows = {key: [jsonable(list(record.values())) for record in own] for key, own in named.items()}
    kept = {} if predictions is None else {PREDICTIONS: b64encode(predictions.tobytes()).decode()}
    return {MEMBERS: [jsonable(vars(record)) for record in result.member_records()], **rows, **kept}


def predictions_of(trial: FrozenTrial, n_rows: int) -> Float32Array | None:
    """What `attributes_of` kept; None where there are too many rows, or the trial does not count."""
    text = trial.user_attrs.get(PREDICTIONS)
    return None if text is None else np.frombuffer(b64decode(text), dtype=np.float32).reshape(-1, n_rows)


def frames(trials: Iterable[FrozenTrial]) -> dict[str, pd.DataFrame]:
    """Key of `RECORDS` to its frame, from finished trials; `trial` is their place among these."""
    kept = [trial.user_attrs for trial in trials]
    return {
        key: to_frame([_record(kind, row, place) for place, own in enumerate(kept) for row in own.get(key, [])], kind)
        for key, kind in RECORDS.items()
    }


def _record(kind: type[Any], row: Any, place: int) -> Any:
    values = row if isinstance(row, dict) else dict(zip([c.name for c in fields(kind)], row, strict=True))
    return kind(**{name: math.nan if value is None else value for name, value in values.items()} | {"trial": place})


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


def units_of(layout: RowLayout, tested: Rows) -> Units:
    """What is drawn anew when new rows are: tested rows, groups of them, or stretches of time."""
    if layout.groups is None and layout.time is None and layout.weights is None:
        return Units.rows(len(tested))
    weights = np.ones(layout.n_rows) if layout.weights is None else layout.weights
    if layout.time is not None:
        return Units(time_blocks(layout.time[tested], N_UNITS), weights[tested])
    groups = np.arange(layout.n_rows) if layout.groups is None else layout.groups
    return Units(without_gaps(groups[tested]), weights[tested])


@dataclass(frozen=True)
class ResultFiles:
    """What the files of a run are written from; `trials` are finished, in the order of the results, as `settings`. The
    rows of `test` are scored at the end."""

    command: str
    configuration: Configuration
    run: RunDirectory
    networks: RunNetworks
    study: optuna.Study
    trials: Sequence[FrozenTrial]
    settings: Mapping[int, Setting]
    test: Table | None = None

    @property
    def is_comparison(self) -> bool:
        return self.command == "compare"

    def write(self) -> dict[str, Any]:
        """Every file of the run directory; returns the summary, which is written last."""
        self.run.sweep()
        records = frames(self.trials)
        for key, frame in records.items():
            write_frame(getattr(self.run, key), frame)
        members, asked, summary = records[MEMBERS], self.configuration, self._header()
        splits = self.networks.splits
        chosen = choose(members, self.is_comparison)
        predictions = self.predictions(chosen)
        race = self._race(members, predictions) if self.is_comparison else None
        baseline = baseline_of(asked.compare.baseline, variants(asked))
        summary["protocol"] |= race_record(race, members) | self._layout(members)
        summary |= summarise(
            members, splits.test_sizes, race, baseline, () if self.is_comparison else asked.search.learning_rate
        )
        self._write_out_of_fold(chosen, predictions)
        where = "earlier than" if self.networks.is_timed else "outside"
        print(f"training the networks of the model on all rows {where} their folds", file=sys.stderr)
        with PopulationProgress() as progress:
            own = {name: np.concatenate(list(repeats.values())) for name, repeats in predictions.items()}
            networks, summary["ensemble"] = ship(self.networks, chosen, own, self.settings, asked.compare, [progress])
        once = splits_of([self.first_repeat], self._once)
        rows = {split: splits[split] for split in once if split.fold >= self.networks.first_fold}
        references = list(reference_predictions(self.networks.table, rows, asked.data))
        summary["references"] = mean_scores(references)
        if race is not None:
            levels: dict[str, dict[str, Any]] = {
                one.label: {ACTIVATION: one.activation} | {key: one.searched[key] for key in asked.compare.factors}
                for one in self.settings.values()
            }
            summary["what_matters"] = what_matters(members, race, splits.test_sizes, levels)
            summary |= self._claims(records, race)
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
            model = self.networks.write_model(self.run, networks, jsonable(asked.to_dict()), versions())
            if self.test is not None:
                summary["test_file"] = test_file_scores(model, self.networks.table, self.test, asked.data)
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

    @property
    def first_repeat(self) -> int:
        """That counts: a comparison's 0 is its sweep."""
        return int(self.is_comparison)

    @property
    def _once(self) -> ProtocolSettings:
        """The protocol without inner parts."""
        return replace(self.networks.evaluation.protocol, inner=1)

    def predictions(self, chosen: pd.DataFrame) -> dict[str, dict[int, Float32Array]]:
        """Activation to repeat to (inner, n) predictions of rows by networks that never saw them, standardised, as far
        as all networks of the repeat have some."""
        found: dict[str, dict[int, Float32Array]] = {}
        for name, trial in chosen[["activation", "trial"]].drop_duplicates().itertuples(index=False, name=None):
            repeats = sorted(set(chosen[chosen.trial == trial].repeat))
            kept = predictions_of(self.trials[trial], self.networks.table.n_rows)
            if kept is None:
                networks = self.networks.load(trial, self.settings[trial], repeats)
                kept = self.networks.out_of_fold(networks, repeats)
            for repeat, own in zip(repeats, np.split(kept, len(repeats)), strict=True):
                if np.isfinite(own[:, self.networks.splits.tested]).all():
                    found.setdefault(str(name), {})[repeat] = own
        return found

    def _race(self, members: pd.DataFrame, predictions: Mapping[str, Mapping[int, Float32Array]]) -> Race:
        """With what the errors of rows say of new ones."""
        splits = self.networks.splits
        scores = repeat_scores(members, splits.test_sizes)
        entered = {name: scores.get(name, []) for name in dict.fromkeys(members.activation) if name in scores}
        terms = terms_of(self.configuration.compare, len(set(members.activation)))
        n_repeats = max(map(len, entered.values()), default=0)

        def squared_errors() -> Iterator[dict[str, FloatArray]]:
            for repeat in range(1, n_repeats + 1):
                own = {name: repeats[repeat] for name, repeats in predictions.items() if repeat in repeats}
                yield {name: self.networks.squared_errors(values)[splits.tested] for name, values in own.items()}

        units = units_of(self.networks.table.layout, splits.tested)
        looks = [look for look, _ in terms.looks if look <= n_repeats]
        sums = row_sums(squared_errors(), units, looks) if looks else {}
        return run_race(entered, terms, RowNoise(units, self.configuration.compare.folds, sums))

    def _write_out_of_fold(self, chosen: pd.DataFrame, predictions: Mapping[str, Mapping[int, Float32Array]]) -> None:
        rates = chosen.groupby("activation").learning_rate.first()
        is_large = self.networks.table.n_rows > MANY_ROWS
        content = {}
        for name, repeats in predictions.items():
            kept = np.stack(list(repeats.values()))
            squares = np.sum([self.networks.squared_errors(own) for own in kept], axis=0)
            scaler = self.networks.scaler
            row = (None, squares) if is_large else (kept * np.float64(scaler.sd) + scaler.mean, None)
            content[name] = OutOfFold(float(rates[name]), tuple(repeats), *row)
        write_out_of_fold(self.run, self.networks.truth, content)

    def _claims(self, records: Mapping[str, pd.DataFrame], race: Race) -> dict[str, Any]:
        """`claims`, `health` and `costs` of summary.json; with factors, about the variants of the first levels."""
        name_of = first_variants(self.settings)
        members, health, convergence = (
            frame[frame.activation.isin(name_of)].assign(activation=lambda rows: rows.activation.map(name_of))
            for frame in (records[MEMBERS], records[HEALTH], records[CONVERGENCE])
        )
        chosen = choose(members, is_comparison=True)
        costs = self._costs(members, chosen)
        linear = self.networks.load_chosen(chosen[chosen.activation == "identity"], self.settings)
        measured = Measurements(
            members,
            chosen,
            race,
            1 / (self.configuration.compare.folds - 1),
            label_of={activation: label for label, activation in name_of.items()},
            health=health,
            convergence=convergence,
            costs={name: (cost.activation_us, cost.network_us) for name, cost in costs.items()},
            deviation_from_affine=measures.deviation_from_affine(linear) if linear else math.nan,
            maxout_error={name: measures.maxout_error(name) for name in ("relu", "leaky_relu")},
        )
        return {"claims": claims(measured), "health": measured.context(), "costs": measures.median_costs(costs)}

    def _costs(self, members: pd.DataFrame, chosen: pd.DataFrame) -> dict[str, StepCost]:
        """Step costs of every activation, each with the widths of its first trial, at the run's batch size."""
        widths: dict[str, tuple[int, ...]] = {}
        for trial in sorted(set(members.trial.tolist())):
            widths.setdefault(self.settings[trial].activation, self.settings[trial].hidden)
        networks = self.networks.load_chosen(chosen[chosen.activation == chosen.activation.min()], self.settings)
        n_features = [network.n_features for network in networks]
        return measures.step_costs(widths, max(n_features, default=1), self.configuration.data.batch_size)

    def _terms(self) -> dict[str, Any]:
        """What the race was held under."""
        if not self.is_comparison:
            return {}
        asked = self.configuration.compare
        budget = terms_of(asked, len(variants(self.configuration))).budget if asked.protocol == "race" else None
        return {"rope": asked.rope, "budget": budget}

    def _layout(self, members: pd.DataFrame) -> dict[str, Any]:
        """What is not as in a table of single rows that are split at random."""
        splits = self.networks.splits
        layout = splits.layout
        if layout.is_plain:
            return {}
        return {
            "layout": layout.digest,
            "unit": layout.unit,
            "n_units": units_of(layout, splits.tested).n,
            "has_given_splits": layout.has_given_splits,
            "fold_sizes": [splits.test_sizes(repeat) for repeat in range(int(members.repeat.max()) + 1)],
        }

    def _header(self) -> dict[str, Any]:
        configuration, table = self.configuration, self.networks.table
        some, protocol = self.networks.splits[Split(self.first_repeat, 0, 0)], self.networks.evaluation.protocol
        return {
            "metric": Target.of(configuration.data.target_transform).metric,
            "command": self.command,
            **{"warnings": list(table.warnings), "notes": list(table.notes)},
            "data": {
                "csv": configuration.data.csv,
                "target": table.schema.target,
                "n_rows": table.n_rows,
                "n_columns": len(table.schema.columns),
                "sha256": table.content_hash,
                **{key: value for key in ("time", "test_csv") if (value := getattr(configuration.data, key))},
            },
            "protocol": {
                "protocol": configuration.compare.protocol if self.is_comparison else "search",
                **vars(protocol),
                "repeats": protocol.repeats - self.first_repeat,
                "n_rows": table.n_rows,
                **{f"n_{part}": len(rows) for part, rows in vars(some).items()},
                **self._terms(),
                "configuration": asked_hash(configuration),
                "n_trials": len(self.trials),
                "max_epochs": configuration.trainer["max_epochs"],
                "patience": configuration.optimizer.patience,
                "hidden": configuration.model.hidden,
                "seed": configuration.seed,
            },
        }
