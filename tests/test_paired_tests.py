"""Each statistic to the digit, against scipy, statsmodels, baycomp or a calculation by hand, and its symmetries."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from actlab.errors import InputError
from actlab.verdict.paired_tests import (
    bayesian_correlated_t,
    corrected_interval,
    corrected_resampled_t,
    holm,
    naive_paired_t,
    p_better,
)

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


def test_naive_t_is_scipys_paired_t() -> None:
    test, reference = naive_paired_t(A, B, level=0.9), stats.ttest_rel(A, B)
    interval = reference.confidence_interval(0.9)
    expected = [(A - B).mean(), reference.statistic, 9, reference.pvalue, interval.low, interval.high]
    assert fields(test) == pytest.approx(expected, rel=1e-12)


def test_interval_excludes_zero_exactly_when_p_is_below_its_complement() -> None:
    p = corrected_resampled_t(A, B, RATIO).p
    for level, is_excluded in [(1 - 1.001 * p, True), (1 - 0.999 * p, False)]:
        test = corrected_resampled_t(A, B, RATIO, level)
        assert (test.ci_high < 0) is is_excluded


def test_constant_differences_have_no_variance() -> None:
    same = corrected_resampled_t(A, A, RATIO)
    assert (same.t, same.p, same.ci_low, same.ci_high) == (0, 1, 0, 0)
    shifted = corrected_resampled_t([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], RATIO)
    assert (shifted.t, shifted.p, shifted.ci_low, shifted.ci_high) == (-math.inf, 0, -0.5, -0.5)
    # the mean of three times 0.1 is not 0.1: rounding must not pass for variance
    assert corrected_resampled_t([0.1] * 3, [0.0] * 3, RATIO).t == math.inf


@pytest.mark.parametrize("value", DIVERGED)
def test_a_diverged_score_leaves_nothing_to_test(value: float) -> None:
    broken = np.append(A[:-1], value)
    for test in (corrected_resampled_t(broken, B, RATIO), corrected_resampled_t(B, broken, RATIO)):
        assert np.isnan([test.difference, test.t, test.p, test.ci_low, test.ci_high]).all()
    assert np.isnan(fields(bayesian_correlated_t(broken, B, 0.2, 0.001))).all()
    assert np.isnan(fields(corrected_interval(broken, RATIO))[:4]).all()


def test_a_single_pair_has_a_difference_and_no_p() -> None:
    test = corrected_resampled_t([1.0], [3.0], RATIO)
    assert test.difference == -2
    assert np.isnan([test.t, test.p, test.ci_low]).all()
    assert np.isnan(fields(bayesian_correlated_t([1.0], [3.0], 0.2, 0.1))).all()


def test_interval_of_one_setting_is_scipys_t_interval_with_a_wider_scale() -> None:
    scale = A.std(ddof=1) * math.sqrt(1 / A.size + RATIO)
    expected = [A.mean(), A.std(ddof=1), *stats.t.interval(0.9, 9, A.mean(), scale), 10]
    assert fields(corrected_interval(A, RATIO, 0.9)) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(pairs)
def test_swapping_a_and_b_mirrors_every_statistic(both: np.ndarray) -> None:
    a, b = both
    there, back = corrected_resampled_t(a, b, RATIO), corrected_resampled_t(b, a, RATIO)
    assert (back.difference, back.t, back.p) == (-there.difference, -there.t, there.p)
    assert (back.ci_low, back.ci_high) == (-there.ci_high, -there.ci_low)
    probable, mirrored = bayesian_correlated_t(a, b, 0.2, 0.5), bayesian_correlated_t(b, a, 0.2, 0.5)
    assert fields(mirrored) == pytest.approx(fields(probable)[::-1], abs=1e-12)
    wins, losses = p_better(a, b, 200), p_better(b, a, 200)
    assert fields(losses) == pytest.approx([1 - wins.p, 1 - wins.high, 1 - wins.low], abs=1e-12)


@settings(deadline=None)
@given(pairs, exact)
def test_adding_a_constant_to_both_changes_nothing(both: np.ndarray, constant: float) -> None:
    a, b = both
    assert corrected_resampled_t(a + constant, b + constant, RATIO) == corrected_resampled_t(a, b, RATIO)
    assert bayesian_correlated_t(a + constant, b + constant, 0.2, 0.5) == bayesian_correlated_t(a, b, 0.2, 0.5)
    assert p_better(a + constant, b + constant, 200) == p_better(a, b, 200)


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
    corrected, naive = corrected_resampled_t(a, b, ratio), naive_paired_t(a, b)
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


# P(A better than B)


def test_p_better_counts_wins_and_half_of_the_ties() -> None:
    assert p_better([1, 2, 3, 4], [2, 2, 2, 5]).p == (2 + 0.5) / 4


def test_p_better_has_the_binomial_interval_where_nothing_ties() -> None:
    # resampling n pairs of which a share p wins makes the number of wins binomial(n, p)
    n = 40
    a = np.arange(n) % 4 == 0
    test = p_better(a, np.full(n, 0.5), n_bootstrap=200_000)
    assert test.p == 0.75
    assert [test.low, test.high] == (stats.binom.ppf([0.025, 0.975], n, 0.75) / n).tolist()


def test_p_better_has_scipys_percentile_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, (2, 50))
    wins = (a < b) + 0.5 * (a == b)
    reference = stats.bootstrap((wins,), np.mean, method="percentile", n_resamples=20_000).confidence_interval
    test = p_better(a, b, n_bootstrap=20_000)
    assert [test.low, test.high] == pytest.approx([reference.low, reference.high], abs=0.011)


@pytest.mark.parametrize("value", DIVERGED)
def test_a_diverged_score_loses_and_two_of_them_tie(value: float) -> None:
    assert p_better([value, 1.0], [1.0, value]).p == 0.5
    assert p_better([value, value], [1.0, value]).p == 0.25


def test_p_better_depends_on_its_seed_and_on_no_global_state() -> None:
    np.random.seed(0)  # noqa: NPY002
    first = p_better(A, B, 50, seed=3)
    np.random.random(7)  # noqa: NPY002
    assert p_better(A, B, 50, seed=3) == first
    assert p_better(A, B, 50, seed=np.random.default_rng(3)) == first
    assert len({p_better(A, B, 50, seed=seed) for seed in range(20)}) > 1


# Bayesian correlated t


@pytest.mark.parametrize(
    ("rho", "rope", "expected"),
    [
        # baycomp 1.0.3: CorrelatedTTest.probs(B, A, rope=rope, runs=runs); its rho is 1 / folds, so 10 values in one
        # run are rho = 0.1 and in two runs rho = 0.2
        (0.1, 0.0, [0.9884209736769621, 0.0, 0.011579026323037866]),
        (0.2, 0.0, [0.968562845318413, 0.0, 0.03143715468158703]),
        (0.1, 0.0013, [0.9264197651282529, 0.07170690608021246, 0.0018733287915346786]),
        (0.2, 0.0013, [0.8753985143817201, 0.11725902252823939, 0.007342463090040496]),
        (0.1, 0.005, [0.06419788711391428, 0.9357749226610633, 2.7190225022399872e-05]),
        (0.2, 0.005, [0.11289850342077963, 0.8869217902070827, 0.0001797063721376002]),
    ],
)
def test_bayesian_probabilities_are_those_of_baycomp(rho: float, rope: float, expected: list[float]) -> None:
    assert fields(bayesian_correlated_t(A, B, rho, rope)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_without_a_rope_the_posterior_is_the_one_sided_corrected_test() -> None:
    posterior = bayesian_correlated_t(A, B, 0.2, 0.0)
    assert 2 * posterior.b_better == pytest.approx(corrected_resampled_t(A, B, RATIO).p, rel=1e-9)


def test_a_posterior_without_variance_is_a_point() -> None:
    b = np.array([1.0, 2.0])
    assert fields(bayesian_correlated_t(b - 0.5, b, 0.2, 0.25)) == [1, 0, 0]
    assert fields(bayesian_correlated_t(b + 0.5, b, 0.2, 0.25)) == [0, 0, 1]
    assert fields(bayesian_correlated_t(b + 0.5, b, 0.2, 0.5)) == [0, 1, 0]
    assert fields(bayesian_correlated_t(b, b, 0.2, 0.0)) == [0, 1, 0]


def test_no_rope_no_probabilities() -> None:
    assert np.isnan(fields(bayesian_correlated_t(A, B, 0.2, math.nan))).all()


# bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corrected_resampled_t([1, 2], [1, 2, 3], RATIO), "equal shapes, got \\(2,\\) and \\(3,\\)"),
        (lambda: corrected_resampled_t([[1, 2]], [[1, 2]], RATIO), "one-dimensional array, got shape=\\(1, 2\\)"),
        (lambda: corrected_interval([], RATIO), "non-empty"),
        (lambda: corrected_resampled_t(A, B, -1), "test_train_ratio must be >= 0 and finite, got -1"),
        (lambda: corrected_interval(A, math.nan), "test_train_ratio"),
        (lambda: corrected_resampled_t(A, B, RATIO, 95), "level must be between 0 and 1, got 95"),
        (lambda: p_better(A, B, 0), "n_bootstrap"),
        (lambda: p_better(A, B, level=1), "level"),
        (lambda: bayesian_correlated_t(A, B, 1.0, 0.1), "rho must be in \\[0, 1\\), got 1"),
        (lambda: bayesian_correlated_t(A, B, 0.2, -0.1), "rope must be >= 0, got -0.1"),
    ],
)
def test_bad_input_is_refused_with_the_value(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
