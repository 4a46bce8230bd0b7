"""Each statistic to the digit, against scipy, statsmodels, baycomp or a calculation by hand, and its symmetries."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from actlab.errors import InputError
from actlab.verdict.paired_tests import corrected_resampled_t, holm

RATIO = 0.25  # five folds
A = np.array([0.131, 0.125, 0.128, 0.142, 0.119, 0.130, 0.127, 0.126, 0.139, 0.121])
B = np.array([0.135, 0.124, 0.131, 0.147, 0.124, 0.133, 0.126, 0.131, 0.141, 0.127])
DIVERGED = [math.nan, math.inf, -math.inf]

# multiples of 1/64 add and subtract without rounding, so that symmetries hold exactly
exact = st.integers(-640, 640).map(lambda i: i / 64)
pairs = st.lists(st.tuples(exact, exact), min_size=2, max_size=20).map(lambda rows: np.array(rows).T)


def fields(record: object) -> list[float]:
    return list(vars(record).values())


# corrected resampled t


def test_corrected_t_equals_the_calculation_by_hand() -> None:
    # d = 1..5: mean 3, variance 2.5, so t = 3 / sqrt(2.5 (1/5 + 1/4)) = sqrt(8). With 4 degrees of freedom the
    # distribution function is closed: p = 1 - 1.5 u (1 - u^2 / 3), u = t / sqrt(4 + t^2) = sqrt(2/3).
    test = corrected_resampled_t([2, 4, 6, 8, 10], [1, 2, 3, 4, 5], RATIO)
    u = math.sqrt(2 / 3)
    half = 2.7764451051977934 * math.sqrt(1.125)  # the 97.5 % quantile of t with 4 degrees of freedom
    expected = [3.0, math.sqrt(8), 4, 1 - 1.5 * u * (1 - u * u / 3), 3 - half, 3 + half]
    assert fields(test) == pytest.approx(expected, rel=1e-12)


def test_corrected_t_uses_n_test_over_n_train_and_not_the_correlation() -> None:
    d = A - B
    for n_test, n_train in [(292, 1168), (146, 1314), (10, 10)]:
        t = d.mean() / math.sqrt(d.var(ddof=1) * (1 / d.size + n_test / n_train))
        assert corrected_resampled_t(A, B, n_test / n_train).t == pytest.approx(t, rel=1e-12)


def test_without_a_correction_it_is_scipys_paired_t() -> None:
    test, reference = corrected_resampled_t(A, B, 0.0, level=0.9), stats.ttest_rel(A, B)
    interval = reference.confidence_interval(0.9)
    expected = [(A - B).mean(), reference.statistic, 9, reference.pvalue, interval.low, interval.high]
    assert fields(test) == pytest.approx(expected, rel=1e-12)


def test_interval_excludes_zero_exactly_when_p_is_below_its_complement() -> None:
    p = corrected_resampled_t(A, B, RATIO).p
    for level, is_excluded in [(1 - 1.001 * p, True), (1 - 0.999 * p, False)]:
        test = corrected_resampled_t(A, B, RATIO, level)
        assert (test.ci_high < 0) is is_excluded


def test_differences_without_spread_tell_nothing_unless_all_are_zero() -> None:
    same = corrected_resampled_t(A, A, RATIO)
    assert (same.difference, same.t, same.p, same.ci_low, same.ci_high) == (0, 0, 1, 0, 0)
    # the mean of three times 0.1 is not 0.1: rounding must not pass for spread
    for a, b in (([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]), ([0.1] * 3, [0.0] * 3)):
        shifted = corrected_resampled_t(a, b, RATIO)
        assert shifted.difference == pytest.approx(np.mean(a) - np.mean(b))
        assert np.isnan([shifted.t, shifted.p, shifted.ci_low, shifted.ci_high]).all()


@pytest.mark.parametrize("value", DIVERGED)
def test_a_diverged_score_leaves_nothing_to_test(value: float) -> None:
    broken = np.append(A[:-1], value)
    for test in (corrected_resampled_t(broken, B, RATIO), corrected_resampled_t(B, broken, RATIO)):
        assert np.isnan([test.difference, test.t, test.p, test.ci_low, test.ci_high]).all()


def test_a_single_pair_has_a_difference_and_no_p() -> None:
    test = corrected_resampled_t([1.0], [3.0], RATIO)
    assert test.difference == -2
    assert np.isnan([test.t, test.p, test.ci_low]).all()


@settings(deadline=None)
@given(pairs)
def test_swapping_a_and_b_mirrors_every_statistic(both: np.ndarray) -> None:
    a, b = both
    assume(np.ptp(a - b) > 0)
    there, back = corrected_resampled_t(a, b, RATIO), corrected_resampled_t(b, a, RATIO)
    assert (back.difference, back.t, back.p) == (-there.difference, -there.t, there.p)
    assert (back.ci_low, back.ci_high) == (-there.ci_high, -there.ci_low)


@settings(deadline=None)
@given(pairs, exact)
def test_adding_a_constant_to_both_changes_nothing(both: np.ndarray, constant: float) -> None:
    a, b = both
    assume(np.ptp(a - b) > 0)
    assert corrected_resampled_t(a + constant, b + constant, RATIO) == corrected_resampled_t(a, b, RATIO)


@settings(deadline=None)
@given(pairs, st.floats(0.1, 5), st.floats(1.1, 5))
def test_p_falls_as_the_effect_grows(both: np.ndarray, effect: float, factor: float) -> None:
    d = both[0] - both[1]
    assume(np.ptp(d) > 0)
    noise = d - d.mean()
    small, large = (corrected_resampled_t(noise - size, np.zeros_like(d), RATIO) for size in (effect, effect * factor))
    assert large.p < small.p
    assert large.t < small.t < 0


@settings(deadline=None)
@given(pairs, st.floats(0.01, 1))
def test_the_correction_only_ever_makes_less_sure(both: np.ndarray, ratio: float) -> None:
    a, b = both
    assume(np.ptp(a - b) > 0)
    corrected, naive = corrected_resampled_t(a, b, ratio), corrected_resampled_t(a, b, 0.0)
    assert corrected.p >= naive.p
    assert corrected.ci_high - corrected.ci_low >= naive.ci_high - naive.ci_low


# Holm


def test_holm_equals_the_calculation_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, running maximum
    assert holm([0.03, 0.01, 0.04, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06], rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)


def test_holm_passes_nan_through_and_does_not_count_it() -> None:
    adjusted = holm([math.nan, 0.01, 0.04, math.nan])
    assert np.isnan(adjusted).tolist() == [True, False, False, True]
    assert adjusted[1:3].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(holm([math.nan])).all()
    assert holm([]).size == 0


# bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corrected_resampled_t([1, 2], [1, 2, 3], RATIO), "equal shapes, got \\(2,\\) and \\(3,\\)"),
        (lambda: corrected_resampled_t([[1, 2]], [[1, 2]], RATIO), "one-dimensional array, got shape=\\(1, 2\\)"),
        (lambda: corrected_resampled_t([], [], RATIO), "non-empty"),
        (lambda: corrected_resampled_t(A, B, -1), "test_train_ratio must be >= 0 and finite, got -1"),
        (lambda: corrected_resampled_t(A, B, math.nan), "test_train_ratio"),
        (lambda: corrected_resampled_t(A, B, RATIO, 95), "level must be between 0 and 1, got 95"),
    ],
)
def test_bad_input_is_refused_with_the_value(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
