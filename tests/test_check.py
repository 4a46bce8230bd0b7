"""What `actlab check` finds, against pandas."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actlab.data.check import COUNTED_ROWS, check
from actlab.errors import InputError
from actlab.report.check_text import render_check
from actlab.settings import DataSettings

HOUSES = str(Path(__file__).parents[1] / "data" / "house_prices" / "train.csv")


def write(folder: Path, content: str) -> str:
    path = folder / "table.csv"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_the_numbers_are_those_of_pandas() -> None:
    report = check(DataSettings(csv=HOUSES, target="SalePrice"))
    frame = pd.read_csv(HOUSES, keep_default_na=False, na_values=["", "NA"])
    assert report.n_rows == len(frame)
    assert [column.name for column in report.columns if column.role == "feature"] == list(frame.columns[1:-1])
    assert [(column.name, column.role) for column in report.columns[:2]] == [("Id", "id"), ("SalePrice", "target")]
    for column in report.columns[1:]:
        cells = frame[column.name]
        assert column.n_missing == cells.isna().sum()
        assert column.n_distinct == cells.nunique()
        if column.kind == "numeric":
            assert (column.low, column.high) == (cells.min(), cells.max())
        else:
            assert column.n_most_frequent == cells.value_counts().iloc[0]
            assert (cells == column.most_frequent).sum() == column.n_most_frequent
    assert report.target is not None
    assert (report.target.low, report.target.median, report.target.high) == (34900, 163000, 755000)
    assert report.warnings == ()


def test_the_inputs_are_counted_with_one_hot_columns_and_indicators() -> None:
    report = check(DataSettings(csv=HOUSES, target="SalePrice"))
    frame = pd.read_csv(HOUSES, keep_default_na=False, na_values=["", "NA"]).drop(columns=["Id", "SalePrice"])
    numbers = frame.select_dtypes("number")
    expected = len(numbers.columns) + numbers.isna().any().sum()
    expected += sum(frame[name].nunique(dropna=False) for name in frame.columns.difference(numbers.columns))
    assert report.n_inputs == expected


def test_without_a_target_likely_ones_are_suggested(tmp_path: Path) -> None:
    path = write(tmp_path, "a,Price,c,b\n1,2,x,3\n2,3,y,5\n")
    report = check(DataSettings(csv=path))
    assert report.suggested_targets == ("Price", "b", "a")
    assert report.target is None
    assert report.n_inputs is None


def test_what_training_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'prise'"):
        check(DataSettings(csv=write(tmp_path, "a,price\n1,2\n2,3\n"), target="prise"))


def test_columns_that_are_left_out_are_listed_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "rownames,a,b,c,y\n" + "".join(f"{i},{i % 3},1,{i % 7},{i % 5 + 1}\n" for i in range(1, 30)))
    report = check(DataSettings(csv=path, target="y", drop=["c"]))
    left_out = {column.name: column.kind for column in report.columns if column.role == "left out"}
    assert left_out == {"c": "data.drop", "rownames": "counts the rows", "b": "is the same in every row"}
    assert [column.name for column in report.features] == ["a"]


def test_inputs_are_counted_on_some_rows_as_on_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 3 * COUNTED_ROWS
    frame = pd.DataFrame({"x": rng.normal(size=n), "kind": rng.choice(list("abcdef"), n), "y": rng.uniform(1, 2, n)})
    frame.loc[1234, "kind"], frame.loc[777, "x"], frame.loc[4321, "kind"] = "rare", np.nan, None
    frame.to_csv(tmp_path / "t.csv", index=False)
    report = check(DataSettings(csv=str(tmp_path / "t.csv"), target="y"))
    assert {column.name: column.n_inputs for column in report.features} == {"x": 2, "kind": 8}
    assert report.n_inputs == 10


def test_as_plain_types_the_report_has_stable_names() -> None:
    report = json.loads(json.dumps(check(DataSettings(csv=HOUSES, target="SalePrice", drop="Alley")).to_dict()))
    names = ("path", "n_rows", "columns", "scale", "n_inputs", "suggested_targets", "warnings", "notes")
    assert tuple(report) == names
    assert report["scale"] == "log"
    assert report["columns"][0] | {"name": "Id", "role": "id", "n_distinct": 1460} == report["columns"][0]
    (alley,) = [column for column in report["columns"] if column["name"] == "Alley"]
    assert (alley["role"], alley["kind"], alley["n_missing"]) == ("left out", "data.drop", None)


def test_a_date_says_what_networks_see_of_it(tmp_path: Path) -> None:
    hours = pd.date_range("2021-01-01", periods=1200, freq="h")
    frame = pd.DataFrame({"when": hours.astype(str), "y": np.arange(1, 1201)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    settings = DataSettings(csv=str(tmp_path / "t.csv"), target="y")
    (when,) = check(settings).features
    assert when.parts == ("days", "hour", "weekday")
    assert when.n_inputs == 5
    assert "note: of the date when networks see: days, hour, weekday (data.dates changes it)\n" in render_check(
        check(settings)
    )
    assert check(replace(settings, dates={"when": ["hour"]})).features[0].parts == ("hour",)
