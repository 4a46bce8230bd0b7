"""Outer test folds and inner validation parts, by row number alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.members import Split, derive_seed
from actlab.settings import ProtocolSettings

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SplitRows:
    """Row numbers of one split: `training` fits preprocessing and weights, `validation` stops and chooses the
    learning rate, `test` is scored once. Disjoint; sorted; together all rows.
    """

    training: Rows
    validation: Rows
    test: Rows


def make_splits(n_rows: int, protocol: ProtocolSettings, seed: int) -> dict[Split, SplitRows]:
    """Every split of repeats x folds x inner parts.

    The folds of a repeat are disjoint and cover all rows (k-fold cross-validation on shuffled rows). The rows outside
    a fold are shuffled once and its inner validation parts are cut from them one after the other, so they do not
    overlap while `inner * validation_fraction` <= 1. Too few rows for a part to have any are an `InputError`.
    """
    n_test = n_rows // protocol.folds
    n_validation = round(protocol.validation_fraction * (n_rows - n_test))
    if n_test < 1 or n_validation < 2 or n_rows - n_test - n_validation < 3:
        raise InputError(
            f"{n_rows} rows are too few for {protocol.folds} folds with a validation fraction of "
            f"{protocol.validation_fraction}: every fold needs at least 1 test, 2 validation and 3 training rows; "
            "add rows, or ask for another number with --compare.folds"
        )
    return {
        Split(repeat, fold, inner): rows
        for repeat in range(protocol.repeats)
        for fold, test in enumerate(_folds(n_rows, protocol.folds, seed, repeat))
        for inner, rows in enumerate(_inner_parts(n_rows, test, protocol, seed, repeat, fold))
    }


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
