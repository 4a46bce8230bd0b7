"""What a network has to beat: the median, ridge regression and gradient boosting, on the same folds, and on the file of
`data.test_csv`, which enters no choice.

A reference has no use for an inner split: it is fitted once a (repeat, fold) on every row outside the test fold, and
what it chooses (ridge's penalty) it chooses on those rows, for no row by others of its group, and by the last of them
where rows have a time.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from actlab.data.columns import Schema
from actlab.data.preprocessing import fit_and_transform
from actlab.data.splits import Rows, SplitRows
from actlab.data.table import Table, read_rows
from actlab.data.target import fit_target
from actlab.data.windows import without_last_part
from actlab.errors import InputError
from actlab.members import Split
from actlab.model.ensemble import Ensemble
from actlab.settings import DataSettings

Values = NDArray[np.float64]

# Penalties ridge chooses from by leave-one-out error; of grouped rows by cross-validation in so many parts.
RIDGE_ALPHAS = np.logspace(-2, 4, 25)
GROUP_PARTS = 5
# Of the rows to fit on, the last in time by which a choice is made.
LAST_SHARE = 0.15
# Bins of HistGradientBoosting, hence the most categories a column of its can have; rarer ones count as missing.
N_BINS = 255
# Cells of a table beyond which folds are fitted one after the other: each makes several copies of its rows.
MOST_CELLS = 5_000_000


@dataclass(frozen=True)
class FoldData:
    """One (repeat, fold): rows to fit on, rows to score on, and the (log) target of all rows, standardised. Among those
    to fit on a row stands as often as its weight says, where weights are numbers of copies."""

    fitting: Rows
    test: Rows
    targets: Values
    table: Table
    settings: DataSettings

    @property
    def in_time(self) -> tuple[Rows, Rows] | None:
        """Places of the earlier and of the last of the rows to fit on, where rows have a time."""
        time = self.table.layout.time
        return None if time is None else without_last_part(time[self.fitting], LAST_SHARE)

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Of the rows to fit on; copies of a row are a group."""
        layout = self.table.layout
        codes = np.arange(layout.n_rows) if layout.groups is None and layout.counts is not None else layout.groups
        return None if codes is None else codes[self.fitting]

    @property
    def weights(self) -> Values | None:
        """Of the rows to fit on, where they do not stand there so often."""
        layout = self.table.layout
        return None if layout.weights is None or layout.counts is not None else layout.weights[self.fitting]


@dataclass(frozen=True)
class ReferencePrediction:
    """What one reference predicts for the test `rows` (n_test,) of one fold, in the unit of the target (n_test,).

    `score` is the root of the (weighted) mean squared error of these predictions on the scale trained on, and `weight`
    that of the rows together.
    """

    name: str
    repeat: int
    fold: int
    rows: Rows
    predictions: Values
    score: float
    weight: float


def reference_predictions(
    table: Table, splits: Mapping[Split, SplitRows], settings: DataSettings
) -> Iterator[ReferencePrediction]:
    """Predictions of every reference for the test rows of every (repeat, fold), in the order of the splits."""
    target = table.target
    if target is None:
        raise ValueError("references need a table with a target")
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # the inner splits of a fold give the same rows
    folds = {(split.repeat, split.fold): rows for split, rows in splits.items()}

    def of_fold(fold: tuple[int, int]) -> list[ReferencePrediction]:
        rows = folds[fold]
        fitting = np.union1d(rows.training, rows.validation)
        layout, weights = table.layout, None if table.layout.weights is None else table.layout.weights[rows.test]
        scaler = fit_target(target, fitting, settings.target_transform, layout.weights)
        data = FoldData(layout.repeated(fitting), rows.test, scaler.forward(target), table, settings)

        def of_reference(name: str, predicted: Values) -> ReferencePrediction:
            predicted = np.maximum(predicted, scaler.least)
            error = (predicted - data.targets[rows.test]) * scaler.sd
            score = float(np.sqrt(np.average(np.square(error), weights=weights)))
            weight = layout.weight_of(rows.test)
            return ReferencePrediction(name, *fold, rows.test, scaler.inverse(predicted), score, weight)

        # tables this small gain nothing from two threads, and threads that wait for each other on a busy machine make
        # gradient boosting ten times slower
        with threadpool_limits(1, user_api="openmp"):
            return [of_reference(name, predict(data)) for name, predict in REFERENCES.items()]

    # each fold on a thread of its own, where its copies of the table are small
    is_small = table.n_rows * len(table.schema.columns) <= MOST_CELLS
    n_threads = torch.get_num_threads() if is_small else 1
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        for found in pool.map(of_fold, folds):
            yield from found


def mean_scores(predictions: Iterable[ReferencePrediction]) -> dict[str, float | None]:
    """Score of each reference, as activations are scored: the root of the mean squared error over all rows of a repeat,
    and the mean of it over repeats; lower is better. None where a fold has no finite score."""
    squares: dict[tuple[str, int], float] = defaultdict(float)
    weights: dict[tuple[str, int], float] = defaultdict(float)
    for one in predictions:
        squares[one.name, one.repeat] += one.weight * one.score**2
        weights[one.name, one.repeat] += one.weight
    roots = {key: math.sqrt(square / weights[key]) for key, square in squares.items()}
    means = {name: statistics.fmean(root for key, root in roots.items() if key[0] == name) for name in REFERENCES}
    return {name: mean if math.isfinite(mean) else None for name, mean in means.items()}


def read_test_file(settings: DataSettings, table: Table) -> Table | None:
    """The rows of `data.test_csv` with their target, read as those of the `table` were; None where it names no file.

    Raises:
        InputError: it cannot be read, a target is missing, or it is the file of the table.
    """
    if settings.test_csv is None:
        return None
    (test,) = read_rows(settings.test_csv, table.schema, scored=settings)
    if test.content_hash == table.content_hash:
        raise InputError(f"data.test_csv {settings.test_csv} is the file of data.csv; name one of other rows")
    return test


def test_file_scores(ensemble: Ensemble, table: Table, test: Table, settings: DataSettings) -> dict[str, Any]:
    """`test_file` of summary.json: scores of the shipped model, and of the references fitted on the whole `table`."""
    assert table.target is not None
    assert test.target is not None
    forward = ensemble.target.forward
    errors = forward(test.target) - forward(ensemble.predict(test.features))
    features = pd.concat([table.features, test.features], ignore_index=True)
    # a row of the file counts once
    weights = None if table.layout.weights is None else np.append(table.layout.weights, np.ones(test.n_rows))
    layout = replace(table.layout, weights=weights)
    both = replace(table, features=features, target=np.concatenate([table.target, test.target]), layout=layout)
    fitting, scored = np.split(np.arange(both.n_rows), [table.n_rows])
    references = reference_predictions(both, {Split(0, 0, 0): SplitRows(fitting, fitting[:0], scored)}, settings)
    facts = {"csv": settings.test_csv, "sha256": test.content_hash, "n_rows": test.n_rows}
    return facts | {"shipped": float(np.sqrt(np.mean(errors**2)))} | {one.name: one.score for one in references}


def _median(data: FoldData) -> Values:
    known, weights = data.targets[data.fitting], data.weights
    half = np.median(known) if weights is None else np.quantile(known, 0.5, weights=weights, method="inverted_cdf")
    return np.full(len(data.test), half)


def _ridge(data: FoldData) -> Values:
    """Ridge on the networks' own inputs, its penalty chosen by leave-one-out error in closed form; of groups, by the
    error on parts of whole groups."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    table = data.table
    assert table.target is not None
    _, inputs = fit_and_transform(table.features, table.schema, data.fitting, data.settings, table.target)
    known, targets, parts = inputs[data.fitting].astype(np.float64), data.targets[data.fitting], None
    if data.in_time is not None:
        parts = [data.in_time]
    elif data.groups is not None:
        n_parts = min(GROUP_PARTS, len(np.unique(data.groups)))
        parts = list(GroupKFold(n_parts).split(known, targets, data.groups))
    model = RidgeCV(alphas=RIDGE_ALPHAS, cv=parts, scoring=parts and "neg_mean_squared_error")
    model.fit(known, targets, sample_weight=data.weights)
    return np.asarray(model.predict(inputs[data.test].astype(np.float64)), dtype=np.float64)


def _hist_gradient_boosting(data: FoldData) -> Values:
    """scikit-learn's defaults on the raw columns, missing cells left missing."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    schema = data.table.schema
    inputs = ordinal_codes(data.table.features, schema, data.fitting)
    is_categorical = [column.kind == "categorical" for column in schema.columns]
    model = HistGradientBoostingRegressor(
        categorical_features=is_categorical,
        max_bins=N_BINS,
        random_state=0,
        # of many rows it takes some to see when to stop, at random: from groups and times that it trains on
        early_stopping=False if data.groups is not None or data.in_time else "auto",
    )
    model.fit(inputs[data.fitting], data.targets[data.fitting], sample_weight=data.weights)
    return np.asarray(model.predict(inputs[data.test]), dtype=np.float64)


REFERENCES: dict[Literal["median", "ridge", "hist_gradient_boosting"], Callable[[FoldData], Values]] = {
    "median": _median,
    "ridge": _ridge,
    "hist_gradient_boosting": _hist_gradient_boosting,
}


def ordinal_codes(features: pd.DataFrame, schema: Schema, fitting: Rows) -> Values:
    """One number a column, (n_rows, n_columns): itself, its rank, or the code of its category.

    Codes are 0, 1, ... from the most frequent category of the rows `fitting` on. NaN where a cell is missing or its
    category is not among the first `N_BINS` of them.
    """
    codes = np.empty((len(features), len(schema.columns)))
    for place, column in enumerate(schema.columns):
        cells = features[column.name]
        if column.kind != "numeric":
            known = column.categories or cells.iloc[fitting].value_counts().index[:N_BINS]
            cells = cells.map({name: number for number, name in enumerate(known)})
        codes[:, place] = cells
    return codes
