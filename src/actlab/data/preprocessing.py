"""From a table's columns to the network's inputs, with numbers learned from the training rows only.

scikit-learn and NumPy do the fitting; what a `Preprocessor` keeps is its numbers. Each column has one rule:

- numeric and ordinal (its rank): a logarithm if heavily skewed, scaling, median for missing entries, a bound on far-out
  values, and a 0/1 indicator where some training rows are missing;
- dates: days since 1970 as a number, and sine and cosine of the parts of the calendar that the training rows support;
- categorical: one 0/1 column per category of the training rows, and one for missing if seen there. A category never
  seen is all zeros. More than `data.max_categories` give one number: the mean target of a category's training rows.

No rule depends on the unit of a number: in another unit of a power of two the inputs are the same to the bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from actlab.data.columns import Column, Schema, tupled
from actlab.data.csv_file import listed, shown
from actlab.data.target import Target
from actlab.errors import InputError
from actlab.run_files import jsonable
from actlab.settings import DataSettings, Scaling

# Cells beyond this are taken as this, and no factor exceeds it: the ends of float64, with room for sums of a few.
HUGE = 2.0**1000
SMOOTH_BOUND = 3.0
# Skewness of the training rows above which a non-negative column is log-transformed.
HEAVY_SKEW = 1.0
# Quantile of its positive training values in which it is measured then.
LOG_QUANTILE = 0.01
# Scaled values are bounded to this when smooth clipping is off.
FAR_OUT = 1e6
# `minmax` values are bounded to half the training range beyond either end.
MINMAX_BOUNDS = (-0.5, 1.5)
# Quartiles that differ by no more than this share of them are the same number.
ROUNDING = 4 * np.finfo(np.float64).eps
# Each part of the calendar as a cycle of so many days.
CYCLES = {"hour": 1.0, "weekday": 7.0, "yearday": 365.2425}
# Inputs of a date at most: days, whether they are missing, sine and cosine of each cycle. Other numbers have fewer.
DATE_INPUTS = 2 + 2 * len(CYCLES)
# Parts of the training rows, each of which is encoded by the targets of the others.
N_PARTS = 5
BLOCK_ROWS = 1 << 14
# Numbers that are fitted to at a time: whole columns, and a few copies of them, of 8 bytes each.
BLOCK_NUMBERS = 1 << 23


@dataclass(frozen=True)
class NumberRule:
    """value = bound((f(x) - centre) * factor), f = log1p(max(x, 0) / unit) where `is_log`, or x itself.

    Args:
        ranks: Categories of an ordinal column, from lowest to highest; x is the position.
        factor: 0 for a column that is constant in the training rows.
        fill: Scaled value of a missing cell, from the median of the training rows.
        low, high: Bounds of scaled values.
        is_smooth: Whether v / sqrt(1 + (v / 3)^2) comes last.
        has_indicator: Whether a second column says that the cell is missing.
        unit: A scale of the positive training values; 1 in checkpoints that do not say.
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
    unit: float = 1.0

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self.name, f"{self.name} (missing)") if self.has_indicator else (self.name,)

    def write(self, entries: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (B, 1 or 2) from (B,) entries of the column."""
        x = _numbers(entries, self.ranks)
        is_missing = np.isnan(x)
        if self.is_log:
            x = _log1p(x, self.unit)
        # what exceeds float64 is far out all the same
        with np.errstate(over="ignore"):
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
class DateRule(NumberRule):
    """Days since 1970-01-01 UTC as any other number, then sine and cosine of each part of the calendar, 0 if missing.

    A part is the angle 2 pi (d mod c) / c of the days d and a cycle of c days: `hour` (c = 1), `weekday` (c = 7, d
    rounded down) or `yearday` (c = 365.2425, the mean year of the Gregorian calendar: off by a day at most).

    Args:
        parts: Those that the column is turned into.
        has_days: Whether the days themselves are an input.
    """

    parts: tuple[str, ...] = ()
    has_days: bool = True

    @property
    def feature_names(self) -> tuple[str, ...]:
        cycles = (f"{self.name} ({part}, {side})" for part in self.parts for side in ("sin", "cos"))
        return (*super().feature_names[not self.has_days :], *cycles)

    def write(self, entries: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (B, n_inputs) from (B,) entries of the column."""
        as_number, days = np.empty((len(entries), 1 + self.has_indicator)), _numbers(entries, ())
        super().write(entries, as_number)
        columns = [*as_number.T[not self.has_days :]]
        for part in self.parts:
            angle = 2 * np.pi / CYCLES[part] * ((np.floor(days) if part == "weekday" else days) % CYCLES[part])
            columns += [np.where(np.isnan(days), 0.0, side(angle)) for side in (np.sin, np.cos)]
        out[:] = np.stack(columns, axis=1)


@dataclass(frozen=True)
class CategoryRule:
    """One 0/1 column per category, and where needed one for missing and one for all other categories.

    Args:
        categories: Of the training rows, in alphabetical order.
        has_missing: Whether missing has a column; otherwise a missing cell is all zeros.
        has_other: Whether all other categories share a column; otherwise they are all zeros. Of old checkpoints, whose
            categories may be the most frequent ones only.
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


@dataclass(frozen=True)
class TargetRule:
    """One number per category: the mean standardised target of its training rows, shrunk towards that of all rows.

    Args:
        categories: That several training rows have, in alphabetical order, and their `values`.
        other: Value of all others, from the training rows whose category is theirs alone.
        missing: Value of a missing cell.
    """

    name: str
    categories: tuple[str, ...]
    values: tuple[float, ...]
    other: float
    missing: float
    known: ClassVar[None] = None  # every text has a value

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (f"{self.name} (mean target)",)

    @cached_property
    def _value_of(self) -> dict[str, float]:
        return dict(zip(self.categories, self.values, strict=True))

    def write(self, entries: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (B, 1) from (B,) entries of the column."""
        codes, texts = pd.factorize(entries)
        # the last value is for missing cells, which factorize gives the code -1
        out[:, 0] = np.array([*(self._value_of.get(text, self.other) for text in texts), self.missing])[codes]


def _numbers(entries: np.ndarray, ranks: tuple[str, ...]) -> np.ndarray:
    """Return (B,) float64 positions in the order of categories, or the numbers themselves; NaN where missing."""
    return _places(entries, ranks, np.nan, np.nan) if ranks else np.clip(entries.astype(np.float64), -HUGE, HUGE)


def _log1p(x: np.ndarray, unit: float | np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.log1p(np.clip(x / unit, 0.0, HUGE))


def _places(entries: np.ndarray, known: tuple[str, ...], other: float, missing: float) -> np.ndarray:
    """Return (B,) positions in `known`, and what to take for other texts and for missing ones."""
    codes, texts = pd.factorize(entries)
    place_of = {text: place for place, text in enumerate(known)}
    # the last entry is for missing ones, which factorize gives the code -1
    return np.array([*(place_of.get(text, other) for text in texts), missing])[codes]


Rule = NumberRule | DateRule | CategoryRule | TargetRule
# a key that only the rules of one kind have; any other rule is a `NumberRule`
KINDS: dict[str, type[Rule]] = {"parts": DateRule, "has_other": CategoryRule, "values": TargetRule}


@dataclass(frozen=True)
class Preprocessor:
    """Turns feature columns into the network's inputs by one rule per column of the schema, in its order."""

    rules: tuple[Rule, ...]

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

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts, text, numbers and booleans only: `from_dict` restores an equal preprocessor."""
        return dict(jsonable(asdict(self)))

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Preprocessor":
        kinds = (next((KINDS[key] for key in KINDS if key in rule), NumberRule) for rule in state["rules"])
        return cls(tuple(kind(**tupled(rule)) for kind, rule in zip(kinds, state["rules"], strict=True)))


def fit_preprocessor(
    features: pd.DataFrame, schema: Schema, rows: np.ndarray, settings: DataSettings, target: np.ndarray | None = None
) -> Preprocessor:
    """Learn the preprocessing from the rows of a table at positions `rows`, and from no other; from their targets, too,
    where a column has more than `data.max_categories`."""
    return _fit(features, schema, rows, settings, target)[0]


def fit_and_transform(
    features: pd.DataFrame, schema: Schema, rows: np.ndarray, settings: DataSettings, target: np.ndarray
) -> tuple[Preprocessor, np.ndarray]:
    """The preprocessor of the training rows at `rows`, and (N, F) inputs to fit a model on these and to apply it.

    Those made of targets differ from `transform` in the training rows, which must not know their own: each of five
    parts of them is encoded by the other four. Parts are of rows alone, so rows of one group inform each other.
    """
    preprocessor, crossed = _fit(features, schema, rows, settings, target)
    inputs = preprocessor.transform(features)
    ends = np.cumsum([len(rule.feature_names) for rule in preprocessor.rules])
    for rule, end in zip(preprocessor.rules, ends, strict=True):
        if rule.name in crossed:
            inputs[rows, end - 1] = crossed[rule.name]
    return preprocessor, inputs


def _fit(
    features: pd.DataFrame, schema: Schema, rows: np.ndarray, settings: DataSettings, target: np.ndarray | None
) -> tuple[Preprocessor, dict[str, np.ndarray]]:
    """The preprocessor, and for each column encoded by targets the (n_training,) encodings of the training rows."""
    if len(rows) == 0:
        raise ValueError("preprocessing needs at least one training row")
    _check_dates(schema, settings)
    numbers = [column for column in schema.columns if column.kind != "categorical"]
    size = max(1, BLOCK_NUMBERS // len(rows))
    blocks = (numbers[start : start + size] for start in range(0, len(numbers), size))
    rules: dict[str, Rule] = {r.name: r for block in blocks for r in _fit_numbers(block, features, rows, settings)}
    crossed = {}
    for name in (column.name for column in schema.columns if column.kind == "categorical"):
        codes, texts = pd.factorize(features[name].to_numpy()[rows])
        if len(texts) <= settings.max_categories:
            rules[name] = CategoryRule(name, tuple(sorted(map(str, texts))), bool((codes < 0).any()), False)
        elif target is None:
            raise ValueError(f"{name} is encoded by the target, and there is none")
        else:
            y = Target.of(settings.target_transform).forward(target[rows])
            rules[name], crossed[name] = _fit_target_rule(name, codes, texts, y, rows)
    return Preprocessor(tuple(rules[column.name] for column in schema.columns)), crossed


def _fit_numbers(
    columns: Sequence[Column], features: pd.DataFrame, rows: np.ndarray, settings: DataSettings
) -> Iterator[NumberRule]:
    """One rule per column, from some rows."""
    x = np.empty((len(rows), len(columns)))
    for i, column in enumerate(columns):
        x[:, i] = _numbers(features[column.name].to_numpy()[rows], column.categories)
    is_missing = np.isnan(x)
    is_empty = np.asarray(is_missing.all(axis=0))
    has_indicator = np.asarray(is_missing.any(axis=0)) & ~is_empty
    # a column without one observed cell becomes a constant
    x[:, is_empty] = 0.0
    parts = [_date_parts(column, x[:, i], settings) for i, column in enumerate(columns)]
    # Each column in a unit of its own, of at most twice its largest value, so that nothing below comes near the ends of
    # float64. As it is a power of two, no bit of what is learned depends on the unit that the file has.
    units = np.frexp(np.nanmax(np.abs(x), axis=0))[1]
    is_plain = [not column.categories and own is None for column, own in zip(columns, parts, strict=True)]
    is_log = np.array(is_plain) & settings.log_skewed & _is_skewed(np.ldexp(x, -units))
    log_units = np.array([_log_unit(x[:, i]) if is_logged else 1.0 for i, is_logged in enumerate(is_log)])
    units = np.where(is_log, 0, units)
    x = np.where(is_log, _log1p(x, log_units), np.ldexp(x, -units))
    centre, factor = _fit_scaling(x, settings.scaling)
    # scikit-learn's SimpleImputer finds the same numbers by way of masked arrays, slowly and in much memory
    scaled = (x - centre) * factor
    fill = np.nanmedian(scaled, axis=0)
    is_minmax = settings.scaling == "minmax"
    low, high = MINMAX_BOUNDS if is_minmax else (-FAR_OUT, FAR_OUT)
    is_smooth = settings.smooth_clip and not is_minmax
    with np.errstate(over="ignore"):
        factor = np.minimum(np.ldexp(factor, -units), HUGE)
    # nothing is extrapolated in time: there later rows are as the last ones of training
    is_time = [column.name == settings.time for column in columns]
    ends = np.where(is_time, np.minimum(np.nanmax(scaled, axis=0), high), high)
    known = (is_log, np.ldexp(centre, units), factor, fill, ends, has_indicator, log_units)
    learned = [array.tolist() for array in known]
    for column, own, takes_log, middle, slope, median, end, has_missing, unit in zip(
        columns, parts, *learned, strict=True
    ):
        rule = NumberRule(
            column.name, column.categories, takes_log, middle, slope, median, low, end, is_smooth, has_missing, unit
        )
        if own is not None:
            own_parts = tuple(part for part in CYCLES if part in own)
            rule = DateRule(**vars(rule), parts=own_parts, has_days="days" in own)
        yield rule


def _is_skewed(x: np.ndarray) -> np.ndarray:
    """Whether each column of x (n_rows, n_columns) has a heavy right tail that a logarithm shortens.

    Its skewness (unbiased, as in pandas, which takes small variances for none) is high, and it has no negative values
    and some that are more than twice the lowest: where all are about as large a logarithm is a straight line.
    """
    deviation = x - np.nanmean(x, axis=0)
    n = (~np.isnan(x)).sum(axis=0)
    # nothing can be said of a constant column, nor of fewer than three values
    with np.errstate(divide="ignore", invalid="ignore"):
        moments = np.nansum(deviation**3, axis=0) / np.nansum(deviation**2, axis=0) ** 1.5
        is_heavy = n * np.sqrt(n - 1) / (n - 2) * moments > HEAVY_SKEW
    low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    return np.asarray(is_heavy & (low >= 0) & (high > 2 * low))


def _log_unit(x: np.ndarray) -> float:
    """Scale of a skewed column (n_rows,), below nearly all of its positive values; docs/method.md compares others."""
    return float(np.quantile(x[x > 0], LOG_QUANTILE))


def _fit_scaling(x: np.ndarray, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Centre and factor per column of x (n_rows, n_columns); the factor of a constant column is 0."""
    low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    centre, scale = low, high - low
    if scaling == "robust":
        quartiles = np.nanquantile(x, [0.25, 0.75], axis=0)
        centre, scale = np.nanmedian(x, axis=0), quartiles[1] - quartiles[0]
        # RealMLP (Holzmueller et al. 2024): half the range where the quartiles coincide; here also where they differ by
        # rounding alone, as 0.3 and 0.1 + 0.2 do
        is_rounding = scale <= ROUNDING * np.abs(quartiles).max(axis=0)
        scale = np.where(is_rounding, (high - low) / 2, scale)
    elif scaling == "standard":
        from sklearn.preprocessing import StandardScaler

        standard = StandardScaler().fit(x)
        # its own scale is 1 where the mean is far larger than the standard deviation
        centre, scale = standard.mean_, np.sqrt(standard.var_)
    is_constant = low == high
    with np.errstate(divide="ignore", over="ignore"):
        return centre, np.where(is_constant, 0.0, np.minimum(1.0 / np.where(is_constant, 1.0, scale), HUGE))


def _check_dates(schema: Schema, settings: DataSettings) -> None:
    """Refuse names in `data.dates` of what is no column of dates."""
    dates = [column.name for column in schema.columns if is_date(column)]
    if unknown := [name for name in settings.dates if name not in ("*", *dates)]:
        known = f"the columns of dates are {listed(dates)}" if dates else "there is none"
        raise InputError(f"data.dates names {shown(unknown[0])}, which is no feature read as dates; {known}")


def is_date(column: Column) -> bool:
    """Whether its numbers are days since 1970-01-01 UTC."""
    return column.format == "date"


def _date_parts(column: Column, days: np.ndarray, settings: DataSettings) -> tuple[str, ...] | None:
    """What a column of dates is turned into, None of any other column."""
    if not is_date(column):
        return None
    chosen = settings.dates.get(column.name, settings.dates.get("*"))
    return ("days", *calendar_parts(days[~np.isnan(days)])) if chosen is None else tuple(chosen)


def calendar_parts(days: np.ndarray) -> Iterator[str]:
    """The parts of the calendar in which dates (n,), as days since 1970, differ and that come round again in them.

    - `hour`: times of day differ, over two days or more;
    - `weekday`: the dates are no longer than a day (they fall on more than four days of the month, as the ends of
      months and quarters do not), differ in their weekday, and span four weeks or more;
    - `yearday`: they differ in their month and span about a year (350 days) or more.
    """
    dates = np.unique(np.floor(days))
    span = float(np.ptp(dates)) if len(dates) else 0.0
    if span >= 2 and len(np.unique(days % 1)) > 1:
        yield "hour"
    calendar = dates.astype("datetime64[D]")
    months = calendar.astype("datetime64[M]")
    if span >= 28 and len(np.unique(calendar - months)) > 4 and len(np.unique(dates % 7)) > 1:
        yield "weekday"
    if span >= 350 and len(np.unique(months.astype(int) % 12)) > 1:
        yield "yearday"


def _fit_target_rule(
    name: str, codes: np.ndarray, texts: np.ndarray, y: np.ndarray, rows: np.ndarray
) -> tuple[TargetRule, np.ndarray]:
    """The rule of a column, and (n_rows,) the encodings of its rows by the rows of other parts.

    Args:
        codes: (n_rows,) of the training rows, positions in `texts`, or -1 where missing.
        y: (n_rows,) targets of the training rows on the scale trained on.
        rows: (n_rows,) what each is; copies of a row are in one part.
    """
    # A category of one row says nothing that its row may know: such rows share a place, as does what is never seen.
    other, missing = len(texts), len(texts) + 1
    places = np.append(np.where(np.bincount(codes[codes >= 0]) > 1, np.arange(other), other), missing)[codes]
    standardised = (y - y.mean()) / (y.std() or 1.0)
    distinct, places_of_rows = np.unique(rows, return_inverse=True)
    crossed, parts = np.empty(len(y)), (np.random.default_rng(0).permutation(len(distinct)) % N_PARTS)[places_of_rows]
    for part in range(N_PARTS):
        is_own = parts == part
        crossed[is_own] = _category_means(places[~is_own], missing + 1, standardised[~is_own])[places[is_own]]
    means = _category_means(places, missing + 1, standardised)
    shared = sorted((str(texts[place]), float(means[place])) for place in np.unique(places[places < other]))
    categories, values = zip(*shared, strict=True) if shared else ((), ())
    return TargetRule(name, categories, values, float(means[other]), float(means[missing])), crossed


def _category_means(places: np.ndarray, n_places: int, y: np.ndarray) -> np.ndarray:
    """(n_places,) means of y (n_rows,) at each of the places (n_rows,), shrunk towards the mean of all rows.

    The best linear predictor of a random effect per place, its variance from the analysis of variance (Searle, Casella
    & McCulloch 1992, chapter 3): places that differ by no more than their rows do all get the mean of all rows.
    """
    counts = np.bincount(places, minlength=n_places)
    n, k = len(y), int((counts > 0).sum())
    effects = np.bincount(places, y - y.mean(), n_places) / np.maximum(counts, 1)
    within = np.sum((y - y.mean() - effects[places]) ** 2) / max(1, n - k)
    size = (n - np.sum(counts**2) / n) / max(1, k - 1)
    between = (np.sum(counts * effects**2) / max(1, k - 1) - within) / (size or 1.0)
    weights = counts * max(0.0, between)
    return np.asarray(y.mean() + effects * np.divide(weights, weights + within, np.zeros(n_places), where=weights > 0))
