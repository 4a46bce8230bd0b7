"""Settings in, trained networks out: what a trial's parameters stand for, and the one function that evaluates it.

`compare` pairs, ranks and compares variants: activations, crossed with the levels of other settings (its factors). A
level becomes part of the variant's name (`relu [init=torch]`). With matched parameters an activation that learns more
numbers per unit gets narrower layers.
"""

import gc
import hashlib
import logging
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from actlab import __version__, activations
from actlab.config import Configuration
from actlab.data.datamodule import TabularDataModule
from actlab.data.preprocessing import DATE_INPUTS, fit_preprocessor
from actlab.data.splits import make_splits, splits_of
from actlab.data.table import Table
from actlab.errors import InputError
from actlab.members import Member, Split
from actlab.networks.machine import accelerator
from actlab.networks.module import PopulationModule
from actlab.networks.network import layer_shapes
from actlab.networks.population import Outcome, by_trial, mean_score
from actlab.networks.snapshots import SnapshotFiles, Snapshots
from actlab.run_files import CurveRecord, MemberRecord
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

# The preprocessed rows of the splits that train at the same time; more splits than fit train one wave after another.
SPLIT_BYTES = 1_500_000_000
# of float32, twice: a split's own rows, and beside those of the others on the device
FEATURE_BYTES = 8
# user attributes of a trial
MEMBERS, CURVES = "members", "curves"
# settings of the network that can be factors, and the section of the configuration each comes from
FACTORS = {"init": "model", "dropout": "model", "hidden": "model", "weight_decay": "optimizer"}


@dataclass(frozen=True)
class Setting:
    """What a trial evaluates; `name` is what results call it where that is not the activation (factors)."""

    activation: str
    learning_rate: float
    weight_decay: float
    hidden: tuple[int, ...]
    dropout: float
    init: str
    name: str = ""

    @classmethod
    def of(cls, activation: str, configuration: Configuration, name: str = "") -> "Setting":
        """The activation with everything else as configured."""
        model, own = configuration.model, configuration.optimizer
        hidden = tuple(model.hidden)
        return cls(activation, own.learning_rate, own.weight_decay, hidden, model.dropout, model.init, name)

    @property
    def label(self) -> str:
        return self.name or self.activation

    @property
    def searched(self) -> dict[str, str | float]:
        """What trials can differ in besides activation and learning rate."""
        hidden = level_text(self.hidden)
        return {"hidden": hidden, "dropout": self.dropout, "weight_decay": self.weight_decay, "init": self.init}


def variants(configuration: Configuration) -> list[Setting]:
    """What `compare` compares: activations with every combination of levels, the last factor's changing fastest.

    Their learning rate is the configuration's own, not one of those compared.

    Raises:
        InputError: an unknown factor, one without levels or with a level twice, or a level that its setting refuses.
    """
    factors = configuration.compare.factors
    for key, levels in factors.items():
        if key not in FACTORS:
            raise InputError(f"compare.factors must be among {', '.join(FACTORS)}, got {key!r}")
        if not isinstance(levels, list | tuple) or not levels:
            raise InputError(f"compare.factors.{key} must be a list of levels, got {levels!r}")
        if len({level_text(level) for level in levels}) < len(levels):
            raise InputError(f"compare.factors.{key} must not name a level twice, got {list(levels)!r}")
    return [
        _variant(name, dict(zip(factors, levels, strict=True)), configuration)
        for name in configuration.compare.activations
        for levels in product(*factors.values())
    ]


def level_text(level: Any) -> str:
    """A level as part of a name: `torch`, `0.1`, `64-32`."""
    return "-".join(map(str, level)) if isinstance(level, list | tuple) else str(level)


def _variant(activation: str, levels: Mapping[str, Any], configuration: Configuration) -> Setting:
    for key, level in levels.items():
        if key == "init" and level not in ("auto", "torch"):
            raise InputError(f"compare.factors.init must be auto or torch, got {level!r}")
        section = FACTORS[key]
        try:
            changed: Any = replace(getattr(configuration, section), **{key: level})
        except TypeError as error:
            raise InputError(f"compare.factors.{key} cannot be {level!r}") from error
        configuration = replace(configuration, **{section: changed})
    label = ", ".join(f"{key}={level_text(level)}" for key, level in levels.items())
    return Setting.of(activation, configuration, f"{activation} [{label}]" if label else "")


def baseline_of(baseline: str, among: Sequence[Setting]) -> str:
    """The name of the first variant of the baseline activation; the baseline itself where it has none, or is one."""
    return next((one.label for one in among if baseline in (one.label, one.activation)), baseline)


def setting_of(params: Mapping[str, Any], configuration: Configuration, n_features: int) -> Setting:
    """A trial's parameters, with its variant's own values for what is not searched.

    `params` has `activation` (the name of a variant, or an activation in a search) and what is searched besides.
    """
    name = params["activation"]
    plain = Setting.of(name, configuration)
    variant = next((one for one in variants(configuration) if one.label == name), plain)
    searched = {key: value for key, value in params.items() if key not in ("activation", "hidden")}
    hidden = tuple(map(int, params["hidden"].split("-"))) if params.get("hidden") else variant.hidden
    if configuration.compare.match_parameters:
        hidden = widths_for(variant.activation, hidden, n_features)
    return replace(variant, **searched, hidden=hidden)


def n_parameters(activation: str, hidden: Sequence[int], n_features: int) -> int:
    """Learned numbers of one network: weights, biases, and what its activations learn."""
    row = activations.get(activation)
    n_learned = sum(parameter.numel() for parameter in row.build().parameters())
    shapes = layer_shapes(n_features, tuple(hidden), row.width_factor)
    return sum(n_out * (n_in + 1) for n_out, n_in in shapes) + n_learned * len(hidden)


def widths_for(activation: str, hidden: Sequence[int], n_features: int) -> tuple[int, ...]:
    """Hidden widths at which the activation has as many parameters as a plain one has at `hidden`, or nearly so.

    All layers are narrowed in proportion, each to whole units, to the number of parameters that is nearest; of equally
    near ones, the wider. An activation that learns next to nothing of its own (prelu: one number a layer) keeps its
    widths, because no unit is worth so little.
    """
    target = n_parameters("identity", hidden, n_features)
    n_steps = 8 * max(hidden)
    candidates = dict.fromkeys(
        tuple(max(1, round(width * step / n_steps)) for width in hidden) for step in range(n_steps, 0, -1)
    )
    return min(candidates, key=lambda widths: abs(n_parameters(activation, widths, n_features) - target))


@dataclass(frozen=True)
class Evaluation:
    """Everything a trial is evaluated with besides its setting: equal for all trials of a run.

    `protocol` says how rows are split. Learning rate and weight decay are the setting's, not those of `optimizer`.
    `trainer` has arguments of Lightning's Trainer, `max_epochs` among them. Splits, initial
    weights and batch orders are each derived from `seed` on their own.
    """

    data: DataSettings
    protocol: ProtocolSettings
    optimizer: OptimizerSettings
    trainer: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def of(cls, asked: Configuration, command: str) -> "Evaluation":
        """As a command has it."""
        return cls(asked.data, asked.compare.splitting(command), asked.optimizer, asked.trainer, asked.seed)


@dataclass(frozen=True)
class Work:
    """What a trial trains: one network of its setting on every split of its repeats."""

    setting: Setting
    repeats: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class TrialResult:
    """A trial's members, one for each split."""

    number: int
    setting: Setting
    outcomes: tuple[Outcome, ...]

    @property
    def value(self) -> float:
        """The mean inner-validation score, what studies minimise; infinite when a member has none."""
        return mean_score(self.outcomes)

    def member_records(self) -> list[MemberRecord]:
        return [replace(member_record(outcome), activation=self.setting.label) for outcome in self.outcomes]

    def curve_records(self) -> list[CurveRecord]:
        """Mean and spread of the members' curves, for as long as any of them trained."""
        records = []
        for epoch in range(1, max(outcome.epochs for outcome in self.outcomes) + 1):
            running = [outcome for outcome in self.outcomes if outcome.epochs >= epoch]
            curves = [[o.train_curve[epoch - 1] for o in running], [o.val_curve[epoch - 1] for o in running]]
            spreads = [number for values in curves for number in mean_and_spread(values)]
            named = (self.number, self.setting.label, self.setting.learning_rate)
            records.append(CurveRecord(*named, epoch, len(running), *spreads))
        return records


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation; the latter nan where a value is not finite."""
    is_finite = all(map(math.isfinite, values))
    return statistics.fmean(values), statistics.pstdev(values) if is_finite else math.nan


def member_record(outcome: Outcome) -> MemberRecord:
    """The row of members.csv of one member."""
    member = outcome.member
    # the epochs trained, not those that the member was given
    sources = vars(member) | vars(member.split) | vars(outcome)
    sources |= {"diverged": outcome.is_diverged, "pruned": bool(outcome.pruned)}
    return MemberRecord(**{column.name: sources[column.name] for column in fields(MemberRecord)})


def evaluate(
    work: Mapping[int, Work],
    evaluation: Evaluation,
    table: Table,
    callbacks: Sequence[pl.Callback] = (),
    snapshots: Snapshots | None = None,
) -> list[TrialResult]:
    """Train the settings of trials (by number) on the splits of their repeats, as one population, and score them.

    The caller clears the `snapshots`. Results are in the order of the work, their outcomes in that of the splits.
    """
    members = [
        make_member(number, own.setting, split, evaluation.seed)
        for number, own in work.items()
        for split in splits_of(own.repeats, evaluation.protocol)
    ]
    outcomes = by_trial(train_in_waves(members, evaluation, table, callbacks, snapshots))
    return [TrialResult(number, own.setting, tuple(outcomes[number])) for number, own in work.items()]


def snapshots_in(directory: Path, evaluation: Evaluation, table: Table, keeps_results: bool = False) -> Snapshots:
    """Snapshots of populations that train with this evaluation on this table; see `Snapshots` for the rest."""
    trainer = {key: value for key, value in evaluation.trainer.items() if key != "devices"}
    key = (__version__, replace(evaluation, data=replace(evaluation.data, csv=None, test_csv=None), trainer=trainer))
    return Snapshots(directory, hashlib.sha256(repr((*key, table.content_hash)).encode()).hexdigest(), keeps_results)


def train_in_waves(
    members: Sequence[Member],
    evaluation: Evaluation,
    table: Table,
    callbacks: Sequence[pl.Callback] = (),
    snapshots: Snapshots | None = None,
) -> list[Outcome]:
    """Train members of any splits of the protocol: in one population, or in several where their rows need it.

    What was interrupted goes on as a population of its own. The outcomes come population by population, within one in
    the order of the members.
    """
    splits = list(dict.fromkeys(member.split for member in members))
    waves = [[one for one in members if one.split in wave] for wave in _waves(splits, table, evaluation)]
    groups = [group for wave in waves for group in (snapshots.groups(wave) if snapshots else [(wave, None)])]
    outcomes: list[Outcome] = []
    for number, (group, interrupted) in enumerate(groups, 1):
        own = [snapshots.callback(group, is_last=number == len(groups))] if snapshots else []
        # Trainer, module and rows hold each other: left to the collector, they would lie beside what comes next. What
        # was there before it need not look at, which takes a third of a second for what has been imported alone.
        gc.freeze()
        try:
            outcomes += train(group, evaluation, table, [*callbacks, *own], interrupted)
        finally:
            gc.collect()
            gc.unfreeze()
    return outcomes


def make_member(number: int, setting: Setting, split: Split, seed: int, epochs: int = 0) -> Member:
    """The network of a trial on one split; with `epochs` it trains that long and holds no rows back."""
    network = {key: value for key, value in vars(setting).items() if key != "name"}
    return Member(trial=number, split=split, seed=seed, epochs=epochs, **network)


def _waves(splits: list[Split], table: Table, evaluation: Evaluation) -> list[list[Split]]:
    """The splits in groups whose preprocessed rows fit in `SPLIT_BYTES`, estimated from the first split."""
    feature_bytes = table.n_rows * FEATURE_BYTES
    most_categories = evaluation.data.max_categories + 1
    most = sum(most_categories if column.kind == "categorical" else DATE_INPUTS for column in table.schema.columns)
    if len(splits) == 1 or len(splits) * most * feature_bytes <= SPLIT_BYTES:
        return [splits]
    rows = make_splits(table.layout, evaluation.protocol, evaluation.seed)[splits[0]].training
    n_features = fit_preprocessor(table.features, table.schema, rows, evaluation.data, table.target).n_features
    per_wave = max(1, SPLIT_BYTES // (n_features * feature_bytes))
    return [splits[start : start + per_wave] for start in range(0, len(splits), per_wave)]


def train(
    members: Sequence[Member],
    evaluation: Evaluation,
    table: Table,
    callbacks: Sequence[pl.Callback],
    interrupted: Path | None = None,
) -> list[Outcome]:
    """Train members as one population and score each on its test rows, once; outcomes in the order of the members.

    Either all members have a given length, or all stop early. `interrupted` is a snapshot to go on from.
    """
    lengths = [member.epochs for member in members]
    if any(lengths) and not all(lengths):
        raise ValueError("members of a given length and members that stop early have different training rows")
    splits = list(dict.fromkeys(member.split for member in members))
    datamodule = TabularDataModule(
        evaluation.data, evaluation.protocol, evaluation.seed, splits, table, is_refit=any(lengths)
    )
    module = PopulationModule(members, evaluation.optimizer)
    given = {"max_epochs": max(lengths)} if any(lengths) else {}
    trainer = make_trainer(evaluation.trainer | given, callbacks)
    trainer.fit(module, datamodule=datamodule, ckpt_path=interrupted)
    trainer.test(module, datamodule=datamodule, verbose=False)
    for callback in callbacks:
        # Lightning hangs methods of the module on callbacks, and these outlive it
        for name in ("log", "log_dict"):
            vars(callback).pop(name, None)
    return module.outcomes


def make_trainer(options: dict[str, Any], callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Lightning's Trainer with what a population does for itself switched off; `options` have the last word."""
    # Lightning says what hardware it found, once a Trainer; a run has several and shows its own progress
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # asked of torch by Lightning 2.6, nothing that a user could change
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    quiet = {
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "devices": 1,
    }
    where = accelerator(options.get("accelerator", "auto"))
    plugins: Any = [SnapshotFiles()] if quiet["enable_checkpointing"] else None
    return pl.Trainer(**{**quiet, **options, "accelerator": where}, callbacks=list(callbacks), plugins=plugins)
