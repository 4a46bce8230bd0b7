"""From the bytes of a CSV file to columns of text, in blocks of rows: encoding, delimiter, header, ragged rows.

Python's own `csv` does the splitting: unlike pandas it tells a short row from a row with empty cells, and the line
number of each. Everything that can be wrong with a file ends in one `InputError` here.
"""

import codecs
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from actlab.errors import InputError

SCAN_BYTES = 1 << 20
N_SNIFFED_ROWS = 20
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}
NOT_CSV = {
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"PAR1": "a Parquet file; convert it to CSV",
    b"%PDF": "a PDF",
}


@dataclass(frozen=True)
class CsvFile:
    """How to read one file, what its header says (as `column_names` gives it), and what was unusual about it."""

    path: str
    names: tuple[str, ...]
    encoding: str
    delimiter: str
    sha256: str
    warnings: tuple[str, ...]


class Block(NamedTuple):
    """Consecutive data rows: by name the (n_rows,) texts of a column, and the line of the file where each row ends.

    Lines are counted from 1, the header included.
    """

    texts: dict[str, Sequence[str]]
    lines: np.ndarray


def shown(text: str, limit: int = 60) -> str:
    """`text` quoted for a message of one line: control characters escaped, long ones cut."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def open_csv(path: str) -> CsvFile:
    """Look at the whole file once and parse its header. An `InputError` says that it cannot be read, is empty or not
    text, or that its header is unusable."""
    if not path:
        raise InputError("the path of the CSV file is empty; name a file with --data.csv")
    sha256, encoding, warnings = _scan_bytes(path)
    delimiter, header = _split_header(path, encoding)
    if delimiter != ",":
        warnings.append(f"{path}: cells are separated by {OTHER_DELIMITERS[delimiter]}, not commas; read as such")
    names = column_names(path, header)
    if len(names) > 1 and all(re.fullmatch(r"[+-]?[\d.,]+", name) for name in names):
        warnings.append(f"{path}: every column name is a number ({', '.join(names[:3])}, ...); is the header missing?")
    return CsvFile(path, names, encoding, delimiter, sha256, tuple(warnings))


def iterate_blocks(csv_file: CsvFile, n_rows: int) -> Iterator[Block]:
    """Yield the data rows, at least one, in blocks of at most `n_rows`; blank lines are skipped.

    Raises:
        InputError: There is no data row, a row has more or fewer cells than the header, or a quote does not end.
    """
    rows = islice(_rows(csv_file.path, csv_file.encoding, csv_file.delimiter), 1, None)
    n_columns, is_empty = len(csv_file.names), True
    while True:
        lines, texts = [], []
        for line, row in islice(rows, n_rows):
            if len(row) != n_columns:
                n_cells = f"{len(row)} cell{'s' if len(row) != 1 else ''}"
                raise InputError(
                    f"{csv_file.path}, line {line}: {n_cells} where the header has {n_columns}; correct the line (a "
                    "cell that holds a delimiter must stand in double quotes)"
                )
            lines.append(line)
            texts.append(row)
        if not lines:
            break
        is_empty = False
        columns = zip(*texts, strict=True)
        yield Block(dict(zip(csv_file.names, columns, strict=True)), np.array(lines, dtype=np.int64))
    if is_empty:
        raise InputError(f"{csv_file.path} has a header but no data row; add rows")


def count_lines(path: str) -> int:
    """Line ends in the file: the rows of a table, its header included, but for line ends inside quotes."""
    with readable(path), open(path, "rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(SCAN_BYTES), b""))


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what the operating system says about `path` into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        said: dict[type[Exception], str] = {
            FileNotFoundError: f"does not exist; check the path (the current folder is {Path.cwd()})",
            IsADirectoryError: "is a directory; name a CSV file",
            PermissionError: "cannot be read: permission denied; change its permissions",
        }
        raise InputError(f"{path} {said.get(type(error), f'cannot be read: {str(error).strip()}')}") from None


def _scan_bytes(path: str) -> tuple[str, str, list[str]]:
    """Return sha256, encoding and warnings, from one pass over the bytes in constant memory."""
    sha256, is_decodable, has_controls = hashlib.sha256(), True, False
    with readable(path):
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise InputError(f"{path} is not a regular file; save the table as a CSV file first")
        with open(path, "rb") as file:
            start = file.read(4)
            for magic, what in NOT_CSV.items():
                if start.startswith(magic):
                    raise InputError(f"{path} is {what}: a CSV file is needed")
            encoding = next((name for mark, name in ENCODINGS.items() if start.startswith(mark)), "utf-8")
            decoder = codecs.getincrementaldecoder(encoding)()
            file.seek(0)
            # the empty part at the end shows whether a character is cut off there
            for part in chain(iter(lambda: file.read(SCAN_BYTES), b""), [b""]):
                sha256.update(part)
                has_controls = has_controls or re.search(rb"[\x01-\x08\x0e-\x19]", part) is not None
                if encoding != "utf-16" and b"\x00" in part:
                    raise InputError(f"{path} is a binary file (it holds NUL bytes): a CSV file, plain text, is needed")
                is_decodable = is_decodable and _decodes(decoder, part)
    if is_decodable:
        return sha256.hexdigest(), encoding, [f"{path} is UTF-16; read as such"] if encoding == "utf-16" else []
    if encoding != "utf-8":
        raise InputError(f"{path} begins like {encoding.upper()} but is not valid; save it again as UTF-8")
    if has_controls:
        raise InputError(f"{path} is a binary file (it holds control bytes): a CSV file, plain text, is needed")
    warning = f"{path} is not valid UTF-8; read as Latin-1 (save it as UTF-8 if letters look wrong)"
    return sha256.hexdigest(), "latin-1", [warning]


def _decodes(decoder: codecs.IncrementalDecoder, part: bytes) -> bool:
    try:
        decoder.decode(part, final=not part)
    except UnicodeDecodeError:
        return False
    return True


def _rows(path: str, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file that are not blank, each with the number of the line at which it ends."""
    n_columns = 0
    with readable(path), open(path, encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            for row in reader:
                # a single blank cell is a blank line, except where a row has only one cell
                if row and (row != [""] or n_columns == 1):
                    n_columns = n_columns or len(row)
                    yield reader.line_num, row
        except csv.Error as error:
            raise InputError(
                f"{path}, line {max(reader.line_num, 1)}: {error}; correct the double quotes there (one inside "
                "a quoted cell is written twice)"
            ) from None


def _split_header(path: str, encoding: str) -> tuple[str, list[str]]:
    """The delimiter, a comma unless only another one splits the header, and the names between."""
    for delimiter in (",", *OTHER_DELIMITERS):
        with suppress(InputError):
            rows = [row for _, row in islice(_rows(path, encoding, delimiter), N_SNIFFED_ROWS)]
            if rows and len(rows[0]) > 1 and (delimiter == "," or len(set(map(len, rows))) == 1):
                return delimiter, rows[0]
    rows = [row for _, row in islice(_rows(path, encoding, ","), N_SNIFFED_ROWS)]
    if not rows:
        raise InputError(f"{path} is empty; it needs a header line with column names and at least one data row")
    return ",", rows[0]


def column_names(path: str, header: list[str]) -> tuple[str, ...]:
    """The names of a header, stripped; an unnamed column i is called `Unnamed: i`, as pandas does. An `InputError`
    names those that are equal."""
    names = tuple(name.strip() or f"Unnamed: {i}" for i, name in enumerate(header))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: column names must differ, but {listed(repeated)} stands there twice; rename one")
    return names


def listed(names: list[str], limit: int = 5) -> str:
    text = ", ".join(shown(name) for name in names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
