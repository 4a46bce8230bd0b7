"""The random numbers of training, and the batches and dropout masks that members of one stream share.

A stream is a seed and a split. Its members visit the same rows in the same order and drop the same units, whatever
their activation and learning rate: in the default comparison twenty-six members each. Every number comes from a
generator that belongs to a stream, a purpose and an epoch alone, so that a member does not depend on its neighbours.

Shapes: S streams, P members, B rows of a batch, F input columns, H units.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from actlab.members import Member, Stream, stream_seed

if TYPE_CHECKING:
    from actlab.data.datamodule import EpochOrder, SplitTensors


class Streams:
    """The random numbers of the members of one stack; those of one stream get equal ones."""

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

    def random_bits(self, count: int) -> Tensor:
        """The next 64-bit numbers (S, count) of every stream, all equally likely."""
        return torch.stack([random_bits(count, generator) for generator in self.generators])

    def uniform(self, shape: torch.Size) -> Tensor:
        """Numbers in [0, 1) of shape (P, ...), float32."""
        drawn = [torch.rand(shape[1:], generator=g, device=g.device, dtype=torch.float32) for g in self.generators]
        return torch.stack(drawn)[self.rows]

    def masks(self, shapes: Sequence[tuple[int, int]], probability: float, dtype: torch.dtype) -> list[Tensor]:
        """Inverted dropout of one step: masks (S, B, H), as `multiply` takes them, of layers (B, H)."""
        return scaled_masks(self.random_bits(n_random_bits(shapes)), shapes, probability, dtype)

    def multiply(self, signal: Tensor, mask: Tensor) -> Tensor:
        """A signal (P, B, H) times the masks (S, B, H) of its members' streams."""
        if self.is_tiled:
            tiled = signal.reshape(-1, len(self.keys), *signal.shape[1:])
            return (tiled * mask).reshape(signal.shape)
        return signal * mask[self.rows]


class HashedStreams(Streams):
    """Streams of a device that computes all of them at once: hashes of a counter, the same on every device.

    Number i of a stream is SplitMix64's (Steele, Lea & Flood 2014): the mixed value of s + i times the golden ratio of
    64 bits, s from the stream's key. Thousands of generators would be launched one by one, and a recorded step (see
    `actlab.networks.autograd`) needs state that lies on the device and moves on by itself.
    """

    def _prepare(self) -> None:
        self.state = torch.zeros(len(self.keys), 1, dtype=torch.int64, device=self.rows.device)

    def seed(self, epoch: int) -> None:
        seeds = [[stream_seed(key, self.purpose, epoch)] for key in self.keys]
        # in place: a recorded step knows the address
        self.state.copy_(torch.tensor(seeds, dtype=torch.int64))

    def random_bits(self, count: int) -> Tensor:
        counters = torch.arange(1, count + 1, device=self.state.device) * GOLDEN
        z = self.state + counters
        # SplitMix64's finaliser: every bit of a 64-bit number decides on every bit of the result
        for by, factor in MIX:
            z.bitwise_xor_(shifted(z, by)).mul_(factor)
        self.state.add_(counters[-1])
        return z.bitwise_xor_(shifted(z, 31))

    def uniform(self, shape: torch.Size) -> Tensor:
        # the upper 24 bits, as many as a float32 tells apart
        drawn = shifted(self.random_bits(math.prod(shape[1:])), 40).to(torch.float32) * 2.0**-24
        return drawn.view(-1, *shape[1:])[self.rows]


def streams_on(device: torch.device, members: Sequence[Member], purpose: str) -> Streams:
    return (Streams if device.type == "cpu" else HashedStreams)(members, purpose, device)


# SplitMix64's constants, as torch's signed numbers hold them
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
MIX = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))


def shifted(z: Tensor, by: int) -> Tensor:
    """64-bit numbers shifted right, zeros from the left."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def n_random_bits(shapes: Sequence[tuple[int, int]]) -> int:
    """64-bit numbers that one member's masks (B, H) take in a step: one for every four units of a layer."""
    return sum(-(-batch * width // 4) for batch, width in shapes)


def random_bits(count: int, generator: torch.Generator) -> Tensor:
    """So many 64-bit numbers, all equally likely, on the generator's device; two draws are as one of both lengths."""
    numbers = torch.empty(count, dtype=torch.int64, device=generator.device)
    return numbers.random_(-(2**63), None, generator=generator)


def least_kept(probability: float) -> int:
    """Of signed 16-bit numbers, four of which come from one of 64 bits, the least that lets a unit stay."""
    return round(probability * 2**16) - 2**15


class EpochShape(NamedTuple):
    """What decides the shapes of an epoch's batches and masks: (steps, B), the hidden widths, and dropout."""

    steps: int
    batch: int
    hidden: tuple[int, ...]
    dropout: float

    @property
    def dropped(self) -> list[tuple[int, int]]:
        """(B, H) of every layer that drops."""
        return [(self.batch, width) for width in self.hidden] if self.dropout > 0 else []


def masks_of_steps(
    generators: Sequence[torch.Generator], n_steps: int, shape: EpochShape, dtype: torch.dtype
) -> list[Tensor]:
    """What `Streams.masks` gives for the next steps of an epoch: (n_steps, S, B, H) of each layer that drops."""
    count = n_steps * n_random_bits(shape.dropped)
    drawn = torch.stack([random_bits(count, generator).view(n_steps, -1) for generator in generators], dim=1)
    return scaled_masks(drawn, shape.dropped, shape.dropout, dtype)


def scaled_masks(
    drawn: Tensor, shapes: Sequence[tuple[int, int]], probability: float, dtype: torch.dtype
) -> list[Tensor]:
    """Masks (..., B, H) of layers (B, H) from random bits (..., N): 0 with `probability`, rounded to 1/65536, or
    1 / (1 - probability).
    """
    masks, start = [], 0
    for shape in shapes:
        stop = start + n_random_bits([shape])
        bits = drawn[..., start:stop].contiguous().view(torch.int16)[..., : shape[0] * shape[1]]
        # of 0 and 1 at once: by way of truth values and fresh memory it takes five times as long
        kept = torch.ge(bits, least_kept(probability), out=torch.empty_like(bits, dtype=dtype)).div_(1 - probability)
        masks.append(kept.view(*drawn.shape[:-1], *shape))
        start = stop
    return masks


# Masks, and batches, that lie in memory for all stacks at once; larger ones each stack makes for itself.
SHARED_BYTES = 256_000_000
# Members of a stream under which gathering a batch for each, in the cache, costs less than reading a shared one.
LEAST_SHARED = 4


class EpochBatches(NamedTuple):
    """An epoch's batches and masks of one shape, of all streams; those that would be too large are empty.

    Shapes are (steps, S, B, F) for features, (steps, S, B) for targets and for weights, if rows have any, and
    (steps, S, B, H) for each layer's masks.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    masks: list[Tensor]


class SharedBatches:
    """Batches in the order of visit, and dropout masks, made once an epoch for all stacks of a population.

    `streams` are those of every member, and `data` lies on the processor.
    """

    def __init__(self, streams: Sequence[Stream], data: "SplitTensors") -> None:
        self.data = data
        self.keys = sorted(set(streams))
        self.place = {key: place for place, key in enumerate(self.keys)}
        self.has_rows = len(streams) >= LEAST_SHARED * len(self.keys)
        self.of_shape: dict[EpochShape, EpochBatches] = {}
        self._order: EpochOrder

    def start(self, order: "EpochOrder", shapes: Iterable[EpochShape]) -> list[Stream]:
        """Make room for what stacks of these shapes share, and no others; the streams to `fill`, if any are needed."""
        self._order = order
        self.of_shape = {shape: self.of_shape.get(shape) or self._room(shape) for shape in dict.fromkeys(shapes)}
        is_needed = any(len(shared.features) or shared.masks for shared in self.of_shape.values())
        return list(order.rows) if is_needed else []

    def _room(self, shape: EpochShape) -> EpochBatches:
        table, widths = self.data.flat_features, [width for _, width in shape.dropped]
        rows, none = (shape.steps, len(self.keys), shape.batch), table.new_empty(0)

        def fits(width: int) -> bool:
            return math.prod(rows) * width * table.element_size() <= SHARED_BYTES

        has_rows = self.has_rows and fits(table.shape[1])
        return EpochBatches(
            table.new_empty(*rows, table.shape[1]) if has_rows else none,
            table.new_empty(rows) if has_rows else none,
            table.new_empty(rows) if has_rows and len(self.data.flat_weights) else none,
            [table.new_empty(*rows, width) for width in widths] if fits(sum(widths)) else [],
        )

    def fill(self, stream: Stream) -> None:
        """Make the batches and masks of one stream in the epoch that has begun; streams may be filled side by side."""
        place, visited = self.place[stream], self._order.rows[stream].shape
        for shape, shared in self.of_shape.items():
            if visited != (shape.steps, shape.batch):
                continue
            if len(shared.features):
                rows = self.data.flat_rows(self._order, [stream])[:, 0]
                features, targets = self.data.gather(rows, shared.features.shape[-1])
                shared.features[:, place].copy_(features)
                shared.targets[:, place].copy_(targets)
                if len(shared.weights):
                    shared.weights[:, place].copy_(self.data.flat_weights[rows])
            if shared.masks:
                generator = torch.Generator().manual_seed(stream_seed(stream, "dropout", self._order.epoch))
                drawn = masks_of_steps([generator], shape.steps, shape, self.data.flat_features.dtype)
                for mask, own in zip(shared.masks, drawn, strict=True):
                    mask[:, place].copy_(own[:, 0])
