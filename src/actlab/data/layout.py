"""What is known of rows besides their cells: which belong together, in which fold, when, and with which weight.

Rows are split, and what is said of new ones is computed, by this alone. Rows belong together where they are equal in
all columns of `data.groups`, and where they are copies of each other; together are also rows that both chains link.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.settings import DataSettings

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
# Whole weights of more than this on average are no numbers of copies.
MOST_COPIES = 10
Unit = Literal["rows", "distinct rows", "groups", "stretches of time"]

# Rows are repeated measurements where no more than this share of them is different, and that is at least this share of
# all combinations of the columns' values.
MOST_DIFFERENT, LEAST_FILLED = 0.75, 0.5


@dataclass(frozen=True, eq=False)
class RowLayout:
    """Made once from the table; every array is (n_rows,), None where nothing of the kind was named or found.

    Args:
        groups: Codes from 0 without gaps; rows of one code are in one part of every split.
        fold: Codes from 0 without gaps: the outer fold that tests a row, in every repeat.
        time: Earlier rows are trained on, later ones tested.
        weights: How much a row counts.
        unit: What new data are made of, as texts have it: what is drawn anew when more are collected.
    """

    n_rows: int
    groups: Codes | None = None
    fold: Codes | None = None
    time: Floats | None = None
    weights: Floats | None = None
    unit: Unit = "rows"

    @property
    def n_groups(self) -> int:
        """Rows where none belong together."""
        return self.n_rows if self.groups is None else int(self.groups.max()) + 1

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to know but their number."""
        return all(one is None for one in (self.groups, self.fold, self.time, self.weights))

    @property
    def has_given_splits(self) -> bool:
        """Whether repeats differ by their seeds only, not by the rows that are tested together."""
        return self.fold is not None or self.time is not None

    @property
    def digest(self) -> str:
        """SHA-256 of all arrays, in hexadecimal: equal layouts are split equally."""
        digest = hashlib.sha256()
        for one in (self.groups, self.fold, self.time, self.weights):
            digest.update(b"none" if one is None else one.tobytes())
        return digest.hexdigest()

    def of(self, rows: NDArray[np.int64]) -> "RowLayout":
        """That of some of the rows, as a table of their own."""
        groups, fold = (None if one is None else without_gaps(one[rows]) for one in (self.groups, self.fold))
        time, weights = (None if one is None else one[rows] for one in (self.time, self.weights))
        return RowLayout(len(rows), groups, fold, time, weights, self.unit)

    @cached_property
    def counts(self) -> Codes | None:
        """How often each row stands there, where weights are whole numbers that make no huge table; else None."""
        if self.weights is None or (self.weights % 1).any() or self.weights.mean() > MOST_COPIES:
            return None
        return self.weights.astype(np.int64)

    def repeated(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, each as often as its weight says where weights are `counts`."""
        return rows if self.counts is None else np.repeat(rows, self.counts[rows])

    def weight_of(self, rows: NDArray[np.int64]) -> float:
        """Of some rows together: how many they are where none counts more than others."""
        return len(rows) if self.weights is None else float(self.weights[rows].sum())


def lay_out(
    path: str,
    lines: NDArray[np.int64],
    features: pd.DataFrame,
    target: Floats | None,
    columns: Mapping[str, NDArray[np.generic]],
    weights: Floats | None,
    settings: DataSettings,
) -> tuple[RowLayout, list[str]]:
    """The layout of a table, and sentences about it.

    `columns` has the cells of `data.groups`, `data.fold` and `data.time` as they were read, `lines` the line of the
    file of each row, which `path` names.

    Raises:
        InputError: rows without a fold, a single fold, or a group in several folds.
    """
    said: list[str] = []
    # equal weights are none
    weights = None if weights is None or np.ptp(weights) == 0 else weights
    if settings.time is not None:
        # copies may lie in several parts: what is seen again later has been known before
        time = columns[settings.time].astype(np.float64)
        return RowLayout(len(features), time=time, weights=weights, unit="stretches of time"), [
            f"{path}, data.time {settings.time!r}: rows are tested by networks of earlier ones; the column is an "
            "input, in which later rows are as the last ones in training"
        ]
    fold = None
    if settings.fold is not None:
        fold, sentence = _given_folds(path, lines, settings.fold, columns[settings.fold])
        said.append(sentence)
    groups: Codes | None = None
    unit: Unit = "rows"
    if settings.groups:
        groups, sentence = _groups(path, settings, pd.DataFrame({name: columns[name] for name in settings.groups}))
        said.append(sentence)
        groups, unit = (groups, "groups") if groups.max() < len(groups) - 1 else (None, "rows")
        if fold is not None and groups is not None:
            _refuse_straddling(path, lines, groups, fold, "data.groups")
    same, sentences = _copies(path, lines, features, target, fold, settings)
    if groups is None or same is None:
        groups, unit = (groups, unit) if same is None else (same, "distinct rows")
    elif 2 * ((both := united(groups, same)).max() + 1) > groups.max() or settings.duplicates == "together":
        # copies may be of one group anyway
        groups, sentences = both, sentences if both.max() < groups.max() else []
    else:
        sentences = [
            f"{path}: rows that are equal in all feature columns link most groups of data.groups: taken for chance "
            "(data.duplicates together keeps them in one part of every split)"
        ]
    said += sentences
    return RowLayout(len(features), groups, fold, weights=weights, unit=unit), said


def _given_folds(path: str, lines: NDArray[np.int64], name: str, cells: NDArray[np.generic]) -> tuple[Codes, str]:
    codes, values = pd.factorize(cells, sort=True)
    if (codes < 0).any():
        raise InputError(
            f"{path}, column {name!r}: data.fold is missing in line {lines[codes < 0][0]} (so in {(codes < 0).sum()} "
            "rows); every row needs a fold: fill the cells in, or remove these rows"
        )
    if len(values) < 2:
        raise InputError(f"{path}, column {name!r}: data.fold is the same in every row; at least 2 folds are needed")
    return codes.astype(np.int64), (
        f"{path}, column {name!r}: its {len(values)} values are the test folds, in place of compare.folds; repeats "
        "differ in their seeds only"
    )


def _groups(path: str, settings: DataSettings, cells: pd.DataFrame) -> tuple[Codes, str]:
    codes = equal_rows(cells)
    is_missing = cells.isna().all(axis=1).to_numpy()
    # who is not known may be anybody: alone
    codes[is_missing] = codes.max() + 1 + np.arange(is_missing.sum())
    codes = without_gaps(codes)
    sizes = np.bincount(codes)
    names = ", ".join(map(repr, settings.groups))
    alone = f"; missing in {is_missing.sum()} rows, each a group of its own" if is_missing.any() else ""
    role = "" if stays_feature(settings) else "; the column is no feature (name it in data.categorical to make it one)"
    return codes, (
        f"{path}, data.groups {names}: {len(sizes)} groups of up to {sizes.max()} rows, each kept in one part of every "
        f"split{alone}{role}"
    )


def stays_feature(settings: DataSettings) -> bool:
    """Whether networks see the columns of `data.groups`. A single one names groups, as a person's number does, and says
    nothing of new ones, unless it is declared a feature; several together are measurements as a rule."""
    declared = {*settings.categorical, *settings.numeric, *settings.ordinal}
    return len(settings.groups) > 1 or settings.groups[0] in declared


def _refuse_straddling(path: str, lines: NDArray[np.int64], groups: Codes, fold: Codes, key: str) -> None:
    """Groups, which `key` asks for, must lie within one of the given folds."""
    pairs = pd.DataFrame({"group": groups, "fold": fold, "line": lines}).drop_duplicates(["group", "fold"])
    torn = pairs[pairs.duplicated("group", keep=False)]
    if len(torn):
        first, second = torn[torn.group == torn.group.iloc[0]].line.iloc[:2]
        raise InputError(
            f"{path}: data.fold puts rows that belong together by {key} into several folds: lines {first} and {second} "
            f"(so in {torn.group.nunique()} groups); correct the folds, or leave one of the two keys out"
        )


def _copies(
    path: str,
    lines: NDArray[np.int64],
    features: pd.DataFrame,
    target: Floats | None,
    fold: Codes | None,
    settings: DataSettings,
) -> tuple[Codes | None, list[str]]:
    """Codes of rows, the same for those that are equal in all features; None where they are split like any rows."""
    codes = equal_rows(features)
    is_copy = pd.Series(codes).duplicated().to_numpy()
    if not is_copy.any() or settings.duplicates == "apart":
        return None, []
    copy = int(is_copy.argmax())
    both = f"{lines[(codes == codes[copy]).argmax()]} and {lines[copy]}"
    where = f"{path}: {is_copy.sum()} rows repeat others in all feature columns (first: lines {both})"
    if settings.duplicates == "auto" and _are_measured_again(features, target, codes):
        return None, [
            f"{where}, and few different ones fill most combinations: taken for repeated measurements and split like "
            "any rows (data.duplicates together keeps equal ones in one part of every split)"
        ]
    in_folds = codes if fold is None else equal_rows(pd.DataFrame({"row": codes, "fold": fold}))
    if fold is not None and (n_torn := int(in_folds.max() - codes.max())):
        if settings.duplicates == "together":
            _refuse_straddling(path, lines, codes, fold, "data.duplicates")
        return in_folds, [f"{where}, {n_torn} of them in several folds of data.fold, so that scores are too good"]
    return codes, [f"{where}; kept in one part of every split (data.duplicates apart would spread them)"]


def _are_measured_again(features: pd.DataFrame, target: Floats | None, codes: Codes) -> bool:
    """Whether rows that are equal in all features are no copies, but new measurements of what new rows will be equal to
    as well: few values, whose combinations are mostly there and often repeated, with targets that differ."""
    first = np.unique(codes, return_index=True)[1]
    if target is not None and np.array_equal(target[first[codes]], target):
        return False
    n_combinations = float(np.prod(features.nunique(dropna=False).to_numpy(dtype=np.float64)))
    return len(first) <= MOST_DIFFERENT * len(codes) and len(first) >= LEAST_FILLED * n_combinations


def equal_rows(frame: pd.DataFrame) -> Codes:
    """The code of each row (n_rows,), from 0 without gaps: equal for rows equal in all columns, missing cells too."""
    numbers = frame.select_dtypes("number")
    may_repeat = np.ones(len(frame), dtype=bool)
    if numbers.shape[1]:
        # by their hashes most rows are known to be the only ones of their kind; adding 0 makes -0 a 0
        may_repeat = pd.util.hash_pandas_object(numbers + 0.0, index=False).duplicated(keep=False).to_numpy()
    codes = np.arange(len(frame), dtype=np.int64)
    if may_repeat.any():
        found = frame[may_repeat].groupby(list(frame.columns), dropna=False, sort=False).ngroup().to_numpy()
        codes[may_repeat] = len(frame) + found
    return without_gaps(codes)


def united(a: Codes, b: Codes) -> Codes:
    """Codes of rows that are linked by chains of equal codes in `a` or `b`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_a, n = int(a.max()) + 1, int(a.max()) + int(b.max()) + 2
    links = coo_array((np.ones(len(a), dtype=np.int8), (a, n_a + b)), shape=(n, n))
    return without_gaps(connected_components(links, directed=False)[1][a])


def without_gaps(codes: NDArray[np.integer]) -> Codes:
    """The same groups, numbered from 0 in the order in which they appear."""
    return pd.factorize(codes)[0].astype(np.int64)
