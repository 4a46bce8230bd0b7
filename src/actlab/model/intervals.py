"""CV+ prediction intervals (Barber, Candes, Ramdas & Tibshirani 2021, section 3), in their K-fold form.

Each training row i was predicted by members that never saw it: those of its fold k(i), with the error R_i = |y_i -
mu_k(i)(x_i)|. A new row x is predicted by the members of every fold; its interval reaches from a low quantile of the
mu_k(i)(x) - R_i to a high quantile of the mu_k(i)(x) + R_i, over all i. Under a log the interval is taken on the log
scale and its ends turned back, which keeps their coverage.

The theorem promises a coverage of 1 - 2 alpha, less a term that shrinks with the number of rows, for any network and
any distribution if rows are exchangeable; in practice it is near the 1 - alpha asked for.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.model.averaging import Ensemble, FoldKey, FoldResiduals

# Candidates looked at in one go, 8 bytes each
BLOCK_CANDIDATES = 1 << 22
# Each leaves half of the candidates; a halving costs as much as a look at a few of them.
N_HALVINGS = 10

Values = NDArray[np.float64]


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


def prediction_interval(ensemble: Ensemble, by_fold: Mapping[FoldKey, Values], level: float) -> tuple[Values, Values]:
    """Lower and upper ends (N,) in the unit of the target.

    Args:
        ensemble: Its residuals and target transform.
        by_fold: What its `predict_by_fold` returned for the N rows.
        level: Coverage asked for, 1 - alpha.

    Raises:
        InputError: as `check_level`.
    """
    lower, upper = cv_plus(by_fold, ensemble.residuals, level)
    return ensemble.transform.inverse(lower), ensemble.transform.inverse(upper)


def cv_plus(
    by_fold: Mapping[FoldKey, Values], residuals: Sequence[FoldResiduals], level: float
) -> tuple[Values, Values]:
    """Lower and upper ends (N,) on the scale trained on; arguments and errors as in `prediction_interval`.

    They are NaN where the prediction of a fold is not finite.
    """
    rank = check_level(residuals, level)
    predicted = np.stack([by_fold[part.repeat, part.fold] for part in residuals])
    is_finite = np.isfinite(predicted).all(axis=0)
    centres = np.where(is_finite, predicted, 0.0)
    errors = [np.sort(np.abs(part.residuals.double().numpy())) for part in residuals]
    # the floor(alpha (n + 1))-th smallest of mu - R is the mirror image of an upper end
    lower, upper = -_smallest(-centres, errors, rank), _smallest(centres, errors, rank)
    return np.where(is_finite, lower, np.nan), np.where(is_finite, upper, np.nan)


def _smallest(centres: Values, errors: Sequence[Values], rank: int) -> Values:
    """For each row the `rank`-th smallest of all `centres[k] + errors[k][i]`, exactly.

    Args:
        centres: (K, N).
        errors: K arrays, each ascending.
        rank: From 1 to the number of errors.
    """
    low, high = _enclose(centres, errors, rank)
    starts = np.stack([np.searchsorted(e, low - mu, "left") for mu, e in zip(centres, errors, strict=True)])
    stops = np.stack([np.searchsorted(e, high - mu, "right") for mu, e in zip(centres, errors, strict=True)])
    result = np.empty(centres.shape[1])
    n_rows = max(1, BLOCK_CANDIDATES // (len(errors) * int((stops - starts).max(initial=1))))
    for first in range(0, len(result), n_rows):
        rows = slice(first, first + n_rows)
        result[rows] = _select(centres[:, rows], errors, starts[:, rows], stops[:, rows], rank)
    return result


def _enclose(centres: Values, errors: Sequence[Values], rank: int) -> tuple[Values, Values]:
    """Bounds (N,), close together, of the `rank`-th smallest value of each row; arguments as in `_smallest`.

    Let v_k be fold k's own quantile, its ceil(rank n_k / N)-th smallest value: up to the largest v_k there are at least
    `rank` values, and below the least v_k there are fewer. From there the bounds are halved.
    """
    n_values = sum(map(len, errors))
    own = np.stack([mu + e[-(-rank * len(e) // n_values) - 1] for mu, e in zip(centres, errors, strict=True)])
    low, high = own.min(axis=0), own.max(axis=0)
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        below = sum(np.searchsorted(e, middle - mu, "right") for mu, e in zip(centres, errors, strict=True))
        is_enough = np.asarray(below) >= rank
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    # bound - centre is rounded otherwise than centre + error, and many values may be equal
    slack = 8 * np.finfo(np.float64).eps * (np.abs(centres).max(axis=0) + max(np.abs(e).max() for e in errors))
    return low - slack, high + slack


def _select(
    centres: Values, errors: Sequence[Values], starts: NDArray[np.int64], stops: NDArray[np.int64], rank: int
) -> Values:
    """The `rank`-th smallest per row, given windows (K, N) of each fold's errors that hold it."""
    window = int((stops - starts).max(initial=1))
    candidates = np.full((centres.shape[1], len(errors), window), np.inf)
    for k, e in enumerate(errors):
        places = starts[k][:, None] + np.arange(window)
        values = centres[k][:, None] + e[np.minimum(places, len(e) - 1)]
        candidates[:, k] = np.where(places < stops[k][:, None], values, np.inf)
    flat = candidates.reshape(len(candidates), -1)
    flat.sort(axis=1)
    remaining = rank - 1 - starts.sum(axis=0)
    chosen: Values = np.take_along_axis(flat, remaining[:, None], axis=1)[:, 0]
    return chosen
