"""AdamW over the members of a stack, each with its own learning rate and weight decay."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from actlab.data.datamodule import LANES
from actlab.networks.network import Regressor

# AdamW's names
MOMENTS = ("exp_avg", "exp_avg_sq")


def schedule_factor(schedule: str, epoch: int, max_epochs: int) -> float:
    """What the learning rate is multiplied by in an epoch: 1, or the half cosine from 1 towards 0."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / max_epochs))
    return 1.0


class AdamWState(NamedTuple):
    """What AdamW goes on from: the steps made, and the moments (P, ...) of each stacked tensor by AdamW's name."""

    steps: int
    moments: list[dict[str, Tensor]]


class RowAdamW:
    """A stock AdamW over the members of a stack.

    Neighbouring members with equal settings share a parameter group. Its parameters are slices of the stacked tensors,
    as long as can be, so that the fused kernel runs over long rows; but one for each member where the numbers of a
    member are no multiple of `LANES`: the kernel rounds what is left over of a slice otherwise, and a member's bits
    must not depend on whom it lies beside. The slices share the storage of the stack; gradients are handed over before
    a step.

    Args:
        stack: The networks.
        chunk: No slice reaches over a multiple of so many members, and all slices in between count their steps
            together, for whoever steps with the kernel alone; None is no such bound.
        sources: States to go on from, with the numbers of their members that are this one's, one source after the
            other. All have made the same number of steps.
    """

    def __init__(
        self, stack: Regressor, chunk: int | None = None, sources: Sequence[tuple[AdamWState, Tensor]] | None = None
    ) -> None:
        self.names, self.tensors = list(stack.stacked()), list(stack.stacked().values())
        self.steps = 0 if sources is None else sources[0][0].steps
        self.moments = [
            {key: _moments(tensor.detach(), position, key, sources) for key in MOMENTS}
            for position, tensor in enumerate(self.tensors)
        ]
        size = chunk or stack.n_members
        self.bounds = _equal_runs(
            [(m.learning_rate, m.weight_decay, m.epochs, row // size) for row, m in enumerate(stack.members)]
        )
        # of each group, in the order of its parameters: which tensor, and the half-open slice of members
        self.pieces = [self._cut(start, stop) for start, stop in self.bounds]
        device = self.tensors[0].device
        groups = [
            {
                "params": [torch.nn.Parameter(self.tensors[i].detach()[start:stop]) for i, start, stop in own],
                "lr": _rate(stack.members[first].learning_rate, device),
                "initial_lr": stack.members[first].learning_rate,
                "weight_decay": stack.members[first].weight_decay,
                "epochs": stack.members[first].epochs,
            }
            for own, (first, _) in zip(self.pieces, self.bounds, strict=True)
        ]
        self.adamw = torch.optim.AdamW(groups, fused=True)
        made = torch.tensor(float(self.steps), dtype=torch.float32, device=device)
        shared = [made.clone() for _ in range(0, stack.n_members, size)]
        for own, group in zip(self.pieces, self.adamw.param_groups, strict=True):
            for (i, start, stop), parameter in zip(own, group["params"], strict=True):
                # what its first step would make
                self.adamw.state[parameter] = {
                    "step": made.clone() if chunk is None else shared[start // size],
                    **{key: value[start:stop] for key, value in self.moments[i].items()},
                }

    def _cut(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        pieces = []
        for i, tensor in enumerate(self.tensors):
            is_whole = tensor[0].numel() % LANES == 0 or tensor.device.type != "cpu"
            length = stop - start if is_whole else 1
            pieces += [(i, at, at + length) for at in range(start, stop, length)]
        return pieces

    def state(self) -> AdamWState:
        """What another one can go on from; the moments are this one's own, and no copies."""
        first = next(iter(self.adamw.state.values()))
        return AdamWState(int(first["step"]), self.moments)

    def step(self) -> None:
        """One update from the gradients of the stacked tensors, which are given up."""
        for own, group in zip(self.pieces, self.adamw.param_groups, strict=True):
            for (i, start, stop), part in zip(own, group["params"], strict=True):
                gradient = self.tensors[i].grad
                part.grad = gradient[start:stop] if gradient is not None else None
        self.adamw.step()
        for whole in self.tensors:
            whole.grad = None

    def start_epoch(self, epoch: int, schedule: str, max_epochs: int) -> None:
        """Set every learning rate for the epoch to come; members of a given length have the cosine over it."""
        for group in self.adamw.param_groups:
            own = ("cosine", group["epochs"]) if group["epochs"] else (schedule, max_epochs)
            rate = group["initial_lr"] * schedule_factor(own[0], epoch, own[1])
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Around a `step` that an accelerator records: AdamW wants to be told, and warns whoever tells it earlier."""
        for group in self.adamw.param_groups:
            group["capturable"] = True
        yield
        for group in self.adamw.param_groups:
            group["capturable"] = False


def _rate(learning_rate: float, device: torch.device) -> float | Tensor:
    """What AdamW takes: on an accelerator a tensor there, which a recorded step reads anew each time."""
    return learning_rate if device.type == "cpu" else torch.tensor(learning_rate, device=device)


def _moments(tensor: Tensor, position: int, key: str, sources: Sequence[tuple[AdamWState, Tensor]] | None) -> Tensor:
    if sources is None:
        return torch.zeros_like(tensor)
    parts = [source.moments[position][key].index_select(0, rows) for source, rows in sources]
    # one is a copy already
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _equal_runs(values: Sequence[object]) -> list[tuple[int, int]]:
    """Half-open bounds of the runs of equal neighbours."""
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))
