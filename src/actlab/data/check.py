"""What training would see in a CSV file: columns, kinds, missing cells, target, warnings."""

from dataclasses import dataclass
from io import StringIO
from typing import Literal

import numpy as np
import pandas as pd

from actlab.data.columns import Column
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.table import Table, read_table
from actlab.data.target import Target
from actlab.settings import DataSettings, TargetTransform

TARGET_NAMES = ("target", "y", "label", "price", "saleprice", "value", "outcome", "response")
N_SUGGESTED = 10


@dataclass(frozen=True)
class ColumnReport:
    """One column as it was read.

    Args:
        name: As in the header.
        role: What training uses it for.
        kind: `numeric`, `date`, `categorical`, `ordinal`, or `text` for an id.
        n_missing: Cells that are missing.
        n_distinct: Different values, without missing.
        low: Least value of a numeric column (days since 1970-01-01 for dates).
        high: Greatest value of a numeric column.
        most_frequent: The most frequent category of a column that is not numeric.
        n_most_frequent: How often it stands there.
    """

    name: str
    role: Literal["feature", "target", "id"]
    kind: str
    n_missing: int
    n_distinct: int
    low: float | None = None
    high: float | None = None
    most_frequent: str | None = None
    n_most_frequent: int = 0


@dataclass(frozen=True)
class TargetReport:
    """The target as it was read.

    Args:
        name: Of the column.
        low: Least value.
        median: Half of the values lie below.
        high: Greatest value.
        transform: What training does to it first.
    """

    name: str
    low: float
    median: float
    high: float
    transform: TargetTransform


@dataclass(frozen=True)
class CheckReport:
    """What `actlab check` found.

    Args:
        path: Of the CSV file.
        n_rows: Data rows.
        columns: Id and target (where there are any), then the features.
        target: None when no target was named.
        n_inputs: Inputs of the network after encoding, fitted on all rows; None when no target was named.
        suggested_targets: Numeric columns that could be meant, likeliest first; empty when a target was named.
        warnings: Sentences about what was unusual.
    """

    path: str
    n_rows: int
    columns: tuple[ColumnReport, ...]
    target: TargetReport | None
    n_inputs: int | None
    suggested_targets: tuple[str, ...]
    warnings: tuple[str, ...]


def check(settings: DataSettings) -> CheckReport:
    """Read the file as training would; without a target, suggest some.

    Raises:
        InputError: Training would refuse the file.
    """
    table = read_table(settings, require_target=False)
    columns = []
    if table.ids is not None:
        columns.append(_describe(str(table.ids.name), "id", "text", table.ids))
    if table.target is not None and settings.target is not None:
        columns.append(_describe(settings.target, "target", "numeric", pd.Series(table.target)))
    columns += [
        _describe(column.name, "feature", _kind(column), table.features[column.name]) for column in table.schema.columns
    ]
    n_inputs = None
    if table.target is not None:
        n_inputs = fit_preprocessor(table.features, table.schema, np.arange(table.n_rows), settings).n_features
    return CheckReport(
        str(settings.csv),
        table.n_rows,
        tuple(columns),
        _describe_target(table, settings.target_transform),
        n_inputs,
        () if table.target is not None else _suggest_targets(columns),
        table.warnings,
    )


def render(report: CheckReport, width: int = 100) -> str:
    """Lay the report out as plain text, its table at most `width` characters wide."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

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
    lines = [*_head(report), "", *(line.rstrip() for line in capture.get().strip().splitlines())]
    if report.suggested_targets:
        names = ", ".join(_printable(name) for name in report.suggested_targets)
        lines += ["", f"no target named; say which column to predict with --target NAME (numeric: {names})"]
    elif report.target is None:
        lines += ["", "no target named, and no numeric column that could be one"]
    lines += ["", f"{len(report.warnings)} warning{'s' if len(report.warnings) != 1 else ''}"]
    lines += [f"- {_printable(warning)}" for warning in report.warnings]
    return "\n".join(lines) + "\n"


def _head(report: CheckReport) -> list[str]:
    kinds = [column.kind for column in report.columns if column.role == "feature"]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    inputs = "" if report.n_inputs is None else f", {report.n_inputs} inputs of the network"
    lines = [_printable(f"{report.path}: {report.n_rows} rows, {len(kinds)} features ({counts}){inputs}")]
    if report.target is not None:
        target = report.target
        lines.append(
            f"target {_printable(target.name)}: {target.low:.6g} to {target.high:.6g}, median {target.median:.6g}; "
            f"training uses {Target.of(target.transform).description}"
        )
    return lines


def _kind(column: Column) -> str:
    return "date" if column.format == "iso_date" else column.kind


def _describe(name: str, role: Literal["feature", "target", "id"], kind: str, cells: pd.Series) -> ColumnReport:
    n_missing, n_distinct = int(cells.isna().sum()), int(cells.nunique())
    if kind in ("numeric", "date"):
        return ColumnReport(name, role, kind, n_missing, n_distinct, float(cells.min()), float(cells.max()))
    counts = cells.value_counts()
    return ColumnReport(
        name, role, kind, n_missing, n_distinct, most_frequent=str(counts.index[0]), n_most_frequent=int(counts.iloc[0])
    )


def _describe_target(table: Table, transform: TargetTransform) -> TargetReport | None:
    if table.target is None or table.schema.target is None:
        return None
    target = table.target
    return TargetReport(
        table.schema.target, float(target.min()), float(np.median(target)), float(target.max()), transform
    )


def _suggest_targets(columns: list[ColumnReport]) -> tuple[str, ...]:
    """Numeric columns: those named like a target, then the last columns, where targets mostly stand."""
    numeric = [column.name for column in columns if column.role == "feature" and column.kind == "numeric"]
    likeliest_first = sorted(reversed(numeric), key=lambda name: name.lower() not in TARGET_NAMES)
    return tuple(likeliest_first[:N_SUGGESTED])


def _values(column: ColumnReport) -> str:
    if column.role == "id":
        return ""
    if column.low is not None and column.high is not None:
        if column.kind == "date":
            return f"{_date(column.low)} to {_date(column.high)}"
        return f"{column.low:.6g} to {column.high:.6g}"
    return f"mostly {column.most_frequent} ({column.n_most_frequent})"


def _date(days: float) -> str:
    return str(np.datetime64(round(days * 86_400), "s")).replace("T00:00:00", "")


def _printable(text: str) -> str:
    """Control characters of a file must not reach the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
