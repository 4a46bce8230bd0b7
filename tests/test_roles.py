"""What a column is for, copies of the target, keys of groups and times, against tables made for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.data.roles import copies_of_target
from actlab.data.table import Table, read_table
from actlab.settings import DataSettings

DATA = Path(__file__).parents[1] / "data"


def read(folder: Path, frame: pd.DataFrame, **keys: Any) -> Table:
    path = folder / "t.csv"
    frame.to_csv(path, index=False)
    return read_table(DataSettings(csv=str(path), **{"target": "y", **keys}))


def plain(n: int = 60) -> pd.DataFrame:
    """Two columns and a target that has little to do with them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.exp(0.3 * x[:, 0] + rng.normal(size=n))})


@pytest.mark.parametrize(
    ("name", "cells", "left_out", "key"),
    [
        ("rownames", range(1, 61), True, "numeric"),
        ("t", range(60), True, "numeric"),
        ("Sno", range(1, 61), True, "numeric"),
        ("t", [*range(1, 60), 61], False, ""),
        ("t", range(60, 0, -1), False, ""),
        ("t", range(2, 62), False, ""),
        ("who", [f"P{7 * i % 61}" for i in range(60)], True, "categorical"),
        ("who", [f"P{i % 50}" for i in range(60)], False, ""),
        ("note", [f"came on day {i % 40} and left after a while" for i in range(60)], True, "categorical"),
        ("note", [f"came on day {i % 20} and left after a while" for i in range(60)], False, ""),
    ],
)
def test_what_names_rows_or_is_written_for_people_is_left_out_and_can_be_kept(
    tmp_path: Path, name: str, cells: Any, left_out: bool, key: str
) -> None:
    frame = plain().assign(**{name: list(cells)})
    table = read(tmp_path, frame)
    assert (name in table.features) is not left_out
    assert (name in table.schema.dropped) is left_out
    said = [text for text in table.warnings if "left out" in text]
    assert len(said) == left_out
    assert all(f"'{name}'" in text and f"--data.{key} '[\"{name}\"]'" in text for text in said)
    if left_out:
        assert name in read(tmp_path, frame, **{key: [name]}).features


def test_few_rows_are_counted_only_under_a_telling_name(tmp_path: Path) -> None:
    frame = plain(8)
    assert "dose" in read(tmp_path, frame.assign(dose=range(1, 9))).features
    assert "Unnamed: 0.1" not in read(tmp_path, frame.assign(**{"Unnamed: 0.1": range(8), "Id": range(8)})).features


def test_a_second_id_is_left_out_and_the_first_is_noted(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).permutation(1000)[:60]
    table = read(tmp_path, plain().assign(Id=range(1, 61), customer_id=keys))
    assert table.schema.id == "Id"
    assert table.schema.dropped == ("customer_id",)
    assert "'customer_id' could be the id, which is another one; left out" in " ".join(table.warnings)
    assert "'Id' is the id" in " ".join(table.notes)
    named = read(tmp_path, plain().assign(Id=range(1, 61), customer_id=keys), id="customer_id")
    assert named.schema.id == "customer_id"
    assert named.schema.dropped == ("Id",)


def test_a_column_called_index_is_the_id_only_where_it_counts_rows(tmp_path: Path) -> None:
    assert read(tmp_path, plain().assign(index=range(60))).schema.id == "index"
    values = np.random.default_rng(0).permutation(1000)[:60]
    table = read(tmp_path, plain().assign(index=values))
    assert table.schema.id is None
    np.testing.assert_array_equal(table.features["index"], values)
    (said,) = table.warnings
    assert "'index'" in said
    assert "--data.id index" in said


def test_columns_to_drop_are_no_features_and_need_no_sense(tmp_path: Path) -> None:
    table = read(tmp_path, plain().assign(c="x"), drop=["c", "a"], categorical=["a"])
    assert list(table.features) == ["b"]
    assert table.schema.dropped == ("c", "a")
    assert table.left_out == {"c": "data.drop", "a": "data.drop"}
    assert table.warnings == ()


def test_rows_without_a_target_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    frame = plain()
    frame.loc[[3, 4, 30], "y"] = np.nan
    table = read(tmp_path, frame, missing_target="drop")
    whole = frame.dropna(subset="y")
    np.testing.assert_array_equal(table.target, whole["y"])
    np.testing.assert_array_equal(table.features, whole[["a", "b"]])
    (said,) = table.warnings
    assert "missing in lines 5, 6, 32; 3 of 60 rows are left out" in said


def table_with(
    kind: str, generator: np.random.Generator, n: int = 200
) -> tuple[dict[str, np.ndarray], np.ndarray, set[str]]:
    """Columns, a target that follows from some of them, and which."""
    y = np.exp(generator.normal(3, 0.5, n))
    noise = {f"x{i}": generator.normal(size=n) for i in range(5)}
    part = y * generator.uniform(0.1, 0.9, n)
    copies = {
        "logarithm": {"log": np.log(y).round(3)},
        "tax": {"tax": (1.19 * y + 2).round(2)},
        "wrong rows": {"tax": np.where(np.arange(n) % 50 == 0, 0.0, 1.19 * y)},
        "missing rows": {"tax": np.where(generator.random(n) < 0.3, np.nan, -3 * y)},
        "per unit": {"inverse": 100 / y},
        "a curve": {"curve": np.tanh(y / 30)},
        "sum": {"part": part.round(1), "rest": (y - part).round(1)},
        "ends": {"low": y - part / 9, "high": y + part / 9},
        "product": {"price": part, "number": y / part},
        "difference": {"gross": y + 9 * part, "cost": 9 * part},
    }[kind]
    return {**noise, **copies}, y, set(copies)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind",
    ["logarithm", "tax", "wrong rows", "missing rows", "per unit", "a curve", "sum", "ends", "product", "difference"],
)
def test_copies_of_the_target_are_found(kind: str, seed: int) -> None:
    columns, y, copies = table_with(kind, np.random.default_rng(seed))
    assert [set(names) for names, _ in copies_of_target(columns, y)] == [copies]


@pytest.mark.parametrize("n", [20, 60, 500])
def test_noise_and_columns_that_tell_much_are_no_copies(n: int) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        y = np.exp(generator.normal(size=n))
        noise = {f"x{i}": generator.normal(size=n) for i in range(40)}
        noise["much"] = y * np.exp(generator.normal(0, 0.1, n))
        assert list(copies_of_target(noise, y)) == []
        # claims: mostly none, and the amount is not the number
        n_claims = np.where(generator.random(n) < 0.93, 0.0, generator.integers(1, 9, n))
        assert list(copies_of_target({"claims": n_claims}, n_claims * y)) == []


@pytest.mark.parametrize(
    ("file", "target"), [("house_prices/train", "SalePrice"), ("concrete/concrete", "compressive_strength")]
)
def test_the_two_tables_have_no_copies_keys_or_times(file: str, target: str) -> None:
    table = read_table(DataSettings(csv=str(DATA / f"{file}.csv"), target=target))
    assert not any(word in text for text in table.warnings for word in ("follows", "key of groups", "data.time"))


def persons(n: int = 60, n_persons: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"person": rng.permutation(np.arange(n) % n_persons) + 500, "x": rng.normal(size=n), "y": rng.uniform(1, 2, n)}
    )


def test_a_column_that_looks_like_the_key_of_groups_is_named_unless_it_is_declared(tmp_path: Path) -> None:
    def keys(frame: pd.DataFrame, **settings: Any) -> list[str]:
        return [text for text in read(tmp_path, frame, **settings).warnings if "looks like the key" in text]

    frame = persons()
    (said,) = keys(frame)
    assert "column 'person' looks like the key of groups of rows (12 values in 60 rows)" in said
    assert "--data.groups '[\"person\"]'" in said
    assert keys(frame, groups="person") == keys(frame, categorical=["person"]) == []
    assert keys(frame.assign(person=frame.person + 0.5)) == []
    # by close targets, whatever its name
    made = frame.rename(columns={"person": "made"})
    assert keys(made) == []
    effect = np.random.default_rng(1).normal(size=12)[made.made - 500]
    own = made.assign(y=np.exp(effect + 0.1 * made.x))
    assert len(keys(own)) == len(keys(own.assign(made=[f"m{code}" for code in own.made]))) == 1
    # a quantity, whose order tells of the target
    assert keys(made.assign(y=made.made - 490.0 + 0.1 * made.x)) == []


def test_a_time_that_orders_the_rows_is_named(tmp_path: Path) -> None:
    def said(frame: pd.DataFrame, **settings: Any) -> list[str]:
        return [text for text in read(tmp_path, frame, **settings).warnings if "data.time" in text]

    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d").to_numpy()
    frame = plain().assign(day=days)
    (text,) = said(frame)
    assert "'day' orders the rows" in text
    assert "--data.time day" in text
    shuffled = frame.assign(day=np.random.default_rng(0).permutation(days))
    assert said(shuffled) == []
    walk = shuffled.assign(y=np.exp(np.sin(pd.to_datetime(shuffled.day).dt.day_of_year / 9)))
    assert len(said(walk)) == 1
    assert len(said(plain().assign(year=1950 + np.arange(60)))) == 1
    assert said(plain().assign(sorted=1950 + np.arange(60))) == []


def test_columns_that_are_constant_or_missing_in_the_rows_looked_at_are_no_copies() -> None:
    generator = np.random.default_rng(0)
    y = np.exp(generator.normal(size=6000))
    seen = {"missing": np.full(6000, np.nan), "constant": np.full(6000, 1e-16), "tiny": 1e-18 * y, "noise": -y[::-1]}
    assert [names for names, _ in copies_of_target(seen, y)] == [("tiny",)]
