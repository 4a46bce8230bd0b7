"""The plain torch loop that people write: one network after the other, or in as many processes as there are cores."""

import math
import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from actlab import activations
from actlab.data.datamodule import batch_orders
from actlab.members import Member, stream_seed
from actlab.networks import network as initialisation
from benchmarks.tasks import N_CORES, Task, Trained


def network(member: Member, n_features: int, width: int | None = None) -> nn.Sequential:
    """The network as one would write it, with the member's initial weights; zeros for inputs that it has not."""
    generator = torch.Generator().manual_seed(stream_seed(member.stream, "init"))
    layers: list[nn.Module] = []
    for weight, bias in initialisation.draw(n_features, member.hidden, member.activation, member.init, generator):
        if not layers and width is not None:
            weight = functional.pad(weight, (0, width - n_features))
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
        layers += [linear, activations.get(member.activation).build()]
        if member.dropout > 0:
            layers.append(nn.Dropout(member.dropout))
    # nothing follows the output layer
    return nn.Sequential(*layers[: -2 if member.dropout > 0 else -1])


class Best:
    """The best validation score so far, and when patience is out: actlab's own rule."""

    def __init__(self, task: Task) -> None:
        self.patience = task.optimizer.patience
        self.score, self.epoch, self.epochs = math.nan, 0, 0

    def add(self, score: float) -> bool:
        """Take an epoch's score; true where it is the best so far."""
        self.epochs += 1
        if math.isfinite(score) and not self.score <= score:
            self.score, self.epoch = score, self.epochs
            return True
        if not math.isfinite(score):
            self.patience = 0
        return False

    @property
    def is_done(self) -> bool:
        return self.epochs - self.epoch >= self.patience


def plain(task: Task, members: Sequence[Member], fused: bool | None = None) -> Trained:
    """One network after the other, in a loop of one's own."""
    trained = Trained()
    for member in members:
        best = _plain(task, member, fused)
        trained.add(best.score, best.epochs)
    return trained


def plain_fused(task: Task, members: Sequence[Member]) -> Trained:
    """The same with the fused kernel of the optimiser, which few loops ask for."""
    return plain(task, members, fused=True)


def _plain(task: Task, member: Member, fused: bool | None) -> Best:
    data = task.data[member.split]
    x, y = data.features.to(task.device), data.targets.float().to(task.device)
    model = network(member, data.n_features).to(task.device)
    rate, decay = member.learning_rate, member.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=fused)
    training = torch.from_numpy(data.rows.training)
    validation = torch.from_numpy(data.rows.validation).to(task.device)
    best, kept = Best(task), model.state_dict()
    for epoch in range(task.max_epochs):
        model.train()
        total = 0.0
        for rows in batch_orders(training, [member.stream], epoch, task.settings.batch_size)[0].to(task.device):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x[rows]).squeeze(-1), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            error = functional.mse_loss(model(x[validation]).squeeze(-1), y[validation])
        if best.add(math.sqrt(error.item()) * data.scaler.sd if math.isfinite(total) else math.nan):
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        if best.is_done:
            break
    model.load_state_dict(kept)
    return best


class Processes:
    """The plain loop in as many processes as there are cores, with one thread of arithmetic each.

    Started once and warm: starting them is not counted, unless the caller does.
    """

    def __init__(self, task: Task, n_processes: int = N_CORES) -> None:
        self.n_processes = n_processes
        self.pool = ProcessPoolExecutor(
            n_processes, multiprocessing.get_context("spawn"), _start_process, (pickle.dumps(task),)
        )

    def __enter__(self) -> Self:
        list(self.pool.map(_is_ready, range(4 * self.n_processes)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown()

    def __call__(self, task: Task, members: Sequence[Member]) -> Trained:
        trained = Trained()
        for score, epochs in self.pool.map(partial(_plain_here, task.max_epochs), members):
            trained.add(score, epochs)
        return trained


_TASKS: list[Task] = []


def _start_process(task: bytes) -> None:
    torch.set_num_threads(1)
    _TASKS[:] = [pickle.loads(task)]


def _is_ready(number: int) -> bool:
    return bool(_TASKS)


def task_here() -> Task:
    """The task of this process, in one that `Processes` started."""
    return _TASKS[0]


def _plain_here(max_epochs: int, member: Member) -> tuple[float, int]:
    # the rows are sent once; how long to train may differ from one call to the next
    best = _plain(replace(task_here(), max_epochs=max_epochs), member, None)
    return best.score, best.epochs
