"""Noise of training, noise of rows and the quantile, against scipy, statsmodels, bootstraps and plain loops."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from actlab.verdict import simultaneous
from actlab.verdict.simultaneous import FloatArray, RowNoise, Units, noise_of_training, quantile, row_sums
from plain_race import plain_noise

ALPHAS = (0.05, 0.02, 0.005)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("k", [3, 13, 60])
def test_the_quantile_is_that_of_the_studentized_range(alpha: float, k: int) -> None:
    dfs = [3.0, 11.0, 23.5, 71.0, 1459.0]
    expected = [stats.studentized_range.isf(alpha, k, df) / math.sqrt(2) for df in dfs]
    np.testing.assert_allclose(quantile(alpha, k, dfs), expected, rtol=2e-6)


@pytest.mark.parametrize("df", [1, 3, 15, 63.7, 1e5])
def test_for_two_the_quantile_is_that_of_student(df: float) -> None:
    for alpha in ALPHAS:
        assert quantile(alpha, 2, df) == pytest.approx(stats.t.isf(alpha / 2, df), rel=1e-9)


def test_the_quantile_keeps_the_shape_of_its_degrees_of_freedom() -> None:
    assert quantile(0.05, 5, 7.0).shape == ()
    assert quantile(0.05, 5, [[7.0, 8.0]]).shape == (1, 2)


def test_no_end_of_degrees_of_freedom_is_the_range_of_normal_draws() -> None:
    expected = stats.studentized_range.isf(0.01, 13, np.inf) / math.sqrt(2)
    assert quantile(0.01, 13, math.inf) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("k", "n_repeats"), [(2, 4), (3, 4), (13, 16), (20, 64)])
def test_the_noise_of_training_is_that_of_its_formula(k: int, n_repeats: int) -> None:
    rng = np.random.default_rng(k)
    scores = rng.normal(size=(k, n_repeats)) * rng.gamma(1, 1, (k, 1)) + rng.normal(size=n_repeats)
    squared, df = noise_of_training(scores)
    expected, expected_df = plain_noise(scores.tolist())
    between = ~np.eye(k, dtype=bool)
    np.testing.assert_allclose(squared[between], np.array(expected)[between], rtol=1e-11)
    assert df == expected_df


def test_without_pull_and_guard_it_is_the_paired_t_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simultaneous, "PRIOR_REPEATS", 0)
    scores = np.random.default_rng(0).normal(size=(5, 9))
    squared, _ = noise_of_training(scores)
    for i, j in combinations(range(5), 2):
        t = (scores[i] - scores[j]).mean() / math.sqrt(squared[i, j])
        assert t == pytest.approx(stats.ttest_rel(scores[i], scores[j]).statistic)


def test_with_all_pull_and_without_guard_it_is_two_way_anova(monkeypatch: pytest.MonkeyPatch) -> None:
    # the mean over pairs of the variance of a difference is twice the residual mean square
    k, n_repeats = 6, 7
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(k, n_repeats)) + rng.normal(size=n_repeats) * 3 + rng.normal(size=(k, 1))
    table = pd.DataFrame([{"a": a, "r": r, "x": scores[a, r]} for a in range(k) for r in range(n_repeats)])
    anova = anova_lm(ols("x ~ C(a) + C(r)", table).fit())
    monkeypatch.setattr(simultaneous, "GUARD", np.inf)
    monkeypatch.setattr(simultaneous, "PRIOR_REPEATS", 1e12)
    squared, df = noise_of_training(scores)
    expected = 2 * anova.mean_sq["Residual"] / n_repeats
    low = squared[~np.eye(k, dtype=bool)].min()
    # a pair with more noise than the mean keeps its own
    assert low == pytest.approx(expected, rel=1e-6)
    assert df == anova.df["Residual"]


def test_of_two_settings_the_noise_is_their_own() -> None:
    scores = np.random.default_rng(2).normal(size=(2, 8))
    squared, df = noise_of_training(scores)
    assert squared[0, 1] == pytest.approx((scores[0] - scores[1]).var(ddof=1) / 8)
    assert df == 7


def test_one_noisy_setting_does_not_blind_the_others() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(13, 16))
    before = noise_of_training(scores)[0][:12, :12]
    scores[12] *= 30
    after = noise_of_training(scores)[0]
    assert (after[:12, :12] <= 1.4 * before).all()
    # and is not called worse by what the others know
    assert after[0, 12] == pytest.approx((scores[0] - scores[12]).var(ddof=1) / 16)


def drawn(
    n: int, n_repeats: int, names: str, rows: float = 1.0, training: float = 0.5, seed: int = 0
) -> list[dict[str, FloatArray]]:
    """Squared errors (n,) of each setting in each repeat: what is common to the settings, a part of each setting that
    stays over the repeats (noise of rows), and one that does not (noise of training)."""
    rng = np.random.default_rng(seed)
    common = rng.gamma(2, 1, n) + 2
    own = {name: rng.normal(size=n) * rows for name in names}
    return [
        {name: (common + own[name] * 0.5 + 0.5 * training * rng.normal(size=n)) ** 2 + 0.1 for name in names}
        for _ in range(n_repeats)
    ]


def mean_scores(errors: Sequence[Mapping[str, FloatArray]], units: Units) -> dict[str, float]:
    return {
        name: float(np.mean([np.sqrt(np.average(of[name], weights=units.weights)) for of in errors]))
        for name in errors[0]
    }


def variance(errors: Sequence[Mapping[str, FloatArray]], units: Units, n_folds: int = 5) -> float:
    """V of a and b after all repeats."""
    n_repeats = len(errors)
    noise = RowNoise(units, n_folds, row_sums(errors, units, [n_repeats]))
    return noise.variance("a", "b", n_repeats, mean_scores(errors, units))


def plain_variance(errors: Sequence[Mapping[str, FloatArray]], units: Units, n_folds: int) -> float:
    """Step 4 of the method for units, in loops over them."""
    x = mean_scores(errors, units)
    n_repeats, n = len(errors), len(units.of_row)
    w, groups = units.weights.tolist(), sorted(set(units.of_row.tolist()))
    delta = [[of["a"][row] / (2 * x["a"]) - of["b"][row] / (2 * x["b"]) for row in range(n)] for of in errors]
    averaged = [sum(one[row] for one in delta) / n_repeats for row in range(n)]

    def of_groups(values: Sequence[float]) -> float:
        centre = sum(v * u for v, u in zip(values, w, strict=True)) / sum(w)
        rows = {group: [row for row in range(n) if units.of_row[row] == group] for group in groups}
        return sum(sum(w[row] * (values[row] - centre) for row in own) ** 2 for own in rows.values())

    training = [of_groups([d - m for d, m in zip(one, averaged, strict=True)]) for one in delta]
    s = max(0.0, of_groups(averaged) - sum(training) / n_repeats / (n_repeats - 1))
    n_groups = len(groups)
    return n_folds / (n_folds - 1) * n_groups / (n_groups - 1) * s / sum(w) ** 2


def grouped(n: int, n_groups: int, seed: int = 0, weighted: bool = True) -> Units:
    """Groups of different sizes, in no order; weights from 0.5 to 2 where weighted."""
    rng = np.random.default_rng(seed)
    of_row = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
    return Units(rng.permutation(of_row), rng.uniform(0.5, 2, n) if weighted else np.ones(n))


@pytest.mark.parametrize("units", [Units.rows(400), grouped(700, 250), grouped(400, 210, weighted=False)])
def test_the_noise_of_rows_is_that_of_its_formula(units: Units) -> None:
    errors = drawn(len(units.of_row), 3, "ab")
    assert variance(errors, units) == pytest.approx(plain_variance(errors, units, 5), rel=1e-9)


def test_of_rows_by_themselves_it_is_the_variance_over_rows_less_that_over_repeats() -> None:
    n, n_repeats = 1000, 4
    errors = drawn(n, n_repeats, "ab")
    x = mean_scores(errors, Units.rows(n))
    delta = np.stack([of["a"] / (2 * x["a"]) - of["b"] / (2 * x["b"]) for of in errors])
    expected = 5 / 4 * (delta.mean(0).var(ddof=1) - (delta.var(0, ddof=1) / n_repeats).mean()) / n
    # the formula for units leaves out what moves all rows of a repeat together
    assert variance(errors, Units.rows(n)) == pytest.approx(expected, rel=2e-3)


def test_of_one_repeat_it_is_the_jackknife() -> None:
    n = 500
    errors = drawn(n, 1, "ab")
    a, b = errors[0]["a"], errors[0]["b"]
    x, y = math.sqrt(a.mean()), math.sqrt(b.mean())
    delta = a / (2 * x) - b / (2 * y)
    found = variance(errors, Units.rows(n)) * 4 / 5
    assert found == pytest.approx(delta.var(ddof=1) / n, rel=1e-12)
    without = [math.sqrt((a.sum() - a[i]) / (n - 1)) - math.sqrt((b.sum() - b[i]) / (n - 1)) for i in range(n)]
    assert found == pytest.approx((n - 1) * np.var(without), rel=0.03)


def bootstrapped(errors: Sequence[Mapping[str, FloatArray]], units: Units, times: int = 3000) -> float:
    """Variance over draws of whole units, with replacement, of the difference of mean scores."""
    rng = np.random.default_rng(7)
    members = [np.flatnonzero(units.of_row == unit) for unit in range(units.n)]
    found = []
    for _ in range(times):
        rows = np.concatenate([members[unit] for unit in rng.integers(0, units.n, units.n)])
        again = Units(np.arange(len(rows)), units.weights[rows])
        scores = mean_scores([{name: of[name][rows] for name in "ab"} for of in errors], again)
        found.append(scores["a"] - scores["b"])
    return float(np.var(found, ddof=1))


@pytest.mark.parametrize("units", [Units.rows(500), grouped(600, 220)])
def test_without_noise_of_training_it_is_a_bootstrap_over_units(units: Units) -> None:
    errors = drawn(len(units.of_row), 2, "ab", training=0)
    assert variance(errors, units) * 4 / 5 == pytest.approx(bootstrapped(errors, units), rel=0.12)


def test_the_noise_of_training_alone_is_no_noise_of_rows() -> None:
    units = Units.rows(2000)
    trained = [drawn(2000, 4, "ab", rows=0, training=1, seed=seed) for seed in range(20)]
    # at least 0, and around 0 before that; a bootstrap over rows takes all of it for noise of rows
    assert np.mean([variance(errors, units) for errors in trained]) < 0.1 * bootstrapped(trained[0], units, 500)


def test_it_is_the_variance_over_new_rows() -> None:
    # many tables of one source: the mean difference moves with their rows by V (without K / (K - 1)) and with training
    n, n_repeats = 300, 4
    tables = [drawn(n, n_repeats, "ab", training=1, seed=seed) for seed in range(300)]
    scores = [mean_scores(errors, Units.rows(n)) for errors in tables]
    moved = np.var([of["a"] - of["b"] for of in scores], ddof=1)
    of_rows = np.mean([variance(errors, Units.rows(n)) * 4 / 5 for errors in tables])
    trained = [
        np.var([np.sqrt(of["a"].mean()) - np.sqrt(of["b"].mean()) for of in errors], ddof=1) / n_repeats
        for errors in tables
    ]
    # in each of these tables the networks' noise is that of rows, too: it has no part that moves all rows together
    assert of_rows + np.mean(trained) == pytest.approx(moved, rel=0.2)


def test_the_factor_of_folds_is_a_factor() -> None:
    errors, units = drawn(300, 4, "ab"), Units.rows(300)
    assert variance(errors, units, 2) == pytest.approx(2 * variance(errors, units, 10**9), rel=1e-6)


@pytest.mark.parametrize("units", [Units.rows(150), grouped(300, 60), grouped(400, 20)])
def test_of_few_units_it_is_a_bootstrap_less_the_noise_of_training(units: Units) -> None:
    errors = drawn(len(units.of_row), 4, "ab", training=0)
    n = units.n
    expected = 5 / 4 * n / (n - 1) * bootstrapped(errors, units)
    assert variance(errors, units) == pytest.approx(expected, rel=0.15)
    noisy = drawn(len(units.of_row), 4, "ab", rows=3, training=1)
    assert variance(noisy, units) == pytest.approx(plain_variance(noisy, units, 5), rel=0.25)


def test_the_bootstrap_of_few_units_is_the_same_whenever_it_is_done() -> None:
    errors, units = drawn(100, 4, "ab"), Units.rows(100)
    assert variance(errors, units) == variance(errors, units)


def test_equal_weights_are_no_weights_and_a_row_of_weight_two_counts_as_two_of_one_unit() -> None:
    n = 400
    errors, rows = drawn(n, 3, "ab"), Units.rows(n)
    assert variance(errors, Units(np.arange(n), np.full(n, 7.0))) == pytest.approx(variance(errors, rows))
    twice = [{name: np.repeat(values, 2) for name, values in of.items()} for of in errors]
    pairs = Units(np.repeat(np.arange(n), 2), np.ones(2 * n))
    assert variance(twice, pairs) == pytest.approx(variance(errors, rows))
    for n in (400, 100):
        counts, errors = np.arange(n) % 4 + 1, drawn(n, 3, "ab")
        repeated = [{name: np.repeat(values, counts) for name, values in of.items()} for of in errors]
        copies = Units(np.repeat(np.arange(n), counts), np.ones(counts.sum()))
        weighted = Units(np.arange(n), counts.astype(float))
        assert variance(repeated, copies) == pytest.approx(variance(errors, weighted), rel=1e-9)
        assert mean_scores(repeated, copies) == pytest.approx(mean_scores(errors, weighted), rel=1e-9)


def test_the_sums_of_a_look_do_not_know_later_repeats_nor_others() -> None:
    units, errors = Units.rows(250), drawn(250, 8, "abc")
    left = [{name: of[name] for name in ("a", "b", "c") if name != "c" or r < 4} for r, of in enumerate(errors)]
    together = RowNoise(units, 5, row_sums(iter(left), units, [4, 8, 16]))
    for n_repeats in (4, 8):
        alone = RowNoise(units, 5, row_sums([{n: of[n] for n in "ba"} for of in errors], units, [n_repeats]))
        scores = mean_scores(errors[:n_repeats], units)
        found = together.variance("a", "b", n_repeats, scores)
        assert found == pytest.approx(alone.variance("a", "b", n_repeats, scores), rel=1e-9)
        assert found == together.variance("b", "a", n_repeats, scores)
    assert together.variance("a", "c", 4, mean_scores(errors[:4], units)) > 0
    assert math.isnan(together.variance("a", "c", 8, mean_scores(errors, units)))
    assert math.isnan(together.variance("a", "b", 16, mean_scores(errors, units)))
    assert together.df == 249


def test_a_diverged_setting_is_nobody_elses_trouble() -> None:
    units, errors = Units.rows(250), drawn(250, 4, "abc")
    lost = [of | {"c": np.full(250, np.nan)} for of in errors]
    noise = RowNoise(units, 5, row_sums(lost, units, [4]))
    assert noise.variance("a", "b", 4, mean_scores(errors, units)) == pytest.approx(variance(errors, units))


def test_a_large_table_draws_no_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "default_rng", None)
    assert row_sums([{"a": np.ones(200), "b": np.arange(200.0)}], Units.rows(200), [1])[1].roots == {}
