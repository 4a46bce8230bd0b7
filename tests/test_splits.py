"""Splits: disjoint, covering, a function of the seed alone."""

import numpy as np
import pytest

from actlab.data.splits import make_splits
from actlab.errors import InputError
from actlab.members import Split
from actlab.settings import ProtocolSettings

PROTOCOL = ProtocolSettings(folds=5, inner=3, repeats=2)


def test_the_parts_of_a_split_are_disjoint_and_cover_all_rows() -> None:
    for rows in make_splits(103, PROTOCOL, 0).values():
        parts = np.concatenate([rows.training, rows.validation, rows.test])
        assert np.array_equal(np.sort(parts), np.arange(103))


def test_every_row_is_tested_once_a_repeat() -> None:
    splits = make_splits(103, PROTOCOL, 0)
    for repeat in range(2):
        tested = np.concatenate([splits[Split(repeat, fold, 0)].test for fold in range(5)])
        assert np.array_equal(np.sort(tested), np.arange(103))


def test_the_inner_parts_of_a_fold_do_not_overlap_and_share_the_test_rows() -> None:
    splits = make_splits(200, PROTOCOL, 0)
    inner = [splits[Split(1, 2, i)] for i in range(3)]
    validation = np.concatenate([rows.validation for rows in inner])
    assert len(np.unique(validation)) == len(validation)
    assert all(np.array_equal(rows.test, inner[0].test) for rows in inner)


def test_repeats_and_seeds_give_other_folds_and_equal_seeds_the_same() -> None:
    first, again, other = (make_splits(100, PROTOCOL, seed) for seed in (0, 0, 1))
    key, next_repeat = Split(0, 0, 0), Split(1, 0, 0)
    assert np.array_equal(first[key].test, again[key].test)
    assert not np.array_equal(first[key].test, other[key].test)
    assert not np.array_equal(first[key].test, first[next_repeat].test)


def test_a_fold_does_not_depend_on_how_many_inner_parts_or_repeats_there_are() -> None:
    few, many = make_splits(100, ProtocolSettings(inner=1), 3), make_splits(100, PROTOCOL, 3)
    assert np.array_equal(few[Split(0, 4, 0)].training, many[Split(0, 4, 0)].training)


def test_too_few_rows_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="6 rows are too few for 5 folds"):
        make_splits(6, PROTOCOL, 0)
