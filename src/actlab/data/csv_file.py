"""From the bytes of a text file to columns of text, in blocks of rows: encoding, delimiter, header, ragged rows.

Python's own `csv` does the splitting: unlike pandas it tells a short row from a row with empty cells, and the line
number of each. Everything that can be wrong with a file ends in one `InputError` here.
"""

import codecs
import csv
import gzip
import hashlib
import io
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from actlab.errors import InputError
from actlab.run_files import one_line

# opens the bytes of a file, unpacked, from their beginning; as often as it is called
Opener = Callable[[], AbstractContextManager[IO[bytes]]]

SCAN_BYTES = 1 << 20
# of cells that are split off a text file at a time, as Python's own texts
BLOCK_CELLS = 1 << 21
N_SNIFFED_ROWS = 20
WHITE_SPACE = " "  # stands for any run of blanks and tabs
DELIMITERS = (",", ";", "\t", "|", "~", "^", "\x01", ":", WHITE_SPACE)
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
# what is in quotes, or a gap between cells
GAP = re.compile(r'("(?:[^"]|"")*")|[ \t]+')
NUMBER = re.compile(r"[+-]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?", re.ASCII)
CELL_END = re.compile(r"[,;\t|\r\n]")
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}
NOT_TABLES = {
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of before 2007, or one with a password; save the sheet as .xlsx or CSV",
    b"<!DOCTYPE": "a web page",
}
# Bytes that are no UTF-8 are decoded as these signs (PEP 383), and read as Windows-1252, which lacks five of them.
STRAY = re.compile("[\udc80-\udcff]")
AS_CP1252 = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
CONTROLS = re.compile(rb"[\x02-\x08\x0e-\x19]")
BEYOND_ASCII = re.compile("[^\x00-\x7f\udc80-\udcff]")


@dataclass(frozen=True)
class Text:
    """The decoded lines of a file. `stray` are the bytes that are no UTF-8: an error, signs of PEP 383, or read as
    Windows-1252."""

    label: str
    open: Opener
    encoding: str
    stray: Literal["strict", "surrogateescape", "cp1252"] = "strict"

    def lines(self) -> Iterator[str]:
        """Every line with its end."""
        with readable(self.label), self.open() as file:
            errors = "strict" if self.stray == "strict" else "surrogateescape"
            text = io.TextIOWrapper(file, self.encoding, errors, newline="")
            yield from (line.translate(AS_CP1252) for line in text) if self.stray == "cp1252" else text


class Block(NamedTuple):
    """Consecutive data rows: by name the (n_rows,) cells of a column, and the line of the file where each row ends.

    Cells are texts from text files, else a typed series. Lines are counted from 1, the header included.
    """

    cells: dict[str, Sequence[str] | pd.Series]
    lines: np.ndarray


@dataclass(frozen=True)
class Source:
    """A table that can be read, once or again.

    Args:
        label: The path, `standard input`, or `the frame`; messages begin with it.
        names: Of the columns, all different.
        sha256: Of the bytes of a file (unpacked), or of names, types and cells of a frame.
        warnings: Sentences about what was unusual.
        delimiter: Between the cells of a text file.
        n_rows: As many, or about as many where a text file has line ends inside quotes.
        blocks: The rows, at least one, in blocks of at most so many.
    """

    label: str
    names: tuple[str, ...]
    sha256: str
    warnings: tuple[str, ...]
    delimiter: str | None
    n_rows: int
    blocks: Callable[[int], Iterator[Block]]

    def read(self) -> tuple[dict[str, Any], np.ndarray]:
        """By name the cells of every column, and the lines of the rows. Texts are NumPy's variable-width ones, of 16
        bytes up to 15 characters: a list of Python's own takes 60 bytes a cell."""
        if self.delimiter is None:
            block = next(self.blocks(sys.maxsize))
            return dict(block.cells), block.lines
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        lines = []
        for block in self.blocks(max(1, BLOCK_CELLS // len(parts))):
            lines.append(block.lines)
            for name, texts in block.cells.items():
                parts[name].append(np.array(texts, dtype=np.dtypes.StringDType()))
        return {name: np.concatenate(parts.pop(name)) for name in self.names}, np.concatenate(lines)


def shown(text: str, limit: int = 60) -> str:
    """`text` quoted for a message of one line: control characters escaped, long ones cut."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def open_csv(label: str, opener: Opener) -> Source:
    """Look at the whole file once and parse its header. An `InputError` says that it cannot be read, is empty or not
    text, or that its header is unusable."""
    text, sha256, n_lines, warnings = _scan(label, opener)
    n_above, delimiter = _find_table(text)
    rows = _first_rows(text, n_above, delimiter)
    if not rows:
        raise InputError(f"{label} is empty; it needs a header line with column names and at least one data row")
    fitted = _fitted(rows)
    header = fitted or rows[0]
    if n_above:
        warnings.append(f"{label}: {n_above} line{'s' if n_above > 1 else ''} above the header left out")
    if delimiter != ",":
        sign = "white space" if delimiter == WHITE_SPACE else shown(delimiter)
        warnings.append(f"{label}: cells are separated by {sign}, not by commas; read as such")
    if ends_empty := fitted is not None and len(header) < max(map(len, rows)):
        warnings.append(f"{label}: rows end with a delimiter too many; the empty cells after it are left out")
    names = column_names(label, header)
    if len(names) > 1 and all(re.fullmatch(r"[+-]?[\d.,]+", name) for name in names):
        warnings.append(f"{label}: every column name is a number ({', '.join(names[:3])}, ...); is the header missing?")
    blocks = partial(_blocks, text, n_above, delimiter, names, ends_empty)
    return Source(label, names, sha256, tuple(warnings), delimiter, max(0, n_lines - n_above - 1), blocks)


def _blocks(
    text: Text, n_above: int, delimiter: str, names: tuple[str, ...], ends_empty: bool, n_rows: int
) -> Iterator[Block]:
    """Yield the data rows, at least one, in blocks of at most `n_rows`; blank lines are skipped.

    `n_above` lines stand above the header; `ends_empty` where rows may end with a delimiter too many.

    Raises:
        InputError: There is no data row, a row has more or fewer cells than the header, or a quote does not end.
    """
    n_columns, is_empty = len(names), True
    rows = islice(_rows(text, n_above, delimiter), 1, None)
    while True:
        lines, texts = [], []
        for line, row in islice(rows, n_rows):
            if ends_empty and len(row) == n_columns + 1 and not row[-1].strip():
                row.pop()
            if len(row) != n_columns:
                raise InputError(f"{text.label}, line {line}: {_ragged(row, n_columns)}")
            lines.append(line)
            texts.append(row)
        if not lines:
            break
        is_empty = False
        columns = zip(*texts, strict=True)
        yield Block(dict(zip(names, columns, strict=True)), np.array(lines, dtype=np.int64))
    if is_empty:
        raise InputError(f"{text.label} has a header but no data row; add rows")


def _ragged(row: list[str], n_columns: int) -> str:
    """What is wrong with a row of another length than the header, and the repair."""
    what = f"{len(row)} cell{'s' if len(row) != 1 else ''} where the header has {n_columns}"
    if len(row) == n_columns + 1 and not row[-1].strip():
        return f"{what}; remove the delimiter at the end of the line"
    return f"{what}; correct the line (a cell that holds a delimiter must stand in double quotes)"


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn what the operating system, or a library that unpacks, says about a file into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, BadZipFile) as error:
        raise InputError(f"{label} is a damaged archive ({one_line(str(error))}); copy it again") from None
    except (OSError, ValueError, NotImplementedError) as error:
        said: dict[type[Exception], str] = {
            FileNotFoundError: f"does not exist; check the path (the current folder is {Path.cwd()})",
            IsADirectoryError: "is a directory; name a CSV file",
            PermissionError: "cannot be read: permission denied; change its permissions",
        }
        raise InputError(f"{label} {said.get(type(error), f'cannot be read: {one_line(str(error))}')}") from None


def _scan(label: str, opener: Opener) -> tuple[Text, str, int, list[str]]:
    """The text, sha256, line ends (about) and warnings, from one pass over the bytes in constant memory."""
    sha256, n_lines, is_decodable, has_controls = hashlib.sha256(), 0, True, False
    with readable(label), opener() as file:
        start = file.read(SCAN_BYTES)
        for magic, what in NOT_TABLES.items():
            if start.startswith(magic):
                raise InputError(f"{label} is {what}: a table is needed")
        marked = [name for mark, name in ENCODINGS.items() if start.startswith(mark)]
        encoding = marked[0] if marked else _without_mark(start)
        decoder = codecs.getincrementaldecoder(encoding)()
        # the empty part at the end shows whether a character is cut off there
        for part in chain([start], iter(lambda: file.read(SCAN_BYTES), b""), [b""]):
            if encoding.startswith("utf-8") and b"\x00" in part:
                raise InputError(f"{label} is a binary file (it holds NUL bytes): a CSV file, plain text, is needed")
            sha256.update(part)
            n_lines += part.count(b"\n")
            has_controls = has_controls or CONTROLS.search(part) is not None
            is_decodable = is_decodable and _decodes(decoder, part)
    text, warnings = Text(label, opener, encoding), [f"{label} is UTF-16; read as such"] if "16" in encoding else []
    if not is_decodable:
        if "16" in encoding:
            what = f"begins like {encoding[:6].upper()} but is not valid; save it again as UTF-8"
            raise InputError(f"{label} {what}")
        if has_controls:
            raise InputError(f"{label} is a binary file (it holds control bytes): a CSV file, plain text, is needed")
        text, warning = _mended(replace(text, stray="surrogateescape"))
        warnings.append(warning)
    return text, sha256.hexdigest(), n_lines, warnings


def _decodes(decoder: codecs.IncrementalDecoder, part: bytes) -> bool:
    try:
        decoder.decode(part, final=not part)
    except UnicodeDecodeError:
        return False
    return True


def _mended(text: Text) -> tuple[Text, str]:
    """How to read a text that is not all UTF-8, and a warning: as Windows-1252 are read the bytes that are no UTF-8, or
    all where these are more than the others beyond ASCII."""
    n_others, strays, first = 0, Counter[str](), ""
    for number, line in enumerate(text.lines(), 1):
        if not line.isascii():
            strays.update(found := STRAY.findall(line))
            n_others += len(BEYOND_ASCII.findall(line))
            if found and not first:
                cell = next(cell for cell in CELL_END.split(line) if STRAY.search(cell)).strip()
                first = f"first in line {number}: {shown(cell.translate(AS_CP1252))}"
    # others have two bytes or more each
    if text.encoding == "utf-8-sig" or 2 * n_others > strays.total():
        are = "1 byte is" if strays.total() == 1 else f"{strays.total()} bytes are"
        mended = replace(text, stray="cp1252")
        return mended, f"{text.label}: {are} not valid UTF-8 ({first}); read as Windows-1252, all others as UTF-8"
    if any(AS_CP1252[ord(stray)] == "\ufffd" for stray in strays):
        raise InputError(f"{text.label} is neither UTF-8 nor Windows-1252 ({first}); save it again as UTF-8")
    warning = (
        f"{text.label} is not valid UTF-8 ({first}); read as Windows-1252 (save it as UTF-8 if letters look wrong)"
    )
    return Text(text.label, text.open, "cp1252"), warning


def _without_mark(start: bytes) -> str:
    """UTF-16 where a quarter of the characters or more have a zero as one of their bytes, always the same; or UTF-8."""
    zeros = {"utf-16-be": start[::2].count(0), "utf-16-le": start[1::2].count(0)}
    (_, n_fewer), (more, n_more) = sorted(zeros.items(), key=lambda item: item[1])
    return more if n_fewer == 0 and n_more >= max(4, len(start) / 8) else "utf-8"


def _rows(text: Text, n_above: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file that are not blank, each with the number of the line at which it ends."""
    n_columns = 0
    below = islice(text.lines(), n_above, None)
    # NumPy writes the header as a comment; `#` in `#,name` is the name of a column
    lines: Iterator[str] = chain((re.sub(r"^#[ \t]+(?=\w)", "", line) for line in islice(below, 1)), below)
    if delimiter == WHITE_SPACE:
        delimiter, lines = "\t", (GAP.sub(lambda gap: gap[1] or "\t", line.strip()) for line in lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            # a single blank cell is a blank line, except where a row has only one cell
            if row and (row != [""] or n_columns == 1):
                n_columns = n_columns or len(row)
                yield n_above + reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"{text.label}, line {n_above + max(reader.line_num, 1)}: {error}; correct the double quotes there (one "
            "inside a quoted cell is written twice)"
        ) from None


def _first_rows(text: Text, n_above: int, delimiter: str) -> list[list[str]]:
    return [row for _, row in islice(_rows(text, n_above, delimiter), N_SNIFFED_ROWS)]


def _find_table(text: Text) -> tuple[int, str]:
    """How many lines stand above the header (`sep=;`, and comments that begin with #), and the delimiter.

    The last comment is the header where it has as many cells as the row below, which has a number where it has none.
    """
    above: list[str] = []
    said: re.Match[str] | None = None
    for line in text.lines():
        said = said or (None if above else SEPARATOR_LINE.fullmatch(line.strip("\r\n")))
        if line.strip() and not line.startswith("#") and (above or not said):
            break
        above.append(line)
    delimiter = said[1] if said else _find_delimiter(text, len(above))
    if above and above[-1].startswith("#"):
        commented, rows = (_first_rows(text, len(above) - n, delimiter)[:1] for n in (1, 0))
        has_number = [any(NUMBER.fullmatch(cell.strip()) for row in own for cell in row) for own in (commented, rows)]
        if not rows or (len(rows[0]) == len(commented[0]) > 1 and has_number == [False, True]):
            return len(above) - 1, delimiter
    return (len(above) if any(line.strip() for line in above) else 0), delimiter


def _find_delimiter(text: Text, n_above: int) -> str:
    """The first that splits header and first rows into equally many cells; else the first that splits the header."""
    splits = ""
    for delimiter in DELIMITERS:
        with suppress(InputError):
            rows = _first_rows(text, n_above, delimiter)
            if rows and _fitted(rows) is not None:
                return delimiter
            if rows and len(rows[0]) > 1 and delimiter != WHITE_SPACE:
                splits = splits or delimiter
    return splits or ","


def _fitted(rows: list[list[str]]) -> list[str] | None:
    """The header as it fits the rows below, each of which may end with a delimiter too many; None where it does not."""
    header, *data = rows
    widths = {len(row) for row in data} or {len(header)}
    is_blank = [not header[-1].strip(), not any(row[-1].strip() for row in data)]
    if len(header) < 2 or len(widths) > 1:
        return None
    surplus = widths.pop() - len(header)
    if surplus == 0 or (surplus == 1 and is_blank[1]):
        return header
    return header[:-1] if surplus == -1 and is_blank[0] and len(header) > 2 else None


def column_names(label: str, header: list[str]) -> tuple[str, ...]:
    """The names of a header, stripped; an unnamed column i is called `Unnamed: i`, as pandas does. An `InputError`
    names those that are equal."""
    names = tuple(name.strip() or f"Unnamed: {i}" for i, name in enumerate(header))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{label}: column names must differ, but {listed(repeated)} stands there twice; rename one")
    return names


def listed(names: list[str], limit: int = 5) -> str:
    text = ", ".join(shown(name) for name in names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
