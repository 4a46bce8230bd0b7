"""AdamW over the members of a stack, each with its own learning rate and weight decay."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from actlab.data.datamodule import LANES
from actlab.networks.network import Regressor, take_rows

# AdamW's names
MOMENTS = ("exp_avg", "exp_avg_sq")


def schedule_factor(schedule: str, epoch: int, max_epochs: int) -> float:
    """What the learning rate is multiplied by in an epoch: 1, or the half cosine from 1 towards 0."""
    return 0.5 * (1 + math.cos(math.pi * epoch / max_epochs)) if schedule == "cosine" else 1.0


class AdamWState(NamedTuple):
    """What AdamW goes on from: the steps made, and the moments (P, ...) of each stacked tensor by AdamW's name."""

    steps: int
    moments: list[dict[str, Tensor]]


class AdamWGroups(NamedTuple):
    """AdamW's state for some members as compiled steps take it: by groups of equal settings, made of slices.

    `slices` says of which tensor in `Layers.tensors()` each slice is, and of which of these members; `averages` and
    `squares` are its moments; `n_steps` counts for all members.
    """

    parameters: list[list[Tensor]]
    slices: list[list[tuple[int, int, int]]]
    averages: list[list[Tensor]]
    squares: list[list[Tensor]]
    n_steps: Tensor
    learning_rates: list[float]
    weight_decays: list[float]
    beta1: float
    beta2: float
    eps: float


class RowAdamW:
    """A stock AdamW over the members of a stack, which differ in learning rate and weight decay.

    Neighbours with equal settings are one parameter group of slices of the stacked tensors. A slice holds all members
    of the group, so that the fused kernel runs over long rows, unless a member's part of the tensor is no multiple of
    `LANES`: the kernel rounds what is left over at the end of a slice otherwise, and a member's bits must not depend on
    its neighbours, so each then has a slice to itself. Slices share the memory of the stack; `step` hands them its
    gradients.

    Args:
        chunk: Members of a chunk, for steps that call the kernel chunk by chunk: no slice lies in two chunks, and all
            slices of a chunk count their steps together. None is one chunk whose slices count for themselves.
        sources: States to go on from, with the numbers of their members that are this one's, one source after the
            other. All have made the same number of steps.
    """

    def __init__(
        self, stack: Regressor, chunk: int | None = None, sources: Sequence[tuple[AdamWState, Tensor]] | None = None
    ) -> None:
        self.tensors = stack.layers().tensors()
        n_steps = 0 if sources is None else sources[0][0].steps
        self.moments = [
            {key: torch.zeros_like(tensor.detach()) for key in MOMENTS}
            if sources is None
            else take_rows(*((source.moments[i], rows) for source, rows in sources))
            for i, tensor in enumerate(self.tensors)
        ]
        size, device = chunk or stack.n_members, self.tensors[0].device
        settings = [(m.learning_rate, m.weight_decay, m.epochs, row // size) for row, m in enumerate(stack.members)]
        starts = [row for row in range(stack.n_members) if row == 0 or settings[row] != settings[row - 1]]
        # of the runs of equal neighbours
        self.bounds = list(pairwise([*starts, stack.n_members]))
        # of each group, in the order of its parameters: which tensor, and the half-open slice of members
        self.slices = [self._cut(start, stop) for start, stop in self.bounds]
        groups = [
            {
                "params": [torch.nn.Parameter(self.tensors[i].detach()[first:last]) for i, first, last in own],
                "lr": _as_adamw_takes_it(stack.members[start].learning_rate, device),
                "initial_lr": stack.members[start].learning_rate,
                "weight_decay": stack.members[start].weight_decay,
                "epochs": stack.members[start].epochs,
            }
            for own, (start, _) in zip(self.slices, self.bounds, strict=True)
        ]
        self.adamw = torch.optim.AdamW(groups, fused=True)
        made = torch.tensor(n_steps, dtype=torch.float32, device=device)
        of_chunk = [made.clone() for _ in range(0, stack.n_members, size)]
        for own, group in zip(self.slices, self.adamw.param_groups, strict=True):
            for (i, start, stop), parameter in zip(own, group["params"], strict=True):
                # what its first step would make
                self.adamw.state[parameter] = {
                    "step": made.clone() if chunk is None else of_chunk[start // size],
                    **{key: value[start:stop] for key, value in self.moments[i].items()},
                }

    def _cut(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        slices = []
        for i, tensor in enumerate(self.tensors):
            is_whole = tensor[0].numel() % LANES == 0 or tensor.device.type != "cpu"
            length = stop - start if is_whole else 1
            slices += [(i, at, at + length) for at in range(start, stop, length)]
        return slices

    def groups(self, rows: slice) -> AdamWGroups:
        """The groups of the members of a chunk."""
        own = [i for i, (start, _) in enumerate(self.bounds) if rows.start <= start < rows.stop]
        groups = [self.adamw.param_groups[i] for i in own]
        states = [[self.adamw.state[parameter] for parameter in group["params"]] for group in groups]
        beta1, beta2 = groups[0]["betas"]
        return AdamWGroups(
            [group["params"] for group in groups],
            [[(i, start - rows.start, stop - rows.start) for i, start, stop in self.slices[group]] for group in own],
            [[state["exp_avg"] for state in group] for group in states],
            [[state["exp_avg_sq"] for state in group] for group in states],
            states[0][0]["step"],
            self.learning_rates(rows),
            [group["weight_decay"] for group in groups],
            beta1,
            beta2,
            groups[0]["eps"],
        )

    def learning_rates(self, rows: slice) -> list[float]:
        """Of the groups of the members of a chunk, in the epoch that was started."""
        groups = zip(self.bounds, self.adamw.param_groups, strict=True)
        return [group["lr"] for (start, _), group in groups if rows.start <= start < rows.stop]

    def state(self) -> AdamWState:
        """What another one can go on from; the moments are this one's own, and no copies."""
        first = next(iter(self.adamw.state.values()))
        return AdamWState(int(first["step"]), self.moments)

    def step(self) -> None:
        """One update from the gradients of the stacked tensors, which are given up."""
        for own, group in zip(self.slices, self.adamw.param_groups, strict=True):
            for (i, start, stop), parameter in zip(own, group["params"], strict=True):
                gradient = self.tensors[i].grad
                parameter.grad = gradient[start:stop] if gradient is not None else None
        self.adamw.step()
        for whole in self.tensors:
            whole.grad = None

    def start_epoch(self, epoch: int, schedule: str, max_epochs: int) -> None:
        """Set every learning rate for the epoch to come; members of a given length have the cosine over it."""
        for group in self.adamw.param_groups:
            own = ("cosine", group["epochs"]) if group["epochs"] else (schedule, max_epochs)
            learning_rate = group["initial_lr"] * schedule_factor(own[0], epoch, own[1])
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Around a `step` that an accelerator records: AdamW wants to be told, and warns whoever tells it earlier."""
        for group in self.adamw.param_groups:
            group["capturable"] = True
        yield
        for group in self.adamw.param_groups:
            group["capturable"] = False


def _as_adamw_takes_it(learning_rate: float, device: torch.device) -> float | Tensor:
    """On an accelerator a tensor there, which a recorded step reads anew each time."""
    return learning_rate if device.type == "cpu" else torch.tensor(learning_rate, device=device)
