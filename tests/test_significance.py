"""Verdicts: what they say and never say, how often they are wrong on data without a difference, and the summaries."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actlab.errors import InputError
from actlab.verdict.paired_tests import bayesian_correlated_t, corrected_resampled_t, holm, naive_paired_t, p_better
from actlab.verdict.significance import (
    Comparison,
    compare_all,
    default_rope,
    expected_best_after,
    indistinguishable,
    interquartile_mean,
    ranking,
)

RATIO = 0.25
N_PAIRS = 15
NOISE = np.random.default_rng(0).normal(0.13, 0.004, (5, N_PAIRS))
SCORES = {
    "relu": NOISE[0],
    "selu": NOISE[0] + 0.0001 * (NOISE[1] - NOISE[1].mean()),
    "tanh": NOISE[0] + 0.01 + NOISE[2] / 20,
    "identity": NOISE[0] - 0.01 + NOISE[3] / 20,
    "sigmoid": np.append(NOISE[4][:-1] - 0.1, math.nan),
}


def by_name(comparisons: tuple[Comparison, ...]) -> dict[str, Comparison]:
    return {c.b: c for c in comparisons}


# verdicts


def test_verdicts_are_seen_from_the_reference() -> None:
    comparisons = compare_all(SCORES, "relu", RATIO, rope=0.0013)
    assert [(c.a, c.b, c.verdict) for c in comparisons] == [
        ("relu", "selu", "no difference shown"),
        ("relu", "tanh", "better"),
        ("relu", "identity", "worse"),
        ("relu", "sigmoid", "no difference shown"),
    ]


def test_each_number_is_that_of_its_own_statistic() -> None:
    names = ["selu", "tanh", "identity"]
    adjusted = holm([corrected_resampled_t(SCORES["relu"], SCORES[name], RATIO).p for name in names])
    compared = by_name(compare_all(SCORES, "relu", RATIO, rope=0.0013, seed=4))
    for name, p_holm in zip(names, adjusted, strict=True):
        c, a, b = compared[name], SCORES["relu"], SCORES[name]
        test, wins = corrected_resampled_t(a, b, RATIO), p_better(a, b, seed=4)
        assert (c.difference, c.p, c.ci_low, c.ci_high) == (test.difference, test.p, test.ci_low, test.ci_high)
        assert (c.p_better, c.p_better_low, c.p_better_high) == (wins.p, wins.low, wins.high)
        assert (c.p_holm, c.p_naive, c.n, c.rope) == (p_holm, naive_paired_t(a, b).p, N_PAIRS, 0.0013)
        # n_test / n_train = 1/4 is n_test / (n_test + n_train) = 1/5
        posterior = dataclasses.astuple(bayesian_correlated_t(a, b, 0.2, 0.0013))
        assert (c.p_rope_better, c.p_rope_equal, c.p_rope_worse) == pytest.approx(posterior)


@pytest.mark.parametrize(("name", "verdict"), [("tanh", "better"), ("identity", "worse")])
def test_verdict_needs_the_adjusted_p_below_alpha(name: str, verdict: str) -> None:
    p_holm = by_name(compare_all(SCORES, "relu", RATIO, 0.001))[name].p_holm
    for alpha, expected in [(p_holm, "no difference shown"), (p_holm * 1.001, verdict)]:
        assert by_name(compare_all(SCORES, "relu", RATIO, 0.001, alpha=alpha))[name].verdict == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_diverged_is_never_called_better_nor_equal(value: float) -> None:
    low = np.append(np.full(N_PAIRS - 1, 0.01), value)
    scores = {"relu": SCORES["relu"], "diverged": low}
    (from_relu,) = compare_all(scores, "relu", RATIO, 0.001)
    (from_diverged,) = compare_all(scores, "diverged", RATIO, 0.001)
    for c, counts in [(from_relu, (0, 1)), (from_diverged, (1, 0))]:
        assert c.verdict == "no difference shown"
        assert np.isnan([c.difference, c.p, c.p_holm, c.ci_low, c.ci_high, c.p_rope_equal]).all()
        assert (c.n_diverged_a, c.n_diverged_b) == counts
        assert indistinguishable([c]) == ()
    assert from_diverged.p_better == 14 / 15


def test_a_diverged_name_does_not_change_the_others() -> None:
    without = {name: values for name, values in SCORES.items() if name != "sigmoid"}
    assert compare_all(without, "relu", RATIO, 0.001) == compare_all(SCORES, "relu", RATIO, 0.001)[:-1]


def test_over_all_pairs_is_holm_over_all_pairs() -> None:
    names = ["selu", "relu", "tanh", "identity"]
    scores = {name: SCORES[name] for name in names}
    pairs = list(itertools.combinations(names, 2))
    adjusted = holm([corrected_resampled_t(scores[a], scores[b], RATIO).p for a, b in pairs])
    expected = {b if a == "relu" else a: p for (a, b), p in zip(pairs, adjusted, strict=True) if "relu" in (a, b)}
    compared = compare_all(scores, "relu", RATIO, 0.001)
    assert {c.b: c.p_all_pairs for c in compared} == pytest.approx(expected, rel=1e-12)
    assert all(c.p_all_pairs >= c.p_holm for c in compared)
    assert expected != {c.b: c.p_holm for c in compared}


def test_indistinguishable_names_only_what_was_tested() -> None:
    assert indistinguishable(compare_all(SCORES, "relu", RATIO, 0.001)) == ("selu",)


def test_a_reference_alone_is_compared_with_nothing() -> None:
    assert compare_all({"relu": SCORES["relu"]}, "relu", RATIO, 0.001) == ()


def test_a_comparison_is_written_flat_and_nan_as_null() -> None:
    tanh, sigmoid = (by_name(compare_all(SCORES, "relu", RATIO, 0.001))[name] for name in ("tanh", "sigmoid"))
    record = tanh.to_dict()
    rope_keys = {"p_rope_better", "p_rope_equal", "p_rope_worse"}
    promised = {"a", "b", "difference", "ci_low", "ci_high", "p_holm", "p_better", "verdict"} | rope_keys
    assert promised <= record.keys()
    assert record == vars(tanh)
    written = json.loads(json.dumps(sigmoid.to_dict(), allow_nan=False))
    assert (written["p_holm"], written["difference"], written["n_diverged_b"]) == (None, None, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": "gelu"}, "reference must be one of relu, selu, tanh, identity, sigmoid, got 'gelu'"),
        ({"alpha": 5}, "alpha must be between 0 and 1, got 5"),
        ({"scores": SCORES | {"short": [1.0]}}, "equal shapes"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_all(**{"scores": SCORES, "reference": "relu", "test_train_ratio": RATIO, "rope": 0.001} | arguments)


def test_importing_it_loads_neither_scipy_nor_pandas_nor_torch() -> None:
    code = "import sys, actlab.verdict.significance\nprint(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"scipy", "scikit_posthocs", "pandas", "matplotlib", "torch"}


# no difference: how often a verdict says otherwise


def cross_validated_null(n_runs: int, n_rows: int = 60, repeats: int = 10, folds: int = 5) -> np.ndarray:
    """Scores `(n_runs, 2, repeats * folds)` of two models without a true difference, by real repeated k-fold.

    The target is noise; each model regresses it on its own irrelevant column. Both share the folds, whose training
    parts overlap as in any cross-validation.
    """
    rng = np.random.default_rng(7)
    y = rng.standard_normal((n_runs, 1, n_rows))
    x = rng.standard_normal((n_runs, 2, n_rows))
    scores = []
    for _ in range(repeats):
        for test in np.array_split(rng.permutation(n_rows), folds):
            train = np.setdiff1d(np.arange(n_rows), test)
            x_mean, y_mean = x[..., train].mean(-1, keepdims=True), y[..., train].mean(-1, keepdims=True)
            u = x[..., train] - x_mean
            slope = (u * y[..., train]).sum(-1, keepdims=True) / (u * u).sum(-1, keepdims=True)
            error = y[..., test] - y_mean - slope * (x[..., test] - x_mean)
            scores.append(np.sqrt((error**2).mean(-1)))
    return np.stack(scores, axis=-1)


def correlated_null(n_runs: int, n_names: int) -> np.ndarray:
    """Scores `(n_runs, n_names, N_PAIRS)` without a true difference, any two folds of a name correlated by rho.

    Equal correlation rho = n_test / (n_test + n_train) is the model behind the correction.
    """
    rho = RATIO / (1 + RATIO)
    rng = np.random.default_rng(11)
    common, own = rng.standard_normal((n_runs, n_names, 1)), rng.standard_normal((n_runs, n_names, N_PAIRS))
    return math.sqrt(rho) * common + math.sqrt(1 - rho) * own


def margin(share: float, n: int) -> float:
    """Three binomial standard errors of a share of `n` independent runs."""
    return 3 * math.sqrt(share * (1 - share) / n)


def test_a_difference_that_is_not_there_is_claimed_in_at_most_5_percent_of_comparisons() -> None:
    runs = cross_validated_null(n_runs=1000)
    corrected = np.mean([corrected_resampled_t(a, b, RATIO).p < 0.05 for a, b in runs])
    naive = np.mean([naive_paired_t(a, b).p < 0.05 for a, b in runs])
    assert 0 < corrected <= 0.05 + margin(0.05, 1000)
    assert naive > 0.2


def test_corrected_t_is_exact_where_folds_correlate_by_rho() -> None:
    runs = correlated_null(n_runs=3000, n_names=2)
    corrected = np.mean([corrected_resampled_t(a, b, RATIO).p < 0.05 for a, b in runs])
    naive = np.mean([naive_paired_t(a, b).p < 0.05 for a, b in runs])
    assert corrected == pytest.approx(0.05, abs=margin(0.05, 3000))
    assert naive > 0.3


def test_a_winner_picked_by_its_scores_is_wrong_in_few_comparisons_and_in_few_runs_over_all_pairs() -> None:
    n_runs, n_names = 300, 8
    is_better = np.zeros((2, n_runs, n_names - 1), dtype=bool)
    for i_run, run in enumerate(correlated_null(n_runs, n_names)):
        scores = {f"same {i}": values for i, values in enumerate(run)}
        winner = ranking(scores)[0]
        compared = compare_all(scores, winner, RATIO, rope=0.01, n_bootstrap=1)
        is_better[0, i_run] = [c.verdict == "better" for c in compared]
        is_better[1, i_run] = [c.p_all_pairs < 0.05 for c in compared]
        assert all(c.verdict != "worse" for c in compared)
    share_of_comparisons, share_of_runs = is_better.mean(axis=(1, 2)), is_better.any(axis=2).mean(axis=1)
    assert (share_of_comparisons <= 0.05).all()
    # that any of a run's comparisons claims a difference: only the adjustment over all pairs bounds it
    assert share_of_runs[0] > 0.05 + margin(0.05, n_runs)
    assert 0 < share_of_runs[1] <= 0.05 + margin(0.05, n_runs)


# order and summaries


def test_ranking_puts_low_means_first_and_diverged_names_last() -> None:
    scores = {
        "all diverged": [math.nan, math.inf],
        "half, high": [9.0, math.nan],
        "half, low": [math.nan, 0.1],
        "second": [2.0, 2.0],
        "first": [3.0, 0.0],
        "tied with second": [1.0, 3.0],
    }
    expected = ("first", "second", "tied with second", "half, low", "half, high", "all diverged")
    assert ranking(scores) == expected


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, 3.0, 4.0, 6.0, -50.0, 5.0]) == (2 + 3 + 4 + 5) / 4
    assert math.isnan(interquartile_mean([1.0] * 9 + [math.inf]))


def test_default_rope_is_one_percent_of_the_mean_of_what_did_not_diverge() -> None:
    assert default_rope([0.12, 0.14, math.nan]) == pytest.approx(0.0013, rel=1e-12)
    assert default_rope([0.12, 0.14], share=0.05) == pytest.approx(0.0065, rel=1e-12)
    assert math.isnan(default_rope([math.nan]))
    with pytest.raises(InputError, match="share"):
        default_rope([0.1], share=-0.01)


def test_expected_best_equals_the_calculation_by_hand() -> None:
    # one of 1, 2, 4: mean 7/3; two of them: best 1, 1, 2, so 4/3; all three: 1
    assert expected_best_after([4.0, 1.0, 2.0]).tolist() == pytest.approx([7 / 3, 4 / 3, 1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=7))
def test_expected_best_is_the_mean_over_all_draws_without_replacement(rates: list[tuple[int, float]]) -> None:
    validation, test = (np.array(column) for column in zip(*rates, strict=True))

    def kept(draw: tuple[int, ...]) -> float:
        lowest = [i for i in draw if validation[i] == min(validation[list(draw)])]
        return float(np.mean(test[lowest]))

    expected = [
        np.mean([kept(draw) for draw in itertools.combinations(range(len(rates)), n)]) for n in range(1, len(rates) + 1)
    ]
    assert expected_best_after(validation, test).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_expected_best_starts_at_the_mean_falls_and_ends_at_the_minimum(scores: list[float]) -> None:
    expected = expected_best_after(scores)
    assert expected[0] == pytest.approx(np.mean(scores), abs=1e-12)
    assert expected[-1] == pytest.approx(min(scores), rel=1e-12)
    assert (np.diff(expected) <= 1e-9).all()


def test_expected_best_is_unknown_while_all_tries_may_diverge() -> None:
    # of the six draws of three, each holds one of the two that did not diverge
    expected = expected_best_after([math.nan, 1.0, math.inf, 2.0], [5.0, 10.0, 5.0, 20.0])
    assert np.isnan(expected).tolist() == [True, True, False, False]
    assert expected[2:].tolist() == pytest.approx([12.5, 10.0])


def test_expected_best_refuses_test_scores_of_other_settings() -> None:
    with pytest.raises(InputError, match="equal shapes"):
        expected_best_after([1.0, 2.0], [1.0])
