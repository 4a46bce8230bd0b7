"""What a training step costs under each activation: measured time of the activation alone and of the network."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from actlab.members import Member, Split
from actlab.networks.optimizer import RowAdamW
from actlab.networks.regressor import Regressor

# Members of the stack that is timed, and steps of which the fastest counts in a round.
N_MEMBERS = 8
N_STEPS = 2


@dataclass(frozen=True)
class StepCost:
    """Microseconds a member and step, one entry for each round; entry i of two activations is the same round.

    `activation_us` is the forward and backward pass of all hidden layers' activations alone, `network_us` a whole step
    with loss and optimiser.
    """

    activation_us: tuple[float, ...]
    network_us: tuple[float, ...]


def step_costs(
    widths: Mapping[str, tuple[int, ...]], n_features: int, batch_size: int, n_rounds: int = 9
) -> dict[str, StepCost]:
    """Time the steps of some activations on the CPU, by turns, so that a busy moment hits all of them.

    Args:
        widths: Activation to its hidden widths.
        n_features: Input columns.
        batch_size: Rows of a step.
        n_rounds: Times that every activation has its turn.
    """
    alone = {name: _activation_step(name, hidden, n_features, batch_size) for name, hidden in widths.items()}
    whole = {name: _network_step(name, hidden, n_features, batch_size) for name, hidden in widths.items()}
    with _one_thread():
        for step in (*alone.values(), *whole.values()):
            step()
        rounds = [
            ({n: _fastest(s) for n, s in alone.items()}, {n: _fastest(s) for n, s in whole.items()})
            for _ in range(n_rounds)
        ]
    return {
        name: StepCost(tuple(first[name] for first, _ in rounds), tuple(second[name] for _, second in rounds))
        for name in widths
    }


def _stack(name: str, hidden: tuple[int, ...], n_features: int) -> Regressor:
    members = [Member(0, name, 1e-3, Split(0, 0, inner), 0, hidden) for inner in range(N_MEMBERS)]
    return Regressor(members, [n_features] * N_MEMBERS)


def _activation_step(name: str, hidden: tuple[int, ...], n_features: int, batch_size: int) -> Callable[[], Any]:
    stack = _stack(name, hidden, n_features)
    generator = torch.Generator().manual_seed(0)
    k = stack.row.width_factor
    shapes = [(N_MEMBERS, batch_size, k * units) for units in hidden]
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]

    def step() -> None:
        for depth, z in enumerate(inputs):
            outputs = stack.activate(depth, z)
            torch.autograd.grad(outputs, z, torch.ones_like(outputs))

    return step


def _network_step(name: str, hidden: tuple[int, ...], n_features: int, batch_size: int) -> Callable[[], Any]:
    stack = _stack(name, hidden, n_features)
    optimizer = RowAdamW(stack)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N_MEMBERS, batch_size, n_features, generator=generator)
    targets = torch.randn(N_MEMBERS, batch_size, generator=generator)

    def step() -> None:
        (stack(features) - targets).square().mean(dim=1).sum().backward()
        optimizer.step()

    return step


def _fastest(step: Callable[[], Any]) -> float:
    """Microseconds a member of the fastest of some calls."""
    times = []
    for _ in range(N_STEPS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return min(times) / N_MEMBERS * 1e6


@contextmanager
def _one_thread() -> Any:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def median_costs(costs: Mapping[str, StepCost]) -> dict[str, dict[str, float]]:
    """Activation to its median microseconds, as summary.json holds them."""
    return {
        name: {"activation_us": _median(cost.activation_us), "network_us": _median(cost.network_us)}
        for name, cost in costs.items()
    }


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
