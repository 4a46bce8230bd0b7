"""Ways to make one model of several settings' networks, scored on folds that had no say in it.

Floats are on the scale the networks train on: predictions of the log target under `target_transform: log`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from actlab.runs.evaluate import TrialResult
from actlab.runs.model_building import CLOSE

Floats = NDArray[np.float64]
Weights = Callable[[list[int]], Floats]
BLENDED = (1, 2, 3, 5)


def rmse(errors: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


@dataclass(frozen=True)
class Found:
    """Predictions of all settings on the rows that test them, on the trained scale.

    Args:
        names: Setting to its name.
        arms: Setting to the arm of the comparison it belongs to.
        folds: Rows that each outer fold tests.
        errors: (settings, rows), predicted by the mean of a fold's networks, minus the truth.
        variances: (settings, rows), between the networks of a fold.
        single: (settings, folds), mean score of single networks.
        validation: (settings, folds), mean inner-validation score.
        n_inner: Networks behind each mean.
    """

    names: list[str]
    arms: list[str]
    folds: list[NDArray[np.int64]]
    errors: Floats
    variances: Floats
    single: Floats
    validation: Floats
    n_inner: int

    def pick(self, rows: list[list[int]], arms: list[str]) -> "Found":
        """Row i takes in each fold the predictions of the setting rows[i][fold]."""
        errors, variances = np.empty((2, len(rows), self.errors.shape[1]))
        single, validation = np.empty((2, len(rows), len(self.folds)))
        for row, chosen in enumerate(rows):
            for fold, (setting, test) in enumerate(zip(chosen, self.folds, strict=True)):
                errors[row, test], variances[row, test] = self.errors[setting, test], self.variances[setting, test]
                single[row, fold] = self.single[setting, fold]
                validation[row, fold] = self.validation[setting, fold]
        return replace(
            self, names=arms, arms=arms, errors=errors, variances=variances, single=single, validation=validation
        )

    def score(self, weights_of: Weights, n_networks: int) -> float:
        """Mean over folds of the score of a weighted mean of settings, each a bag of so many networks a fold.

        The squared error of a mean of n networks is what is left of an endless mean, plus their variance over n; both
        are known without bias from the networks that there are. Weights for a fold are made from the other folds.
        """
        scores = []
        for fold, test in enumerate(self.folds):
            weights = weights_of([f for f in range(len(self.folds)) if f != fold])
            own = np.square(weights @ self.errors[:, test]).mean()
            noise = (np.square(weights) @ self.variances[:, test]).mean()
            scores.append(math.sqrt(max(0.0, own - noise / self.n_inner + noise / n_networks)))
        return float(np.mean(scores))


def alone(row: int, count: int) -> Weights:
    return lambda folds: np.eye(count)[row]


def gathered(
    results: list[TrialResult],
    pairs: list[tuple[str, float]],
    folds: list[NDArray[np.int64]],
    truth: Floats,
    n_inner: int,
) -> Found:
    """The networks' predictions on the rows that test them; settings of which one diverged are left out."""
    shape = (len(pairs), len(truth))
    errors, variances = np.full(shape, np.nan), np.zeros(shape)
    single, validation = np.empty((2, len(pairs), len(folds)))
    for row, result in enumerate(results):
        for fold, test, own in by_fold(result, folds):
            errors[row, test] = own.mean(0) - truth[test]
            single[row, fold] = np.mean([rmse(one - truth[test]) for one in own])
            variances[row, test] = own.var(0, ddof=1) if len(own) > 1 else 0.0
            validation[row, fold] = np.mean([o.val_score for o in result.outcomes if o.member.split.fold == fold])
    kept = np.flatnonzero(np.isfinite(errors).all(1))
    names = [f"{pairs[row][0]} at {pairs[row][1]:g}" for row in kept]
    arms = [pairs[row][0] for row in kept]
    return Found(names, arms, folds, errors[kept], variances[kept], single[kept], validation[kept], n_inner)


def by_fold(result: TrialResult, folds: list[NDArray[np.int64]]) -> Iterator[tuple[int, NDArray[np.int64], Floats]]:
    """For each fold its rows and the predictions (networks, rows) of its networks; settings that diverged have none."""
    for fold, test in enumerate(folds):
        networks = [o.network for o in result.outcomes if o.member.split.fold == fold]
        own = [n.test_predictions.numpy() for n in networks if n is not None and n.test_predictions is not None]
        if len(own) == len(networks):
            yield fold, test, np.stack(own)


def rules(found: Found) -> dict[str, Weights]:
    """Ways to make one model of the activations: names, and weights from the folds that may be looked at."""

    def best(count: int, scores: Floats) -> Weights:
        def weights(folds: list[int]) -> Floats:
            means = scores[:, folds].mean(1)
            order = means.argsort()[:count]
            order = order[means[order] <= (1 + CLOSE) * means.min()]
            return np.isin(np.arange(len(found.names)), order) / len(order)

        return weights

    shape = (len(found.names), len(found.folds))
    averaged, endless = np.empty(shape), np.empty(shape)
    for fold, test in enumerate(found.folds):
        squared = np.square(found.errors[:, test]).mean(1)
        averaged[:, fold] = np.sqrt(squared)
        endless[:, fold] = np.sqrt(np.maximum(0.0, squared - found.variances[:, test].mean(1) / found.n_inner))
    named = {"the winner: best single networks": best(1, found.single), "best averaged networks": best(1, averaged)}
    named |= {f"the {n} best endless bags": best(n, endless) for n in BLENDED}
    named["all in equal parts"] = lambda folds: np.full(len(found.names), 1 / len(found.names))
    for ridge in (0.0, 0.1):
        named[f"non-negative least squares, ridge {ridge:g}"] = least_squares(found, ridge)
    return named


def least_squares(found: Found, ridge: float) -> Weights:
    """Weights >= 0 of sum 1 with the least squared error on the given folds, plus `ridge` times their own squares."""

    def weights(folds: list[int]) -> Floats:
        errors = found.errors[:, np.concatenate([found.folds[fold] for fold in folds])].T
        n_rows, n = errors.shape
        pull = math.sqrt(ridge * n_rows) * errors.std() * np.eye(n)
        system = np.vstack([errors, pull, np.full((1, n), 1e3)])
        found_weights, _ = nnls(system, np.concatenate([np.zeros(n_rows + n), [1e3]]))
        normalised: Floats = found_weights / found_weights.sum()
        return normalised

    return weights
