"""Expanding windows: what is trained on is earlier than what validates, and that earlier than what is tested."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actlab.data.windows import time_blocks, windows
from actlab.errors import InputError
from actlab.settings import ProtocolSettings

TIMES = st.lists(st.integers(0, 60), min_size=60, max_size=200).map(lambda days: np.array(days, dtype=np.float64))


def test_blocks_of_distinct_times_are_as_equal_as_can_be_whatever_the_order_of_the_rows() -> None:
    order = np.random.default_rng(0).permutation(103)
    blocks = time_blocks(order.astype(np.float64), 6)
    assert np.bincount(blocks).tolist() == [17, 17, 17, 18, 17, 17]
    assert np.array_equal(blocks[np.argsort(order)], np.sort(blocks))


def test_a_block_ends_with_the_time_stamp_that_is_nearest_to_its_share() -> None:
    # shares of 100 rows: 33.3 and 66.7; after the stamps there are 50, 60, 70, 80, 90, 100 rows
    time = np.repeat([1.0, 2, 3, 4, 5, 6], [50, 10, 10, 10, 10, 10])
    assert np.bincount(time_blocks(time, 3)).tolist() == [50, 20, 30]
    # every block has a time stamp, however large another is
    assert len(set(time_blocks(time, 6))) == 6
    assert time_blocks(np.array([3.0, 1.0, 1.0]), 20).tolist() == [1, 0, 0]


@given(TIMES, st.integers(2, 5), st.sampled_from([0.1, 0.15, 0.3]))
def test_training_is_before_validation_and_that_before_the_test_rows(
    time: np.ndarray, n_folds: int, share: float
) -> None:
    try:
        found = windows(time, ProtocolSettings(n_folds, 1, 1, share))
    except InputError:
        return
    assert len(found) == n_folds + 1
    tested = np.concatenate([one.test for one in found])
    for fold, one in enumerate(found):
        parts = [part for part in one if len(part)]
        for earlier, later in pairwise(parts):
            assert time[earlier].max() < time[later].min()
        before = np.concatenate([one.training, one.validation])
        # all that is earlier than the test rows, and nothing else
        if len(one.test):
            assert np.array_equal(np.sort(before), np.flatnonzero(time < time[one.test].min()))
        assert len(one.training) >= 3
        assert len(one.validation) >= 2
        assert (len(one.test) == 0) == (fold == n_folds)
    assert len(np.unique(tested)) == len(tested)
    first = np.concatenate(found[0][:2])
    assert np.array_equal(np.sort(np.concatenate([first, tested])), np.arange(len(time)))
    # the last one trains on everything
    assert len(found[-1].training) + len(found[-1].validation) == len(time)


def test_the_validation_rows_are_about_their_share_of_the_rows_before_the_test_rows() -> None:
    found = windows(np.arange(600.0), ProtocolSettings(5, 1, 1, 0.15))
    assert [len(one.validation) for one in found] == [15, 30, 45, 60, 75, 90]
    assert [len(one.training) for one in found] == [85, 170, 255, 340, 425, 510]


def test_too_few_times_or_rows_are_refused_in_a_sentence() -> None:
    protocol = ProtocolSettings(5, 1, 1, 0.15)
    with pytest.raises(InputError, match="300 rows of 6 different times are too few for 5 folds with a validation"):
        windows(np.repeat(np.arange(6.0), 50), protocol)
    with pytest.raises(InputError, match="12 rows of 12 different times are too few for 5 folds"):
        windows(np.arange(12.0), protocol)
