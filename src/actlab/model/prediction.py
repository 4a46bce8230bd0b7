"""Predictions of a checkpoint: for a CSV, in chunks of rows so that memory does not grow with it, or for a frame."""

import csv
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actlab.data.csv_file import count_lines, listed, shown
from actlab.data.formats import PLAIN
from actlab.data.table import Table, frame_rows, read_rows
from actlab.model.ensemble import Ensemble, load
from actlab.model.intervals import check_level, prediction_interval
from actlab.run_files import check_output, write_atomically

# A chunk of 80 columns of text takes some 100 MB.
CHUNK_ROWS = 1 << 14
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
) -> Prediction:
    """Predict every row of a CSV and write id (where there is one), prediction and interval, in the order of the rows.

    The target is not needed; absent feature columns count as missing, additional ones are ignored, and categories
    never seen in training have no effect of their own: `warn` is told of each once. The file is written whole or not at
    all, over another one that is not empty only if `overwrite` says so.

    Args:
        interval: Coverage of `lower` and `upper`; without them when None.
        chunk_rows: Rows in memory at a time.
        progress: Told the number of rows done and about how many there are, after each chunk.
        allow_code: As in `ensemble.load`.

    Raises:
        InputError: a path, the model, the interval or a row cannot be used; nothing is written then.
    """
    output = check_output(Path(output_path), [Path(input_path), Path(ckpt_path)], overwrite)
    ensemble, warnings = _load(ckpt_path, interval, allow_code), Warnings(warn)
    predicted = _predict(ensemble, read_rows(str(input_path), ensemble.schema, chunk_rows), interval, warnings)
    n_rows, n_about = 0, count_lines(str(input_path)) - 1 if progress is not None else 0

    def write(temporary: Path) -> None:
        nonlocal n_rows
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for columns in predicted:
                if n_rows == 0:
                    writer.writerow(map(harmless, columns))
                texts = [own.map(harmless) if isinstance(own, pd.Series) else own.tolist() for own in columns.values()]
                writer.writerows(zip(*texts, strict=True))
                n_rows += len(columns["prediction"])
                if progress is not None:
                    progress(n_rows, max(n_rows, n_about))

    write_atomically(output, write)
    return Prediction(n_rows, tuple(warnings.told))


def predict_rows(
    ckpt_path: str | Path,
    rows: pd.DataFrame | str | Path,
    interval: float | None = None,
    warn: Callable[[str], None] = print_warning,
    allow_code: bool = False,
) -> pd.DataFrame:
    """As `predict_file`, for the rows of a CSV or of a frame, as a frame: ids are texts, as they were."""
    ensemble = _load(ckpt_path, interval, allow_code)
    if isinstance(rows, pd.DataFrame):
        tables = iter([frame_rows(rows, ensemble.schema)])
    else:
        tables = read_rows(str(rows), ensemble.schema, CHUNK_ROWS)
    found = [pd.DataFrame(columns) for columns in _predict(ensemble, tables, interval, Warnings(warn))]
    return pd.concat(found, ignore_index=True)


def _load(ckpt_path: str | Path, interval: float | None, allow_code: bool) -> Ensemble:
    ensemble = load(ckpt_path, allow_code)
    if interval is not None:
        check_level(ensemble.residuals, interval)
    return ensemble


Columns = dict[str, pd.Series | NDArray[np.float64]]


def _predict(
    ensemble: Ensemble, tables: Iterator[Table], interval: float | None, warnings: Warnings
) -> Iterator[Columns]:
    """For each table its id (where there is one), predictions, and lower and upper ends where they are asked for."""
    warned: set[str] = set()
    for table in tables:
        for text in [*table.warnings, *_unseen(ensemble, table.features, warned)]:
            warnings.add(text)
        by_fold = ensemble.predict_by_fold(table.features)
        columns: Columns = {"prediction": ensemble.combine(by_fold)}
        if interval is not None:
            columns["lower"], columns["upper"] = prediction_interval(ensemble, by_fold, interval)
        if not np.isfinite(columns["prediction"]).all():
            warnings.add("the model gives no finite prediction for some rows: they are written as nan or inf")
        name = table.schema.id
        if name is not None and table.ids is None:
            warnings.add(f"the input lacks the id column {shown(name)}: predictions are in the order of its rows")
        if name in columns and table.ids is not None:
            warnings.add(f"the id column {shown(name)} is called 'id' in the output")
            name = "id"
        yield columns if name is None or table.ids is None else {name: table.ids, **columns}


def harmless(text: str) -> str:
    """The text, after an apostrophe where a spreadsheet would take it for a formula; a number stays as it is.

    What starts a formula follows the list of OWASP ("CSV Injection"): =, +, -, @, their full-width forms, tab, and
    line ends.
    """
    return f"'{text}" if FORMULA.match(text) and not PLAIN.fullmatch(text) else text


def _unseen(ensemble: Ensemble, features: pd.DataFrame, warned: set[str]) -> Iterator[str]:
    """A sentence for each column with categories that no member saw in training; columns in `warned` had theirs."""
    distinct = {
        column.name: pd.unique(features[column.name].to_numpy())
        for column in ensemble.schema.columns
        if column.kind != "numeric" and column.name not in warned
    }
    first, *others = [preprocessor.unseen(distinct) for preprocessor in ensemble.preprocessors]
    for name, texts in first.items():
        if unknown := [text for text in texts if all(text in other.get(name, ()) for other in others)]:
            warned.add(name)
            yield (
                f"column {shown(name)} has values that the model never saw in training, taken as none of its "
                f"categories: {listed(unknown)}"
            )
