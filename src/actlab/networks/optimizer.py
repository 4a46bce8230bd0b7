"""AdamW over the members of a stack, each with its own learning rate and weight decay."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from actlab.networks.regressor import Regressor

# AdamW's names
MOMENTS = ("exp_avg", "exp_avg_sq")


def schedule_factor(schedule: str, epoch: int, max_epochs: int) -> float:
    """What the learning rate is multiplied by in an epoch: 1, or the half cosine from 1 towards 0."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / max_epochs))
    return 1.0


class RowAdamW:
    """A stock AdamW over the members of a stack.

    Neighbouring members with equal settings share a parameter group of slices of the stacked tensors, so the fused
    kernel runs over long rows. The slices share the storage of the stack; gradients are handed over before a step.

    Args:
        stack: The networks.
        chunk: No group reaches over a multiple of so many members; None is no such bound.
        sources: Optimisers to go on from, with the numbers of their members that are this one's, one source after the
            other. All have made the same number of steps.
    """

    def __init__(
        self, stack: Regressor, chunk: int | None = None, sources: "Sequence[tuple[RowAdamW, Tensor]] | None" = None
    ) -> None:
        self.tensors = list(stack.stacked().values())
        size = chunk or stack.n_members
        self.bounds = _equal_runs(
            [(m.learning_rate, m.weight_decay, m.epochs, row // size) for row, m in enumerate(stack.members)]
        )
        groups = [
            {
                "params": [torch.nn.Parameter(tensor.detach()[start:stop]) for tensor in self.tensors],
                "lr": stack.members[start].learning_rate,
                "initial_lr": stack.members[start].learning_rate,
                "weight_decay": stack.members[start].weight_decay,
                "epochs": stack.members[start].epochs,
            }
            for start, stop in self.bounds
        ]
        self.adamw = torch.optim.AdamW(groups, fused=True)
        for position, tensor in enumerate(self.tensors):
            step, whole = _fresh(tensor.detach()) if sources is None else _joined(sources, position)
            for (start, stop), group in zip(self.bounds, self.adamw.param_groups, strict=True):
                self.adamw.state[group["params"][position]] = {
                    "step": step.clone(),
                    **{key: value[start:stop] for key, value in whole.items()},
                }

    def step(self) -> None:
        """One update from the gradients of the stacked tensors, which are given up."""
        for (start, stop), group in zip(self.bounds, self.adamw.param_groups, strict=True):
            for part, whole in zip(group["params"], self.tensors, strict=True):
                part.grad = whole.grad[start:stop] if whole.grad is not None else None
        self.adamw.step()
        for whole in self.tensors:
            whole.grad = None

    def start_epoch(self, epoch: int, schedule: str, max_epochs: int) -> None:
        """Set every learning rate for the epoch to come; members of a given length have the cosine over it."""
        for group in self.adamw.param_groups:
            own = ("cosine", group["epochs"]) if group["epochs"] else (schedule, max_epochs)
            group["lr"] = group["initial_lr"] * schedule_factor(own[0], epoch, own[1])

    def moments(self, position: int, rows: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Step count and moments of some members, in ascending order, for the tensor at a position, group by group."""
        found: dict[str, list[Tensor]] = {key: [] for key in MOMENTS}
        for (start, stop), group in zip(self.bounds, self.adamw.param_groups, strict=True):
            state = self.adamw.state[group["params"][position]]
            own = rows[(rows >= start) & (rows < stop)] - start
            for key in MOMENTS:
                found[key].append(state[key].index_select(0, own))
        return state["step"], found


def _fresh(tensor: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Step count and moments as AdamW's first step would make them."""
    step = torch.zeros((), dtype=torch.float32, device=tensor.device)
    return step, {key: torch.zeros_like(tensor) for key in MOMENTS}


def _joined(sources: Sequence[tuple[RowAdamW, Tensor]], position: int) -> tuple[Tensor, dict[str, Tensor]]:
    parts = [source.moments(position, rows) for source, rows in sources]
    return parts[0][0], {key: torch.cat([part for _, own in parts for part in own[key]]) for key in MOMENTS}


def _equal_runs(values: Sequence[object]) -> list[tuple[int, int]]:
    """Half-open bounds of the runs of equal neighbours."""
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))
