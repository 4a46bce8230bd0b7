"""Training steps of a few members of a stack without Python in between, compiled by TorchScript.

These networks are so small that what stands between two kernels decides. With derivatives written out there are no
graphs to build and no gradients to allocate, so that few members are enough to make a step worth its calls, and few
enough that their weights, gradients and moments stay in the processor's cache from one step to the next. TorchScript,
because it holds no interpreter lock: two threads of Python wait for each other at every kernel. torch 2.13 calls it
deprecated and has no other way to run kernels one by one outside Python; where it is gone, or an activation has no
derivative in the table, autograd trains, to the same bits but for what `actlab.networks.activations` lists.

A stack in training a few members at a time, so few that what a step touches stays in the processor's cache.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from actlab.data.datamodule import EpochOrder
from actlab.networks import activations
from actlab.networks.activations import DERIVATIVES, LEARNED, OUTPUTS, Derivative, Learned
from actlab.networks.adamw import RowAdamW
from actlab.networks.autograd import Piece
from actlab.networks.machine import cache_of_a_core
from actlab.networks.network import Regressor
from actlab.networks.streams import EpochBank, Kind, Streams, masks_of_steps

_compiling = threading.Lock()


class Steps(nn.Module):
    """Steps of stacks with this activation in every hidden layer."""

    def __init__(self, activation: Callable[[Tensor], Tensor], derivative: Derivative) -> None:
        super().__init__()
        self.activation, self.derivative = activation, derivative

    def outputs(self, z: Tensor, depth: int, learned: list[Tensor]) -> Tensor:
        """Outputs (P, B, H) of the activation of a hidden layer; they may take the place of `z` (P, B, k H)."""
        h: Tensor = self.activation(z)
        return h

    def gradient(
        self, by_signal: Tensor, z: Tensor, h: Tensor, depth: int, learned: list[Tensor], by_learned: list[Tensor]
    ) -> Tensor:
        """The gradient (P, B, k H) by z; that by what the activation learns (P,) is left in `by_learned`.

        `by_signal` (P, B, H), the gradient by the outputs, is given up: the result may take its place.
        """
        return self.derivative(by_signal, z, h)

    def of_members(self, shared: Tensor, streams: Tensor, first_stream: int) -> Tensor:
        """Of (S, ...), what the members' streams have, (P, ...)."""
        if first_stream >= 0:
            return shared.narrow(0, first_stream, streams.size(0))
        return shared.index_select(0, streams)

    @torch.jit.export
    def predict(
        self,
        features: Tensor,
        weights: list[Tensor],
        biases: list[Tensor],
        learned: list[Tensor],
        streams: Tensor,
        first_stream: int,
    ) -> Tensor:
        """Outputs (P, B) without dropout; `features` (S, B, F), the rest as for `forward`."""
        n_hidden = len(weights) - 1
        signal = self.of_members(features, streams, first_stream)
        for depth in range(n_hidden):
            z = torch.baddbmm(biases[depth].unsqueeze(1), signal, weights[depth])
            signal = self.outputs(z, depth, learned)
        return (signal * weights[n_hidden].transpose(1, 2)).sum(-1) + biases[n_hidden]

    def hidden_layers(
        self,
        signal: Tensor,
        weights: list[Tensor],
        rows_of_biases: list[Tensor],
        learned: list[Tensor],
        masks: list[Tensor],
        into: list[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs of every layer, and the outputs of hidden ones; pre-activations go `into` tensors like these."""
        inputs = [signal]
        outputs: list[Tensor] = []
        for depth in range(len(into)):
            torch.baddbmm(rows_of_biases[depth], signal, weights[depth], out=into[depth])
            signal = self.outputs(into[depth], depth, learned)
            outputs.append(signal)
            if len(masks) > 0:
                signal = signal * masks[depth]
            inputs.append(signal)
        return inputs, outputs

    def forward(
        self,
        rows: Tensor,
        features: Tensor,
        targets: Tensor,
        batches: Tensor,
        batch_targets: Tensor,
        weights: list[Tensor],
        biases: list[Tensor],
        learned: list[Tensor],
        masks: list[Tensor],
        streams: Tensor,
        first_stream: int,
        pieces: list[list[tuple[int, int, int]]],
        averages: list[list[Tensor]],
        squares: list[list[Tensor]],
        count: Tensor,
        rates: list[float],
        decays: list[float],
        beta1: float,
        beta2: float,
        eps: float,
    ) -> Tensor:
        """Train P members in place, one step for each of `rows`; returns the sum (P,) of their losses, float64.

        The loss of a member is the mean squared error of its batch. See `actlab.networks.network` for the network and
        `actlab.networks.adamw` for what the groups are.

        Args:
            rows: (steps, P, B) flat row numbers; none where there are batches.
            features: (N, F') of all splits, F' >= F: the columns from F on are left out.
            targets: (N,).
            batches: (steps, S, B, F') of each stream; none where there are rows.
            batch_targets: (steps, S, B).
            weights: Of each layer, (P, in, k out); the last layer has one output.
            biases: Of each layer, (P, k out).
            learned: Of each hidden layer, (P,), where the activation learns a number.
            masks: Of each hidden layer, (steps, S, B, H), what outputs are multiplied with; none without dropout.
            streams: (P,) place in S of each member.
            first_stream: That of the first one, where they follow each other, else negative.
            pieces: Of each group of equal settings, what AdamW takes as one tensor: the number of a tensor among
                weights, biases and learned ones, and the slice of its members.
            averages: AdamW's first moments, for each group and piece.
            squares: The second moments.
            count: The steps made so far, of all of them.
            rates: Learning rate of each group.
            decays: Weight decay of each group.
            beta1: AdamW's.
            beta2: AdamW's.
            eps: AdamW's.
        """
        is_gathered = len(batches) > 0
        n_steps, _of_members, batch = batch_targets.shape if is_gathered else rows.shape
        n_members, n_hidden, n_features = streams.size(0), len(weights) - 1, weights[0].size(1)
        by_weight = [torch.empty_like(weight) for weight in weights]
        by_bias = [torch.empty_like(bias) for bias in biases]
        by_learned = [torch.empty_like(own) for own in learned]
        tensors, by_tensor = weights + biases + learned, by_weight + by_bias + by_learned
        parameters = [[tensors[i][start:stop] for i, start, stop in own] for own in pieces]
        gradients = [[by_tensor[i][start:stop] for i, start, stop in own] for own in pieces]
        counts = [[count for _ in own] for own in pieces]
        rows_of_biases = [bias.unsqueeze(1) for bias in biases]
        turned = [weight.transpose(1, 2) for weight in weights]
        by_last = by_weight[n_hidden].squeeze(-1)
        signals = [weight.new_empty([n_members, batch, weight.size(2)]) for weight in weights[:n_hidden]]
        batches = batches[..., :n_features]
        flat_rows = rows.flatten(1)
        gathered = features.new_empty([0 if is_gathered else n_members * batch, features.size(1)])
        own_features = gathered.view([-1, batch, features.size(1)])[..., :n_features]
        own_targets = targets.index_select(0, rows.flatten()).view(rows.shape)
        errors = weights[0].new_empty([n_steps, n_members, batch])
        none: list[Tensor] = []
        for step in range(n_steps):
            if is_gathered:
                signal = self.of_members(batches[step], streams, first_stream)
                wanted = self.of_members(batch_targets[step], streams, first_stream)
            else:
                torch.index_select(features, 0, flat_rows[step], out=gathered)
                signal, wanted = own_features, own_targets[step]
            kept = [self.of_members(mask[step], streams, first_stream) for mask in masks]
            inputs, outputs = self.hidden_layers(signal, weights, rows_of_biases, learned, kept, signals)
            signal, last = inputs[n_hidden], turned[n_hidden]
            error = torch.sub((signal * last).sum(-1).add_(biases[n_hidden]), wanted, out=errors[step])
            by_output = error * (2.0 / batch)
            torch.sum(by_output, [1], keepdim=True, out=by_bias[n_hidden])
            by_output = by_output.unsqueeze(-1)
            torch.sum(signal * by_output, [1], out=by_last)
            by_signal = by_output * last
            for i in range(n_hidden):
                depth = n_hidden - 1 - i
                if len(masks) > 0:
                    by_signal.mul_(kept[depth])
                by_z = self.gradient(by_signal, signals[depth], outputs[depth], depth, learned, by_learned)
                torch.bmm(inputs[depth].transpose(1, 2), by_z, out=by_weight[depth])
                torch.sum(by_z, [1], out=by_bias[depth])
                if depth > 0:
                    by_signal = torch.bmm(by_z, turned[depth])
            count.add_(1)
            for g in range(len(pieces)):
                torch.ops.aten._fused_adamw_(
                    parameters[g],
                    gradients[g],
                    averages[g],
                    squares[g],
                    none,
                    counts[g],
                    lr=rates[g],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=decays[g],
                    eps=eps,
                    amsgrad=False,
                    maximize=False,
                )
        # one after the other, as if added up step by step
        return errors.square_().mean(-1).cumsum(0, dtype=torch.float64)[-1]


class LearnedSteps(Steps):
    """Steps of stacks whose activation learns one number a layer."""

    def __init__(self, learned: Learned) -> None:
        super().__init__(nn.Identity(), DERIVATIVES["identity"])
        self.function, self.gradients = learned

    def outputs(self, z: Tensor, depth: int, learned: list[Tensor]) -> Tensor:
        return self.function(z, learned[depth].view(-1, 1, 1))

    def gradient(
        self, by_signal: Tensor, z: Tensor, h: Tensor, depth: int, learned: list[Tensor], by_learned: list[Tensor]
    ) -> Tensor:
        by_z, by_own = self.gradients(by_signal, z, learned[depth].view(-1, 1, 1))
        by_learned[depth].copy_(by_own)
        return by_z


def as_written() -> AbstractContextManager[None]:
    """Around every call of compiled steps: TorchScript's optimiser finds nothing in them to make quicker.

    It takes 40 ms of an activation's first two epochs to look.
    """
    return torch.jit.optimized_execution(False)  # type: ignore[attr-defined]  # documented, not in __all__


def can_compile(activation: str) -> bool:
    """Whether there are compiled steps for stacks of that activation; else only autograd knows how."""
    return (activation in DERIVATIVES or activation in LEARNED) and hasattr(torch.jit, "script")


def compiled_steps(activation: str) -> Steps:
    """The steps of stacks of that activation, compiled, which takes some 40 ms the first time."""
    # TorchScript takes one class at a time
    with _compiling:
        return _compiled(activation)


@cache
def _compiled(activation: str) -> Steps:
    steps = (
        LearnedSteps(LEARNED[activation])
        if activation in LEARNED
        else Steps(OUTPUTS.get(activation) or activations.get(activation).build(), DERIVATIVES[activation])
    )
    with warnings.catch_warnings():
        # the deprecation is known, and what happens when it is carried out is said above
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(steps)  # type: ignore[return-value]  # called like the module it is made from


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
