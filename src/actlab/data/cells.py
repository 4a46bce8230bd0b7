"""From the text of one column's cells to numbers, days or categories.

All rules work on the distinct texts of a column, so their cost per row is a hash look-up.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pandas as pd

Format = Literal["number", "decimal_comma", "iso_date"]

PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INFINITE = re.compile(r"([+-]?)inf(inity)?", re.IGNORECASE)
# 1,234,567.8 or 1'234 or 1 234 (also with the no-break spaces that spreadsheets write)
GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,'\u2019 \u00a0\u202f])\d{3})(?:\1\d{3})*(\.\d*)?", re.ASCII)
# 1234,5 or 1.234,5 or 1.234.567
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(?:([.'\u2019 \u00a0\u202f])\d{3})(?:\2\d{3})*)(,\d+)?", re.ASCII)
CURRENCY = re.compile(r"([+-]?)\s*(?:[$€£¥]|USD|EUR|GBP)?\s*(.*?)\s*(?:[$€£¥]|USD|EUR|GBP)?")
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
OTHER_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}( \d\d:\d\d(:\d\d)?)?", re.ASCII)
# Longer texts are no numbers; the patterns need not be tried on them.
MAX_NUMBER_LENGTH = 400
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Numbers:
    """One column read as numbers.

    Args:
        parsed: (n_rows,) float64, NaN where the cell is missing or unreadable.
        unreadable: Positions of the cells that are neither missing nor a number.
        formatted: The first text that is a number only without its currency sign or thousands separators.
    """

    parsed: np.ndarray
    unreadable: np.ndarray
    formatted: str | None = None


def read_numbers(cells: Sequence[str], missing: Collection[str], style: Format = "number") -> Numbers:
    """Read (n_rows,) cell texts as float64; days since 1970-01-01 UTC for `iso_date`."""
    if style == "number":
        values = _plain_numbers(cells, missing)
        if values is not None:
            return Numbers(values, np.empty(0, dtype=np.intp))
    codes, texts = _distinct(cells)
    is_missing = np.array([text in missing for text in texts], dtype=bool)
    readings = [_days(text) if style == "iso_date" else _formatted_number(text, style) for text in texts]
    values = np.array([np.nan if value is None else value for value in readings], dtype=np.float64)
    is_bad = np.array([value is None for value in readings], dtype=bool) & ~is_missing
    values[is_missing] = np.nan
    formatted = [
        text
        for text, value, gone in zip(texts, readings, is_missing, strict=True)
        if style == "number" and value is not None and not gone and not _is_plain(text)
    ]
    return Numbers(values[codes], np.flatnonzero(is_bad[codes]), formatted[0] if formatted else None)


def read_categories(cells: Sequence[str], missing: Collection[str]) -> np.ndarray:
    """Read (n_rows,) cell texts as an object array of category names, None where missing."""
    codes, texts = _distinct(cells)
    names = np.empty(len(texts), dtype=object)
    names[:] = [None if text in missing else category_name(text) for text in texts]
    return np.asarray(names[codes], dtype=object)


def category_name(text: str) -> str:
    """The text itself; `3.0` becomes `3`, since a missing cell elsewhere turns integer codes into floats on export."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text.strip())


def looks_like_dates(categories: Sequence[str]) -> bool:
    """True when every name looks like a date in some order of day, month and year."""
    return len(categories) > 0 and all(OTHER_DATE.fullmatch(name) for name in categories)


def _distinct(cells: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    as_objects = np.empty(len(cells), dtype=object)
    as_objects[:] = list(cells)
    codes, texts = pd.factorize(as_objects)
    return codes, [text.strip() for text in texts]


def _is_plain(text: str) -> bool:
    return PLAIN.fullmatch(text) is not None or INFINITE.fullmatch(text) is not None


def _plain_numbers(cells: Sequence[str], missing: Collection[str]) -> np.ndarray | None:
    """The fast way: float() of every cell; None as soon as one cell needs a closer look."""
    joined = "".join(cells)
    if "_" in joined or not joined.isascii():  # float() takes 1_000 and digits of any script
        return None
    stand_in = dict.fromkeys(missing, "nan")
    try:
        values = np.array([float(stand_in.get(cell, cell)) for cell in cells], dtype=np.float64)
    except ValueError:
        return None
    is_missing = all(cells[i] in missing for i in np.flatnonzero(np.isnan(values)).tolist())
    return values if is_missing else None


def _formatted_number(text: str, style: Format) -> float | None:
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    if infinite := INFINITE.fullmatch(text):
        return float(f"{infinite[1]}inf")
    without_sign = CURRENCY.fullmatch(text)
    if without_sign is None:
        return None
    sign, body = without_sign.groups()
    if sign and body[:1] in ("+", "-"):
        return None
    if style == "decimal_comma":
        match = DECIMAL_COMMA.fullmatch(body)
        return None if match is None else float(sign + re.sub(r"[^\d,+-]", "", body).replace(",", "."))
    if PLAIN.fullmatch(body):
        return float(sign + body)
    return float(sign + re.sub(r"[^\d.+-]", "", body)) if GROUPED.fullmatch(body) else None


def _days(text: str) -> float | None:
    """Days since 1970-01-01 UTC of an ISO 8601 date (UTC where it names no offset), None for anything else."""
    if ISO_DATE.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / SECONDS_PER_DAY
