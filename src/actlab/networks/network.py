"""The network: THE forward pass, initial weights, and stacks of members of equal architecture and activation.

Member i of a stack computes what an `nn.Sequential` of `nn.Linear`, activation and dropout would compute with its slice
of the parameters, all of which have a leading member axis `P`. Outputs (P, B) are the standardised target.

Initial weights are drawn from the member's own generator. `torch` is the stream of `nn.Linear`: equal bits to layers
built one after the other under `torch.manual_seed`. `auto` keeps the second moment of the signal through the layers for
any activation (He et al. 2015, with the gain found numerically), so that no activation is handicapped by a scale made
for another one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from actlab import activations
from actlab.members import Member, stream_seed
from actlab.networks.activation_functions import RReLU
from actlab.networks.streams import Streams, streams_on

Signal = TypeVar("Signal")


def forward_pass(
    n_hidden: int,
    signal: Signal,
    linear: Callable[[int, Signal], Signal],
    activate: Callable[[int, Signal], Signal],
    look: Callable[[int, Signal, Signal], object] | None = None,
) -> Signal:
    """The outputs of a network: a linear layer, with an activation after each but the last.

    Args:
        signal: The inputs, in whatever stands for values: tensors of a stack, names in an ONNX graph.
        linear: Depth (from 0; `n_hidden` is the output layer) and the layer's inputs to its pre-activations.
        activate: Depth and pre-activations to the layer's outputs, after dropout where there is any.
        look: Is shown each hidden layer's depth, pre-activations and outputs.
    """
    for depth in range(n_hidden):
        z = linear(depth, signal)
        signal = activate(depth, z)
        if look is not None:
            look(depth, z, signal)
    return linear(n_hidden, signal)


@cache
def gain(activation: str) -> float:
    """1 / sqrt(E[f(z)^2]) for z ~ N(0, 1), by the mean over some 4,096 normal quantiles.

    A record's own gain is exact: SELU's fixed point asks for LeCun normal (Klambauer et al. 2017), and E[f(z)^2] is 1
    there but for rounding. An activation whose second moment is zero or not finite (a constant one) keeps 1.
    """
    row = activations.get(activation)
    if row.gain is not None:
        return row.gain
    per_axis = round(4096 ** (1 / row.width_factor)) * (4 if row.width_factor > 1 else 1)
    axis = torch.special.ndtri((torch.arange(per_axis, dtype=torch.float64) + 0.5) / per_axis)
    axis = axis / axis.square().mean().sqrt()
    grid = torch.cartesian_prod(*[axis] * row.width_factor).reshape(-1, row.width_factor)
    with torch.no_grad():
        moment = row.build().double().eval()(grid).square().mean().item()
    return 1 / math.sqrt(moment) if math.isfinite(moment) and moment > 0 else 1.0


def layer_shapes(n_features: int, hidden: tuple[int, ...], width_factor: int) -> list[tuple[int, int]]:
    """(outputs, inputs) of each linear layer, the output layer last: [(k H1, F), (k H2, H1), ..., (1, Hn)]."""
    outputs = (*(width_factor * units for units in hidden), 1)
    return list(zip(outputs, (n_features, *hidden), strict=True))


def draw(
    n_features: int, hidden: tuple[int, ...], activation: str, init: str, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Weights (out, in) and biases (out,) of each layer of one member, in float32, in the order of construction."""
    row = activations.get(activation)
    layers = []
    for depth, (n_out, n_in) in enumerate(layer_shapes(n_features, hidden, row.width_factor)):
        # float32 whatever the default: one stream for every precision
        weight, bias = torch.empty(n_out, n_in, dtype=torch.float32), torch.zeros(n_out, dtype=torch.float32)
        if init == "torch":
            bound = 1 / math.sqrt(n_in) if n_in else 0.0
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        else:
            # the first layer sees scaled inputs, not an activation's output
            scale = gain(activation) if depth else 1.0
            weight.normal_(0.0, scale / math.sqrt(max(n_in, 1)), generator=generator)
        layers.append((weight, bias))
    return layers


# the only tensor of a member whose shape depends on its features
FIRST_WEIGHT = "weight_0"
# Drawing is half arithmetic and half Python, so more than two threads wait for each other: 1,024 of the article's
# networks on 16 cores took 0.70 s in one, 0.45 in two, 0.67 in four, 0.93 in eight.
DRAWING_THREADS = 2


class Layers(NamedTuple):
    """The parameters of P members, or the gradients by them.

    Of each layer: weights (P, in, k out) and biases (P, k out), the last layer with one output; and, where a hidden
    layer's activation learns a number, that (P,).
    """

    weights: list[Tensor]
    biases: list[Tensor]
    learned: list[Tensor]

    def tensors(self) -> list[Tensor]:
        return self.weights + self.biases + self.learned


class Regressor(nn.Module):
    """A stack of `P` members: networks that are computed together, and do not know of each other.

    Args:
        members: Equal in activation, hidden widths and dropout.
        n_features: Input columns of each member, F_i. The stack takes the largest; a member with fewer columns has
            zero weights there, which stay zero.
        parameters: Tensors with a leading axis P to use instead of drawing initial ones.
        width: Input columns of the stack, where other members of the population have more than its own: products of
            other sizes are rounded otherwise.
    """

    def __init__(
        self,
        members: Sequence[Member],
        n_features: Sequence[int],
        parameters: dict[str, Tensor] | None = None,
        width: int = 0,
    ) -> None:
        super().__init__()
        first = members[0]
        self.members, self.n_features = tuple(members), tuple(n_features)
        self.dropout = first.dropout
        self.row = activations.get(first.activation)
        self.activation = nn.ModuleList(self.row.build() for _ in first.hidden)
        for name, value in (self._draw(width) if parameters is None else parameters).items():
            self.register_parameter(name, nn.Parameter(value))
        # the template modules only lend their code: what they learn is stacked, and lies in this module
        self.learned = [[name for name, _ in module.named_parameters()] for module in self.activation]
        self.activation.requires_grad_(False)
        self.masks: Streams | None = None
        self.noise: Streams | None = None

    def _draw(self, width: int) -> dict[str, Tensor]:
        # members that differ in their learning rate alone begin with equal weights
        alike: dict[object, list[int]] = {}
        for row, (member, n_features) in enumerate(zip(self.members, self.n_features, strict=True)):
            alike.setdefault((member.stream, n_features, member.init), []).append(row)
        first = self._draw_member(self.members[0], self.n_features[0])
        whole = empty_stack(first, self.n_members, max(width, *self.n_features))

        def fill(rows: list[int]) -> None:
            state = self._draw_member(self.members[rows[0]], self.n_features[rows[0]])
            for row in rows:
                write_row(whole, row, state)

        with ThreadPoolExecutor(min(DRAWING_THREADS, torch.get_num_threads())) as pool:
            list(pool.map(fill, alike.values()))
        return whole

    def _draw_member(self, member: Member, n_features: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(stream_seed(member.stream, "init"))
        layers = draw(n_features, member.hidden, member.activation, member.init, generator)
        state: dict[str, Tensor] = {}
        for depth, (weight, bias) in enumerate(layers):
            state |= {f"weight_{depth}": weight, f"bias_{depth}": bias}
        for depth, module in enumerate(self.activation):
            for name, value in module.named_parameters():
                state[f"{name}_{depth}"] = value.detach().clone()
        return state

    @property
    def n_members(self) -> int:
        return len(self.members)

    @property
    def n_hidden(self) -> int:
        return len(self.activation)

    @property
    def first_weight(self) -> Tensor:
        """Weights (P, F, k H) of the first layer; their device and dtype are the stack's."""
        return self.get_parameter(FIRST_WEIGHT)

    def stacked(self) -> dict[str, Tensor]:
        """Every learned tensor with its leading axis P, by name."""
        return dict(self.named_parameters(recurse=False))

    def layers(self, rows: slice | None = None) -> Layers:
        """The stacked tensors layer by layer, of all members or, detached, of some neighbours."""
        tensors = {name: value if rows is None else value.detach()[rows] for name, value in self.stacked().items()}
        depths = range(self.n_hidden + 1)
        learned = [tensors[f"{name}_{depth}"] for depth, names in enumerate(self.learned) for name in names]
        return Layers([tensors[f"weight_{d}"] for d in depths], [tensors[f"bias_{d}"] for d in depths], learned)

    def member_state(self, row: int) -> dict[str, Tensor]:
        """The tensors of one member as it would be alone: (H, F_i), (H,), ...; copies."""
        return unstack({name: value.detach()[row] for name, value in self.stacked().items()}, self.n_features[row])

    def n_parameters(self, row: int) -> int:
        """Learned numbers of one member."""
        padding = self.first_weight.shape[1] - self.n_features[row]
        per_member = sum(value[0].numel() for value in self.stacked().values())
        return per_member - padding * self.first_weight.shape[2]

    def start_epoch(self, epoch: int) -> None:
        """Put the members' random streams at the start of an epoch (dropout masks, random slopes)."""
        device = self.first_weight.device
        if self.dropout > 0:
            self.masks = self.masks or streams_on(device, self.members, "dropout")
            self.masks.seed(epoch)
        for depth, module in enumerate(self.activation):
            if isinstance(module, RReLU):
                self.noise = self.noise or streams_on(device, self.members, "noise")
                module.uniform = self.noise.uniform
                if depth == 0:
                    self.noise.seed(epoch)

    def forward(self, features: Tensor, look: Callable[[int, Tensor, Tensor], object] | None = None) -> Tensor:
        """Outputs (P, B) for features (P, B, F), or (B, F) shared by all members; `look` as in `forward_pass`."""
        streams = self.masks if self.training else None
        shapes = [(features.shape[-2], width) for width in self.members[0].hidden]
        masks = streams.masks(shapes, self.dropout, self.first_weight.dtype) if streams is not None else []

        def activate(depth: int, z: Tensor) -> Tensor:
            outputs = self.activate(depth, z)
            return outputs if streams is None else streams.multiply(outputs, masks[depth].to(outputs.dtype))

        return forward_pass(self.n_hidden, features, self.linear, activate, look)

    def linear(self, depth: int, signal: Tensor) -> Tensor:
        """Pre-activations (P, B, k H) of a hidden layer, or the outputs (P, B) of the last layer."""
        weight, bias = getattr(self, f"weight_{depth}"), getattr(self, f"bias_{depth}")
        if depth == self.n_hidden:
            # matrix products with one output column differ in the last bit with the number of members
            return cast(Tensor, (signal * weight.transpose(1, 2)).sum(-1) + bias)
        if signal.dim() == 2:
            signal = signal.expand(self.n_members, *signal.shape)
        return torch.baddbmm(bias.unsqueeze(1), signal, weight)

    def activate(self, depth: int, z: Tensor) -> Tensor:
        """Outputs (P, B, H) of the activation of a hidden layer for pre-activations (P, B, k H), without dropout."""
        module = self.activation[depth]
        if not self.learned[depth]:
            return cast(Tensor, module(z))
        own = {name: getattr(self, f"{name}_{depth}") for name in self.learned[depth]}
        apply = partial(torch.func.functional_call, module)
        return cast(Tensor, torch.func.vmap(lambda one, signal: apply(one, (signal,)))(own, z))


def gather(sources: Sequence[tuple[Regressor, Tensor]]) -> Regressor:
    """A new stack with copies of some members (their rows) of equally wide stacks, one source after the other."""
    first = sources[0][0]
    rows = [(stack, row) for stack, index in sources for row in index.tolist()]
    stack = Regressor(
        [own.members[row] for own, row in rows],
        [own.n_features[row] for own, row in rows],
        take_rows(*((own.stacked(), index) for own, index in sources)),
    )
    stack.activation.to(first.first_weight)
    return stack.train(first.training)


def take_rows(*sources: tuple[Mapping[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """Copies of some members' rows of stacked tensors, one source after the other."""
    taken = [{name: value.detach().index_select(0, rows) for name, value in own.items()} for own, rows in sources]
    if len(taken) == 1:
        return taken[0]
    return {name: torch.cat([own[name] for own in taken]) for name in taken[0]}


def stack_states(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of single members, as `Regressor.member_state` gives, to the parameters of a stack.

    Weights (out, in) become (P, in, out), which makes their gradient one product without a copy to turn it round;
    narrower first layers are padded with zeros.
    """
    whole = empty_stack(states[0], len(states), max(state[FIRST_WEIGHT].shape[-1] for state in states))
    for row, state in enumerate(states):
        write_row(whole, row, state)
    return whole


def empty_stack(state: dict[str, Tensor], n_members: int, width: int) -> dict[str, Tensor]:
    """Zeros for so many members like this one, whose first layer takes `width` columns, or its own if more."""
    whole = {}
    for name, value in state.items():
        shape = [*value.shape]
        if name == FIRST_WEIGHT:
            shape[-1] = max(width, shape[-1])
        if name.startswith("weight_"):
            shape.reverse()
        whole[name] = value.new_zeros(n_members, *shape)
    return whole


def write_row(whole: dict[str, Tensor], row: int, state: dict[str, Tensor]) -> None:
    """Put a member's tensors into a stack, in place: copies to widen, stack and turn would each touch all memory."""
    for name, value in state.items():
        own = _turned(name, whole[name][row])
        (own[:, : value.shape[-1]] if name == FIRST_WEIGHT else own).copy_(value)


def unstack(rows: dict[str, Tensor], n_features: int) -> dict[str, Tensor]:
    """One member's row of every parameter of a stack as the member would be alone: weights (out, in), no padding."""
    turned = {name: _turned(name, value) for name, value in rows.items()}
    return {
        name: (value[:, :n_features] if name == FIRST_WEIGHT else value).clone(memory_format=torch.contiguous_format)
        for name, value in turned.items()
    }


def _turned(name: str, value: Tensor) -> Tensor:
    return value.transpose(-1, -2) if name.startswith("weight_") else value
