"""Predictions of a checkpoint: for a CSV, in chunks of rows so that memory does not grow with it, or for a frame.

Cells that training never had are counted and said, and their rows have no interval: errors out of fold say nothing of
them. Such are, by column, a missing cell where none was missing, a number far outside the training range, one below
zero where a logarithm takes it for zero, and a category that no network knows, unless some of the folds had to do
without categories that they were tested on, so that the errors are about such rows, too.
"""

import csv
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actlab.data.columns import Column
from actlab.data.csv_file import listed, shown
from actlab.data.formats import PLAIN
from actlab.data.preprocessing import DateRule, NumberRule, Rule, TargetRule
from actlab.data.sources import open_source
from actlab.data.table import Table, read_rows
from actlab.errors import InputError, PredictionWarning
from actlab.model.ensemble import Ensemble, load
from actlab.model.intervals import check_level, prediction_interval, smearing
from actlab.run_files import check_output, write_atomically

# A chunk of 80 columns of text takes some 100 MB.
CHUNK_ROWS = 1 << 14
# A number is far outside the training range if it lies further beyond than this many widths of the range, measured as
# networks see the column: plainly, or by its logarithm.
FAR, FAR_BY_LOGARITHM = 1.0, 1 / 4
# Categories never seen that are kept to name a few.
N_KEPT = 10_000
BadCells = Literal["refuse", "missing"]
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


def print_warning(text: str) -> None:
    """One line on stderr."""
    print(f"warning: {text}", file=sys.stderr)


@dataclass
class Warnings:
    """Each warning once: handed to `tell` when it first comes up, and kept."""

    tell: Callable[[str], None]
    told: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        if text not in self.told:
            self.told.append(text)
            self.tell(text)


@dataclass(frozen=True)
class Prediction:
    """What `predict_file` did: the number of rows it wrote, and what it warned of."""

    n_rows: int
    warnings: tuple[str, ...]


def predict_file(
    ckpt_path: str | Path,
    input_path: str | Path,
    output_path: str | Path,
    interval: float | None = None,
    chunk_rows: int = CHUNK_ROWS,
    warn: Callable[[str], None] = print_warning,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    allow_code: bool = False,
    mean: bool = False,
    bad_cells: BadCells = "refuse",
) -> Prediction:
    """Predict every row of a CSV and write id (where there is one), prediction and interval, in the order of the rows.

    The target is not needed; absent feature columns count as missing, additional ones are ignored, and categories
    never seen in training have no effect of their own: `warn` is told of each once, and in the end of cells that
    training never had; `lower` and `upper` of their rows are empty. The file is written whole or not at all, over
    another one that is not empty only if `overwrite` says so.

    Args:
        interval: Coverage of `lower` and `upper`; without them when None.
        chunk_rows: Rows in memory at a time.
        progress: Told the number of rows done and about how many there are, after each chunk.
        allow_code: As in `ensemble.load`.
        mean: Under a logarithm, predict the mean of the target rather than its median.
        bad_cells: Whether a cell of a numeric column that is no number is refused, or taken as missing.

    Raises:
        InputError: a path, the model, the interval or a row cannot be used; nothing is written then.
    """
    output = check_output(Path(output_path), [Path(input_path), Path(ckpt_path)], overwrite)
    ensemble, told = _load(ckpt_path, interval, allow_code), Warnings(warn)
    source, n_rows = open_source(input_path), 0
    tables = read_rows(source, ensemble.schema, chunk_rows, takes_bad=bad_cells == "missing")
    predicted = _predict(ensemble, tables, interval, mean, told)

    def write(temporary: Path) -> None:
        nonlocal n_rows
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for columns in predicted:
                if n_rows == 0:
                    writer.writerow(map(harmless, columns))
                writer.writerows(zip(*(_texts(name, own) for name, own in columns.items()), strict=True))
                n_rows += len(columns["prediction"])
                if progress is not None:
                    progress(n_rows, max(n_rows, source.n_rows))

    write_atomically(output, write)
    return Prediction(n_rows, tuple(told.told))


def predict_rows(
    ckpt_path: str | Path,
    rows: Any,
    interval: float | None = None,
    warn: Callable[[str], None] | None = None,
    allow_code: bool = False,
    mean: bool = False,
    bad_cells: BadCells = "refuse",
) -> pd.DataFrame:
    """As `predict_file`, for the rows of a file or of a frame, as a frame: ids are texts, as they were.

    Without `warn`, warnings are Python's, of the class `PredictionWarning`.
    """
    if bad_cells not in get_args(BadCells):
        raise InputError(f"bad_cells must be refuse or missing, got bad_cells={bad_cells!r}")
    ensemble = _load(ckpt_path, interval, allow_code)
    tables = read_rows(rows, ensemble.schema, CHUNK_ROWS, takes_bad=bad_cells == "missing")
    told = Warnings(warn or (lambda text: None))
    found = [pd.DataFrame(columns) for columns in _predict(ensemble, tables, interval, mean, told)]
    for text in told.told if warn is None else []:
        # where `Run.predict` is called
        warnings.warn(text, PredictionWarning, stacklevel=3)
    return pd.concat(found, ignore_index=True)


def _load(ckpt_path: str | Path, interval: float | None, allow_code: bool) -> Ensemble:
    ensemble = load(ckpt_path, allow_code)
    if interval is not None:
        check_level(ensemble.residuals, interval)
    return ensemble


Columns = dict[str, pd.Series | NDArray[np.float64]]


def _predict(
    ensemble: Ensemble, tables: Iterator[Table], interval: float | None, mean: bool, told: Warnings
) -> Iterator[Columns]:
    """For each table its id (where there is one), predictions, and lower and upper ends where they are asked for: NaN
    in rows with cells that training never had."""
    unseen, shift = Unseen(ensemble), smearing(ensemble) if mean else 0.0
    for table in tables:
        for text in table.warnings:
            told.add(text)
        is_unseen = unseen.look(table)
        by_fold = ensemble.predict_by_fold(table.features)
        columns: Columns = {"prediction": ensemble.combine(by_fold, shift)}
        if interval is not None:
            ends = prediction_interval(ensemble, by_fold, interval)
            columns["lower"], columns["upper"] = (np.where(is_unseen, np.nan, end) for end in ends)
        if not np.isfinite(columns["prediction"]).all():
            told.add("the model gives no finite prediction for some rows: they are written as nan or inf")
        name = table.schema.id
        if name is not None and table.ids is None:
            told.add(f"the input lacks the id column {shown(name)}: predictions are in the order of its rows")
        if name in columns and table.ids is not None:
            told.add(f"the id column {shown(name)} is called 'id' in the output")
            name = "id"
        yield columns if name is None or table.ids is None else {name: table.ids, **columns}
    for text in unseen.sentences(interval is not None):
        told.add(text)


def _texts(name: str, values: pd.Series | NDArray[np.float64]) -> Iterable[object]:
    """What is written of a column of the output: no end of an interval where there is none."""
    if isinstance(values, pd.Series):
        return values.map(harmless)
    return ["" if name != "prediction" and value != value else value for value in values.tolist()]


def harmless(text: str) -> str:
    """The text, after an apostrophe where a spreadsheet would take it for a formula; a number stays as it is.

    What starts a formula follows the list of OWASP ("CSV Injection"): =, +, -, @, their full-width forms, tab, and
    line ends.
    """
    return f"'{text}" if FORMULA.match(text) and not PLAIN.fullmatch(text) else text


class Unseen:
    """Counts, over the tables of a stream, the cells that training never had."""

    def __init__(self, ensemble: Ensemble) -> None:
        rules = zip(*(preprocessor.rules for preprocessor in ensemble.preprocessors), strict=True)
        self._columns = list(zip(ensemble.schema.columns, rules, strict=True))
        self._time = (ensemble.config.get("data") or {}).get("time")
        # column and sentence to the number of cells, the first one, and the categories among them
        self._found: dict[tuple[str, str], tuple[int, str, dict[str, None]]] = {}
        self._n_rows = 0

    def look(self, table: Table) -> NDArray[np.bool_]:
        """(N,) whether errors out of fold say nothing of a row, because of one of its cells."""
        is_unseen = np.zeros(table.n_rows, dtype=bool)
        for column, rules in self._columns:
            entries = table.features[column.name].to_numpy()
            # then some networks were tested on categories that they did not know either
            is_rare = len({rule.known for rule in rules}) > 1
            if bad := table.bad.get(column.name):
                is_bad = np.isin(np.arange(table.n_rows), list(bad))
                self._count(column, BAD, bad, is_bad, table.lines)
            for sentence, is_meant in _ways(column, rules, entries):
                # later rows are what the model is for
                if is_meant.any() and (sentence, column.name) != (OUTSIDE, self._time):
                    self._count(column, sentence, entries, is_meant, table.lines)
                    is_unseen |= is_meant & (sentence is not NEVER_SEEN or not is_rare)
        self._n_rows += int(is_unseen.sum())
        return is_unseen

    def _count(self, column: Column, sentence: str, entries: Any, is_meant: Any, lines: Any) -> None:
        place = int(np.flatnonzero(is_meant)[0])
        cell = ""
        if sentence in (OUTSIDE, BAD):
            cell = f", {entries[place] if sentence is BAD else _number(column, entries[place])}"
        n, first, texts = self._found.get((column.name, sentence), (0, f"first: line {lines[place]}{cell}", {}))
        if sentence is NEVER_SEEN and len(texts) < N_KEPT:
            texts.update(dict.fromkeys(sorted(set(entries[is_meant]))))
        self._found[column.name, sentence] = n + int(is_meant.sum()), first, texts

    def sentences(self, has_interval: bool = False) -> Iterator[str]:
        """One for each column and way, and one about intervals where they were asked for."""
        columns = {column.name: column for column, _ in self._columns}
        for (name, sentence), (n, first, texts) in self._found.items():
            limits = f"{_number(columns[name], columns[name].low)} to {_number(columns[name], columns[name].high)}"
            said = sentence.format(rows=_rows(n), first=first, limits=limits, texts=listed(list(texts)))
            yield f"column {shown(name)}{said}"
        if has_interval and self._n_rows:
            yield (
                f"lower and upper are empty in {_rows(self._n_rows)} with cells that training never had: its errors "
                "say nothing of them"
            )


# Ways in which a cell is unlike those of training, as sentences about a column go on.
BAD = ": no number in {rows} ({first}), taken as missing"
MISSING = ": missing in {rows} ({first}), never in training"
OUTSIDE = ": outside {limits} in {rows} ({first}), of which networks know nothing"
NEVER_SEEN = (
    " has values that the model never saw in training in {rows} ({first}), taken as none of its categories: {texts}"
)


def _ways(column: Column, rules: Sequence[Rule], entries: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each way in which cells may be unlike those of training, and the (N,) cells that are."""
    if not (column.had_missing or any(map(_knows_missing, rules))):
        yield MISSING, np.asarray(pd.isna(entries))
    if column.kind == "numeric":
        if column.low is not None and column.high is not None:
            numbers = [rule for rule in rules if isinstance(rule, NumberRule)]
            yield OUTSIDE, _is_far(entries, [column.low, column.high], max(numbers, key=lambda rule: rule.is_log))
    elif all(rule.known is not None for rule in rules):
        known = {text for rule in rules for text in rule.known or ()}
        unknown = set(pd.unique(entries)) - known - {None}
        yield NEVER_SEEN, pd.Series(entries).isin(unknown).to_numpy()


def _knows_missing(rule: Rule) -> bool:
    """Whether the training rows of a rule are known to have had missing cells."""
    if isinstance(rule, TargetRule):
        return False
    return rule.has_indicator if isinstance(rule, NumberRule) else rule.has_missing


def _is_far(x: NDArray[np.float64], limits: list[float], rule: NumberRule) -> NDArray[np.bool_]:
    """(N,) whether numbers lie far outside the training range; below zero any does where a logarithm is taken."""
    is_far = (x < limits[0]) | (x > limits[1])
    if is_far.any():
        seen, margin = np.array([*limits, *x[is_far]]), FAR
        if rule.is_log and limits[0] >= 0 and not isinstance(rule, DateRule):
            logarithm = replace(rule, centre=0.0, factor=1.0, low=-np.inf, high=np.inf, is_smooth=False)
            out, margin = np.empty((len(seen), len(rule.feature_names))), FAR_BY_LOGARITHM
            logarithm.write(seen, out)
            seen = np.where(seen < 0, -np.inf, out[:, 0])
        width = seen[1] - seen[0]
        is_far[is_far] = (seen[2:] < seen[0] - margin * width) | (seen[2:] > seen[1] + margin * width)
    return is_far


def _number(column: Column, value: float | None) -> str:
    if value is None:
        return ""
    return str(np.datetime64(int(value // 1), "D")) if column.format == "date" else f"{value:.6g}"


def _rows(n: int) -> str:
    return f"{n} row{'s' if n > 1 else ''}"
