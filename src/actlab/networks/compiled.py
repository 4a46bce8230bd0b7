"""Training steps of a few members of a stack without Python in between, compiled by TorchScript.

These networks are so small that what stands between two kernels decides. With derivatives written out there are no
graphs to build and no gradients to allocate, so that few members are enough to make a step worth its calls, and few
enough that their weights, gradients and moments stay in the processor's cache from one step to the next. TorchScript,
because it holds no interpreter lock: two threads of Python wait for each other at every kernel. torch 2.13 calls it
deprecated and has no other way to run kernels one by one outside Python; where it is gone, or an activation has no
derivative in the table, autograd trains, to the same bits but for what `actlab.networks.derivatives` lists.
"""

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache

import torch
from torch import Tensor, nn

from actlab.networks import activations
from actlab.networks.derivatives import DERIVATIVES, LEARNED, OUTPUTS, Derivative, Learned

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

        The loss of a member is the mean squared error of its batch. See `actlab.networks.regressor` for the network and
        `actlab.networks.optimizer` for what the groups are.

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
