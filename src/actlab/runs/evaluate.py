"""Settings in, trained members out: `compare` and `search` evaluate with the same function.

Where the parts meet: settings in, trained members out. `compare` and `search` evaluate with the same function.
"""

import gc
import hashlib
import logging
import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from actlab import __version__
from actlab.data.datamodule import TabularDataModule
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.splits import make_splits
from actlab.data.table import MAX_CATEGORIES, Table
from actlab.members import Member, Split
from actlab.networks.machine import accelerator
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.networks.snapshots import SnapshotFiles, Snapshots
from actlab.run_files import CurveRecord, MemberRecord
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

# The preprocessed rows of the splits that train at the same time; more splits than fit train one wave after another.
SPLIT_BYTES = 1_500_000_000
# of float32, twice: a split's own rows, and beside those of the others on the device
FEATURE_BYTES = 8
# user attributes of a trial
MEMBERS, CURVES = "members", "curves"


@dataclass(frozen=True)
class Setting:
    """What a trial evaluates: one architecture with its optimiser settings.

    `name` is what results call it, where that is not the activation: an arm of a comparison with factors.
    """

    activation: str
    learning_rate: float
    weight_decay: float
    hidden: tuple[int, ...]
    dropout: float
    init: str
    name: str = ""

    @property
    def label(self) -> str:
        """The name in results."""
        return self.name or self.activation


@dataclass(frozen=True)
class Evaluation:
    """Everything a trial is evaluated with besides its setting: equal for all trials of a run.

    Args:
        data: How the CSV is read.
        protocol: Repeats, folds and inner parts; every trial trains one member on each.
        optimizer: Schedule and patience (learning rate and weight decay are the setting's).
        trainer: Arguments of Lightning's Trainer; `max_epochs` among them.
        seed: Seed of splits, initial weights and batch orders, each derived on its own.
    """

    data: DataSettings
    protocol: ProtocolSettings
    optimizer: OptimizerSettings
    trainer: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class TrialResult:
    """A trial's members, one for each split."""

    number: int
    setting: Setting
    outcomes: tuple[Outcome, ...]

    @property
    def value(self) -> float:
        """The mean inner-validation score, what studies minimise; nan when a member has none."""
        return statistics.fmean(outcome.val_score for outcome in self.outcomes)

    def member_records(self) -> list[MemberRecord]:
        return [replace(member_record(outcome), activation=self.setting.label) for outcome in self.outcomes]

    def curve_records(self) -> list[CurveRecord]:
        """Mean and spread of the members' curves, for as long as any of them trained."""
        longest = max(outcome.epochs for outcome in self.outcomes)
        return [_curve_record(self, epoch) for epoch in range(1, longest + 1)]


def member_record(outcome: Outcome) -> MemberRecord:
    member = outcome.member
    return MemberRecord(
        trial=member.trial,
        activation=member.activation,
        learning_rate=member.learning_rate,
        repeat=member.split.repeat,
        fold=member.split.fold,
        inner=member.split.inner,
        seed=member.seed,
        best_epoch=outcome.best_epoch,
        epochs=outcome.epochs,
        val_score=outcome.val_score,
        test_score=outcome.test_score,
        diverged=outcome.is_diverged,
        pruned=bool(outcome.pruned),
        n_parameters=outcome.n_parameters,
        seconds=outcome.seconds,
    )


def _curve_record(result: TrialResult, epoch: int) -> CurveRecord:
    running = [outcome for outcome in result.outcomes if outcome.epochs >= epoch]
    train = [outcome.train_curve[epoch - 1] for outcome in running]
    val = [outcome.val_curve[epoch - 1] for outcome in running]
    return CurveRecord(
        result.number,
        result.setting.label,
        result.setting.learning_rate,
        epoch,
        len(running),
        statistics.fmean(train),
        statistics.pstdev(train),
        statistics.fmean(val),
        statistics.pstdev(val),
    )


def evaluate(
    settings: dict[int, Setting],
    evaluation: Evaluation,
    table: Table,
    callbacks: Sequence[pl.Callback] = (),
    snapshots: Snapshots | None = None,
) -> list[TrialResult]:
    """Train every setting on every split of the protocol, as one population, and score it.

    Args:
        settings: Trial number to setting.
        evaluation: What is equal for all.
        table: The data, read once.
        callbacks: Lightning callbacks (progress, pruning).
        snapshots: From `snapshots_in`, for training that may be interrupted; the caller clears them.

    Returns:
        One result a setting, in the order given, whose outcomes follow the order of the splits.
    """
    splits = list(make_splits(table.n_rows, evaluation.protocol, evaluation.seed))
    members = [
        make_member(number, setting, split, evaluation.seed) for number, setting in settings.items() for split in splits
    ]
    outcomes: dict[int, list[Outcome]] = {number: [] for number in settings}
    for outcome in train_in_waves(members, evaluation, table, callbacks, snapshots):
        outcomes[outcome.member.trial].append(outcome)
    return [TrialResult(number, setting, tuple(outcomes[number])) for number, setting in settings.items()]


def snapshots_in(directory: Path, evaluation: Evaluation, table: Table) -> Snapshots:
    """Snapshots of populations that train with this evaluation on this table."""
    trainer = {key: value for key, value in evaluation.trainer.items() if key != "devices"}
    key = (__version__, replace(evaluation, data=replace(evaluation.data, csv=None), trainer=trainer))
    return Snapshots(directory, hashlib.sha256(repr((*key, table.content_hash)).encode()).hexdigest())


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
        with _freed_at_the_end():
            outcomes += train(group, evaluation, table, [*callbacks, *own], interrupted)
    return outcomes


@contextmanager
def _freed_at_the_end() -> Iterator[None]:
    """Free what is made in here and not needed any more: trainer, module and rows hold each other.

    Left to the collector, they would lie beside what comes next. It does not look at what was there before: that takes
    a third of a second for what has been imported alone.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


def make_member(number: int, setting: Setting, split: Split, seed: int, epochs: int = 0) -> Member:
    return Member(
        trial=number,
        activation=setting.activation,
        learning_rate=setting.learning_rate,
        split=split,
        seed=seed,
        hidden=setting.hidden,
        dropout=setting.dropout,
        init=setting.init,
        weight_decay=setting.weight_decay,
        epochs=epochs,
    )


def _waves(splits: list[Split], table: Table, evaluation: Evaluation) -> list[list[Split]]:
    """The splits in groups whose preprocessed rows fit in `SPLIT_BYTES`, estimated from the first split."""

    def fit_in(n_splits: int, n_features: int) -> bool:
        return n_splits * table.n_rows * n_features * FEATURE_BYTES <= SPLIT_BYTES

    most = sum(MAX_CATEGORIES + 2 if column.kind == "categorical" else 2 for column in table.schema.columns)
    if len(splits) == 1 or fit_in(len(splits), most):
        return [splits]
    rows = make_splits(table.n_rows, evaluation.protocol, evaluation.seed)[splits[0]].training
    n_features = fit_preprocessor(table.features, table.schema, rows, evaluation.data).n_features
    per_wave = next((n for n in range(len(splits), 1, -1) if fit_in(n, n_features)), 1)
    return [splits[start : start + per_wave] for start in range(0, len(splits), per_wave)]


def _datamodule(splits: Sequence[Split], evaluation: Evaluation, table: Table, is_refit: bool) -> TabularDataModule:
    datamodule = TabularDataModule(evaluation.protocol, evaluation.seed, splits, table, is_refit)
    datamodule.settings = evaluation.data
    return datamodule


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
    datamodule = _datamodule(splits, evaluation, table, any(lengths))
    module = PopulationModule(members, evaluation.optimizer)
    options = {**evaluation.trainer, "max_epochs": max(lengths)} if any(lengths) else evaluation.trainer
    trainer = make_trainer(options, callbacks)
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
