"""A stack in training a few members at a time, so few that what a step touches stays in the processor's cache."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from actlab.data.datamodule import SplitTensors
from actlab.networks.compiled import compiled_steps
from actlab.networks.optimizer import RowAdamW
from actlab.networks.regressor import Regressor
from actlab.networks.streams import MaskBank, masks_of_steps

# Weights, gradients, two moments and signals of a chunk. The article's networks, two cores: 3,652 networks a minute at
# 2 MB, 4,163 at 4, 4,361 at 8, 3,408 at 16 (docs/benchmarks.md); the default ones gain 7 % from 4 to 8.
CHUNK_BYTES = 8_000_000
# Steps without Python in between, which is how long Ctrl-C may have to wait; and their dropout masks.
MOST_STEPS, MASK_BYTES = 256, 64_000_000


def chunk_size(stack: Regressor, batch: int) -> int:
    """Members of a chunk."""
    tensors = stack.stacked().values()
    n_parameters = sum(value[0].numel() for value in tensors)
    widths = sum(value.shape[-1] for value in tensors if value.dim() == 3)
    # of each layer: pre-activations, outputs, and the gradients by both
    n_signals = batch * (stack.first_weight.shape[1] + 4 * widths)
    return max(1, CHUNK_BYTES // (stack.first_weight.element_size() * (4 * n_parameters + n_signals)))


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


class Chunks:
    """The chunks of a stack, and how they train.

    Args:
        stack: The networks.
        optimizer: Made with this size of chunks.
        size: Members of a chunk.
        bank: Dropout masks of the whole population.
        data: The rows.
    """

    def __init__(self, stack: Regressor, optimizer: RowAdamW, size: int, bank: MaskBank, data: SplitTensors) -> None:
        self.stack, self.optimizer, self.bank, self.data = stack, optimizer, bank, data
        self.places = torch.tensor([bank.place[member.stream] for member in stack.members], device=bank.device)
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

    @torch.no_grad()
    def train(self, epoch: int, rows: Tensor) -> Tensor:
        """One step for each of (steps, P, B) flat row numbers; the sum (P,) of the losses, float64."""
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for start, masks, places in self._parts(epoch, rows):
            part = rows[start : start + MOST_STEPS] if not masks else rows[start : start + len(masks[0])]
            for chunk in self.chunks:
                total[chunk.rows] += self._train_chunk(chunk, part[:, chunk.rows], masks, places)
        return total

    def _parts(self, epoch: int, rows: Tensor) -> Iterator[tuple[int, list[Tensor], Tensor]]:
        """First step, masks and each member's place among them, of as many steps as go at once."""
        n_steps, _, batch = rows.shape
        streams = self.stack.masks
        if streams is None:
            for start in range(0, n_steps, MOST_STEPS):
                yield start, [], rows.new_zeros(0)
            return
        shapes = [(batch, width) for width in self.stack.members[0].hidden]
        dtype = self.stack.first_weight.dtype
        whole = self.bank.epoch(epoch, n_steps, shapes, self.stack.dropout, dtype)
        if whole is not None:
            for start in range(0, n_steps, MOST_STEPS):
                yield start, [mask[start : start + MOST_STEPS] for mask in whole], self.places
            return
        bytes_of_step = dtype.itemsize * len(streams.keys) * batch * sum(self.stack.members[0].hidden)
        at_once = max(1, min(MOST_STEPS, MASK_BYTES // bytes_of_step))
        for start in range(0, n_steps, at_once):
            count = min(at_once, n_steps - start)
            yield start, masks_of_steps(streams.generators, count, shapes, self.stack.dropout, dtype), streams.rows

    def _train_chunk(self, chunk: Chunk, rows: Tensor, masks: list[Tensor], places: Tensor) -> Tensor:
        groups = [self.optimizer.adamw.param_groups[number] for number in chunk.numbers]
        states = [[self.optimizer.adamw.state[part] for part in group["params"]] for group in groups]
        beta1, beta2 = groups[0]["betas"]
        streams = places[chunk.rows]
        follow = torch.equal(streams, torch.arange(len(streams)) + streams[:1])
        # compiled only now, in the thread that needs it
        total: Tensor = compiled_steps(self.stack.row.name)(
            rows,
            self.data.flat_features,
            self.data.flat_targets,
            chunk.weights,
            chunk.biases,
            chunk.learned,
            masks,
            streams,
            int(streams[0]) if masks and follow else -1,
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
