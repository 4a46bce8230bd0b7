"""The random numbers of training: each from a generator that belongs to a member's stream and epoch alone."""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from actlab.members import Member, Split, stream_seed

# dropout compares 16 random bits with the drop probability: four draws from one 64-bit number
DROPOUT_LEVELS = 1 << 16
# Masks of an epoch that lie in memory for all stacks at once; larger ones each stack draws for itself, step by step.
BANK_BYTES = 256_000_000


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


def masks_of_steps(
    generators: Sequence[torch.Generator],
    n_steps: int,
    shapes: Sequence[tuple[int, int]],
    probability: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    """What `Streams.drop` multiplies signals (P, B, H) of some layers with, for the next steps of an epoch.

    Args:
        generators: Of S streams.
        n_steps: How many.
        shapes: (B, H) of each layer that drops.
        probability: Of a zero.
        dtype: Of the signals.

    Returns:
        (n_steps, S, B, H) of each layer.
    """
    counts = [rows * width for rows, width in shapes]
    words = [(count + 3) // 4 for count in counts]
    drawn = torch.stack([random_words(n_steps * sum(words), g).view(n_steps, -1) for g in generators], dim=1)
    masks, start = [], 0
    for (rows, width), count, own in zip(shapes, counts, words, strict=True):
        bits = drawn[..., start : start + own].contiguous().view(torch.int16)[..., :count]
        kept = (bits >= least_kept(probability)).to(dtype) / (1 - probability)
        masks.append(kept.view(n_steps, len(generators), rows, width))
        start += own
    return masks


class MaskBank:
    """The dropout masks of one epoch, drawn once for all stacks of a population.

    Args:
        streams: (seed, split) of all members.
        device: Where the masks lie.
    """

    def __init__(self, streams: Sequence[tuple[int, Split]], device: torch.device) -> None:
        self.keys = sorted(set(streams))
        self.place = {key: place for place, key in enumerate(self.keys)}
        self.device = device
        self._lock = threading.Lock()
        self._epoch = -1
        self._masks: dict[object, list[Tensor]] = {}

    def epoch(
        self, epoch: int, n_steps: int, shapes: Sequence[tuple[int, int]], probability: float, dtype: torch.dtype
    ) -> list[Tensor] | None:
        """As `masks_of_steps`, of all steps of an epoch; None where they would be too large."""
        n_bytes = dtype.itemsize * n_steps * len(self.keys) * sum(rows * width for rows, width in shapes)
        if n_bytes > BANK_BYTES:
            return None
        asked = (n_steps, tuple(shapes), probability, dtype)
        with self._lock:
            if epoch != self._epoch:
                self._masks.clear()
                self._epoch = epoch
            if asked not in self._masks:
                generators = [torch.Generator(self.device) for _ in self.keys]
                for key, generator in zip(self.keys, generators, strict=True):
                    generator.manual_seed(stream_seed(key, "dropout", epoch))
                self._masks[asked] = masks_of_steps(generators, n_steps, shapes, probability, dtype)
            return self._masks[asked]
