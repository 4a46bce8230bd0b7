"""Where the pre-activations of networks lie, hidden layer by hidden layer, before and after training.

A histogram says at a glance what the shares of `health` sum up: units that a ReLU has left behind, or a sigmoid driven
into its flat ends. The same bins before and after, so that the two can be laid over each other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actlab.members import Member
from actlab.networks.regressor import Regressor, stack_states

N_BINS = 40
# This share of the values at either end lies in the outermost bin, so that a few outliers do not widen all others.
TAIL = 0.001
# Values of a layer that are looked at; of more, evenly spaced rows.
MAX_VALUES = 500_000


@dataclass(frozen=True)
class BinRecord:
    """One bin of the histogram of a hidden layer's pre-activations, over rows, units and networks.

    Args:
        layer: From 1, the one next to the inputs.
        moment: `start` (initial weights) or `best` (those of the best epoch).
        low: Lower edge; the lowest bin also holds what lies below.
        high: Upper edge; the highest bin also holds what lies above.
        count: Values in it.
    """

    layer: int
    moment: Literal["start", "best"]
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Trained:
    """A network with its best weights, as `Regressor.member_state` gives them, and the inputs (B, F) to look at."""

    member: Member
    state: dict[str, Tensor]
    features: Tensor


def n_rows(n_networks: int, widest: int) -> int:
    """Rows of each network that keep a layer of `widest` pre-activations under `MAX_VALUES`; at least one."""
    return max(1, MAX_VALUES // max(1, n_networks * widest))


def bin_records(networks: Iterable[Trained]) -> list[BinRecord]:
    """Histograms of every hidden layer at the start and at the best epoch, all networks together.

    The initial weights are drawn again: they follow from the member alone. Networks may differ in depth; a layer counts
    those that have it.
    """
    start: dict[int, list[NDArray[np.float64]]] = {}
    best: dict[int, list[NDArray[np.float64]]] = {}
    for network in networks:
        n_features = [network.features.shape[1]]
        initial = Regressor([network.member], n_features)
        trained = Regressor([network.member], n_features, stack_states([network.state]))
        for stack, found in ((initial.to(trained.first_weight.dtype), start), (trained, best)):
            for layer, values in enumerate(_pre_activations(stack, network.features), start=1):
                found.setdefault(layer, []).append(values)
    return [record for layer in sorted(best) for record in _layer(layer, start[layer], best[layer])]


@torch.no_grad()
def _pre_activations(stack: Regressor, features: Tensor) -> Iterator[NDArray[np.float64]]:
    stack.eval()
    stack.activation.to(stack.first_weight)
    signal = features.to(stack.first_weight)
    for depth in range(len(stack.activation)):
        z = stack.linear(depth, signal)
        yield z.double().flatten().numpy()
        signal = stack.activate(depth, z)


def _layer(
    layer: int, start: Sequence[NDArray[np.float64]], best: Sequence[NDArray[np.float64]]
) -> Iterator[BinRecord]:
    values = {"start": np.concatenate(start), "best": np.concatenate(best)}
    ends = np.array([np.quantile(own, (TAIL, 1 - TAIL)) for own in values.values()])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    moments: tuple[Literal["start", "best"], ...] = ("start", "best")
    for moment in moments:
        counts, _ = np.histogram(values[moment].clip(low, high), edges)
        for place, count in enumerate(counts.tolist()):
            yield BinRecord(layer, moment, float(edges[place]), float(edges[place + 1]), count)
