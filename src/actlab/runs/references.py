"""What a network has to beat: the median, ridge regression and gradient boosting, on the same folds.

A reference has no use for an inner split: it is fitted once a (repeat, fold) on every row outside the test fold, and
what it chooses (ridge's penalty, how long to boost) it chooses on those rows, none of a group by others of it.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from actlab.data.columns import Schema
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.splits import Rows, SplitRows
from actlab.data.table import Table
from actlab.data.target import fit_target
from actlab.members import Split
from actlab.settings import DataSettings

Values = NDArray[np.float64]

# Penalties ridge chooses from by leave-one-out error; of grouped rows by cross-validation in so many parts.
RIDGE_ALPHAS = np.logspace(-2, 4, 25)
GROUP_PARTS = 5
# Rows from which on gradient boosting looks at a part of them to see when to stop (scikit-learn's rule and share).
STOPPING_ROWS, STOPPING_SHARE = 10_000, 0.1
# Bins of HistGradientBoosting, hence the most categories a column of its can have; rarer ones count as missing.
N_BINS = 255
# Cells of a table beyond which folds are fitted one after the other: each makes several copies of its rows.
MOST_CELLS = 5_000_000


@dataclass(frozen=True)
class FoldData:
    """One (repeat, fold): rows to fit on, rows to score on, and the (log) target of all rows, standardised."""

    fitting: Rows
    test: Rows
    targets: Values
    table: Table
    settings: DataSettings

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Of the rows to fit on."""
        codes = self.table.layout.groups
        return None if codes is None else codes[self.fitting]


@dataclass(frozen=True)
class ReferencePrediction:
    """What one reference predicts for the test `rows` (n_test,) of one fold, in the unit of the target (n_test,).

    `score` is the root of the mean squared error of these predictions on the scale trained on.
    """

    name: str
    repeat: int
    fold: int
    rows: Rows
    predictions: Values
    score: float


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
        scaler = fit_target(target, fitting, settings.target_transform)
        data = FoldData(fitting, rows.test, scaler.forward(target), table, settings)

        def of_reference(name: str, predicted: Values) -> ReferencePrediction:
            predicted = np.maximum(predicted, scaler.least)
            error = (predicted - data.targets[rows.test]) * scaler.sd
            score = float(np.sqrt(np.mean(np.square(error))))
            return ReferencePrediction(name, *fold, rows.test, scaler.inverse(predicted), score)

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
    n_rows: dict[tuple[str, int], int] = defaultdict(int)
    for one in predictions:
        squares[one.name, one.repeat] += len(one.rows) * one.score**2
        n_rows[one.name, one.repeat] += len(one.rows)
    roots = {key: math.sqrt(square / n_rows[key]) for key, square in squares.items()}
    means = {name: statistics.fmean(root for key, root in roots.items() if key[0] == name) for name in REFERENCES}
    return {name: mean if math.isfinite(mean) else None for name, mean in means.items()}


def _ridge(data: FoldData) -> Values:
    """Ridge on the networks' own inputs, its penalty chosen by leave-one-out error in closed form; of groups, by the
    error on parts of whole groups."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    features = data.table.features
    preprocessor = fit_preprocessor(features, data.table.schema, data.fitting, data.settings)
    inputs = preprocessor.transform(features)
    known, targets, parts = inputs[data.fitting].astype(np.float64), data.targets[data.fitting], None
    if data.groups is not None:
        n_parts = min(GROUP_PARTS, len(np.unique(data.groups)))
        parts = list(GroupKFold(n_parts).split(known, targets, data.groups))
    model = RidgeCV(alphas=RIDGE_ALPHAS, cv=parts, scoring=parts and "neg_mean_squared_error").fit(known, targets)
    return np.asarray(model.predict(inputs[data.test].astype(np.float64)), dtype=np.float64)


def _hist_gradient_boosting(data: FoldData) -> Values:
    """scikit-learn's defaults on the raw columns, missing cells left missing."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import GroupShuffleSplit

    schema = data.table.schema
    inputs = ordinal_codes(data.table.features, schema, data.fitting)
    is_categorical = [column.kind == "categorical" for column in schema.columns]
    fitting, stopping = data.fitting, dict[str, Values]()
    if data.groups is not None and len(fitting) > STOPPING_ROWS:
        parts = GroupShuffleSplit(1, test_size=STOPPING_SHARE, random_state=0).split(fitting, groups=data.groups)
        kept, held = next(parts)
        stopping = {"X_val": inputs[fitting[held]], "y_val": data.targets[fitting[held]]}
        fitting = fitting[kept]
    model = HistGradientBoostingRegressor(
        categorical_features=is_categorical,
        max_bins=N_BINS,
        random_state=0,
        early_stopping=bool(stopping) or "auto",
    )
    model.fit(inputs[fitting], data.targets[fitting], **stopping)
    return np.asarray(model.predict(inputs[data.test]), dtype=np.float64)


REFERENCES: dict[Literal["median", "ridge", "hist_gradient_boosting"], Callable[[FoldData], Values]] = {
    "median": lambda data: np.full(len(data.test), np.median(data.targets[data.fitting])),
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
