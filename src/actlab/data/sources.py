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
import re
import sys
import warnings as python_warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
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
TABLE_NAME = re.compile(r"(?i)\.(csv|tsv|tab|txt|parquet|feather|xlsx)\b")
ARROW = {b"PAR1": ("parquet", "a Parquet file"), b"ARROW1": ("feather", "a Feather file")}


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
                frame, said = _read_sheet(label, file, part)
                return _typed_source(label, frame, _sha256(file), said)
            name = _member(label, members, part)
            said = [f"{label}: only {shown(name)} in it is read"] if part is None and len(members) > 1 else []
            whole = label if part is None else f"{label}#{part}"
            source = _open_bytes(whole, _unpacked(opener, partial(_from_zip, name)), None)
            return replace(source, warnings=(*said, *source.warnings))
    if part is not None:
        raise InputError(f"{label} holds one table, and nothing called {shown(part)}; leave out what follows the #")
    for magic, (kind, what) in ARROW.items():
        if start.startswith(magic):
            library = _library(f"pyarrow.{kind}", label, what)
            with readable(label), opener() as file:
                return _typed_source(label, _from_arrow(library.read_table(file), label), _sha256(file))
    return open_csv(label, opener)


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


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
    files = {m.filename: m for m in members if not (m.is_dir() or re.search(r"(^|/)(\.|__MACOSX)", m.filename))}
    tables = [name for name in files if TABLE_NAME.search(name)]
    found = [name for name in (tables if part is None and len(files) > 1 else files) if part in (None, name)]
    if "content.xml" in files:
        raise InputError(f"{label} is an OpenDocument file; save the sheet as .xlsx or CSV")
    if not files:
        raise InputError(f"{label} is an empty archive; it needs one table")
    if len(found) != 1:
        missing = "" if part is None else f" and no {shown(part)}"
        held = f"{len(files)} file{'s' if len(files) > 1 else ''} ({listed(list(files))}){missing}"
        raise InputError(f"{label} holds {held}; name one, as in {label}#{next(iter(files))}")
    if files[found[0]].flag_bits & 1:
        raise InputError(f"{label} is an archive with a password; unpack it, and name the file in it")
    return found[0]


def _library(name: str, label: str, what: str) -> Any:
    """A package of the extra `files`; an `InputError` names it where it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise InputError(
            f"{label} is {what}, which needs {package}: pip install 'actlab[files]', or save the table as CSV"
        ) from None


def _typed_source(label: str, frame: pd.DataFrame, sha256: str, warnings: Sequence[str] = ()) -> Source:
    """A source of typed series, from a frame whose index is the line of a row in a CSV with one line a row."""
    if len(frame) == 0:
        raise InputError(f"{label} has no row; add rows")
    names = column_names(label, [str(name) for name in frame.columns])

    def blocks(n_rows: int) -> Iterator[Block]:
        for first in range(0, len(frame), n_rows):
            part = frame.iloc[first : first + n_rows]
            series = (part.iloc[:, place].reset_index(drop=True) for place in range(len(names)))
            yield Block(dict(zip(names, series, strict=True)), part.index.to_numpy(dtype=np.int64))

    return Source(label, names, sha256, tuple(warnings), None, len(frame), blocks)


def _frame_source(table: Any) -> Source:
    """A frame as it is, but for types of Arrow, which become those of pandas."""
    warnings = []
    if isinstance(table, pd.DataFrame):
        if named := [str(name) for name in table.index.names if name is not None]:
            warnings.append(f"{FRAME}: its index ({listed(named)}) is left out; reset_index() makes it a column")
        if any(isinstance(dtype, pd.ArrowDtype) for dtype in table.dtypes):
            table = importlib.import_module("pyarrow").Table.from_pandas(table, preserve_index=False)
    if not isinstance(table, pd.DataFrame):
        if not hasattr(table, "__arrow_c_stream__"):
            raise InputError(f"a path or a frame (pandas, polars) is needed, got {type(table).__name__}")
        _library("pyarrow", FRAME, f"of {type(table).__module__.partition('.')[0]}")
        table = _from_arrow(table.to_arrow() if hasattr(table, "to_arrow") else table, FRAME)
    frame = table.set_axis(pd.RangeIndex(2, len(table) + 2), axis=0)
    try:
        rows = pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
    except TypeError:
        raise InputError(f"{FRAME} has a column of lists or other objects, not single values") from None
    head = repr([(str(name), str(dtype)) for name, dtype in zip(frame.columns, frame.dtypes, strict=True)])
    return _typed_source(FRAME, frame, hashlib.sha256(head.encode() + rows).hexdigest(), warnings)


def _from_arrow(table: Any, label: str) -> pd.DataFrame:
    """A table of Arrow with pandas' types: whole numbers and booleans stay such where cells are missing."""
    arrow = importlib.import_module("pyarrow")
    table = arrow.table(table)
    for field in table.schema:
        if arrow.types.is_nested(field.type):
            raise InputError(f"{label}, column {shown(field.name)} holds {field.type}, not single values")
    whole = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
    types = {arrow.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in whole}
    types[arrow.bool_()] = pd.BooleanDtype()
    frame = table.to_pandas(types_mapper=types.get, ignore_metadata=True, date_as_object=False)
    # what pandas calls an index without a name; in a CSV the first column
    frame = frame.rename(columns={"__index_level_0__": "Unnamed: 0"})
    return cast(pd.DataFrame, frame.set_axis(pd.RangeIndex(2, len(frame) + 2), axis=0))


def _read_sheet(label: str, file: IO[bytes], part: str | None) -> tuple[pd.DataFrame, list[str]]:
    """One sheet of a workbook, the first if not said otherwise; formulas by the values that were saved."""
    _library("openpyxl", label, "an Excel workbook")
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # about what is left out, such as lists of choices
        try:
            book = pd.ExcelFile(file, engine="openpyxl")
        except KeyError as error:
            raise InputError(f"{label} is a damaged Excel workbook ({error}); save it again") from None
        sheets = [str(name) for name in book.sheet_names]
        name = part if part is not None else sheets[0]
        if name not in sheets:
            raise InputError(f"{label} has no sheet {shown(name)}; its sheets are {listed(sheets)}")
        cells = book.parse(name, header=None, dtype=object, keep_default_na=False, na_values=[""])
    cells = cells.dropna(how="all").dropna(how="all", axis=1)
    others = f"{label}#{next(other for other in sheets if other != name)} is another" if len(sheets) > 1 else ""
    if len(cells) < 2:
        beside = f" ({others})" if others else ""
        raise InputError(f"{label} has no row below a header in sheet {shown(name)}; add rows{beside}")
    names = ["" if pd.isna(cell) else str(cell) for cell in cells.iloc[0]]
    frame = cells.iloc[1:].set_axis(names, axis=1).set_axis(cells.index[1:] + 1, axis=0)
    said = f"{label}: only its first sheet, {shown(name)}, is read; {others}"
    return frame.convert_dtypes(), [said] if others and part is None else []
