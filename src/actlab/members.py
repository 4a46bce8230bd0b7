"""What one network of a population is, and where its randomness comes from.

Legend for shapes, used everywhere: `P` members, `B` rows of a batch, `F` input columns, `H` units, in this order.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

FoldKey = tuple[int, int]  # (repeat, fold), which all splits with the same test rows have in common


@dataclass(frozen=True, order=True)
class Split:
    """One way to cut the table: an outer test fold of a repeat, and one inner validation part of the rest."""

    repeat: int
    fold: int
    inner: int


# A seed and a split: members of one stream share initial weights (of equal shapes), batch orders and dropout masks.
Stream = tuple[int, Split]


@dataclass(frozen=True)
class MemberKey:
    """The columns by which files name a member."""

    trial: int
    activation: str
    learning_rate: float
    repeat: int
    fold: int
    inner: int


@dataclass(frozen=True)
class Member:
    """One network: its architecture, its optimiser settings, its rows and its seed.

    Two members of equal `seed` and `split` draw the same batch orders and dropout masks and, where their layers have
    equal shapes, the same initial weights, whatever their activation and learning rate: their difference is paired.

    A member of a given length trains on the validation rows of its split as well, its learning rate falls to zero over
    its `epochs`, and its last weights are kept. 0 stands for early stopping on the validation rows.
    """

    trial: int
    activation: str
    learning_rate: float
    split: Split
    seed: int
    hidden: tuple[int, ...]
    dropout: float = 0.0
    init: str = "auto"
    weight_decay: float = 0.0
    epochs: int = 0

    @property
    def key(self) -> tuple[int, str, float, int, int, int]:
        """The values of a `MemberKey`."""
        return (self.trial, self.activation, self.learning_rate, self.split.repeat, self.split.fold, self.split.inner)

    @property
    def stream(self) -> Stream:
        """What its randomness comes from."""
        return (self.seed, self.split)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Member":
        """The member that `dataclasses.asdict` described."""
        return cls(**{**content, "split": Split(**content["split"]), "hidden": tuple(content["hidden"])})


def derive_seed(*key: object) -> int:
    """A 63-bit seed from any key: equal keys give equal seeds, on every machine and in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream_seed(stream: Stream, *purpose: object) -> int:
    """The seed for one purpose (initialisation, the order of one epoch, ...) of a member's stream."""
    seed, split = stream
    return derive_seed(seed, split.repeat, split.fold, split.inner, *purpose)
