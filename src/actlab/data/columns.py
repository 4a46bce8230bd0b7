"""One column of a table: from cells to numbers, days or categories, under a kind decided once on the training file.

Cells are texts of a file, or those of a frame, which are taken as they are. All rules work on the distinct texts of a
column, so their cost per row is a hash look-up. Rows to predict on are read under the kinds stored in the `Schema`, in
the way that their own file is written.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from actlab.data.csv_file import Source, shown
from actlab.data.formats import (
    CLEARLY_POINT,
    FIRST,
    FORMATS,
    MISSING_WORDS,
    MOSTLY,
    PLAIN,
    SECONDS_PER_DAY,
    WRITTEN,
    Cells,
    Evidence,
    FileStyle,
    Format,
    Reading,
    Texts,
    days_of,
    number_of,
    resolution,
)
from actlab.errors import InputError
from actlab.run_files import jsonable

Kind = Literal["numeric", "categorical", "ordinal"]

# what former versions called a format
FORMER: dict[str, Format] = {"iso_date": "date", "decimal_comma": "number"}
OTHER_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( \d\d:\d\d(:\d\d)?)?", re.ASCII)
LEADING_ZERO = re.compile(r"\n[ \t]*0\d+[ \t]*(?=\n)", re.ASCII)
# integers beyond this differ from their float64
MAX_CODE = 1 << 53
N_SHOWN_LINES = 5
# distinct texts that show whether a format is worth a try
N_TRIED = 20
# units of a column at most that are named; more are parts of codes, such as 12a
N_UNITS = 5


@dataclass(frozen=True)
class Column:
    """One feature column.

    Args:
        kind: Cells of a `numeric` one are float64 with NaN for missing; the others are text with None for missing.
        categories: Of an ordinal column, from lowest to highest; empty for the other kinds.
        format: How a numeric column is written: a `date` is in days since 1970-01-01 UTC, a `duration` in seconds, a
            `percent` a hundredth. Of another column: whether its names are numbers (`code`) or `text`; `number` where a
            former version read it.
        unit: Of numbers what they are in, of durations the shape of their clock (`h:mm`), of dates their finest part
            (`year`, `month`, `day`, `hour`, `minute`, `second`; empty where a former version read it).
        written: `day_first` or `month_first`, and for numbers what the user stated; decides where a file does not.
        na_values: Texts that mean "missing" in this column; those of the schema where None.
        low, high: Of the training file's numbers; None where a former version read it.
        had_missing: Whether the training file had missing cells.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    format: Format = "number"
    unit: str = ""
    written: str = ""
    na_values: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    had_missing: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", FORMER.get(self.format, self.format))
        if self.kind not in get_args(Kind) or self.format not in get_args(Format):
            raise InputError(f"column {shown(self.name)} has an unknown kind or format: {self.kind}, {self.format}")


@dataclass(frozen=True)
class Schema:
    """What a table must look like to be predicted on; plain types only.

    Args:
        columns: The features, in order.
        target: Name of the column to predict, if one was named.
        id: Name of the column that identifies rows, if there is one.
        na_values: Cell texts that mean "missing", where a column has none of its own; an empty cell always does.
        dropped: Columns of the training file that are no features (constant or wholly missing).
        target_column: How the target is written; None in checkpoints that do not say.
    """

    columns: tuple[Column, ...]
    target: str | None
    id: str | None
    na_values: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    target_column: Column | None = None

    def missing(self, column: Column) -> tuple[str, ...]:
        """The texts that mean "missing" in one column, beside an empty cell."""
        return self.na_values if column.na_values is None else column.na_values

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts and text only: `from_dict` restores an equal schema."""
        return dict(jsonable(asdict(self)))

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Schema":
        columns = tuple(Column(**tupled(column)) for column in state["columns"])
        own = state.get("target_column")
        target = None if own is None else Column(**tupled(own))
        return cls(**{**tupled(state), "columns": columns, "target_column": target})


def tupled(state: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from what `jsonable` made of them: lists are tuples again."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}


class Numbers(NamedTuple):
    """One column read as numbers: (n_rows,) float64, NaN where a cell is missing or unreadable.

    Args:
        unreadable: Positions of the cells that are neither missing nor in the format.
        reading: Of the distinct texts.
        formatted: Position of the first text that float() would not read the same.
        word: Position of the first cell that is one of `MISSING_WORDS`.
        doubt: Position of a cell of two readings of which nothing decides.
    """

    parsed: np.ndarray
    unreadable: np.ndarray
    reading: Reading
    formatted: int | None = None
    word: int | None = None
    doubt: int | None = None


class Distinct(NamedTuple):
    """The different texts of a column, stripped and none missing, and the numbers that a frame holds beside them.

    Args:
        codes: (n_rows,) positions in `texts`; the last is none, for cells that are missing or no text.
        given: (n_rows,) float64 of cells that are no text (days of dates, seconds of durations), NaN elsewhere; None
            where all cells are texts or missing.
        format: Of the given numbers; `code` of booleans.
    """

    codes: np.ndarray
    texts: list[str]
    given: np.ndarray | None = None
    format: Format = "number"


@dataclass(frozen=True)
class RawColumn:
    """One column as its source holds it: (n_rows,) cells and line numbers, and the texts that mean "missing".

    `empty` is the text that a frame's missing cell stands for.
    """

    name: str
    cells: Texts | pd.Series
    lines: np.ndarray
    file: Source
    missing: frozenset[str]
    style: FileStyle = field(default_factory=FileStyle)
    empty: str = ""

    @cached_property
    def numbers(self) -> Numbers:
        """In the format that most cells are in; only plain numbers where none has nearly all."""
        return _best_numbers(self)

    @property
    def texts(self) -> Texts:
        return cell_texts(self.cells)

    @property
    def whole(self) -> str:
        return f"{self.file.label}, column {shown(self.name)}"

    def place(self, row: int) -> str:
        return f"{self.file.label}, line {self.lines[row]}, column {shown(self.name)}"

    def shown(self, row: int) -> str:
        cell = self.cells.iloc[row] if isinstance(self.cells, pd.Series) else self.cells[row]
        return shown(str(cell).strip())

    def refusal(self, row: int, what: str) -> InputError:
        repair = "correct the cell, or leave it empty if the value is missing"
        if not self.style.has_key:
            # rows to predict
            repair += "; --bad_cells missing takes all such cells as missing"
        return InputError(f"{self.place(row)}: {self.shown(row)} {what}; {repair}")

    def line_list(self, is_meant: np.ndarray) -> str:
        """`line 3`, or `lines 3, 7 and 12 more`, of the rows that are meant."""
        lines = self.lines[is_meant]
        first = ", ".join(map(str, lines[:N_SHOWN_LINES]))
        more = f" and {len(lines) - N_SHOWN_LINES} more" if len(lines) > N_SHOWN_LINES else ""
        return f"line{'s' if len(lines) > 1 else ''} {first}{more}"

    @cached_property
    def distinct(self) -> Distinct:
        given: np.ndarray | None = None
        format: Format = "number"
        if isinstance(self.cells, pd.Series):
            cells, given, format = _given(self.cells)
        else:
            cells = np.array(self.cells, dtype=object)
        codes, distinct = pd.factorize(cells)
        texts = [text.strip() for text in distinct]
        is_kept = np.array([text not in self.missing for text in texts], dtype=bool)
        # the place of a missing text, and of a cell that is none (code -1), is behind the last one
        places = np.append(np.where(is_kept, np.cumsum(is_kept) - 1, is_kept.sum()), is_kept.sum())
        kept = [text for text, is_one in zip(texts, is_kept, strict=True) if is_one]
        return Distinct(places[codes], kept, given, format)


# what pandas infers of cells that are no texts
INFERRED: dict[str, Format] = {
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal"), "number"),
    **dict.fromkeys(("datetime", "datetime64", "date"), "date"),
    **dict.fromkeys(("timedelta", "timedelta64", "time"), "duration"),
    "boolean": "code",
}


def _given(series: pd.Series) -> tuple[np.ndarray, np.ndarray | None, Format]:
    """The texts of a series (None for other cells), and its numbers with their format, as `Distinct` has them."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    elif isinstance(series.dtype, pd.PeriodDtype):
        series = series.dt.to_timestamp()
    inferred = infer_dtype(series, skipna=True)
    if (format := INFERRED.get(inferred)) is not None:
        if format == "date":
            given = days_of(pd.DatetimeIndex(pd.to_datetime(series, utc=True)))
        elif format == "duration":
            spans = series.astype(str) if inferred == "time" else series
            given = pd.to_timedelta(spans, errors="coerce").dt.total_seconds().to_numpy(dtype=np.float64, copy=True)
        else:
            given = series.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        return np.full(len(series), None), given, format
    is_none = series.isna().to_numpy()
    is_other = np.array([not isinstance(cell, str) for cell in series], dtype=bool) & ~is_none
    cells = np.array([None if gone else str(cell) for cell, gone in zip(series, is_none, strict=True)], dtype=object)
    format = INFERRED.get(infer_dtype(series[is_other]))
    if format is None:
        # only texts; cells of several other types are what they are called
        return cells, None, "number"
    given = np.full(len(series), np.nan)
    given[is_other] = _given(series[is_other])[1]
    cells[is_other] = None
    return cells, given, format


def cell_texts(cells: Texts | pd.Series) -> Texts:
    """The cells for messages and ids, empty where a frame has none."""
    if not isinstance(cells, pd.Series):
        return cells
    return list(np.where(cells.isna(), "", cells.astype(str).to_numpy(dtype=object)))


class ReadColumn(NamedTuple):
    """One column as networks see it: what it is, (n_rows,) float64 with NaN or objects (str or None), and warnings."""

    column: Column
    parsed: np.ndarray
    warnings: list[str]


def missing_texts(na_values: Iterable[str]) -> frozenset[str]:
    """Texts that mean "missing": those of the settings, and an empty cell."""
    return frozenset({"", *(text.strip() for text in na_values)})


def read_column(column: Column, raw: RawColumn, bad: dict[int, str] | None = None) -> ReadColumn:
    """Read cells under a known kind; an `InputError` names a cell of a numeric column that is no finite number, unless
    there is a dict of `bad` ones, by row, to which such cells are added: they are taken as missing."""
    if column.kind != "numeric":
        return ReadColumn(column, read_categories(column, raw), [])
    numbers = read_numbers(raw, column.format, column.unit)
    if bad is not None:
        rows = np.union1d(numbers.unreadable, np.flatnonzero(np.isinf(numbers.parsed)))
        bad.update((row, raw.shown(row)) for row in rows.tolist())
        numbers.parsed[rows] = np.nan
        numbers = numbers._replace(formatted=None if numbers.formatted in rows else numbers.formatted)
    elif numbers.unreadable.size:
        raise _unreadable(raw, numbers, column.format, column.unit)
    return ReadColumn(column, numbers.parsed, _numeric_warnings(column.format, raw, numbers))


def _unreadable(raw: RawColumn, numbers: Numbers, format: Format, unit: str) -> InputError:
    expected = FORMATS[format].expected.format(unit=unit or "3:00:00")
    inside = f" in {unit}" if format == "number" and unit else ""
    comma = " with a decimal comma, as elsewhere in the column" if _is_comma(numbers) else ""
    return raw.refusal(int(numbers.unreadable[0]), f"is not {expected}{inside}{comma}")


def _is_comma(numbers: Numbers) -> bool:
    return numbers.reading.written == WRITTEN["numbers"][1]


def read_numbers(raw: RawColumn, format: Format, unit: str | None = None) -> Numbers:
    """The cells in a format; `unit` is that of the training file, None while it is read itself."""
    cells = raw.cells
    if format == "number" and not isinstance(cells, pd.Series) and (plain := _plain_numbers(raw)) is not None:
        return Numbers(plain, np.empty(0, dtype=np.intp), Reading("number", plain[:0], unit or ""))
    codes, texts, given, given_format = raw.distinct
    is_word = np.array([text.casefold() in MISSING_WORDS for text in texts], dtype=bool)
    places = np.flatnonzero(~is_word)
    counts = np.bincount(codes, minlength=len(texts) + 1)
    kept = Cells(raw.name, [texts[place] for place in places], counts[:-1][~is_word], raw.style, unit)
    reading = FORMATS[format].read(kept) if kept.texts else Reading(format, np.empty(0), unit or "")
    # one more, for cells that are missing or no text
    values, is_formatted = np.full(len(texts) + 1, np.nan), np.zeros(len(texts) + 1, dtype=bool)
    values[places] = reading.parsed
    is_formatted[places] = [
        not np.isnan(value) and not (PLAIN.fullmatch(text) and float(text) == value)
        for text, value in zip(kept.texts, reading.parsed.tolist(), strict=True)
    ]
    is_bad = np.append(np.isnan(values[:-1]) & ~is_word, False)[codes]
    parsed = values[codes]
    if given is not None:
        if given_format == format or {given_format, format} <= {"number", "percent"}:
            parsed = np.where(np.isnan(given), parsed, given)
        else:
            is_bad |= ~np.isnan(given)
    is_word_row = np.append(is_word, False)[codes]
    if unit is None and np.isnan(parsed).all():
        # words alone are no numbers
        is_bad |= is_word_row
    doubt = None if reading.doubt is None else _first(codes == places[reading.doubt[0]])
    parsed = _without(parsed, raw.missing) if format in ("number", "percent") else parsed
    return Numbers(parsed, np.flatnonzero(is_bad), reading, _first(is_formatted[codes]), _first(is_word_row), doubt)


def _first(is_meant: np.ndarray) -> int | None:
    return int(np.argmax(is_meant)) if is_meant.any() else None


def _without(values: np.ndarray, missing: Collection[str]) -> np.ndarray:
    """The numbers without those that mean "missing", such as -999."""
    if numbers := [float(text) for text in missing if PLAIN.fullmatch(text)]:
        values[np.isin(values, numbers)] = np.nan
    return values


def _plain_numbers(raw: RawColumn) -> np.ndarray | None:
    """The fast way: float() of every cell; None as soon as one cell, or the whole column, needs a closer look."""
    texts, missing = raw.cells, raw.missing
    joined = "\n".join(texts)
    if "_" in joined or not joined.isascii():  # float() takes 1_000 and digits of any script
        return None
    stand_in = dict.fromkeys(missing, "nan")
    try:
        values = np.array([float(stand_in.get(text, text)) for text in texts], dtype=np.float64)
    except ValueError:
        return None
    if not all(texts[i] in missing for i in np.flatnonzero(np.isnan(values)).tolist()):
        return None
    if (has_point := "." in joined) and CLEARLY_POINT.search(joined) is None:
        return None
    own = Evidence(FIRST) if has_point else Evidence()
    return _without(values, missing) if raw.style.choose("numbers", raw.name, own) == FIRST else None


def _best_numbers(raw: RawColumn) -> Numbers:
    best = number = read_numbers(raw, "number")
    if not number.unreadable.size:
        return number
    sample = Cells(raw.name, raw.distinct.texts[:N_TRIED], np.ones(len(raw.distinct.texts[:N_TRIED])), FileStyle())
    for format in ("date", "duration"):
        is_given = raw.distinct.format == format and raw.distinct.given is not None
        if is_given or (sample.texts and sample.share(FORMATS[format].read(sample).parsed) > 0):
            other = read_numbers(raw, format)
            best = other if other.unreadable.size < best.unreadable.size else best
    if best.unreadable.size and _share(best) <= MOSTLY:
        # a few texts with a unit, such as 12a, do not make numbers of a column
        return number if number.reading.unit == "" else read_numbers(raw, "number", "")
    return best


def _share(numbers: Numbers) -> float:
    """Of the cells that are not missing those that could be read."""
    n_read = np.isfinite(numbers.parsed).sum()
    return float(n_read / max(1, n_read + len(numbers.unreadable)))


def infer_numeric(raw: RawColumn) -> ReadColumn | None:
    """Read the cells in the one format that fits all of them; None when none does.

    Raises:
        InputError: a cell is infinite, or its column has two readings of which nothing decides.
    """
    numbers = raw.numbers
    if numbers.unreadable.size:
        return None
    format, _, unit, written, _ = numbers.reading
    warnings = _numeric_warnings(format, raw, numbers)
    finite = numbers.parsed[~np.isnan(numbers.parsed)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    if format == "date":
        unit = resolution(finite)
    elif format == "number" and (sentinels := _sentinels(finite)):
        warnings.append(
            f"{raw.whole} holds {' and '.join(sentinels)}, far from all other numbers; if it means missing, add it to "
            "data.na_values"
        )
    had_missing = finite.size < len(numbers.parsed)
    if format != "date" and written not in raw.style.stated.values():
        written = ""
    column = Column(raw.name, "numeric", (), format, unit, written, None, low, high, had_missing)
    return ReadColumn(column, numbers.parsed, warnings)


def _sentinels(values: np.ndarray) -> list[str]:
    """Numbers such as -999 and 99999 at an end of the values, farther from the next one than the others are spread."""
    found = []
    for end in {values.min(), values.max()} if values.size else set():
        if re.fullmatch(r"-?9{2,}\.0|-1\.0", str(end)):
            others = values[values != end]
            is_far = others.size and np.abs(others - end).min() > np.ptp(others)
            if is_far or (others.size and end < -1 and others.min() >= 0):
                found.append(f"{end:.12g}")
    return found


def _numeric_warnings(format: Format, raw: RawColumn, numbers: Numbers) -> list[str]:
    """What is unusual about numbers that are all readable. An `InputError` names a cell that is infinite or too large
    for a float64, or one with two readings."""
    if (row := numbers.doubt) is not None:
        _, first, second = numbers.reading.doubt or (0, 0.0, 0.0)
        raise InputError(
            f"{raw.place(row)}: {raw.shown(row)} can be {_written_value(format, first)} or "
            f"{_written_value(format, second)}, and neither the column nor the rest of the file decides; "
            f"{raw.style.repair(format, raw.name)}"
        )
    infinite = np.flatnonzero(np.isinf(numbers.parsed))
    if infinite.size:
        raise raw.refusal(int(infinite[0]), "is infinite")
    warnings, reading = [], numbers.reading
    # dates and the like are said of the training file alone
    is_news = raw.style.has_key or format == "number" or raw.name in raw.style.fell_back
    if (row := numbers.formatted) is not None and is_news:
        value = _written_value(format, numbers.parsed[row])
        value = f"{numbers.parsed[row]:.12g}" if repr(value) == raw.shown(row) else value
        how = f", in {reading.unit}" if reading.unit and format == "number" else ""
        how += " with decimal comma" if _is_comma(numbers) else ""
        how += f", {reading.written.replace('_', ' ')}" if format == "date" and reading.written else ""
        how += " as in training, since this file does not tell" if raw.name in raw.style.fell_back else ""
        told = FORMATS[format].told.format(how=how, text=raw.shown(row), value=value)
        warnings.append(f"{raw.whole} {told}")
    if (row := numbers.word) is not None:
        warnings.append(
            f"{raw.place(row)}: {raw.shown(row)} is taken as missing, since the column is numbers or dates otherwise"
            f"{' (data.categorical keeps it as a text)' * raw.style.has_key}"
        )
    return warnings


def _written_value(format: Format, value: float) -> str:
    if format == "date":
        return str(np.datetime64(round(value * SECONDS_PER_DAY), "s")).removesuffix("T00:00:00")
    return f"{value:.12g}" + (" seconds" if format == "duration" else "")


def infer_column(raw: RawColumn, is_categorical: bool = False, is_numeric: bool = False) -> ReadColumn:
    """Decide what a column is, numbers or categories, unless the settings say so, and read it.

    Raises:
        InputError: as `infer_numeric`, or it is to be numeric and a cell is no number.
    """
    warnings: list[str] = []
    dtype = raw.cells.dtype if isinstance(raw.cells, pd.Series) else None
    is_bool = raw.distinct.format == "code" if isinstance(raw.cells, pd.Series) else False
    is_declared = is_bool or isinstance(dtype, pd.CategoricalDtype)
    if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered and not is_categorical:
        column = ordinal_column(raw.name, [_name_of(cell) for cell in dtype.categories])
        return ReadColumn(column, read_categories(column, raw), warnings)
    if is_numeric or not (is_categorical or is_declared):
        has_zeros = not is_numeric and _has_leading_zeros(
            raw.distinct.texts if isinstance(raw.cells, pd.Series) else raw.cells
        )
        if has_zeros:
            warnings.append(
                f"{raw.whole} holds whole numbers that begin with 0; treated as categories (data.numeric reads them "
                "as numbers)"
            )
        elif (found := infer_numeric(raw)) is not None:
            return found
        elif is_numeric:
            raise _unreadable(raw, raw.numbers, raw.numbers.reading.format, raw.numbers.reading.unit)
        else:
            warnings += _mixed(raw)
    names = [text for text in raw.distinct.texts if text.casefold() not in MISSING_WORDS]
    is_code = not is_bool and all(map(PLAIN.fullmatch, names)) and not _has_leading_zeros(names)
    column = Column(raw.name, "categorical", format="code" if is_code else "text")
    values = read_categories(column, raw)
    return ReadColumn(column, values, [*warnings, *_spelled_alike(raw, values)])


def _has_leading_zeros(texts: Texts) -> bool:
    joined = "\n".join(["", *texts, ""])
    return "\n0" in joined and LEADING_ZERO.search(joined) is not None


def _mixed(raw: RawColumn) -> list[str]:
    """A warning where nearly all cells are in one format, or some are plain numbers."""
    numbers, others = raw.numbers, raw.numbers.unreadable
    n_read = int(np.isfinite(numbers.parsed).sum())
    format = numbers.reading.format
    if n_read == 0 or _share(numbers) <= MOSTLY:
        units = {None if (number := number_of(text)) is None else number.unit for text in raw.distinct.texts}
        if not units & {None, ""} and 1 < len(units) <= N_UNITS:
            listed_units = ", ".join(sorted(shown(str(unit)) for unit in units))
            return [f"{raw.whole} holds numbers in several units ({listed_units}); treated as categories"]
    if n_read == 0 or (format != "number" and _share(numbers) <= MOSTLY):
        return []
    what = {"number": "numbers", "percent": "percentages", "date": "dates"}.get(format, "spans of time")
    return [
        f"{raw.whole} mixes {n_read} {what} with {len(others)} other cells (first: {raw.shown(others[0])}, line "
        f"{raw.lines[others[0]]}); treated as categories (if that text means missing, add it to data.na_values)"
    ]


def _spelled_alike(raw: RawColumn, values: np.ndarray) -> list[str]:
    """A warning about the first two categories that differ in capital letters or spaces only."""
    known: dict[str, str] = {}
    for name in pd.unique(values[pd.notna(values)]):
        other = known.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            both = f"{shown(other)} and {shown(name)}"
            return [f"{raw.whole}: {both} are two categories; write them alike if they mean the same"]
    return []


def ordinal_column(name: str, categories: Sequence[str]) -> Column:
    """An ordinal column with its categories, from lowest to highest."""
    format: Format = "code" if all(map(PLAIN.fullmatch, categories)) else "text"
    return Column(name, "ordinal", tuple(category_name(text, format) for text in categories), format)


def read_categories(column: Column, raw: RawColumn) -> np.ndarray:
    """Read the cells of a column as an (n_rows,) object array of category names, None where missing."""
    # a text that the user lists as a category is one, even if it means "missing" elsewhere (NA in BsmtQual)
    missing = raw.missing - set(column.categories)
    cells = raw.cells
    if isinstance(cells, pd.Series):
        cells = [raw.empty if is_none else _name_of(cell) for cell, is_none in zip(cells, cells.isna(), strict=True)]
    codes, distinct = pd.factorize(np.array(cells, dtype=object))
    names = [None if (text := cell.strip()) in missing else category_name(text, column.format) for cell in distinct]
    return np.asarray(np.array([*names, None], dtype=object)[codes])


def looks_like_dates(categories: Sequence[str]) -> bool:
    """True when every name looks like a date in some order of day, month and year."""
    return len(categories) > 0 and all(OTHER_DATE.fullmatch(name) for name in categories)


def category_name(text: str, format: Format = "text") -> str:
    """The one name of a category that may be written in several ways.

    `3.0` is `3`, since a missing cell elsewhere turns integer codes into floats on export, and where all names are
    numbers 1e0 is 1 and 1.50 is 1.5. TRUE and true are True. Accents are part of their letter (Unicode's NFC).
    """
    text = re.sub(r"^([+-]?\d+)\.0+$", r"\1", text.strip())
    if format == "number":
        return text
    text = unicodedata.normalize("NFC", text)
    if text.casefold() in ("true", "false"):
        return text.capitalize()
    if format == "code" and PLAIN.fullmatch(text) and abs(value := float(text)) < MAX_CODE:
        return str(int(value)) if value.is_integer() else repr(value)
    return text


def _name_of(cell: object) -> str:
    """The text that a file would hold of a frame's cell."""
    if isinstance(cell, bool | np.bool_ | str):
        return str(cell)
    if isinstance(cell, Real | Decimal):
        return category_name(str(cell), "code")
    return str(cell).removesuffix(" 00:00:00")
