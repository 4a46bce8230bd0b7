"""What the columns of a training file are: kinds, target and identifier, decided from their cells and the settings."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from actlab.data.cells import Format, category_name, looks_like_dates, read_categories, read_numbers
from actlab.data.columns import Cells, Column, format_warnings, read_column, refuse_infinite, similar
from actlab.data.csv_reading import CsvFile, shown
from actlab.errors import InputError
from actlab.settings import DataSettings

# A one-hot encoding grows no wider than this (plus a slot for all other categories and one for missing).
MAX_CATEGORIES = 100
# Squares of a plain target must stay far from the end of float32, in which networks and metrics compute.
MAX_PLAIN_TARGET = 1e15
ID_NAME = re.compile(r"(?i:id|index|unnamed: 0|.*[_ ]id)|.*[a-z]I[dD]")


def check_settings(settings: DataSettings, csv_file: CsvFile) -> dict[str, tuple[str, ...]]:
    """The ordinal columns with their categories, after making sure that the settings fit the header.

    Raises:
        InputError: A setting names a column that is not there, or one column twice.
    """
    roles: dict[str, str] = {}
    named = [
        *(("data.target", name) for name in [settings.target] if name is not None),
        *(("data.id", name) for name in [settings.id] if name is not None),
        *(("data.ordinal", name) for name in settings.ordinal),
        *(("data.categorical", name) for name in settings.categorical),
        *(("data.numeric", name) for name in settings.numeric),
    ]
    for role, name in named:
        if name not in csv_file.names:
            raise InputError(f"{csv_file.path} has no column {shown(name)} ({role}){similar(name, csv_file.names)}")
        if name in roles and roles[name] != role and (roles[name], role) != ("data.target", "data.numeric"):
            raise InputError(f"column {shown(name)} stands in {roles[name]} and in {role}; remove it from one")
        roles.setdefault(name, role)
    order = {name: tuple(map(category_name, names)) for name, names in settings.ordinal.items()}
    for name, categories in order.items():
        if len(set(categories)) < max(2, len(categories)):
            raise InputError(
                f"data.ordinal must list at least two categories of {shown(name)}, lowest first, none twice; "
                f"got {list(categories)}"
            )
    return order


def read_target(cells: Cells, settings: DataSettings, prefers_comma: bool) -> tuple[np.ndarray, list[str]]:
    """Read the (n_rows,) float64 target, and warnings.

    Raises:
        InputError: A cell is no number, missing, infinite, or not positive where a log is asked for; or all are equal.
    """
    found = infer_numeric(cells, prefers_comma)
    if found is None or found[0].format == "iso_date":
        bad = read_numbers(cells.texts, cells.missing).unreadable
        raise InputError(
            f"{cells.place(bad[0])}: the target must be a number, got {shown(cells.texts[bad[0]])} (so in {len(bad)} "
            f"of {len(cells.texts)} rows); correct the cells, or name another column with --data.target"
        )
    _, target, warnings = found
    is_missing = np.isnan(target)
    if is_missing.any():
        raise InputError(
            f"{cells.whole()}: the target is missing in {cells.line_list(is_missing)}; remove these rows or fill "
            "them in (a file to predict on needs no target)"
        )
    refuse_infinite(target, cells)
    if np.ptp(target) == 0:
        raise InputError(
            f"{cells.whole()}: the target is {target[0]:.12g} in every row, nothing can be learned; name another "
            "column with --data.target"
        )
    if settings.target_transform == "log" and (target <= 0).any():
        raise InputError(
            f"{cells.whole()}: the target must be > 0 to take its logarithm, but is not in "
            f"{cells.line_list(target <= 0)}; correct these rows, or train on the plain target with "
            "--data.target_transform none"
        )
    if settings.target_transform == "none" and np.abs(target).max() > MAX_PLAIN_TARGET:
        raise InputError(
            f"{cells.whole()}: the target exceeds {MAX_PLAIN_TARGET:g} in "
            f"{cells.line_list(np.abs(target) > MAX_PLAIN_TARGET)}; state it in a larger unit"
        )
    return target, warnings


def find_id(columns: Mapping[str, Cells], settings: DataSettings) -> str | None:
    """The first column that is named like an identifier and is a different text or integer in every row."""
    declared = {settings.target, *settings.categorical, *settings.numeric, *settings.ordinal}
    for name, cells in columns.items():
        if name in declared or not ID_NAME.fullmatch(name) or len(set(cells.texts)) < len(cells.texts):
            continue
        numbers = read_numbers(cells.texts, cells.missing)
        is_whole = bool(np.all(np.isfinite(numbers.parsed) & (np.round(numbers.parsed) == numbers.parsed)))
        if is_whole or numbers.unreadable.size == len(cells.texts):
            return name
    return None


def read_feature(
    cells: Cells, settings: DataSettings, order: Mapping[str, Sequence[str]], prefers_comma: bool
) -> tuple[Column, np.ndarray, list[str]]:
    """Decide the kind of one feature column and read its (n_rows,) cells, with warnings.

    Raises:
        InputError: The cells contradict the kind that the settings give, or one is infinite.
    """
    if cells.name in order:
        return infer_ordinal(cells, order[cells.name])
    if cells.name in settings.categorical:
        return infer_categorical(cells)
    found = infer_numeric(cells, prefers_comma)
    if found is not None:
        refuse_infinite(found[1], cells)
        return found
    if cells.name in settings.numeric:
        read_column(Column(cells.name, "numeric"), cells)  # raises, and names the first cell that is no number
    column, values, warnings = infer_categorical(cells)
    return column, values, [*mixed_warning(cells), *warnings]


def why_dropped(values: np.ndarray) -> str | None:
    """`is missing in every row`, `is the same in every row`, or None for a column that can be of use."""
    is_missing = pd.isna(values)
    if is_missing.all():
        return "is missing in every row"
    if not is_missing.any() and (values == values[0]).all():
        return "is the same in every row"
    return None


def infer_numeric(cells: Cells, prefers_comma: bool = False) -> tuple[Column, np.ndarray, list[str]] | None:
    """Read the cells in the one numeric format that fits all of them; None when none does.

    Args:
        cells: Of a training file.
        prefers_comma: Take `1,234` for 1.234 and not for 1234 (files separated by semicolons).
    """
    others: tuple[Format, ...] = ("decimal_comma", "iso_date")
    found = read_numbers(cells.texts, cells.missing)
    if found.unreadable.size or (found.formatted is not None and prefers_comma):
        trial = cells.texts[found.unreadable[0]] if found.unreadable.size else found.formatted or ""
        for style in others:
            if read_numbers([trial], cells.missing, style).unreadable.size:
                continue
            other = read_numbers(cells.texts, cells.missing, style)
            if not other.unreadable.size:
                column = Column(cells.name, "numeric", format=style)
                return column, other.parsed, format_warnings(cells, style, trial)
    if found.unreadable.size:
        return None
    return Column(cells.name, "numeric"), found.parsed, format_warnings(cells, "number", found.formatted)


def infer_categorical(cells: Cells) -> tuple[Column, np.ndarray, list[str]]:
    """Read the cells as categories, and warn when they look like something else."""
    values = read_categories(cells.texts, cells.missing)
    names = pd.unique(values[pd.notna(values)])
    warnings = []
    if len(names) > MAX_CATEGORIES:
        warnings.append(
            f"{cells.whole()} has {len(names)} categories; the {MAX_CATEGORIES} most frequent ones of the training "
            "rows get a column each, all others share one"
        )
    if looks_like_dates(names.tolist()):
        warnings.append(
            f"{cells.whole()} looks like dates ({shown(names[0])}); each is treated as a category of its own "
            "(dates written as 2024-12-31 are read as numbers of days)"
        )
    return Column(cells.name, "categorical"), values, warnings


def mixed_warning(cells: Cells) -> list[str]:
    """A warning when some but not all cells of a column of text are numbers."""
    numbers = read_numbers(cells.texts, cells.missing)
    n_numbers = int(np.isfinite(numbers.parsed).sum())
    if n_numbers == 0:
        return []
    row = int(numbers.unreadable[0])
    return [
        f"{cells.whole()} mixes {n_numbers} numbers with {len(numbers.unreadable)} other cells (first: "
        f"{shown(cells.texts[row])}, line {cells.lines[row]}); treated as categories (if that text means missing, "
        "add it to data.na_values)"
    ]


def infer_ordinal(cells: Cells, order: Sequence[str]) -> tuple[Column, np.ndarray, list[str]]:
    """Read the cells as the categories that the user put in order.

    Raises:
        InputError: A cell is neither missing nor one of them.
    """
    column = Column(cells.name, "ordinal", tuple(order))
    values, warnings = read_column(column, cells)
    is_unknown = pd.notna(values) & ~np.isin(values.astype(str), order)
    if is_unknown.any():
        row = int(np.flatnonzero(is_unknown)[0])
        raise InputError(
            f"{cells.place(row)}: {shown(values[row])} is not among the categories of data.ordinal "
            f"({', '.join(order)}); add it there in its place"
        )
    return column, values, warnings
