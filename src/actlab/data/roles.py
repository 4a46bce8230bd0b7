"""What a column is for, and what is suspicious about a table: identifiers, counters of rows, free text, columns that
give the target away, and rows that do not stand for themselves.

The rules look at training rows as they were read and change no value. What they find becomes a sentence that names the
key to set, since only the user knows what is known when a prediction is made.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from actlab.data.columns import ReadColumn
from actlab.data.csv_file import shown
from actlab.settings import DataSettings

# fewer rows show nothing about a column but what its name says
FEWEST_ROWS = 20
ID_NAME = re.compile(r"(?i:id|index|unnamed: 0(\.\d+)*|.*[_ ]id)|.*[a-z]I[dD]")
COUNTER_NAME = re.compile(
    r"(?i)unnamed: 0(\.\d+)*|index|idx|#|(s|sr|sl)?[. _]*n[or]\.?|num(ber)?|serial.*|obs(ervation)?|record|"
    r"rows?[. _]*(names?|id|n[or]\.?|num(ber)?|index)?"
)
# who or what is measured several times
PERSON_NAME = re.compile(
    r"(?i)(.*[_ .])?(person|people|patient|subj(ect)?|participant|respondent|individual|user|customer|client|player|"
    r"student|pupil|child|animal|family|household|site|device|machine|sensor)s?([_ .]*(id|n[or]|num(ber)?|code|name))?"
)
TIME_NAME = re.compile(r"(?i)(.*[_ .])?(date|time|timestamp|datetime|year|month|week|day|quarter|period)")
# Text with so many words or letters in half of its different cells is written for people.
TEXT_WORDS, TEXT_LETTERS = 6, 40
# A text that is another one in this share of the rows says nothing about the next row.
NEARLY_ALL = 0.95
# Copies of the target are looked for in so many rows, drawn once; pairs among so many columns.
SAMPLE_ROWS, PAIR_COLUMNS = 4000, 100
# A copy is off by at most this share of the distance of the 10 % and 90 % quantiles, in 95 % of the rows: two per cent
# of the standard deviation if errors are normal. A few rows may be wrong; a mostly zero target has no such distance.
COPY_ERROR, COPY_ROWS, SPREAD = 0.015, 0.95, (0.1, 0.9)
# Below these a column, or a pair, is not looked at closely; nor are more pairs.
LEAST_RANK_CORRELATION, LEAST_PAIR_R2, MOST_PAIRS = 0.9, 0.7, 40
# What a group key has at least: different values, and rows of each on average; without a telling name twice as many
# values, and this share of the variance of the target's ranks between them.
KEY_VALUES, KEY_ROWS, KEY_SHARE = 5, 2, 0.8
# A time has so many values at least, and a target that hangs together in it at most this von Neumann ratio.
TIME_VALUES, SMOOTH = 10, 0.5


class Role(NamedTuple):
    """What a column is for, why if there is a question, and the key that overrules this."""

    kind: Literal["feature", "id", "left out"]
    reason: str = ""
    key: str = ""


def declared(settings: DataSettings) -> set[str]:
    """Columns that the settings make features."""
    return {*settings.categorical, *settings.numeric, *settings.ordinal, *filter(None, [settings.time])}


def role_of(read: ReadColumn, has_id: bool, is_declared: bool) -> Role:
    """What a column with (n_rows,) entries is for.

    Left out are: what is missing or the same everywhere; 0, 1, ... or 1, 2, ... in the order of the rows (in fewer than
    20 rows only under a name like `rownames`); what could be the id where there is one; text that is another one in
    over 95 % of the rows where it stands; free text. The id is named like one, and a different text or whole number in
    every row; one called `index` must count the rows or be text. Columns that the settings declare are features.
    """
    (column, values, _), is_there = read, pd.notna(read.parsed)
    distinct, n_there, n_rows = pd.unique(values[is_there]), int(is_there.sum()), len(values)
    if n_there == 0:
        return Role("left out", "is missing in every row")
    if len(distinct) == 1 and n_there == n_rows:
        return Role("left out", "is the same in every row")
    if is_declared:
        return Role("feature")
    is_text, is_different = column.kind == "categorical", len(distinct) == n_rows
    is_whole = is_whole_number(read, distinct)
    counts = is_different and is_whole and values[0] in (0, 1) and bool(np.all(np.diff(values) == 1))
    is_key = is_different and (is_text or counts or (is_whole and column.name.lower() != "index"))
    key = "categorical" if is_text else "numeric"
    if ID_NAME.fullmatch(column.name) and is_key:
        return Role("left out", "could be the id, which is another one", key) if has_id else Role("id", "", key)
    if is_different and is_whole and column.name.lower() == "index":
        return Role("feature", "is another number in every row, but does not count them: a feature", "id")
    if counts and (n_rows >= FEWEST_ROWS or COUNTER_NAME.fullmatch(column.name)):
        return Role("left out", "counts the rows", key)
    if is_text and n_rows >= FEWEST_ROWS and len(distinct) > NEARLY_ALL * n_there and 2 * n_there > n_rows:
        return Role("left out", "is another text in nearly every row", key)
    if is_text and n_rows >= FEWEST_ROWS and 2 * len(distinct) > n_there and _is_free_text(distinct[:SAMPLE_ROWS]):
        return Role("left out", "holds free text", key)
    return Role("feature")


def is_whole_number(read: ReadColumn, distinct: np.ndarray) -> bool:
    """Whether a column is numbers without decimals, no dates or durations."""
    return read.column.kind == "numeric" and read.column.format == "number" and bool(np.all(distinct == distinct // 1))


def _is_free_text(texts: np.ndarray) -> bool:
    words, letters = np.median([(len(text.split()), len(text)) for text in texts], axis=0)
    return bool(words >= TEXT_WORDS or letters >= TEXT_LETTERS)


def copies_of_target(columns: Mapping[str, np.ndarray], target: np.ndarray) -> Iterator[tuple[tuple[str, ...], str]]:
    """Numeric columns, alone or two together, from which the target (n_rows,) follows, and in which way.

    Alone: the target, its logarithm or its rank is a straight line in that of the column. Two, neither of them a copy
    alone: the target is a weighted sum of both, or its logarithm one of theirs (a product, a ratio). Lines are fitted
    by least squares to the 90 % of the rows that fit best, three times over.
    """
    names, rows = np.array(list(columns), dtype=object), np.arange(len(target))
    if len(rows) < FEWEST_ROWS or not len(names):
        return
    if len(rows) > SAMPLE_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(len(rows), SAMPLE_ROWS, replace=False))
    x, y = np.column_stack([values[rows] for values in columns.values()]), target[rows]
    plain, logs = (x, y), (_log(x), _log(y))
    correlation = pd.DataFrame(x).rank().corrwith(pd.Series(y).rank()).abs().fillna(0.0).to_numpy()
    alone = dict[int, str]()
    for place in np.flatnonzero(correlation > LEAST_RANK_CORRELATION).tolist():
        own = pd.DataFrame({"x": x[:, place], "y": y}).dropna().rank().to_numpy()
        forms = {"a straight line": plain, "a power": logs}.items()
        ways = [way for way, (a, b) in forms if _follows(a[:, [place]], b)]
        if ways or _follows(own[:, :1], own[:, 1]):
            alone[place] = ways[0] if ways else "rising or falling"
    yield from (((names[place],), alone[place]) for place in sorted(alone))
    others = np.array([place for place in np.argsort(-correlation)[:PAIR_COLUMNS] if place not in alone], dtype=int)
    complete = np.isfinite(x[:, others]).all(axis=1)
    # correlations on different rows each say little of a plane
    known, seen = set[tuple[int, ...]](), complete if complete.sum() >= FEWEST_ROWS else np.ones(len(y), dtype=bool)
    for way, (a, b) in {"a sum, weighted": plain, "a product or ratio": logs}.items():
        for pair in _close_pairs(a[seen][:, others], b[seen]):
            places = tuple(sorted(others[list(pair)].tolist()))
            if places not in known and _follows(a[:, places], b):
                known.add(places)
                yield tuple(names[list(places)]), way


def _log(values: np.ndarray) -> np.ndarray:
    """Natural logarithms, of 1 + value in columns that hold a zero; NaN in columns with negative values."""
    lowest = np.where(np.isnan(values), np.inf, values).min(axis=0)
    return np.asarray(np.log(np.where(lowest < 0, np.nan, values + (lowest == 0))))


def _close_pairs(x: np.ndarray, y: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of columns of x (n, k) in which a plane for y (n,) has a large R squared, largest first."""
    correlation = pd.DataFrame(np.column_stack([x, y])).corr().fillna(0.0).to_numpy()
    r, between = correlation[:-1, -1], correlation[:-1, :-1]
    # one another's copies say no more than one of them
    free = np.where(between**2 > 1 - 1e-6, np.inf, 1 - between**2)
    r2 = np.minimum(np.triu((r[:, None] ** 2 + r**2 - 2 * np.outer(r, r) * between) / free, 1), 1.0)
    best = np.argsort(-r2, axis=None)[:MOST_PAIRS]
    return [(i, j) for i, j in np.column_stack(np.unravel_index(best, r2.shape)).tolist() if r2[i, j] > LEAST_PAIR_R2]


def _follows(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether y (n,) is a line or plane in the columns of x (n, k) but for `COPY_ERROR`."""
    complete = np.isfinite(x).all(axis=1) & np.isfinite(y)
    most = pd.Series(y[complete]).value_counts().max()
    # of few rows, all other values may follow by chance
    if complete.sum() < FEWEST_ROWS or most > complete.sum() - FEWEST_ROWS / 2:
        return False
    x, y, error = x[complete], y[complete], np.zeros(complete.sum())
    design = np.column_stack([np.ones(len(y)), (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-300)])
    low, high = np.quantile(y, SPREAD[0], method="higher"), np.quantile(y, SPREAD[1], method="lower")
    for _ in range(3):
        fits = error <= np.quantile(error, 0.9)
        error = np.abs(y - design @ np.linalg.lstsq(design[fits], y[fits])[0])
    return bool(low < high and np.quantile(error, COPY_ROWS, method="higher") <= COPY_ERROR * (high - low))


def group_keys(columns: Sequence[ReadColumn], rank: np.ndarray) -> Iterator[tuple[str, str]]:
    """Columns whose values may each stand for a person, a machine, ..., and what speaks for it.

    They are text or whole numbers, repeat, and are named like an id or a person, or the rows of a value have close
    targets by their `rank` (n_rows,). A number whose order tells of the target, too, is a quantity.
    """
    for read in columns:
        name, is_number = read.column.name, read.column.kind == "numeric"
        if is_number and np.nanmax(read.parsed[:SAMPLE_ROWS] % 1, initial=0.0) > 0:
            continue
        codes, distinct = pd.factorize(read.parsed, sort=is_number)
        known, k = codes >= 0, len(distinct)
        is_key = read.column.kind == "categorical" or is_whole_number(read, distinct)
        if not is_key or k < KEY_VALUES or k * KEY_ROWS > known.sum():
            continue
        repeats = f"{k} values in {len(codes)} rows"
        if ID_NAME.fullmatch(name) or PERSON_NAME.fullmatch(name):
            yield name, repeats
        elif k >= 2 * KEY_VALUES:
            own, y = codes[known], rank[known]
            means = np.bincount(own, y) / np.bincount(own)
            within = np.sum((y - means[own]) ** 2) / (len(y) - k)
            if within < (1 - KEY_SHARE) * y.var() and not (is_number and _von_neumann(means) < SMOOTH):
                yield name, f"{repeats}, with close targets where it is the same"


def _von_neumann(values: np.ndarray) -> float:
    """Mean squared step over twice the variance (von Neumann 1941): 1 where the order means nothing, 0 if smooth."""
    return float(np.mean(np.diff(values) ** 2) / max(2 * np.var(values), 1e-300))


def times(columns: Sequence[ReadColumn], rank: np.ndarray) -> Iterator[tuple[str, str]]:
    """Columns by whose time the rows hang together, and how: they rise or fall from row to row, or (dates only) the
    target's `rank` (n_rows,) moves in small steps in their order."""
    for read in columns:
        name, values, is_date = read.column.name, read.parsed, read.column.format == "date"
        if read.column.kind != "numeric" or not (is_date or TIME_NAME.fullmatch(name)):
            continue
        known = np.isfinite(values)
        steps = np.diff(values[known])
        if known.sum() < FEWEST_ROWS or len(np.unique(values[known])) < TIME_VALUES:
            continue
        if np.all(steps >= 0) or np.all(steps <= 0):
            yield name, "orders the rows"
        elif is_date and _von_neumann(rank[known][np.argsort(values[known], kind="stable")]) < SMOOTH:
            yield name, "holds dates, and close ones have close targets"


def option(key: str, *names: str) -> str:
    """`--data.drop '["a", "b"]'` or `--data.id a`, as a shell and YAML read it whatever the names are."""
    value = names[0] if key in ("id", "time") else json.dumps(names, ensure_ascii=False)
    return f"--data.{key} {shlex.quote(value)}"


def suspicions(columns: Sequence[ReadColumn], target: np.ndarray, path: str, settings: DataSettings) -> Iterator[str]:
    """Sentences about what flatters scores in the features of a table and its target, most harmful first: copies of the
    target; and columns by which rows hang together, where the settings do not say how they are split."""
    numbers = {read.column.name: read.parsed for read in columns if read.column.kind == "numeric"}
    for names, way in copies_of_target(numbers, target):
        which = f"column{'s' if len(names) > 1 else ''} {' and '.join(map(shown, names))}"
        yield (
            f"{path}: the target {shown(str(settings.target))} follows almost exactly from {which} ({way}); leave out "
            f"what is not known when predicting: {option('drop', *names)}"
        )
    if settings.fold is not None or settings.time is not None:
        return
    rank = pd.Series(target).rank().to_numpy()
    free = [read for read in columns if read.column.name not in declared(settings)]
    for name, sign in group_keys(free, rank) if not settings.groups else ():
        yield (
            f"{path}, column {shown(name)} looks like the key of groups of rows ({sign}); if new rows will be of "
            f"others, scores are too good: keep rows of one together with {option('groups', name)}"
        )
    for name, sign in times(columns, rank):
        yield (
            f"{path}, column {shown(name)} {sign}; if later rows are to be predicted from earlier ones, say so with "
            f"{option('time', name)}"
        )
