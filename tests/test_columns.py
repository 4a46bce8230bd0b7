"""Cell texts read as numbers, days and categories, against Python's and pandas' own reading."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actlab.data.columns import Format, category_name, looks_like_dates, read_categories, read_numbers

MISSING = {"", "NA"}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_to_the_last_bit(values: list[float]) -> None:
    numbers = read_numbers([repr(value) for value in values], MISSING)
    assert numbers.parsed.tolist() == values
    assert numbers.unreadable.size == 0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_one_odd_cell_changes_no_other(values: list[float]) -> None:
    numbers = read_numbers([*(repr(value) for value in values), "x"], MISSING)
    assert numbers.parsed[:-1].tolist() == values
    assert numbers.unreadable.tolist() == [len(values)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        (" 12 ", 12.0),
        ("+.5", 0.5),
        ("7.", 7.0),
        ("1,234", 1234.0),
        ("-1,234,567.89", -1234567.89),
        ("1'234.5", 1234.5),
        ("1\u202f234", 1234.0),
        ("$1,200", 1200.0),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("12.50 €", 12.5),
        ("EUR 3", 3.0),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
    ],
)
def test_a_number_is_read_however_it_is_written(text: str, value: float) -> None:
    numbers = read_numbers([text, "NA"], MISSING)
    assert numbers.parsed[0] == value
    assert np.isnan(numbers.parsed[1])
    assert numbers.unreadable.size == 0


@pytest.mark.parametrize(
    "text",
    [
        "abc", "1_000", "12_3", "١٢", "1,23", "1,2345", "12,34,567", "1.2.3", "0x10", "--5", "-$-5", "$", "1 2", "5%",
        "nan", "1e", "e5", "1,234 567", "+", "-", ".", "²",
    ],
)  # fmt: skip
def test_a_text_that_is_not_clearly_a_number_is_none(text: str) -> None:
    assert read_numbers([text], MISSING).unreadable.tolist() == [0]
    assert read_numbers(["1", text, "NA"], MISSING).unreadable.tolist() == [1]


def test_only_what_is_called_missing_is_missing() -> None:
    assert np.isnan(read_numbers(["nan", "1"], {"nan"}).parsed[0])
    assert read_numbers(["nan", "1"], {""}).unreadable.tolist() == [0]
    assert read_categories(["None", "NA", "nan", ""], MISSING).tolist() == ["None", None, "nan", None]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,5", 1.5), ("1.234,56", 1234.56), ("-12", -12.0), ("1.234.567", 1234567.0), ("1 234,5 €", 1234.5)],
)
def test_decimal_commas_are_read_where_asked_for(text: str, value: float) -> None:
    assert read_numbers([text], MISSING, "decimal_comma").parsed.tolist() == [value]


@pytest.mark.parametrize("text", ["1.5", "1,2,3", "1,234.5", "a", "1.23,5"])
def test_a_decimal_point_is_no_decimal_comma(text: str) -> None:
    assert read_numbers([text], MISSING, "decimal_comma").unreadable.tolist() == [0]


@pytest.mark.parametrize(
    "text",
    ["1970-01-01", "2024-02-29", "1872-06-30 12:00", "0001-01-01", "9999-12-31", "2024-01-01T06:00:00.25+02:00"],
)
def test_days_agree_with_pandas(text: str) -> None:
    moment = pd.Timestamp(text)
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment
    both = read_numbers([text, "1970-01-02"], MISSING, "iso_date").parsed
    np.testing.assert_allclose(both, [moment.timestamp() / 86_400, 1.0], rtol=1e-12)


@pytest.mark.parametrize("text", ["2024-13-01", "2024-02-30", "24-01-01", "2024", "01/02/2024", "2024-01-01T25:00"])
def test_an_impossible_day_is_unreadable(text: str) -> None:
    assert read_numbers([text], MISSING, "iso_date").unreadable.tolist() == [0]


@given(st.lists(st.text(max_size=6)), st.sampled_from(["number", "decimal_comma", "iso_date"]))
def test_any_text_is_read_or_reported(texts: list[str], style: Format) -> None:
    numbers = read_numbers(texts, MISSING, style)
    assert numbers.parsed.shape == (len(texts),)
    stripped = [text.strip() for text in texts]
    gone = {i for i, text in enumerate(stripped) if text in MISSING}
    assert set(np.flatnonzero(np.isnan(numbers.parsed)).tolist()) == gone | set(numbers.unreadable.tolist())
    assert not gone & set(numbers.unreadable.tolist())


def test_integer_codes_exported_as_floats_are_the_same_categories() -> None:
    assert read_categories(["20.0", "20", " 20 ", "20.5", "-3.00", "v1.0"], MISSING).tolist() == [
        "20", "20", "20", "20.5", "-3", "v1.0",
    ]  # fmt: skip
    assert category_name("1.0") == "1"


def test_dates_in_other_orders_are_recognised() -> None:
    assert looks_like_dates(["01/02/2024", "13.5.24", "2024/01/02"])
    assert not looks_like_dates(["01/02/2024", "x"])
    assert not looks_like_dates([])


def test_a_hostile_cell_costs_no_time() -> None:
    start = time.perf_counter()
    read_numbers(["1" + " " * 100_000 + "x", "1," * 50_000, "$" * 100_000, "9" * 390], MISSING)
    assert time.perf_counter() - start < 1.0
