"""`actlab report A B`: two runs on one page, with paired differences where both scored the same rows."""

from pathlib import Path
from typing import Any

from actlab.configuration import NOT_COMPARED, differences
from actlab.errors import InputError
from actlab.records import write_text
from actlab.report.answer import answer, decimals_for, fixed, rate, remarks
from actlab.report.finished import FinishedRun, read_finished
from actlab.report.page import pictures_of, render
from actlab.report.tables import Cell, Column, Table, TableRow, quantity, words
from actlab.verdict.paired_tests import corrected_interval
from actlab.verdict.summary import scores_of

LETTERS = ("A", "B")
HEADINGS = {
    "ranking": "Rankings",
    "learning_rates": "Learning rates",
    "differences": "Differences from the winner",
    "curves": "Training",
    "health": "Inside the networks",
    "predictions": "Predictions",
}
PAIRED = (
    "B minus A: mean paired difference over the same test folds, with its 95 % interval (corrected for shared training "
    "rows, not for the number of rows of this table). A negative one means that B scores lower, hence better."
)
UNPAIRED = (
    "The runs did not score the same rows in the same folds, so their scores cannot be paired: the difference of two "
    "means is shown without an interval and may be due to the folds alone."
)


def write_side_by_side(first: str | Path, second: str | Path) -> Path:
    """Make `report-with-B.html` in A's directory, and the figures of both; returns the page's path.

    Raises:
        InputError: one of them is not a finished run, is a `fit`, or they have different metrics.
    """
    runs = (read_finished(first), read_finished(second))
    for run in runs:
        if not run.is_ranked:
            raise InputError(
                f"{run.directory.path} is a fit of one activation: only compare and search runs have ranks"
            )
    a, b = runs
    if a.directory.path.resolve() == b.directory.path.resolve():
        raise InputError(f"{first} and {second} are the same run; name two")
    if a.metric != b.metric:
        raise InputError(f"the runs have different metrics, {a.metric} and {b.metric}: their scores do not compare")
    pictures = [pictures_of(run, f"{letter}-") for run, letter in zip(runs, LETTERS, strict=True)]
    names = _names(a, b)
    content: dict[str, Any] = {
        "title": f"Two runs: {names[0]} and {names[1]}",
        "sides": [
            {"letter": letter, "name": name, "answer": answer(run.summary), "remarks": remarks(run.summary)}
            for letter, name, run in zip(LETTERS, names, runs, strict=True)
        ],
        "table": score_table(a, b),
        "table_note": PAIRED if are_paired(a, b) else UNPAIRED,
        "changed": changed(a, b),
        "figures": [
            (heading, pictures[0].get(name), pictures[1].get(name))
            for name, heading in HEADINGS.items()
            if name in pictures[0] or name in pictures[1]
        ],
    }
    path = a.directory.path / f"report-with-{b.directory.path.resolve().name}.html"
    write_text(path, render("pair.html", content))
    return path


def _names(a: FinishedRun, b: FinishedRun) -> tuple[str, str]:
    first, second = (run.directory.path.resolve() for run in (a, b))
    return (first.name, second.name) if first.name != second.name else (str(first), str(second))


def are_paired(a: FinishedRun, b: FinishedRun) -> bool:
    """Whether fold i of both has the same rows: the same data split by the same protocol and seed."""
    keys = ("folds", "repeats", "seed")
    protocols = [run.summary.get("protocol") or {} for run in (a, b)]
    data = [(run.summary.get("data") or {}).get("sha256") for run in (a, b)]
    is_known = data[0] is not None and all(key in protocols[0] for key in keys)
    return is_known and data[0] == data[1] and all(protocols[0].get(key) == protocols[1].get(key) for key in keys)


def score_table(a: FinishedRun, b: FinishedRun) -> Table:
    """Rates and means of every activation of either run, in A's order, and the difference where both have it."""
    rows_of = [{str(row["activation"]): row for row in run.ranking} for run in (a, b)]
    scores = [scores_of(run.chosen) for run in (a, b)]
    decimals = decimals_for(a.ranking[0]["mean"] or 0.1)
    is_paired, ratio = are_paired(a, b), _test_train_ratio(a)
    rows = []
    for name in dict.fromkeys([*a.order, *b.order]):
        cells: list[Cell] = [words(name)]
        for own in rows_of:
            row = own.get(name, {})
            cells.append(quantity(row.get("learning_rate"), rate(row.get("learning_rate"))))
            cells.append(quantity(row.get("mean"), fixed(row.get("mean"), decimals)))
        if name in scores[0] and name in scores[1] and is_paired:
            interval = corrected_interval(scores[1][name] - scores[0][name], ratio)
            cells.append(quantity(interval.mean, f"{interval.mean:+,.{decimals}f}"))
            cells.append(
                quantity(interval.ci_low, f"{interval.ci_low:+,.{decimals}f} to {interval.ci_high:+,.{decimals}f}")
            )
        else:
            first, second = (own.get(name, {}).get("mean") for own in rows_of)
            gap = second - first if first is not None and second is not None else None
            cells += [quantity(gap, f"{gap or 0:+,.{decimals}f}"), Cell("–", "", "number")]
        rows.append(TableRow(tuple(cells)))
    titles = ("rate A", "mean A", "rate B", "mean B", "B minus A", "95 % interval")
    return Table("pair-table", (Column("activation", "words"), *map(Column, titles)), tuple(rows))


def _test_train_ratio(run: FinishedRun) -> float:
    folds = int((run.summary.get("protocol") or {}).get("folds", 5))
    return 1 / (folds - 1)


def changed(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Configuration, data and versions that differ, `key: value in A -> value in B`."""
    pairs = [({"command": a.command}, {"command": b.command}), (_compared(a), _compared(b))]
    parts = ("data", "protocol", "versions")
    pairs += [({part: a.summary.get(part) or {}}, {part: b.summary.get(part) or {}}) for part in parts]
    return list(dict.fromkeys(line for one, other in pairs for line in differences(one, other)))


def _compared(run: FinishedRun) -> dict[str, Any]:
    return {key: value for key, value in run.config.items() if key not in NOT_COMPARED}
