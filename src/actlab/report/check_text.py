"""The report of `actlab check` as plain text."""

from io import StringIO

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from actlab.data.check import CheckReport, ColumnReport


def render_check(report: CheckReport, width: int = 100) -> str:
    """Lay the report out as plain text, its table at most `width` characters wide."""
    lines = [*_head(report), "", *_table(report, width)]
    if report.suggested_targets:
        names = ", ".join(_printable(name) for name in report.suggested_targets)
        lines += ["", f"no target named; say which column to predict with --target NAME (numeric: {names})"]
    elif report.target is None:
        lines += ["", "no target named, and no numeric column that could be one"]
    lines += ["", f"{len(report.warnings)} warning{'s' if len(report.warnings) != 1 else ''}"]
    lines += [f"- {_printable(warning)}" for warning in report.warnings]
    return "\n".join(lines) + "\n"


def _head(report: CheckReport) -> list[str]:
    kinds = [column.kind for column in report.features]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    inputs = "" if report.n_inputs is None else f", {report.n_inputs} inputs of the network"
    lines = [_printable(f"{report.path}: {report.n_rows} rows, {len(kinds)} features ({counts}){inputs}")]
    if target := report.target:
        lines.append(
            f"target {_printable(target.name)}: {target.low:.6g} to {target.high:.6g}, median {target.median:.6g}; "
            f"training uses {report.scale.description}"
        )
    return lines


def _table(report: CheckReport, width: int) -> list[str]:
    table = RichTable("column", "role", "kind", "missing", "distinct", "values", box=box.MARKDOWN)
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[3:5]:
        column.justify = "right"
    for row in report.columns:
        texts = (row.name, row.role, row.kind, str(row.n_missing), str(row.n_distinct), _values(row))
        table.add_row(*(Text(_printable(text)) for text in texts))
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().strip().splitlines()]


def _values(column: ColumnReport) -> str:
    if column.role == "id":
        return ""
    if column.low is None or column.high is None:
        return f"mostly {column.most_frequent} ({column.n_most_frequent})"
    if column.kind == "date":
        return f"{_date(column.low)} to {_date(column.high)}"
    return f"{column.low:.6g} to {column.high:.6g}"


def _date(days: float) -> str:
    return str(np.datetime64(round(days * 86_400), "s")).replace("T00:00:00", "")


def _printable(text: str) -> str:
    """Control characters of a file must not reach the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
