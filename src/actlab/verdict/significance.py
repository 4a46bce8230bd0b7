"""From scores per activation to a verdict: comparisons with a reference, order, summaries of one setting's scores.

Scores, pairs, diverged scores and `test_train_ratio` are as `paired_tests` defines them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from actlab.errors import InputError
from actlab.settings import ALPHA
from actlab.verdict.paired_tests import (
    FloatArray,
    as_pairs,
    as_scores,
    bayesian_correlated_t,
    corrected_resampled_t,
    holm,
    naive_paired_t,
    p_better,
    require,
)

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Comparison:
    """A against B, seen from A; `difference` is mean(a - b), so a negative one means that A is lower, hence better.

    `ci_low` and `ci_high` belong to this one comparison, while `p_holm` answers for all comparisons with A: an interval
    may exclude zero where the verdict is `no difference shown`. `p_all_pairs` answers for every pair of names, which is
    what it takes where A was picked by these very scores. All p-values are two-sided.
    """

    a: str
    b: str
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    p_all_pairs: float
    p_naive: float
    p_better: float
    p_better_low: float
    p_better_high: float
    p_rope_better: float
    p_rope_equal: float
    p_rope_worse: float
    rope: float
    n: int
    n_diverged_a: int
    n_diverged_b: int
    verdict: Verdict

    def to_dict(self) -> dict[str, str | int | float | None]:
        """Flat record for `summary.json`; NaN becomes None."""
        record = vars(self).items()
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record}


def default_rope(baseline_scores: npt.ArrayLike, share: float = 0.01) -> float:
    """Half-width of the region of practical equivalence: 1 % of the baseline's mean score.

    A scale, not a comparison: the mean is over the baseline's finite scores, and NaN where there is none.
    """
    require(0 <= share < math.inf, "the share of the baseline's score must be >= 0 and finite", share)
    scores = as_scores(baseline_scores)
    finite = scores[~np.isnan(scores)]
    return share * abs(float(finite.mean())) if finite.size else math.nan


def compare_all(
    scores: Mapping[str, npt.ArrayLike],
    reference: str,
    test_train_ratio: float,
    rope: float,
    alpha: float = ALPHA,
    seed: int = 0,
    *,
    n_bootstrap: int = 10_000,
) -> tuple[Comparison, ...]:
    """Compare `reference` (A) with each other name (B), in the mapping's order, paired by (repeat, fold).

    Two-sided corrected resampled t-tests; the verdict is Holm's over these comparisons at `alpha`. That answers in full
    for a reference named before the scores were seen (a baseline). For one picked by these very scores (the winner) it
    keeps wrong verdicts under `alpha` of the comparisons, but the chance that a run has any is larger: the lowest of k
    means lies below the others by luck alone. `p_all_pairs` pays for that choice, with power. Either way a winner's
    difference keeps the optimism of its choice; fresh splits and seeds remove it. Every comparison draws the same
    bootstrap pairs from `seed`, so its numbers do not depend on who else takes part.
    """
    if reference not in scores:
        raise InputError(f"reference must be one of {', '.join(scores)}, got {reference!r}")
    require(0 < alpha < 1, "alpha must be between 0 and 1", alpha)
    rho = test_train_ratio / (1 + test_train_ratio)
    a = as_scores(scores[reference])
    tests = {b: corrected_resampled_t(a, scores[b], test_train_ratio) for b in scores if b != reference}
    p_values = [test.p for test in tests.values()]
    others = [corrected_resampled_t(scores[b], scores[c], test_train_ratio).p for b, c in combinations(tests, 2)]
    p_holm, p_all_pairs = holm(p_values).tolist(), holm([*p_values, *others]).tolist()
    comparisons = []
    for i, (name, test) in enumerate(tests.items()):
        b = as_scores(scores[name])
        wins, posterior = p_better(a, b, n_bootstrap, seed), bayesian_correlated_t(a, b, rho, rope)
        shown: Verdict = "better" if test.difference < 0 else "worse"
        comparisons.append(
            Comparison(
                a=reference,
                b=name,
                difference=test.difference,
                ci_low=test.ci_low,
                ci_high=test.ci_high,
                p=test.p,
                p_holm=p_holm[i],
                p_all_pairs=p_all_pairs[i],
                p_naive=naive_paired_t(a, b).p,
                p_better=wins.p,
                p_better_low=wins.low,
                p_better_high=wins.high,
                p_rope_better=posterior.a_better,
                p_rope_equal=posterior.equal,
                p_rope_worse=posterior.b_better,
                rope=rope,
                n=a.size,
                n_diverged_a=int(np.isnan(a).sum()),
                n_diverged_b=int(np.isnan(b).sum()),
                # what could not be tested has p NaN, which compares false
                verdict=shown if p_holm[i] < alpha else "no difference shown",
            )
        )
    return tuple(comparisons)


def indistinguishable(comparisons: Iterable[Comparison]) -> tuple[str, ...]:
    """Names B that were tested against A and got `no difference shown`.

    A comparison that could not be made (diverged scores) is left out: nothing was shown, equality least of all.
    """
    return tuple(c.b for c in comparisons if c.verdict == "no difference shown" and not math.isnan(c.p))


def ranking(scores: Mapping[str, npt.ArrayLike]) -> tuple[str, ...]:
    """Names from the lowest mean score to the highest, equal means in the mapping's order.

    Names with diverged scores come last, the fewest diverged first, then by the mean of their finite scores.
    """

    def key(name: str) -> tuple[int, float]:
        values = as_scores(scores[name])
        finite = values[~np.isnan(values)]
        return values.size - finite.size, float(finite.mean()) if finite.size else math.inf

    return tuple(sorted(scores, key=key))


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """Mean of the middle half (`scipy.stats.trim_mean`, 25 % cut at each end; Agarwal et al. 2021).

    Any diverged score makes it NaN: trimming would hide a training that fails on one fold in four.
    """
    from scipy import stats

    values = as_scores(scores)
    return math.nan if np.isnan(values).any() else float(stats.trim_mean(values, 0.25))


def expected_best_after(validation_scores: npt.ArrayLike, test_scores: npt.ArrayLike | None = None) -> FloatArray:
    """Expected score of the best of n tried settings, for n = 1 .. N: how easy an activation is to tune.

    Of N settings (learning rates, say) with one validation score each, n are drawn without replacement and the lowest
    validation score is kept. The r-th lowest is kept with probability C(N - r, n - 1) / C(N, n), the unbiased form
    (Tang et al. 2020) of the expected validation performance of Dodge et al. 2019. With `test_scores`, paired with
    `validation_scores` by setting, the result is the test score of the kept setting, free of the choice's optimism.

    Settings that tie on validation are kept with equal chance. One that diverged in validation is kept only where all
    n drawn did; entry n is NaN as long as that can happen, or as long as a kept setting has a NaN test score.
    """
    validation, outcome = as_pairs(validation_scores, validation_scores if test_scores is None else test_scores)
    outcome = np.where(np.isnan(validation), np.nan, outcome)
    _, tied = np.unique(np.where(np.isnan(validation), np.inf, validation), return_inverse=True)
    ranked = (np.bincount(tied, outcome) / np.bincount(tied))[np.sort(tied)]
    n_settings = ranked.size
    expected = np.empty(n_settings)
    for n in range(1, n_settings + 1):
        n_reachable = n_settings - n + 1
        chances = [math.comb(n_settings - r, n - 1) / math.comb(n_settings, n) for r in range(1, n_reachable + 1)]
        expected[n - 1] = np.dot(chances, ranked[:n_reachable])
    return expected
