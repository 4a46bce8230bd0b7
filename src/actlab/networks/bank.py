"""What the members of one stream share in an epoch, made once for all stacks of a population.

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
from actlab.members import stream_seed
from actlab.networks.streams import masks_of_steps

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
