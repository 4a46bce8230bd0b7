"""What training would see in a CSV file: columns, kinds, missing cells, target, warnings."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from actlab.data.preprocessing import DateRule, Rule, fit_preprocessor
from actlab.data.table import Table, read_table
from actlab.data.target import Target
from actlab.run_files import jsonable
from actlab.settings import DataSettings

TARGET_NAMES = ("target", "y", "label", "price", "saleprice", "value", "outcome", "response")
N_SUGGESTED = 10
Role = Literal["feature", "target", "id", "left out"]
# Rows that stand for all when inputs are counted, besides those in which something is first seen.
COUNTED_ROWS = 5000


@dataclass(frozen=True)
class ColumnReport:
    """One column as it was read.

    Args:
        kind: `numeric`, `percent`, `date`, `duration`, `categorical`, `ordinal`, or `text` for an id; of one that is
            left out, why it is. `unit` is that of its numbers, or the finest part of its dates.
        n_missing, n_distinct: Cells without a value, and different values; None where it is left out.
        low, median, high: Of numbers, and of dates as days since 1970-01-01.
        most_frequent: Category of a column of another kind, `n_most_frequent` times there.
        n_inputs: Inputs of the network that are made of it.
        parts: Of a date what networks see of it: `days` since 1970, and cyclic parts of the calendar.
    """

    name: str
    role: Role
    kind: str
    n_missing: int | None = None
    n_distinct: int | None = None
    low: float | None = None
    median: float | None = None
    high: float | None = None
    most_frequent: str | None = None
    n_most_frequent: int = 0
    n_inputs: int = 0
    unit: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What `actlab check` found.

    Args:
        columns: Id and target (where there are any), then the features, and what is left out.
        n_inputs: Inputs of the network after encoding, fitted on all rows; None when no target was named.
        suggested_targets: Numeric columns that could be meant, likeliest first; empty when a target was named.
        warnings: Sentences about what was unusual, most harmful first.
        notes: Sentences about what is usual, and to be known.
    """

    path: str
    n_rows: int
    columns: tuple[ColumnReport, ...]
    scale: Target
    n_inputs: int | None
    suggested_targets: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as `check --json` prints them."""
        return dict(jsonable({**asdict(self), "scale": self.scale.transform}))

    @property
    def features(self) -> tuple[ColumnReport, ...]:
        """The columns that networks see."""
        return tuple(column for column in self.columns if column.role == "feature")

    @property
    def target(self) -> ColumnReport | None:
        """The column to predict, None when none was named."""
        return next((column for column in self.columns if column.role == "target"), None)


def check(settings: DataSettings) -> CheckReport:
    """Read the file as training would, which may raise an `InputError`; without a target, suggest some."""
    table = read_table(settings, require_target=False)
    columns, rules = [], dict[str, Rule]()
    if table.ids is not None:
        columns.append(_describe(str(table.ids.name), "id", "text", table.ids))
    if table.target is not None and settings.target is not None:
        columns.append(_describe(settings.target, "target", "numeric", pd.Series(table.target)))
        fitted = fit_preprocessor(table.features, table.schema, _first_seen(table), settings, table.target)
        rules = {rule.name: rule for rule in fitted.rules}
    for column in table.schema.columns:
        is_plain = column.kind != "numeric" or column.format == "number"
        kind, values = column.kind if is_plain else column.format, table.features[column.name]
        described = replace(_describe(column.name, "feature", kind, values), unit=column.unit)
        columns.append(_with_inputs(described, rules.get(column.name)))
    columns += [ColumnReport(name, "left out", reason) for name, reason in table.left_out.items()]
    numeric = [c.name for c in columns if c.role == "feature" and c.kind == "numeric" and table.target is None]
    # those named like a target, then the last columns, where targets mostly stand
    likeliest_first = sorted(reversed(numeric), key=lambda name: name.lower() not in TARGET_NAMES)
    return CheckReport(
        str(settings.csv),
        table.n_rows,
        tuple(columns),
        Target.of(settings.target_transform),
        sum(len(rule.feature_names) for rule in rules.values()) if table.target is not None else None,
        tuple(likeliest_first[:N_SUGGESTED]),
        table.warnings,
        table.notes,
    )


def _with_inputs(report: ColumnReport, rule: Rule | None) -> ColumnReport:
    """The report with what networks see of the column; without a target it is not known."""
    if rule is None:
        return report
    parts = (*["days"] * rule.has_days, *rule.parts) if isinstance(rule, DateRule) else ()
    return replace(report, n_inputs=len(rule.feature_names), parts=parts)


def _first_seen(table: Table) -> np.ndarray:
    """Positions of rows that need as many inputs as all: some evenly spaced ones, and those in which a category (of a
    column with few) or a missing cell is first seen."""
    if table.n_rows <= COUNTED_ROWS:
        return np.arange(table.n_rows)
    rows = {*np.linspace(0, table.n_rows - 1, COUNTED_ROWS).astype(int).tolist()}
    for column in table.schema.columns:
        values = table.features[column.name]
        rows.update(np.flatnonzero(values.isna())[:1].tolist())
        if column.kind != "numeric":
            rows.update(np.flatnonzero(~values.duplicated())[:COUNTED_ROWS].tolist())
    return np.array(sorted(rows))


def _describe(name: str, role: Role, kind: str, values: pd.Series) -> ColumnReport:
    codes, distinct = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=1)
    report = ColumnReport(name, role, kind, len(values) - int(counts.sum()), len(distinct))
    if values.dtype == np.float64:
        return replace(report, low=float(values.min()), median=float(values.median()), high=float(values.max()))
    most = int(counts.argmax())
    return replace(report, most_frequent=str(distinct[most]), n_most_frequent=int(counts[most]))
