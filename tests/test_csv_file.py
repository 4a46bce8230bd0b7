"""Files that are broken, or merely unusual, are named as such; everything else is split as pandas splits it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actlab.data.csv_file import SCAN_BYTES, shown
from actlab.data.sources import open_source
from actlab.errors import InputError

ROWS = "name,price\nGarçon,1\nB,2\n"


def write(folder: Path, content: bytes | str) -> str:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def cells(path: str, n_rows: int = 1000) -> list[list[str]]:
    """All data rows of a file, read in blocks of `n_rows`."""
    blocks = open_source(path).blocks(n_rows)
    return [list(row) for block in blocks for row in zip(*block.cells.values(), strict=True)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "latin-1"])
def test_every_usual_encoding_gives_the_same_cells(tmp_path: Path, encoding: str) -> None:
    content = b"\xff\xfe" + ROWS.encode("utf-16-le") if encoding == "utf-16-le-bom" else ROWS.encode(encoding)
    path = write(tmp_path, content)
    assert open_source(path).names == ("name", "price")
    assert cells(path) == [["Garçon", "1"], ["B", "2"]]


@pytest.mark.parametrize(("encoding", "word"), [("cp1252", "Windows-1252"), ("utf-16", "UTF-16")])
def test_an_unusual_encoding_is_said(tmp_path: Path, encoding: str, word: str) -> None:
    (warning,) = open_source(write(tmp_path, ROWS.encode(encoding))).warnings
    assert word in warning
    assert open_source(write(tmp_path, ROWS)).warnings == ()


def test_an_invalid_byte_far_into_the_file_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n" + b"1,2\n" * 600_000 + "é,3\n".encode("cp1252"))
    (warning,) = open_source(path).warnings
    assert "first in line 600002: 'é'" in warning
    assert cells(path, 1000)[-1] == ["é", "3"]


def test_a_letter_across_the_border_of_two_scanned_parts_is_no_error(tmp_path: Path) -> None:
    start = b"a,b\n" + b"1,2\n" * ((1 << 18) - 2) + b"xyz"
    assert len(start) == SCAN_BYTES - 1
    path = write(tmp_path, start + "é,1\n".encode())
    assert open_source(path).warnings == ()
    assert cells(path)[-1] == ["xyzé", "1"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_another_delimiter_is_found_and_said(tmp_path: Path, delimiter: str, quote: str) -> None:
    lines = [("a", "b"), ("1,5", "x y"), ("2", "")]
    text = "\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines)
    path = write(tmp_path, text)
    assert open_source(path).names == ("a", "b")
    assert cells(path) == [["1,5", "x y"], ["2", ""]]
    assert len(open_source(path).warnings) == 1


@pytest.mark.parametrize("delimiter", ["~", "^", "\x01", ":"])
def test_a_rare_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path, "\n".join(delimiter.join(row) for row in ("ab", "12", ("x y", "3,5"))) + "\n")
    assert cells(path) == [["1", "2"], ["x y", "3,5"]]
    assert "not by commas; read as such" in open_source(path).warnings[0]


def test_the_delimiter_is_the_one_that_splits_every_row(tmp_path: Path) -> None:
    path = write(tmp_path, "area, m2;rooms;price\n1,5;2;3\n1;2;3\n")
    assert open_source(path).names == ("area, m2", "rooms", "price")
    assert cells(path) == [["1,5", "2", "3"], ["1", "2", "3"]]


@pytest.mark.parametrize(
    "text",
    [
        "a  b c\n1 2   3\n'x' -4 5\n",
        "  a b\tc\n 1\t2 3  \n\n'x' -4 5\n",
        '"a" b c\n"1" 2 3\n\'x\' "-4" 5\n',
        "# a b c\n1 2 3\n'x' -4 5\n",
        "# of 2020\n# a b c\n1 2 3\n'x' -4 5\n",
    ],
)
def test_runs_of_white_space_separate_cells(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert open_source(path).names == ("a", "b", "c")
    assert cells(path) == [["1", "2", "3"], ["'x'", "-4", "5"]]
    assert any("separated by white space" in warning for warning in open_source(path).warnings)


def test_quotes_keep_white_space_together(tmp_path: Path) -> None:
    assert cells(write(tmp_path, 'a b\n"x  y" 1\n"" 2\n"say ""no""" 3\n')) == [
        ["x  y", "1"],
        ["", "2"],
        ['say "no"', "3"],
    ]


def test_white_space_inside_the_cells_of_one_column_separates_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "when value\n2020-01-01 12:30 5\n2020-01-02 12:30 6\n")
    assert open_source(path).names == ("when value",)


@pytest.mark.parametrize("above", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n# text\n", "# one; two\n#three\n\n", "#a;b;c\n"])
def test_lines_above_the_header_are_left_out_and_said(tmp_path: Path, above: str) -> None:
    path = write(tmp_path, f"{above}a;b\n1;2\n3;4\n")
    assert open_source(path).names == ("a", "b")
    assert cells(path) == [["1", "2"], ["3", "4"]]
    n_lines = above.count("\n")
    assert f"{n_lines} line{'s' if n_lines > 1 else ''} above the header left out" in open_source(path).warnings[0]
    assert next(open_source(path).blocks(9)).lines.tolist() == [n_lines + 2, n_lines + 3]


def test_a_named_separator_is_taken_whatever_the_rows_look_like(tmp_path: Path) -> None:
    path = write(tmp_path, "sep=!\na,b!c\n1,2!3\n")
    assert open_source(path).names == ("a,b", "c")


def test_a_hash_sign_can_begin_a_header(tmp_path: Path) -> None:
    for header, names in (("#,name", ("#", "name")), ("#id,name", ("#id", "name")), ("# a,b", ("a", "b"))):
        path = write(tmp_path, f"{header}\n1,x\n2,y\n")
        assert open_source(path).names == names
        assert cells(path) == [["1", "x"], ["2", "y"]]


@pytest.mark.parametrize("text", ["a,b\n1,2,\n3,,\n", "a,b,\n1,2\n3,\n", "a;b; \n1;2\n3;\n"])
def test_a_delimiter_too_many_is_left_out_and_said(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert open_source(path).names == ("a", "b")
    assert cells(path) == [["1", "2"], ["3", ""]]
    assert any("a delimiter too many" in warning for warning in open_source(path).warnings)


def test_a_cell_after_a_delimiter_too_many_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "1,2,\n" * 30 + "1,2,3\n")
    with pytest.raises(InputError, match="line 32: 3 cells where the header has 2"):
        cells(path)
    with pytest.raises(InputError, match=r"line 3: .*remove the delimiter at the end of the line"):
        cells(write(tmp_path, "a,b\n1,2\n3,4,\n"))


def test_one_bad_byte_changes_no_other_cell(tmp_path: Path) -> None:
    path = write(tmp_path, "größe,wo\n1,Köln\n2,".encode() + b"caf\xe9" + "\n3,Ωmega\n".encode())
    assert open_source(path).names == ("größe", "wo")
    assert cells(path) == [["1", "Köln"], ["2", "café"], ["3", "Ωmega"]]
    (warning,) = open_source(path).warnings
    assert "1 byte is not valid UTF-8 (first in line 3: 'café')" in warning


def test_windows_1252_has_signs_that_latin_1_has_not(tmp_path: Path) -> None:
    path = write(tmp_path, "größe,wo\n1,67 €\n2,“a”\n".encode("cp1252"))
    assert open_source(path).names == ("größe", "wo")
    assert cells(path) == [["1", "67 €"], ["2", "“a”"]]
    (warning,) = open_source(path).warnings
    assert "not valid UTF-8 (first in line 1: 'größe'); read as Windows-1252" in warning


def test_bytes_of_no_known_encoding_are_refused(tmp_path: Path) -> None:
    content = "x,wo\n1,、東京都\n2,横浜\n".encode("shift-jis")
    with pytest.raises(InputError, match=r"neither UTF-8 nor Windows-1252 \(first in line 2: .*save it again as UTF-8"):
        open_source(write(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_told_without_its_mark(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "x,wo\n1,東京都\n2,Garçon\n".encode(encoding))
    assert cells(path) == [["1", "東京都"], ["2", "Garçon"]]
    assert "UTF-16" in open_source(path).warnings[0]


def test_line_ends_quotes_blank_lines_and_spaces_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    text = 'a, b ,c\r\n1,"x, ""y""\nz",3\r\n\r\n   \r\n 4, "q",\r\n'
    path = write(tmp_path, text)
    expected = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    assert open_source(path).names == tuple(expected.columns.str.strip())
    assert cells(path) == expected.to_numpy().tolist()
    (block,) = open_source(path).blocks(10)
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
    assert open_source(path).names == tuple(pd.read_csv(path).columns) == ("Unnamed: 0", "a", "b")


def test_a_column_with_a_single_missing_cell_per_row_keeps_its_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "table.csv")
    pd.DataFrame({"a": [1.0, np.nan, 3.0]}).to_csv(path, index=False)
    assert cells(path) == [["1.0"], [""], ["3.0"]]


def test_a_header_of_numbers_is_doubted(tmp_path: Path) -> None:
    (warning,) = open_source(write(tmp_path, "1.5,2\n3,4\n")).warnings
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
        (b"PK\x03\x04rest", "damaged"),
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
        open_source(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a,b\n1,2\n1,2,3\n", 3),
        ("a,b\n1,2\n\n1\n", 4),
        ('a,b\n"1\n",2\n1\n', 4),
        ("a,b\n1,2\n1,2,\n", 3),
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
        open_source(str(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match="is a directory"):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match="not a regular file"):
        open_source("/dev/null")
    with pytest.raises(InputError, match="cannot be read"):
        open_source("a\0b")
    with pytest.raises(InputError, match="is empty"):
        open_source("")
    path = write(tmp_path, ROWS)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="permission denied"):
        open_source(path)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read|does not exist"):
        open_source(write(tmp_path, ROWS) + "/table.csv")


def test_text_in_messages_stays_on_one_line() -> None:
    assert shown("a\n\x1b[31mb") == "'a\\n\\x1b[31mb'"
    assert len(shown("x" * 1000)) <= 62
