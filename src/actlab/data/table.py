"""A CSV file as a table: checked feature columns, target and row ids, for training and for prediction.

What a column is (number, category, order, identifier) is decided on the training file, from its cells and the settings,
and kept in a `Schema`; rows to predict on are read under it, in blocks if the file is large. Whatever is wrong with the
file is one `InputError` that names file, line or column and the repair.
"""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from actlab.data.columns import (
    Column,
    RawColumn,
    ReadColumn,
    Schema,
    cell_texts,
    infer_column,
    infer_numeric,
    looks_like_dates,
    missing_texts,
    ordinal_column,
    read_column,
)
from actlab.data.csv_file import BLOCK_CELLS, Source, listed, shown
from actlab.data.formats import FileStyle, Texts
from actlab.data.layout import RowLayout, lay_out, stays_feature
from actlab.data.roles import declared, option, role_of, suspicions
from actlab.data.sources import open_source
from actlab.data.target import MIN_RANGE, Target
from actlab.errors import InputError
from actlab.settings import DataSettings

# A column may stand in both keys.
SHARED_ROLES = (
    ("data.target", "data.numeric"),
    *(("data.time", f"data.{key}") for key in ("drop", "numeric")),
    *((f"data.{key}", "data.groups") for key in ("drop", "ordinal", "categorical", "numeric")),
    ("data.fold", "data.drop"),
    # the kind of what is left out is of no use
    *(("data.drop", f"data.{key}") for key in ("ordinal", "categorical", "numeric")),
)
# A weight that is not 0: what is beyond could not be squared and summed.
WEIGHTS = 1e-100, 1e100


@dataclass(frozen=True)
class Table:
    """Rows of one file.

    Args:
        features: One column per schema column, in that order: float64 with NaN for numeric ones, else objects (str,
            None where missing).
        target: (n_rows,) float64, None where none was named or needed.
        ids: (n_rows,) text as in the file, None without an id column.
        schema: How the columns were read.
        warnings: Sentences about what was unusual, most harmful first; in a stream each appears once.
        content_hash: SHA-256 of the bytes of the file, in hexadecimal.
        layout: What is known of the rows of a table to train on.
        lines: (n_rows,) line of the file where each row ends, for messages; only of rows to predict.
        notes: Sentences about what is usual, and to be known.
        left_out: Column of a training file that is no feature to the reason.
        bad: By column and row, cells to predict that were taken as missing.
    """

    features: pd.DataFrame
    target: np.ndarray | None
    ids: pd.Series | None
    schema: Schema
    warnings: tuple[str, ...]
    content_hash: str
    layout: RowLayout
    lines: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    bad: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return len(self.features)


def read_table(settings: DataSettings, require_target: bool = True, source: Source | None = None) -> Table:
    """Read a file, or a `source` that is open already, to train on and decide what each column is.

    What a column is for is decided by `roles.role_of`. A feature is numeric if every cell that is not missing is in one
    of the formats of `formats.FORMATS` (warned of where that is not plain numbers); otherwise categorical. The lists in
    `settings` overrule this.

    Raises:
        InputError: The file, a column or a setting is unusable, or no target is named and one is required.
    """
    if settings.csv is None:
        raise InputError("data.csv is not set; name a CSV file with --data.csv FILE")
    source = source or open_source(settings.csv)
    order = _check_settings(settings, source)
    raw, weights, warnings = _take_weights(_read_raw(source, settings), settings)
    lines = next(iter(raw.values())).lines
    if settings.target is None and require_target:
        raise _no_target(source, raw)
    if len(lines) < 2:
        raise InputError(f"{source.label} has a single data row; at least 2 are needed to train")
    target = None
    if settings.target is not None:
        before = lines
        raw, target, lines = _read_target(raw, settings)
        warnings += target.warnings
        weights = weights if weights is None else weights[np.isin(before, lines)]
    of_rows, taken = _take_layout(raw, settings, order)
    for name in settings.drop:
        raw.pop(name, None)
    found = _read_features(raw, settings, order)
    if not found.kept:
        raise InputError(f"{source.label} has no feature column that varies, besides target and id; add one")
    if len(found.kept) > len(lines):
        warnings.append(f"{source.label} has more feature columns ({len(found.kept)}) than rows ({len(lines)})")
    features, y = _frame(found.kept), None if target is None else target.parsed
    layout, said = lay_out(source.label, lines, features, y, of_rows, weights, settings)
    doubts = [] if y is None else list(suspicions(found.kept, y, source.label, settings))
    warnings = [*doubts, *found.warnings, *warnings, *source.warnings, *said]
    if settings.weight is not None:
        taken[settings.weight] = "data.weight"
    left_out = {**dict.fromkeys(settings.drop, "data.drop"), **taken, **found.left_out}
    schema = _schema(settings, found, target, tuple(left_out))
    own = (features, y, found.ids, schema, tuple(warnings), source.sha256, layout)
    return Table(*own, notes=tuple(found.notes), left_out=left_out)


def _no_target(source: Source, raw: Mapping[str, RawColumn]) -> InputError:
    numeric = [
        name
        for name, column in raw.items()
        if not column.numbers.unreadable.size and column.numbers.reading.format != "date"
    ]
    return InputError(
        f"{source.label}: no target is named; name the column to predict with --data.target NAME (numeric "
        f"columns: {listed(numeric, 20) or 'none'})"
    )


def _schema(settings: DataSettings, found: "_Features", target: ReadColumn | None, left_out: tuple[str, ...]) -> Schema:
    """What rows to predict on must look like."""
    own_missing = settings.na_values if isinstance(settings.na_values, dict) else {}

    def with_missing(column: Column) -> Column:
        return replace(column, na_values=tuple(own_missing[column.name]) if column.name in own_missing else None)

    columns = tuple(with_missing(read.column) for read in found.kept)
    id_name = None if found.ids is None else str(found.ids.name)
    target_column = None if target is None else with_missing(target.column)
    return Schema(columns, settings.target, id_name, tuple(settings.na_values_of(None)), left_out, target_column)


def read_rows(
    table: Any,
    schema: Schema,
    chunk_rows: int | None = None,
    scored: DataSettings | None = None,
    takes_bad: bool = False,
) -> Iterator[Table]:
    """Read rows to predict on, under the schema of the training file, `chunk_rows` at a time in bounded memory.

    The target is ignored, unless rows are to be `scored` under settings of training: then it must be there, and usable
    in every row; rows without one are left out where `data.missing_target` says so.
    Columns that are not in the schema are ignored (warned of), and a feature column that is absent is all missing
    (warned of). `takes_bad` takes cells of numeric columns that are no number as missing, too.

    Args:
        table: A `Source`, or what `open_source` takes. Of a frame, numbers and ids are taken as they are, and messages
            count its lines as in its CSV, the header first.

    Raises:
        InputError: At once if the file or its header is unusable; while iterating if a row or a cell is.
    """
    if chunk_rows is not None and chunk_rows < 1:
        raise InputError(f"chunk_rows must be at least 1, got chunk_rows={chunk_rows}")
    source = table if isinstance(table, Source) else open_source(table)
    warnings = [*source.warnings, *_compare_header(source, schema)]
    if scored is not None and schema.target not in source.names:
        target, similar = shown(str(schema.target)), _similar(str(schema.target), source.names)
        raise InputError(f"{source.label} has no column {target}, the target to score against{similar}")
    return _tables(source, schema, chunk_rows or sys.maxsize, warnings, scored, takes_bad)


def frame_rows(frame: Any, schema: Schema) -> Table:
    """All rows of a frame (or file) as one table; raises as `read_rows`."""
    return next(read_rows(frame, schema))


def _tables(
    file: Source,
    schema: Schema,
    n_rows: int,
    warnings: list[str],
    scored: DataSettings | None = None,
    takes_bad: bool = False,
) -> Iterator[Table]:
    """Blocks of at most `n_rows` rows under a schema, with their target if they are to be `scored`. Where a block alone
    does not tell how the file is written, the whole file is looked at."""
    written = {column.name: column.written for column in schema.columns}
    style = FileStyle(file.delimiter, lambda: _cells_again(file), fallback=written, has_key=False)

    def raw_column(column: Column, own: Texts | pd.Series, lines: np.ndarray) -> RawColumn:
        na_values = schema.missing(column)
        empty = next(iter(na_values), "")
        return RawColumn(column.name, own, lines, file, missing_texts(na_values), style, empty)

    warned = set[str]()
    for cells, lines in file.blocks(n_rows):
        target = None
        if scored is not None:
            own_target = schema.target_column or Column(str(schema.target), "numeric")
            raw = raw_column(own_target, cells[own_target.name], lines)
            target = read_column(own_target, raw).parsed
            if scored.missing_target == "drop" and np.isnan(target).any():
                kept = np.flatnonzero(~np.isnan(target))
                target, lines = target[kept], lines[kept]
                cells = {
                    name: own.iloc[kept] if isinstance(own, pd.Series) else list(np.array(own, dtype=object)[kept])
                    for name, own in cells.items()
                }
                raw = replace(raw, lines=lines)
            _check_target(raw, target, Target.of(scored.target_transform))
        columns, bad = [], dict[str, dict[int, str]]()
        for column in schema.columns:
            if (own := cells.get(column.name)) is None:
                nothing = np.nan if column.kind == "numeric" else None
                columns.append(ReadColumn(column, np.full(len(lines), nothing), []))
                continue
            own_bad = bad.setdefault(column.name, {}) if takes_bad else None
            columns.append(read := read_column(column, raw_column(column, own, lines), own_bad))
            if read.warnings and column.name not in warned:
                warned.add(column.name)
                warnings += read.warnings
        own_ids = None if schema.id is None else cells.get(schema.id)
        ids = None if own_ids is None else _ids(schema.id, cell_texts(own_ids))
        layout = RowLayout(len(lines))
        yield Table(_frame(columns), target, ids, schema, tuple(warnings), file.sha256, layout, lines, bad=bad)
        warnings = []


def _check_settings(settings: DataSettings, csv_file: Source) -> dict[str, tuple[str, ...]]:
    """The ordinal columns with their categories, after making sure that the settings fit the header."""
    roles: dict[str, str] = {}
    named = [(f"data.{key}", getattr(settings, key)) for key in ("target", "id", "fold", "time", "weight")]
    for key in ("drop", "ordinal", "categorical", "numeric", "groups"):
        named += [(f"data.{key}", name) for name in getattr(settings, key)]
    for role, name in ((role, name) for role, name in named if name is not None):
        if name not in csv_file.names:
            raise InputError(f"{csv_file.label} has no column {shown(name)} ({role}){_similar(name, csv_file.names)}")
        if name in roles and roles[name] != role and (roles[name], role) not in SHARED_ROLES:
            raise InputError(f"column {shown(name)} stands in {roles[name]} and in {role}; remove it from one")
        roles.setdefault(name, role)
    for key, by_column in (("na_values", settings.na_values), ("formats", settings.formats)):
        for name in by_column if isinstance(by_column, dict) else ():
            if name not in (*csv_file.names, "*"):
                close = _similar(name, csv_file.names)
                raise InputError(f"{csv_file.label} has no column {shown(name)} (data.{key}){close}")
    order = {name: ordinal_column(name, names).categories for name, names in settings.ordinal.items()}
    for name, categories in order.items():
        if len(set(categories)) < max(2, len(categories)):
            rule = f"data.ordinal must list at least two categories of {shown(name)}, lowest first, none twice"
            raise InputError(f"{rule}; got {list(categories)}")
    return order


def _similar(name: str, names: Sequence[str]) -> str:
    """`; did you mean 'SalePrice'?`, or the columns there are, to end a message with."""
    if close := _close(name, names):
        return f"; did you mean {' or '.join(map(shown, close))}?"
    return f"; its columns are {', '.join(shown(other) for other in names[:10])}{', ...' if len(names) > 10 else ''}"


def _close(name: str, names: Sequence[str]) -> list[str]:
    """Up to three names that are spelt much like this one, whatever their case, spaces and signs; closest first."""
    folded = {re.sub(r"[\W_]+", "", other).casefold(): other for other in reversed(names)}
    return [folded[key] for key in difflib.get_close_matches(re.sub(r"[\W_]+", "", name).casefold(), list(folded), n=3)]


def _cells_again(source: Source) -> Iterator[Mapping[str, Texts | pd.Series]]:
    """The cells of a file once more."""
    return (block.cells for block in source.blocks(max(1, BLOCK_CELLS // len(source.names))))


def _read_raw(source: Source, settings: DataSettings) -> dict[str, RawColumn]:
    """All columns of the file by their names."""
    cells, lines = source.read()
    style = FileStyle(source.delimiter, lambda: _cells_again(source), stated=settings.formats)
    columns = {}
    for name in source.names:
        na_values = settings.na_values_of(name)
        empty = next(iter(na_values), "")
        columns[name] = RawColumn(name, cells.pop(name), lines, source, missing_texts(na_values), style, empty)
    return columns


def _read_target(
    raw: dict[str, RawColumn], settings: DataSettings
) -> tuple[dict[str, RawColumn], ReadColumn, np.ndarray]:
    """On the rows to learn from the columns besides the target, the target, and lines; or say why nothing can be
    learned."""
    column = raw.pop(str(settings.target))
    found = infer_numeric(column)
    if found is None or found.column.format == "date":
        # where all are dates, the first of them
        bad = column.numbers.unreadable if found is None else np.flatnonzero(~np.isnan(found.parsed))
        raise InputError(
            f"{column.place(bad[0])}: the target must be a number, got {shown(column.texts[bad[0]])} (so in {len(bad)} "
            f"of {len(column.texts)} rows); correct the cells, or name another column with --data.target"
        )
    target = found.parsed
    if (is_missing := np.isnan(target)).any() and settings.missing_target == "drop":
        where = f"{column.whole}: the target is missing in {column.line_list(is_missing)}"
        if (~is_missing).sum() < 2:
            raise InputError(f"{where}; at least 2 rows with a target are needed to train")
        found.warnings.append(f"{where}; {is_missing.sum()} of {len(target)} rows are left out")
        column, *others = (
            replace(one, cells=one.cells[~is_missing], lines=one.lines[~is_missing]) for one in (column, *raw.values())
        )
        raw, target = {one.name: one for one in others}, target[~is_missing]
    if np.ptp(target) == 0:
        raise InputError(
            f"{column.whole}: the target is {target[0]:.12g} in every row, nothing can be learned; name another "
            "column with --data.target"
        )
    scale = Target.of(settings.target_transform)
    if scale.shift is None and np.ptp(target) < MIN_RANGE:
        raise InputError(f"{column.whole}: the target's values lie within {MIN_RANGE:g}; state it in a smaller unit")
    _check_target(column, target, scale)
    return raw, found._replace(parsed=target), column.lines


def _check_target(raw: RawColumn, target: np.ndarray, scale: Target) -> None:
    """Refuse a target that is missing in some rows, or cannot be had on this scale."""
    if (is_missing := np.isnan(target)).any():
        raise InputError(
            f"{raw.whole}: the target is missing in {raw.line_list(is_missing)}; fill them in, or "
            "leave these rows out of training with --data.missing_target drop (a file to predict on needs no target)"
        )
    if not (is_usable := scale.is_usable(target)).all():
        raise InputError(f"{raw.whole}: the target {scale.rule} {raw.line_list(~is_usable)}; {scale.repair}")


def _ids(name: str | None, texts: Texts) -> pd.Series:
    return pd.Series(list(texts), dtype=object, name=name)


def _take_weights(
    columns: dict[str, RawColumn], settings: DataSettings
) -> tuple[dict[str, RawColumn], np.ndarray | None, list[str]]:
    """The columns without that of weights and without rows of weight 0; the weights of the others (n_rows,), if they
    have any; and what is said of them."""
    if settings.weight is None:
        return columns, None, []
    raw = columns.pop(settings.weight)
    found = infer_numeric(raw)
    is_number = raw.numbers.reading.format not in ("date", "duration")
    weights = raw.numbers.parsed if is_number else np.full(len(raw.lines), np.nan)
    least, most = WEIGHTS
    is_bad = ~((weights == 0) | ((weights >= least) & (weights <= most)))
    if is_bad.any():
        first = int(np.flatnonzero(is_bad)[0])
        raise InputError(
            f"{raw.place(first)}: a weight must be 0, or from {least:g} to {most:g}, got {raw.shown(first)} "
            f"(so in {is_bad.sum()} of {len(weights)} rows); correct the cells, or leave data.weight out"
        )
    counts: Any = weights > 0
    if not counts.any():
        raise InputError(f"{raw.whole}: the weight is 0 in every row, so no row counts; name another column")
    warnings = [] if found is None else found.warnings
    said = f"{raw.whole} says how much rows count, from {weights[counts].min():g} to {weights.max():g}"
    if not counts.all():
        said += f"; {(~counts).sum()} of {len(weights)} rows have weight 0 and are left out"
        columns = {
            name: replace(one, cells=one.cells[counts], lines=one.lines[counts]) for name, one in columns.items()
        }
    return columns, weights[counts], [*warnings, said]


def _take_layout(
    columns: dict[str, RawColumn], settings: DataSettings, order: Mapping[str, Sequence[str]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The cells of columns that say how rows belong together, read as features are, and those that are no features,
    which leave the `columns`, with the key that names them."""
    names = [*settings.groups, *([settings.fold] if settings.fold is not None else [])]
    cells = {name: _read_feature(columns[name], settings, order).parsed for name in names}
    if settings.time is not None:
        cells[settings.time] = _read_time(columns[settings.time])
    kept = settings.groups if settings.groups and stays_feature(settings) else []
    taken = {name: f"data.{'fold' if name == settings.fold else 'groups'}" for name in names if name not in kept}
    for name in taken:
        del columns[name]
    return cells, taken


def _read_time(raw: RawColumn) -> np.ndarray:
    """Numbers, or days of dates, one for each row."""
    found = infer_numeric(raw)
    if found is None:
        bad = int(raw.numbers.unreadable[0])
        raise InputError(
            f"{raw.place(bad)}: data.time must be a number or a date like 2024-12-31 in every row, got "
            f"{raw.shown(bad)}; correct the cell, or name another column"
        )
    if (is_missing := np.isnan(found.parsed)).any():
        raise InputError(
            f"{raw.whole}: data.time is missing in {raw.line_list(is_missing)}; fill the cells in, or remove these rows"
        )
    return found.parsed


class _Features(NamedTuple):
    """What the columns besides target and named ones are: those of use, the id, and the others with the reason."""

    kept: list[ReadColumn]
    ids: pd.Series | None
    left_out: dict[str, str]
    warnings: list[str]
    notes: list[str]


def _read_features(
    columns: dict[str, RawColumn], settings: DataSettings, order: Mapping[str, Sequence[str]]
) -> _Features:
    """Read each column and decide what it is for. `columns` is emptied on the way: the texts of a column take twice the
    room of its numbers."""
    kept, ids, left_out, notes = [], None, {}, []
    # of columns that are left out, of texts, and of numbers
    warnings: tuple[list[str], list[str], list[str]] = ([], [], [])
    if settings.id is not None:
        raw = columns.pop(settings.id)
        ids = _ids(settings.id, raw.texts)
        if not ids.is_unique:
            warnings[0].append(f"{raw.whole} is the id, but the same in several rows")
    for name in list(columns):
        raw = columns.pop(name)
        read = _read_feature(raw, settings, order)
        role = role_of(read, ids is not None, name in declared(settings))
        back = f" ({option(role.key, name)} overrules this)" if role.key else ""
        if role.kind == "id":
            ids = _ids(name, raw.texts)
            notes.append(f"{raw.whole} is the id, no feature{back}")
        elif role.kind == "left out":
            left_out[name] = role.reason
            warnings[0].append(f"{raw.whole} {role.reason}; left out{back}")
        else:
            warnings[0].extend([f"{raw.whole} {role.reason}{back}"] if role.reason else [])
            kept.append(read)
            warnings[1 if read.column.kind != "numeric" else 2].extend(read.warnings)
    return _Features(kept, ids, left_out, [text for own in warnings for text in own], notes)


def _read_feature(raw: RawColumn, settings: DataSettings, order: Mapping[str, Sequence[str]]) -> ReadColumn:
    """Decide the kind of one feature column and read it."""
    if raw.name in order:
        read = read_column(ordinal_column(raw.name, order[raw.name]), raw)
        unknown = np.flatnonzero(pd.notna(read.parsed) & ~np.isin(read.parsed.astype(str), order[raw.name]))
        if unknown.size:
            raise InputError(
                f"{raw.place(unknown[0])}: {shown(read.parsed[unknown[0]])} is not among the categories of "
                f"data.ordinal ({', '.join(order[raw.name])}); add it there in its place"
            )
        return read
    read = infer_column(raw, raw.name in settings.categorical, raw.name in settings.numeric)
    if read.column.kind == "categorical":
        names = pd.unique(read.parsed[pd.notna(read.parsed)])
        if len(names) > settings.max_categories:
            read.warnings.append(
                f"{raw.whole} has {len(names)} categories; it becomes one number, the mean target of a category's "
                f"training rows (each would be an input of its own with --data.max_categories {len(names)})"
            )
        if looks_like_dates(names.tolist()):
            read.warnings.append(
                f"{raw.whole} looks like dates ({shown(names[0])}); each is treated as a category of its own "
                "(dates written as 2024-12-31 are read as numbers of days)"
            )
    return read


def _frame(columns: Sequence[ReadColumn]) -> pd.DataFrame:
    series = {
        column.name: pd.Series(values, dtype=np.float64 if column.kind == "numeric" else object)
        for column, values, _ in columns
    }
    # each column stays where it is: one block of all of them would be a second copy of the table
    return pd.DataFrame(series, copy=False)


def _compare_header(csv_file: Source, schema: Schema) -> list[str]:
    """Warnings about absent and additional columns."""
    wanted = [column.name for column in schema.columns]
    absent = [name for name in wanted if name not in csv_file.names]
    known = {*wanted, *schema.dropped, schema.target, schema.id}
    extra = [name for name in csv_file.names if name not in known]
    if len(absent) == len(wanted):
        raise InputError(
            f"{csv_file.label} has none of the {len(wanted)} feature columns of the model ({listed(wanted)}); its "
            f"columns are {listed(list(csv_file.names))}"
        )
    # such as 'Weight' for 'weight'
    meant = [f"{shown(close[0])} for {shown(name)}" for name in absent if (close := _close(name, extra))]
    like = f" (did you mean {', '.join(meant[:5])}?)" if meant else ""
    lacks = f"{csv_file.label} lacks columns {listed(absent)}: taken as missing in every row{like}"
    has = f"{csv_file.label} has columns unknown to the model, ignored: {listed(extra)}"
    return [*([lacks] if absent else []), *([has] if extra else [])]
