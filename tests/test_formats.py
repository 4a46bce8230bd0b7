"""How cells are written: what a text is under each format, and which of two readings a whole file speaks for."""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actlab.data.formats import (
    FORMATS,
    Cells,
    FileStyle,
    Format,
    Reading,
    days_of,
    number_of,
    resolution,
)


def style(columns: Mapping[str, Sequence[str]], delimiter: str | None = ",", **keys: object) -> FileStyle:
    """The style of a file with the given columns."""
    return FileStyle(delimiter, lambda: [columns], **keys)  # type: ignore[arg-type]


def read(
    format: Format, texts: Sequence[str], others: Mapping[str, Sequence[str]] | None = None, delimiter: str = ","
) -> Reading:
    """A column x of a file, beside other columns."""
    own = style({"x": texts, **(others or {})}, delimiter)
    return FORMATS[format].read(Cells("x", list(texts), np.ones(len(texts)), own))


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("180 sqft", "sqft", 180),
        ("180sqft", "sqft", 180),
        ("12.5 \u00b0C", "\u00b0C", 12.5),
        ("90 m2", "m2", 90),
        ("CHF 180", "CHF", 180),
        ("\u20b9180", "\u20b9", 180),
        ("\u20b91,80,000", "\u20b9", 180_000),
        ("EUR 3", "\u20ac", 3),
        ("67.34 \x80", "\u20ac", 67.34),
        ("R$ 5", "R$", 5),
        ("(218)", "", -218),
        ("218-", "", -218),
        ("($1,218.50)", "$", -1218.5),
        ("\u2212218", "", -218),
        ("60%", "%", 0.6),
        ("-2.5 %", "%", -0.025),
        ("1'234.5", "", 1234.5),
        ("1,234,567", "", 1234567),
        ("+.5", "", 0.5),
        ("1e3", "", 1000),
        ("-Infinity", "", -np.inf),
    ],
)
def test_a_number_is_read_with_what_it_is_in(text: str, unit: str, value: float) -> None:
    number = number_of(text)
    assert number is not None
    assert (number.unit, number.value(1)) == (unit, value)


@pytest.mark.parametrize(
    "text",
    [
        "abc", "1_000", "١٢", "1.2.3", "12,34,56", "--5", "-$-5", "(5", "5)", "(-5)", "-5-", "$", "1 2", "12 of 30",
        "+", "-", ".", "²", "12-11", "A1", "1,234 567", "9" * 500,
    ],
)  # fmt: skip
def test_a_text_that_is_no_number_is_none(text: str) -> None:
    assert number_of(text) is None


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1.577", "2.5"], [1.577, 2.5]),
        (["1.577", "0.123"], [1.577, 0.123]),
        (["1.577", "1.577.000"], [1577, 1_577_000]),
        (["1.577", "2,5"], [1577, 2.5]),
        (["1,577", "2,5"], [1.577, 2.5]),
        (["1,577", "0,5"], [1.577, 0.5]),
        (["1,577", "1,577.5"], [1577, 1577.5]),
        (["1,577", "2.5"], [1577, 2.5]),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_one_clear_cell_decides_its_column(texts: list[str], values: list[float], delimiter: str) -> None:
    assert read("number", texts, delimiter=delimiter).parsed.tolist() == values
    assert read("number", texts[::-1], delimiter=delimiter).parsed.tolist() == values[::-1]


@pytest.mark.parametrize(
    ("texts", "others", "delimiter", "values"),
    [
        # the delimiter
        (["1.577", "2.077"], {}, ",", [1.577, 2.077]),
        (["1.577", "2.077"], {}, "\t", [1.577, 2.077]),
        (["1,577", "2,077"], {}, ",", [1577, 2077]),
        # other columns
        (["1.577", "2.077"], {"y": ["1,4", "2"]}, ";", [1577, 2077]),
        (["1.577", "2.077"], {"y": ["1,4", "2"]}, ",", [1577, 2077]),
        (["1.577", "2.077"], {"y": ["1.4", "2"]}, ";", [1.577, 2.077]),
        (["1,577", "2,077"], {"y": ["1.4", "2"]}, ";", [1577, 2077]),
        # whole numbers beside: as long as a group, or longer
        (["986", "1.577", "2.077"], {}, ";", [986, 1577, 2077]),
        (["2077", "1.577"], {}, ";", [2077, 1.577]),
        (["986", "1,577"], {}, ";", [986, 1577]),
        # money has no thousandths
        (["1.577 \u20ac", "2.077 \u20ac"], {}, ";", [1577, 2077]),
        (["\u00a31,577", "\u00a32,077"], {}, ";", [1577, 2077]),
    ],
)
def test_the_file_decides_what_the_column_does_not(
    texts: list[str], others: dict[str, list[str]], delimiter: str, values: list[float]
) -> None:
    reading = read("number", texts, others, delimiter)
    assert reading.doubt is None
    assert reading.parsed.tolist() == values


@pytest.mark.parametrize(
    ("texts", "others", "delimiter", "readings"),
    [
        (["1.577", "2.077"], {}, ";", (1.577, 1577)),
        (["1,577", "2,077"], {}, ";", (1577, 1.577)),
        (["1,577", "2,077"], {}, "\t", (1577, 1.577)),
        (["1.577", "2.077"], {"y": ["1,4"], "z": ["1.4"]}, ";", (1.577, 1577)),
        (["986", "1.577", "2.077"], {}, ",", (1.577, 1577)),
        (["986", "1.577", "2.077"], {"y": ["0.5"]}, ";", (1.577, 1577)),
        (["1.577", "1,577"], {}, ";", (1.577, 1577)),
    ],
)
def test_what_nothing_decides_is_doubtful(
    texts: list[str], others: dict[str, list[str]], delimiter: str, readings: tuple[float, float]
) -> None:
    reading = read("number", texts, others, delimiter)
    assert reading.doubt is not None
    place, *values = reading.doubt
    assert tuple(values) == readings
    assert "577" in texts[place]


def test_what_is_stated_decides_before_all_else() -> None:
    texts = ["1.577", "2.077"]
    for stated in ({"x": "decimal_comma"}, {"*": "decimal_comma"}):
        own = style({"x": texts, "y": ["1.5"]}, ",", stated=stated)
        assert FORMATS["number"].read(Cells("x", texts, np.ones(2), own)).parsed.tolist() == [1577, 2077]
    own = style({"x": texts}, ";", fallback={"x": "decimal_comma"})
    assert FORMATS["number"].read(Cells("x", texts, np.ones(2), own)).parsed.tolist() == [1577, 2077]
    own = style({"x": texts, "y": ["1.5"]}, ";", fallback={"x": "decimal_comma"})
    assert FORMATS["number"].read(Cells("x", texts, np.ones(2), own)).parsed.tolist() == [1.577, 2.077]


def test_a_column_keeps_its_reading_from_block_to_block() -> None:
    blocks = [["1.577"], ["2.077"], ["3,5"]]
    own = FileStyle(";", lambda: [{"x": block} for block in blocks])
    found = [FORMATS["number"].read(Cells("x", block, np.ones(1), own, "")).parsed.tolist() for block in blocks]
    assert found == [[1577], [2077], [3.5]]


@pytest.mark.parametrize(
    ("texts", "unit", "values"),
    [
        (["180 sqft", "17 sqft", "0"], "sqft", [180, 17, 0]),
        (["180 sqft", "17 sqft", "17"], "sqft", [180, 17, np.nan]),
        (["180 sqft", "17 sqft", "17 m2"], "sqft", [180, 17, np.nan]),
        (["$180", "17", "18 USD"], "$", [180, 17, 18]),
        (["$180", "$17", "\u20ac17"], "$", [180, 17, np.nan]),
        (["60%", "0", "7 %"], "%", [0.6, 0, 0.07]),
        (["60%", "5%", "7"], "%", [0.6, 0.05, np.nan]),
    ],
)
def test_a_column_is_in_one_unit(texts: list[str], unit: str, values: list[float]) -> None:
    reading = read("number", texts)
    assert reading.unit == unit
    np.testing.assert_array_equal(reading.parsed, values)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29", "2024-02-29"),
        ("0001-01-01", "0001-01-01"),
        ("9999-12-31", "9999-12-31"),
        ("2024-01-01T06:00:00.25+02:00", "2024-01-01T04:00:00.25"),
        ("2021-01-31 12:00:00 UTC", "2021-01-31T12:00"),
        ("2021/1/5 10:00 +02", "2021-01-05T08:00"),
        ("2021-01", "2021-01-01"),
        ("31.01.2021", "2021-01-31"),
        ("31.1.21 9:05", "2021-01-31T09:05"),
        ("01/31/2021", "2021-01-31"),
        ("1/31/21 12:05 AM", "2021-01-31T00:05"),
        ("31-Jan-22", "2022-01-31"),
        ("31 January 2022", "2022-01-31"),
        ("1. Sept. 2022 23:59:59", "2022-09-01T23:59:59"),
        ("Jan 1, 2021", "2021-01-01"),
        ("jan 1 2000", "2000-01-01"),
        ("March 3rd, 2021 1:30 PM", "2021-03-03T13:30"),
        ("2021-Feb-03", "2021-02-03"),
        ("Feb 2021", "2021-02-01"),
    ],
)
def test_a_date_is_read_however_it_is_written(text: str, moment: str) -> None:
    expected = pd.Timestamp(moment, tz="UTC").timestamp() / 86_400
    np.testing.assert_allclose(read("date", [text]).parsed, [expected], rtol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "2024-13-01", "2024-02-30", "24-01-01", "2024", "2024-01-01T25:00", "32/01/2024", "31/13/2024", "30-Feb-2024",
        "Marble 1, 2021", "yesterday", "1.2.3", "12-11",
    ],
)  # fmt: skip
def test_an_impossible_date_is_none(text: str) -> None:
    assert np.isnan(read("date", [text, "2024-01-01"]).parsed).tolist() == [True, False]


def test_the_whole_column_then_the_file_orders_day_and_month() -> None:
    def first_of(texts: list[str], **others: list[str]) -> str | None:
        reading = read("date", texts, others)
        return None if reading.doubt else str(np.datetime64(int(reading.parsed[0]), "D"))

    assert first_of(["01/02/2021", "31/01/2021"]) == "2021-02-01"
    assert first_of(["01/02/2021", "01/31/2021"]) == "2021-01-02"
    assert first_of(["01/02/2021"], other=["01/31/2020"]) == "2021-01-02"
    assert first_of(["01/02/2021"], other=["31/01/2020"]) == "2021-02-01"
    assert first_of(["01.02.2021"]) == "2021-02-01"
    assert first_of(["01/02/2021", "03/03/2021"]) is None
    assert first_of(["01/02/2021"], a=["31/01/2020"], b=["01/31/2020"]) is None
    assert first_of(["03/03/2021"]) == "2021-03-03"
    assert np.isnan(read("date", ["31/01/2021", "01/31/2021"]).parsed).sum() == 1


@pytest.mark.parametrize(
    ("moments", "unit"),
    [
        (["2021-01-01", "2023-01-01"], "year"),
        (["2021-01-01", "2021-04-01"], "month"),
        (["2021-01-01", "2021-04-02"], "day"),
        (["2021-01-01"], "day"),
        (["2021-01-01", "2021-01-01 05:00"], "hour"),
        (["2021-01-01 05:30"], "minute"),
        (["2021-01-01 05:30:01"], "second"),
    ],
)
def test_the_resolution_is_the_finest_part_that_differs(moments: list[str], unit: str) -> None:
    days = days_of(pd.DatetimeIndex([pd.Timestamp(moment) for moment in moments]))
    assert resolution(np.append(days, np.nan)) == unit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3:00", 3 * 3600),
        ("100:30", 100.5 * 3600),
        ("PT180M", 3 * 3600),
        ("PT1.5H", 1.5 * 3600),
        ("P1DT2H", 26 * 3600),
        ("P2W", 14 * 86_400),
        ("1 days 02:00", 26 * 3600),
        ("-1 days +22:00:00", -2 * 3600),
        ("1 day, 2:00:00.5", 26 * 3600 + 0.5),
        ("2h 30m", 2.5 * 3600),
        ("1 hour 5 mins", 3900),
        ("90 sec", 90),
    ],
)
def test_a_span_of_time_is_read_in_seconds(text: str, seconds: float) -> None:
    assert read("duration", [text]).parsed.tolist() == [seconds]


@pytest.mark.parametrize("text", ["3:60", "3:5", "3", "PT", "P", "1 month", "12:00:00:00", "P1M", "3:00 o'clock", "-"])
def test_what_is_no_span_of_time_is_none(text: str) -> None:
    assert np.isnan(read("duration", [text]).parsed).all()


def test_hours_and_minutes_beside_hours_minutes_and_seconds_are_doubtful() -> None:
    assert read("duration", ["3:00", "3:00:00"]).doubt == (0, 10800.0, 180.0)
    assert read("duration", ["3:00:00", "1 days 03:00"]).doubt is None


@given(st.lists(st.text(max_size=8)), st.sampled_from(list(FORMATS)), st.sampled_from([",", ";"]))
def test_any_text_is_read_or_is_none(texts: list[str], format: Format, delimiter: str) -> None:
    texts = [text.strip() for text in texts if text.strip()] or ["1"]
    assert read(format, texts, delimiter=delimiter).parsed.shape == (len(texts),)


def german(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".translate(str.maketrans(",.", ".,"))


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    st.integers(1, 2),
    st.sampled_from([("{}", ""), ("{} kg", "kg"), ("\u20ac{}", "\u20ac"), ("{} CHF", "CHF")]),
)
def test_all_ways_to_write_numbers_give_the_same_values(values: list[int], decimals: int, how: tuple[str, str]) -> None:
    numbers = [value / 10**decimals for value in values]
    written, unit = how
    for texts in (
        [f"{number:.{decimals}f}" for number in numbers],
        [f"{number:,.{decimals}f}" for number in numbers],
        [f"{number:,.{decimals}f}".replace(",", "'") for number in numbers],
        [german(number, decimals) for number in numbers],
        [f"({-number:.{decimals}f})" if number < 0 else f"{number:.{decimals}f}" for number in numbers],
        [f"{abs(number):.{decimals}f}-" if number < 0 else f"{number:.{decimals}f}" for number in numbers],
    ):
        for delimiter in (",", ";"):
            reading = read("number", [written.format(text) for text in texts], delimiter=delimiter)
            assert (reading.parsed.tolist(), reading.unit, reading.doubt) == (numbers, unit, None)


@given(st.lists(st.dates(date(1970, 1, 1), date(2037, 12, 31)), min_size=1, max_size=20))
def test_all_ways_to_write_dates_give_the_same_days(dates: list[date]) -> None:
    stamps = [pd.Timestamp("2024-05-31"), *map(pd.Timestamp, dates)]
    days = [(stamp - pd.Timestamp(0)).days for stamp in stamps]
    for how in (
        "%Y-%m-%d",
        "%d.%m.%Y",
        "%m/%d/%Y",
        "%d/%m/%y",
        "%d-%b-%y",
        "%B %d, %Y",
        "%Y/%m/%d",
        "%Y-%m-%dT12:00:00Z",
    ):
        texts = [stamp.strftime(how) for stamp in stamps]
        noon = 0.5 if "T12" in how else 0.0
        assert read("date", texts).parsed.tolist() == [day + noon for day in days]
