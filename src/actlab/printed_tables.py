"""A table for people: described once, drawn for the terminal and in Markdown, and by the report's template in HTML."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Literal, TypeGuard

if TYPE_CHECKING:
    from rich.console import RenderableType

# Columns of output that is no terminal, which has no width of its own.
WIDTH = 100

# `good` and `bad` are verdicts, `open` one that could not be given, `lost` counts what went wrong.
Tone = Literal["", "good", "bad", "open", "lost", "faint"]
TERMINAL_STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "open": "yellow", "lost": "red", "faint": "dim"}


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value can be written as a number: None, nan and infinity cannot."""
    return isinstance(value, int | float) and math.isfinite(value)


def is_quantity(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number and no truth value, which Python takes for one."""
    return is_number(value) and not isinstance(value, bool)


@dataclass(frozen=True)
class TableCell:
    """One entry: a page sorts rows by `value`, empty ones last; a renderer draws its dash where `text` is None."""

    text: str | None
    value: str = ""
    tone: Tone = ""


EMPTY = TableCell(None)


def text_cell(text: object, tone: Tone = "") -> TableCell:
    """Words, sorted as such."""
    return TableCell(str(text), str(text), tone)


def number_cell(value: object, text: str, tone: Tone = "") -> TableCell:
    """A number that is read as `text`; a dash where it is none."""
    return TableCell(text, repr(float(value)), tone) if is_number(value) else EMPTY


@dataclass(frozen=True)
class TableColumn:
    """A heading, and how what stands under it is written.

    Args:
        format: Of its numbers: a format specification, or a function.
        is_number: Numbers stand on the right and are sorted by value, words on the left.
        can_fold: Whether entries may take several lines where a terminal is narrow; others are never cut before these.
        width: The most characters that an entry takes in one line; where it `is_fixed`, always these.
        is_minor: Left out where a terminal is too narrow for it, the last such column first.
    """

    title: str
    format: str | Callable[[float], str] = ""
    is_number: bool = True
    can_fold: bool = False
    width: int | None = None
    is_fixed: bool = False
    is_minor: bool = False

    def cell(self, value: object) -> TableCell:
        """An entry from a number, a text that stays as it is, or a whole cell."""
        if isinstance(value, TableCell):
            return value
        if not self.is_number or isinstance(value, str):
            return text_cell(value)
        if not is_number(value):
            return EMPTY
        return number_cell(value, self.format(value) if callable(self.format) else format(value, self.format))


text_column = partial(TableColumn, is_number=False, can_fold=True)


@dataclass(frozen=True)
class TableRow:
    cells: tuple[TableCell, ...]
    is_bold: bool = False


@dataclass(frozen=True)
class PrintedTable:
    """What a table says: rows with a cell for each column, a note under them, and the table's id on a page."""

    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    name: str = ""
    note: str = ""

    @classmethod
    def of(
        cls,
        columns: Sequence[TableColumn],
        rows: Iterable[Sequence[object]],
        *,
        name: str = "",
        note: str = "",
        bold: Collection[int] = (),
    ) -> "PrintedTable":
        """A table from values that its columns write; `bold` are the places of rows that stand out, from 0."""
        made = (
            TableRow(tuple(column.cell(value) for column, value in zip(columns, row, strict=True)), place in bold)
            for place, row in enumerate(rows)
        )
        return cls(tuple(columns), tuple(made), name, note)

    def without(self, title: str, note: str | None = None) -> "PrintedTable":
        """The same without a column, and with a note of its own where one is given."""
        place = [column.title for column in self.columns].index(title)
        rows = tuple(replace(row, cells=row.cells[:place] + row.cells[place + 1 :]) for row in self.rows)
        columns = self.columns[:place] + self.columns[place + 1 :]
        return replace(self, columns=columns, rows=rows, note=self.note if note is None else note)

    @property
    def width(self) -> int:
        """Characters of a line, two blanks between columns, where nothing is folded that needs not be."""
        texts = [[column.title, *(_shown(row.cells[n]) for row in self.rows)] for n, column in enumerate(self.columns)]
        widest = [max(map(len, own)) for own in texts]
        taken = [c.width if c.is_fixed else min(w, c.width or w) for w, c in zip(widest, self.columns, strict=True)]
        return sum(w or 0 for w in taken) + 2 * (len(taken) - 1)

    def within(self, width: int) -> "PrintedTable":
        """The same in lines of so many characters, as far as leaving out minor columns makes it so."""
        minor = [column.title for column in self.columns if column.is_minor]
        return self if self.width <= width or not minor else self.without(minor[-1]).within(width)


def print_with_sentences(table: PrintedTable, answer: str = "", sentences: Iterable[str] = ()) -> None:
    """To stdout, as wide as the terminal or `WIDTH` columns where there is none; the answer in bold."""
    from rich.console import Console
    from rich.text import Text

    out = Console(width=None if Console().is_terminal else WIDTH)
    out.print(for_terminal(table.within(out.width)))
    if answer:
        out.print(Text(answer, style="bold"))
    for sentence in sentences:
        out.print(Text(sentence))


def print_table(table: PrintedTable) -> None:
    """To stdout: within a terminal's width; in lines as long as they are where there is no terminal."""
    from rich.console import Console

    if Console().is_terminal:
        print_with_sentences(table)
    else:
        print(as_text(table, width=100_000))


def as_markdown(table: PrintedTable) -> str:
    """The lines of Markdown, without the note."""
    head = [column.title for column in table.columns]
    line = ["---:" if column.is_number else "---" for column in table.columns]
    rows = [[_shown(cell) for cell in row.cells] for row in table.rows]
    return "\n".join(f"| {' | '.join(texts)} |" for texts in (head, line, *rows))


def as_text(table: PrintedTable, width: int = WIDTH, *, has_edges: bool = False) -> str:
    """As on a terminal so wide, without colours; with edges its lines are those of Markdown."""
    from rich.console import Console

    plain = Console(file=StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with plain.capture() as capture:
        plain.print(for_terminal(table.within(width), has_edges=has_edges))
    # what lies above and below a table without such edges is blank
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def for_terminal(table: PrintedTable, *, has_edges: bool = False) -> "RenderableType":
    """What rich prints, the note under it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if has_edges:
        drawn = Table(box=box.MARKDOWN)
    for column in table.columns:
        drawn.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            no_wrap=not column.can_fold,
            overflow="fold" if column.can_fold else "ellipsis",
            max_width=column.width,
            min_width=column.width if column.is_fixed else None,
        )
    for row in table.rows:
        texts = (Text(_shown(cell), TERMINAL_STYLES.get(cell.tone, "")) for cell in row.cells)
        drawn.add_row(*texts, style="bold" if row.is_bold else None)
    return Group(drawn, Text(table.note, style="italic")) if table.note else drawn


def _shown(cell: TableCell) -> str:
    return "-" if cell.text is None else cell.text
