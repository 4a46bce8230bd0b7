"""Training steps of a few members of a stack without Python in between, compiled by TorchScript.

These networks are so small that what stands between two kernels decides. With derivatives written out there are no
graphs to build and no gradients to allocate, so that few members are enough to make a step worth its calls, and few
enough that their weights, gradients and moments stay in the processor's cache from one step to the next: a stack
trains chunk by chunk. TorchScript, because it holds no interpreter lock: two threads of Python wait for each other at
every kernel. torch 2.13 calls it deprecated and has no other way to run kernels one by one outside Python; where it is
gone, or an activation's record has no derivative, autograd trains, to the same bits but for what the records call
`is_rounded`.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from actlab import activations
from actlab.data.datamodule import EpochOrder
from actlab.networks.activation_functions import identity
from actlab.networks.adamw import AdamWGroups, RowAdamW
from actlab.networks.autograd import Piece
from actlab.networks.machine import cache_of_a_core
from actlab.networks.network import Layers, Regressor
from actlab.networks.streams import EpochShape, SharedBatches, Streams, masks_of_steps

# TorchScript takes one class at a time
_compiling = threading.Lock()


class Batches(NamedTuple):
    """What P members visit in some steps: batches that lie ready for S streams, or row numbers of a table.

    Features are (steps, S, B, F') and targets (steps, S, B) with no `rows`; else (N, F') and (N,), and `rows` is
    (steps, P, B). F' >= F, and what lies beyond a network's F columns is left out. Weights of rows have the shape of
    the targets, and none where all rows count alike.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    rows: Tensor


class Places(NamedTuple):
    """Where P members lie among S streams: their places (P,), and the first if they follow each other, else -1."""

    places: Tensor
    first: int


class Steps(nn.Module):
    """Steps of stacks with this activation in every hidden layer."""

    def __init__(
        self, activation: Callable[[Tensor], Tensor], derivative: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.activation, self.derivative = activation, derivative

    def activate(self, z: Tensor, depth: int, learned: list[Tensor]) -> Tensor:
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

    def of_members(self, shared: Tensor, places: Places) -> Tensor:
        """Of (S, ...), what the members' streams have, (P, ...)."""
        if places.first >= 0:
            return shared.narrow(0, places.first, places.places.size(0))
        return shared.index_select(0, places.places)

    def pre_activations(self, n_members: int, batch: int, layers: Layers) -> list[Tensor]:
        """Memory for those of every hidden layer, (P, B, k H)."""
        return [weight.new_empty([n_members, batch, weight.size(2)]) for weight in layers.weights[:-1]]

    def hidden_layers(
        self, signal: Tensor, layers: Layers, masks: list[Tensor], into: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs of every layer, and the outputs of hidden ones; pre-activations go `into` tensors like these."""
        inputs = [signal]
        outputs: list[Tensor] = []
        for depth in range(len(into)):
            torch.baddbmm(layers.biases[depth].unsqueeze(1), signal, layers.weights[depth], out=into[depth])
            signal = self.activate(into[depth], depth, layers.learned)
            outputs.append(signal)
            if len(masks) > 0:
                signal = signal * masks[depth]
            inputs.append(signal)
        return inputs, outputs

    def output_layer(self, signal: Tensor, layers: Layers) -> Tensor:
        """The networks' outputs (P, B)."""
        return (signal * layers.weights[-1].transpose(1, 2)).sum(-1).add_(layers.biases[-1])

    @torch.jit.export
    def predict(self, features: Tensor, layers: Layers, places: Places) -> Tensor:
        """Outputs (P, B) without dropout for features (S, B, F)."""
        signal = self.of_members(features, places)
        masks: list[Tensor] = []
        into = self.pre_activations(signal.size(0), signal.size(1), layers)
        inputs, _ = self.hidden_layers(signal, layers, masks, into)
        return self.output_layer(inputs[-1], layers)

    def backward(
        self,
        by_output: Tensor,
        inputs: list[Tensor],
        pre_activations: list[Tensor],
        outputs: list[Tensor],
        masks: list[Tensor],
        layers: Layers,
        gradients: Layers,
    ) -> None:
        """Leave the gradients of a step's losses in `gradients`; `by_output` (P, B) is that by the outputs."""
        n_hidden = len(pre_activations)
        last = layers.weights[n_hidden].transpose(1, 2)
        torch.sum(by_output, [1], keepdim=True, out=gradients.biases[n_hidden])
        by_output = by_output.unsqueeze(-1)
        torch.sum(inputs[n_hidden] * by_output, [1], out=gradients.weights[n_hidden].squeeze(-1))
        by_signal = by_output * last
        for i in range(n_hidden):
            depth = n_hidden - 1 - i
            if len(masks) > 0:
                by_signal.mul_(masks[depth])
            by_z = self.gradient(
                by_signal, pre_activations[depth], outputs[depth], depth, layers.learned, gradients.learned
            )
            torch.bmm(inputs[depth].transpose(1, 2), by_z, out=gradients.weights[depth])
            torch.sum(by_z, [1], out=gradients.biases[depth])
            if depth > 0:
                by_signal = torch.bmm(by_z, layers.weights[depth].transpose(1, 2))

    def update(self, adamw: AdamWGroups, gradients: list[list[Tensor]]) -> None:
        """AdamW's step from the gradients of each group's slices."""
        none: list[Tensor] = []
        adamw.n_steps.add_(1)
        for g in range(len(gradients)):
            torch.ops.aten._fused_adamw_(
                adamw.parameters[g],
                gradients[g],
                adamw.averages[g],
                adamw.squares[g],
                none,
                [adamw.n_steps for _ in gradients[g]],
                lr=adamw.learning_rates[g],
                beta1=adamw.beta1,
                beta2=adamw.beta2,
                weight_decay=adamw.weight_decays[g],
                eps=adamw.eps,
                amsgrad=False,
                maximize=False,
            )

    def forward(
        self, batches: Batches, layers: Layers, masks: list[Tensor], places: Places, adamw: AdamWGroups
    ) -> Tensor:
        """Train P members in place, one step for each batch; returns the sum (P,) of their losses, float64.

        The loss of a member is the mean squared error of its batch, each row's times its weight. `masks` are, of each
        hidden layer, what outputs are multiplied with (steps, S, B, H); none without dropout.
        """
        rows, n_features = batches.rows, layers.weights[0].size(1)
        is_ready = len(rows) == 0
        n_steps, _, batch = batches.targets.shape if is_ready else rows.shape
        n_members, width = places.places.size(0), batches.features.size(-1)
        gradients = Layers(
            [torch.empty_like(weight) for weight in layers.weights],
            [torch.empty_like(bias) for bias in layers.biases],
            [torch.empty_like(own) for own in layers.learned],
        )
        tensors = gradients.weights + gradients.biases + gradients.learned
        slices = [[tensors[i][start:stop] for i, start, stop in own] for own in adamw.slices]
        errors = layers.weights[0].new_empty([n_steps, n_members, batch])
        pre_activations = self.pre_activations(n_members, batch, layers)
        flat_rows, table = rows.flatten(1), batches.features
        flat_signal = table.new_empty([0 if is_ready else n_members * batch, width])
        own_features = flat_signal.view([-1, batch, width])[..., :n_features]
        own_targets = batches.targets.flatten().index_select(0, rows.flatten()).view(rows.shape)
        is_weighted, own_weights = batches.weights.numel() > 0, own_targets
        if is_weighted and not is_ready:
            own_weights = batches.weights.index_select(0, rows.flatten()).view(rows.shape)
        for step in range(n_steps):
            if is_ready:
                signal = self.of_members(batches.features[step], places)[..., :n_features]
                wanted = self.of_members(batches.targets[step], places)
            else:
                torch.index_select(table, 0, flat_rows[step], out=flat_signal)
                signal, wanted = own_features, own_targets[step]
            kept = [self.of_members(mask[step], places) for mask in masks]
            inputs, outputs = self.hidden_layers(signal, layers, kept, pre_activations)
            error = torch.sub(self.output_layer(inputs[-1], layers), wanted, out=errors[step])
            if is_weighted:
                weights = self.of_members(batches.weights[step], places) if is_ready else own_weights[step]
                by_output = error * (weights * (2.0 / batch))
                error.square_().mul_(weights)
            else:
                by_output = error * (2.0 / batch)
            self.backward(by_output, inputs, pre_activations, outputs, kept, layers, gradients)
            self.update(adamw, slices)
        losses = errors if is_weighted else errors.square_()
        # one after the other, as if added up step by step
        return losses.mean(-1).cumsum(0, dtype=torch.float64)[-1]


class LearnedSteps(Steps):
    """Steps of stacks whose activation learns one number a layer."""

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        gradients: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__(nn.Identity(), identity)
        self.function, self.gradients = function, gradients

    def activate(self, z: Tensor, depth: int, learned: list[Tensor]) -> Tensor:
        return self.function(z, learned[depth].view(-1, 1, 1))

    def gradient(
        self, by_signal: Tensor, z: Tensor, h: Tensor, depth: int, learned: list[Tensor], by_learned: list[Tensor]
    ) -> Tensor:
        by_z, by_own = self.gradients(by_signal, z, learned[depth].view(-1, 1, 1))
        by_learned[depth].copy_(by_own)
        return by_z


def as_written() -> AbstractContextManager[None]:
    """Around every call of compiled steps: TorchScript's optimiser finds nothing in them to make quicker. It takes 40
    ms of an activation's first two epochs to look."""
    return torch.jit.optimized_execution(False)  # type: ignore[attr-defined]  # documented, not in __all__


def can_compile(activation: str) -> bool:
    """Whether there are compiled steps for stacks of that activation; else only autograd knows how."""
    row = activations.get(activation)
    return bool(row.derivative or row.learned) and hasattr(torch.jit, "script")


def compiled_steps(activation: str) -> Steps:
    """The steps of stacks of that activation, compiled, which takes some 40 ms the first time."""
    with _compiling:
        return _compiled(activation)


@cache
def _compiled(activation: str) -> Steps:
    row = activations.get(activation)
    if row.learned:
        steps: Steps = LearnedSteps(*map(activations.load, row.learned))
    else:
        forward = activations.load(row.outputs) if row.outputs else row.build()
        steps = Steps(forward, activations.load(row.derivative))
    with warnings.catch_warnings():
        # the deprecation is known, and what happens when it is carried out is said above
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(steps)  # type: ignore[return-value]  # called like the module it is made from


# Weights, gradients, two moments and signals of a chunk. Two machines with two cores, the article's networks: of
# chunks of 4 to 32 MB those of 8 were the fastest on an EPYC, those of 16 by a seventh on a Xeon with 300 MB of cache.
LEAST_BYTES, MOST_BYTES = 8_000_000, 16_000_000
# Steps without Python in between, which is how long Ctrl-C may have to wait; and their dropout masks.
MOST_STEPS, MASK_BYTES = 256, 64_000_000
NO_ROWS = torch.empty(0, 0, 0, dtype=torch.int64)


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


class Chunks:
    """The chunks of a stack, a few neighbouring members each, and how they train.

    The optimizer is made with the same `size` of chunks; `shape` says which of the shared batches are the stack's.
    """

    def __init__(
        self, stack: Regressor, optimizer: RowAdamW, size: int, shared: SharedBatches, shape: EpochShape
    ) -> None:
        self.stack, self.optimizer, self.shared, self.shape, self.data = stack, optimizer, shared, shape, shared.data
        self.places = torch.tensor([shared.place[member.stream] for member in stack.members])
        self.streams: Streams | None = None
        self.chunks = list(_slices(stack.n_members, size))
        # of each chunk, by its first member: cut once for all epochs
        self.parts = {rows.start: (stack.layers(rows), optimizer.groups(rows)) for rows in self.chunks}

    def pieces(self, order: EpochOrder) -> list[Piece]:
        """Each chunk by itself, unless they share masks that are drawn on the way."""
        if self.shape.dropped and not self.shared.of_shape[self.shape].masks:
            return [Piece(slice(0, self.stack.n_members), partial(self.train_together, order))]
        return [Piece(rows, partial(self.train_alone, rows, order)) for rows in self.chunks]

    @torch.no_grad()
    def train_alone(self, rows: slice, order: EpochOrder) -> Tensor:
        """One step for each batch of the epoch; the sum (P,) of the losses of a chunk's members, float64."""
        shared = self.shared.of_shape[self.shape]
        own = None if len(shared.features) else self._own_batches(rows, order)
        total = torch.zeros(rows.stop - rows.start, dtype=torch.float64)
        for steps in _slices(self.shape.steps, MOST_STEPS):
            ready = shared.features[steps], shared.targets[steps], shared.weights[steps]
            batches = own(steps) if own else Batches(*ready, NO_ROWS)
            total += self._steps(rows, batches, [mask[steps] for mask in shared.masks], self.places[rows])
        return total

    @torch.no_grad()
    def train_together(self, order: EpochOrder) -> Tensor:
        """The same of all chunks, with masks that are drawn a few steps at a time: those of an epoch are too large."""
        self.streams = self.streams or Streams(self.stack.members, "dropout", self.places.device)
        self.streams.seed(order.epoch)
        shape, generators, dtype = self.shape, self.streams.generators, self.stack.first_weight.dtype
        bytes_of_step = dtype.itemsize * len(generators) * shape.batch * sum(shape.hidden)
        own = [self._own_batches(rows, order) for rows in self.chunks]
        total = torch.zeros(self.stack.n_members, dtype=torch.float64)
        for steps in _slices(shape.steps, max(1, min(MOST_STEPS, MASK_BYTES // bytes_of_step))):
            masks = masks_of_steps(generators, steps.stop - steps.start, shape, dtype)
            for rows, batches in zip(self.chunks, own, strict=True):
                total[rows] += self._steps(rows, batches(steps), masks, self.streams.rows[rows])
        return total

    def _own_batches(self, rows: slice, order: EpochOrder) -> Callable[[slice], Batches]:
        """Makes some steps' batches of a chunk: numbers of rows that are gathered on the way."""
        data, streams = self.data, [member.stream for member in self.stack.members[rows]]
        visited = data.flat_rows(order, streams)
        return lambda steps: Batches(data.flat_features, data.flat_targets, data.flat_weights, visited[steps])

    def _steps(self, rows: slice, batches: Batches, masks: list[Tensor], places: Tensor) -> Tensor:
        # compiled only now, in the thread that needs it
        steps = compiled_steps(self.stack.row.name)
        layers, adamw = self.parts[rows.start]
        adamw = adamw._replace(learning_rates=self.optimizer.learning_rates(rows))
        with as_written():
            return cast(Tensor, steps(batches, layers, masks, places_among(places), adamw))

    @torch.no_grad()
    def predict(self, features: Tensor, places: Tensor) -> Tensor:
        """Outputs (P, V) without dropout for features (S, V, F), P places in S."""
        predict = compiled_steps(self.stack.row.name).predict
        with as_written():
            outputs = [predict(features, self.parts[rows.start][0], places_among(places[rows])) for rows in self.chunks]
        return torch.cat(outputs)


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def places_among(places: Tensor) -> Places:
    """As compiled steps take places (P,): those that follow each other are a slice, which need not be copied."""
    first = int(places[0])
    is_run = places.tolist() == list(range(first, first + len(places)))
    return Places(places, first if is_run else -1)
