"""What `actlab check` finds, against pandas."""

from pathlib import Path

import pandas as pd
import pytest

from actlab.data.check import check
from actlab.errors import InputError
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
