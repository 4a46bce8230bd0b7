"""Watches the health of a population while it trains, at the three moments that `HealthRecord` names."""

import time
from collections.abc import Iterator, Sequence

import lightning.pytorch as pl
import torch

from actlab.health import HealthRecord, Moment, StackHealth, measure
from actlab.module import PopulationModule
from actlab.population import StackTraining
from actlab.regressor import Regressor

# Members measured at once: bounds the memory of their activations and gradients.
CHUNK = 64


class HealthMonitor(pl.Callback):
    """Measures every member at the start, and with its best and its last weights when it leaves the population.

    One monitor may watch several fits; its records add up. `seconds` is the time it took of them.

    Lightning calls a callback's `on_train_epoch_end` and `on_train_end` before the module's own, so members that are
    done are still in their stacks. Members that a pruner takes out earlier have a `start` only, and one without a
    single finite score has no `best`.
    """

    def __init__(self) -> None:
        self.records: list[HealthRecord] = []
        self.seconds = 0.0

    def of(self, trial: int) -> list[HealthRecord]:
        """The records of one trial, in the order of split, layer and moment."""
        moments: list[Moment] = ["start", "best", "end"]
        own = [record for record in self.records if record.trial == trial]
        return sorted(own, key=lambda r: (r.repeat, r.fold, r.inner, r.layer, moments.index(r.moment)))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for training in _stacks(pl_module):
            self._observe(training, range(training.n_members), "start")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for training in _stacks(pl_module):
            self._leave(training, [row for row, p in enumerate(training.positions) if training.is_done(p)])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is still in training leaves now: the module is about to retire it."""
        for training in _stacks(pl_module):
            self._leave(training, range(training.n_members))

    def _leave(self, training: StackTraining, rows: Sequence[int]) -> None:
        has_best = [row for row in rows if training.outcomes[training.positions[row]].best_epoch > 0]
        self._observe(training, has_best, "best")
        self._observe(training, rows, "end")

    def _observe(self, training: StackTraining, rows: Sequence[int], moment: Moment) -> None:
        started = time.perf_counter()
        for start in range(0, len(rows), CHUNK):
            chunk = list(rows[start : start + CHUNK])
            members = [training.stack.members[row] for row in chunk]
            self.records += measure_rows(training, chunk, moment == "best").records(members, moment)
        self.seconds += time.perf_counter() - started


def measure_rows(training: StackTraining, rows: Sequence[int], is_best: bool) -> StackHealth:
    """Health of some members of a stack on their inner-validation rows, by their best or by their present weights."""
    whole = training.stack
    weights = training.best if is_best else whole.stacked()
    index = torch.tensor(list(rows), device=weights["weight_0"].device)
    chosen = {name: value.detach().index_select(0, index) for name, value in weights.items()}
    stack = Regressor([whole.members[r] for r in rows], [whole.n_features[r] for r in rows], chosen)
    stack.activation.to(weights["weight_0"])
    # the rows beyond n_validation only fill up the lanes
    own_rows = training.validation_rows.index_select(0, index)[:, : training.n_validation]
    return measure(stack, *training.tensors.gather(own_rows, training.n_features))


def _stacks(module: pl.LightningModule) -> Iterator[StackTraining]:
    if not isinstance(module, PopulationModule):
        raise TypeError(f"HealthMonitor watches a PopulationModule, got {type(module).__name__}")
    yield from module.training_stacks
