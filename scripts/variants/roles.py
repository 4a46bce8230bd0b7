"""What a column is for: copies of the target, counters of rows, ids, free text, keys of groups, times; rows and columns
that are left out on request."""

import contextlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab import cli
from actlab.data.table import Table, read_rows, read_table
from actlab.errors import InputError
from actlab.settings import DataSettings
from variants import kind

WORDS = ["amber", "birch", "cedar", "delta", "ember", "frost", "grove", "haven", "iris", "jade", "kelp", "lark"]
COUNTERS = ["rownames", "Sno", "row", "S.No.", "serial", "Nr", "observation", "t", "k2", "anything"]


def read(folder: Path, frame: pd.DataFrame, **keys: Any) -> Table:
    """The table of a frame's CSV; its target is `y`, as it is."""
    path = folder / "t.csv"
    frame.to_csv(path, index=False)
    return read_table(DataSettings(csv=str(path), **{"target": "y", "target_transform": "none", **keys}))


def noise(generator: np.random.Generator, n: int) -> pd.DataFrame:
    """Some columns that tell of the target, but not all, and a positive target, often skewed, in any unit."""
    x = generator.normal(size=(n, int(generator.integers(2, 9))))
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])]).round(int(generator.integers(1, 5)))
    y = np.exp(generator.uniform(0.2, 0.8) * (x[:, 0] + generator.uniform(0.3, 2) * generator.normal(size=n)))
    frame["kind"] = generator.choice(WORDS, n)
    return frame.assign(y=y * 10 ** generator.uniform(0, 5))


def copies(generator: np.random.Generator, y: np.ndarray) -> Mapping[str, np.ndarray]:
    """One or two columns from which y follows."""
    a, b = generator.uniform(0.5, 20), generator.uniform(0, 3) * y.mean()
    part = y * generator.uniform(0.1, 0.9, len(y))
    spread = y * generator.uniform(0.05, 0.5, len(y))
    ways: list[Mapping[str, np.ndarray]] = [
        {"scaled": a * y + b},
        {"negative": b - a * y},
        {"logarithm": np.log10(y)},
        {"root": np.sqrt(y)},
        {"per": a / y},
        {"curve": np.arctan(y / np.median(y))},
        {"rank": pd.Series(y).rank().to_numpy()},
        {"first": part, "second": y - part},
        {"low": y - spread, "high": y + spread},
        {"gross": y + a * part, "cost": part},
        {"price": part, "number": y / part},
        {"total": y * part, "each": part},
    ]
    found = ways[int(generator.integers(len(ways)))]
    return {f"{name} {generator.choice(WORDS)}": values for name, values in found.items()}


@kind("copies of the target", "each is named, alone or the two together, with the key that leaves them out")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(60, 200))
    frame = noise(generator, n)
    added = pd.DataFrame(copies(generator, frame.y.to_numpy()))
    if generator.random() < 0.3:
        # five digits, as people write them
        added = added.map(lambda value: float(f"{value:.5g}"))
    if generator.random() < 0.3:
        added = added.mask(generator.random(added.shape) < 0.1)
    names = sorted(map(str, added))
    frame = pd.concat([frame, added], axis=1)[generator.permutation([*frame, *added])]
    (said,) = [text for text in read(folder, frame).warnings if "follows almost exactly" in text]
    assert all(repr(name) in said for name in names), said
    assert not any(f"'x{i}'" in said for i in range(9)), said
    assert "--data.drop" in said
    dropped = read(folder, frame, drop=names)
    assert not any("follows" in text for text in dropped.warnings)
    assert set(dropped.features) == set(frame) - {"y", *names}


@kind("good predictors", "are not taken for copies of the target, keys, times or counters")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(30, 400))
    frame = noise(generator, n)
    error = generator.uniform(0.06, 0.2)
    frame["much"] = frame.y * np.exp(generator.normal(0, error * np.log(frame.y).std() * 3, n))
    frame["other"] = np.log(frame.y) + generator.normal(0, error * np.log(frame.y).std() * 3, n)
    frame["rooms"] = pd.qcut(frame.y, 4, labels=False) + generator.integers(0, 2, n)
    frame["built"] = 1950 + generator.integers(0, 60, n)
    frame["area"] = (50 * frame.much / frame.much.median()).round()
    table = read(folder, frame)
    assert table.warnings == (), table.warnings
    assert set(table.features) == set(frame) - {"y"}


@kind("counters of rows", "are left out, which is said with the key that keeps them")
def _(generator: np.random.Generator, folder: Path) -> None:
    n, name = int(generator.integers(20, 200)), str(generator.choice(COUNTERS))
    frame = noise(generator, n)
    frame.insert(int(generator.integers(0, 3)), name, np.arange(n) + generator.integers(0, 2))
    table = read(folder, frame)
    assert name not in table.features
    assert name != table.schema.id
    (said,) = [text for text in table.warnings if repr(name) in text]
    assert "counts the rows; left out" in said
    assert name in read(folder, frame, numeric=[name]).features
    # what only rises is no counter
    frame[name] = np.cumsum(generator.integers(1, 4, n))
    assert name in read(folder, frame).features


@kind("a second id", "the first is the id, which is noted, and the second is left out, which is warned of")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(5, 200))
    frame = noise(generator, n)
    names = ["Id", "customer_id", "house id", "orderId", "Unnamed: 0", "Unnamed: 0.1"]
    first, second = generator.permutation(names)[:2].tolist()
    for place, name in enumerate((first, second)):
        keys = generator.permutation(9 * n)[:n]
        frame.insert(2 * place, name, keys if generator.random() < 0.5 else np.array([f"k{key}" for key in keys]))
    table = read(folder, frame)
    assert table.schema.id == first
    assert table.ids is not None
    assert table.ids.tolist() == list(map(str, frame[first]))
    assert second in table.schema.dropped
    assert any(repr(second) in text and "left out" in text for text in table.warnings)
    assert any(repr(first) in text for text in table.notes)
    other = read(folder, frame, id=second)
    assert (other.schema.id, first in other.schema.dropped) == (second, True)


@kind("free text and texts that never repeat", "are left out with a warning; categories stay")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(40, 300))
    frame = noise(generator, n)
    length = int(generator.integers(6, 15))
    frame["remark"] = [" ".join(generator.choice(WORDS, length)) for _ in range(n)]
    frame["address"] = [f"{generator.choice(WORDS)} {i}" for i in generator.permutation(n)]
    frame["street"] = [" ".join(row) for row in generator.choice(WORDS[:4], (n, 2))]
    if generator.random() < 0.5:
        frame.loc[generator.random(n) < 0.2, "remark"] = ""
    table = read(folder, frame)
    assert "street" in table.features
    for name in ("remark", "address"):
        assert name not in table.features
        (said,) = [text for text in table.warnings if repr(name) in text]
        assert f"--data.categorical '[\"{name}\"]'" in said
    assert "remark" in read(folder, frame, categorical=["remark"]).features


@kind("keys of groups", "are named by their name or by close targets; quantities and declared columns are not")
def _(generator: np.random.Generator, folder: Path) -> None:
    k, rows = int(generator.integers(10, 40)), int(generator.integers(3, 9))
    n = k * rows
    frame, who = noise(generator, n), generator.permutation(np.repeat(np.arange(k), rows))
    codes = generator.permutation(10 * k)[:k]
    cells = codes[who] if generator.random() < 0.5 else [f"{WORDS[code % 12]}{code}" for code in codes[who]]
    is_named = generator.random() < 0.5
    name = str(
        generator.choice(["patient", "Subject", "user_id", "machine no"] if is_named else ["batch", "lot", "who"])
    )
    if not is_named:
        frame["y"] = np.exp(generator.normal(size=k)[who] + 0.1 * generator.normal(size=n))
    frame[name] = cells
    frame["rank"] = pd.qcut(frame.y, 12, labels=False)
    named = [text for text in read(folder, frame).warnings if "key of groups" in text]
    assert [repr(name) in text for text in named] == [True], named
    assert f"{k} values in {n} rows" in named[0]
    settled = read(folder, frame, **{str(generator.choice(["categorical", "groups", "drop"])): [name]})
    assert not any("looks like the key" in text for text in settled.warnings)


@kind("times that order the rows", "are named with the key that splits by them")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(30, 300))
    frame = noise(generator, n)
    days = np.cumsum(generator.integers(0, 4, n)) * int(generator.choice([-1, 1]))
    if generator.random() < 0.5:
        name = str(generator.choice(["date", "when", "sold"]))
        frame[name] = (pd.Timestamp("1999-05-06") + pd.to_timedelta(days, unit="D")).strftime("%Y-%m-%d")
    else:
        name = str(generator.choice(["year", "Time", "sale_year", "day"]))
        frame[name] = 1900 + days
    (said,) = [text for text in read(folder, frame).warnings if "--data.time" in text]
    assert repr(name) in said
    assert said.endswith(f"--data.time {name}")
    shuffled = frame.assign(**{name: generator.permutation(frame[name])})
    assert not any("--data.time" in text for text in read(folder, shuffled).warnings)


@kind("rows without a target", "are refused with the key, or left out, counted and said")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(10, 200))
    frame = noise(generator, n)
    frame.loc[generator.permutation(n)[: generator.integers(1, n - 3)], "y"] = np.nan
    with pytest.raises(InputError, match=r"--data\.missing_target drop"):
        read(folder, frame)
    table, kept = read(folder, frame, missing_target="drop"), frame.dropna(subset="y")
    np.testing.assert_array_equal(table.target, kept.y)
    for name in table.features:
        assert table.features[name].tolist() == kept[name].tolist()
    assert any(f"{n - len(kept)} of {n} rows are left out" in text for text in table.warnings)


@kind("columns to leave out", "are no features, whatever they hold; a name that is none is asked about")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = noise(generator, 40).assign(**{"Net worth": WORDS * 3 + WORDS[:4]})
    names = [str(name) for name in generator.permutation([*frame.columns.drop("y")])[: generator.integers(1, 3)]]
    table = read(folder, frame, drop=names)
    assert set(table.features) == set(frame) - {"y", *names}
    assert set(names) <= set(table.schema.dropped)
    wrong = [str(generator.choice(["net worth", "NetWorth", "net_worth", "Net  worth", "Net wort"]))]
    with pytest.raises(InputError, match=r"did you mean 'Net worth'\?"):
        read(folder, frame, drop=wrong)


@kind("a column called otherwise in rows to predict", "is asked about")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = noise(generator, 40).assign(**{"net weight": generator.normal(size=40)})
    schema = read(folder, frame).schema
    other = str(generator.choice(["Net Weight", "net_weight", "NET WEIGHT", "NetWeight", "net weigth", "net.weight"]))
    path = folder / "new.csv"
    frame.rename(columns={"net weight": other}).to_csv(path, index=False)
    said = next(read_rows(str(path), schema)).warnings
    assert any(f"did you mean {other!r} for 'net weight'?" in text for text in said), said


@kind(
    "check on the command line", "takes every key of the data, and reports in plain types what was read", is_slow=True
)
def _(generator: np.random.Generator, folder: Path) -> None:
    n, target = int(generator.integers(30, 90)), str(generator.choice(["--target", "--data.target"]))
    frame = noise(generator, n).assign(extra=generator.choice(["a", "b", "none"], n))
    path = folder / "t.csv"
    frame.to_csv(path, index=False)
    place = [str(path)] if generator.random() < 0.5 else ["--data.csv", str(path)]
    asked = [*place, target, "y", "--data.na_values", '["none"]', "--data.drop", '["kind"]', "--json"]
    out, argv = io.StringIO(), sys.argv
    sys.argv = ["actlab", "check", *asked]
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.main()
    finally:
        sys.argv = argv
    report = json.loads(out.getvalue())
    columns = {column["name"]: column for column in report["columns"]}
    assert report["n_rows"] == n
    assert columns["extra"]["n_missing"] == (frame.extra == "none").sum()
    assert columns["kind"]["role"] == "left out"
    for name in frame.filter(regex="^x"):
        assert columns[name]["low"] == frame[name].min()
        assert columns[name]["n_distinct"] == frame[name].nunique()
    assert report["n_inputs"] == sum(column["n_inputs"] for column in report["columns"])
