"""One column from its cells to numbers, days and categories, against Python's and pandas' own reading."""

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actlab.data.columns import (
    Column,
    Numbers,
    RawColumn,
    Schema,
    category_name,
    infer_column,
    looks_like_dates,
    ordinal_column,
    read_categories,
    read_column,
    read_numbers,
)
from actlab.data.csv_file import Source
from actlab.data.formats import FORMATS, FileStyle, Format, Texts
from actlab.errors import InputError

MISSING = ("", "NA")


def raw(cells: Texts | pd.Series, missing: Sequence[str] = MISSING, delimiter: str | None = ",") -> RawColumn:
    """A column x, alone in its file or frame."""
    file = Source("t.csv", ("x",), "", (), delimiter or None, 1, lambda n_rows: iter(()))
    own = FileStyle(delimiter, lambda: [{"x": cells}])
    return RawColumn("x", cells, np.arange(2, len(cells) + 2), file, frozenset({"", *missing}), own)


def numbers(texts: Sequence[str], missing: Sequence[str] = MISSING, format: Format = "number") -> Numbers:
    return read_numbers(raw(texts, missing), format)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_to_the_last_bit(values: list[float]) -> None:
    found = numbers([repr(value) for value in values])
    assert found.parsed.tolist() == values
    assert found.unreadable.size == 0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_one_odd_cell_changes_no_other(values: list[float]) -> None:
    found = numbers([*(repr(value) for value in values), "x"])
    assert found.parsed[:-1].tolist() == values
    assert found.unreadable.tolist() == [len(values)]


def test_only_what_is_called_missing_is_missing_in_a_column_of_texts() -> None:
    texts = Column("x", "categorical", format="text")
    assert np.isnan(numbers(["nan", "1"], ["nan"]).parsed[0])
    assert read_categories(texts, raw(["None", "NA", "nan", ""])).tolist() == ["None", None, "nan", None]
    assert read_categories(texts, raw(["?", "unknown", "NaT"])).tolist() == ["?", "unknown", "NaT"]


@given(st.lists(st.text(max_size=6)), st.sampled_from(list(FORMATS)))
def test_any_text_is_read_or_reported(texts: list[str], format: Format) -> None:
    found = numbers(texts, format=format)
    assert found.parsed.shape == (len(texts),)
    stripped = [text.strip() for text in texts]
    gone = {i for i, text in enumerate(stripped) if text in MISSING}
    assert not gone & set(found.unreadable.tolist())
    assert not np.isfinite(found.parsed[[*gone, *found.unreadable.tolist()]]).any()


def test_a_hostile_cell_costs_no_time() -> None:
    start = time.perf_counter()
    hostile = ["1" + " " * 100_000 + "x", "1," * 50_000, "$" * 100_000, "9" * 390, "1 " * 199, "1." * 199, "(" * 399]
    for format in FORMATS:
        numbers(hostile, format=format)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    "word", ["?", "-", ".", "n/a", "None", "NaT", "<NA>", "unknown", "Unknown", "NONE", "N/A", "--"]
)
@pytest.mark.parametrize(
    "others", [["1.5", "2", "3"], ["2021-01-31", "2021-02-01"], ["3:00", "4:30"], ["5 kg", "7 kg"]]
)
def test_words_for_missing_are_missing_among_numbers_and_dates(word: str, others: list[str]) -> None:
    read = infer_column(raw([*others, word]))
    assert read.column.kind == "numeric"
    assert read.column.had_missing
    np.testing.assert_array_equal(np.isnan(read.parsed), [False] * len(others) + [True])
    (warning,) = [text for text in read.warnings if "taken as missing" in text]
    assert f"line {len(others) + 2}" in warning
    assert repr(word) in warning
    assert "data.categorical" in warning
    kept = infer_column(raw([*others, word]), is_categorical=True)
    assert kept.parsed[-1] == word


def test_words_for_missing_alone_are_categories() -> None:
    assert infer_column(raw(["None", "unknown", "none"])).column.kind == "categorical"


@pytest.mark.parametrize("end", [-999.0, 99999.0, -9999.0, -1.0])
def test_a_sentinel_is_named_and_not_changed(end: float) -> None:
    others = [0.1, 0.5, 0.9]
    read = infer_column(raw([repr(value) for value in [*others, end]]))
    assert read.parsed.tolist() == [*others, end]
    assert (read.column.low, read.column.high) == (min(0.1, end), max(0.9, end))
    (warning,) = read.warnings
    assert f"{end:g}" in warning
    assert "data.na_values" in warning
    assert infer_column(raw([repr(value) for value in others], ["-999"])).warnings == []


def test_a_number_that_means_missing_is_compared_as_a_number() -> None:
    read = infer_column(raw(["-999", "-999.0", "-9.99e2", "1", "2"], ["-999"]))
    np.testing.assert_array_equal(read.parsed, [np.nan, np.nan, np.nan, 1, 2])
    assert (read.column.low, read.column.high, read.column.had_missing) == (1, 2, True)
    frame = read_column(read.column, raw(pd.Series([-999, 3]), ["-999"]))
    np.testing.assert_array_equal(frame.parsed, [np.nan, 3])


def test_dates_that_do_not_tell_are_read_as_in_training_and_said() -> None:
    column = infer_column(raw(["31/01/2024", "01/02/2024"])).column
    assert column.written == "day_first"
    own = FileStyle(",", lambda: [{"x": ["03/02/2024"]}], fallback={"x": column.written}, has_key=False)
    new = replace(raw(["03/02/2024"]), style=own)
    _, parsed, warnings = read_column(column, new)
    assert parsed.tolist() == [(dt.date(2024, 2, 3) - dt.date(1970, 1, 1)).days]
    assert "day first as in training, since this file does not tell" in warnings[0]
    # a file that tells is read in its own order
    own = FileStyle(",", lambda: [{"x": ["03/02/2024"], "y": ["01/31/2024"]}], fallback={"x": column.written})
    assert read_column(column, replace(new, style=own)).parsed[0] == (dt.date(2024, 3, 2) - dt.date(1970, 1, 1)).days


def test_leading_zeros_mean_a_category() -> None:
    read = infer_column(raw(["02134", "10001", "10001.0"]))
    assert read.column.kind == "categorical"
    assert read.parsed.tolist() == ["02134", "10001", "10001"]
    assert "data.numeric" in read.warnings[0]
    assert infer_column(raw(["02134", "10001"]), is_numeric=True).parsed.tolist() == [2134, 10001]
    assert infer_column(raw(["0", "0.5", "00.5"])).column.kind == "numeric"


def test_a_category_has_one_name_however_it_is_written() -> None:
    assert infer_column(raw(["TRUE", "True", "true", "false"])).parsed.tolist() == ["True"] * 3 + ["False"]
    assert len(set(infer_column(raw(["caf\u00e9", "cafe\u0301"])).parsed)) == 1
    codes = infer_column(raw(["1", "1.0", "1e0", " 1 ", "+1", "2.50", "2.5"]), is_categorical=True)
    assert codes.parsed.tolist() == ["1"] * 5 + ["2.5"] * 2
    big = infer_column(raw(["12345678901234567891", "12345678901234567892"]), is_categorical=True)
    assert len(set(big.parsed)) == 2


def test_spellings_that_differ_in_capitals_are_two_categories_and_said() -> None:
    read = infer_column(raw(["flat", "Flat", "house"]))
    assert read.parsed.tolist() == ["flat", "Flat", "house"]
    (warning,) = read.warnings
    assert "'flat' and 'Flat' are two categories" in warning
    assert infer_column(raw(["flat", "house"])).warnings == []


@pytest.mark.parametrize(
    ("cells", "odd", "words"),
    [
        ([f"{i} kg" for i in range(1, 30)], "heavy", "29 numbers"),
        ([f"{i}%" for i in range(1, 30)], "half", "29 percentages"),
        ([f"2021-01-{i:02d}" for i in range(1, 30)], "soon", "29 dates"),
        ([f"{i}:30" for i in range(1, 24)], "long", "23 spans of time"),
        ([str(i) for i in range(1, 30)], "many", "29 numbers"),
    ],
)
def test_nearly_all_cells_in_one_format_are_warned_of(cells: list[str], odd: str, words: str) -> None:
    read = infer_column(raw([*cells, odd]))
    assert read.column.kind == "categorical"
    (warning,) = read.warnings
    assert words in warning
    assert f"{odd!r}, line {len(cells) + 2}" in warning


def test_numbers_in_several_units_are_categories_and_said() -> None:
    read = infer_column(raw(["$5", "\u20ac6", "$7"]))
    assert read.parsed.tolist() == ["$5", "\u20ac6", "$7"]
    assert "several units ('$', '\u20ac')" in read.warnings[0]


def test_text_with_a_few_numbers_in_it_is_not_warned_of() -> None:
    assert infer_column(raw(["1Story", "2Story", "SFoyer", "1.5Fin", "SLvl"])).warnings == []


def test_an_ambiguous_column_is_refused_with_both_readings_and_the_key() -> None:
    for cells, words in (
        (["1.577", "2.077"], ["'1.577'", "1.577 or 1577", "decimal_point or decimal_comma"]),
        (["01/02/2024", "03/02/2024"], ["2024-02-01 or 2024-01-02", "day_first or month_first"]),
        (["3:00", "3:00:01"], ["10800 seconds or 180 seconds", "h:mm:ss"]),
    ):
        with pytest.raises(InputError) as caught:
            infer_column(raw(cells, delimiter=";"))
        assert all(word in str(caught.value) for word in ["line 2", "column 'x'", *words])


SERIES: list[tuple[list[str], Any]] = [
    (["1.5", "", "3"], [1.5, None, 3.0]),
    (["1.5", "", "3"], pd.Series([1.5, pd.NA, 3], dtype="Float64")),
    (["1.5", "", "3"], [Decimal("1.5"), None, 3]),
    (["1.5", "", "3"], ["1.5", None, 3]),
    (["1.5", "", "3"], pd.Series([1.5, None, 3.0], dtype="category")),
    (["2021-01-31", "", "2021-02-01"], pd.to_datetime(["2021-01-31", None, "2021-02-01"])),
    (["2021-01-31", "", "2021-02-01"], [dt.date(2021, 1, 31), None, dt.date(2021, 2, 1)]),
    (["2021-01-31", "", "2021-02-01"], ["2021-01-31", None, "2021-02-01"]),
    (["2021-01-31", "", "2021-02-01"], pd.to_datetime(["2021-01-31 02:00+02:00", None, "2021-02-01 02:00+02:00"])),
    (["3:30", "", "4:00"], pd.to_timedelta(["3h 30min", None, "4h"])),
    (["3:30", "", "4:00"], [dt.time(3, 30), None, dt.time(4)]),
    (["60%", "", "5%"], [0.6, None, 0.05]),
    (["180 sqft", "", "5 sqft"], [180, None, 5]),
    (["TRUE", "", "false"], pd.Series([True, None, False], dtype="boolean")),
    (["TRUE", "", "false"], [True, None, False]),
    (["a", "", "b"], ["a", None, "b"]),
    (["a", "", "b"], pd.Series(["a", None, "b"], dtype="category")),
]


@pytest.mark.parametrize(("texts", "cells"), SERIES)
def test_a_frame_is_read_as_its_file_is(texts: list[str], cells: Any) -> None:
    read = infer_column(raw(texts))
    assert read_column(read.column, raw(texts)).parsed.tolist()[::2] == read.parsed.tolist()[::2]
    frame = raw(pd.Series(cells), delimiter=None)
    np.testing.assert_array_equal(read_column(read.column, frame).parsed, read.parsed)


@pytest.mark.parametrize(("texts", "cells"), [case for case in SERIES if case[0][0][-1] not in "%t"])
def test_a_frame_to_train_on_is_read_as_its_file_is(texts: list[str], cells: Any) -> None:
    column, parsed, _ = infer_column(raw(texts))
    series = pd.Series(cells)
    if series.dtype == "category" and column.kind == "numeric":
        return
    frame = infer_column(raw(series, delimiter=None))
    assert (frame.column.kind, frame.column.format) == (column.kind, column.format)
    np.testing.assert_array_equal(frame.parsed, parsed)


def test_an_ordered_category_keeps_its_order() -> None:
    sizes = pd.Categorical(["big", "small", None], categories=["small", "big"], ordered=True)
    read = infer_column(raw(pd.Series(sizes), delimiter=None))
    assert read.column == Column("x", "ordinal", ("small", "big"), "text")
    assert read.parsed.tolist() == ["big", "small", None]


@pytest.mark.parametrize(
    ("texts", "cells", "words"),
    [
        (["1", "2"], pd.to_datetime(["2021-01-31"]), "is not a number"),
        (["2021-01-31", "2021-02-01"], [18658], "is not a date"),
        (["3:30", "4:00"], [3.5], "is not a span of time"),
        (["180 sqft", "5 sqft"], ["17 m2"], "is not a number in sqft"),
        (["60%", "5%"], ["60"], "is not a percentage"),
        (["1", "2"], ["60%"], "is not a number"),
        (["1", "2"], ["60 kg"], "is not a number"),
        (["3:30", "4:00"], ["3:30:00"], "is not a span of time in the shape of the training file (h:mm)"),
    ],
)
def test_cells_of_another_kind_are_refused(texts: list[str], cells: Any, words: str) -> None:
    column = infer_column(raw(texts)).column
    with pytest.raises(InputError) as caught:
        read_column(column, raw(pd.Series(cells), delimiter=None))
    assert words in str(caught.value)
    assert "line 2" in str(caught.value)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=10))
def test_all_ways_to_write_rows_to_predict_on_give_the_same_values(values: list[int]) -> None:
    column = infer_column(raw(["1037", "2.5", "3"])).column
    expected = [value / 10 for value in values]
    german = [f"{value:,.1f}".translate(str.maketrans(",.", ".,")) for value in expected]
    ways: list[tuple[Any, str | None]] = [
        ([f"{value:.1f}" for value in expected], ","),
        ([f"{value:.1f}" for value in expected], ";"),
        ([f"{value:.2e}".replace("e", "0e") if value == 0 else repr(value) for value in expected], ","),
        ([f"{value:,.1f}" for value in expected], ","),
        (german, ";"),
        (german, ","),
        (pd.Series(expected), None),
        (pd.Series(expected, dtype=object), None),
        (pd.Series([Decimal(value) / 10 for value in values]), None),
        (pd.Series([f" {value:.1f} " for value in expected]), None),
        (pd.Series(german), None),
    ]
    for cells, delimiter in ways:
        assert read_column(column, raw(cells, delimiter=delimiter)).parsed.tolist() == expected


@given(st.lists(st.integers(0, 50), min_size=1, max_size=10))
def test_all_ways_to_write_codes_give_the_same_categories(values: list[int]) -> None:
    column = infer_column(raw([str(value) for value in range(51)]), is_categorical=True).column
    ways: list[Any] = [
        [str(value) for value in values],
        [f"{value}.0" for value in values],
        [f"{value}e0" for value in values],
        [f" +{value} " for value in values],
        pd.Series(values),
        pd.Series(values, dtype=np.float64),
        pd.Series(values, dtype=object),
        pd.Series(values, dtype="category"),
        pd.Series(values, dtype="Int64"),
        pd.Series([str(value) for value in values]),
    ]
    for cells in ways:
        assert read_column(column, raw(cells)).parsed.tolist() == [str(value) for value in values]


def test_integer_codes_exported_as_floats_are_the_same_categories() -> None:
    cells = raw(["20.0", "20", " 20 ", "20.5", "-3.00", "v1.0"])
    assert read_categories(Column("x", "categorical"), cells).tolist() == ["20", "20", "20", "20.5", "-3", "v1.0"]
    assert category_name("1.0") == "1"
    assert ordinal_column("x", ["1", "2.0"]).categories == ("1", "2")


def test_a_schema_of_a_former_version_is_read_as_it_was() -> None:
    columns = [
        {"name": "d", "kind": "numeric", "categories": [], "format": "iso_date"},
        {"name": "n", "kind": "numeric", "categories": [], "format": "decimal_comma"},
        {"name": "c", "kind": "categorical", "categories": [], "format": "number"},
    ]
    state = {"columns": columns, "target": "y", "id": None, "na_values": [""], "dropped": []}
    dates, commas, texts = Schema.from_dict(state).columns
    assert (dates.format, dates.unit, dates.low, dates.had_missing) == ("date", "", None, None)
    assert read_column(dates, raw(["1970-01-02"])).parsed.tolist() == [1.0]
    assert read_column(commas, raw(["1,5"])).parsed.tolist() == [1.5]
    assert read_column(texts, raw(["TRUE", "1.50"])).parsed.tolist() == ["TRUE", "1.50"]


def test_dates_in_other_orders_are_recognised() -> None:
    assert looks_like_dates(["01/02/2024", "13.5.24", "2024/01/02"])
    assert not looks_like_dates(["01/02/2024", "x"])
    assert not looks_like_dates([])
