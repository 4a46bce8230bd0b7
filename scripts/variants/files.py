"""Tables in every kind of file, archive, text and frame: each gives what its plain CSV gives."""

import bz2
import contextlib
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actlab.data.sources import open_source
from actlab.data.table import Table, frame_rows, read_rows, read_table
from actlab.errors import InputError
from actlab.settings import DataSettings
from variants import kind

WORDS = ["flat", "house", "Hütte", "château", "Ωmega", "row house", "a,b", 'the "old" one', "x"]
DELIMITERS = [",", ";", "\t", "|", "~", "^"]


def make_frame(generator: np.random.Generator, words: list[str] = WORDS) -> pd.DataFrame:
    """Numbers with and without gaps, whole numbers, words, truth values, days, and a positive target `y`."""
    n_rows = int(generator.integers(8, 40))
    size, rooms = generator.normal(50, 20, n_rows).round(3), generator.integers(1, 9, n_rows)
    is_missing = generator.random((2, n_rows)) < 0.2
    # never constant, and of the kind that they should be
    is_missing[:, :2], size[:2], rooms[:2] = False, (1.5, 2.5), (1, 2)
    frame = pd.DataFrame(
        {
            "size": np.where(is_missing[0], np.nan, size),
            "rooms": pd.array(rooms, dtype="Int64"),
            "kind": [*words[:2], *generator.choice(words, n_rows - 2)],
            "new": [True, False, *(generator.random(n_rows - 2) < 0.5)],
            "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(generator.permutation(n_rows), unit="D"),
            "y": generator.uniform(1, 9, n_rows).round(4),
        }
    )
    frame["rooms"] = frame["rooms"].mask(is_missing[1])
    return frame[["y", *generator.permutation(frame.columns.drop("y"))]]


def table_of(table: Any) -> Table:
    settings = DataSettings(csv="the table", target="y")
    return read_table(settings, source=open_source(table))


def cells_of(path: Path) -> dict[str, list[str]]:
    return {name: [str(cell) for cell in cells] for name, cells in open_source(path).read()[0].items()}


def assert_equal(found: Table, right: Table) -> None:
    """Cells by value, and the kinds of the columns."""
    assert [(c.name, c.kind) for c in found.schema.columns] == [(c.name, c.kind) for c in right.schema.columns]
    pd.testing.assert_frame_equal(found.features, right.features, check_exact=True)
    if right.target is not None:
        np.testing.assert_array_equal(found.target, right.target)


def zipped(content: bytes, **others: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/table.csv", content)
        for name, other in others.items():
            archive.writestr(name.replace("_dot_", ".").replace("_in_", "/"), other)
    return buffer.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "macOS zip": lambda content: zipped(content, __MACOSX_in_table_dot_csv=b"\0", folder_in__dot_DS_Store=b"\0"),
    "zip with a description": lambda content: zipped(content, about_dot_md=b"prices", licence=b"free"),
}


@kind("packed tables, one archive in another and under any name", "the table of the plain CSV")
def _(generator: np.random.Generator, folder: Path) -> None:
    plain, packed = folder / "plain.csv", folder / str(generator.choice(["t.csv", "t.csv.gz", "t", "t.zip"]))
    make_frame(generator).to_csv(plain, index=False)
    content = plain.read_bytes()
    for name in generator.choice(list(PACKERS), generator.integers(1, 4)):
        content = PACKERS[name](content)
    packed.write_bytes(content)
    assert cells_of(packed) == cells_of(plain)
    assert open_source(packed).sha256 == open_source(plain).sha256


@kind("damaged archives", "refused in a sentence, or the whole table; never a part of it")
def _(generator: np.random.Generator, folder: Path) -> None:
    plain, packed = folder / "plain.csv", folder / "t.packed"
    make_frame(generator).to_csv(plain, index=False)
    content = bytearray(PACKERS[str(generator.choice(list(PACKERS)[:4]))](plain.read_bytes()))
    if generator.random() < 0.5:
        content = content[: int(generator.integers(8, len(content)))]
    else:
        content[int(generator.integers(8, len(content)))] ^= int(generator.integers(1, 256))
    packed.write_bytes(content)
    try:
        found = cells_of(packed)
    except InputError as error:
        said = str(error)
    else:
        assert found == cells_of(plain)
        return
    assert said.startswith(str(packed))
    assert "\n" not in said


@kind("other signs between cells, lines above the header, signs at the ends of lines", "the table of the plain CSV")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = make_frame(generator)
    delimiter = str(generator.choice(DELIMITERS))
    frame.to_csv(folder / "plain.csv", index=False)
    lines = frame.to_csv(index=False, sep=delimiter).splitlines()
    ends = str(generator.choice(["none", "none", "rows", "header", "both"]))
    if ends in ("rows", "both"):
        lines[1:] = [line + delimiter for line in lines[1:]]
    if ends in ("header", "both"):
        lines[0] += delimiter
    above = [f"# made by hand, in {2000 + k}" for k in range(generator.integers(3))]
    if generator.random() < 0.5:
        above = [f"sep={delimiter}", *above]
    text = str(generator.choice(["\n", "\r\n"])).join([*above, *lines, ""])
    encoding = str(generator.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]))
    (folder / "other.csv").write_bytes(text.encode(encoding))
    found, right = cells_of(folder / "other.csv"), cells_of(folder / "plain.csv")
    assert {name: found[name] for name in right} == right
    said = " ".join(open_source(folder / "other.csv").warnings)
    assert (f"separated by {delimiter!r}, not by commas" in said) == (delimiter != ",")
    assert ("above the header" in said) == bool(above)
    assert ("delimiter too many" in said) == (ends in ("rows", "header"))
    assert ("UTF-16" in said) == encoding.startswith("utf-16")


@kind("tables separated by white space", "the table of the plain CSV")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = make_frame(generator, ["flat", "house", "Hütte", "row house"]).fillna({"size": 7.25, "rooms": 3})
    frame.to_csv(folder / "plain.csv", index=False)
    rows = [list(frame.columns), *frame.astype(str).to_numpy().tolist()]
    cells = [[f'"{cell}"' if " " in cell else cell for cell in row] for row in rows]
    how = str(generator.choice(["aligned", "single", "ragged", "comment"]))
    width = max(len(cell) for row in cells for cell in row) + 1
    if how == "aligned":
        lines = ["".join(cell.rjust(width) for cell in row) for row in cells]
    elif how == "ragged":
        lines = [(" " * int(generator.integers(1, 4))).join(row) + "  " for row in cells]
    else:
        lines = [" ".join(row) for row in cells]
        lines[0] = f"# {lines[0]}" if how == "comment" else lines[0]
    (folder / "other.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found, right = (cells_of(folder / name) for name in ("other.txt", "plain.csv"))
    assert {name: found[name] for name in right} == right


@kind("UTF-8 with some bytes of another encoding", "all other cells as they are, the first bad one named by its line")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = make_frame(generator, ["Hütte", "château", "Ωmega", "flat"])
    lines = frame.to_csv(index=False).splitlines()
    bad = sorted(generator.choice(np.arange(1, len(lines)), generator.integers(1, 3), replace=False).tolist())
    place = list(frame.columns).index("kind")
    text = [line.encode() for line in lines]
    for line in bad:
        cells = text[line].split(b",")
        cells[place] = "café €5".encode("cp1252")
        text[line] = b",".join(cells)
    (folder / "bad.csv").write_bytes(b"\n".join(text) + b"\n")
    found = table_of(folder / "bad.csv")
    right = frame["kind"].to_numpy(dtype=object, copy=True)
    right[np.array(bad) - 1] = "café €5"
    assert found.features["kind"].tolist() == right.tolist()
    assert f"first in line {bad[0] + 1}: 'café €5'" in " ".join(found.warnings)


@kind("Windows-1252, in cells and in column names", "the names and words as they were written, and a warning")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = make_frame(generator, ["Hütte", "château", "5 € “new”", "flat", "Œuvre"])
    frame = frame.rename(columns={"size": "größe", "rooms": "pièces"})
    (folder / "t.csv").write_bytes(frame.to_csv(index=False).encode("cp1252"))
    found = table_of(folder / "t.csv")
    assert list(found.features.columns) == [name for name in frame.columns if name != "y"]
    assert found.features["kind"].tolist() == frame["kind"].tolist()
    assert "Windows-1252" in " ".join(found.warnings)


def polars_frame(frame: pd.DataFrame) -> Any:
    import polars

    return polars.from_pandas(frame)


def to_file(name: str) -> Callable[[pd.DataFrame, Path], Any]:
    def write(frame: pd.DataFrame, folder: Path) -> Path:
        path = folder / "table"
        if name == "excel":
            frame.to_excel(path.with_suffix(".xlsx"), index=False)
            return path.with_suffix(".xlsx")
        getattr(frame, f"to_{name}")(path)
        return path

    return write


TYPED: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "frame": lambda frame, folder: frame,
    "frame with an index": lambda frame, folder: frame.set_axis(np.arange(len(frame)) * 7 + 3, axis=0),
    "categories": lambda frame, folder: frame.astype({"kind": "category"}),
    "objects": lambda frame, folder: frame.astype({"kind": object}),
    "nullable": lambda frame, folder: frame.convert_dtypes(),
    "arrow": lambda frame, folder: frame.convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda frame, folder: polars_frame(frame),
    "parquet": to_file("parquet"),
    "feather": to_file("feather"),
    "excel": to_file("excel"),
}


@kind("frames, Parquet, Feather and Excel", "the table of their CSV: the same cells and kinds")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = make_frame(generator)
    frame.to_csv(folder / "plain.csv", index=False)
    right = table_of(folder / "plain.csv")
    assert_equal(table_of(TYPED[str(generator.choice(list(TYPED)))](frame, folder)), right)


@kind("rows to predict from frames and files of all kinds", "the rows of their CSV, whatever the size of the blocks")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = make_frame(generator)
    frame.to_csv(folder / "plain.csv", index=False)
    schema = table_of(folder / "plain.csv").schema
    right = frame_rows(folder / "plain.csv", schema)
    typed = TYPED[str(generator.choice(list(TYPED)))](frame, folder)
    parts = [part.features for part in read_rows(typed, schema, int(generator.integers(5, 50)))]
    assert [len(part) for part in parts[:-1]] == [len(parts[0])] * (len(parts) - 1)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), right.features)


@kind("a table on standard input, for check", "what check says of the file", is_slow=True)
def _(generator: np.random.Generator, folder: Path) -> None:
    from unittest import mock

    from actlab import cli

    plain = folder / "plain.csv"
    make_frame(generator).to_csv(plain, index=False)
    said = []
    for path in (str(plain), "-"):
        output = io.StringIO()
        stdin = io.TextIOWrapper(io.BytesIO(plain.read_bytes()))
        with mock.patch("sys.stdin", stdin), contextlib.redirect_stdout(output):
            assert cli.dispatch(["check", path, "--target", "y"]) == 0
        said.append(output.getvalue().replace(str(plain), "-").replace("standard input", "-"))
    assert said[0] == said[1]
