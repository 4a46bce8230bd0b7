"""How an activation fares inside a network: dead and saturated units, mean output, gradients on their way back.

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
from typing import Literal

import torch
from torch import Tensor

from actlab.members import Member
from actlab.networks.regressor import Regressor

Moment = Literal["start", "best", "end"]

# |f'| under this share of its maximum lets no gradient through: dead, where that holds on every row.
DEAD_SHARE = 1e-3
# |f'| under this share of its maximum is saturated.
SATURATED_SHARE = 0.05
# Pre-activations, in standard deviations, among which the maximum of |f'| is looked for.
REACH = 3.0
N_GRID = 601


@dataclass(frozen=True)
class HealthRecord:
    """One hidden layer of one member at one moment, on its inner-validation rows.

    Args:
        layer: From 1, the one next to the inputs.
        moment: `start` (initial weights), `best` (those of the best epoch) or `end` (those it stopped with).
        dead: Share of units whose derivative is about zero on every row.
        saturated: Share of (unit, row) pairs whose derivative is under 5 % of its maximum.
        mean_output: Mean over units and rows of the activation's outputs.
        gradient_ratio: Norm of the loss's gradient by this layer's pre-activations over that of the last hidden layer;
            in layer 1, the design's first over last. Pre-activations rather than weights, because a linear network
            with variance-preserving weights then has 1, however many inputs it has.
    """

    trial: int
    activation: str
    learning_rate: float
    repeat: int
    fold: int
    inner: int
    layer: int
    moment: Moment
    dead: float
    saturated: float
    mean_output: float
    gradient_ratio: float


@dataclass(frozen=True)
class StackHealth:
    """The measures of `HealthRecord` as tensors (P, layers), and the gradient norms behind the ratio.

    nan throughout for a member whose outputs are not finite.
    """

    dead: Tensor
    saturated: Tensor
    mean_output: Tensor
    gradient_norm: Tensor

    @property
    def gradient_ratio(self) -> Tensor:
        """(P, layers); nan where no gradient reaches the last hidden layer."""
        return self.gradient_norm / self.gradient_norm[:, -1:]

    def records(self, members: Sequence[Member], moments: Sequence[Moment]) -> list[HealthRecord]:
        """One record for each member, seen at its moment, and layer, in this order."""
        measures = [m.tolist() for m in (self.dead, self.saturated, self.mean_output, self.gradient_ratio)]
        return [
            HealthRecord(
                member.trial,
                member.activation,
                member.learning_rate,
                member.split.repeat,
                member.split.fold,
                member.split.inner,
                layer + 1,
                moments[row],
                *(measure[row][layer] for measure in measures),
            )
            for row, member in enumerate(members)
            for layer in range(self.dead.shape[1])
        ]


def measure(stack: Regressor, features: Tensor, targets: Tensor) -> StackHealth:
    """Health of every member and hidden layer, without dropout and without touching the weights or their gradients.

    Args:
        stack: `P` members.
        features: Rows (P, B, F) of each member.
        targets: Their standardised targets (P, B); the loss is the mean squared error.
    """
    was_training = stack.training
    stack.eval()
    try:
        with torch.enable_grad():
            return _measure(stack, features, targets)
    finally:
        stack.train(was_training)


def _measure(stack: Regressor, features: Tensor, targets: Tensor) -> StackHealth:
    signal, pre_activations = features, []
    dead, saturated, means = [], [], []
    for depth in range(len(stack.activation)):
        z = stack.linear(depth, signal)
        signal = stack.activate(depth, z)
        share = derivative(z, signal, stack.row.width_factor) / _maximum(stack, depth)[:, None, None]
        is_dead = (share <= DEAD_SHARE).all(dim=1)
        dead.append(is_dead.double().mean(dim=1))
        saturated.append((share < SATURATED_SHARE).double().mean(dim=(1, 2)))
        means.append(signal.detach().double().mean(dim=(1, 2)))
        pre_activations.append(z)
    outputs = stack.output(signal)
    loss = (outputs - targets).square().mean(dim=1).sum()
    gradients = torch.autograd.grad(loss, pre_activations, allow_unused=True, materialize_grads=True)
    norms = [gradient.double().flatten(1).norm(dim=1) for gradient in gradients]
    is_finite = outputs.detach().isfinite().all(dim=1, keepdim=True)
    measures = [torch.stack(m, dim=1).where(is_finite, torch.nan) for m in (dead, saturated, means, norms)]
    return StackHealth(*measures)


def derivative(z: Tensor, outputs: Tensor, width_factor: int) -> Tensor:
    """|f'| (P, B, H) of each unit and row, from pre-activations (P, B, k H) that `outputs` (P, B, H) were made of."""
    generator = torch.Generator(z.device).manual_seed(0)
    # one sign a unit: where units do not mix, signs leave no trace in the absolute values
    coin = torch.rand(outputs.shape[-1], generator=generator, device=z.device)
    signs = torch.where(coin < 0.5, -1.0, 1.0).to(outputs).expand_as(outputs)
    if not outputs.requires_grad:
        return torch.zeros_like(outputs)
    (gradient,) = torch.autograd.grad(outputs, z, signs, retain_graph=True, allow_unused=True, materialize_grads=True)
    if width_factor == 1:
        return gradient.abs()
    pieces = torch.stack(gradient.chunk(width_factor, dim=-1))
    norms: Tensor = torch.linalg.vector_norm(pieces, dim=0)
    return norms


def _maximum(stack: Regressor, depth: int) -> Tensor:
    """The largest |f'| (P,) of a layer's activation over pre-activations within `REACH`."""
    k = stack.row.width_factor
    per_axis = round(N_GRID ** (1 / k)) // 2 * 2 + 1
    weight = stack.stacked()["weight_0"]
    axis = torch.linspace(-REACH, REACH, per_axis, dtype=weight.dtype, device=weight.device)
    grid = torch.cartesian_prod(*[axis] * k).reshape(1, -1, k)
    z = grid.repeat(stack.n_members, 1, 1).requires_grad_()
    return derivative(z, stack.activate(depth, z), k).amax(dim=(1, 2))
