"""A stack in training a few members at a time, so few that what a step touches stays in the processor's cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from actlab.data.datamodule import EpochOrder
from actlab.networks.bank import EpochBank, Kind
from actlab.networks.compiled import as_written, compiled_steps
from actlab.networks.memory import cache_of_a_core
from actlab.networks.optimizer import RowAdamW
from actlab.networks.regressor import Regressor
from actlab.networks.steps import Piece
from actlab.networks.streams import Streams, masks_of_steps

# Weights, gradients, two moments and signals of a chunk. Two machines with two cores, the article's networks: of
# chunks of 4 to 32 MB those of 8 were the fastest on an EPYC, those of 16 by a seventh on a Xeon with 300 MB of cache.
LEAST_BYTES, MOST_BYTES = 8_000_000, 16_000_000
# Steps without Python in between, which is how long Ctrl-C may have to wait; and their dropout masks.
MOST_STEPS, MASK_BYTES = 256, 64_000_000
NOTHING, NO_ROWS = torch.empty(0), torch.empty(0, 0, 0, dtype=torch.int64)


def chunk_bytes() -> int:
    """How large a chunk should be: half of a core's share of the cache, within what has been found good."""
    return min(MOST_BYTES, max(LEAST_BYTES, cache_of_a_core() // 2))


def chunk_size(stack: Regressor, batch: int) -> int:
    """Members of a chunk: as many chunks as come nearest to `chunk_bytes` each, all of them equally large but one."""
    tensors = stack.stacked().values()
    n_parameters = sum(value[0].numel() for value in tensors)
    widths = sum(value.shape[-1] for value in tensors if value.dim() == 3)
    # of each layer: pre-activations, outputs, and a gradient
    n_signals = batch * (stack.first_weight.shape[1] + 3 * widths)
    n_bytes = stack.n_members * stack.first_weight.element_size() * (4 * n_parameters + n_signals)
    n_chunks = min(stack.n_members, max(1, round(n_bytes / chunk_bytes())))
    return -(-stack.n_members // n_chunks)


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring members of a stack: slices of its tensors and of its optimiser's.

    Args:
        rows: Which members.
        weights: (P, in, k out) of each layer.
        biases: (P, k out) of each layer.
        learned: (P,) of each hidden layer, where the activation learns a number.
        pieces: The slices of the optimiser's parameter groups, from the chunk's first member on.
        numbers: These groups.
    """

    rows: slice
    weights: list[Tensor]
    biases: list[Tensor]
    learned: list[Tensor]
    pieces: list[list[tuple[int, int, int]]]
    numbers: list[int]


@dataclass(frozen=True)
class Batches:
    """What some steps of a chunk train on: gathered rows of all streams, or the numbers of the members' own.

    Args:
        features: (steps, S, B, F), or none.
        targets: (steps, S, B), or none.
        rows: (steps, P, B) flat row numbers, or none.
    """

    features: Tensor
    targets: Tensor
    rows: Tensor


class Chunks:
    """The chunks of a stack, and how they train.

    Args:
        stack: The networks.
        optimizer: Made with this size of chunks.
        size: Members of a chunk.
        bank: Batches and dropout masks of the whole population.
        kind: Which of these are the stack's.
    """

    def __init__(self, stack: Regressor, optimizer: RowAdamW, size: int, bank: EpochBank, kind: Kind) -> None:
        self.stack, self.optimizer, self.bank, self.kind, self.data = stack, optimizer, bank, kind, bank.data
        self.places = torch.tensor([bank.place[member.stream] for member in stack.members])
        self.streams: Streams | None = None
        layers = range(len(stack.activation) + 1)
        self.weights, self.biases = [f"weight_{depth}" for depth in layers], [f"bias_{depth}" for depth in layers]
        self.learned = [f"{name}_{depth}" for depth, names in enumerate(stack.learned) for name in names]
        self.names = [*self.weights, *self.biases, *self.learned]
        self.chunks = [
            self._cut(slice(start, min(start + size, stack.n_members))) for start in range(0, stack.n_members, size)
        ]

    def _cut(self, rows: slice) -> Chunk:
        tensors = {name: value.detach()[rows] for name, value in self.stack.stacked().items()}
        weights, biases, learned = (
            [tensors[name] for name in names] for names in (self.weights, self.biases, self.learned)
        )
        numbers = [i for i, (start, _) in enumerate(self.optimizer.bounds) if rows.start <= start < rows.stop]
        place = [self.names.index(name) for name in self.optimizer.names]
        pieces = [
            [(place[i], start - rows.start, stop - rows.start) for i, start, stop in self.optimizer.pieces[number]]
            for number in numbers
        ]
        return Chunk(rows, weights, biases, learned, pieces, numbers)

    def pieces(self, order: EpochOrder) -> list[Piece]:
        """What there is to do in an epoch: each chunk by itself, unless they share masks that are drawn on the way."""
        if self.kind.layers and not self.bank.found[self.kind].masks:
            return [Piece(slice(0, self.stack.n_members), partial(self.train_together, order))]
        return [Piece(chunk.rows, partial(self.train_alone, chunk, order)) for chunk in self.chunks]

    @torch.no_grad()
    def train_alone(self, chunk: Chunk, order: EpochOrder) -> Tensor:
        """One step for each batch of the epoch; the sum (P,) of the chunk's losses, float64."""
        shared = self.bank.found[self.kind]
        rows = None if len(shared.batches) else self._flat_rows(order, chunk)
        total = torch.zeros(chunk.rows.stop - chunk.rows.start, dtype=torch.float64)
        for steps in _slices(self.kind.steps, MOST_STEPS):
            if rows is None:
                batches = Batches(shared.batches[steps], shared.targets[steps], NO_ROWS)
            else:
                batches = Batches(NOTHING, NOTHING, rows[steps])
            total += self._steps(chunk, batches, [mask[steps] for mask in shared.masks], self.places[chunk.rows])
        return total

    @torch.no_grad()
    def train_together(self, order: EpochOrder) -> Tensor:
        """The same of all chunks, with masks that are drawn a few steps at a time: those of an epoch are too large."""
        self.streams = self.streams or Streams(self.stack.members, "dropout", self.places.device)
        self.streams.seed(order.epoch)
        kind, generators, dtype = self.kind, self.streams.generators, self.stack.first_weight.dtype
        bytes_of_step = dtype.itemsize * len(generators) * kind.batch * sum(kind.hidden)
        rows = [self._flat_rows(order, chunk) for chunk in self.chunks]
        total = torch.zeros(self.stack.n_members, dtype=torch.float64)
        for steps in _slices(kind.steps, max(1, min(MOST_STEPS, MASK_BYTES // bytes_of_step))):
            masks = masks_of_steps(generators, steps.stop - steps.start, kind.layers, kind.dropout, dtype)
            for chunk, own in zip(self.chunks, rows, strict=True):
                batches = Batches(NOTHING, NOTHING, own[steps])
                total[chunk.rows] += self._steps(chunk, batches, masks, self.streams.rows[chunk.rows])
        return total

    def _flat_rows(self, order: EpochOrder, chunk: Chunk) -> Tensor:
        return self.data.flat_rows(order, [member.stream for member in self.stack.members[chunk.rows]])

    def _steps(self, chunk: Chunk, batches: Batches, masks: list[Tensor], streams: Tensor) -> Tensor:
        groups = [self.optimizer.adamw.param_groups[number] for number in chunk.numbers]
        states = [[self.optimizer.adamw.state[part] for part in group["params"]] for group in groups]
        beta1, beta2 = groups[0]["betas"]
        # compiled only now, in the thread that needs it
        steps = compiled_steps(self.stack.row.name)
        with as_written():
            total: Tensor = steps(
                batches.rows,
                self.data.flat_features,
                self.data.flat_targets,
                batches.features,
                batches.targets,
                chunk.weights,
                chunk.biases,
                chunk.learned,
                masks,
                streams,
                first_of(streams),
                chunk.pieces,
                [[state["exp_avg"] for state in group] for group in states],
                [[state["exp_avg_sq"] for state in group] for group in states],
                states[0][0]["step"],
                [group["lr"] for group in groups],
                [group["weight_decay"] for group in groups],
                beta1,
                beta2,
                groups[0]["eps"],
            )
        return total

    @torch.no_grad()
    def predict(self, features: Tensor, places: Tensor) -> Tensor:
        """Outputs (P, V) without dropout for features (S, V, F), P places in S."""
        steps = compiled_steps(self.stack.row.name)
        outputs = []
        for chunk in self.chunks:
            own = places[chunk.rows]
            with as_written():
                outputs.append(steps.predict(features, chunk.weights, chunk.biases, chunk.learned, own, first_of(own)))
        return torch.cat(outputs)


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def first_of(places: Tensor) -> int:
    """The first of places that follow each other, else -1: neighbours are a slice, which need not be copied."""
    first = int(places[0])
    return first if places.tolist() == list(range(first, first + len(places))) else -1
