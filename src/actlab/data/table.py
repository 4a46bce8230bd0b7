"""A CSV file as a table: checked feature columns, target and row ids, for training and for prediction.

What the columns of a training file are: kinds, target and identifier, decided from their cells and the settings.

What a column is (number, category, order, identifier) is decided on the training file and kept in a `Schema`; rows to
predict on are read under it, in blocks if the file is large. Whatever is wrong with the file is one `InputError` that
names file, line or column and the repair.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from actlab.data.columns import (
    Cells,
    Column,
    Format,
    Schema,
    category_name,
    format_warnings,
    looks_like_dates,
    read_categories,
    read_column,
    read_numbers,
    refuse_infinite,
    similar,
)
from actlab.data.csv_file import Block, CsvFile, PackedTexts, iterate_blocks, listed, open_csv, shown
from actlab.data.target import Target
from actlab.errors import InputError
from actlab.settings import DataSettings

# A one-hot encoding grows no wider than this (plus a slot for all other categories and one for missing).
MAX_CATEGORIES = 100
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
    scale = Target.of(settings.target_transform)
    is_usable = scale.is_usable(target)
    if not is_usable.all():
        raise InputError(f"{cells.whole()}: the target {scale.rule} {cells.line_list(~is_usable)}; {scale.repair}")
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


# of cells that are split off a file at a time, as Python's own texts
BLOCK_CELLS = 1 << 21


@dataclass(frozen=True)
class Table:
    """Rows of one file.

    Args:
        features: One column per schema column, in that order: float64 with NaN for numeric ones, else objects (str,
            None where missing).
        target: (n_rows,) float64, None where none was named or needed.
        ids: (n_rows,) text as in the file, None without an id column.
        schema: How the columns were read.
        warnings: Sentences about what was unusual; in a stream each appears once.
        content_hash: SHA-256 of the bytes of the file, in hexadecimal.
    """

    features: pd.DataFrame
    target: np.ndarray | None
    ids: pd.Series | None
    schema: Schema
    warnings: tuple[str, ...]
    content_hash: str

    @property
    def n_rows(self) -> int:
        """Number of data rows."""
        return len(self.features)


def read_table(settings: DataSettings, require_target: bool = True) -> Table:
    """Read a file to train on and decide what each column is.

    A column is an identifier if it is named like one and differs in every row; numeric if every cell that is not
    missing is a number (also with thousands separators, currency signs, decimal commas, or ISO dates: warned of);
    otherwise categorical. The lists in `settings` overrule this. Constant and wholly missing columns are left out.

    Args:
        settings: Names the file, the target and exceptions.
        require_target: Refuse settings without a target; otherwise such a table has no target.

    Raises:
        InputError: The file, a column or a setting is unusable.
    """
    if settings.csv is None:
        raise InputError("data.csv is not set; name a CSV file with --data.csv FILE")
    csv_file = open_csv(settings.csv)
    order = check_settings(settings, csv_file)
    columns = _read_cells(csv_file, settings.na_values)
    n_rows = len(columns[0].lines)
    if settings.target is None and require_target:
        numeric = [cells.name for cells in columns if not read_numbers(cells.texts, cells.missing).unreadable.size]
        raise InputError(
            f"{csv_file.path}: no target is named; name the column to predict with --data.target NAME (numeric "
            f"columns: {listed(numeric, 20) or 'none'})"
        )
    if n_rows < 2:
        raise InputError(f"{csv_file.path} has a single data row; at least 2 are needed to train")
    prefers_comma = csv_file.delimiter == ";"
    by_name = {cells.name: cells for cells in columns}
    target: np.ndarray | None = None
    target_warnings: list[str] = []
    if settings.target is not None:
        target, target_warnings = read_target(by_name[settings.target], settings, prefers_comma)
    id_name = settings.id or find_id(by_name, settings)
    ids, id_warnings = _ids(by_name.get(id_name or ""))
    inputs = [cells for cells in columns if cells.name not in (settings.target, id_name)]
    del columns, by_name
    kept, dropped, feature_warnings = _read_features(inputs, settings, order, prefers_comma)
    if not kept:
        raise InputError(f"{csv_file.path} has no feature column that varies, besides target and id; add one")
    schema = Schema(tuple(c for c, _, _ in kept), settings.target, id_name, tuple(settings.na_values), dropped)
    warnings = [*csv_file.warnings, *target_warnings, *id_warnings, *feature_warnings]
    if len(kept) > n_rows:
        warnings.append(f"{csv_file.path} has more feature columns ({len(kept)}) than rows ({n_rows})")
    features = _frame(schema, [values for _, values, _ in kept])
    return Table(features, target, ids, schema, tuple(warnings), csv_file.sha256)


def read_rows(path: str, schema: Schema, chunk_rows: int | None = None) -> Iterator[Table]:
    """Read a file to predict on, under the schema of the training file.

    The target is ignored, as are columns that are not in the schema (warned of). A feature column that is absent is
    all missing (warned of).

    Args:
        path: Of the CSV file.
        schema: Of the training file.
        chunk_rows: Yield tables of at most so many rows, in bounded memory; all rows at once when None.

    Raises:
        InputError: At once if the file or its header is unusable; while iterating if a row or a cell is.
    """
    if chunk_rows is not None and chunk_rows < 1:
        raise InputError(f"chunk_rows must be at least 1, got chunk_rows={chunk_rows}")
    csv_file = open_csv(path)
    header_warnings = _compare_header(csv_file, schema)
    return _tables(csv_file, schema, chunk_rows, [*csv_file.warnings, *header_warnings])


Found = tuple[Column, np.ndarray, list[str]]


def _read_cells(csv_file: CsvFile, na_values: Sequence[str]) -> list[Cells]:
    """All columns of the file as text."""
    parts = [PackedTexts() for _ in csv_file.names]
    lines = []
    for block in iterate_blocks(csv_file, max(1, BLOCK_CELLS // len(parts))):
        lines.append(block.lines)
        for part, cells in zip(parts, block.columns, strict=True):
            part.extend(cells)
    if not lines:
        raise InputError(f"{csv_file.path} has a header but no data row; add rows")
    missing = _missing(na_values)
    return [
        Cells(name, part, np.concatenate(lines), csv_file.path, missing)
        for name, part in zip(csv_file.names, parts, strict=True)
    ]


def _missing(na_values: Sequence[str]) -> frozenset[str]:
    return frozenset({"", *(text.strip() for text in na_values)})


def _read_features(
    inputs: list[Cells], settings: DataSettings, order: Mapping[str, Sequence[str]], prefers_comma: bool
) -> tuple[list[Found], tuple[str, ...], list[str]]:
    """The columns that can be of use, the names of the others, and the warnings about both.

    `inputs` is emptied on the way: the texts of a column take twice the room of its numbers.
    """
    kept, dropped, warnings = [], [], []
    inputs.reverse()
    while inputs:
        cells = inputs.pop()
        column, values, said = read_feature(cells, settings, order, prefers_comma)
        reason = why_dropped(values)
        if reason is None:
            kept.append((column, values, said))
            warnings.extend(said)
        else:
            dropped.append(column.name)
            warnings.append(f"{cells.whole()} {reason}; left out")
    return kept, tuple(dropped), warnings


def _ids(cells: Cells | None) -> tuple[pd.Series | None, list[str]]:
    if cells is None:
        return None, []
    warnings = []
    if len(set(cells.texts)) < len(cells.texts):
        warnings.append(f"{cells.whole()} is the id, but the same in several rows")
    return pd.Series(list(cells.texts), dtype=object, name=cells.name), warnings


def _frame(schema: Schema, values: Sequence[np.ndarray]) -> pd.DataFrame:
    series = {
        column.name: pd.Series(cells, dtype=np.float64 if column.kind == "numeric" else object)
        for column, cells in zip(schema.columns, values, strict=True)
    }
    # each column stays where it is: one block of all of them would be a second copy of the table
    return pd.DataFrame(series, copy=False)


def _compare_header(csv_file: CsvFile, schema: Schema) -> list[str]:
    """Warnings about absent and additional columns.

    Raises:
        InputError: Not one feature column is there.
    """
    wanted = [column.name for column in schema.columns]
    absent = [name for name in wanted if name not in csv_file.names]
    known = {*wanted, *schema.dropped, schema.target, schema.id}
    extra = [name for name in csv_file.names if name not in known]
    if len(absent) == len(wanted):
        raise InputError(
            f"{csv_file.path} has none of the {len(wanted)} feature columns of the model ({listed(wanted)}); its "
            f"columns are {listed(list(csv_file.names))}"
        )
    warnings = []
    if absent:
        warnings.append(f"{csv_file.path} lacks columns {listed(absent)}: taken as missing in every row")
    if extra:
        warnings.append(f"{csv_file.path} has columns unknown to the model, ignored: {listed(extra)}")
    return warnings


def _tables(csv_file: CsvFile, schema: Schema, chunk_rows: int | None, header_warnings: list[str]) -> Iterator[Table]:
    warnings, warned = header_warnings, set[str]()
    missing = _missing(schema.na_values)
    blocks = iterate_blocks(csv_file, chunk_rows or sys.maxsize)
    is_empty = True
    for block in blocks:
        is_empty = False
        values = []
        for column in schema.columns:
            cells, said = _read_block_column(column, block, csv_file, missing)
            values.append(cells)
            if said and column.name not in warned:
                warned.add(column.name)
                warnings.extend(said)
        ids = None
        if schema.id is not None and schema.id in csv_file.names:
            ids = pd.Series(list(block.columns[csv_file.names.index(schema.id)]), dtype=object, name=schema.id)
        yield Table(_frame(schema, values), None, ids, schema, tuple(warnings), csv_file.sha256)
        warnings = []
    if is_empty:
        raise InputError(f"{csv_file.path} has a header but no data row; add rows")


def _read_block_column(
    column: Column, block: Block, csv_file: CsvFile, missing: frozenset[str]
) -> tuple[np.ndarray, list[str]]:
    if column.name not in csv_file.names:
        absent = np.full(len(block.lines), np.nan) if column.kind == "numeric" else np.full(len(block.lines), None)
        return absent, []
    texts = block.columns[csv_file.names.index(column.name)]
    return read_column(column, Cells(column.name, texts, block.lines, csv_file.path, missing))
