"""Files that are broken, or merely unusual, are named as such; everything else is split as pandas splits it."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actlab.data.csv_file import SCAN_BYTES, iterate_blocks, open_csv, shown
from actlab.errors import InputError

ROWS = "name,price\nGarçon,1\nB,2\n"


def write(folder: Path, content: bytes | str) -> str:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def cells(path: str, n_rows: int = 1000) -> list[list[str]]:
    """All data rows of a file, read in blocks of `n_rows`."""
    csv_file = open_csv(path)
    return [list(row) for block in iterate_blocks(csv_file, n_rows) for row in zip(*block.texts.values(), strict=True)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "latin-1"])
def test_every_usual_encoding_gives_the_same_cells(tmp_path: Path, encoding: str) -> None:
    content = b"\xff\xfe" + ROWS.encode("utf-16-le") if encoding == "utf-16-le-bom" else ROWS.encode(encoding)
    path = write(tmp_path, content)
    assert open_csv(path).names == ("name", "price")
    assert cells(path) == [["Garçon", "1"], ["B", "2"]]


@pytest.mark.parametrize(("encoding", "word"), [("latin-1", "Latin-1"), ("utf-16", "UTF-16")])
def test_an_unusual_encoding_is_said(tmp_path: Path, encoding: str, word: str) -> None:
    (warning,) = open_csv(write(tmp_path, ROWS.encode(encoding))).warnings
    assert word in warning
    assert open_csv(write(tmp_path, ROWS)).warnings == ()


def test_an_invalid_byte_far_into_the_file_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n" + b"1,2\n" * 600_000 + "é,3\n".encode("latin-1"))
    assert open_csv(path).encoding == "latin-1"


def test_a_letter_across_the_border_of_two_scanned_parts_is_no_error(tmp_path: Path) -> None:
    start = b"a,b\n" + b"1,2\n" * ((1 << 18) - 2) + b"xyz"
    assert len(start) == SCAN_BYTES - 1
    assert open_csv(write(tmp_path, start + "é,1\n".encode())).encoding == "utf-8"


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_another_delimiter_is_found_and_said(tmp_path: Path, delimiter: str, quote: str) -> None:
    lines = [("a", "b"), ("1,5", "x y"), ("2", "")]
    text = "\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines)
    path = write(tmp_path, text)
    assert open_csv(path).names == ("a", "b")
    assert cells(path) == [["1,5", "x y"], ["2", ""]]
    assert len(open_csv(path).warnings) == 1


def test_line_ends_quotes_blank_lines_and_spaces_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    text = 'a, b ,c\r\n1,"x, ""y""\nz",3\r\n\r\n   \r\n 4, "q",\r\n'
    path = write(tmp_path, text)
    expected = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    assert open_csv(path).names == tuple(expected.columns.str.strip())
    assert cells(path) == expected.to_numpy().tolist()
    (block,) = iterate_blocks(open_csv(path), 10)
    assert block.lines.tolist() == [3, 6]


def test_lone_carriage_returns_end_lines(tmp_path: Path) -> None:
    assert cells(write(tmp_path, "a,b\r1,2\r3,4\r")) == [["1", "2"], ["3", "4"]]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 100])
def test_blocks_hold_the_same_rows_whatever_their_size(tmp_path: Path, n_rows: int) -> None:
    path = write(tmp_path, "a,b\n" + "".join(f"{i},{i * i}\n" for i in range(7)))
    assert cells(path, n_rows) == [[str(i), str(i * i)] for i in range(7)]


def test_unnamed_columns_get_the_names_that_pandas_gives(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]}, index=["x", "y"])
    path = str(tmp_path / "table.csv")
    frame.to_csv(path)
    assert open_csv(path).names == tuple(pd.read_csv(path).columns) == ("Unnamed: 0", "a", "b")


def test_a_column_with_a_single_missing_cell_per_row_keeps_its_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "table.csv")
    pd.DataFrame({"a": [1.0, np.nan, 3.0]}).to_csv(path, index=False)
    assert cells(path) == [["1.0"], [""], ["3.0"]]


def test_a_header_of_numbers_is_doubted(tmp_path: Path) -> None:
    (warning,) = open_csv(write(tmp_path, "1.5,2\n3,4\n")).warnings
    assert "is the header missing" in warning


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"a,b\n1,\x00\n", "binary"),
        (b"\x7fELF\x01\x02\xff\xfe\x03", "binary"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "gzip"),
        (b"PK\x03\x04rest", "Excel"),
        (b"PAR1rest", "Parquet"),
        (b"\xff\xfea", "UTF-16"),
        (b"\xff\xfea\x00,\x00b\x00\n\x00\x00\xd8", "UTF-16"),
        (b"a,b,a\n1,2,3\n", "'a'"),
        (b"a, a \n1,2\n", "'a'"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=words) as caught:
        open_csv(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a,b\n1,2\n1,2,3\n", 3),
        ("a,b\n1,2\n\n1\n", 4),
        ('a,b\n"1\n",2\n1\n', 4),
        ("a,b\n1,2,\n", 2),
        ('a,b\n1,2\n"x"y,2\n', 3),
        ('a,b\n1,"2\n3,4\n', 3),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path: Path, content: str, line: int) -> None:
    with pytest.raises(InputError, match=f"line {line}[,:]"):
        cells(write(tmp_path, content))


def test_a_quote_that_swallows_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="double quotes"):
        cells(write(tmp_path, 'a,b\n1,"2\n' + "3,4\n" * 50_000))


def test_paths_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_csv(str(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match="is a directory"):
        open_csv(str(tmp_path))
    with pytest.raises(InputError, match="not a regular file"):
        open_csv("/dev/null")
    with pytest.raises(InputError, match="cannot be read"):
        open_csv("a\0b")
    with pytest.raises(InputError, match="is empty"):
        open_csv("")
    path = write(tmp_path, ROWS)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="permission denied"):
        open_csv(path)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read|does not exist"):
        open_csv(write(tmp_path, ROWS) + "/table.csv")


def test_text_in_messages_stays_on_one_line() -> None:
    assert shown("a\n\x1b[31mb") == "'a\\n\\x1b[31mb'"
    assert len(shown("x" * 1000)) <= 62
