"""Corrected resampled t-test and Holm's correction, for what folds of one cross-validation say: pure functions.

Scores have shape `(n_pairs,)`, one entry for each (repeat, fold); lower is better. Entry i of two arrays comes from the
same split, seeds and batch order, so differences are paired. A score that is not finite is a training that diverged: a
statistic over the folds that are left would hide it, so it becomes NaN. `test_train_ratio` is n_test / n_train, where
n_train counts every row outside the test part (the rows kept back for early stopping too: they are part of the training
procedure). In k-fold cross-validation it is 1 / (k - 1).
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
    """sqrt(var(values, ddof=1) (1/n + n_test/n_train)); NaN where any value is NaN, or without any spread."""
    require(0 <= test_train_ratio < math.inf, "test_train_ratio must be >= 0 and finite", test_train_ratio)
    # of equal values the rounding of their mean would pass for spread
    if np.isnan(values).any() or np.ptp(values) == 0:
        return math.nan
    return math.sqrt(float(np.var(values, ddof=1)) * (1 / values.size + test_train_ratio))


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

    Scores that are equal in every pair give t = 0, p = 1 and an interval of 0. Differences that all equal another value
    have no spread that would tell how far they are so by luck: like a diverged score on either side, or a single pair,
    they give p, t and interval NaN.
    """
    from scipy import special

    first, second = as_pairs(a, b)
    d = first - second
    difference, df = float(d.mean()), d.size - 1
    if not d.any():
        return PairedTest(0.0, 0.0, df, 1.0, 0.0, 0.0)
    se = _standard_error(d, test_train_ratio)
    t, half = difference / se, _half_width(se, df, level)
    p = math.nan if math.isnan(t) else 2 * float(special.stdtr(df, -abs(t)))
    return PairedTest(difference, t, df, p, difference - half, difference + half)


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
