"""What is measured besides health: convergence, costs of a step, pre-activations, what networks represent.

- How soon a member's training loss came down to fixed shares of the target's variance. These are the same for every
  activation, so that times are compared at equal losses and never at equal epochs.
- Histograms of pre-activations before and after training in the same bins. They say at a glance what the shares of
  `health` sum up: units that a ReLU has left behind, or a sigmoid driven into its flat ends.
"""

import math
import statistics
import timeit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actlab import activations
from actlab.members import Member, MemberKey, Split
from actlab.networks.adamw import RowAdamW
from actlab.networks.network import Regressor
from actlab.networks.population import Outcome
from actlab.networks.trained import TrainedNetwork, stack_of

Values = NDArray[np.float64]
Moment = Literal["start", "best"]

# Shares of the variance of the (log) target that the network explains on the rows it trains on, in training.
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class ConvergenceRecord(MemberKey):
    """When the training loss of one member first reached a level; nan where it never did.

    Args:
        r2: The level: training score <= sd sqrt(1 - r2), where sd is that of the (log) target over the whole table.
        epoch: The first at the level by its mean training loss, from 1.
        seconds: That epoch times the member's mean seconds an epoch, its share of the population's time.
    """

    r2: float
    epoch: float
    seconds: float


def convergence_records(outcomes: Sequence[Outcome], target_sd: float) -> list[ConvergenceRecord]:
    """One record for each member and level; `target_sd` is of the target's logarithm where networks train on that."""
    records = []
    for outcome in outcomes:
        for r2 in LEVELS:
            epoch = first_epoch_at(outcome.train_curve, target_sd * math.sqrt(1 - r2))
            seconds = epoch * outcome.seconds / max(outcome.epochs, 1)
            records.append(ConvergenceRecord(*outcome.member.key, r2, epoch, seconds))
    return records


def first_epoch_at(curve: Sequence[float], level: float) -> float:
    """The first epoch, from 1, whose value is at or under the level; nan where none is."""
    return next((float(epoch) for epoch, value in enumerate(curve, start=1) if value <= level), math.nan)


# Members of the stack that is timed, and steps of which the fastest counts in a round.
N_MEMBERS = 8
N_STEPS = 2


class StepCost(NamedTuple):
    """Microseconds a member and step, one entry for each round; entry i of two activations is the same round.

    `activation_us` is the forward and backward pass of all hidden layers' activations alone, `network_us` a whole step
    with loss and optimiser.
    """

    activation_us: tuple[float, ...]
    network_us: tuple[float, ...]


def step_costs(
    widths: Mapping[str, tuple[int, ...]], n_features: int, batch_size: int, n_rounds: int = 9
) -> dict[str, StepCost]:
    """Time the steps of activations of these hidden widths on one thread of the CPU.

    All have their turn in each round, so that a busy moment hits all of them.
    """
    steps = {name: _steps(name, hidden, n_features, batch_size) for name, hidden in widths.items()}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in widths}
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for alone, whole in steps.values():
            alone()
            whole()
        for place in (0, 1) * n_rounds:
            for name, own in steps.items():
                fastest = min(timeit.repeat(own[place], number=1, repeat=N_STEPS))
                times[name][place].append(fastest / N_MEMBERS * 1e6)
    finally:
        torch.set_num_threads(n_threads)
    return {name: StepCost(tuple(alone), tuple(whole)) for name, (alone, whole) in times.items()}


def _steps(
    name: str, hidden: tuple[int, ...], n_features: int, batch_size: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward pass of the activations alone, and a step of the whole network, on random numbers."""
    members = [Member(0, name, 1e-3, Split(0, 0, inner), 0, hidden) for inner in range(N_MEMBERS)]
    stack = Regressor(members, [n_features] * N_MEMBERS)
    optimizer = RowAdamW(stack)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(N_MEMBERS, batch_size, *shape, generator=generator)

    inputs = [drawn(stack.row.width_factor * units).requires_grad_() for units in hidden]
    features, targets = drawn(n_features), drawn()

    def activations_alone() -> None:
        for depth, z in enumerate(inputs):
            outputs = stack.activate(depth, z)
            torch.autograd.grad(outputs, z, torch.ones_like(outputs))

    def whole_network() -> None:
        (stack(features) - targets).square().mean(dim=1).sum().backward()
        optimizer.step()

    return activations_alone, whole_network


def median_costs(costs: Mapping[str, StepCost]) -> dict[str, dict[str, float]]:
    """Activation to its median microseconds, as summary.json holds them."""
    return {
        name: {key: statistics.median_high(values) for key, values in cost._asdict().items()}
        for name, cost in costs.items()
    }


N_BINS = 40
# This share of the values at either end lies in the outermost bin, so that a few outliers do not widen all others.
TAIL = 0.001
# Values of a layer that are looked at; of more, evenly spaced rows.
MAX_VALUES = 500_000


@dataclass(frozen=True)
class BinRecord:
    """One bin of the histogram of a hidden layer's pre-activations, over rows, units and networks.

    Layers count from 1, next to the inputs. The lowest bin also holds what lies below, the highest what lies above.
    """

    layer: int
    moment: Moment
    low: float
    high: float
    count: int


def n_rows(n_networks: int, widest: int) -> int:
    """Rows of each network that keep a layer of `widest` pre-activations under `MAX_VALUES`; at least one."""
    return max(1, MAX_VALUES // max(1, n_networks * widest))


@torch.no_grad()
def bin_records(networks: Iterable[tuple[TrainedNetwork, Tensor]]) -> list[BinRecord]:
    """Histograms of every hidden layer at the start and at the best epoch, all networks together.

    The initial weights are drawn again: they follow from the member alone. Each network comes with the inputs (B, F) to
    look at; networks may differ in depth, and a layer counts those that have it.
    """
    start: dict[int, list[Values]] = {}
    best: dict[int, list[Values]] = {}
    for network, features in networks:
        trained = stack_of([network])
        initial = Regressor([network.member], [network.n_features])
        for stack, found in ((initial.to(trained.first_weight.dtype), start), (trained, best)):

            def look(depth: int, z: Tensor, signal: Tensor, found: dict[int, list[Values]] = found) -> None:
                found.setdefault(depth + 1, []).append(z.double().flatten().numpy())

            stack.eval().activation.to(stack.first_weight)
            stack(features.to(stack.first_weight), look)
    return [record for layer in sorted(best) for record in _layer(layer, start[layer], best[layer])]


def _layer(layer: int, start: Sequence[Values], best: Sequence[Values]) -> Iterator[BinRecord]:
    values: dict[Moment, Values] = {"start": np.concatenate(start), "best": np.concatenate(best)}
    ends = np.array([np.quantile(own, (TAIL, 1 - TAIL)) for own in values.values()])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    for moment, own in values.items():
        counts, _ = np.histogram(own.clip(low, high), edges)
        for place, count in enumerate(counts.tolist()):
            yield BinRecord(layer, moment, float(edges[place]), float(edges[place + 1]), count)


@torch.no_grad()
def deviation_from_affine(networks: Sequence[TrainedNetwork]) -> float:
    """The largest |f(t x + (1 - t) y) - t f(x) - (1 - t) f(y)| over random x, y, t, in standard deviations of f.

    Zero, up to rounding in float64, exactly where every network is an affine function of its inputs.
    """
    found = []
    for network in networks:
        stack, generator = stack_of([network]).double(), torch.Generator().manual_seed(0)
        x, y = torch.randn(2, 200, network.n_features, generator=generator, dtype=torch.float64) * 3
        t = torch.rand(200, 1, generator=generator, dtype=torch.float64)
        between, at_x, at_y = (stack(points)[0] for points in (t * x + (1 - t) * y, x, y))
        straight = t[:, 0] * at_x + (1 - t[:, 0]) * at_y
        spread = torch.cat([at_x, at_y]).std().clamp_min(torch.finfo(torch.float64).tiny)
        found.append(float((between - straight).abs().max() / spread))
    return max(found)


@torch.no_grad()
def maxout_error(name: str) -> float:
    """The largest difference between an activation and the maxout of z and f'(-1) z, on numbers around zero.

    Zero for ReLU (of z and 0) and leaky ReLU (of z and 0.01 z): the maxout network with weights (W, c W) is theirs.
    """
    z = torch.linspace(-50, 50, 2001).view(1, -1, 1)
    module = activations.get(name).build().eval()
    slope = -module(torch.full((1, 1, 1), -1.0))
    both = activations.get("maxout").build()(torch.cat([z, slope * z], dim=-1))
    return float((both - module(z)).abs().max())
