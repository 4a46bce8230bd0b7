"""From scores per activation to a verdict: comparisons with a reference, order, summaries of one setting's scores.

Scores, pairs, diverged scores and `test_train_ratio` are as `paired_tests` defines them: `(n_pairs,)`, one entry for
each (repeat, fold), lower is better, entry i of every array from the same split, seeds and batch order.
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
    RopeProbabilities,
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
    rope_probabilities: RopeProbabilities
    rope: float
    n: int
    n_diverged_a: int
    n_diverged_b: int
    verdict: Verdict

    def to_dict(self) -> dict[str, str | int | float | None]:
        """Flat record for `summary.json`; NaN becomes None."""
        record: dict[str, str | int | float] = {
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "p": self.p,
            "p_holm": self.p_holm,
            "p_all_pairs": self.p_all_pairs,
            "p_naive": self.p_naive,
            "p_better": self.p_better,
            "p_better_low": self.p_better_low,
            "p_better_high": self.p_better_high,
            "p_rope_better": self.rope_probabilities.a_better,
            "p_rope_equal": self.rope_probabilities.equal,
            "p_rope_worse": self.rope_probabilities.b_better,
            "rope": self.rope,
            "n": self.n,
            "n_diverged_a": self.n_diverged_a,
            "n_diverged_b": self.n_diverged_b,
            "verdict": self.verdict,
        }
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}


def default_rope(baseline_scores: npt.ArrayLike, share: float = 0.01) -> float:
    """Half-width of the region of practical equivalence: 1 % of the baseline's mean score.

    A scale, not a comparison: the mean is over the baseline's finite scores, and NaN where there is none.
    """
    require(0 <= share < math.inf, "the share of the baseline's score must be >= 0 and finite", share)
    scores = as_scores(baseline_scores)
    finite = scores[~np.isnan(scores)]
    return share * abs(float(finite.mean())) if finite.size else math.nan


def _holm_over_all_pairs(
    p_with_reference: Mapping[str, float], scores: Mapping[str, npt.ArrayLike], test_train_ratio: float
) -> dict[str, float]:
    """p-values of the comparisons with the reference, adjusted over every pair of names."""
    others = [
        corrected_resampled_t(scores[a], scores[b], test_train_ratio).p for a, b in combinations(p_with_reference, 2)
    ]
    return dict(zip(p_with_reference, holm([*p_with_reference.values(), *others]).tolist(), strict=False))


def _verdict(difference: float, p_holm: float, alpha: float) -> Verdict:
    """Words for A against B; NaN compares false, so what could not be tested shows no difference."""
    if p_holm < alpha and difference < 0:
        return "better"
    if p_holm < alpha and difference > 0:
        return "worse"
    return "no difference shown"


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

    Two-sided corrected resampled t-tests; the verdict is that of Holm over the comparisons with the reference at
    `alpha`. That answers in full for a reference named before the scores were seen (a baseline). For one picked by
    these very scores (the winner) it keeps wrong verdicts under `alpha` of the comparisons, but the chance that a run
    has any is larger: the lowest of k means lies below the others by luck alone. `p_all_pairs` pays for that choice,
    with power. Either way a winner's difference keeps the optimism of its choice; fresh splits and seeds remove it.
    Every comparison draws the same bootstrap pairs from `seed`, so its numbers do not depend on who else takes part.
    A diverged score on either side gives p NaN and `no difference shown`; the comparison counts the diverged.
    """
    if reference not in scores:
        raise InputError(f"reference must be one of {', '.join(scores)}, got {reference!r}")
    require(0 < alpha < 1, "alpha must be between 0 and 1", alpha)
    rho = test_train_ratio / (1 + test_train_ratio)
    a = as_scores(scores[reference])
    tests = {b: corrected_resampled_t(a, scores[b], test_train_ratio) for b in scores if b != reference}
    p_values = {b: test.p for b, test in tests.items()}
    adjusted = dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    over_all_pairs = _holm_over_all_pairs(p_values, scores, test_train_ratio)
    comparisons = []
    for name, test in tests.items():
        b = as_scores(scores[name])
        wins = p_better(a, b, n_bootstrap, seed)
        comparisons.append(
            Comparison(
                a=reference,
                b=name,
                difference=test.difference,
                ci_low=test.ci_low,
                ci_high=test.ci_high,
                p=test.p,
                p_holm=adjusted[name],
                p_all_pairs=over_all_pairs[name],
                p_naive=naive_paired_t(a, b).p,
                p_better=wins.p,
                p_better_low=wins.low,
                p_better_high=wins.high,
                rope_probabilities=bayesian_correlated_t(a, b, rho, rope),
                rope=rope,
                n=a.size,
                n_diverged_a=int(np.isnan(a).sum()),
                n_diverged_b=int(np.isnan(b).sum()),
                verdict=_verdict(test.difference, adjusted[name], alpha),
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
