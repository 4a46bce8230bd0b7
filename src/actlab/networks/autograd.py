"""Training steps of a whole stack by autograd, on an accelerator recorded once and replayed.

A step of a stack is some sixty kernels. Launched one by one from Python, a step of 64 of the article's networks took
1.8 ms on an H200; recorded and launched together, 0.22 ms.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from actlab.data.datamodule import EpochOrder, SplitTensors
from actlab.networks.adamw import RowAdamW
from actlab.networks.network import Regressor

Work = Callable[[], object]


@dataclass(frozen=True)
class Piece:
    """A part of an epoch's work that needs no other part, of some members of a stack.

    `train` takes one step for each batch of the epoch, and returns the sum (P,) of their losses, float64.
    """

    rows: slice
    train: Callable[[], Tensor]

    @property
    def n_members(self) -> int:
        return int(self.rows.stop - self.rows.start)


class AutogradSteps:
    """How a stack trains by autograd.

    Where the device can record, the first step is taken as it comes (libraries set themselves up in it), the second is
    recorded, and from then on all are replays of it. A replay reads and writes the same memory each time, so the rows
    of the epoch and the number of the step lie on the device.

    Args:
        record: Turns a step into its replay; None takes every step as it comes.
    """

    def __init__(
        self, stack: Regressor, optimizer: RowAdamW, data: SplitTensors, record: Callable[[Work], Work] | None
    ) -> None:
        self.stack, self.optimizer, self.data, self.record = stack, optimizer, data, record
        device = stack.first_weight.device
        self.n_features = stack.first_weight.shape[1]
        self.total = torch.zeros(stack.n_members, device=device, dtype=torch.float64)
        self.rows = torch.empty(0, device=device, dtype=torch.int64)
        self.step_index = torch.zeros(1, device=device, dtype=torch.int64)
        self.is_warm = False
        self.replay: Work | None = None

    def pieces(self, order: EpochOrder) -> list[Piece]:
        """All members at once."""
        return [Piece(slice(0, self.stack.n_members), partial(self._train, order))]

    def _train(self, order: EpochOrder) -> Tensor:
        rows = self.data.flat_rows(order, [member.stream for member in self.stack.members])
        self.stack.start_epoch(order.epoch)
        self.total.zero_()
        if self.record is None:
            for own in rows:
                self._step(own)
            return self.total
        if self.rows.shape != rows.shape:
            self.rows = torch.empty_like(rows)
        self.rows.copy_(rows)
        self.step_index.zero_()
        for _ in range(len(rows)):
            if self.replay is None and self.is_warm:
                with self.optimizer.recorded():
                    self.replay = self.record(self._next_step)
            (self.replay or self._next_step)()
            self.is_warm = True
        return self.total

    def predict(self, features: Tensor, places: Tensor) -> Tensor:
        """Outputs (P, V) without dropout for features (S, V, F), P places in S."""
        outputs: Tensor = self.stack(features.index_select(0, places)[..., : self.n_features])
        return outputs

    def _next_step(self) -> None:
        self._step(self.rows.index_select(0, self.step_index)[0])
        self.step_index.add_(1)

    def _step(self, rows: Tensor) -> None:
        features, targets = self.data.gather(rows, self.n_features)
        squares = (self.stack(features) - targets).square()
        if len(self.data.flat_weights):
            squares = squares * self.data.flat_weights[rows]
        loss = squares.mean(dim=1)
        loss.sum().backward()
        self.optimizer.step()
        self.total += loss.detach()


def recorder(device: torch.device) -> Callable[[Work], Work] | None:
    """What turns a step into its replay on that device; None where nothing does."""
    return record if can_record(device) else None


@cache
def can_record(device: torch.device) -> bool:
    """Whether kernels can be recorded there, seen by doing it."""
    if device.type == "cpu":
        return False
    probe = torch.zeros(1, device=device)
    try:
        # the probe lies there before another queue adds to it
        torch.accelerator.synchronize()
        with torch.Stream(device):
            record(partial(probe.add_, 1))()
        torch.accelerator.synchronize()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return bool(probe.item() == 1)


def record(work: Work) -> Work:
    """Record the kernels that `work` launches on the current queue, without running them; returns their replay.

    Raises:
        RuntimeError: `work` waits for the device, or memory runs out.
    """
    free, _ = torch.accelerator.get_memory_info()
    if torch.accelerator.memory_reserved() - torch.accelerator.memory_allocated() > free // 2:
        # what is kept for other steps is not for recorded ones
        torch.accelerator.empty_cache()
    begin, end, replay = _graph()
    begin()
    try:
        work()
    except BaseException:
        with suppress(RuntimeError):
            end()
        raise
    end()
    return replay


def _graph() -> tuple[Work, Work, Work]:
    """How a new graph begins to record, ends, and is replayed; other threads may use the device meanwhile."""
    if hasattr(torch.accelerator, "Graph"):
        graph = torch.accelerator.Graph(capture_error_mode="thread_local")
        return graph.capture_begin, graph.capture_end, graph.replay
    # before torch 2.12 each kind of device had a class of its own
    own = vars(torch.get_device_module(torch.accelerator.current_accelerator()))
    older = next((kind for name, kind in own.items() if name.endswith("Graph") and isinstance(kind, type)), None)
    if older is None:
        raise NotImplementedError("this device records no kernels")
    graph = older()
    return partial(graph.capture_begin, capture_error_mode="thread_local"), graph.capture_end, graph.replay
