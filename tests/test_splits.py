"""Splits: disjoint, covering, a function of the seed alone; groups in one part, given folds as they are."""

import numpy as np
import pytest

from actlab.data.layout import RowLayout, without_gaps
from actlab.data.splits import make_splits
from actlab.errors import InputError
from actlab.members import Split, derive_seed
from actlab.settings import ProtocolSettings

PROTOCOL = ProtocolSettings(folds=5, inner=3, repeats=2)


def grouped(n_rows: int, n_groups: int, seed: int, is_even: bool = False) -> RowLayout:
    """Groups of equal or of very different sizes, in no order."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0, 0.3 * (1 + seed % 5), n_groups)
    codes = np.concatenate([np.arange(n_groups), rng.choice(n_groups, n_rows - n_groups, p=share / share.sum())])
    if is_even:
        codes = np.arange(n_rows) % n_groups
    return RowLayout(n_rows, without_gaps(rng.permutation(codes)), unit="groups")


LAYOUTS = {
    "rows": RowLayout(103),
    "copies": grouped(103, 98, 0),
    "groups": grouped(300, 40, 1),
    "even groups": grouped(600, 40, 2, is_even=True),
    "few groups": grouped(120, 7, 3, is_even=True),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_parts_of_a_split_are_disjoint_and_cover_all_rows(layout: RowLayout) -> None:
    for rows in make_splits(layout, PROTOCOL, 0).values():
        parts = np.concatenate([rows.training, rows.validation, rows.test])
        assert np.array_equal(np.sort(parts), np.arange(layout.n_rows))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_row_is_tested_once_a_repeat(layout: RowLayout) -> None:
    splits = make_splits(layout, PROTOCOL, 0)
    assert np.array_equal(splits.tested, np.arange(layout.n_rows))
    for repeat in range(2):
        tests = [splits[Split(repeat, fold, 0)].test for fold in range(5)]
        assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(layout.n_rows))
        assert splits.test_sizes(repeat) == [len(test) for test in tests]


def test_the_inner_parts_of_a_fold_do_not_overlap_and_share_the_test_rows() -> None:
    for layout in (RowLayout(200), LAYOUTS["groups"], LAYOUTS["even groups"]):
        splits = make_splits(layout, PROTOCOL, 0)
        inner = [splits[Split(1, 2, i)] for i in range(3)]
        validation = np.concatenate([rows.validation for rows in inner])
        assert len(np.unique(validation)) == len(validation)
        assert all(np.array_equal(rows.test, inner[0].test) for rows in inner)


@pytest.mark.parametrize("layout", [RowLayout(100), LAYOUTS["groups"], LAYOUTS["even groups"]])
def test_repeats_and_seeds_give_other_folds_and_equal_seeds_the_same(layout: RowLayout) -> None:
    first, again, other = (make_splits(layout, PROTOCOL, seed) for seed in (0, 0, 1))
    key, next_repeat = Split(0, 0, 0), Split(1, 0, 0)
    assert np.array_equal(first[key].test, again[key].test)
    assert not np.array_equal(first[key].test, other[key].test)
    assert not np.array_equal(first[key].test, first[next_repeat].test)


@pytest.mark.parametrize("layout", [RowLayout(100), LAYOUTS["groups"]])
def test_a_fold_does_not_depend_on_how_many_inner_parts_or_repeats_there_are(layout: RowLayout) -> None:
    few, many = make_splits(layout, ProtocolSettings(inner=1), 3), make_splits(layout, PROTOCOL, 3)
    assert np.array_equal(few[Split(0, 4, 0)].training, many[Split(0, 4, 0)].training)


def test_single_rows_are_split_as_they_always_were() -> None:
    splits = make_splits(RowLayout(103), PROTOCOL, 7)
    for repeat, fold in [(0, 0), (1, 3)]:
        order = np.random.default_rng(derive_seed(7, "folds", repeat)).permutation(103)
        test = np.sort(np.array_split(order, 5)[fold])
        rest = np.random.default_rng(derive_seed(7, "inner", repeat, fold)).permutation(
            np.setdiff1d(np.arange(103), test)
        )
        n = round(0.15 * len(rest))
        assert np.array_equal(splits[Split(repeat, fold, 0)].test, test)
        assert np.array_equal(splits[Split(repeat, fold, 1)].validation, np.sort(rest[n : 2 * n]))


@pytest.mark.parametrize("seed", range(30))
def test_no_group_is_in_two_parts_and_parts_are_about_as_large_as_asked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_groups, folds = int(rng.integers(12, 200)), int(rng.integers(2, 7))
    layout = grouped(int(rng.integers(2, 20)) * n_groups, n_groups, seed)
    assert layout.groups is not None
    protocol = ProtocolSettings(folds, int(rng.integers(1, 4)), 2, float(rng.uniform(0.1, 0.3)))
    largest, splits = np.bincount(layout.groups).max(), make_splits(layout, protocol, seed)
    for rows in splits.values():
        parts = [set(layout.groups[part].tolist()) for part in (rows.training, rows.validation, rows.test)]
        assert sum(map(len, parts)) == layout.n_groups
        assert min(map(len, parts)) > 0
        wanted = protocol.validation_fraction * (layout.n_rows - len(rows.test))
        assert abs(len(rows.validation) - wanted) <= largest
    for repeat in range(2):
        sizes = splits.test_sizes(repeat)
        # no fold is larger than the least by more than a group
        assert max(sizes) - min(sizes) <= largest


def test_equal_groups_make_equal_folds() -> None:
    for seed in range(10):
        assert make_splits(LAYOUTS["even groups"], PROTOCOL, seed).test_sizes(0) == [120] * 5


def test_groups_of_different_sizes_meet_in_other_folds_in_every_repeat() -> None:
    layout = RowLayout(465, np.repeat(np.arange(30), np.arange(1, 31)), unit="groups")
    splits = make_splits(layout, ProtocolSettings(repeats=20), 0)
    assert layout.groups is not None
    partitions = {
        frozenset(frozenset(layout.groups[splits[Split(repeat, fold, 0)].test].tolist()) for fold in range(5))
        for repeat in range(20)
    }
    assert len(partitions) == 20


def test_given_folds_are_tested_in_every_repeat_and_validation_parts_are_drawn_anew() -> None:
    layout = RowLayout(90, fold=np.arange(90) % 3)
    splits = make_splits(layout, ProtocolSettings(3, 2, 2), 0)
    for (_, fold, _), rows in ((tuple(vars(split).values()), rows) for split, rows in splits.items()):
        assert np.array_equal(rows.test, np.arange(fold, 90, 3))
    assert not np.array_equal(splits[Split(0, 0, 0)].validation, splits[Split(1, 0, 0)].validation)
    together = RowLayout(90, np.arange(90) // 6 * 3 + np.arange(90) % 3, np.arange(90) % 3)
    for rows in make_splits(together, ProtocolSettings(3, 2, 2), 0).values():
        assert together.groups is not None
        assert not set(together.groups[rows.training]) & set(together.groups[rows.validation])


def test_fold_sizes_are_weights_where_rows_have_some() -> None:
    weights = np.random.default_rng(0).uniform(size=60)
    splits = make_splits(RowLayout(60, weights=weights), ProtocolSettings(3), 0)
    assert splits.test_sizes(0) == [weights[splits[Split(0, fold, 0)].test].sum() for fold in range(3)]


def test_too_few_rows_or_groups_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="6 rows are too few for 5 folds"):
        make_splits(RowLayout(6), PROTOCOL, 0)
    with pytest.raises(InputError, match=r"80 rows in 4 groups are too few for 5 folds .*--compare.folds$"):
        make_splits(RowLayout(80, np.arange(80) % 4, unit="groups"), PROTOCOL, 0)
    with pytest.raises(InputError, match=r"in 4 distinct rows are too few .*--data.duplicates apart$"):
        make_splits(RowLayout(80, np.arange(80) % 4, unit="distinct rows"), PROTOCOL, 0)
    # the fold with one large group leaves a single one to train on
    with pytest.raises(InputError, match="in 3 groups are too few for 2 folds"):
        make_splits(RowLayout(80, np.minimum(np.arange(80) // 30, 2), unit="groups"), ProtocolSettings(2), 0)
