"""One column at a time: what kind it is, and its cells as numbers or categories under that kind.

The kind is decided once, on the training file, and stored; files to predict on are read under it.
"""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from actlab.data.cells import Format, read_categories, read_numbers
from actlab.data.csv_reading import shown
from actlab.errors import InputError

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
