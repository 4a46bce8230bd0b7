"""Prediction intervals: their definition in a double loop, what they promise, and what is refused."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from actlab.errors import InputError
from actlab.members import FoldKey
from actlab.model.ensemble import FoldPrediction, FoldResiduals
from actlab.model.intervals import Values, check_level, fit_scale, interval_of


def residuals_of(*parts: Sequence[float], repeat: int = 0, seed: int | None = None) -> tuple[FoldResiduals, ...]:
    """Errors of each fold, of networks that all said 0; with a seed their means and spreads differ."""
    rng = np.random.default_rng(seed)
    found = []
    for fold, values in enumerate(parts):
        said = np.zeros((2, len(values))) if seed is None else rng.uniform(0.1, 3, size=(2, len(values)))
        tensors = (torch.tensor(numbers, dtype=torch.float64) for numbers in (values, *said))
        found.append(FoldResiduals(repeat, fold, *tensors))
    return tuple(found)


def said(mean: Values, spread: float | Values = 0.0) -> FoldPrediction:
    return FoldPrediction(mean, np.broadcast_to(spread, mean.shape))


def by_definition(
    by_fold: Mapping[FoldKey, FoldPrediction], residuals: Sequence[FoldResiduals], level: float
) -> list[tuple[float, float]]:
    """Barber et al. 2021, equation (1.8), around the mean of folds, in units of its error: plain loops over rows."""
    scales = [fit_scale([other for other in residuals if other.fold != part.fold]) for part in residuals]
    scores = [
        np.abs(part.residuals.numpy()) / scale(FoldPrediction(part.means.numpy(), part.spreads.numpy()))
        for part, scale in zip(residuals, scales, strict=True)
    ]
    mean_square = np.mean(np.concatenate(scores) ** 2)
    ends = []
    for row in range(len(next(iter(by_fold.values())).mean)):
        means = np.array([prediction.mean[row] for prediction in by_fold.values()])
        apart = np.mean((means - np.mean(means)) ** 2) / mean_square
        candidates = []
        for part, scale, own in zip(residuals, scales, scores, strict=True):
            of_fold = scale(by_fold[part.repeat, part.fold])[row]
            unit = np.sqrt(max(of_fold**2 - apart, apart))
            candidates += [unit * score for score in own]
        half = sorted(candidates)[math.ceil(round(level * (len(candidates) + 1), 6)) - 1]
        ends.append((np.mean(means) - half, np.mean(means) + half))
    return ends


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("spread", [0.0, 0.1, 100.0])
@pytest.mark.parametrize("seed", [None, 7])
def test_ends_are_those_of_the_definition(level: float, spread: float, seed: int | None) -> None:
    rng = np.random.default_rng(0)
    residuals = residuals_of(*(rng.normal(size=n) for n in (40, 41, 39, 1, 60)), seed=seed)
    by_fold = {(0, fold): said(12 + spread * rng.normal(size=50), rng.uniform(0, 2, size=50)) for fold in range(5)}
    lower, upper = interval_of(by_fold, residuals, level)
    np.testing.assert_allclose(
        np.stack([lower, upper], axis=1), by_definition(by_fold, residuals, level), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_ties_and_equal_folds_change_nothing(level: float) -> None:
    rng = np.random.default_rng(5)
    # multiples of 0.1 in steps that round differently: sums that ought to be equal are not, and many are
    residuals = residuals_of([0.1] * 20, *(rng.integers(-3, 4, size=20) * 0.1 for _ in range(3)))
    by_fold = {(0, fold): said(12.1 + 0.1 * rng.integers(-3, 4, size=200)) for fold in range(4)}
    lower, upper = interval_of(by_fold, residuals, level)
    np.testing.assert_allclose(
        np.stack([lower, upper], axis=1), by_definition(by_fold, residuals, level), rtol=1e-12, atol=1e-12
    )


def test_a_prediction_that_is_not_finite_has_no_interval_and_its_neighbours_keep_theirs() -> None:
    residuals = residuals_of(np.ones(20), np.ones(20))
    lower, upper = interval_of(
        {(0, 0): said(np.array([0.0, np.nan, np.inf])), (0, 1): said(np.zeros(3))}, residuals, 0.9
    )
    np.testing.assert_array_equal(lower, [-1, np.nan, np.nan])
    np.testing.assert_array_equal(upper, [1, np.nan, np.nan])


def test_the_mean_of_folds_errs_less_than_they_do_by_what_they_are_apart() -> None:
    """By hand: all errors are 2, two folds say 1 - d and 1 + d; half of the width is sqrt(4 - d^2), at least d."""
    residuals = residuals_of(np.full(20, 2.0), np.full(20, -2.0))
    apart = np.array([0.0, 1.0, 1.9, 5.0])
    lower, upper = interval_of({(0, 0): said(1 - apart), (0, 1): said(1 + apart)}, residuals, 0.9)
    half = np.array([2.0, np.sqrt(3), 1.9, 5.0])
    np.testing.assert_allclose(lower, 1 - half)
    np.testing.assert_allclose(upper, 1 + half)


def test_the_centre_is_the_weighted_mean_of_folds() -> None:
    residuals, by_fold = (
        residuals_of(np.full(20, 2.0), np.full(20, 2.0)),
        {(0, 0): said(np.zeros(1)), (0, 1): said(np.ones(1))},
    )
    lower, upper = interval_of(by_fold, residuals, 0.9, {(0, 0): 1.0, (0, 1): 3.0})
    np.testing.assert_allclose((lower + upper) / 2, 0.75)
    # mean square distance: (1 * 0.75^2 + 3 * 0.25^2) / 4
    np.testing.assert_allclose((upper - lower) / 2, np.sqrt(4 - 0.1875))


def test_folds_that_were_never_wrong_make_no_width() -> None:
    lower, upper = interval_of({(0, 0): said(np.ones(2))}, residuals_of(np.zeros(20)), 0.9)
    np.testing.assert_array_equal([lower, upper], np.ones((2, 2)))


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    residuals = residuals_of(rng.normal(size=30), rng.normal(size=30))
    by_fold = {(0, fold): said(rng.normal(size=100), rng.uniform(size=100)) for fold in range(2)}
    whole = interval_of(by_fold, residuals, 0.9)
    monkeypatch.setattr("actlab.model.intervals.BLOCK_CANDIDATES", 7)
    np.testing.assert_array_equal(interval_of(by_fold, residuals, 0.9), whole)


def test_no_rows_give_no_intervals() -> None:
    lower, upper = interval_of({(0, 0): said(np.empty(0))}, residuals_of(np.ones(50)), 0.9)
    assert len(lower) == len(upper) == 0


def test_the_sign_of_an_error_does_not_matter() -> None:
    errors = np.random.default_rng(2).normal(size=50)
    by_fold = {(0, 0): said(np.zeros(1))}
    np.testing.assert_array_equal(
        interval_of(by_fold, residuals_of(errors), 0.9), interval_of(by_fold, residuals_of(-errors), 0.9)
    )


def test_a_repeat_that_says_the_same_changes_nothing() -> None:
    errors = np.random.default_rng(3).normal(size=99)
    once = interval_of({(0, 0): said(np.zeros(2))}, residuals_of(errors), 0.9)
    both = residuals_of(errors) + residuals_of(errors, repeat=1)
    np.testing.assert_array_equal(interval_of({(0, 0): said(np.zeros(2)), (1, 0): said(np.zeros(2))}, both, 0.9), once)


def test_coverage_is_what_was_asked_for() -> None:
    """Five folds, each predicting a constant near the mean of the others' rows; 4,000 fresh rows from the same law."""
    rng = np.random.default_rng(4)
    y = rng.normal(size=500)
    folds = np.array_split(y, 5)
    means = [np.mean(np.delete(y, np.arange(100 * k, 100 * k + 100))) for k in range(5)]
    residuals = residuals_of(*(part - mean for part, mean in zip(folds, means, strict=True)))
    fresh = rng.normal(size=4000)
    lower, upper = interval_of({(0, k): said(np.full(4000, means[k])) for k in range(5)}, residuals, 0.9)
    # the standard error of the coverage: sqrt(0.09 / 4000 + 0.09 / 500) = 0.014
    assert 0.865 < np.mean((lower <= fresh) & (fresh <= upper)) < 0.935


def test_intervals_are_as_wide_as_the_networks_disagree() -> None:
    """Errors as large as their spread says: the scale finds it, and no third of the rows is covered much otherwise.

    One constant width would hold all of the first third and 71 % of the last.
    """
    rng = np.random.default_rng(6)

    def rows(n: int) -> tuple[Values, Values]:
        spread = np.exp(rng.normal(size=n))
        return spread, spread * rng.normal(size=n)

    parts = []
    for fold in range(5):
        spread, errors = rows(200)
        parts.append(FoldResiduals(0, fold, *map(torch.from_numpy, (errors, np.zeros(200), spread))))
    scale = fit_scale(parts)
    wide = scale(FoldPrediction(np.zeros(2), np.array([1.0, 10.0])))
    # less than ten times: the floors pull small scales up
    assert 4 < wide[1] / wide[0] < 10
    spread, errors = rows(6000)
    lower, upper = interval_of({(0, fold): said(np.zeros(6000), spread) for fold in range(5)}, parts, 0.9)
    for third in np.array_split(spread.argsort(), 3):
        assert 0.8 < np.mean((lower <= errors)[third] & (errors <= upper)[third]) < 0.998


def test_the_scale_is_the_least_squares_of_its_formula() -> None:
    """By hand, with scikit-learn: two features and a square."""
    (part,) = residuals_of(np.random.default_rng(8).normal(size=300), seed=9)
    errors, means, spreads = np.abs(part.residuals.numpy()), part.means.numpy(), part.spreads.numpy()
    z, floor = (means - means.mean()) / means.std(), 0.1 * np.median(spreads)
    model = LinearRegression().fit(
        np.stack([np.log(spreads + floor), z, z**2], axis=1), np.log(errors + 0.3 * np.median(errors))
    )
    new = FoldPrediction(np.array([0.5, 50.0]), np.array([0.2, 3.0]))
    far = np.clip((new.mean - means.mean()) / means.std(), -3, 3)
    expected = np.exp(model.predict(np.stack([np.log(new.spread + floor), far, far**2], axis=1)))
    np.testing.assert_allclose(fit_scale([part])(new), expected, rtol=1e-9)


@pytest.mark.parametrize("errors", [np.ones(49), np.zeros(100)])
def test_the_scale_is_constant_where_nothing_can_be_learned(errors: Values) -> None:
    scale = fit_scale(residuals_of(errors, seed=1))
    np.testing.assert_array_equal(scale(FoldPrediction(np.arange(3.0), np.arange(3.0))), 1)


def test_rank_is_exact_where_the_product_is_not() -> None:
    # 0.9 * 1210 = 1089 exactly, and 0.7 * 10 = 7, though not in float64
    assert check_level(residuals_of(np.ones(1209)), 0.9) == 1089
    assert check_level(residuals_of(np.ones(9)), 0.7) == 7


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, 90, math.nan])
def test_a_level_outside_0_and_1_is_refused(level: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1, such as"):
        check_level(residuals_of(np.ones(100)), level)


def test_too_few_rows_for_the_level_are_refused() -> None:
    assert check_level(residuals_of(np.ones(19)), 0.95) == 19
    with pytest.raises(InputError, match="needs at least 19 rows, the model was trained on 18"):
        check_level(residuals_of(np.ones(18)), 0.95)


def test_a_model_without_errors_is_refused() -> None:
    with pytest.raises(InputError, match="no out-of-fold errors"):
        check_level((), 0.9)
