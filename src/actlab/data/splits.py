"""Outer test folds and inner validation parts, by row number alone."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.members import Split, derive_seed
from actlab.settings import ProtocolSettings

Rows = NDArray[np.int64]

# Row numbers of folds that are kept once they are drawn.
CACHED_ROWS = 10_000_000


@dataclass(frozen=True)
class SplitRows:
    """Row numbers of one split: `training` fits preprocessing and weights, `validation` stops and chooses the
    learning rate, `test` is scored once. Disjoint; sorted; together all rows.
    """

    training: Rows
    validation: Rows
    test: Rows


class Splits(Mapping[Split, SplitRows]):
    """Every split of repeats x folds x inner parts, drawn when it is asked for.

    The folds of a repeat are disjoint and cover all rows (k-fold cross-validation on shuffled rows). The rows outside
    a fold are shuffled once and its inner validation parts are cut from them one after the other, so they do not
    overlap while `inner * validation_fraction` <= 1. Too few rows for a part to have any are an `InputError`.
    """

    def __init__(self, n_rows: int, protocol: ProtocolSettings, seed: int) -> None:
        n_test = n_rows // protocol.folds
        n_validation = round(protocol.validation_fraction * (n_rows - n_test))
        if n_test < 1 or n_validation < 2 or n_rows - n_test - n_validation < 3:
            raise InputError(
                f"{n_rows} rows are too few for {protocol.folds} folds with a validation fraction of "
                f"{protocol.validation_fraction}: every fold needs at least 1 test, 2 validation and 3 training rows; "
                "add rows, or ask for another number with --compare.folds"
            )
        self.n_rows, self.protocol, self.seed = n_rows, protocol, seed
        self._fold = lru_cache(max(protocol.folds, CACHED_ROWS // n_rows))(self._draw)

    def _draw(self, repeat: int, fold: int) -> list[SplitRows]:
        test = _folds(self.n_rows, self.protocol.folds, self.seed, repeat)[fold]
        return _inner_parts(self.n_rows, test, self.protocol, self.seed, repeat, fold)

    def __getitem__(self, split: Split) -> SplitRows:
        if not (0 <= split.fold < self.protocol.folds and 0 <= split.inner < self.protocol.inner and split.repeat >= 0):
            raise KeyError(split)
        return self._fold(split.repeat, split.fold)[split.inner]

    def __iter__(self) -> Iterator[Split]:
        return iter(splits_of(range(self.protocol.repeats), self.protocol))

    def __len__(self) -> int:
        return self.protocol.repeats * self.protocol.folds * self.protocol.inner


def make_splits(n_rows: int, protocol: ProtocolSettings, seed: int) -> Splits:
    """The splits of so many rows."""
    return Splits(n_rows, protocol, seed)


def splits_of(repeats: Iterable[int], protocol: ProtocolSettings) -> list[Split]:
    """The splits of some repeats, in order."""
    return [
        Split(repeat, fold, inner)
        for repeat in repeats
        for fold in range(protocol.folds)
        for inner in range(protocol.inner)
    ]


def fold_sizes(n_rows: int, folds: int) -> list[int]:
    """Test rows of each fold, in every repeat."""
    return [len(part) for part in np.array_split(np.arange(n_rows), folds)]


def without_validation(rows: SplitRows) -> SplitRows:
    """The same test rows, and all others to train on."""
    everything = np.union1d(rows.training, rows.validation)
    return SplitRows(everything, np.empty(0, dtype=everything.dtype), rows.test)


def _folds(n_rows: int, folds: int, seed: int, repeat: int) -> list[Rows]:
    order = np.random.default_rng(derive_seed(seed, "folds", repeat)).permutation(n_rows)
    return [np.sort(part) for part in np.array_split(order, folds)]


def _inner_parts(
    n_rows: int, test: Rows, protocol: ProtocolSettings, seed: int, repeat: int, fold: int
) -> list[SplitRows]:
    generator = np.random.default_rng(derive_seed(seed, "inner", repeat, fold))
    rest = generator.permutation(np.setdiff1d(np.arange(n_rows), test))
    n_validation = round(protocol.validation_fraction * len(rest))
    # cut round and round: disjoint until the rows are used up
    places = np.arange(protocol.inner * n_validation).reshape(protocol.inner, n_validation)
    validations = np.take(rest, places, mode="wrap")
    return [SplitRows(np.setdiff1d(rest, part), np.sort(part), test) for part in validations]
