"""From a table's columns to the network's inputs, with numbers learned from the training rows only.

scikit-learn does the fitting; what a `Preprocessor` keeps is its numbers. Each column has one rule:

- numeric and ordinal (its rank): log1p if heavily skewed, scaling, median for missing entries, a bound on far-out
  values, and a 0/1 indicator where some training rows are missing;
- categorical: one 0/1 column per category of the training rows, one for missing if seen there, and beyond
  `MAX_CATEGORIES` one for all others. A category never seen is all zeros, or `other` where that column exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from actlab.data.columns import Column, Schema, tupled
from actlab.data.table import MAX_CATEGORIES
from actlab.run_files import jsonable
from actlab.settings import DataSettings, Scaling

# Cells beyond this are taken as this: their powers must not overflow float64.
HUGE = 1e90
SMOOTH_BOUND = 3.0
# Skewness of the training rows above which a non-negative column is log-transformed.
HEAVY_SKEW = 1.0
# Scaled values are bounded to this when smooth clipping is off.
FAR_OUT = 1e6
# `minmax` values are bounded to half the training range beyond either end.
MINMAX_BOUNDS = (-0.5, 1.5)
# Scales below this are taken as this: HUGE divided by it must not overflow float64.
TINY_SCALE = 1e-200
BLOCK_ROWS = 1 << 14
# Numbers that are fitted to at a time: whole columns, and a few copies of them, of 8 bytes each.
BLOCK_NUMBERS = 1 << 23


@dataclass(frozen=True)
class NumberRule:
    """value = bound((f(x) - centre) * factor), f = log1p(max(x, 0)) where `is_log`, or x itself.

    Args:
        ranks: Categories of an ordinal column, from lowest to highest; x is the position.
        factor: 0 for a column that is constant in the training rows.
        fill: Scaled value of a missing cell, from the median of the training rows.
        low, high: Bounds of scaled values.
        is_smooth: Whether v / sqrt(1 + (v / 3)^2) comes last.
        has_indicator: Whether a second column says that the cell is missing.
    """

    name: str
    ranks: tuple[str, ...]
    is_log: bool
    centre: float
    factor: float
    fill: float
    low: float
    high: float
    is_smooth: bool
    has_indicator: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self.name, f"{self.name} (missing)") if self.has_indicator else (self.name,)

    def write(self, entries: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (B, 1 or 2) from (B,) entries of the column."""
        x = _numbers(entries, self.ranks)
        is_missing = np.isnan(x)
        if self.is_log:
            x = np.log1p(np.maximum(x, 0.0))
        value = np.where(is_missing, self.fill, (x - self.centre) * self.factor)
        value = np.clip(value, self.low, self.high)
        out[:, 0] = value / np.sqrt(1.0 + (value / SMOOTH_BOUND) ** 2) if self.is_smooth else value
        if self.has_indicator:
            out[:, 1] = is_missing

    @property
    def known(self) -> tuple[str, ...] | None:
        """The only texts that mean something, None where any number does."""
        return self.ranks or None


@dataclass(frozen=True)
class CategoryRule:
    """One 0/1 column per category, and where needed one for missing and one for all other categories.

    Args:
        categories: Of the training rows, in alphabetical order; the most frequent ones where there are too many.
        has_missing: Whether missing has a column; otherwise a missing cell is all zeros.
        has_other: Whether all other categories share a column; otherwise they are all zeros.
    """

    name: str
    categories: tuple[str, ...]
    has_missing: bool
    has_other: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        slots = [*self.categories, *(["(missing)"] * self.has_missing), *(["(other)"] * self.has_other)]
        return tuple(f"{self.name}={slot}" for slot in slots)

    def write(self, entries: np.ndarray, out: np.ndarray) -> None:
        """Set the ones of `out` (B, n_slots), all zeros so far, from (B,) entries of the column."""
        n_known = len(self.categories)
        other = n_known + self.has_missing if self.has_other else -1
        slots = _places(entries, self.categories, other, n_known if self.has_missing else -1)
        rows = np.flatnonzero(slots >= 0)
        out[rows, slots[rows]] = 1.0

    @property
    def known(self) -> tuple[str, ...] | None:
        """The only texts that mean something, None where all others share a column."""
        return None if self.has_other else self.categories


def _numbers(entries: np.ndarray, ranks: tuple[str, ...]) -> np.ndarray:
    """Return (B,) float64 positions in the order of categories, or the numbers themselves; NaN where missing."""
    return _places(entries, ranks, np.nan, np.nan) if ranks else np.clip(entries.astype(np.float64), -HUGE, HUGE)


def _places(entries: np.ndarray, known: tuple[str, ...], other: float, missing: float) -> np.ndarray:
    """Return (B,) positions in `known`, and what to take for other texts and for missing ones."""
    codes, texts = pd.factorize(entries)
    place_of = {text: place for place, text in enumerate(known)}
    # the last entry is for missing ones, which factorize gives the code -1
    return np.array([*(place_of.get(text, other) for text in texts), missing])[codes]


@dataclass(frozen=True)
class Preprocessor:
    """Turns feature columns into the network's inputs by one rule per column of the schema, in its order."""

    rules: tuple[NumberRule | CategoryRule, ...]

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(name for rule in self.rules for name in rule.feature_names)

    @property
    def n_features(self) -> int:
        """F, the number of inputs."""
        return len(self.feature_names)

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """Return (N, F) float32 inputs, C-contiguous and finite, whatever the N rows of the schema's columns hold."""
        out = np.zeros((len(features), self.n_features), dtype=np.float32)
        ends = np.cumsum([len(rule.feature_names) for rule in self.rules], dtype=int)
        inputs = np.split(out, ends, axis=1)[:-1]
        columns = [features[rule.name].to_numpy() for rule in self.rules]
        for start in range(0, len(features), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            for rule, entries, own in zip(self.rules, columns, inputs, strict=True):
                rule.write(entries[rows], own[rows])
        return out

    def unseen(self, columns: pd.DataFrame | Mapping[str, np.ndarray]) -> dict[str, list[str]]:
        """Of the columns given, column to its categories that the training rows did not hold, where it has any."""
        found = {
            rule.name: sorted(set(map(str, pd.factorize(np.asarray(columns[rule.name]))[1])) - set(rule.known))
            for rule in self.rules
            if rule.known is not None and rule.name in columns
        }
        return {name: texts for name, texts in found.items() if texts}

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts, text, numbers and booleans only: `from_dict` restores an equal preprocessor."""
        return dict(jsonable(asdict(self)))

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Preprocessor":
        kinds = (CategoryRule if "has_other" in rule else NumberRule for rule in state["rules"])
        return cls(tuple(kind(**tupled(rule)) for kind, rule in zip(kinds, state["rules"], strict=True)))


def fit_preprocessor(features: pd.DataFrame, schema: Schema, rows: np.ndarray, settings: DataSettings) -> Preprocessor:
    """Learn the preprocessing from the rows of a table at positions `rows`, and from no other."""
    if len(rows) == 0:
        raise ValueError("preprocessing needs at least one training row")
    numbers = [column for column in schema.columns if column.kind != "categorical"]
    size = max(1, BLOCK_NUMBERS // len(rows))
    blocks = (numbers[start : start + size] for start in range(0, len(numbers), size))
    rules = {rule.name: rule for block in blocks for rule in _fit_numbers(block, features, rows, settings)}
    names = (column.name for column in schema.columns)
    return Preprocessor(
        tuple(rules.get(name) or _fit_categories(name, features[name].to_numpy()[rows]) for name in names)
    )


def _fit_numbers(
    columns: Sequence[Column], features: pd.DataFrame, rows: np.ndarray, settings: DataSettings
) -> Iterator[NumberRule]:
    """One rule per column, from some rows."""
    x = np.empty((len(rows), len(columns)))
    for i, column in enumerate(columns):
        x[:, i] = _numbers(features[column.name].to_numpy()[rows], column.categories)
    may_log = np.array([settings.log_skewed and not column.categories for column in columns], dtype=bool)
    is_missing = np.isnan(x)
    is_empty = np.asarray(is_missing.all(axis=0))
    has_indicator = np.asarray(is_missing.any(axis=0)) & ~is_empty
    is_log = may_log & (pd.DataFrame(x).skew().to_numpy() > HEAVY_SKEW) & ~(x < 0).any(axis=0)
    x = np.where(is_log, np.log1p(np.maximum(x, 0.0)), x)
    # a column without one observed cell becomes a constant
    x[:, is_empty] = 0.0
    centre, factor = _fit_scaling(x, settings.scaling)
    # scikit-learn's SimpleImputer finds the same numbers by way of masked arrays, slowly and in much memory
    fill = np.nanmedian((x - centre) * factor, axis=0)
    is_minmax = settings.scaling == "minmax"
    low, high = MINMAX_BOUNDS if is_minmax else (-FAR_OUT, FAR_OUT)
    is_smooth = settings.smooth_clip and not is_minmax
    learned = (array.tolist() for array in (is_log, centre, factor, fill, has_indicator))
    for column, is_logged, middle, slope, median, has_missing in zip(columns, *learned, strict=True):
        yield NumberRule(
            column.name, column.categories, is_logged, middle, slope, median, low, high, is_smooth, has_missing
        )


def _fit_scaling(x: np.ndarray, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Centre and factor per column of x (n_rows, n_columns); the factor of a constant column is 0."""
    from sklearn.preprocessing import RobustScaler, StandardScaler

    low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    centre, scale = low, high - low
    if scaling == "robust":
        robust = RobustScaler().fit(x)
        quartiles = np.nanquantile(x, [0.25, 0.75], axis=0)
        # RealMLP (Holzmueller et al. 2024): half the range where the quartiles coincide
        centre, scale = robust.center_, np.where(quartiles[0] == quartiles[1], (high - low) / 2, robust.scale_)
    elif scaling == "standard":
        standard = StandardScaler().fit(x)
        centre, scale = standard.mean_, standard.scale_
    is_constant = low == high
    return centre, np.where(is_constant, 0.0, 1.0 / np.where(is_constant, 1.0, np.maximum(scale, TINY_SCALE)))


def _fit_categories(name: str, entries: np.ndarray) -> CategoryRule:
    from sklearn.preprocessing import OneHotEncoder

    is_missing = pd.isna(entries)
    codes, texts = pd.factorize(entries[~is_missing], sort=True)
    if len(texts) == 0:
        return CategoryRule(name, (), True, False)
    others: set[int] = set()
    if len(texts) > MAX_CATEGORIES + 1:
        encoder = OneHotEncoder(max_categories=MAX_CATEGORIES + 1, handle_unknown="infrequent_if_exist")
        # on the texts themselves it would count for a hundred times as long
        others.update(encoder.fit(codes[:, None]).infrequent_categories_[0].tolist())
    categories = tuple(str(text) for code, text in enumerate(texts) if code not in others)
    return CategoryRule(name, categories, bool(is_missing.any()), bool(others))
