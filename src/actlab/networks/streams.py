"""The random numbers of training, and the batches and dropout masks that members of one stream share.

The random numbers of training: each from a generator that belongs to a member's stream and epoch alone.

What the members of one stream share in an epoch, made once for all stacks of a population.

Members of equal seed and split visit the same rows in the same order and drop the same units, whatever their activation
and learning rate: in the default comparison twenty-six members each.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from actlab.data.datamodule import EpochOrder, SplitTensors, Stream
from actlab.members import Member, stream_seed

# dropout compares 16 random bits with the drop probability: four draws from one 64-bit number
DROPOUT_LEVELS = 1 << 16


class Streams:
    """The random numbers of the members of one stack, from generators that belong to them alone.

    Members of one stream (seed and split) get equal numbers, so that a member does not depend on its neighbours.
    """

    def __init__(self, members: Sequence[Member], purpose: str, device: torch.device) -> None:
        self.purpose = purpose
        self.keys = sorted({member.stream for member in members})
        row_of = {key: row for row, key in enumerate(self.keys)}
        rows = [row_of[member.stream] for member in members]
        self.rows = torch.tensor(rows, device=device)
        # the same streams in the same order over and over, as in an untouched stack: masks need no copy per member
        self.is_tiled = rows == list(range(len(self.keys))) * (len(members) // len(self.keys))
        self._prepare()
        self.seed(0)

    def _prepare(self) -> None:
        self.generators = [torch.Generator(self.rows.device) for _ in self.keys]

    def seed(self, epoch: int) -> None:
        """Start every stream at the state that belongs to (seed, split, purpose, epoch)."""
        for key, generator in zip(self.keys, self.generators, strict=True):
            generator.manual_seed(stream_seed(key, self.purpose, epoch))

    def words(self, count: int) -> Tensor:
        """The next 64-bit numbers (S, count) of every stream, all equally likely."""
        return torch.stack([random_words(count, generator) for generator in self.generators])

    def uniform(self, shape: torch.Size) -> Tensor:
        """Numbers in [0, 1) of shape (P, ...), float32."""
        device = self.rows.device
        drawn = [torch.rand(shape[1:], generator=g, device=device, dtype=torch.float32) for g in self.generators]
        return torch.stack(drawn)[self.rows]

    def masks(self, shapes: Sequence[tuple[int, int]], probability: float, dtype: torch.dtype) -> list[Tensor]:
        """Inverted dropout of one step: of layers (B, H), what `multiply` takes, (S, B, H).

        A unit is dropped with `probability`, rounded to 1/65536; the others are scaled up.
        """
        n_words = sum(words_of(shape) for shape in shapes)
        return scaled_masks(self.words(n_words), shapes, probability, dtype)

    def multiply(self, signal: Tensor, mask: Tensor) -> Tensor:
        """A signal (P, B, H) times the masks (S, B, H) of its members' streams."""
        if self.is_tiled:
            tiled = signal.reshape(-1, len(self.keys), *signal.shape[1:])
            return (tiled * mask).reshape(signal.shape)
        return signal * mask[self.rows]


class HashedStreams(Streams):
    """Streams of a device that computes all of them at once: hashes of a counter, the same on every device.

    Word i of a stream is SplitMix64's (Steele, Lea & Flood 2014): the mixed value of s + i times the golden ratio of 64
    bits, s from the stream's key. Thousands of generators would be launched one by one, and a recorded step (see
    `actlab.networks.autograd`) needs state that lies on the device and moves on by itself.
    """

    def _prepare(self) -> None:
        self.state = torch.zeros(len(self.keys), 1, dtype=torch.int64, device=self.rows.device)

    def seed(self, epoch: int) -> None:
        seeds = [[stream_seed(key, self.purpose, epoch)] for key in self.keys]
        # in place: a recorded step knows the address
        self.state.copy_(torch.tensor(seeds, dtype=torch.int64))

    def words(self, count: int) -> Tensor:
        numbers = torch.arange(1, count + 1, device=self.state.device) * GOLDEN
        mixed = mix(self.state + numbers)
        self.state.add_(signed(count * GOLDEN))
        return mixed

    def uniform(self, shape: torch.Size) -> Tensor:
        count = math.prod(shape[1:])
        # the upper 24 bits, as many as a float32 tells apart
        drawn = shifted(self.words(count), 40).to(torch.float32) * 2.0**-24
        return drawn.view(-1, *shape[1:])[self.rows]


def streams_on(device: torch.device, members: Sequence[Member], purpose: str) -> Streams:
    """Streams for a stack that lies on that device."""
    return (Streams if device.type == "cpu" else HashedStreams)(members, purpose, device)


def signed(value: int) -> int:
    """The 64 lowest bits as torch's signed numbers hold them."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


# SplitMix64's constants
GOLDEN = signed(0x9E3779B97F4A7C15)
MIX = ((30, signed(0xBF58476D1CE4E5B9)), (27, signed(0x94D049BB133111EB)))


def shifted(z: Tensor, by: int) -> Tensor:
    """64-bit numbers shifted right, zeros from the left."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place: every bit of a 64-bit number decides on every bit of the result."""
    for by, factor in MIX:
        z.bitwise_xor_(shifted(z, by)).mul_(factor)
    return z.bitwise_xor_(shifted(z, 31))


def words_of(shape: tuple[int, int]) -> int:
    """64-bit numbers that one member's mask (B, H) takes: of each, four units."""
    return -(-shape[0] * shape[1] // 4)


def random_words(count: int, generator: torch.Generator) -> Tensor:
    """So many 64-bit numbers, all equally likely, on the generator's device; two draws are as one of both lengths."""
    words = torch.empty(count, dtype=torch.int64, device=generator.device)
    return words.random_(-(2**63), None, generator=generator)


def least_kept(probability: float) -> int:
    """Of 16-bit numbers, the least that lets a unit stay."""
    return round(probability * DROPOUT_LEVELS) - DROPOUT_LEVELS // 2


def masks_of_steps(
    generators: Sequence[torch.Generator],
    n_steps: int,
    shapes: Sequence[tuple[int, int]],
    probability: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    """What `Streams.masks` gives for the next steps of an epoch.

    Args:
        generators: Of S streams.
        n_steps: How many.
        shapes: (B, H) of each layer that drops.
        probability: Of a zero.
        dtype: Of the signals.

    Returns:
        (n_steps, S, B, H) of each layer.
    """
    n_words = sum(words_of(shape) for shape in shapes)
    drawn = torch.stack([random_words(n_steps * n_words, g).view(n_steps, -1) for g in generators], dim=1)
    return scaled_masks(drawn, shapes, probability, dtype)


def scaled_masks(
    words: Tensor, shapes: Sequence[tuple[int, int]], probability: float, dtype: torch.dtype
) -> list[Tensor]:
    """Masks (..., B, H) of layers (B, H) from random words (..., W): 0, or 1 / (1 - probability) where a unit stays."""
    masks, start = [], 0
    for shape in shapes:
        stop = start + words_of(shape)
        bits = words[..., start:stop].contiguous().view(torch.int16)[..., : shape[0] * shape[1]]
        # of 0 and 1 at once: by way of truth values and fresh memory it takes five times as long
        kept = torch.ge(bits, least_kept(probability), out=torch.empty_like(bits, dtype=dtype)).div_(1 - probability)
        masks.append(kept.view(*words.shape[:-1], *shape))
        start = stop
    return masks


# Masks, and batches, that lie in memory for all stacks at once; larger ones each stack makes for itself.
BANK_BYTES = 256_000_000
# Members of a stream under which gathering a batch for each, in the cache, costs less than reading it from here.
LEAST_SHARED = 4


class Kind(NamedTuple):
    """What decides the shapes of batches and masks: (steps, B) of an epoch, hidden widths, and dropout."""

    steps: int
    batch: int
    hidden: tuple[int, ...]
    dropout: float

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(B, H) of every layer that drops."""
        return [(self.batch, width) for width in self.hidden] if self.dropout > 0 else []


@dataclass
class Shared:
    """The batches and masks of one kind, of all streams S; empty where they would be too large.

    Args:
        batches: (steps, S, B, F).
        targets: (steps, S, B).
        masks: Of each layer, (steps, S, B, H).
    """

    batches: Tensor
    targets: Tensor
    masks: list[Tensor]


class EpochBank:
    """Batches in the order of visit, and dropout masks.

    Args:
        streams: (seed, split) of every member.
        data: The rows, on the processor.
    """

    def __init__(self, streams: Sequence[Stream], data: SplitTensors) -> None:
        self.data = data
        self.keys = sorted(set(streams))
        self.place = {key: place for place, key in enumerate(self.keys)}
        self.is_shared = len(streams) >= LEAST_SHARED * len(self.keys)
        self.found: dict[Kind, Shared] = {}
        self._order = EpochOrder(-1, {})

    def start(self, order: EpochOrder, kinds: Iterable[Kind]) -> list[Stream]:
        """Begin an epoch: make room for what stacks of these kinds share, and forget other kinds.

        Returns:
            The streams to fill: none where there is nothing to share.
        """
        self._order = order
        self.found = {kind: self.found.get(kind) or self._room(kind) for kind in dict.fromkeys(kinds)}
        is_needed = any(len(shared.batches) or shared.masks for shared in self.found.values())
        return list(order.rows) if is_needed else []

    def _room(self, kind: Kind) -> Shared:
        features, widths = self.data.flat_features, [width for _, width in kind.layers]
        shape, none = (kind.steps, len(self.keys), kind.batch), features.new_empty(0)
        has_rows = self.is_shared and self._fits(shape, features.shape[1])
        return Shared(
            features.new_empty(*shape, features.shape[1]) if has_rows else none,
            features.new_empty(shape) if has_rows else none,
            [features.new_empty(*shape, width) for width in widths] if self._fits(shape, sum(widths)) else [],
        )

    def _fits(self, shape: tuple[int, int, int], width: int) -> bool:
        return math.prod(shape) * width * self.data.flat_features.element_size() <= BANK_BYTES

    def fill(self, stream: Stream) -> None:
        """Make the batches and masks of one stream in the epoch that has begun; streams may be filled side by side."""
        place, shape = self.place[stream], self._order.rows[stream].shape
        for kind, shared in self.found.items():
            if shape != (kind.steps, kind.batch):
                continue
            if len(shared.batches):
                rows = self.data.flat_rows(self._order, [stream])[:, 0]
                features, targets = self.data.gather(rows, shared.batches.shape[-1])
                shared.batches[:, place].copy_(features)
                shared.targets[:, place].copy_(targets)
            if shared.masks:
                generator = torch.Generator().manual_seed(stream_seed(stream, "dropout", self._order.epoch))
                dtype = self.data.flat_features.dtype
                drawn = masks_of_steps([generator], kind.steps, kind.layers, kind.dropout, dtype)
                for mask, own in zip(shared.masks, drawn, strict=True):
                    mask[:, place].copy_(own[:, 0])
