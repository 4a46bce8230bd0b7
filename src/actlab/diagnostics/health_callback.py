"""Watches the health of a population while it trains, at the three moments that `HealthRecord` names."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import lightning.pytorch as pl
import torch
from torch import Tensor

from actlab.diagnostics.health import HealthRecord, Moment, measure
from actlab.members import Member
from actlab.networks.module import PopulationModule
from actlab.networks.population import StackTraining
from actlab.networks.regressor import Regressor

# Members measured at once: bounds the memory of their activations and gradients, and of the weights that wait.
CHUNK = 64


@dataclass
class Waiting:
    """Weights of equal shape that are to be measured together, on features (B, F) and targets (B,) of their members."""

    members: list[Member] = field(default_factory=list)
    n_features: list[int] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    def records(self) -> list[HealthRecord]:
        """Health of all that waits."""
        stacked = {name: torch.stack([own[name] for own in self.weights]) for name in self.weights[0]}
        stack = Regressor(self.members, self.n_features, stacked)
        stack.activation.to(stack.first_weight)
        features, targets = torch.stack(self.features), torch.stack(self.targets)
        return measure(stack, features, targets).records(self.members, self.moments)


class HealthMonitor(pl.Callback):
    """Measures every member at the start, and with its best and its last weights when it leaves the population.

    One monitor may watch several fits; its records add up. `seconds` is the time it took of them. Members leave one by
    one, so their weights wait for others of their kind: measured alone, each would cost as much as many do.

    Lightning calls a callback's `on_train_epoch_end` and `on_train_end` before the module's own, so members that are
    done are still in their stacks. Members that a pruner takes out earlier have a `start` only, and one without a
    single finite score has no `best`.
    """

    def __init__(self) -> None:
        self.records: list[HealthRecord] = []
        self.seconds = 0.0
        self._waiting: dict[object, Waiting] = {}
        self._enough: list[Waiting] = []

    def of(self, trial: int) -> list[HealthRecord]:
        """The records of one trial, in the order of split, layer and moment."""
        moments: list[Moment] = ["start", "best", "end"]
        own = [record for record in self.records if record.trial == trial]
        return sorted(own, key=lambda r: (r.repeat, r.fold, r.inner, r.layer, moments.index(r.moment)))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._waiting.clear()
        started = time.perf_counter()
        module = _population(pl_module)
        for training in module.training_stacks:
            self._observe(training, places(training), "start")
        self._measure(module)
        self.seconds += time.perf_counter() - started

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        started = time.perf_counter()
        module = _population(pl_module)
        for training in module.training_stacks:
            self._leave(training, [(row, p) for row, p in places(training) if training.is_done(p)])
        if len(self._enough) >= module.n_side_by_side:
            # one alone would keep the other threads waiting
            self._measure(module)
        self.seconds += time.perf_counter() - started

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is still in training leaves now, because the module is about to retire it."""
        started = time.perf_counter()
        module = _population(pl_module)
        for training in module.training_stacks:
            self._leave(training, places(training))
        self._enough += self._waiting.values()
        self._waiting.clear()
        self._measure(module)
        self.seconds += time.perf_counter() - started

    def _leave(self, training: StackTraining, leaving: Sequence[tuple[int, int]]) -> None:
        self._observe(training, [place for place in leaving if training.outcomes[place[1]].best_epoch > 0], "best")
        self._observe(training, leaving, "end")

    def _observe(self, training: StackTraining, observed: Sequence[tuple[int, int]], moment: Moment) -> None:
        """Let members wait with their weights of this moment, until enough of their kind do."""
        stack, width = training.stack, training.stack.first_weight.shape[1]
        weights = training.best if moment == "best" else stack.stacked()
        for row, _ in observed:
            member = stack.members[row]
            shapes = tuple(tuple(value.shape[1:]) for value in weights.values())
            key = (member.activation, shapes, training.n_validation)
            waiting = self._waiting.setdefault(key, Waiting())
            waiting.members.append(member)
            waiting.n_features.append(stack.n_features[row])
            waiting.moments.append(moment)
            waiting.weights.append({name: value.detach()[row].clone() for name, value in weights.items()})
            # the rows beyond n_validation only fill up the lanes
            place = training.places[row]
            waiting.features.append(training.features[place, : training.n_validation, :width])
            waiting.targets.append(training.targets[place, : training.n_validation])
            if len(waiting.members) == CHUNK:
                self._enough.append(self._waiting.pop(key))

    def _measure(self, module: PopulationModule) -> None:
        found: dict[int, list[HealthRecord]] = {}

        def measure_one(number: int) -> None:
            found[number] = self._enough[number].records()

        module.in_pool(measure_one, range(len(self._enough)))
        self.records += [record for number in sorted(found) for record in found[number]]
        self._enough.clear()


def places(training: StackTraining) -> list[tuple[int, int]]:
    """(row of the stack, position in the population) of all members in training."""
    return list(zip(training.rows, training.positions, strict=True))


def _population(module: pl.LightningModule) -> PopulationModule:
    if not isinstance(module, PopulationModule):
        raise TypeError(f"HealthMonitor watches a PopulationModule, got {type(module).__name__}")
    return module
