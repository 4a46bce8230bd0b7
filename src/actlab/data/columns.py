"""One column of a CSV: from texts to numbers, days or categories, under a kind decided once on the training file.

All rules work on the distinct texts of a column, so their cost per row is a hash look-up. Files to predict on are read
under the kinds stored in the `Schema`.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from actlab.data.csv_file import CsvFile, shown
from actlab.errors import InputError
from actlab.run_files import jsonable

Kind = Literal["numeric", "categorical", "ordinal"]
Format = Literal["number", "decimal_comma", "iso_date"]
# (n_rows,) cells of a column as the file holds them: Python's own texts, or an array of NumPy's variable-width ones
Texts = Sequence[str] | np.ndarray

PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INFINITE = re.compile(r"([+-]?)inf(inity)?", re.IGNORECASE)
# 1,234,567.8 or 1'234 or 1 234 (also with the no-break spaces that spreadsheets write)
GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,'\u2019 \u00a0\u202f])\d{3})(?:\1\d{3})*(\.\d*)?", re.ASCII)
# 1234,5 or 1.234,5 or 1.234.567
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(?:([.'\u2019 \u00a0\u202f])\d{3})(?:\2\d{3})*)(,\d+)?", re.ASCII)
CURRENCY = re.compile(r"([+-]?)\s*(?:[$€£¥]|USD|EUR|GBP)?\s*(.*?)\s*(?:[$€£¥]|USD|EUR|GBP)?")
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
OTHER_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( \d\d:\d\d(:\d\d)?)?", re.ASCII)
# For each way to write a number: its patterns, and what of a text that matches is left out.
WRITTEN = {"number": ((PLAIN, GROUPED), r"[^\d.eE+-]"), "decimal_comma": ((DECIMAL_COMMA,), r"[^\d,+-]")}
# Longer texts are no numbers; the patterns need not be tried on them.
MAX_NUMBER_LENGTH = 400
SECONDS_PER_DAY = 86_400
EXPECTED = {
    "number": "a number",
    "decimal_comma": "a number with a decimal comma, as in training,",
    "iso_date": "a date like 2024-12-31",
}
N_SHOWN_LINES = 5


@dataclass(frozen=True)
class Column:
    """One feature column.

    Args:
        kind: Cells of a `numeric` one are float64 with NaN for missing; the others are text with None for missing.
        categories: Of an ordinal column, from lowest to highest; empty for the other kinds.
        format: How a numeric column is written: `number`, `decimal_comma` (1.234,5) or `iso_date` (days since 1970).
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    format: Format = "number"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.format not in get_args(Format):
            raise InputError(f"column {shown(self.name)} has an unknown kind or format: {self.kind}, {self.format}")


@dataclass(frozen=True)
class Schema:
    """What a table must look like to be predicted on; plain types only.

    Args:
        columns: The features, in order.
        target: Name of the column to predict, if one was named.
        id: Name of the column that identifies rows, if there is one.
        na_values: Cell texts that mean "missing"; an empty cell always does.
        dropped: Columns of the training file that are no features (constant or wholly missing).
    """

    columns: tuple[Column, ...]
    target: str | None
    id: str | None
    na_values: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts and text only: `from_dict` restores an equal schema."""
        return dict(jsonable(asdict(self)))

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Schema":
        columns = tuple(Column(**tupled(column)) for column in state["columns"])
        return cls(**{**tupled(state), "columns": columns})


def tupled(state: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from what `jsonable` made of them: lists are tuples again."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}


class Numbers(NamedTuple):
    """One column read as numbers: (n_rows,) float64, NaN where a cell is missing or unreadable.

    `unreadable` holds the positions of the cells that are neither missing nor a number, `formatted` that of the first
    cell that is a number only without its currency sign or thousands separators.
    """

    parsed: np.ndarray
    unreadable: np.ndarray
    formatted: int | None = None


@dataclass(frozen=True)
class RawColumn:
    """One column as the file holds it: (n_rows,) texts and line numbers, and the texts that mean "missing"."""

    name: str
    texts: Texts
    lines: np.ndarray
    file: CsvFile
    missing: frozenset[str]

    @cached_property
    def numbers(self) -> Numbers:
        return read_numbers(self.texts, self.missing)

    @property
    def whole(self) -> str:
        return f"{self.file.path}, column {shown(self.name)}"

    def place(self, row: int) -> str:
        return f"{self.file.path}, line {self.lines[row]}, column {shown(self.name)}"

    def refusal(self, row: int, what: str) -> InputError:
        cell = f"{self.place(row)}: {shown(self.texts[row])}"
        return InputError(f"{cell} {what}; correct the cell, or leave it empty if the value is missing")

    def line_list(self, is_meant: np.ndarray) -> str:
        """`line 3`, or `lines 3, 7 and 12 more`, of the rows that are meant."""
        lines = self.lines[is_meant]
        first = ", ".join(map(str, lines[:N_SHOWN_LINES]))
        more = f" and {len(lines) - N_SHOWN_LINES} more" if len(lines) > N_SHOWN_LINES else ""
        return f"line{'s' if len(lines) > 1 else ''} {first}{more}"


class ReadColumn(NamedTuple):
    """One column as networks see it: what it is, (n_rows,) float64 with NaN or objects (str or None), and warnings."""

    column: Column
    parsed: np.ndarray
    warnings: list[str]


def missing_texts(na_values: Sequence[str]) -> frozenset[str]:
    """Texts that mean "missing": those of the settings, and an empty cell."""
    return frozenset({"", *(text.strip() for text in na_values)})


def read_column(column: Column, raw: RawColumn) -> ReadColumn:
    """Read cells under a known kind; an `InputError` names a cell of a numeric column that is no finite number."""
    if column.kind != "numeric":
        # a text that the user lists as a category is one, even if it means "missing" elsewhere (NA in BsmtQual)
        return ReadColumn(column, read_categories(raw.texts, raw.missing - set(column.categories)), [])
    numbers = read_numbers(raw.texts, raw.missing, column.format)
    if numbers.unreadable.size:
        raise raw.refusal(int(numbers.unreadable[0]), f"is not {EXPECTED[column.format]}")
    return numeric_column(column, raw, numbers.parsed, numbers.formatted)


def numeric_column(column: Column, raw: RawColumn, values: np.ndarray, formatted: int | None) -> ReadColumn:
    """The column with its values, and a warning where the cell at `formatted` is a number only in its format. An
    `InputError` names a cell that is infinite or too large for a float64."""
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise raw.refusal(int(infinite[0]), "is infinite")
    if formatted is None:
        return ReadColumn(column, values, [])
    text, value = shown(raw.texts[formatted].strip()), f"{values[formatted]:.12g}"
    if column.format == "iso_date":
        warning = f"{raw.whole} holds dates; read as days since 1970-01-01 ({text} is {value})"
    else:
        comma = " with decimal comma" if column.format == "decimal_comma" else ""
        warning = f"{raw.whole} holds numbers written as text{comma}; {text} is read as {value}"
    return ReadColumn(column, values, [warning])


def read_numbers(texts: Texts, missing: Collection[str], style: Format = "number") -> Numbers:
    """Read (n_rows,) cell texts as float64; days since 1970-01-01 UTC for `iso_date`."""
    if style == "number" and (plain := _plain_numbers(texts, missing)) is not None:
        return Numbers(plain, np.empty(0, dtype=np.intp))
    codes, distinct = _distinct(texts)
    is_missing = np.array([text in missing for text in distinct], dtype=bool)
    read = _days if style == "iso_date" else partial(_formatted_number, style=style)
    # NaN where it is None
    values = np.array([None if text in missing else read(text) for text in distinct], dtype=np.float64)
    is_unreadable = np.isnan(values) & ~is_missing
    is_plain = [style != "number" or bool(PLAIN.fullmatch(text) or INFINITE.fullmatch(text)) for text in distinct]
    formatted = np.flatnonzero((~np.isnan(values) & ~np.array(is_plain, dtype=bool))[codes])
    return Numbers(values[codes], np.flatnonzero(is_unreadable[codes]), int(formatted[0]) if formatted.size else None)


def read_categories(texts: Texts, missing: Collection[str]) -> np.ndarray:
    """Read (n_rows,) cell texts as an object array of category names, None where missing."""
    codes, distinct = _distinct(texts)
    names = [None if text in missing else category_name(text) for text in distinct]
    return np.asarray(np.array(names, dtype=object)[codes])


def category_name(text: str) -> str:
    """The text itself; `3.0` becomes `3`, since a missing cell elsewhere turns integer codes into floats on export."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text.strip())


def looks_like_dates(categories: Sequence[str]) -> bool:
    """True when every name looks like a date in some order of day, month and year."""
    return len(categories) > 0 and all(OTHER_DATE.fullmatch(name) for name in categories)


def _distinct(texts: Texts) -> tuple[np.ndarray, list[str]]:
    """The code of each cell, and the stripped texts that the codes stand for."""
    codes, distinct = pd.factorize(np.array(texts, dtype=object))
    return codes, [text.strip() for text in distinct]


def _plain_numbers(texts: Texts, missing: Collection[str]) -> np.ndarray | None:
    """The fast way: float() of every cell; None as soon as one cell needs a closer look."""
    joined = "".join(texts)
    if "_" in joined or not joined.isascii():  # float() takes 1_000 and digits of any script
        return None
    stand_in = dict.fromkeys(missing, "nan")
    try:
        values = np.array([float(stand_in.get(text, text)) for text in texts], dtype=np.float64)
    except ValueError:
        return None
    is_missing = all(texts[i] in missing for i in np.flatnonzero(np.isnan(values)).tolist())
    return values if is_missing else None


def _formatted_number(text: str, style: Format) -> float | None:
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    if infinite := INFINITE.fullmatch(text):
        return float(f"{infinite[1]}inf")
    without_sign = CURRENCY.fullmatch(text)
    if without_sign is None:
        return None
    sign, body = without_sign.groups()
    if sign and body[:1] in ("+", "-"):
        return None
    patterns, left_out = WRITTEN[style]
    if not any(pattern.fullmatch(body) for pattern in patterns):
        return None
    return float(sign + re.sub(left_out, "", body).replace(",", "."))


def _days(text: str) -> float | None:
    """Days since 1970-01-01 UTC of an ISO 8601 date (UTC where it names no offset), None for anything else."""
    if ISO_DATE.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / SECONDS_PER_DAY
