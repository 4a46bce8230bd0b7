"""Cells as people write them: numbers, dates, spans of time, codes, and what means "missing"."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actlab.config import configure
from actlab.data.columns import Column
from actlab.data.table import Table, frame_rows, read_rows, read_table
from actlab.errors import InputError
from actlab.settings import DataSettings
from variants import kind

Generator = np.random.Generator
N_ROWS = 30


def save(folder: Path, columns: dict[str, Sequence[object]], delimiter: str = ",", name: str = "table.csv") -> str:
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def others(n: int) -> dict[str, Sequence[object]]:
    """A feature and a target that are plain: no counters, no dates."""
    return {"w": [7 * i % 5 for i in range(n)], "y": [7919 * i % 101 + 1 for i in range(n)]}


def said_of_x(table: Table) -> list[str]:
    return [warning for warning in table.warnings if "column 'x'" in warning]


def train(folder: Path, cells: Sequence[str], delimiter: str = ",", **keys: Any) -> Table:
    """A table with the cells as feature x, beside a feature and a target that are plain."""
    columns = {"x": cells, **others(len(cells))}
    return read_table(DataSettings(csv=save(folder, columns, delimiter), target="y", **keys))


def predict(folder: Path, table: Table, cells: Sequence[str], delimiter: str = ",") -> list[Any]:
    """The cells of x in a file to predict, as the model gets them; in blocks of three rows."""
    path = save(folder, {"x": cells, "w": [1] * len(cells)}, delimiter, "new.csv")
    return [value for block in read_rows(path, table.schema, 3) for value in block.features["x"]]


def column(table: Table) -> Column:
    return next(one for one in table.schema.columns if one.name == "x")


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except InputError as error:
        return str(error)
    raise AssertionError("it is not refused")


def some_numbers(generator: Generator, decimals: int = 2) -> np.ndarray:
    """Of sizes from one to millions, some of them below zero."""
    size = 10 ** generator.uniform(0, 6)
    return np.round(generator.normal(size=N_ROWS) * size, decimals)


def few(generator: Generator, below: int) -> np.ndarray:
    """Whole numbers from 1 on, each several times: texts that all differ are left out as keys."""
    return generator.choice(generator.integers(1, below, 6), N_ROWS)


def german(text: str) -> str:
    return text.translate(str.maketrans(",.", ".,"))


@kind("files to predict in another style than the training file", "each file's own style, a frame's own numbers")
def _(generator: Generator, folder: Path) -> None:
    decimals = int(generator.integers(1, 3))
    values = some_numbers(generator, decimals)
    ways: list[Callable[[float], str]] = [
        lambda value: f"{value:.{decimals}f}",
        lambda value: f"{value:,.{decimals}f}",
        lambda value: german(f"{value:,.{decimals}f}"),
        lambda value: german(f"{value:.{decimals}f}"),
        lambda value: f"{value:,.{decimals}f}".replace(",", "\u202f"),
    ]
    first, second = generator.choice(len(ways), 2)
    delimiters = generator.choice([",", ";", "\t"], 2)
    table = train(folder, [ways[first](value) for value in values], str(delimiters[0]))
    np.testing.assert_array_equal(table.features["x"], values)
    new = some_numbers(generator, decimals)
    assert predict(folder, table, [ways[second](value) for value in new], str(delimiters[1])) == new.tolist()
    frames = [pd.Series(new), pd.Series(new, dtype=object), pd.Series([ways[second](value) for value in new])]
    for cells in frames:
        assert frame_rows(pd.DataFrame({"x": cells, "w": 1.0}), table.schema).features["x"].tolist() == new.tolist()


@kind("one number of three digits behind its mark to predict", "the delimiter decides, or both readings are named")
def _(generator: Generator, folder: Path) -> None:
    mark = str(generator.choice([".", ","]))
    delimiter = str(generator.choice([",", ";"]))
    table = train(folder, [german(f"{value:.1f}") for value in some_numbers(generator, 1)], ";")
    whole, part = int(generator.integers(1, 999)), int(generator.integers(1, 999))
    text = f"{whole}{mark}{part:03}"
    if delimiter == ",":
        right = float(f"{whole}.{part:03}") if mark == "." else 1000.0 * whole + part
        assert predict(folder, table, [text]) == [right]
    else:
        said = refusal(lambda: predict(folder, table, [text], ";"))
        assert f"{1000 * whole + part}" in said
        assert f"{float(f'{whole}.{part:03}'):.12g}" in said


@kind("thousands with a mark beside whole numbers below 1000", "one reading for the whole column, by the whole file")
def _(generator: Generator, folder: Path) -> None:
    values = np.append(generator.integers(100, 1000, 10), generator.integers(1000, 10**6, 20))
    generator.shuffle(values)
    mark = str(generator.choice([".", ",", "'", " "]))
    texts = [f"{value:,}".replace(",", mark) for value in values]
    columns: dict[str, Sequence[object]] = {"x": texts, **others(30)}
    other = generator.choice(["none", "comma", "money"])
    if other == "comma" and mark == ".":
        columns["w"] = [f"{i},5" for i in range(30)]
    if other == "money":
        columns["x"] = [f"{text} \u20ac" for text in texts]
    table = read_table(DataSettings(csv=save(folder, columns, ";"), target="y"))
    np.testing.assert_array_equal(table.features["x"], values)


@kind("thousands or decimals that nothing decides", "refused with both readings; the key decides")
def _(generator: Generator, folder: Path) -> None:
    heads, tails = generator.integers(1, 999, N_ROWS), generator.integers(0, 1000, N_ROWS)
    mark = str(generator.choice([".", ","]))
    texts = [f"{head}{mark}{tail:03}" for head, tail in zip(heads, tails, strict=True)]
    said = refusal(lambda: train(folder, texts, ";"))
    assert "decimal_point or decimal_comma" in said
    decimal, grouped = ("decimal_point", "decimal_comma") if mark == "." else ("decimal_comma", "decimal_point")
    table = train(folder, texts, ";", formats={"x": decimal})
    np.testing.assert_allclose(table.features["x"], heads + tails / 1000, rtol=1e-15)
    # what the user said of the column helps a file that does not tell either
    assert predict(folder, table, texts[:1], ";") == table.features["x"][:1].tolist()
    table = train(folder, texts, ";", formats={"*": grouped})
    np.testing.assert_array_equal(table.features["x"], heads * 1000 + tails)


@kind("numbers with a percent sign, a unit, a currency, an accountant's minus", "the number, and what it is in, kept")
def _(generator: Generator, folder: Path) -> None:
    values = some_numbers(generator)
    unit = str(
        generator.choice(["%", "km", "lbs", "\u00b0F", "kWh", "miles", "$", "\u00a3", "SEK", "\u20b9", "R$", "z\u0142"])
    )
    before = unit in ("$", "\u00a3", "\u20b9", "R$") or (unit == "SEK" and bool(generator.integers(2)))
    space = " " * (unit in ("SEK", "z\u0142", "miles") or int(generator.integers(2)))
    shape = str(generator.choice(["minus", "brackets", "behind"]))

    def write(value: float) -> str:
        text = f"{abs(value):,.2f}" if generator.integers(2) else f"{abs(value):.2f}"
        text = f"{unit}{space}{text}" if before else f"{text}{space}{unit}"
        signed = {"minus": f"-{text}", "brackets": f"({text})", "behind": f"{text}-"}
        return text if value >= 0 else signed[shape]

    table = train(folder, [write(value) for value in values])
    right = values / 100 if unit == "%" else values
    np.testing.assert_array_equal(table.features["x"], right)
    assert column(table).unit == unit
    assert len(said_of_x(table)) == 1
    new = some_numbers(generator)
    right = new / 100 if unit == "%" else new
    assert predict(folder, table, [write(value) for value in new]) == right.tolist()
    assert frame_rows(pd.DataFrame({"x": right, "w": 1}), table.schema).features["x"].tolist() == right.tolist()


@kind("a column in two units", "categories with a warning, or refused at prediction; never one number")
def _(generator: Generator, folder: Path) -> None:
    one, other = generator.choice(["kg", "lb", "m", "ft", "EUR", "GBP", "%"], 2, replace=False)
    values = few(generator, 500)
    texts = [f"{value} {one}" for value in values]
    mixed = [*texts, f"{values[0]} {other}"]
    table = train(folder, mixed)
    assert column(table).kind == "categorical"
    assert any(repr(mixed[-1]) in warning for warning in table.warnings)
    said = refusal(lambda: predict(folder, train(folder, texts), mixed))
    assert repr(mixed[-1]) in said


SPANS: tuple[Callable[[pd.Timedelta], str], ...] = (
    lambda span: f"{int(span.total_seconds() // 3600)}:{int(span.total_seconds() // 60 % 60):02}",
    lambda span: f"{int(span.total_seconds() // 3600):02}:{int(span.total_seconds() // 60 % 60):02}:00",
    str,
    lambda span: f"PT{int(span.total_seconds() // 60)}M",
    lambda span: span.isoformat(),
    lambda span: f"{int(span.total_seconds() // 3600)}h {int(span.total_seconds() // 60 % 60)}min",
)


@kind("spans of time", "seconds, as pandas counts them; the same from a frame")
def _(generator: Generator, folder: Path) -> None:
    spans = [pd.Timedelta(minutes=int(minutes)) for minutes in generator.integers(1, 10_000, N_ROWS)]
    write = SPANS[int(generator.integers(len(SPANS)))]
    table = train(folder, [write(span) for span in spans])
    assert table.features["x"].tolist() == [span.total_seconds() for span in spans]
    assert column(table).format == "duration"
    assert predict(folder, table, [write(span) for span in spans[:4]]) == table.features["x"][:4].tolist()
    frame = frame_rows(pd.DataFrame({"x": pd.Series(spans), "w": 1}), table.schema)
    assert frame.features["x"].tolist() == table.features["x"].tolist()


MOMENTS = (
    "%Y-%m-%d", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%d-%b-%y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y",
    "%B %d %Y",
    "%Y/%m/%d", "%Y.%m.%d", "%d-%m-%Y", "%Y-%b-%d",
)  # fmt: skip
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %H:%M:%S UTC", " %H:%M:%S+0000", " %H:%M Z")


@kind("dates and times as people write them", "days since 1970, as pandas counts them; their resolution")
def _(generator: Generator, folder: Path) -> None:
    how = MOMENTS[int(generator.integers(len(MOMENTS)))]
    clock = CLOCKS[int(generator.integers(len(CLOCKS)))]
    days = pd.to_datetime("2024-03-31") + pd.to_timedelta(generator.integers(-9000, 4000, N_ROWS), unit="D")
    stamps = pd.Series([pd.Timestamp("2020-01-31"), *days[1:]])
    if clock:
        stamps += pd.to_timedelta(generator.integers(0, 24, N_ROWS), unit="h")
    texts = [stamp.strftime(how + clock) for stamp in stamps]
    if generator.integers(2):
        texts[-1], stamps[-1:] = str(generator.choice(["NaT", "", "unknown", "None"])), pd.NaT
    table = train(folder, texts, str(generator.choice([",", ";"])))
    right = ((stamps - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy()
    np.testing.assert_allclose(table.features["x"], right, rtol=1e-12)
    assert (column(table).format, column(table).unit) == ("date", "hour" if clock else "day")
    frame = frame_rows(pd.DataFrame({"x": stamps, "w": 1}), table.schema)
    np.testing.assert_allclose(frame.features["x"], right, rtol=1e-12)


@kind(
    "days and months in an order that does not show", "refused with both readings; the key, or another column, decides"
)
def _(generator: Generator, folder: Path) -> None:
    days, months = generator.integers(1, 13, N_ROWS), generator.integers(1, 13, N_ROWS)
    days[0], months[0] = 3, 4
    mark = str(generator.choice(["/", "-"]))
    texts = [f"{a:02}{mark}{b:02}{mark}2023" for a, b in zip(days, months, strict=True)]
    assert "2023-04-03 or 2023-03-04" in refusal(lambda: train(folder, texts))
    is_day_first = bool(generator.integers(2))
    right = [
        (pd.Timestamp(2023, *((b, a) if is_day_first else (a, b))) - pd.Timestamp(0)).days
        for a, b in zip(days.tolist(), months.tolist(), strict=True)
    ]
    said = train(folder, texts, formats={"x": "day_first" if is_day_first else "month_first"})
    assert said.features["x"].tolist() == right
    assert predict(folder, said, texts[:1]) == right[:1]
    clear = "25/12/2022" if is_day_first else "12/25/2022"
    columns = {"x": texts, **others(N_ROWS), "w": [clear, *texts[1:]]}
    assert read_table(DataSettings(csv=save(folder, columns), target="y")).features["x"].tolist() == right


@kind("a cell that is none of what nearly all others are", "a warning that names it and its line")
def _(generator: Generator, folder: Path) -> None:
    texts = [
        [f"{value / 7:.1f}" for value in few(generator, 10_000)],
        [f"{value} kg" for value in few(generator, 99)],
        [f"{value}%" for value in few(generator, 99)],
        [f"2020-{month:02}-15" for month in generator.integers(1, 13, N_ROWS)],
        [f"{hours}:30" for hours in generator.integers(0, 24, N_ROWS)],
    ][int(generator.integers(5))]
    row, odd = int(generator.integers(N_ROWS)), str(generator.choice(["see note", "closed", "x", "10 to 20", "*"]))
    texts[row] = odd
    table = train(folder, texts)
    assert column(table).kind == "categorical"
    assert any(f"{odd!r}, line {row + 2}" in warning for warning in table.warnings)
    assert odd in refusal(lambda: train(folder, texts, numeric=["x"]))


@kind("words for missing among numbers and dates", "missing, with a warning that names the first and the way back")
def _(generator: Generator, folder: Path) -> None:
    word = str(generator.choice(["?", "-", ".", "n/a", "None", "NaT", "<NA>", "unknown"]))
    word = str(generator.choice([word, word.upper(), word.lower()]))
    values = some_numbers(generator)
    dates = [f"2020-{month:02}-15" for month in generator.integers(1, 13, N_ROWS)]
    texts = [f"{value:.2f}" for value in values] if generator.integers(2) else dates
    is_missing = generator.random(N_ROWS) < 0.2
    is_missing[int(generator.integers(N_ROWS))] = True
    cells = [word if gone else text for gone, text in zip(is_missing, texts, strict=True)]
    table = train(folder, cells)
    np.testing.assert_array_equal(table.features["x"].isna(), is_missing)
    if word not in ("N/A",):
        warning = next(text for text in table.warnings if "taken as missing" in text)
        assert f"line {int(np.argmax(is_missing)) + 2}" in warning
        assert "data.categorical" in warning
    kept = train(folder, cells, categorical=["x"], na_values=[""]).features["x"]
    assert (kept[is_missing] == word).all()
    np.testing.assert_array_equal(pd.isna(predict(folder, table, cells)), is_missing)


@kind("sentinels", "named and left as they are; missing, however written, where na_values says so")
def _(generator: Generator, folder: Path) -> None:
    sentinel = float(generator.choice([-999, -9999, 99999, -99, 999999]))
    values = np.round(generator.uniform(0, 50, N_ROWS), 2)
    row = int(generator.integers(N_ROWS))
    values[row] = sentinel
    texts = [f"{value:.2f}" for value in values]
    table = train(folder, texts)
    np.testing.assert_array_equal(table.features["x"], values)
    assert any(f"{sentinel:.12g}" in warning and "na_values" in warning for warning in table.warnings)
    written: Any = [str(generator.choice([f"{sentinel:g}", f"{sentinel:.1f}", f"{sentinel:.0f}"]))]
    by_column = str(generator.choice(["", "x", "*"]))
    given = {by_column: written} if by_column else written
    table = train(folder, texts, na_values=given)
    assert table.features["x"].isna().to_numpy().nonzero()[0].tolist() == [row]
    assert said_of_x(table) == []
    assert np.isnan(predict(folder, table, [f"{sentinel:.3f}"])[0])
    frame = pd.DataFrame({"x": [sentinel, 1.0], "w": 1})
    assert frame_rows(frame, table.schema).features["x"].isna().tolist() == [True, False]
    other = train(folder, texts, na_values={"w": written})
    assert not other.features["x"].isna().any()


@kind("codes with leading zeros", "categories, as they stand")
def _(generator: Generator, folder: Path) -> None:
    width = int(generator.integers(2, 8))
    codes = [f"{code:0{width}}" for code in few(generator, 10**width)]
    codes[int(generator.integers(N_ROWS))] = "0" + "1" * (width - 1)
    table = train(folder, codes)
    assert column(table).kind == "categorical"
    assert table.features["x"].tolist() == codes
    assert any("data.numeric" in warning for warning in table.warnings)
    assert predict(folder, table, codes) == codes
    assert train(folder, codes, numeric=["x"]).features["x"].tolist() == [float(code) for code in codes]


@kind("one category in several spellings", "codes, booleans and accents are one value; capitals are two, and said")
def _(generator: Generator, folder: Path) -> None:
    ways: list[Callable[[int], list[str]]] = [
        lambda code: [f"{code}", f"{code}.0", f" {code} ", f"{code}e0", f"+{code}.00"],
        lambda code: [["true", "TRUE", "True"], ["false", "FALSE", "False"]][code % 2],
        lambda code: [f"caf\u00e9 {code % 5}", f"cafe\u0301 {code % 5}"],
    ]
    write = ways[int(generator.integers(len(ways)))]
    codes = generator.integers(0, 9, N_ROWS).tolist()
    cells = [str(generator.choice(write(code))) for code in codes]
    table = train(folder, cells, categorical=["x"])
    right = len({code % (2 if write is ways[1] else 5 if write is ways[2] else 9) for code in codes})
    assert table.features["x"].nunique() == right
    assert predict(folder, table, cells) == table.features["x"].tolist()
    assert not any("two categories" in warning for warning in table.warnings)
    word = str(generator.choice(["north", "old town", "brick"]))
    two = train(folder, [word, word.capitalize()] * 5)
    assert two.features["x"].nunique() == 2
    assert any(f"{word!r} and {word.capitalize()!r} are two categories" in warning for warning in two.warnings)


@kind("a boolean column from a file and from a frame", "the same categories")
def _(generator: Generator, folder: Path) -> None:
    values = [True, False, *generator.choice([True, False], N_ROWS - 2).tolist()]
    spelling = int(generator.integers(3))
    table = train(folder, [(str(value), str(value).upper(), str(value).lower())[spelling] for value in values])
    assert table.features["x"].tolist() == [str(value) for value in values]
    for dtype in ("bool", "boolean", "object", "category", "string"):
        frame = pd.DataFrame({"x": values, "w": 1}).astype({"x": dtype})
        assert frame_rows(frame, table.schema).features["x"].tolist() == table.features["x"].tolist()


@kind("codes and numbers of a frame, however typed", "the same as from the training file")
def _(generator: Generator, folder: Path) -> None:
    values = generator.integers(0, 20, N_ROWS)
    dtype = str(generator.choice(["int8", "float32", "Int64", "object", "category", "string", "Float64"]))
    frame = pd.DataFrame({"x": values, "w": 1}).astype({"x": dtype})
    codes = train(folder, list(map(str, values)), categorical=["x"])
    assert frame_rows(frame, codes.schema).features["x"].tolist() == list(map(str, values))
    numbers = train(folder, list(map(str, values)))
    assert frame_rows(frame, numbers.schema).features["x"].tolist() == values.tolist()


@kind("words of which YAML makes something else", "a sentence that says what; in quotes they are texts", is_slow=True)
def _(generator: Generator, folder: Path) -> None:
    word = str(generator.choice(["No", "no", "Off", "Yes", "on", "True", "~", "null", "NO"]))
    key = str(generator.choice(["na_values: [{}]", "ordinal: {{x: [{}, low, high]}}", "na_values: {{x: [{}]}}"]))
    path = folder / "config.yaml"
    path.write_text(f"data:\n  {key.format(word)}\n", encoding="utf-8")
    said = refusal(lambda: configure("compare", ["--config", str(path)]))
    assert "quotes" in said
    assert (
        str(
            {"n": False, "o": word == "on", "y": True, "t": True, "~": None}[word[0].lower()]
            if word != "null"
            else None
        )
        in said
    )
    path.write_text(f"data:\n  {key.format(repr(word))}\n", encoding="utf-8")
    data = configure("compare", ["--config", str(path)]).data
    assert word in [*data.na_values_of("x"), *data.ordinal.get("x", [])]
