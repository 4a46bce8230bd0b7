"""Prediction intervals from errors out of fold, in the way of CV+, as wide as a row is uncertain.

Each training row i was predicted by members that never saw it: those of its fold k(i), with the error |y_i - mu_i|. In
CV+ (Barber, Candes, Ramdas & Tibshirani 2021, section 3) the interval of a new row x reaches from a low quantile of the
mu_k(i)(x) - |y_i - mu_i| to a high quantile of the mu_k(i)(x) + |y_i - mu_i|, over all i. Two things differ here.

Errors are in units of a scale s: the score is R_i = |y_i - mu_i| / s_i (the normalised score of Papadopoulos, Gammerman
& Vovk 2008). The scale of a fold is a log-linear function of what its members say of a row: how far they are apart,
their mean and its square. It is fitted to the errors of the other folds of the repeat, so that no row has a say in its
own scale.

What is predicted is mu(x), the mean over the folds, and its error is smaller than theirs. On every row
mean_k (y - mu_k)^2 = (y - mu)^2 + mean_k (mu_k - mu)^2, and the last term v(x) is known there. So candidates are set
around mu(x), in units u_k(x)^2 = s_k(x)^2 - v(x) / mean R^2, but no smaller than v(x) / mean R^2: where folds disagree
more than their errors explain, disagreement is what is known of the error. CV+ as it is holds more than it is asked for
and is wider (docs/intervals.md has both).

Where folds train on earlier rows and test later ones (`data.time`), the model has one more window, which tests nothing:
there each error is set around the prediction of that, in the units of its own fold's scale.

Under a log everything is on the log scale, and the ends are turned back, which keeps their coverage. What coverage is
to be expected is measured (docs/intervals.md); the theorem of CV+, at least 1 - 2 alpha, is about the plain form.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.members import FoldKey
from actlab.model.ensemble import Ensemble, FoldPrediction, FoldResiduals

# Candidates looked at in one go, 8 bytes each
BLOCK_CANDIDATES = 1 << 22
# Each leaves half of the candidates; a halving costs as much as a look at a few of them.
N_HALVINGS = 10
# With fewer errors than this to learn it from, the scale is 1 everywhere.
MIN_ERRORS_OF_SCALE = 50
# Shares of the median error and of the median spread that are added to every one: the logarithm of a tiny number would
# have a say of its own. Much more would make all rows alike.
ERROR_FLOOR, SPREAD_FLOOR = 0.3, 0.1
# Means further from their centre, in standard deviations, have the scale of rows that are so far away.
FARTHEST = 3.0

Values = NDArray[np.float64]
Scale = Callable[[FoldPrediction], Values]


def check_level(residuals: Sequence[FoldResiduals], level: float) -> int:
    """How many of the pooled values lie at or below the upper end.

    One repeat of n rows takes the ceil(level (n + 1))-th smallest, as the paper does: n + 1 counts the new row too.
    With r repeats every row has an error in each, all are pooled, and it is ceil(level (N + r)) of N: the interval
    then holds the values whose rank, averaged over repeats, is within. The theorem speaks of one repeat only.

    Raises:
        InputError: no level between 0 and 1, no errors in the checkpoint, or too few for the level.
    """
    if not (isinstance(level, int | float) and 0 < level < 1):
        raise InputError(f"interval must be between 0 and 1, such as 0.9, got interval={level!r}")
    n_values = sum(len(part.residuals) for part in residuals)
    if n_values == 0:
        raise InputError(
            "the checkpoint holds no out-of-fold errors to make intervals from; predict without --interval"
        )
    n_repeats = len({part.repeat for part in residuals})
    # rounded first: 0.9 * 1210 is a little more than 1089 in float64
    rank = math.ceil(round(level * (n_values + n_repeats), 6))
    if rank > n_values:
        raise InputError(
            f"interval={level!r} needs at least {math.ceil(round(level / (1 - level), 6))} rows, the model was trained "
            f"on {n_values // n_repeats}; ask for a lower one"
        )
    return rank


def smearing(ensemble: Ensemble) -> float:
    """What is added to a prediction on the scale trained on so that it is the mean: the log of the mean of exp(error)
    over the errors out of fold (Duan 1983). Without a logarithm a prediction is the mean already.

    Raises:
        InputError: the checkpoint holds no errors.
    """
    if ensemble.target.transform == "none":
        return 0.0
    if not ensemble.residuals:
        raise InputError("the checkpoint holds no out-of-fold errors to make means from; predict without --mean")
    errors = np.concatenate([part.residuals.double().numpy() for part in ensemble.residuals])
    return float(np.logaddexp.reduce(errors) - np.log(len(errors)))


def prediction_interval(
    ensemble: Ensemble, by_fold: Mapping[FoldKey, FoldPrediction], level: float
) -> tuple[Values, Values]:
    """Lower and upper ends (N,) in the unit of the target, from what `predict_by_fold` returned for N rows.

    `level` is the coverage asked for, 1 - alpha.

    Raises:
        InputError: as `check_level`.
    """
    lower, upper = interval_of(by_fold, ensemble.residuals, level, ensemble.fold_weights)
    return ensemble.target.inverse(lower), ensemble.target.inverse(upper)


def interval_of(
    by_fold: Mapping[FoldKey, FoldPrediction],
    residuals: Sequence[FoldResiduals],
    level: float,
    weights: Mapping[FoldKey, float] | None = None,
) -> tuple[Values, Values]:
    """Lower and upper ends (N,) on the scale trained on; arguments and errors as in `prediction_interval`.

    They are NaN where the prediction of a fold is not finite. Folds have equal weights unless others are given.
    """
    rank = check_level(residuals, level)
    scale_of = [
        fit_scale([other for other in residuals if other.repeat == part.repeat and other.fold != part.fold])
        for part in residuals
    ]
    scores = [
        np.sort(np.abs(part.residuals.double().numpy()) / scale(said_of(part)))
        for scale, part in zip(scale_of, residuals, strict=True)
    ]
    latest = list(by_fold.values())[-1]
    scales = np.stack(
        [scale(by_fold.get((one.repeat, one.fold), latest)) for scale, one in zip(scale_of, residuals, strict=True)]
    )
    means = np.stack([said.mean for said in by_fold.values()])
    is_finite = np.isfinite(means).all(axis=0) & np.isfinite(scales).all(axis=0)
    means, scales = np.where(is_finite, means, 0.0), np.where(is_finite, scales, 1.0)
    shares = np.array([1.0 if weights is None else weights[key] for key in by_fold])
    centre = shares @ means / shares.sum()
    apart = shares @ (means - centre) ** 2 / shares.sum()
    half = _smallest(_units(scales, apart, scores), scores, rank)
    return np.where(is_finite, centre - half, np.nan), np.where(is_finite, centre + half, np.nan)


def _units(scales: Values, apart: Values, scores: Sequence[Values]) -> Values:
    """(K, N) units of the K `scores` for the mean over folds, from the `scales` (K, N) of each fold alone. `apart` (N,)
    is the mean square distance of the folds from their mean."""
    mean_square = np.mean(np.concatenate(scores) ** 2)
    if not mean_square > 0:
        # no fold was ever wrong
        return scales
    known = apart / mean_square
    units: Values = np.sqrt(np.maximum(scales**2 - known, known))
    return units


def said_of(part: FoldResiduals) -> FoldPrediction:
    """What a fold's members said of its test rows."""
    return FoldPrediction(part.means.double().numpy(), part.spreads.double().numpy())


def fit_scale(parts: Sequence[FoldResiduals]) -> Scale:
    """The typical size of an error as a function of what a fold's members say of a row, from the errors of some folds.

    The log of the error by least squares on the log of the spread, the standardised mean, and its square.
    """
    errors = np.abs(np.concatenate([np.empty(0), *(part.residuals.double().numpy() for part in parts)]))
    if len(errors) < MIN_ERRORS_OF_SCALE or not np.median(errors) > 0:
        return lambda said: np.ones_like(said.mean)
    known = FoldPrediction(*map(np.concatenate, zip(*map(said_of, parts), strict=True)))
    floor = SPREAD_FLOOR * np.median(known.spread) or 1.0
    centre, width = known.mean.mean(), known.mean.std() or 1.0

    def inputs(said: FoldPrediction) -> Values:
        z = np.clip((said.mean - centre) / width, -FARTHEST, FARTHEST)
        return np.stack([np.ones_like(z), np.log(said.spread + floor), z, z * z], axis=-1)

    coefficients, *_ = np.linalg.lstsq(inputs(known), np.log(errors + ERROR_FLOOR * np.median(errors)))
    return lambda said: np.exp(inputs(said) @ coefficients)


def _smallest(units: Values, scores: Sequence[Values], rank: int) -> Values:
    """For each row the `rank`-th smallest, from 1, of all `units[k] * scores[k][i]`, exactly. Units are (K, N), > 0;
    each of the K arrays of scores ascends and is >= 0."""
    low, high = _enclose(units, scores, rank)
    folds = list(zip(units, scores, strict=True))
    starts = np.stack([np.searchsorted(r, low / u, "left") for u, r in folds])
    stops = np.stack([np.searchsorted(r, high / u, "right") for u, r in folds])
    result = np.empty(units.shape[1])
    n_rows = max(1, BLOCK_CANDIDATES // (len(scores) * int((stops - starts).max(initial=1))))
    for first in range(0, len(result), n_rows):
        rows = slice(first, first + n_rows)
        result[rows] = _select(units[:, rows], scores, starts[:, rows], stops[:, rows], rank)
    return result


def _enclose(units: Values, scores: Sequence[Values], rank: int) -> tuple[Values, Values]:
    """Bounds (N,), close together, of the `rank`-th smallest value of each row; arguments as in `_smallest`. Let v_k be
    fold k's own quantile, its ceil(rank n_k / N)-th smallest value: up to the largest v_k there are at least `rank`
    values, and below the least v_k there are fewer. From there the bounds are halved."""
    n_values = sum(map(len, scores))
    folds = list(zip(units, scores, strict=True))
    own = np.stack([u * r[-(-rank * len(r) // n_values) - 1] for u, r in folds])
    low, high = own.min(axis=0), own.max(axis=0)
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        below = sum(np.searchsorted(r, middle / u, "right") for u, r in folds)
        is_enough = np.asarray(below) >= rank
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    # bound / unit is rounded otherwise than unit * score, and many values may be equal
    slack = 8 * np.finfo(np.float64).eps * high
    return low - slack, high + slack


def _select(
    units: Values, scores: Sequence[Values], starts: NDArray[np.int64], stops: NDArray[np.int64], rank: int
) -> Values:
    """The `rank`-th smallest per row, given windows (K, N) of each fold's scores that hold it."""
    window = int((stops - starts).max(initial=1))
    candidates = np.full((units.shape[1], len(scores), window), np.inf)
    for k, r in enumerate(scores):
        places = starts[k][:, None] + np.arange(window)
        values = units[k][:, None] * r[np.minimum(places, len(r) - 1)]
        candidates[:, k] = np.where(places < stops[k][:, None], values, np.inf)
    flat = candidates.reshape(len(candidates), -1)
    flat.sort(axis=1)
    remaining = rank - 1 - starts.sum(axis=0)
    chosen: Values = np.take_along_axis(flat, remaining[:, None], axis=1)[:, 0]
    return chosen
