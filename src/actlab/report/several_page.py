"""The page of a comparison on several data sets, made from its files alone, without torch."""

import shlex
from pathlib import Path
from typing import Any

from actlab.records import write_atomically, write_text
from actlab.report.drawing import style
from actlab.report.figures import DPI, svg
from actlab.report.inline_svg import inline
from actlab.report.page import render
from actlab.report.rank_figure import alternative, critical_difference
from actlab.report.several import (
    FinishedSeveral,
    answer,
    has_star,
    is_significant,
    mean_rank,
    metric_of,
    read_several,
    remarks,
    score_and_rank,
)
from actlab.report.tables import Column, Table, TableRow, quantity, words

FIGURE = "critical_difference"
CAPTION = (
    "Mean rank of each activation over the data sets, best on the left. Bars join activations that are not told apart: "
    "their mean ranks lie no further apart than the critical difference (Nemenyi's test at 5 % over all pairs; Demšar "
    "2006)."
)
ONE_GROUP = " The Friedman test shows no difference between any of them, so all are joined."
RANKS_NOTE = (
    "Mean test score on each data set, lower is better, and in brackets its rank there; equals share their mean rank, "
    "and an activation without a usable score ranks last. Scores of different data sets do not compare; ranks do."
)
STAR_NOTE = " * shown to be worse than the best one by that data set's own corrected test."
METHOD = (
    "Each data set was compared on by itself: nested, paired, with equal budgets; its own report says how. Across data "
    "sets only ranks count, so that no data set outweighs another by its scale.",
    "The Friedman test asks whether any activation ranks better than by chance; its p-value is that of random orders "
    "within data sets, which holds for any number of them. Only where it is at most 5 % are pairs looked at, with "
    "Nemenyi's critical difference, which answers for all pairs together.",
    "The data sets are those that were listed. That an activation wins on them says something of others only as far as "
    "they are a fair sample of those others.",
)


def write_several(path: str | Path) -> Path:
    """Make `report.html` and `figures/` of a comparison on several data sets again; returns the page's path.

    Raises:
        InputError: no such finished comparison there, or it cannot be written.
    """
    several = read_several(path)
    write_text(several.directory.report, page(several, write_figure(several)))
    return several.directory.report


def write_figure(several: FinishedSeveral) -> str:
    """The critical-difference diagram as PNG and SVG; returns the SVG's text."""
    with style():
        figure = critical_difference(several.summary)
    text = svg(figure)
    file = several.directory.figures / f"{FIGURE}.svg"
    write_text(file, text)
    with style():
        write_atomically(file.with_suffix(".png"), lambda to: figure.savefig(to, format="png", dpi=DPI))
    return text


def page(several: FinishedSeveral, svg_text: str) -> str:
    """The HTML of the page."""
    summary = several.summary
    content: dict[str, Any] = {
        "title": f"Activation functions compared on {len(summary['data_sets'])} data sets",
        "answer": answer(summary),
        "remarks": remarks(summary),
        "figure": {
            "svg": inline(svg_text, FIGURE, alternative(summary)),
            "caption": CAPTION + ("" if is_significant(summary) else ONE_GROUP),
            "is_narrow": False,
        },
        "ranks": ranks_table(summary),
        "ranks_note": RANKS_NOTE + (STAR_NOTE if has_star(summary) else ""),
        "data_sets": [_data_set(several, entry) for entry in summary["data_sets"]],
        "method": METHOD,
        "command": command(several),
        "versions": [(name, str(version)) for name, version in (summary.get("versions") or {}).items()],
    }
    return render("several.html", content)


def ranks_table(summary: dict[str, Any]) -> Table:
    """Every activation with its mean rank, and its score and rank on each data set."""
    names = [entry["name"] for entry in summary["data_sets"]]
    columns = (Column("activation", "words"), Column("mean rank"), *map(Column, names))
    best = min(summary["mean_ranks"].values())
    rows = []
    for activation in summary["activations"]:
        value = summary["mean_ranks"][activation]
        cells = [words(activation), quantity(value, mean_rank(summary, activation))]
        # sorted by rank, which is there for those without a score too
        cells += [
            quantity(summary["ranks"][name][activation], score_and_rank(summary, name, activation)) for name in names
        ]
        rows.append(TableRow(tuple(cells), value == best))
    return Table("ranks-table", columns, tuple(rows))


def _data_set(several: FinishedSeveral, entry: dict[str, Any]) -> dict[str, Any]:
    """A data set as the template takes it; the link is there where its report is."""
    run = several.run_of(entry["name"])
    facts = [("file", entry.get("csv")), ("target", entry.get("target")), ("rows", entry.get("n_rows"))]
    return {
        "name": entry["name"],
        "report": f"{run.path.name}/{run.report.name}" if run.report.exists() else None,
        "answer": entry["answer"],
        "facts": [(name, f"{value}") for name, value in facts if value is not None] + [("metric", metric_of(entry))],
    }


def command(several: FinishedSeveral) -> str:
    """The command that makes the same numbers again, in a directory of its own."""
    path = several.directory.path
    again = path.with_name(f"{path.name}-again")
    return shlex.join(["actlab", "compare", "--config", str(several.directory.config), "--out", str(again)])
