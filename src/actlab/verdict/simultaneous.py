"""How sure differences between several settings are: noise of training, noise of rows, one quantile for all pairs.

A score x_ar is that of setting a in repeat r: the root of the mean squared error over all rows, every row predicted in
its turn by a network that never saw it. Given the table, the scores of one setting are independent draws. Shapes: `k`
settings, `R` repeats, `n` rows, `G` units (rows that belong together; a row each where none do).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Weight, in repeats, of what all pairs together say of one pair's variance, and how far one pair may raise that mean.
PRIOR_REPEATS, GUARD = 8, 3.0
# Below so many units the first-order variance over rows is too small; a bootstrap takes its place.
FEW_UNITS = 200
N_BOOTSTRAP = 1000
# Points of the integrals, and the widest range of the normal draws whose distribution is tabulated.
N_NORMAL, N_CHI, WIDEST = 320, 400, 60.0
MOST_DF = 1e5


def quantile(alpha: float, k: int, df: npt.ArrayLike) -> FloatArray:
    """q_alpha(k, df) / sqrt 2 of the studentized range, elementwise in `df`: what a difference over its standard error
    exceeds with probability `alpha` for any of the pairs of k equal means (Tukey 1953; Kramer 1956).

    For k = 2 that is the two-sided quantile of Student's t. `scipy.stats.studentized_range.isf` gives the same numbers,
    a hundred times more slowly.
    """
    wanted: FloatArray = np.minimum(df, MOST_DF)
    found = [_quantile(alpha, k, one) for one in np.ravel(wanted).tolist()]
    return np.asarray(np.reshape(found, np.shape(df)) / np.sqrt(2), dtype=np.float64)


@lru_cache(maxsize=10_000)
def _quantile(alpha: float, k: int, df: float) -> float:
    from scipy import optimize, special

    if k == 2:
        return float(-special.stdtrit(df, alpha / 2) * np.sqrt(2))
    # the chi distribution over sqrt df, by the trapezoidal rule in its logarithm
    t = np.linspace(-9 / np.sqrt(2 * df) - 37 / df, np.log1p(9 / np.sqrt(df)), N_CHI)
    log_density = df * t - df * np.exp(2 * t) / 2 + df / 2 * np.log(df / 2) - special.gammaln(df / 2) + np.log(2)
    weights, scales, distribution = np.exp(log_density) * (t[1] - t[0]), np.exp(t), _range_distribution(k)

    def excess(q: float) -> float:
        return float(weights @ distribution(np.minimum(q * scales, WIDEST))) - (1 - alpha)

    high = next(high for high in (8.0, 32.0, 1e4) if excess(high) > 0)
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-10))


@lru_cache(maxsize=100)
def _range_distribution(k: int) -> Any:
    """Distribution function of the range of k standard normal draws, as a spline."""
    from scipy import interpolate, special

    widths = np.linspace(0, WIDEST, 6001)
    z = np.linspace(-9, 9, N_NORMAL)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    # the largest draw is z, all others lie within the width below it
    inside = (special.ndtr(z) - special.ndtr(z - widths[:, None])) ** (k - 1)
    return interpolate.CubicSpline(widths, k * (inside @ density))


def noise_of_training(scores: FloatArray) -> tuple[FloatArray, float]:
    """Squared standard errors (k, k) of the differences between mean scores, and their degrees of freedom.

    `scores` is (k, R), finite, R >= 2. A pair's own variance over the repeats is pulled up towards the mean over all
    pairs, in which none counts for more than `GUARD` times the median pair: never down, because a noisy setting would
    then be called worse too often, and not without bounds, because it would blind all others.
    """
    k, n_repeats = scores.shape
    variances = (scores[:, None] - scores[None]).var(-1, ddof=1)
    pairs = variances[np.triu_indices(k, 1)]
    typical = np.minimum(pairs, GUARD * np.median(pairs)).mean()
    pooled = (PRIOR_REPEATS * typical + (n_repeats - 1) * variances) / (n_repeats - 1 + PRIOR_REPEATS)
    df = min(n_repeats - 1 + PRIOR_REPEATS, (k - 1) * (n_repeats - 1))
    return np.maximum(pooled, variances) / n_repeats, float(df)


@dataclass(frozen=True)
class Units:
    """Rows that belong together: the unit of each row (n,), from 0 without gaps, and the weight of each row (n,)."""

    of_row: npt.NDArray[np.int64]
    weights: FloatArray

    @classmethod
    def rows(cls, n_rows: int) -> "Units":
        """Every row by itself, all of equal weight."""
        return cls(np.arange(n_rows), np.ones(n_rows))

    @property
    def n(self) -> int:
        """G."""
        return int(self.of_row.max()) + 1

    @property
    def weight(self) -> float:
        """Of all rows together."""
        return float(self.weights.sum())

    def sums(self, values: FloatArray) -> FloatArray:
        """Weighted sums (..., G) of values (..., n) over each unit's rows."""
        if self.n == len(self.of_row) and np.array_equal(self.of_row, np.arange(self.n)):
            return values * self.weights
        flat: FloatArray = np.reshape(values * self.weights, (-1, values.shape[-1]))
        found: FloatArray = np.stack([np.bincount(self.of_row, row, self.n) for row in flat]).astype(np.float64)
        return found.reshape(*values.shape[:-1], self.n)


@dataclass(frozen=True, eq=False)
class RowSums:
    """What the errors of rows in repeats 1 to `n_repeats` say of new rows, for all settings that have so many.

    With u (G,) the weighted sum of a unit's squared errors in one repeat, less what a unit of its weight has on average
    there:

    Args:
        of_means: Pair of settings (in order of their names) to the sum over units of the product of their mean u.
        of_repeats: The same pair to the mean over repeats of the sum over units of the product of their u.
        roots: Setting to (N_BOOTSTRAP,) mean scores on resampled units; empty where there are many units.
    """

    n_repeats: int
    of_means: Mapping[tuple[str, str], float]
    of_repeats: Mapping[tuple[str, str], float]
    roots: Mapping[str, FloatArray]


class RowNoise:
    """The noise of rows: how far a difference moves with the draw of the tested rows, at every look.

    With psi = squared error / (2 x), the first-order influence of a row on the score x, a pair's delta is the
    difference of its psi, and V = K / (K - 1) (var over units of the mean over repeats of delta, less what of it is
    noise of training) / n: the infinitesimal jackknife (Efron 1982) with random effects of trainings and of rows kept
    apart (Obuchowski & Rockette 1995, Gallas 2006). Where rows belong together, sums over units take the place of rows.
    K / (K - 1), because the networks were trained on these rows, too.
    """

    def __init__(self, units: Units, n_folds: int, of_look: Mapping[int, RowSums]) -> None:
        self.units, self.n_folds, self._of_look = units, n_folds, dict(of_look)

    @property
    def df(self) -> float:
        """Degrees of freedom of every variance."""
        return float(self.units.n - 1)

    def variance(self, a: str, b: str, n_repeats: int, scores: Mapping[str, float]) -> float:
        """V of the difference between two settings' mean scores over repeats 1 to `n_repeats`; at least 0.

        `scores` are these means. nan where squared errors of the repeats are not there. A single repeat cannot tell
        noise of training from that of rows: nothing is taken off.
        """
        found = self._of_look.get(n_repeats)
        if found is None or (a, a) not in found.of_means or (b, b) not in found.of_means:
            return float("nan")
        factors = {name: 1 / (2 * scores[name]) for name in (a, b)}
        scale = self.units.n / (self.units.n - 1)
        of_means, of_repeats = (_squares(products, factors) for products in (found.of_means, found.of_repeats))
        # over repeats, the part of the mean's squares that another training would change
        noise = max(0.0, of_repeats - of_means) / max(1, n_repeats - 1)
        spread, noise = of_means / self.units.weight**2, noise / self.units.weight**2
        if found.roots:
            spread = float((found.roots[a] - found.roots[b]).var(ddof=1))
        return self.n_folds / (self.n_folds - 1) * scale * max(0.0, spread - noise)


def row_sums(
    squared_errors: Iterable[Mapping[str, FloatArray]], units: Units, looks: Sequence[int], seed: int = 0
) -> dict[int, RowSums]:
    """`RowSums` at each of the `looks` that the repeats reach.

    `squared_errors` has repeat after repeat, from 1 on, setting to its (n,) squared errors; a setting that is not in a
    repeat is in no later look. They are read once, so that they need not be in memory together.
    """
    weights = units.sums(np.ones(len(units.of_row)))
    counts: FloatArray | None = None
    if units.n < FEW_UNITS:
        drawn = np.random.default_rng(seed).multinomial(units.n, np.full(units.n, 1 / units.n), N_BOOTSTRAP)
        counts = drawn.astype(np.float64)
    sums: dict[str, FloatArray] = {}
    roots: dict[str, FloatArray] = {}
    products: FloatArray = np.zeros((0, 0))
    found: dict[int, RowSums] = {}
    for repeat, errors in enumerate(squared_errors, 1):
        names = sorted(name for name in errors if repeat == 1 or name in sums)
        own = {name: units.sums(errors[name]) for name in names}
        if counts is not None:
            roots = {name: roots.get(name, 0.0) + np.sqrt(counts @ own[name] / (counts @ weights)) for name in names}
        centred = [values - weights * values.sum() / weights.sum() for values in own.values()]
        stayed = [place for place, name in enumerate(sums) if name in own]
        before = products[np.ix_(stayed, stayed)] if repeat > 1 else 0.0
        sums = {name: sums.get(name, 0.0) + values for name, values in zip(names, centred, strict=True)}
        if not names:
            break
        products = before + _products(centred)
        if repeat in looks:
            means = _products([values / repeat for values in sums.values()])
            pairs = [(i, j) for i in range(len(names)) for j in range(i, len(names))]
            of_means, of_repeats = (
                {(names[i], names[j]): float(matrix[i, j]) for i, j in pairs} for matrix in (means, products / repeat)
            )
            mean_roots = {name: values / repeat for name, values in roots.items()}
            found[repeat] = RowSums(repeat, of_means, of_repeats, mean_roots)
        if repeat == max(looks):
            break
    return found


def _products(values: Sequence[FloatArray]) -> FloatArray:
    """Products (k, k) of k vectors with each other."""
    stacked = np.stack(values)
    return np.asarray(stacked @ stacked.T, dtype=np.float64)


def _squares(products: Mapping[tuple[str, str], float], factors: Mapping[str, float]) -> float:
    """Sum of squares of the difference of two vectors, each times its factor, from their products."""
    (a, of_a), (b, of_b) = sorted(factors.items())
    return products[a, a] * of_a**2 + products[b, b] * of_b**2 - 2 * products[a, b] * of_a * of_b
