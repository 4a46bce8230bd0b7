"""What training would see in a CSV file: columns, kinds, missing cells, target, warnings."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from actlab.data.preprocessing import fit_preprocessor
from actlab.data.table import read_table
from actlab.data.target import Target
from actlab.settings import DataSettings

TARGET_NAMES = ("target", "y", "label", "price", "saleprice", "value", "outcome", "response")
N_SUGGESTED = 10
Role = Literal["feature", "target", "id"]


@dataclass(frozen=True)
class ColumnReport:
    """One column as it was read.

    Args:
        kind: `numeric`, `date`, `categorical`, `ordinal`, or `text` for an id.
        n_distinct: Different values, without missing.
        low, median, high: Of numbers, and of dates as days since 1970-01-01.
        most_frequent: Category of a column of another kind, `n_most_frequent` times there.
    """

    name: str
    role: Role
    kind: str
    n_missing: int
    n_distinct: int
    low: float | None = None
    median: float | None = None
    high: float | None = None
    most_frequent: str | None = None
    n_most_frequent: int = 0


@dataclass(frozen=True)
class CheckReport:
    """What `actlab check` found.

    Args:
        columns: Id and target (where there are any), then the features.
        n_inputs: Inputs of the network after encoding, fitted on all rows; None when no target was named.
        suggested_targets: Numeric columns that could be meant, likeliest first; empty when a target was named.
        warnings: Sentences about what was unusual.
    """

    path: str
    n_rows: int
    columns: tuple[ColumnReport, ...]
    scale: Target
    n_inputs: int | None
    suggested_targets: tuple[str, ...]
    warnings: tuple[str, ...]

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
    columns, n_inputs = [], None
    if table.ids is not None:
        columns.append(_describe(str(table.ids.name), "id", "text", table.ids))
    if table.target is not None and settings.target is not None:
        columns.append(_describe(settings.target, "target", "numeric", pd.Series(table.target)))
        n_inputs = fit_preprocessor(table.features, table.schema, np.arange(table.n_rows), settings).n_features
    for column in table.schema.columns:
        kind = "date" if column.format == "date" else column.kind
        columns.append(_describe(column.name, "feature", kind, table.features[column.name]))
    numeric = [c.name for c in columns if c.role == "feature" and c.kind == "numeric" and table.target is None]
    # those named like a target, then the last columns, where targets mostly stand
    likeliest_first = sorted(reversed(numeric), key=lambda name: name.lower() not in TARGET_NAMES)
    suggested, scale = tuple(likeliest_first[:N_SUGGESTED]), Target.of(settings.target_transform)
    return CheckReport(str(settings.csv), table.n_rows, tuple(columns), scale, n_inputs, suggested, table.warnings)


def _describe(name: str, role: Role, kind: str, values: pd.Series) -> ColumnReport:
    report = ColumnReport(name, role, kind, int(values.isna().sum()), int(values.nunique()))
    if kind in ("numeric", "date"):
        return replace(report, low=float(values.min()), median=float(values.median()), high=float(values.max()))
    counts = values.value_counts()
    return replace(report, most_frequent=str(counts.index[0]), n_most_frequent=int(counts.iloc[0]))
