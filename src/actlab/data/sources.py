"""Whatever holds a table, opened: text, archives with one in it, Parquet, Feather, Excel, standard input, frames.

A `Source` yields blocks of rows: texts from text files, typed series from all others. What a file is, its first bytes
say, not its name. Everything that can be wrong with one ends in one `InputError`.
"""

import bz2
import gzip
import hashlib
import importlib
import io
import lzma
import sys
import warnings as python_warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from actlab.data.csv_file import Block, Opener, Source, column_names, listed, open_csv, readable, shown
from actlab.errors import InputError

STANDARD_INPUT = "-"
FRAME = "the frame"  # in place of a path in messages
# what data.csv says of a frame, before the hash of its content
FRAME_KEY = "frame sha256:"
PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".parquet", ".feather", ".arrow", ".xlsx"}
PARQUET, FEATHER = "a Parquet file", "a Feather file"
EXCEL_ERRORS = {"#N/A", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"}


def open_source(table: Any) -> Source:
    """Open a path (`-` is standard input, read whole; FILE#PART a sheet of a workbook or a file of an archive) or a
    frame of pandas, polars or Arrow.

    Raises:
        InputError: It cannot be read, is no table, or its columns have no names of their own.
    """
    if not isinstance(table, str | Path):
        return _frame_source(table)
    path = str(table)
    if not path:
        raise InputError("the path of the CSV file is empty; name a file with --data.csv")
    if path.startswith(FRAME_KEY):
        raise InputError("data.csv was a frame, which only Python has: give it to actlab again, or name a file")
    label, part = _split_part(path)
    opener = cast(Opener, partial(open, label, "rb"))
    if path == STANDARD_INPUT:
        label, opener = "standard input", _in_memory("standard input", lambda: nullcontext(sys.stdin.buffer))
    elif Path(label).is_fifo():
        # of a shell's <(...), for example; it can be read only once
        opener = _in_memory(label, opener)
    elif Path(label).exists() and not (Path(label).is_file() or Path(label).is_dir()):
        raise InputError(f"{label} is not a regular file; save the table as a CSV file first")
    return _open_bytes(label, opener, part)


def is_rereadable(path: str | None) -> bool:
    """Whether another process can read what `path` names: no frame, standard input or pipe."""
    return path is not None and Path(_split_part(path)[0]).is_file()


def _split_part(path: str) -> tuple[str, str | None]:
    """FILE and PART of FILE#PART, where there is such a file and none of the whole name."""
    file, _, part = path.rpartition("#")
    return (file, part) if file and not Path(path).exists() and Path(file).is_file() else (path, None)


def _in_memory(label: str, open_once: Opener) -> Opener:
    with readable(label), open_once() as file:
        if file.isatty():
            raise InputError(f"{label} is a terminal; pipe a table into it, or name a file")
        content = file.read()
    return lambda: io.BytesIO(content)


def _open_bytes(label: str, opener: Opener, part: str | None) -> Source:
    """The table in some bytes, unpacked as often as they are packed."""
    with readable(label), opener() as file:
        start = file.read(8)
        for magic, unpack in PACKED.items():
            if start.startswith(magic):
                return _open_bytes(label, _unpacked(opener, unpack), part)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            if any(member.filename == "xl/workbook.xml" for member in members):
                return _excel_source(label, opener, part)
            name = _member(label, members, part)
            said = [f"{label}: only {shown(name)} in it is read"] if part is None and len(members) > 1 else []
            whole = label if part is None else f"{label}#{part}"
            source = _open_bytes(whole, _unpacked(opener, partial(_from_zip, name)), None)
            return replace(source, warnings=(*said, *source.warnings))
    if part is not None:
        raise InputError(f"{label} holds one table, and nothing called {shown(part)}; leave out what follows the #")
    if start.startswith(b"PAR1"):
        return _arrow_source(label, opener, PARQUET)
    if start.startswith(b"ARROW1"):
        return _arrow_source(label, opener, FEATHER)
    return open_csv(label, opener)


def _unpacked(opener: Opener, unpack: Callable[[IO[bytes]], Any]) -> Opener:
    @contextmanager
    def unpacked() -> Iterator[IO[bytes]]:
        with opener() as packed, unpack(packed) as file:
            yield file

    return unpacked


@contextmanager
def _from_zip(name: str, packed: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(packed) as archive, archive.open(name) as file:
        yield file


def _member(label: str, members: Sequence[zipfile.ZipInfo], part: str | None) -> str:
    """The file of a zip archive that is read: the one that is asked for, the only one, or the only table."""
    hidden = (".", "__MACOSX")
    files = {
        member.filename: member
        for member in members
        if not member.is_dir() and not any(own.startswith(hidden) for own in PurePosixPath(member.filename).parts)
    }
    tables = [name for name in files if TABLE_SUFFIXES & set(PurePosixPath(name.lower()).suffixes)]
    found = list(files) if len(files) == 1 else tables
    if part is not None:
        found = [name for name in files if name == part]
    held = listed(list(files)) or "nothing"
    if not files:
        raise InputError(f"{label} is an empty archive; it needs one table")
    if "content.xml" in files:
        raise InputError(f"{label} is an OpenDocument file; save the sheet as .xlsx or CSV")
    if not found and part is not None:
        raise InputError(f"{label} has no file {shown(part)}; it holds {held}")
    if len(found) != 1:
        raise InputError(f"{label} holds {len(files)} files ({held}); name one, as in {label}#{(found or [*files])[0]}")
    if files[found[0]].flag_bits & 1:
        raise InputError(f"{label} is an archive with a password; unpack it, and name the file in it")
    return found[0]


def _sha256(label: str, opener: Opener) -> str:
    with readable(label), opener() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _library(name: str, label: str, what: str) -> Any:
    """A package of the extra `files`; an `InputError` names it where it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise InputError(
            f"{label} is {what}, which needs {package}: pip install 'actlab[files]', or save the table as CSV"
        ) from None


Frames = Callable[[int], Iterator[pd.DataFrame]]


def _typed_source(
    label: str, names: Sequence[str], sha256: str, n_rows: int, frames: Frames, warnings: Sequence[str] = ()
) -> Source:
    """A source of typed series; `frames` gives the rows as frames of at most so many, columns in the order of `names`,
    the index their line of a CSV with one line a row."""
    if n_rows == 0:
        raise InputError(f"{label} has no row; add rows")
    own = column_names(label, list(names))

    def blocks(n_at_most: int) -> Iterator[Block]:
        for frame in frames(min(n_at_most, n_rows)):
            series = (frame.iloc[:, place].reset_index(drop=True) for place in range(len(own)))
            yield Block(dict(zip(own, series, strict=True)), frame.index.to_numpy(dtype=np.int64))

    return Source(label, own, sha256, tuple(warnings), None, n_rows, blocks)


def _sliced(frame: pd.DataFrame, n_rows: int) -> Iterator[pd.DataFrame]:
    for first in range(0, len(frame), n_rows):
        yield frame.iloc[first : first + n_rows]


def _frame_source(table: Any) -> Source:
    """A frame as it is, but for types of Arrow, which become those of pandas."""
    warnings = []
    if isinstance(table, pd.DataFrame):
        frame = table
        if named := [str(name) for name in frame.index.names if name is not None]:
            warnings.append(f"{FRAME}: its index ({listed(named)}) is left out; reset_index() makes it a column")
        if any(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes):
            arrow = importlib.import_module("pyarrow")
            frame = _from_arrow(arrow.Table.from_pandas(frame, preserve_index=False), FRAME)
    elif hasattr(table, "to_arrow") or hasattr(table, "__arrow_c_stream__"):
        arrow = _library("pyarrow", FRAME, f"of {type(table).__module__.partition('.')[0]}")
        frame = _from_arrow(table.to_arrow() if hasattr(table, "to_arrow") else arrow.table(table), FRAME)
    else:
        raise InputError(f"a path or a frame (pandas, polars) is needed, got {type(table).__name__}")
    names = [str(name) for name in frame.columns]
    frame = frame.set_axis(pd.RangeIndex(2, len(frame) + 2), axis=0)
    return _typed_source(FRAME, names, _content_hash(names, frame), len(frame), partial(_sliced, frame), warnings)


def _content_hash(names: Sequence[str], frame: pd.DataFrame) -> str:
    """SHA-256 of names, types and cells, whatever the index."""
    digest = hashlib.sha256(repr([names, [str(dtype) for dtype in frame.dtypes]]).encode())
    for place, name in enumerate(names):
        try:
            digest.update(pd.util.hash_pandas_object(frame.iloc[:, place], index=False).to_numpy().tobytes())
        except TypeError:
            raise InputError(f"{FRAME}, column {shown(name)} holds lists or other objects, not single values") from None
    return digest.hexdigest()


def _arrow_source(label: str, opener: Opener, what: str) -> Source:
    """A Parquet file, in blocks; a Feather file, which is in memory as a whole while it is read."""
    parquet, feather = (_library(f"pyarrow.{name}", label, what) for name in ("parquet", "feather"))

    @contextmanager
    def opened() -> Iterator[Any]:
        with readable(label), opener() as file:
            yield parquet.ParquetFile(file) if what == PARQUET else feather.read_table(file)

    def frames(n_at_most: int) -> Iterator[pd.DataFrame]:
        line = 2
        with opened() as table:
            if what == PARQUET:
                parts = [table.read()] if n_at_most >= table.metadata.num_rows else table.iter_batches(n_at_most)
            else:
                parts = (table.slice(first, n_at_most) for first in range(0, table.num_rows, n_at_most))
            for part in parts:
                frame = _from_arrow(part, label)
                frame.index = pd.RangeIndex(line, line + len(frame))
                line += len(frame)
                yield frame

    with opened() as table:
        names = (table.schema_arrow if what == PARQUET else table.schema).names
        n_rows = table.metadata.num_rows if what == PARQUET else table.num_rows
    # what pandas calls an index without a name; in a CSV the first column
    own = ["Unnamed: 0" if name == "__index_level_0__" else name for name in names]
    return _typed_source(label, own, _sha256(label, opener), n_rows, frames)


def _from_arrow(table: Any, label: str) -> pd.DataFrame:
    """A table or batch of Arrow with pandas' types: whole numbers and booleans stay such where cells are missing."""
    arrow = importlib.import_module("pyarrow")
    table = arrow.table(table)
    for place, field in enumerate(table.schema):
        if arrow.types.is_nested(field.type) or "binary" in str(field.type):
            raise InputError(f"{label}, column {shown(field.name)} holds {field.type}, not single values")
        if arrow.types.is_decimal(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(arrow.float64()))
    whole = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
    types = {arrow.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in whole}
    types[arrow.bool_()] = pd.BooleanDtype()
    frame = table.to_pandas(types_mapper=types.get, ignore_metadata=True, date_as_object=False)
    return cast(pd.DataFrame, frame)


def _excel_source(label: str, opener: Opener, part: str | None) -> Source:
    """One sheet of a workbook, the first if not said otherwise; formulas by the values that were saved."""
    openpyxl = _library("openpyxl", label, "an Excel workbook")
    with readable(label), opener() as file, python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # about what is left out, such as lists of choices
        try:
            sheets = {sheet.title: sheet for sheet in openpyxl.load_workbook(file, True, data_only=True).worksheets}
        except KeyError as error:
            raise InputError(f"{label} is a damaged Excel workbook ({error}); save it again") from None
        name = part if part is not None else next(iter(sheets), "")
        if name not in sheets:
            raise InputError(f"{label} has no sheet {shown(name)}; its sheets are {listed(list(sheets))}")
        sheets[name].reset_dimensions()
        rows = enumerate(sheets[name].iter_rows(values_only=True), 1)
        cells = {line: list(row) for line, row in rows if any(cell is not None for cell in row)}
    others = [other for other in sheets if other != name]
    warnings = []
    if others and part is None:
        warnings.append(f"{label}: only its first sheet, {shown(name)}, is read; {label}#{others[0]} is another")
    if len(cells) < 2:
        beside = f", and other sheets ({listed(others)}) as {label}#{others[0]}" if others else ""
        raise InputError(f"{label} has no row below a header in sheet {shown(name)}{beside}; add rows")
    frame = _sheet_frame(cells)
    names, frames = list(frame.columns), partial(_sliced, frame)
    return _typed_source(label, names, _sha256(label, opener), len(frame), frames, warnings)


def _sheet_frame(cells: dict[int, list[Any]]) -> pd.DataFrame:
    """The rows of a sheet by their lines, the header first, as typed columns; errors of formulas are missing."""
    width = max(place for row in cells.values() for place, cell in enumerate(row, 1) if cell is not None)
    header, *rows = ([*row[:width], *[None] * (width - len(row))] for row in cells.values())
    names = ["" if cell is None else str(cell) for cell in header]
    columns = [
        pd.Series([None if cell in EXCEL_ERRORS else cell for cell in column]).convert_dtypes()
        for column in zip(*rows, strict=True)
    ]
    return pd.concat(columns, axis=1).set_axis(names, axis=1).set_axis(list(cells)[1:], axis=0)
