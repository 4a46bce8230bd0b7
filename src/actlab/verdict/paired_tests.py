"""Tests and intervals for two settings scored on the same folds: pure functions from arrays to frozen records.

Conventions here and in `significance`:

- Scores have shape `(n_pairs,)`, one entry for each (repeat, fold), its inner splits averaged; lower is better.
  Entry i of two arrays comes from the same split, seeds and batch order, so differences are paired.
- A score that is not finite is a training that diverged. A mean or a t statistic over the folds that are left would
  hide it, so those become NaN and the verdict `no difference shown`: what diverged is never called better. Statistics
  that need only an order (`p_better`, `ranking`) count it as worse than every finite score.
- `test_train_ratio` is n_test / n_train, where n_train counts every row outside the test part (the rows kept back for
  early stopping too: they are part of the training procedure). In k-fold cross-validation it is 1 / (k - 1).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actlab.errors import InputError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedTest:
    """A two-sided t-test of mean(a - b) = 0 and the interval of that mean; not adjusted for multiplicity."""

    difference: float
    t: float
    df: int
    p: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Interval:
    """Mean and standard deviation (ddof=1) of one setting's scores, and the corrected interval of the mean."""

    mean: float
    sd: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class ProbabilityBetter:
    """Share of pairs in which A is lower than B, with its bootstrap interval."""

    p: float
    low: float
    high: float


@dataclass(frozen=True)
class RopeProbabilities:
    """Posterior probabilities that A is better, that both are practically equal, and that B is better."""

    a_better: float
    equal: float
    b_better: float


def as_scores(values: npt.ArrayLike) -> FloatArray:
    """A one-dimensional float array in which every non-finite score is NaN."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise InputError(f"scores must be a non-empty one-dimensional array, got shape={scores.shape}")
    return np.where(np.isfinite(scores), scores, np.nan)


def as_pairs(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both arrays, refused unless of equal length: broadcasting would pair what does not belong together."""
    first, second = as_scores(a), as_scores(b)
    if first.shape != second.shape:
        raise InputError(f"paired scores must have equal shapes, got {first.shape} and {second.shape}")
    return first, second


def require(is_met: bool, rule: str, value: float) -> None:
    """Raise an `InputError` that states the rule and the value unless `is_met`."""
    if not is_met:
        raise InputError(f"{rule}, got {value}")


def _standard_error(values: FloatArray, test_train_ratio: float) -> float:
    """sqrt(var(values, ddof=1) (1/n + n_test/n_train)); NaN for a single value or where any value is NaN."""
    require(0 <= test_train_ratio < math.inf, "test_train_ratio must be >= 0 and finite", test_train_ratio)
    if values.size < 2 or np.isnan(values).any():
        return math.nan
    # equal values must give exactly 0, which the rounding of their mean prevents
    variance = 0.0 if np.ptp(values) == 0 else float(np.var(values, ddof=1))
    return math.sqrt(variance * (1 / values.size + test_train_ratio))


def _half_width(standard_error: float, df: int, level: float) -> float:
    from scipy import special

    require(0 < level < 1, "level must be between 0 and 1", level)
    return math.nan if math.isnan(standard_error) else standard_error * float(special.stdtrit(df, (1 + level) / 2))


def corrected_resampled_t(
    a: npt.ArrayLike, b: npt.ArrayLike, test_train_ratio: float, level: float = 0.95
) -> PairedTest:
    """Corrected resampled t-test (Nadeau & Bengio 2003), two-sided; repeated k-fold as in Bouckaert & Frank 2004.

    With d = a - b over the pairs, t = mean(d) / sqrt(var(d, ddof=1) (1/n + n_test/n_train)), df = n - 1. The second
    term pays for training sets that overlap; without it a difference becomes "significant" by adding repeats.

    Differences that are all equal have no variance: all zero gives t = 0 and p = 1, all equal to another value gives
    t = +-inf and p = 0; the interval is that value. A diverged score on either side, or a single pair, gives
    p, t and interval NaN.
    """
    from scipy import special

    first, second = as_pairs(a, b)
    d = first - second
    difference, df = float(d.mean()), d.size - 1
    se = _standard_error(d, test_train_ratio)
    half = _half_width(se, df, level)
    without_variance = math.copysign(math.inf, difference) if difference else 0.0
    t = without_variance if se == 0 else difference / se
    p = math.nan if math.isnan(t) else 2 * float(special.stdtr(df, -abs(t)))
    return PairedTest(difference, t, df, p, difference - half, difference + half)


def naive_paired_t(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> PairedTest:
    """The ordinary paired t-test (`scipy.stats.ttest_rel`): the corrected test at a ratio of zero.

    It takes folds for independent and is far too sure; shown beside the corrected one, never used for a verdict.
    Zero variance, NaN and single pairs as in `corrected_resampled_t`.
    """
    return corrected_resampled_t(a, b, 0.0, level)


def corrected_interval(scores: npt.ArrayLike, test_train_ratio: float, level: float = 0.95) -> Interval:
    """Two-sided t interval of one setting's mean score, variance corrected as in `corrected_resampled_t`.

    It says how well the score itself is known. The intervals of two settings say little about their difference,
    because the pairs share their folds. Any diverged score makes mean, sd and interval NaN; a single score has a mean
    and no interval.
    """
    values = as_scores(scores)
    mean = float(values.mean())
    sd = _standard_error(values, 0.0) * math.sqrt(values.size)
    half = _half_width(_standard_error(values, test_train_ratio), values.size - 1, level)
    return Interval(mean, sd, mean - half, mean + half, values.size)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given; controls the family-wise error rate.

    NaN stands for a comparison that could not be made: it stays NaN and does not count in the family, as in R's
    `p.adjust`.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def p_better(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    n_bootstrap: int = 10_000,
    seed: int | np.random.Generator = 0,
    level: float = 0.95,
) -> ProbabilityBetter:
    """P(A better than B): the share of pairs with a < b, ties one half (Bouthillier et al. 2021).

    The interval is the percentile bootstrap over pairs. It takes pairs for independent, which folds with overlapping
    training sets are not, and it has no width where A wins every pair: a description of the pairs, while the verdict
    rests on the corrected test. A diverged score loses against a finite one and ties with another diverged one.
    """
    require(n_bootstrap >= 1, "n_bootstrap must be at least 1", n_bootstrap)
    require(0 < level < 1, "level must be between 0 and 1", level)
    first, second = (np.where(np.isnan(scores), np.inf, scores) for scores in as_pairs(a, b))
    wins = np.where(first == second, 0.5, np.where(first < second, 1.0, 0.0))
    picks = np.random.default_rng(seed).integers(wins.size, size=(n_bootstrap, wins.size))
    low, high = np.quantile(wins[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return ProbabilityBetter(float(wins.mean()), float(low), float(high))


def bayesian_correlated_t(a: npt.ArrayLike, b: npt.ArrayLike, rho: float, rope: float) -> RopeProbabilities:
    """Bayesian correlated t-test (Corani & Benavoli 2015; Benavoli et al. 2017) with a region of practical equivalence.

    The posterior of the mean of d = a - b is Student's t with df = n - 1, location mean(d) and scale
    sqrt(var(d, ddof=1) (1/n + rho / (1 - rho))), where rho = n_test / (n_test + n_train) is the correlation of two
    folds' differences. A is better below -rope, B above +rope, and they are practically equal between.

    Without variance the posterior is a point, and a point on the border counts as equal. A diverged score on either
    side, a single pair or a NaN rope gives three NaN.
    """
    from scipy import special

    require(0 <= rho < 1, "rho must be in [0, 1)", rho)
    require(not rope < 0, "rope must be >= 0", rope)
    first, second = as_pairs(a, b)
    d = first - second
    mean, se = float(d.mean()), _standard_error(d, rho / (1 - rho))
    if math.isnan(se) or math.isnan(rope):
        return RopeProbabilities(math.nan, math.nan, math.nan)
    if se == 0:
        a_better, b_better = float(mean < -rope), float(mean > rope)
    else:
        # Student's t is symmetric: each tail is a lower tail, which keeps small probabilities exact
        a_better, b_better = special.stdtr(d.size - 1, np.array([-rope - mean, mean - rope]) / se).tolist()
    return RopeProbabilities(a_better, max(0.0, 1 - a_better - b_better), b_better)
