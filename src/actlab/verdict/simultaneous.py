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
    wanted = np.minimum(np.atleast_1d(np.asarray(df, dtype=np.float64)), MOST_DF)
    distinct, place = np.unique(wanted, return_inverse=True)
    found = np.array([_quantile(alpha, k, float(one)) for one in distinct])
    return np.asarray(found[place].reshape(np.shape(df)) / np.sqrt(2))


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

    return float(optimize.brentq(excess, 0.0, 1e4, xtol=1e-10))


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

    Args:
        sums: Setting to (G,) the sum over the repeats of the unit's weighted squared errors.
        products: Pair of settings to the sum over repeats and units of the product of these squared errors.
        roots: Setting to (n_repeats, N_BOOTSTRAP) scores on resampled units; empty where there are many units.
    """

    n_repeats: int
    sums: Mapping[str, FloatArray]
    products: Mapping[tuple[str, str], float]
    roots: Mapping[str, FloatArray]


class RowNoise:
    """The noise of rows: how far a difference moves with the draw of the tested rows, at every look.

    With psi = squared error / (2 x), the first-order influence of a row on the score x, a pair's delta is the
    difference of its psi, and V = K / (K - 1) (var over units of the mean over repeats of delta, less what of it is
    noise of training) / n: the infinitesimal jackknife (Efron 1982) with random effects of trainings and of rows kept
    apart (Obuchowski & Rockette 1995, Gallas 2006). Where rows belong together, sums over units take the place of rows.
    """

    def __init__(self, units: Units, n_folds: int, of_look: Mapping[int, RowSums]) -> None:
        self.units, self.n_folds, self._of_look = units, n_folds, dict(of_look)
        self._unit_weights = units.sums(np.ones(len(units.of_row)))

    @property
    def df(self) -> float:
        """Degrees of freedom of every variance."""
        return float(self.units.n - 1)

    def variance(self, a: str, b: str, n_repeats: int, scores: Mapping[str, float]) -> float:
        """V of the difference between two settings' mean scores over repeats 1 to `n_repeats`; at least 0.

        `scores` are these means. nan where squared errors of the repeats are not there.
        """
        found = self._of_look.get(n_repeats)
        if found is None or a not in found.sums or b not in found.sums:
            return float("nan")
        factors = 1 / (2 * scores[a]), 1 / (2 * scores[b])
        n_units, total = self.units.n, self._unit_weights.sum()
        mean = (found.sums[a] * factors[0] - found.sums[b] * factors[1]) / n_repeats
        squares = (
            found.products[a, a] * factors[0] ** 2
            + found.products[b, b] * factors[1] ** 2
            - 2 * found.products[min(a, b), max(a, b)] * factors[0] * factors[1]
        )
        # over repeats, the part of the units' differences that another training would change
        noise = max(0.0, squares - n_repeats * float(mean @ mean)) / (n_repeats * (n_repeats - 1))
        scale = n_units / (n_units - 1) / total**2
        if found.roots:
            spread = float((found.roots[a] - found.roots[b]).mean(0).var(ddof=1))
        else:
            centred = mean - self._unit_weights * mean.sum() / total
            spread = scale * float(centred @ centred)
        return float(self.n_folds / (self.n_folds - 1) * max(0.0, spread - scale * noise))


def row_sums(
    squared_errors: Iterable[Mapping[str, FloatArray]], units: Units, looks: Sequence[int], seed: int = 0
) -> dict[int, RowSums]:
    """`RowSums` at each of the `looks` that the repeats reach.

    `squared_errors` has repeat after repeat, from 1 on, setting to its (n,) squared errors; a setting that is not in a
    repeat is in no later look. They are read once, so that they need not be in memory together.
    """
    is_few, last = units.n < FEW_UNITS, max(looks)
    counts = np.random.default_rng(seed).multinomial(units.n, np.full(units.n, 1 / units.n), N_BOOTSTRAP)
    weights = counts @ units.sums(np.ones(len(units.of_row))) if is_few else None
    sums: dict[str, FloatArray] = {}
    products: dict[tuple[str, str], float] = {}
    roots: dict[str, list[FloatArray]] = {}
    found: dict[int, RowSums] = {}
    for repeat, errors in enumerate(squared_errors, 1):
        own = {name: units.sums(values) for name, values in sorted(errors.items()) if repeat == 1 or name in sums}
        sums = {name: values + sums.get(name, 0.0) for name, values in own.items()}
        pairs = [(a, b) for a in own for b in own if a <= b]
        products = {(a, b): float(own[a] @ own[b]) + products.get((a, b), 0.0) for a, b in pairs}
        if weights is not None:
            roots = {name: [*roots.get(name, []), np.sqrt(counts @ own[name] / weights)] for name in own}
        if repeat in looks:
            stacked = {name: np.stack(values) for name, values in roots.items()}
            found[repeat] = RowSums(repeat, sums, products, stacked)
        if repeat == last:
            break
    return found
