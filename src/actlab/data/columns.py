"""One column: from its cells' texts to numbers, days or categories under the kind that the training file decided.

From the text of one column's cells to numbers, days or categories.

All rules work on the distinct texts of a column, so their cost per row is a hash look-up.

One column at a time: what kind it is, and its cells as numbers or categories under that kind.

The kind is decided once, on the training file, and stored; files to predict on are read under it.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from actlab.data.csv_file import shown
from actlab.errors import InputError

Format = Literal["number", "decimal_comma", "iso_date"]

PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INFINITE = re.compile(r"([+-]?)inf(inity)?", re.IGNORECASE)
# 1,234,567.8 or 1'234 or 1 234 (also with the no-break spaces that spreadsheets write)
GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,'\u2019 \u00a0\u202f])\d{3})(?:\1\d{3})*(\.\d*)?", re.ASCII)
# 1234,5 or 1.234,5 or 1.234.567
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(?:([.'\u2019 \u00a0\u202f])\d{3})(?:\2\d{3})*)(,\d+)?", re.ASCII)
CURRENCY = re.compile(r"([+-]?)\s*(?:[$€£¥]|USD|EUR|GBP)?\s*(.*?)\s*(?:[$€£¥]|USD|EUR|GBP)?")
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
OTHER_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( \d\d:\d\d(:\d\d)?)?", re.ASCII)
# Longer texts are no numbers; the patterns need not be tried on them.
MAX_NUMBER_LENGTH = 400
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Numbers:
    """One column read as numbers.

    Args:
        parsed: (n_rows,) float64, NaN where the cell is missing or unreadable.
        unreadable: Positions of the cells that are neither missing nor a number.
        formatted: The first text that is a number only without its currency sign or thousands separators.
    """

    parsed: np.ndarray
    unreadable: np.ndarray
    formatted: str | None = None


def read_numbers(cells: Sequence[str], missing: Collection[str], style: Format = "number") -> Numbers:
    """Read (n_rows,) cell texts as float64; days since 1970-01-01 UTC for `iso_date`."""
    if style == "number":
        values = _plain_numbers(cells, missing)
        if values is not None:
            return Numbers(values, np.empty(0, dtype=np.intp))
    codes, texts = _distinct(cells)
    is_missing = np.array([text in missing for text in texts], dtype=bool)
    readings = [_days(text) if style == "iso_date" else _formatted_number(text, style) for text in texts]
    values = np.array([np.nan if value is None else value for value in readings], dtype=np.float64)
    is_bad = np.array([value is None for value in readings], dtype=bool) & ~is_missing
    values[is_missing] = np.nan
    formatted = [
        text
        for text, value, gone in zip(texts, readings, is_missing, strict=True)
        if style == "number" and value is not None and not gone and not _is_plain(text)
    ]
    return Numbers(values[codes], np.flatnonzero(is_bad[codes]), formatted[0] if formatted else None)


def read_categories(cells: Sequence[str], missing: Collection[str]) -> np.ndarray:
    """Read (n_rows,) cell texts as an object array of category names, None where missing."""
    codes, texts = _distinct(cells)
    names = np.empty(len(texts), dtype=object)
    names[:] = [None if text in missing else category_name(text) for text in texts]
    return np.asarray(names[codes], dtype=object)


def category_name(text: str) -> str:
    """The text itself; `3.0` becomes `3`, since a missing cell elsewhere turns integer codes into floats on export."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text.strip())


def looks_like_dates(categories: Sequence[str]) -> bool:
    """True when every name looks like a date in some order of day, month and year."""
    return len(categories) > 0 and all(OTHER_DATE.fullmatch(name) for name in categories)


def _distinct(cells: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    as_objects = np.empty(len(cells), dtype=object)
    as_objects[:] = list(cells)
    codes, texts = pd.factorize(as_objects)
    return codes, [text.strip() for text in texts]


def _is_plain(text: str) -> bool:
    return PLAIN.fullmatch(text) is not None or INFINITE.fullmatch(text) is not None


def _plain_numbers(cells: Sequence[str], missing: Collection[str]) -> np.ndarray | None:
    """The fast way: float() of every cell; None as soon as one cell needs a closer look."""
    joined = "".join(cells)
    if "_" in joined or not joined.isascii():  # float() takes 1_000 and digits of any script
        return None
    stand_in = dict.fromkeys(missing, "nan")
    try:
        values = np.array([float(stand_in.get(cell, cell)) for cell in cells], dtype=np.float64)
    except ValueError:
        return None
    is_missing = all(cells[i] in missing for i in np.flatnonzero(np.isnan(values)).tolist())
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
    if style == "decimal_comma":
        match = DECIMAL_COMMA.fullmatch(body)
        return None if match is None else float(sign + re.sub(r"[^\d,+-]", "", body).replace(",", "."))
    if PLAIN.fullmatch(body):
        return float(sign + body)
    return float(sign + re.sub(r"[^\d.+-]", "", body)) if GROUPED.fullmatch(body) else None


def _days(text: str) -> float | None:
    """Days since 1970-01-01 UTC of an ISO 8601 date (UTC where it names no offset), None for anything else."""
    if ISO_DATE.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / SECONDS_PER_DAY


Kind = Literal["numeric", "categorical", "ordinal"]
N_SHOWN_LINES = 5


@dataclass(frozen=True)
class Column:
    """One feature column.

    Args:
        name: As in the header.
        kind: `numeric` cells are float64 with NaN for missing; the others are text with None for missing.
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
        state = asdict(self)
        return {
            **state,
            "columns": [{**column, "categories": list(column["categories"])} for column in state["columns"]],
            "na_values": list(self.na_values),
            "dropped": list(self.dropped),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Schema":
        """The schema that `to_dict` described."""
        columns = (Column(**{**column, "categories": tuple(column["categories"])}) for column in state["columns"])
        return cls(
            tuple(columns), state["target"], state["id"], tuple(state["na_values"]), tuple(state.get("dropped", ()))
        )


@dataclass(frozen=True)
class Cells:
    """The cells of one column and where they stand.

    Args:
        name: Of the column.
        texts: (n_rows,) cells as in the file.
        lines: (n_rows,) line numbers in the file.
        path: Of the file.
        missing: Texts that mean "missing".
    """

    name: str
    texts: Sequence[str]
    lines: np.ndarray
    path: str
    missing: Collection[str]

    def place(self, row: int) -> str:
        """`file, line 12, column 'price'`, to begin a message with."""
        return f"{self.path}, line {self.lines[row]}, column {shown(self.name)}"

    def whole(self) -> str:
        """`file, column 'price'`, to begin a message with."""
        return f"{self.path}, column {shown(self.name)}"

    def line_list(self, is_meant: np.ndarray) -> str:
        """`line 3`, or `lines 3, 7 and 12 more`, of the rows that are meant."""
        lines = self.lines[is_meant]
        first = ", ".join(str(line) for line in lines[:N_SHOWN_LINES])
        more = f" and {len(lines) - N_SHOWN_LINES} more" if len(lines) > N_SHOWN_LINES else ""
        return f"line{'s' if len(lines) > 1 else ''} {first}{more}"


def read_column(column: Column, cells: Cells) -> tuple[np.ndarray, list[str]]:
    """Read (n_rows,) cells under a known kind: float64 with NaN, or objects (str or None), and warnings.

    Raises:
        InputError: A cell of a numeric column cannot be read as a number, or is infinite.
    """
    if column.kind != "numeric":
        # a text that the user lists as a category is one, even if it means "missing" elsewhere (NA in BsmtQual)
        return read_categories(cells.texts, set(cells.missing) - set(column.categories)), []
    numbers = read_numbers(cells.texts, cells.missing, column.format)
    if numbers.unreadable.size:
        row = int(numbers.unreadable[0])
        expected = {
            "number": "a number",
            "decimal_comma": "a number with a decimal comma, as in training,",
            "iso_date": "a date like 2024-12-31",
        }
        raise InputError(
            f"{cells.place(row)}: {shown(cells.texts[row])} is not {expected[column.format]}; correct the cell, "
            "or leave it empty if the value is missing"
        )
    refuse_infinite(numbers.parsed, cells)
    return numbers.parsed, format_warnings(cells, column.format, numbers.formatted)


def refuse_infinite(values: np.ndarray, cells: Cells) -> None:
    """Raise an `InputError` when a cell is infinite or too large for a float64."""
    rows = np.flatnonzero(np.isinf(values))
    if rows.size:
        row = int(rows[0])
        raise InputError(
            f"{cells.place(row)}: {shown(cells.texts[row])} is infinite; correct the cell, or leave it empty if the "
            "value is missing"
        )


def similar(name: str, names: Sequence[str]) -> str:
    """`; did you mean 'SalePrice'?`, or the columns there are, to end a message with."""
    folded = {other.casefold(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=3)
    if close:
        return f"; did you mean {' or '.join(shown(folded[key]) for key in close)}?"
    return f"; its columns are {', '.join(shown(other) for other in names[:10])}{', ...' if len(names) > 10 else ''}"


def format_warnings(cells: Cells, style: Format, example: str | None) -> list[str]:
    """What to say about a column whose cells, like `example`, are numbers only in the given format."""
    if example is None:
        return []
    value = f"{read_numbers([example], cells.missing, style).parsed[0]:.12g}"
    if style == "iso_date":
        return [f"{cells.whole()} holds dates; read as days since 1970-01-01 ({shown(example)} is {value})"]
    comma = " with decimal comma" if style == "decimal_comma" else ""
    return [f"{cells.whole()} holds numbers written as text{comma}; {shown(example)} is read as {value}"]
