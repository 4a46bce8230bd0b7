"""The inputs of docs/bad_inputs.md: files that are wrong in one way each, and what each command should make of them."""

import gzip
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

TRAINING = ("fit", "compare", "search")
READING = ("check", *TRAINING, "predict")
N_ROWS = 40
NOBODY = 65534

Table = dict[str, list[Any]]


def nothing(folder: Path) -> None:
    """For an input that no file has to be made for."""


@dataclass(frozen=True)
class Case:
    """One bad (or only unusual) input.

    Args:
        title: As the table calls it.
        codes: Command to the exit code it should end with; other commands are not run.
        make: Puts the files into a folder that holds `good.csv` and `good.ckpt` already.
        options: Command to its arguments after the tiny budgets; `*` for all others.
        words: What a refusal must name, command by command; `*` for all others.
        as_nobody: Run without root's privileges.
        file_limit: Largest file in bytes that the command may write, as on a disk that is full.
        leaves: What a refused command may leave behind: the state it resumes from.
    """

    title: str
    codes: Mapping[str, int]
    make: Callable[[Path], object] = nothing
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    as_nobody: bool = False
    file_limit: int | None = None
    leaves: Sequence[str] = ()


def good() -> Table:
    """A table that all commands take: two numbers, one category, a positive target."""
    area = [50 + 7 * i % 83 for i in range(N_ROWS)]
    rooms = [1 + i * i % 5 for i in range(N_ROWS)]
    kind = ["abc"[i * i % 3] for i in range(N_ROWS)]
    price = [1000 * a + 500 * r + 77 * i for i, (a, r) in enumerate(zip(area, rooms, strict=True))]
    return {"area": area, "rooms": rooms, "kind": kind, "price": price}


def text(table: Table, delimiter: str = ",") -> str:
    """The table as CSV; a cell that holds a delimiter or quote is quoted."""

    def cell(value: object) -> str:
        written = str(value)
        needs_quotes = any(sign in written for sign in (delimiter, '"', "\n"))
        return '"' + written.replace('"', '""') + '"' if needs_quotes else written

    rows = [list(table), *zip(*table.values(), strict=True)]
    return "".join(delimiter.join(map(cell, row)) + "\n" for row in rows)


def csv(content: str | bytes) -> Callable[[Path], object]:
    """Makes bad.csv."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "bad.csv").write_bytes(raw)


def changed(column: str, values: Mapping[int, object] | Sequence[object]) -> Callable[[Path], object]:
    """Makes bad.csv from the good table with other cells in one column: some, by row, or all."""
    table = good()
    if isinstance(values, Mapping):
        values = [values.get(row, cell) for row, cell in enumerate(table[column])]
    return csv(text({**table, column: list(values)}))


def codes(training: int, predict: int | None = None, check: int | None = None) -> dict[str, int]:
    """One code for check and training (check may differ), one for predict where it applies.

    The training commands read a table with the same function: one that can be used is given to `fit` alone, unless it
    is among those that could upset results and report.
    """
    commands = ("fit",) if training == 0 else TRAINING
    found = {"check": training if check is None else check, **dict.fromkeys(commands, training)}
    return found if predict is None else {**found, "predict": predict}


def everywhere(*words: str) -> dict[str, Sequence[str]]:
    return {"*": ("bad.csv", *words)}


def line(row: int) -> str:
    """`line 5`: where a row, counted from 0, stands in a file with a header."""
    return f"line {row + 2}"


def _files() -> list[Case]:
    whole = text(good())
    lines = whole.splitlines(keepends=True)
    accents = text({**good(), "kind": ["é" if kind == "a" else kind for kind in good()["kind"]]})
    refused = codes(2, 2)
    ended = lines[0] + "".join(line.replace("\n", ",\n") for line in lines[1:])
    short = [*lines[:5], lines[5].rpartition(",")[0] + "\n", *lines[6:]]
    long = [*lines[:5], lines[5].strip() + ",9\n", *lines[6:]]
    return [
        Case("missing file", refused, words=everywhere("does not exist")),
        Case("directory", refused, lambda f: (f / "bad.csv").mkdir(), words=everywhere("is a directory")),
        Case("no read permission", refused, _unreadable, words=everywhere("permission"), as_nobody=True),
        Case("empty file", refused, csv(""), words=everywhere("is empty")),
        Case("header only", refused, csv(lines[0]), words=everywhere("no data row")),
        Case("one row", codes(2, 0), csv("".join(lines[:2])), words=everywhere("single data row")),
        Case("binary file", refused, csv(bytes(range(256)) * 8), words=everywhere("binary")),
        Case("gzip archive", codes(0, 0), csv(gzip.compress(whole.encode()))),
        Case("damaged gzip archive", refused, csv(gzip.compress(whole.encode())[:-9]), words=everywhere("damaged")),
        Case("zip archive of two tables", refused, _two_tables, words=everywhere("2 files", "bad.csv#a.csv")),
        Case("zip archive with nothing in it", refused, csv(b"PK\5\6" + bytes(18)), words=everywhere("empty archive")),
        Case("old Excel workbook", refused, csv(b"\xd0\xcf\x11\xe0" + bytes(99)), words=everywhere("Excel", "save")),
        Case("UTF-8 with BOM", codes(0, 0), csv(whole.encode("utf-8-sig"))),
        Case("UTF-16 with BOM", codes(0, 0), csv(whole.encode("utf-16"))),
        Case("UTF-16 without BOM", codes(0, 0), csv(whole.encode("utf-16-le"))),
        Case("UTF-8 with one bad byte", codes(0, 0), csv(accents.encode().replace("é".encode(), b"\xe9", 1))),
        Case("Shift JIS", refused, csv(accents.replace("é", "、").encode("shift-jis")), words=everywhere("UTF-8")),
        Case("latin-1", codes(0, 0), csv(accents.encode("latin-1"))),
        Case("semicolons between cells", codes(0, 0), csv(text(good(), ";"))),
        Case("another sign between cells (~)", codes(0, 0), csv(text(good(), "~"))),
        Case("white space between cells", codes(0, 0), csv(whole.replace(",", "  "))),
        Case("another sign between cells (!)", refused, csv(text(good(), "!")), words=everywhere("area!rooms")),
        Case("delimiter at the end of every row", codes(0, 0), csv(whole.replace("\n", ",\n"))),
        Case("delimiter at the end of every row but the header", codes(0, 0), csv(ended)),
        Case("sep=; and comments above the header", codes(0, 0), csv("sep=;\n# homes\n" + text(good(), ";"))),
        Case("row with a cell too few", refused, csv("".join(short)), words=everywhere("line 6", "3 cells")),
        Case("row with a cell too many", refused, csv("".join(long)), words=everywhere("line 6", "5 cells")),
        Case("quote that does not end", refused, csv(whole + '1,2,"a,3\n'), words=everywhere("line", "quote")),
        Case("two columns of one name", refused, csv(whole.replace("rooms", "area")), words=everywhere("'area'")),
    ]


def _two_tables(folder: Path) -> None:
    with zipfile.ZipFile(folder / "bad.csv", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, text(good()))


def _unreadable(folder: Path) -> None:
    csv(text(good()))(folder)
    (folder / "bad.csv").chmod(0)


def _targets() -> list[Case]:
    positive = "must be > 0"
    plain = {"*": ("--data.target_transform", "none"), "check": ("--target_transform", "none"), "predict": ()}
    return [
        Case(
            "no target named",
            codes(2, check=0),
            csv(text(good())),
            {"*": ("--data.target", "null"), "check": ("--no-target",)},
            everywhere("target", "'price'"),
        ),
        Case(
            "target that is no column",
            codes(2),
            csv(text(good())),
            {"*": ("--data.target", "prize"), "check": ("--target", "prize")},
            everywhere("'prize'", "'price'"),
        ),
        Case("target of text", codes(2, 0), changed("price", ["dear"] * N_ROWS), words=everywhere("line 2", "'price'")),
        Case("target constant", codes(2, 0), changed("price", [7] * N_ROWS), words=everywhere("'price'", "every row")),
        Case("target missing in a row", codes(2, 0), changed("price", {3: ""}), words=everywhere("'price'", line(3))),
        Case("target zero", codes(2, 0), changed("price", {3: 0}), words=everywhere("'price'", line(3), positive)),
        Case("target negative", codes(2, 0), changed("price", {3: -5}), words=everywhere("'price'", line(3), positive)),
        Case("target zero, target_transform none", codes(0, 0), changed("price", {3: 0}), plain),
        Case("target infinite", codes(2, 0), changed("price", {3: "inf"}), words=everywhere("'price'", line(3))),
    ]


def _columns() -> list[Case]:
    dates = [f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(N_ROWS)]
    other_dates = [f"{1 + i % 28}/{1 + i % 12}/2024" for i in range(N_ROWS)]
    thousands = [f"{1000 * area:,}" for area in good()["area"]]
    names = ("=cmd|'/C calc'!A0", "<script>alert(1)</script>")
    renamed = dict(zip(("area", "rooms"), names, strict=True))
    odd = {renamed.get(name, name): cells for name, cells in good().items()}
    numbers = {name: cells for name, cells in good().items() if name != "kind"}
    words = {name: cells for name, cells in good().items() if name in ("kind", "price")}
    return [
        Case("column all missing", codes(0, 0), changed("rooms", [""] * N_ROWS)),
        Case("column constant", codes(0, 0), changed("rooms", [3] * N_ROWS)),
        Case(
            "column infinite in a row", codes(2, 2), changed("rooms", {3: "inf"}), words=everywhere("'rooms'", line(3))
        ),
        Case("column of 5,000 categories", codes(0, 0), _many_categories),
        Case("column of ISO dates", codes(0, 2), changed("rooms", dates), words=everywhere("'rooms'", "line 2")),
        Case(
            "column of other dates", codes(0, 2), changed("rooms", other_dates), words=everywhere("'rooms'", "line 2")
        ),
        Case("column of mixed types", codes(0, 2), changed("rooms", {3: "many"}), words=everywhere("'rooms'", line(3))),
        Case("column with thousands separators", codes(0, 0), changed("area", thousands)),
        Case("columns named like a formula and like HTML", {**codes(0, 0), "compare": 0, "search": 0}, csv(text(odd))),
        Case("no categorical column", codes(0, 0), csv(text(numbers))),
        Case("no numeric column", codes(0, 0), csv(text(words))),
        Case(
            "no feature column", codes(2, 2), csv(text({"price": good()["price"]})), words=everywhere("feature column")
        ),
        Case("more columns than rows", codes(0, 0), _wide),
        Case("1 row per fold", {**codes(0), "compare": 0}, _few(12), {"*": ("--compare.folds", "12"), "check": ()}),
        Case("too few rows for the folds", codes(2, check=0), _few(5), words={"*": ("5 rows", "2 folds", "--compare")}),
    ]


def _few(n_rows: int) -> Callable[[Path], object]:
    return csv(text({name: cells[:n_rows] for name, cells in good().items()}))


def _many_categories(folder: Path) -> None:
    n_rows = 10_000
    table = {name: (cells * (n_rows // N_ROWS)) for name, cells in good().items()}
    csv(text({**table, "kind": [f"kind {i // 2}" for i in np.random.default_rng(0).permutation(n_rows)]}))(folder)


def _wide(folder: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(60, 20)).round(3)
    table = {name: cells[:20] for name, cells in good().items()}
    csv(text({**{f"x{i}": list(column) for i, column in enumerate(noise)}, **table}))(folder)


def _checkpoints() -> list[Case]:
    def case(title: str, make: Callable[[Path], object], *words: str, as_nobody: bool = False) -> Case:
        options = {
            "predict": ("--ckpt_path", "bad.ckpt", "--input", "good.csv", "--output", "out.csv"),
            "describe": ("bad.ckpt",),
            "export": ("--ckpt_path", "bad.ckpt", "--output", "out.onnx"),
            "test": ("--ckpt_path", "bad.ckpt"),
        }
        return Case(title, dict.fromkeys(options, 2), make, options, {"*": ("bad.ckpt", *words)}, as_nobody)

    return [
        case("checkpoint missing", nothing, "does not exist"),
        case("checkpoint empty", lambda f: (f / "bad.ckpt").touch(), "not a checkpoint"),
        case("checkpoint cut short", _cut_short, "cut short"),
        case("checkpoint with a byte changed", _flipped, "damaged"),
        case("checkpoint of another program", _foreign, "not written by actlab"),
        case("checkpoint of a later version", partial(_of_format, 99), "format 99", "upgrade"),
        case("checkpoint of an earlier version", partial(_of_format, 1), "format 1", "--fresh"),
        case("checkpoint with a pickle payload", _payload, "could run code"),
        case("plain pickle as checkpoint", _plain_pickle, "not a checkpoint"),
        case("CSV as checkpoint", lambda f: (f / "bad.ckpt").write_text(text(good())), "not a checkpoint"),
    ]


class Payload:
    """What a hostile checkpoint holds: loading it with pickle would make the file `ran`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def _cut_short(folder: Path) -> None:
    whole = (folder / "good.ckpt").read_bytes()
    (folder / "bad.ckpt").write_bytes(whole[: len(whole) // 2])


def _flipped(folder: Path) -> None:
    """Another byte in the middle of the first network's weights; the archive's checksum stays."""
    raw = bytearray((folder / "good.ckpt").read_bytes())
    with zipfile.ZipFile(folder / "good.ckpt") as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
    n_name, n_extra = struct.unpack("<HH", raw[entry.header_offset + 26 : entry.header_offset + 30])
    raw[entry.header_offset + 30 + n_name + n_extra + entry.file_size // 2] ^= 0xFF
    (folder / "bad.ckpt").write_bytes(raw)


def _foreign(folder: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.ones(2, 2)}, "epoch": 3}, folder / "bad.ckpt")


def _of_format(number: int, folder: Path) -> None:
    content = torch.load(folder / "good.ckpt", weights_only=True)
    content["actlab"]["format"] = number
    torch.save(content, folder / "bad.ckpt")


def _payload(folder: Path) -> None:
    content = torch.load(folder / "good.ckpt", weights_only=True)
    torch.save({**content, "extra": Payload()}, folder / "bad.ckpt")


def _plain_pickle(folder: Path) -> None:
    (folder / "bad.ckpt").write_bytes(pickle.dumps(Payload()))


def _yaml() -> list[Case]:
    def case(title: str, content: str, found: Mapping[str, int], *words: str) -> Case:
        options = {
            "*": ("--config", "bad.yaml"),
            "predict": ("--config", "bad.yaml", "--ckpt_path", "good.ckpt", "--output", "out.csv"),
        }
        written = content.format(data="csv: good.csv, target: price")
        return Case(title, found, lambda f: (f / "bad.yaml").write_text(written), options, {"*": words})

    trains = {name: 2 for name in TRAINING}
    reads = {name: 2 for name in READING}
    return [
        case("YAML with an unknown key", "data: {{{data}, colour: red}}\n", {"check": 2, **trains}, "colour"),
        case("YAML with an unknown key at the top", "colour: red\n", {**trains, "predict": 2}, "colour"),
        case("YAML with a wrong type", "data: {{{data}, batch_size: many}}\n", {"check": 2, **trains}, "batch_size"),
        case(
            "YAML with text for a list", "data: {{{data}, categorical: kind}}\n", {"check": 2, **trains}, "categorical"
        ),
        case("YAML with a number for a section", "data: 3\n", {"check": 2, **trains}, "data"),
        case("YAML with a list for a path", "input: [a, b]\n", {"predict": 2}, "input"),
        case("YAML that does not parse", "data: [1, 2\n", reads, "bad.yaml"),
        case("YAML that is a list", "- data\n- model\n", reads, "bad.yaml"),
        case(
            "YAML with a rate of 0",
            "data: {{{data}}}\noptimizer: {{learning_rate: 0}}\n",
            trains,
            "learning_rate",
            "> 0",
        ),
        case(
            "YAML with a list of rates of which one is 0",
            "data: {{{data}}}\ncompare: {{learning_rates: [0.01, 0]}}\n",
            trains,
            "compare.learning_rates",
            "> 0",
        ),
        case(
            "YAML with a list of one rate",
            "data: {{{data}}}\ncompare: {{learning_rates: [0.01]}}\n",
            dict.fromkeys(TRAINING, 0),
        ),
        case(
            "YAML with an empty list of rates",
            "data: {{{data}}}\ncompare: {{learning_rates: []}}\n",
            trains,
            "learning_rates",
        ),
        case(
            "YAML with an unknown activation",
            "data: {{{data}}}\nmodel: {{activation: rellu}}\ncompare: {{activations: [rellu]}}\n",
            {"fit": 2, "compare": 2, "search": 2},
            "rellu",
            "relu",
        ),
    ]


def _outputs() -> list[Case]:
    def case(title: str, make: Callable[[Path], object], path: str, *words: str, **more: Any) -> Case:
        options = {
            "*": ("--data.csv", "good.csv", "--data.target", "price", "--out", path),
            "predict": ("--ckpt_path", "good.ckpt", "--input", "good.csv", "--output", path),
        }
        found = dict.fromkeys((*TRAINING, "predict"), 2)
        return Case(title, found, make, options, {"*": words}, **more)

    def occupied(folder: Path) -> None:
        (folder / "taken").mkdir()
        (folder / "taken" / "thesis.txt").write_text("mine")

    return [
        case("output is a file that exists", lambda f: (f / "taken").write_text("mine"), "taken", "taken"),
        case("output is a directory with other files", occupied, "taken", "taken", "directory"),
        case("output below a file", nothing, "good.csv/out", "good.csv", "cannot be"),
        case(
            "output without write permission",
            lambda f: (f / "locked").mkdir(0o755),
            "locked/out",
            "locked",
            as_nobody=True,
        ),
        case("output where nothing can be made", nothing, "/proc/out", "/proc"),
        case("output that swallows nothing", nothing, "/dev/full", "/dev/full"),
        case(
            "disk full at once",
            nothing,
            "out",
            "out",
            "cannot be written",
            file_limit=100,
            leaves=("out", "out/study.journal", "out/study.journal.flock"),
        ),
    ]


CASES = (*_files(), *_targets(), *_columns(), *_checkpoints(), *_yaml(), *_outputs())
