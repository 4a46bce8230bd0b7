"""The network: a stack of members of equal architecture and activation, trained in lockstep.

Every parameter has a leading member axis `P`; a stack maps features (B, F) or (P, B, F) to outputs (P, B), the
standardised target. Member i computes what an `nn.Sequential` of `nn.Linear`, activation and dropout would compute
with its slice of the parameters.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from actlab.members import Member, stream_seed
from actlab.networks import activations, initialisation

# dropout compares 16 random bits with the drop probability: four draws from one 64-bit number
DROPOUT_LEVELS = 1 << 16
# the only tensor of a member whose shape depends on its features
FIRST_WEIGHT = "weight_0"


class Streams:
    """The random numbers of the members of one stack, from generators that belong to them alone.

    Members of one stream (seed and split) get equal numbers, so that a member does not depend on its neighbours.
    """

    def __init__(self, members: Sequence[Member], purpose: str, device: torch.device) -> None:
        self.purpose = purpose
        self.keys = sorted({member.stream for member in members})
        row_of = {key: row for row, key in enumerate(self.keys)}
        self.rows = torch.tensor([row_of[member.stream] for member in members], device=device)
        # the same streams in the same order over and over, as in an untouched stack: masks need no copy per member
        self.is_tiled = self.rows.tolist() == list(range(len(self.keys))) * (len(members) // len(self.keys))
        self.generators = [torch.Generator(device) for _ in self.keys]
        self.seed(0)

    def seed(self, epoch: int) -> None:
        """Start every stream at the state that belongs to (seed, split, purpose, epoch)."""
        for key, generator in zip(self.keys, self.generators, strict=True):
            generator.manual_seed(stream_seed(key, self.purpose, epoch))

    def uniform(self, shape: torch.Size) -> Tensor:
        """Numbers in [0, 1) of shape (P, ...), float32."""
        device = self.rows.device
        drawn = [torch.rand(shape[1:], generator=g, device=device, dtype=torch.float32) for g in self.generators]
        return torch.stack(drawn)[self.rows]

    def drop(self, signal: Tensor, probability: float) -> Tensor:
        """Inverted dropout of (P, ...): zero with `probability` (rounded to 1/65536), else scaled up."""
        masks = torch.stack([keep_mask(signal.shape[1:], probability, g) for g in self.generators])
        scaled = masks.to(signal.dtype) / (1 - probability)
        if self.is_tiled:
            tiled = signal.reshape(-1, len(self.keys), *signal.shape[1:])
            return (tiled * scaled).reshape(signal.shape)
        return signal * scaled[self.rows]

    def of_steps(
        self, n_steps: int, shapes: Sequence[tuple[int, int]], probability: float, dtype: torch.dtype
    ) -> list[Tensor]:
        """What `drop` would multiply signals (P, B, H) of some layers with, for the next steps of an epoch.

        Args:
            n_steps: How many.
            shapes: (B, H) of each layer that drops.
            probability: Of a zero.
            dtype: Of the signals.

        Returns:
            (n_steps, S, B, H) of each layer for the S streams; member i has that of stream `rows[i]`.
        """
        counts = [rows * width for rows, width in shapes]
        words = [(count + 3) // 4 for count in counts]
        drawn = torch.stack([random_words(n_steps * sum(words), g).view(n_steps, -1) for g in self.generators], dim=1)
        masks, start = [], 0
        for (rows, width), count, own in zip(shapes, counts, words, strict=True):
            bits = drawn[..., start : start + own].contiguous().view(torch.int16)[..., :count]
            kept = (bits >= least_kept(probability)).to(dtype) / (1 - probability)
            masks.append(kept.view(n_steps, len(self.keys), rows, width))
            start += own
        return masks


def keep_mask(shape: Sequence[int], probability: float, generator: torch.Generator) -> Tensor:
    """One member's dropout mask, true where a unit stays; on the generator's device."""
    count = 1
    for size in shape:
        count *= size
    return (random_words((count + 3) // 4, generator).view(torch.int16)[:count] >= least_kept(probability)).view(*shape)


def random_words(count: int, generator: torch.Generator) -> Tensor:
    """So many 64-bit numbers, all equally likely, on the generator's device; two draws are as one of both lengths."""
    words = torch.empty(count, dtype=torch.int64, device=generator.device)
    return words.random_(-(2**63), None, generator=generator)


def least_kept(probability: float) -> int:
    """Of 16-bit numbers, the least that lets a unit stay."""
    return round(probability * DROPOUT_LEVELS) - DROPOUT_LEVELS // 2


class Regressor(nn.Module):
    """A stack of `P` members.

    Args:
        members: Equal in activation, hidden widths and dropout.
        n_features: Input columns of each member, F_i. The stack takes the largest; a member with fewer columns has
            zero weights there, which stay zero.
        parameters: Tensors with a leading axis P to use instead of drawing initial ones.
    """

    def __init__(
        self, members: Sequence[Member], n_features: Sequence[int], parameters: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        first = members[0]
        self.members, self.n_features = tuple(members), tuple(n_features)
        self.dropout = first.dropout
        self.row = activations.get(first.activation)
        self.activation = nn.ModuleList(self.row.build() for _ in first.hidden)
        stacked = parameters if parameters is not None else self._draw()
        for name, value in stacked.items():
            self.register_parameter(name, nn.Parameter(value))
        # the template modules only lend their code: what they learn is stacked, and lies in this module
        self.learned = [[name for name, _ in module.named_parameters()] for module in self.activation]
        self.activation.requires_grad_(False)
        self.masks: Streams | None = None
        self.noise: Streams | None = None

    def _draw(self) -> dict[str, Tensor]:
        # members that differ in their learning rate alone begin with equal weights
        drawn: dict[object, dict[str, Tensor]] = {}
        states = []
        for member, n_features in zip(self.members, self.n_features, strict=True):
            key = (member.stream, n_features, member.init)
            if key not in drawn:
                drawn[key] = self._draw_member(member, n_features)
            states.append(drawn[key])
        return stack_states(states)

    def _draw_member(self, member: Member, n_features: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(stream_seed(member.stream, "init"))
        layers = initialisation.draw(n_features, member.hidden, member.activation, member.init, generator)
        state = {}
        for depth, (weight, bias) in enumerate(layers):
            state[f"weight_{depth}"], state[f"bias_{depth}"] = weight, bias
        for depth, module in enumerate(self.activation):
            for name, value in module.named_parameters():
                state[f"{name}_{depth}"] = value.detach().clone()
        return state

    @property
    def n_members(self) -> int:
        return len(self.members)

    @property
    def first_weight(self) -> Tensor:
        """Weights (P, F, k H) of the first layer; their device and dtype are the stack's."""
        return self.get_parameter(FIRST_WEIGHT)

    def stacked(self) -> dict[str, Tensor]:
        """Every learned tensor with its leading axis P, by name."""
        return {name: value for name, value in self.named_parameters(recurse=False)}

    def member_state(self, row: int) -> dict[str, Tensor]:
        """The tensors of one member as it would be alone: (H, F_i), (H,), ...; copies."""
        return unstack({name: value.detach()[row] for name, value in self.stacked().items()}, self.n_features[row])

    def n_parameters(self, row: int) -> int:
        """Learned numbers of one member."""
        padding = self.first_weight.shape[1] - self.n_features[row]
        per_member = sum(value[0].numel() for value in self.stacked().values())
        return per_member - padding * self.first_weight.shape[2]

    def select(self, rows: Sequence[int]) -> "Regressor":
        """A new stack with copies of some members."""
        index = torch.tensor(list(rows), device=self.first_weight.device)
        kept = {name: value.detach().index_select(0, index) for name, value in self.stacked().items()}
        stack = Regressor([self.members[r] for r in rows], [self.n_features[r] for r in rows], kept)
        stack.activation.to(self.first_weight)
        return stack.train(self.training)

    def join(self, other: "Regressor") -> "Regressor":
        """A new stack with copies of the members of both, these first; both are equally wide."""
        theirs = other.stacked()
        both = {name: torch.cat([value.detach(), theirs[name].detach()]) for name, value in self.stacked().items()}
        stack = Regressor([*self.members, *other.members], [*self.n_features, *other.n_features], both)
        stack.activation.to(self.first_weight)
        return stack.train(self.training)

    def start_epoch(self, epoch: int) -> None:
        """Put the members' random streams at the start of an epoch (dropout masks, random slopes)."""
        device = self.first_weight.device
        if self.dropout > 0:
            self.masks = self.masks or Streams(self.members, "dropout", device)
            self.masks.seed(epoch)
        for depth, module in enumerate(self.activation):
            if isinstance(module, activations.RReLU):
                self.noise = self.noise or Streams(self.members, "noise", device)
                module.uniform = self.noise.uniform
                if depth == 0:
                    self.noise.seed(epoch)

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (P, B) for features (P, B, F), or (B, F) shared by all members."""
        signal = features
        for depth in range(len(self.activation)):
            signal = self.activate(depth, self.linear(depth, signal))
            if self.training and self.masks is not None:
                signal = self.masks.drop(signal, self.dropout)
        return self.output(signal)

    def linear(self, depth: int, signal: Tensor) -> Tensor:
        """Pre-activations (P, B, k H) of a hidden layer."""
        weight, bias = getattr(self, f"weight_{depth}"), getattr(self, f"bias_{depth}")
        if signal.dim() == 2:
            signal = signal.expand(self.n_members, *signal.shape)
        return torch.baddbmm(bias.unsqueeze(1), signal, weight)

    def activate(self, depth: int, signal: Tensor) -> Tensor:
        """Outputs (P, B, H) of the activation of a hidden layer."""
        module = self.activation[depth]
        if not self.learned[depth]:
            outputs: Tensor = module(signal)
            return outputs
        own = {name: getattr(self, f"{name}_{depth}") for name in self.learned[depth]}
        apply = partial(torch.func.functional_call, module)
        mapped: Tensor = torch.func.vmap(lambda one, z: apply(one, (z,)))(own, signal)
        return mapped

    def output(self, signal: Tensor) -> Tensor:
        """The linear output layer, (P, B)."""
        depth = len(self.activation)
        weight, bias = getattr(self, f"weight_{depth}"), getattr(self, f"bias_{depth}")
        # a product and a sum: matrix products with one output column differ in the last bit with the number of members
        outputs: Tensor = (signal * weight.transpose(1, 2)).sum(-1) + bias
        return outputs


def stack_states(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of single members, as `Regressor.member_state` gives, to the parameters of a stack.

    Weights (out, in) become (P, in, out), which makes their gradient one product without a copy to turn it round;
    narrower first layers are padded with zeros.
    """
    return {name: _stacked(name, [state[name] for state in states]) for name in states[0]}


def _stacked(name: str, values: Sequence[Tensor]) -> Tensor:
    shape = [*values[0].shape]
    if name == FIRST_WEIGHT:
        shape[-1] = max(value.shape[-1] for value in values)
    if name.startswith("weight_"):
        shape.reverse()
    whole = values[0].new_zeros(len(values), *shape)
    # written in place: copies to widen, stack and turn would each touch all of the memory again
    for row, value in zip(_turned(name, whole), values, strict=True):
        (row[:, : value.shape[-1]] if name == FIRST_WEIGHT else row).copy_(value)
    return whole


def unstack(rows: dict[str, Tensor], n_features: int) -> dict[str, Tensor]:
    """One member's row of every parameter of a stack as the member would be alone: weights (out, in), no padding."""
    turned = {name: _turned(name, value) for name, value in rows.items()}
    return {
        name: (value[:, :n_features] if name == FIRST_WEIGHT else value).clone(memory_format=torch.contiguous_format)
        for name, value in turned.items()
    }


def _turned(name: str, value: Tensor) -> Tensor:
    return value.transpose(-1, -2) if name.startswith("weight_") else value
