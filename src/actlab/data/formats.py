"""How cells are written: one table of formats, each with its patterns and its reader, and what a file says of itself.

Some texts can be read in two ways: `1.577` is 1.577 where a point is decimal and 1577 where a comma is, `01/02/2024` is
a day of February or of January. The whole column decides, then the whole file; what neither decides is left to the
user. All rules work on the distinct texts of a column; dates and spans of time are read by pandas.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

# of a numeric column what its cells are; of another one whether its names are numbers (`code`) or any `text`
Format = Literal["number", "percent", "date", "duration", "text", "code"]
# (n_rows,) cells of a column as the file holds them: Python's own texts, or an array of NumPy's variable-width ones
Texts = Sequence[str] | np.ndarray

PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Words for "missing" in a column that is numbers or dates otherwise, in any case.
MISSING_WORDS = frozenset({"?", "-", "--", ".", "n/a", "na", "nan", "none", "null", "nat", "<na>", "unknown"})
# A column is warned of where a larger share of its cells is in one format than this, but not all.
MOSTLY = 0.9
# Longer texts are no numbers; the patterns need not be tried on them.
MAX_NUMBER_LENGTH = 400
# Distinct texts of a block that show whether it is worth a look at all of them.
N_SAMPLED = 1000
SECONDS_PER_DAY = 86_400

_MARKS = "'\u2019 \u00a0\u202f"  # that spreadsheets write between groups of digits, never before decimals
_DIGITS = r"(?:[0-9]+{decimal}?[0-9]*|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?"
_GROUPS = r"[1-9][0-9]{{0,2}}([{marks}])[0-9]{{3}}(?:\1[0-9]{{3}})*(?:{decimal}[0-9]*)?"
_INDIAN = r"[1-9][0-9]?(?:,[0-9][0-9])+,[0-9]{3}(?:\.[0-9]*)?"
# the digits of a number where a point is decimal, and where a comma is
_BY_READING = (
    re.compile(f"{_GROUPS.format(decimal='[.]', marks=',' + _MARKS)}|{_DIGITS.format(decimal='[.]')}|{_INDIAN}"),
    re.compile(f"{_GROUPS.format(decimal=',', marks='.' + _MARKS)}|{_DIGITS.format(decimal=',')}"),
)
# among lines that float() reads: one that no decimal comma fits
CLEARLY_POINT = re.compile(r"^[ \t]*[+-]?(?:0|\d{4,})?\.|^.*\.(?:\d{0,2}(?!\d)|\d{4})", re.MULTILINE)
_SIGNS = "$\x80\u00a2-\u00a5\u0e3f\u20a0-\u20cf\uff04\uffe1\uffe5\uffe6"
_CURRENCY = (
    rf"[A-Z]{{0,3}}[{_SIGNS}]|(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|RUB|AUD|CAD|NZD|HKD|SGD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON"
    r"|BGN|UAH|TRY|ILS|AED|SAR|ZAR|NGN|KES|EGP|BRL|MXN|ARS|CLP|COP|KRW|TWD|THB|IDR|MYR|PHP|VND|PKR|BDT)|(?:Rs|Fr|[Kk]r)\.?"
)
IS_CURRENCY = re.compile(f"{_CURRENCY}|z\u0142|K\u010d|Ft|lei|euros?|dollars?", re.IGNORECASE)
_SAME_CURRENCY = {
    "\x80": "\u20ac",
    "EUR": "\u20ac",
    "USD": "$",
    "US$": "$",
    "GBP": "\u00a3",
    "INR": "\u20b9",
    "Rs": "\u20b9",
}
_NUMBER = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[+\u2212-])?\s*(?P<before>{_CURRENCY})?\s*(?P<inner>[(+\u2212-])?\s*"
    rf"(?P<digits>[.,]?[0-9](?:[0-9.,{_MARKS}]*[0-9])?[.,]?(?:[eE][+-]?[0-9]+)?)\s*(?P<behind>[)\u2212-])?\s*"
    rf"(?P<after>(?:[^\W\d_]|[%\u2030\u00b0\"'\u2032\u2033{_SIGNS}])[^0-9,;:()+\u2212-]{{0,19}}[23]?)?\s*"
    r"(?P<last>[)\u2212-]|[\u2212-]\))?"
)
_INFINITE = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE)

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_CLOCK = (
    r"(?:(?:T|,? )(?P<clock>[0-9]{1,2}:[0-9]{2}(?P<seconds>:[0-9]{2}(?P<fraction>\.[0-9]+)?)?)(?: ?(?P<half>[AP]M))?"
    r"(?: ?(?P<zone>Z|UTC|GMT|[+-][0-9][0-9](?::?[0-9][0-9])?))?)?"
)
# Pattern of a date, and pandas' format of its pieces p, q and r; `{}` stands for day and month in some order.
DATES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern + _CLOCK, re.IGNORECASE), pieces)
    for pattern, pieces in (
        (r"(?P<p>[0-9]{4})(?P<mark>[-/.])(?P<q>[0-9]{1,2})(?P=mark)(?P<r>[0-9]{1,2})", "%Y %m %d"),
        (r"(?P<p>[0-9]{1,2})(?P<mark>[-/.])(?P<q>[0-9]{1,2})(?P=mark)(?P<r>[0-9]{4})", "{} {} %Y"),
        (r"(?P<p>[0-9]{1,2})(?P<mark>[/.])(?P<q>[0-9]{1,2})(?P=mark)(?P<r>[0-9]{2})", "{} {} %y"),
        (rf"(?P<p>[0-9]{{1,2}})[-/. ]{{1,2}}(?P<q>{_MONTH})[-/, ]{{1,2}}(?P<r>[0-9]{{4}})", "%d %b %Y"),
        (rf"(?P<p>[0-9]{{1,2}})[-/. ]{{1,2}}(?P<q>{_MONTH})[-/, ]{{1,2}}(?P<r>[0-9]{{2}})", "%d %b %y"),
        (rf"(?P<p>{_MONTH})[-/ ](?P<q>[0-9]{{1,2}})(?:st|nd|rd|th)?[-/, ]{{1,2}}(?P<r>[0-9]{{4}})", "%b %d %Y"),
        (rf"(?P<p>[0-9]{{4}})[-/ ](?P<q>{_MONTH})[-/ ](?P<r>[0-9]{{1,2}})", "%Y %b %d"),
        (rf"(?P<p>{_MONTH})[-/, ]{{1,2}}(?P<r>[0-9]{{4}})", "%b %Y"),
        (r"(?P<p>[0-9]{4})-(?P<r>[0-9]{2})", "%Y %m"),
    )
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?", re.ASCII)

# Patterns of spans of time; `days` and `clock` as pandas writes them, the parts of the others are number and letter.
_SPAN_CLOCK = re.compile(
    r"(?P<days>[+-]?[0-9]+ days?,? )?(?P<clock>[+-]?[0-9]+:[0-5][0-9])(?P<seconds>:[0-5][0-9](?:\.[0-9]+)?)?",
    re.IGNORECASE,
)
_SPAN_ISO = re.compile(r"(-?)P(?=.)((?:[0-9]+W)?(?:[0-9]+D)?)(?:T(?=.)((?:[0-9.]+H)?(?:[0-9.]+M)?(?:[0-9.]+S)?))?")
_SPAN_PART = r"([0-9]+(?:\.[0-9]+)?) ?(d|h|m|s)(?:ays?|ours?|rs?|inutes?|ins?|econds?|ecs?)?"
_SPAN_PARTS = re.compile(rf"(-?)({_SPAN_PART}(?:,? |$)?)+", re.IGNORECASE)

# Bits of the two readings of numbers (decimal point, decimal comma) and of dates (day first, month first).
FIRST, SECOND, BOTH = 1, 2, 3
Topic = Literal["numbers", "dates"]
WRITTEN: dict[Topic, tuple[str, str]] = {
    "numbers": ("decimal_point", "decimal_comma"),
    "dates": ("day_first", "month_first"),
}


@dataclass
class Evidence:
    """What texts of one column say of the two readings of a topic.

    Args:
        allowed: Bits of the readings that fit all of them; 0 where there is none.
        marks: Of the texts that mean different values in the two readings: the point, comma or slash in them.
        hints: Of numbers: `money`, a whole number of 3 (`hundreds`), fewer (`small`) or more digits (`thousands`), and
            `zero`, a text of two readings that ends with 0.
    """

    allowed: int = BOTH
    marks: set[str] = field(default_factory=set)
    hints: set[str] = field(default_factory=set)

    def add(self, texts: Iterable["Number | DateText"]) -> "Evidence":
        for text in texts:
            self.allowed &= text.readings
            self.hints |= text.hints
            self.marks |= set(text.marks) if text.readings == BOTH else set()
        return self


@dataclass
class FileStyle:
    """How one file writes numbers and dates; a column is read in one way from its first row to its last.

    Args:
        delimiter: Of the file; None for a frame.
        blocks: All cells of the file once more, by column name.
        stated: What the user says of columns (`*`: of all others), one of `WRITTEN`; it decides before all else.
        fallback: What decides where nothing else does.
        has_key: Whether the user can state it: `data.formats` is about the training file.
        fell_back: Columns that `fallback` decided.
    """

    delimiter: str | None = None
    blocks: Callable[[], Iterable[Mapping[str, Texts | pd.Series]]] = tuple
    stated: Mapping[str, str] = field(default_factory=dict)
    fallback: Mapping[str, str] = field(default_factory=dict)
    has_key: bool = True
    decided: dict[tuple[Topic, str], int] = field(default_factory=dict)
    fell_back: set[str] = field(default_factory=set)

    def choose(self, topic: Topic, name: str, own: Evidence) -> int:
        """The bit of the reading of a column, given what some of its texts say; 0 where nothing decides."""
        known = self._said(topic, self.stated.get(name, self.stated.get("*")))
        known = known or self.decided.get((topic, name), 0)
        if not known and own.allowed in (FIRST, SECOND):
            known = own.allowed
        if not known and own.allowed and own.marks:
            known = self._from_the_file(topic, name)
            if not known and (known := self._said(topic, self.fallback.get(name))):
                self.fell_back.add(name)
            if not known:
                return 0
        if known:
            self.decided[topic, name] = known
        return known or FIRST

    def repair(self, format: Format, name: str) -> str:
        """What to do about a column of which nothing decides."""
        if format == "duration":
            return "write all of them as h:mm:ss"
        if self.has_key:
            keys = " or ".join(WRITTEN["dates" if format == "date" else "numbers"])
            return f"say which with data.formats, {{{name}: {keys}}}"
        return "write dates as 2024-12-31" if format == "date" else "write numbers without marks between thousands"

    def _said(self, topic: Topic, written: str | None) -> int:
        return 1 << WRITTEN[topic].index(written) if written in WRITTEN[topic] else 0

    def _from_the_file(self, topic: Topic, name: str) -> int:
        """The one reading that the whole column and the file speak for; 0 where there is none, or both."""
        column = self.evidence[topic].get(name, Evidence(0))
        if column.allowed in (FIRST, SECOND) or len(column.marks) != 1:
            return column.allowed if column.allowed in (FIRST, SECOND) else 0
        (mark,) = column.marks
        votes = {other.allowed for other in self.evidence[topic].values()} & {FIRST, SECOND}
        if topic == "dates":
            votes = {FIRST} if mark == "." else votes
        else:
            votes = (votes or self._habit(mark)) | self._lengths(mark, column.hints)
        return votes.pop() if len(votes) == 1 else 0

    def _habit(self, mark: str) -> set[int]:
        """A comma between cells leaves the point to decimals, as Python does; beside semicolons anything goes."""
        is_usual = self.delimiter in (",", None) or (mark == "." and self.delimiter != ";")
        return {FIRST} if is_usual else set()

    def _lengths(self, mark: str, hints: set[str]) -> set[int]:
        """Whole numbers below 1000 beside groups of three digits, and money, speak for thousands; whole numbers of more
        digits without a mark speak against them."""
        grouped, decimal = (FIRST, SECOND) if mark == "," else (SECOND, FIRST)
        if "thousands" in hints:
            return {decimal} if mark == "." else set()
        return {grouped} if hints & {"money", "hundreds"} or {"small", "zero"} <= hints else set()

    @cached_property
    def evidence(self) -> dict[Topic, dict[str, Evidence]]:
        """What the texts of every column of the file say, if nearly all of them are numbers or dates."""
        found: dict[Topic, dict[str, Evidence]] = {"numbers": {}, "dates": {}}
        for block in self.blocks():
            for name, cells in block.items():
                texts = [text for text in _some_texts(cells) if text.casefold() not in MISSING_WORDS]
                for topic, parse in PARSERS.items():
                    known = found[topic].get(name, Evidence())
                    sample = [parse(text) for text in texts[:N_SAMPLED]]
                    if known.allowed == BOTH and sample and sample.count(None) <= (1 - MOSTLY) * len(sample):
                        known.add(one for text in texts if (one := parse(text)) is not None)
                        found[topic][name] = known
        return found


def _some_texts(cells: Texts | pd.Series) -> list[str]:
    """The distinct texts among cells, stripped, without empty ones; none of a column of numbers."""
    if isinstance(cells, pd.Series):
        cells = [cell for cell in cells if isinstance(cell, str)] if cells.dtype.kind not in "biufcmM" else []
    return [text for text in dict.fromkeys(map(str.strip, cells)) if text]


class Number(NamedTuple):
    """A text that is a number: what it is in, its digits with their marks, and the bits of the readings that fit."""

    unit: str
    digits: str
    sign: int
    readings: int

    @property
    def marks(self) -> str:
        """The point or comma in it."""
        return "".join({*self.digits} & {".", ","})

    @property
    def hints(self) -> set[str]:
        """As `Evidence` has them."""
        if self.digits.isdigit():
            return {"thousands" if len(self.digits) > 3 else "hundreds" if len(self.digits) == 3 else "small"}
        if self.readings != BOTH or not self.marks:
            return set()
        return {"zero" if self.digits.endswith("0") else "", "money" if IS_CURRENCY.fullmatch(self.unit) else ""}

    def value(self, reading: int) -> float:
        """NaN where the reading does not fit."""
        if not self.readings & reading:
            return np.nan
        kept = re.sub(r"[^0-9eE.+-]" if reading == FIRST else r"[^0-9eE,+-]", "", self.digits).replace(",", ".")
        return self.sign * (np.inf if self.digits == "inf" else float(kept)) / (100 if self.unit == "%" else 1)


def number_of(text: str) -> Number | None:
    """The number that a stripped text is, with a currency, a unit, a percent sign or an accountant's minus; or None."""
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    if infinite := _INFINITE.fullmatch(text):
        return Number("", "inf", -1 if infinite[1] == "-" else 1, BOTH)
    if (found := _NUMBER.fullmatch(text)) is None:
        return None
    around = "".join(mark for mark in found.group("open", "sign", "inner", "behind", "last") if mark)
    first, second = (bool(pattern.fullmatch(found["digits"])) for pattern in _BY_READING)
    if not (around in ("", "+", "-", "\u2212", "()") and (first or second)):
        return None
    units = [(unit or "").strip().removesuffix(".") for unit in found.group("before", "after")]
    unit = " ".join(dict.fromkeys(_SAME_CURRENCY.get(unit, unit) for unit in units if unit))
    return Number(unit, found["digits"], 1 if around in ("", "+") else -1, first * FIRST + second * SECOND)


class Reading(NamedTuple):
    """Distinct texts in one format: (n_distinct,) float64, NaN where a text is not in it.

    Args:
        unit: Of numbers what they are in; of durations the shape of their clock, of dates the finest part that differs.
        written: Which of two readings was taken, one of `WRITTEN`, where texts say so.
        doubt: Position of a text of two readings of which nothing decides, and its two values.
    """

    format: Format
    parsed: np.ndarray
    unit: str = ""
    written: str = ""
    doubt: tuple[int, float, float] | None = None


class Cells(NamedTuple):
    """Stripped distinct texts of a column, none of them missing, and how often each is there.

    `unit` is what the training file has them in, None while it is read itself.
    """

    name: str
    texts: list[str]
    counts: np.ndarray
    style: FileStyle
    unit: str | None = None

    def share(self, values: np.ndarray) -> float:
        """Of all cells those that are read."""
        return float(self.counts[~np.isnan(values)].sum() / max(1, self.counts.sum()))


def read_numbers(cells: Cells) -> Reading:
    """Numbers in one unit. Beside a unit every number has it, but for 0; beside a currency some may be without."""
    numbers = [number_of(text) for text in cells.texts]
    units = Counter[str]()
    for number, count in zip(numbers, cells.counts.tolist(), strict=True):
        if number is not None and number.unit:
            units[number.unit] += count
    unit = cells.unit if cells.unit is not None else max(units, key=lambda text: units[text], default="")

    def is_in_unit(number: Number) -> bool:
        if number.unit == unit:
            return True
        if number.unit:
            # training had no unit: one currency is as good as none
            return unit == "" and len(units) == 1 and IS_CURRENCY.fullmatch(number.unit) is not None
        is_zero = not number.digits.strip("0.,")
        return is_zero or IS_CURRENCY.fullmatch(unit) is not None or (cells.unit is not None and unit != "%")

    fitting = [number if number is not None and is_in_unit(number) else None for number in numbers]
    both = np.array([[number.value(bit) if number else np.nan for number in fitting] for bit in (FIRST, SECOND)])
    format: Format = "percent" if unit == "%" else "number"
    evidence = Evidence().add(number for number in fitting if number is not None)
    return _decided(cells, "numbers", Reading(format, both, unit), evidence)


def _decided(cells: Cells, topic: Topic, both: Reading, evidence: Evidence) -> Reading:
    """From values (2, n_distinct) in both readings of a topic to those of the one that is right."""
    shares = [cells.share(values) for values in both.parsed]
    reading = FIRST if shares[0] >= shares[1] else SECOND
    if max(shares) > MOSTLY and (evidence.allowed or cells.unit is not None):
        reading = cells.style.choose(topic, cells.name, evidence)
    if reading == 0:
        doubtful = np.flatnonzero((both.parsed[0] != both.parsed[1]) & ~np.isnan(both.parsed).any(axis=0))
        at = int(doubtful[0])
        return both._replace(parsed=both.parsed[0], doubt=(at, *both.parsed[:, at].tolist()))
    is_known = evidence.allowed != BOTH or evidence.marks
    return both._replace(parsed=both.parsed[reading - 1], written=WRITTEN[topic][reading - 1] if is_known else "")


class DateText(NamedTuple):
    """A date in pieces between spaces, and pandas' format of them, with `{}` as in `DATES`."""

    pieces: str
    format: str
    marks: str
    readings: int
    hints: frozenset[str] = frozenset()


def date_of(text: str) -> DateText | None:
    """The pieces of a stripped text that looks like a date, which there need not be."""
    if _ISO.fullmatch(text):
        return DateText(text, "ISO8601", "", BOTH)
    matches = ((pattern.fullmatch(text), format) for pattern, format in DATES)
    found, format = next(((found, format) for found, format in matches if found is not None), (None, ""))
    if found is None:
        return None
    groups = found.groupdict()
    date = [part[:3] if part[0].isalpha() else part for key in "pqr" if (part := groups.get(key))]
    readings = (int(date[1]) <= 12) * FIRST + (int(date[0]) <= 12) * SECOND if "{}" in format else BOTH
    clock = f"{groups['clock'] or '00:00'}{'' if groups['seconds'] else ':00'}{'' if groups['fraction'] else '.0'}"
    zone = groups["zone"] or "Z"
    zone = "+0000" if zone.isalpha() else zone + "00" * (len(zone) == 3)
    format = f"{format} {'%I:%M:%S.%f %p' if groups['half'] else '%H:%M:%S.%f '}%z"
    is_same = len(date) < 2 or date[0].zfill(2) == date[1].zfill(2)
    mark = groups["mark"] if "{}" in format and not is_same else ""
    return DateText(f"{' '.join(date)} {clock} {groups['half'] or ''}{zone}", format, mark, readings)


def read_dates(cells: Cells) -> Reading:
    """Days since 1970-01-01 UTC (UTC where a text names no offset)."""
    dates = [date_of(text) for text in cells.texts]
    both = np.full((2, len(dates)), np.nan)
    rows_of: dict[str, list[int]] = {}
    for row, date in enumerate(dates):
        if date is not None:
            rows_of.setdefault(date.format, []).append(row)
    for format, rows in rows_of.items():
        pieces = [date.pieces for row in rows if (date := dates[row]) is not None]
        for reading, order in enumerate((("%d", "%m"), ("%m", "%d"))):
            stamps = pd.to_datetime(pieces, format=format.format(*order), utc=True, errors="coerce")
            both[reading, rows] = days_of(stamps)
    evidence = Evidence().add(date for date in dates if date is not None)
    return _decided(cells, "dates", Reading("date", both), evidence)


def days_of(stamps: pd.DatetimeIndex) -> np.ndarray:
    """Days since 1970-01-01 UTC, (n,) float64, NaN where there is no date; what names no time zone is UTC."""
    moments = stamps.tz_localize("UTC") if stamps.tz is None else stamps
    microseconds = moments.as_unit("us").asi8.astype(np.float64)
    return np.where(stamps.isna(), np.nan, microseconds / (1e6 * SECONDS_PER_DAY))


def resolution(days: np.ndarray) -> str:
    """The finest part in which dates (n,) in days since 1970, some NaN, differ: second, minute, ..., month or year."""
    distinct = pd.unique(days[~np.isnan(days)])
    seconds = np.round(distinct * SECONDS_PER_DAY).astype(np.int64)
    for unit, length in (("second", 60), ("minute", 3600), ("hour", SECONDS_PER_DAY)):
        if (seconds % length).any():
            return unit
    dates = seconds.astype("datetime64[s]")
    if len(distinct) < 2 or (dates != dates.astype("datetime64[M]")).any():
        return "day"
    return "month" if (dates != dates.astype("datetime64[Y]")).any() else "year"


def read_durations(cells: Cells) -> Reading:
    """Seconds. `3:00` is three hours, but three minutes where others are like `3:00:00`: a column has one shape."""
    spans, shapes = zip(*map(_span_of, cells.texts), strict=True)
    seconds = pd.to_timedelta(list(spans), errors="coerce").total_seconds().to_numpy(dtype=np.float64, copy=True)
    shape = cells.unit or max(shapes, key=len)
    is_short = np.array([own == "h:mm" for own in shapes], dtype=bool)
    if shape == "h:mm":
        seconds[[own == "h:mm:ss" for own in shapes]] = np.nan
    elif shape and is_short.any() and not np.isnan(seconds).any():
        at = int(np.flatnonzero(is_short)[0])
        return Reading("duration", seconds, shape, doubt=(at, float(seconds[at]), float(seconds[at]) / 60))
    return Reading("duration", seconds, shape)


def _span_of(text: str) -> tuple[str | None, str]:
    """A span of time as pandas reads it, None where it is none, and the shape of its clock, if it has no days."""
    if len(text) > MAX_NUMBER_LENGTH:
        return None, ""
    if clock := _SPAN_CLOCK.fullmatch(text):
        days, hours, seconds = clock.groups()
        return f"{days or ''}{hours}{seconds or ':00'}", "" if days else "h:mm:ss" if seconds else "h:mm"
    if iso := _SPAN_ISO.fullmatch(text):
        # pandas reads no more than two digits of each part
        return iso[1] + (iso[2] or "") + (iso[3] or "").lower(), ""
    if _SPAN_PARTS.fullmatch(text):
        parts = re.findall(_SPAN_PART, text, re.IGNORECASE)
        written = "".join(number + unit.lower().replace("d", "D") for number, unit in parts)
        return "-" * text.startswith("-") + written, ""
    return None, ""


PARSERS: dict[Topic, Callable[[str], Number | DateText | None]] = {"numbers": number_of, "dates": date_of}


class CellFormat(NamedTuple):
    """One way to write the cells of a numeric column.

    Args:
        read: From distinct texts to a `Reading`.
        expected: What a cell should be, in messages.
        told: What is said of a column written so: `{how}` exactly, and an example's `{text}` and `{value}`.
    """

    read: Callable[[Cells], Reading]
    expected: str
    told: str


# In the order in which they are tried on a column.
FORMATS: dict[Format, CellFormat] = {
    "number": CellFormat(read_numbers, "a number", "holds numbers written as text{how}; {text} is read as {value}"),
    "date": CellFormat(
        read_dates,
        "a date like 2024-12-31",
        "holds dates{how}; read as days since 1970-01-01 ({text} is {value})",
    ),
    "duration": CellFormat(
        read_durations,
        "a span of time in the shape of the training file ({unit})",
        "holds spans of time; {text} is read as {value}",
    ),
    "percent": CellFormat(read_numbers, "a percentage like 60%", "holds percentages; {text} is read as {value}"),
}
