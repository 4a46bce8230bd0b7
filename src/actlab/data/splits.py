"""Outer test folds and inner validation parts, by the layout of the rows alone."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from actlab.data.layout import RowLayout
from actlab.data.windows import LEAST_TRAINING, LEAST_VALIDATION, windows
from actlab.errors import InputError
from actlab.members import Split, derive_seed
from actlab.settings import ProtocolSettings

Rows = NDArray[np.int64]

# Row numbers of folds that are kept once they are drawn.
CACHED_ROWS = 10_000_000
# The fewest rows of a fold.
LEAST_TEST = 1


@dataclass(frozen=True)
class SplitRows:
    """Row numbers of one split: `training` fits preprocessing and weights, `validation` stops and chooses the
    learning rate, `test` is scored once. Disjoint; sorted; together all rows, but for those later than `test`.
    """

    training: Rows
    validation: Rows
    test: Rows


class Splits(Mapping[Split, SplitRows]):
    """Every split of repeats x folds x inner parts, drawn when it is asked for.

    The folds of a repeat are disjoint and cover all rows (k-fold cross-validation on shuffled rows), or they are given.
    The rows outside a fold are shuffled once and its inner validation parts are cut from them one after the other, so
    they do not overlap while `inner * validation_fraction` <= 1. Rows of one group are in one part of a split; folds of
    groups are balanced in rows, and validation parts come near the fraction. Too few rows or groups for a part to have
    any are an `InputError`.

    Rows that have a time are split by that alone, into `windows`. Inner parts and repeats have the same rows then, and
    differ in the seeds of their networks; repeat 0, in which learning rates are found, trains and validates before the
    first test row. Beside the folds there is the window that trains on all rows, as fold K.
    """

    def __init__(self, layout: RowLayout, protocol: ProtocolSettings, seed: int) -> None:
        self.layout, self.protocol, self.seed = layout, protocol, seed
        n_rows, n_test = layout.n_rows, layout.n_rows // protocol.folds
        self._fold = lru_cache(max(protocol.folds, CACHED_ROWS // n_rows))(self._draw)
        self._tests = lru_cache(max(1, CACHED_ROWS // n_rows))(self._draw_tests)
        if layout.time is not None:
            # refuses too few rows itself
            self._windows = windows(layout.time, protocol)
            return
        n_validation = round(protocol.validation_fraction * (n_rows - n_test))
        parts = [(n_test, n_validation, n_rows - n_test - n_validation)]
        if layout.groups is not None or layout.fold is not None:
            drawn = (rows for fold in range(protocol.folds) for rows in self._fold(0, fold))
            parts = [(len(rows.test), len(rows.validation), len(rows.training)) for rows in drawn]
        if any(t < LEAST_TEST or v < LEAST_VALIDATION or n < LEAST_TRAINING for t, v, n in parts):
            unit = "" if layout.groups is None else f" in {layout.n_groups} {layout.unit}"
            spread = ", or spread equal rows with --data.duplicates apart" if layout.unit == "distinct rows" else ""
            raise InputError(
                f"{n_rows} rows{unit} are too few for {protocol.folds} folds with a validation fraction of "
                f"{protocol.validation_fraction}: every fold needs at least {LEAST_TEST} test, {LEAST_VALIDATION} "
                f"validation and {LEAST_TRAINING} training rows; add rows, or ask for another number with "
                f"--compare.folds{spread}"
            )

    def _draw(self, repeat: int, fold: int) -> list[SplitRows]:
        if self.layout.time is not None:
            known, own = self._windows[fold if repeat else 0], self._windows[fold]
            return [SplitRows(known.training, known.validation, own.test)] * self.protocol.inner
        return _inner_parts(self.layout, self._tests(repeat)[fold], self.protocol, self.seed, repeat, fold)

    def _draw_tests(self, repeat: int) -> list[Rows]:
        if self.layout.time is not None:
            return [one.test for one in self._windows[:-1]]
        return _folds(self.layout, self.protocol.folds, self.seed, repeat)

    @cached_property
    def tested(self) -> Rows:
        """The rows that are tested once in every repeat; sorted."""
        if self.layout.time is not None:
            return np.sort(np.concatenate(self._tests(0)))
        return np.arange(self.layout.n_rows)

    def test_sizes(self, repeat: int) -> list[float]:
        """Test rows of each fold of a repeat; what they weigh, where rows have weights."""
        if self.layout.is_plain:
            return list(fold_sizes(self.layout.n_rows, self.protocol.folds))
        return [self.layout.weight_of(test) for test in self._tests(repeat)]

    def __getitem__(self, split: Split) -> SplitRows:
        n_folds = self.protocol.folds + (self.layout.time is not None)
        if not (0 <= split.fold < n_folds and 0 <= split.inner < self.protocol.inner and split.repeat >= 0):
            raise KeyError(split)
        return self._fold(split.repeat, split.fold)[split.inner]

    def __iter__(self) -> Iterator[Split]:
        return iter(splits_of(range(self.protocol.repeats), self.protocol))

    def __len__(self) -> int:
        return self.protocol.repeats * self.protocol.folds * self.protocol.inner


def make_splits(layout: RowLayout, protocol: ProtocolSettings, seed: int) -> Splits:
    """The splits of the rows of a table; where folds are given, the protocol has as many."""
    return Splits(layout, protocol, seed)


def splits_of(repeats: Iterable[int], protocol: ProtocolSettings) -> list[Split]:
    """The splits of some repeats, in order."""
    return [
        Split(repeat, fold, inner)
        for repeat in repeats
        for fold in range(protocol.folds)
        for inner in range(protocol.inner)
    ]


def fold_sizes(n_rows: int, folds: int) -> list[int]:
    """Test rows of each fold, in every repeat, where nothing is known of rows."""
    return [len(part) for part in np.array_split(np.arange(n_rows), folds)]


def without_validation(rows: SplitRows) -> SplitRows:
    """The same test rows, and all others to train on."""
    everything = np.union1d(rows.training, rows.validation)
    return SplitRows(everything, np.empty(0, dtype=everything.dtype), rows.test)


def _folds(layout: RowLayout, folds: int, seed: int, repeat: int) -> list[Rows]:
    if layout.fold is not None:
        return [np.flatnonzero(layout.fold == fold) for fold in range(folds)]
    generator = np.random.default_rng(derive_seed(seed, "folds", repeat))
    if layout.groups is None:
        return [np.sort(part) for part in np.array_split(generator.permutation(layout.n_rows), folds)]
    of_group = _folds_of_groups(np.bincount(layout.groups), folds, generator)
    of_row = of_group[layout.groups]
    return [np.flatnonzero(of_row == fold) for fold in range(folds)]


def _folds_of_groups(sizes: NDArray[np.int64], folds: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each group (G,), from their numbers of rows: in random order, but those twice as large first, each
    goes to the fold with the fewest rows (Graham 1969), so that repeats differ and folds are even."""
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-np.log2(sizes[order]).astype(int), kind="stable")]
    found = np.empty(len(sizes), dtype=np.int64)
    filled = [(0, fold) for fold in range(folds)]
    for group, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        n_rows, fold = filled[0]
        found[group] = fold
        heapq.heapreplace(filled, (n_rows + size, fold))
    return found


def _inner_parts(
    layout: RowLayout, test: Rows, protocol: ProtocolSettings, seed: int, repeat: int, fold: int
) -> list[SplitRows]:
    generator = np.random.default_rng(derive_seed(seed, "inner", repeat, fold))
    rest = np.setdiff1d(np.arange(layout.n_rows), test)
    if layout.groups is not None:
        validations = _parts_of_groups(layout.groups[rest], protocol, generator)
        return [SplitRows(rest[~is_in], rest[is_in], test) for is_in in validations]
    rest = generator.permutation(rest)
    n_validation = round(protocol.validation_fraction * len(rest))
    # cut round and round: disjoint until the rows are used up
    places = np.arange(protocol.inner * n_validation).reshape(protocol.inner, n_validation)
    return [SplitRows(np.setdiff1d(rest, part), np.sort(part), test) for part in np.take(rest, places, mode="wrap")]


def _parts_of_groups(
    groups: NDArray[np.int64], protocol: ProtocolSettings, generator: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Inner validation parts of rows (n,) of such groups: those in random order that bring a part nearer to its
    fraction, groups of no part before it first; at least one, and never all."""
    _, of_row, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sizes, wanted = counts.tolist(), protocol.validation_fraction * len(groups)
    unused, used, least = generator.permutation(len(sizes)).tolist(), list[int](), min(sizes)
    parts = []
    for _ in range(protocol.inner):
        chosen, lacking = set[int](), wanted
        for group in [*unused, *used]:
            if 2 * lacking <= least:
                break
            if sizes[group] < 2 * lacking and len(chosen) < len(sizes) - 1:
                chosen.add(group)
                lacking -= sizes[group]
        # where all are large, the smallest
        chosen = chosen or {min(unused or used, key=sizes.__getitem__)}
        used = [*(group for group in used if group not in chosen), *chosen]
        unused = [group for group in unused if group not in chosen]
        parts.append(np.isin(of_row, list(chosen)))
    return parts
