"""The report of `actlab check` as plain text."""

import textwrap
from functools import partial

import numpy as np

from actlab.data.check import CheckReport, ColumnReport
from actlab.printed_tables import PrintedTable, TableColumn, as_text, text_column
from actlab.report.words import budget_sentence
from actlab.settings import CompareSettings
from actlab.verdict.race import Terms, default_budget


def render_check(report: CheckReport, width: int = 100, *, wraps: bool = False) -> str:
    """Lay the report out as plain text, its table at most `width` characters wide, and its sentences if it `wraps`."""
    kinds = [column.kind for column in report.features]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    inputs = "" if report.n_inputs is None else f", {report.n_inputs} inputs of the network"
    lines = [_printable(f"{report.path}: {report.n_rows} rows, {len(kinds)} features ({counts}){inputs}")]
    if target := report.target:
        lines.append(
            f"target {_printable(target.name)}: {target.low:.6g} to {target.high:.6g}, median {target.median:.6g}; "
            f"training uses {report.scale.description}"
        )
        lines.append(_what_a_comparison_shows())
    lines += ["", as_text(_table(report), width, has_edges=True)]
    if report.suggested_targets:
        names = ", ".join(_printable(name) for name in report.suggested_targets)
        lines += ["", f"no target named; say which column to predict with --target NAME (numeric: {names})"]
    elif report.target is None:
        lines += ["", "no target named, and no numeric column that could be one"]
    lines += ["", f"{len(report.warnings)} warning{'s' if len(report.warnings) != 1 else ''}"]
    lines += [f"- {_printable(warning)}" for warning in report.warnings]
    lines += [f"note: {_printable(note)}" for note in report.notes]
    lines += [
        f"note: of the date {_printable(column.name)} networks see: {', '.join(column.parts)} (data.dates changes it)"
        for column in report.features
        if column.parts
    ]
    if wraps:
        # words as they are: a command may be copied
        fill = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
        lines = [line if line.startswith("|") else fill(line, subsequent_indent="  ") for line in lines]
    return "\n".join(lines) + "\n"


def _what_a_comparison_shows() -> str:
    """The smallest difference that a comparison with all defaults is likely to find."""
    asked = CompareSettings()
    n_settings = len(asked.activations)
    terms = Terms.race(asked.folds, default_budget(asked.folds, n_settings), asked.rope)
    shown = budget_sentence(terms, n_settings, asked.folds)
    return f"a comparison of {n_settings} activations can show a difference, {shown}"


def _table(report: CheckReport) -> PrintedTable:
    columns = (
        *map(text_column, ("column", "role", "kind")),
        *(TableColumn(title, can_fold=True) for title in ("inputs", "missing", "distinct")),
        text_column("values"),
    )
    rows = (
        (
            *(_printable(row.name), row.role, "" if row.role == "left out" else _printable(_kind(row))),
            *(row.n_inputs or None, row.n_missing, row.n_distinct, _printable(_values(row))),
        )
        for row in report.columns
    )
    return PrintedTable.of(columns, rows)


def _kind(column: ColumnReport) -> str:
    return f"{column.kind}, {column.unit}" if column.unit else column.kind


def _values(column: ColumnReport) -> str:
    if column.role in ("id", "left out"):
        return column.kind if column.role == "left out" else ""
    if column.low is None or column.high is None:
        return f"mostly {column.most_frequent} ({column.n_most_frequent})"
    if column.kind == "date":
        # days since 1970
        low, high = (np.datetime64(round(days * 86_400), "s") for days in (column.low, column.high))
        return f"{low} to {high}".replace("T00:00:00", "")
    return f"{column.low:.6g} to {column.high:.6g}"


def _printable(text: str) -> str:
    """Control characters of a file must not reach the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
