"""How an activation fares inside a network in training: dead and saturated units, mean output, gradients.

Measured per member and hidden layer on given rows, for any activation:

- The derivative of a unit by its pre-activations comes from autograd, as the product of a vector of random signs with
  the layer's Jacobian. For an activation that works unit by unit its absolute value is |f'| exactly; for one that mixes
  units it says how much the layer's outputs move with this pre-activation. A unit with k pre-activations (maxout, the
  gated ones) has the norm over its k derivatives: it is dead only where none of them lets a gradient through.
- The maximum of |f'| is taken over pre-activations within three standard deviations of the signal that initialisation
  aims at, with the member's own learned parameters. Bounded derivatives (sigmoid, tanh, ReLU, ...) have theirs there;
  those that grow without bound (squared ReLU, the gated ones) are measured against what they reach there.
- By these definitions leaky ReLU with its slope of 0.01 is saturated on the negative side, and never dead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import lightning.pytorch as pl
import torch
from torch import Tensor

from actlab.members import Member, MemberKey
from actlab.networks.module import PopulationModule
from actlab.networks.network import Regressor
from actlab.networks.population import Outcome, StackTraining

Moment = Literal["start", "best", "end"]

# Shares of the maximum of |f'|: up to the first a unit lets no gradient through, under the second it is saturated.
DEAD_SHARE, SATURATED_SHARE = 1e-3, 0.05
# Pre-activations, in standard deviations, among which the maximum of |f'| is looked for.
REACH = 3.0


@dataclass(frozen=True)
class HealthRecord(MemberKey):
    """One hidden layer (from 1, next to the inputs) of one member at one moment, on its inner-validation rows.

    Args:
        moment: `start` (initial weights), `best` (those of the best epoch) or `end` (those it stopped with).
        dead: Share of units whose derivative is about zero on every row.
        saturated: Share of (unit, row) pairs whose derivative is under 5 % of its maximum.
        gradient_ratio: Norm of the loss's gradient by this layer's pre-activations over that of the last hidden layer;
            in layer 1, the design's first over last. Pre-activations rather than weights, because a linear network
            with variance-preserving weights then has 1, however many inputs it has.
    """

    layer: int
    moment: Moment
    dead: float
    saturated: float
    mean_output: float
    gradient_ratio: float


@dataclass(frozen=True)
class StackHealth:
    """The measures of `HealthRecord` as tensors (P, layers); nan for a member whose outputs are not finite."""

    dead: Tensor
    saturated: Tensor
    mean_output: Tensor
    gradient_norm: Tensor

    @property
    def gradient_ratio(self) -> Tensor:
        """(P, layers); nan where no gradient reaches the last hidden layer."""
        return self.gradient_norm / self.gradient_norm[:, -1:]


@torch.enable_grad()
def measure(stack: Regressor, features: Tensor, targets: Tensor) -> StackHealth:
    """Without dropout, and without touching the weights or their gradients.

    The loss is the mean squared error of outputs for features (P, B, F) from the standardised targets (P, B).
    """
    was_training = stack.training
    stack.eval()
    pre_activations: list[Tensor] = []
    dead, saturated, means = [], [], []

    def look(depth: int, z: Tensor, signal: Tensor) -> None:
        share = derivative(z, signal, stack.row.width_factor) / _maximum(stack, depth)[:, None, None]
        dead.append((share <= DEAD_SHARE).all(dim=1).double().mean(dim=1))
        saturated.append((share < SATURATED_SHARE).double().mean(dim=(1, 2)))
        means.append(signal.detach().double().mean(dim=(1, 2)))
        pre_activations.append(z)

    outputs = stack(features, look)
    stack.train(was_training)
    loss = (outputs - targets).square().mean(dim=1).sum()
    gradients = torch.autograd.grad(loss, pre_activations, allow_unused=True, materialize_grads=True)
    norms = [gradient.double().flatten(1).norm(dim=1) for gradient in gradients]
    is_finite = outputs.detach().isfinite().all(dim=1, keepdim=True)
    return StackHealth(*(torch.stack(m, dim=1).where(is_finite, torch.nan) for m in (dead, saturated, means, norms)))


def derivative(z: Tensor, outputs: Tensor, width_factor: int) -> Tensor:
    """|f'| (P, B, H) of each unit and row, from pre-activations (P, B, k H) that `outputs` (P, B, H) were made of."""
    if not outputs.requires_grad:
        return torch.zeros_like(outputs)
    generator = torch.Generator(z.device).manual_seed(0)
    # one sign a unit: where units do not mix, signs leave no trace in the absolute values
    coin = torch.rand(outputs.shape[-1], generator=generator, device=z.device)
    signs = torch.where(coin < 0.5, -1.0, 1.0).to(outputs).expand_as(outputs)
    (gradient,) = torch.autograd.grad(outputs, z, signs, retain_graph=True, allow_unused=True, materialize_grads=True)
    if width_factor == 1:
        return gradient.abs()
    return cast(Tensor, torch.linalg.vector_norm(torch.stack(gradient.chunk(width_factor, dim=-1)), dim=0))


def _maximum(stack: Regressor, depth: int) -> Tensor:
    """The largest |f'| (P,) of a layer's activation over pre-activations within `REACH`."""
    k, weight = stack.row.width_factor, stack.first_weight
    per_axis = round(601 ** (1 / k)) // 2 * 2 + 1
    axis = torch.linspace(-REACH, REACH, per_axis, dtype=weight.dtype, device=weight.device)
    grid = torch.cartesian_prod(*[axis] * k).reshape(1, -1, k)
    z = grid.repeat(stack.n_members, 1, 1).requires_grad_()
    return derivative(z, stack.activate(depth, z), k).amax(dim=(1, 2))


# Members measured at once: bounds the memory of their activations and gradients, and of the weights that wait.
CHUNK = 64


class Observation(NamedTuple):
    """A member's weights at a moment, and the rows (B, F) and targets (B,) that they are to be measured on."""

    member: Member
    n_features: int
    moment: Moment
    weights: dict[str, Tensor]
    features: Tensor
    targets: Tensor

    @property
    def shape(self) -> object:
        """Equal for members that can be measured together."""
        return (self.member.activation, *(value.shape for value in self.weights.values()), len(self.targets))


def records_of(observations: Sequence[Observation]) -> list[HealthRecord]:
    """One record for each of some members of equal shape, seen at its moment, and layer, in this order."""
    members, n_features, _, weights, features, targets = zip(*observations, strict=True)
    stack = Regressor(members, n_features, {name: torch.stack([own[name] for own in weights]) for name in weights[0]})
    stack.activation.to(stack.first_weight)
    health = measure(stack, torch.stack(features), torch.stack(targets))
    measures = [m.tolist() for m in (health.dead, health.saturated, health.mean_output, health.gradient_ratio)]
    return [
        HealthRecord(*one.member.key, layer + 1, one.moment, *(values[row][layer] for values in measures))
        for row, one in enumerate(observations)
        for layer in range(stack.n_hidden)
    ]


class HealthMonitor(pl.Callback):
    """Measures every member at the start, and with its best and its last weights when it leaves the population.

    One monitor may watch several fits; its records add up. Members leave one by one,
    so their weights wait for others of their kind: measured alone, each would cost as much as many do.

    Lightning calls a callback's `on_train_epoch_end` and `on_train_end` before the module's own, so members that are
    done are still in their stacks. Members that a pruner takes out earlier have a `start` only, and one without a
    single finite score has no `best`.
    """

    def __init__(self) -> None:
        self.records: list[HealthRecord] = []
        self._waiting: dict[object, list[Observation]] = {}
        self._enough: list[list[Observation]] = []
        self._interrupted: dict[str, Any] | None = None

    def of(self, trial: int) -> list[HealthRecord]:
        """The records of one trial, in the order of split, layer and moment."""
        moments = get_args(Moment)
        own = [record for record in self.records if record.trial == trial]
        return sorted(own, key=lambda r: (r.repeat, r.fold, r.inner, r.layer, moments.index(r.moment)))

    def state_dict(self) -> dict[str, Any]:
        """For an interrupted population: tensors and plain types."""
        waiting = [[{**one._asdict(), "member": repr(one.member)} for one in own] for own in self._waiting.values()]
        return {"records": [list(vars(record).values()) for record in self.records], "waiting": waiting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._interrupted = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._waiting.clear()
        module = _population(pl_module)
        if self._interrupted is None:
            for training in module.training_stacks:
                self._observe(training, training.running, "start")
            self._measure(module)
            return
        # of the interrupted population, only what concerns these members
        records = [HealthRecord(*values) for values in self._interrupted["records"]]
        trials, named = {m.trial for m in module.members}, {repr(m): m for m in module.members}
        self.records += [record for record in records if record.trial in trials]
        for waiting in self._interrupted["waiting"]:
            kept = [Observation(**{**own, "member": named[own["member"]]}) for own in waiting if own["member"] in named]
            if kept:
                self._waiting[kept[0].shape] = kept
        self._interrupted = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = _population(pl_module)
        limits = (module.optimizer_settings.patience, module.max_epochs)
        for training in module.training_stacks:
            self._leave(training, [place for place in training.running if place[1].is_done(*limits)])
        if len(self._enough) >= module.n_side_by_side:
            # one alone would keep the other threads waiting
            self._measure(module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is still in training leaves now, because the module is about to retire it."""
        module = _population(pl_module)
        for training in module.training_stacks:
            self._leave(training, training.running)
        self._enough += self._waiting.values()
        self._waiting.clear()
        self._measure(module)

    def _leave(self, training: StackTraining, leaving: Sequence[tuple[int, Outcome]]) -> None:
        self._observe(training, [place for place in leaving if place[1].best_epoch > 0], "best")
        self._observe(training, leaving, "end")

    def _observe(self, training: StackTraining, observed: Sequence[tuple[int, Outcome]], moment: Moment) -> None:
        """Let members wait with their weights of this moment, until enough of their shape do."""
        stack, width, n_rows = training.stack, training.stack.first_weight.shape[1], training.n_validation
        weights = training.best if moment == "best" else stack.stacked()
        for row, outcome in observed:
            own = {name: value.detach()[row].clone() for name, value in weights.items()}
            # the rows beyond n_validation only fill up the lanes
            features = training.features[training.places[row], :n_rows, :width]
            targets = training.targets[training.places[row], :n_rows]
            one = Observation(outcome.member, stack.n_features[row], moment, own, features, targets)
            waiting = self._waiting.setdefault(one.shape, [])
            waiting.append(one)
            if len(waiting) == CHUNK:
                self._enough.append(self._waiting.pop(one.shape))

    def _measure(self, module: PopulationModule) -> None:
        for records in module.in_pool(records_of, self._enough):
            self.records += records
        self._enough.clear()


def _population(module: pl.LightningModule) -> PopulationModule:
    if not isinstance(module, PopulationModule):
        raise TypeError(f"HealthMonitor watches a PopulationModule, got {type(module).__name__}")
    return module
