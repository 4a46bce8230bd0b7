"""Files of every kind and frames give the same table; what is none is refused in one sentence."""

import bz2
import gzip
import io
import lzma
import os
import threading
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from actlab.data import sources
from actlab.data.sources import is_rereadable, open_source
from actlab.data.table import read_rows, read_table
from actlab.errors import InputError
from actlab.settings import DataSettings

CSV = b"kind,x,y\na,1,2\nb,2.5,3\n"
EXPECTED = {"kind": ["a", "b"], "x": ["1", "2.5"], "y": ["2", "3"]}


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_dot_", "."), content)
    return buffer.getvalue()


def texts(table: Any) -> dict[str, list[str]]:
    return {name: [str(cell) for cell in cells] for name, cells in open_source(table).read()[0].items()}


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": [0.1, np.nan, 3.0],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "b": [True, False, True],
            "word": ["é", None, "NA"],
            "day": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-02-01"]),
            "y": [1, 2, 3],
        }
    )


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, lambda content: zipped(t_dot_csv=content)]
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.dat"])
def test_a_packed_file_is_known_by_its_content(tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
    (tmp_path / name).write_bytes(pack(CSV))
    assert texts(tmp_path / name) == EXPECTED
    (tmp_path / name).write_bytes(pack(gzip.compress(CSV)))
    assert texts(tmp_path / name) == EXPECTED


def test_the_hash_of_a_packed_file_is_that_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CSV)
    (tmp_path / "b").write_bytes(lzma.compress(CSV))
    assert open_source(tmp_path / "a").sha256 == open_source(tmp_path / "b").sha256


def test_a_part_of_an_archive_is_named_after_a_hash_sign(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    path.write_bytes(zipped(train_dot_csv=CSV, test_dot_csv=CSV.replace(b"a", b"c"), about_dot_md=b"text"))
    with pytest.raises(InputError, match=r"holds 3 files \('train.csv', .*name one, as in .*t.zip#train.csv"):
        open_source(path)
    assert texts(f"{path}#train.csv") == EXPECTED
    assert open_source(f"{path}#test.csv").label == f"{path}#test.csv"
    with pytest.raises(InputError, match=r"holds 3 files \(.*'about.md'\) and no 'valid.csv'; name one"):
        open_source(f"{path}#valid.csv")
    path.write_bytes(CSV)
    with pytest.raises(InputError, match=r"holds one table, and nothing called 'train.csv'"):
        open_source(f"{path}#train.csv")
    with pytest.raises(InputError, match=r"none.zip#a does not exist"):
        open_source(tmp_path / "none.zip#a")
    (tmp_path / "a#b.csv").write_bytes(CSV)
    assert texts(tmp_path / "a#b.csv") == EXPECTED


def test_the_only_table_of_an_archive_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(zipped(table_dot_csv=CSV, about_dot_md=b"text"))
    (warning,) = open_source(tmp_path / "t.zip").warnings
    assert "only 'table.csv' in it is read" in warning
    assert texts(tmp_path / "t.zip") == EXPECTED


def locked_zip() -> bytes:
    content = bytearray(zipped(t_dot_csv=CSV))
    for start in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[start] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(), "empty archive"),
        (locked_zip(), "archive with a password; unpack it"),
        (gzip.compress(CSV)[:-9], "damaged archive"),
        (gzip.compress(b""), "is empty"),
        (gzip.compress(b"\0" * 100), "binary"),
        (bz2.compress(CSV)[:-3], "damaged archive"),
        (b"BZh9nonsense", "cannot be read"),
        (lzma.compress(CSV)[:-3], "damaged archive"),
        (b"PK\x03\x04" + b"rest", "damaged archive"),
        (b"PAR1rest", "cannot be read"),
        (b"ARROW1rest", "cannot be read"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel workbook of before 2007, or one with a password"),
        (zipped(mimetype=b"x", content_dot_xml=b"x"), "OpenDocument"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"%PDF-1.4", "a PDF"),
    ],
    # contents hold the time, and processes must agree on the names of tests
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_table_is_refused_in_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_source(path).read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_workbook_gives_its_first_sheet_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as writer:
        frame().to_excel(writer, sheet_name="homes", index=False)
        frame().assign(x=7).to_excel(writer, sheet_name="others", index=False, startrow=2)
        pd.DataFrame().to_excel(writer, sheet_name="empty")
    source = open_source(path)
    assert f"only its first sheet, 'homes', is read; {path}#others is another" in source.warnings[0]
    found, lines = source.read()
    assert lines.tolist() == [2, 3, 4]
    for name, column in frame().items():
        pd.testing.assert_series_equal(found[name].astype(column.dtype), column, check_names=False)
    other, lines = open_source(f"{path}#others").read()
    assert other["x"].tolist() == [7, 7, 7]
    assert lines.tolist() == [4, 5, 6]
    with pytest.raises(InputError, match="has no sheet 'home'; its sheets are 'homes', 'others', 'empty'"):
        open_source(f"{path}#home")
    with pytest.raises(InputError, match=r"no row below a header in sheet 'empty'; add rows \(.*#homes is another\)"):
        open_source(f"{path}#empty")


def test_an_error_of_a_formula_is_missing(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.5, "#DIV/0!", 2.5], "y": [1, 2, 3]}).to_excel(tmp_path / "t.xlsx", index=False)
    found = open_source(tmp_path / "t.xlsx").read()[0]["x"]
    assert found.isna().tolist() == [False, True, False]
    assert found.dtype == "Float64"


def test_types_of_arrow_become_those_of_pandas() -> None:
    table = pa.table(
        {
            "whole": pa.array([1, None], pa.int64()),
            "truth": pa.array([True, None]),
            "day": pa.array([19000, None], pa.date32()),
            "money": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "code": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    found = open_source(table).read()[0]
    kinds = {"whole": "Int64", "truth": "boolean", "day": "datetime64[ms]", "money": "object", "code": "category"}
    assert {name: str(cells.dtype) for name, cells in found.items()} == kinds
    assert found["day"][0] == pd.Timestamp("2022-01-08")
    with pytest.raises(InputError, match="column 'cells' holds list"):
        open_source(pa.table({"cells": [[1], [2]]}))


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_file_of_arrow_comes_in_blocks(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame({"x": np.arange(10.0), "y": range(10)})
    path = tmp_path / "t"
    getattr(table, f"to_{kind}")(path, **({"row_group_size": 4} if kind == "parquet" else {}))
    source = open_source(path)
    blocks = list(source.blocks(3))
    assert source.n_rows == 10
    assert max(len(block.lines) for block in blocks) <= 3
    assert np.concatenate([block.lines for block in blocks]).tolist() == list(range(2, 12))
    assert np.concatenate([block.cells["x"] for block in blocks]).tolist() == list(range(10))
    assert source.read()[0]["y"].tolist() == list(range(10))


def test_an_index_without_a_name_is_called_as_in_a_csv(tmp_path: Path) -> None:
    frame().iloc[[2, 0, 1]].to_parquet(tmp_path / "t")
    assert open_source(tmp_path / "t").read()[0]["Unnamed: 0"].tolist() == [2, 0, 1]


@pytest.mark.parametrize("make", [frame, lambda: pl.from_pandas(frame()), lambda: pa.Table.from_pandas(frame())])
def test_a_frame_has_a_hash_of_its_content(make: Callable[[], Any]) -> None:
    assert open_source(make()).sha256 == open_source(make()).sha256
    changed = make().to_pandas() if not isinstance(make(), pd.DataFrame) else make()
    first = open_source(changed).sha256
    assert first == open_source(changed.set_axis([7, 8, 9], axis=0)).sha256
    for other in (
        changed.assign(y=[1, 2, 4]),
        changed.rename(columns={"x": "z"}),
        changed.iloc[::-1],
        changed.assign(y=changed.y.astype(float)),
        changed.assign(word=["é", "NA", None]),
        changed[changed.columns[::-1]],
    ):
        assert open_source(other).sha256 != first


def test_a_frame_that_is_no_table_is_refused() -> None:
    with pytest.raises(InputError, match="the frame has no row"):
        open_source(pd.DataFrame({"x": []}))
    with pytest.raises(InputError, match="has a column of lists"):
        open_source(pd.DataFrame({"x": [[1], [2]]}))
    with pytest.raises(InputError, match="'x' stands there twice"):
        open_source(pd.DataFrame([[1, 2]], columns=["x", "x"]))
    with pytest.raises(InputError, match=r"a path or a frame .* is needed, got dict"):
        open_source({"x": [1]})
    with pytest.raises(InputError, match="was a frame, which only Python has"):
        open_source("frame sha256:0123")
    (warning,) = open_source(frame().set_index("word")).warnings
    assert "its index ('word') is left out" in warning


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame().to_parquet(tmp_path / "t")
    frame().to_excel(tmp_path / "t.xlsx")

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(sources.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"t is a Parquet file, which needs pyarrow: pip install 'actlab\[files\]'"):
        open_source(tmp_path / "t")
    with pytest.raises(InputError, match="is an Excel workbook, which needs openpyxl"):
        open_source(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match="the frame is of polars, which needs pyarrow"):
        open_source(pl.DataFrame({"x": [1]}))


def test_standard_input_is_read_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(CSV))))
    source = open_source("-")
    assert source.label == "standard input"
    assert {name: list(cells) for name, cells in source.read()[0].items()} == EXPECTED
    assert len(list(source.blocks(1))) == 2
    with pytest.raises(InputError, match="standard input is empty"):
        open_source("-")


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(CSV,))
    writer.start()
    assert texts(path) == EXPECTED
    writer.join()


def test_what_another_process_can_read(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(CSV)
    assert is_rereadable(str(tmp_path / "t.zip"))
    assert is_rereadable(f"{tmp_path}/t.zip#t.csv")
    assert not any(map(is_rereadable, ("-", "frame sha256:01", None, str(tmp_path))))


def test_rows_to_predict_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    table = read_table(DataSettings(csv=str(tmp_path / "t.csv"), target="y"))
    right = pd.concat([part.features for part in read_rows(tmp_path / "t.csv", table.schema)])
    frame().to_parquet(tmp_path / "t.parquet")
    frame().to_excel(tmp_path / "t.xlsx", index=False)
    for own in (frame(), pl.from_pandas(frame()), tmp_path / "t.parquet", tmp_path / "t.xlsx"):
        parts = [part.features for part in read_rows(own, table.schema, 2)]
        pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), right)
