"""The page of a comparison on several data sets, made from its files alone, with its critical-difference diagram.

The diagram is that of Demsar (2006): mean ranks on a line, bars over what is not told apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actlab.data.target import Target
from actlab.report.drawing import INK, MUTED, PAPER, WIDTH, look, mark, sheet, short, style
from actlab.report.page import inline, render, write_figure
from actlab.report.several import (
    answer,
    is_significant,
    marks_note,
    mean_rank,
    ranks_table,
    read_several,
    remarks,
)
from actlab.report.words import repeat_command
from actlab.run_files import RunDirectory, write_text

# Inches: a label's row, a bar's row, and what the axis with its numbers and the critical difference above it take.
LABEL, BAR, TOP = 0.21, 0.1, 0.62
# The line of ranks is at least so long; labels stand on both sides of it, so wide a character and so far away.
LINE, CHARACTER, GAP = 2.4, 0.068, 0.11


def critical_difference(summary: Mapping[str, Any]) -> Figure:
    """The diagram of a summary of several data sets; best on the left."""
    order: list[str] = list(summary["activations"])
    n = len(order)
    bars = rows_of_bars(summary["not_distinguished"], order)
    n_left = math.ceil(n / 2)
    height = TOP + BAR * (len(bars) + 1) + LABEL * n_left
    margin = GAP + CHARACTER * (max(len(short(name)) for name in order) + len("  12.34"))
    line = Line(margin, max(WIDTH - margin, margin + LINE), n)
    width = line.right + margin
    figure = sheet(height, width)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    figure.set_layout_engine("none")
    axes.set_axis_off()
    # inches: to the right, and downwards from the line of ranks
    axes.set(xlim=(0, width), ylim=(height - TOP, -TOP))
    ranks = [float(summary["mean_ranks"][name]) for name in order]
    _draw_line(axes, line)
    _draw_difference(axes, float(summary["critical_difference"]), line)
    for row, groups in enumerate(bars):
        for group in groups:
            ends = [line.place(ranks[order.index(name)]) for name in (group[0], group[-1])]
            y = BAR * (row + 1)
            axes.plot([ends[0] - 0.03, ends[1] + 0.03], [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    first = BAR * (len(bars) + 1) + LABEL / 2
    for index, name in enumerate(order):
        is_left = index < n_left
        y = first + LABEL * (index if is_left else n - 1 - index)
        rank = mean_rank(summary, name)
        _draw_label(axes, name, line.place(ranks[index]), y, line.left - GAP if is_left else line.right + GAP, rank)
    return figure


@dataclass(frozen=True)
class Line:
    """Ranks 1 to `n` between `left` and `right` (inches)."""

    left: float
    right: float
    n: int

    def place(self, rank: float) -> float:
        return self.left + (rank - 1) / (self.n - 1) * (self.right - self.left)


def rows_of_bars(groups: Sequence[Sequence[str]], order: Sequence[str]) -> list[list[Sequence[str]]]:
    """Groups on as few rows as keep them apart: each goes to the first row whose last bar ended before it begins."""
    rows: list[list[Sequence[str]]] = []
    for group in sorted(groups, key=lambda members: order.index(members[0])):
        free = (row for row in rows if order.index(row[-1][-1]) < order.index(group[0]))
        if (row := next(free, None)) is None:
            rows.append(row := [])
        row.append(group)
    return rows


def _draw_line(axes: Axes, line: Line) -> None:
    axes.plot([line.left, line.right], [0, 0], color=MUTED, linewidth=0.8)
    step = 1 if line.n <= 13 else 2 if line.n <= 25 else 5
    for rank in range(1, line.n + 1):
        is_named = (rank - 1) % step == 0
        x = line.place(rank)
        axes.plot([x, x], [0, -0.06 if is_named else -0.035], color=MUTED, linewidth=0.8)
        if is_named:
            axes.text(x, -0.085, str(rank), ha="center", va="bottom", color=INK, fontsize=8)
    axes.text(line.left - GAP, 0, "best", ha="right", va="center", color=MUTED)
    axes.text(line.right + GAP, 0, "mean rank", ha="left", va="center", color=MUTED)


def _draw_difference(axes: Axes, difference: float, line: Line) -> None:
    """The critical difference as a ruler above the line; where it is longer than the line, with an arrow."""
    y, is_longer = -0.36, difference > line.n - 1
    left, right = line.left, line.place(min(1 + difference, line.n))
    axes.plot([left, right], [y, y], color=INK, linewidth=1.2)
    axes.plot([left, left], [y - 0.04, y + 0.04], color=INK, linewidth=1.2)
    if is_longer:
        axes.plot([right], [y], marker=">", color=INK, markersize=5, linestyle="none")
    else:
        axes.plot([right, right], [y - 0.04, y + 0.04], color=INK, linewidth=1.2)
    label = f"critical difference {difference:.2f}" + (": longer than the line" if is_longer else "")
    axes.text(left, y - 0.07, label, ha="left", va="bottom", color=INK)


def _draw_label(axes: Axes, name: str, x: float, y: float, end: float, rank: str) -> None:
    """A line from a mean rank at `x` down to `y` and out to the activation's name at `end`."""
    own, is_left = look(name), end < x
    axes.plot([x, x, end], [0, y, y], color=own.colour, linewidth=1.0, linestyle="-", zorder=2)
    mark(axes, x, 0, own, markeredgecolor=PAPER, markeredgewidth=0.4, markersize=6)
    label = f"{short(name)}  {rank}" if is_left else f"{rank}  {short(name)}"
    axes.text(end + (-0.04 if is_left else 0.04), y, label, ha="right" if is_left else "left", va="center", color=INK)


def alternative(summary: Mapping[str, Any]) -> str:
    """The diagram for those who do not see it."""
    ranks = ", ".join(f"{name} {mean_rank(summary, name)}" for name in summary["activations"])
    groups = "; ".join(", ".join(group) for group in summary["not_distinguished"]) or "none"
    return (
        f"Critical-difference diagram of mean ranks: {ranks}. Critical difference "
        f"{summary['critical_difference']:.2f}. Not told apart: {groups}. The table below has the numbers."
    )


FIGURE = "critical_difference"
CAPTION = (
    "Mean rank of each activation over the data sets, best on the left. Bars join activations that are not told apart: "
    "their mean ranks lie no further apart than the critical difference (Nemenyi's test at 5 % over all pairs; Demšar "
    "2006)."
)
ONE_GROUP = " The Friedman test shows no difference between any of them, so all are joined."
RANKS_NOTE = (
    "Mean test score on each data set, lower is better, and in brackets its rank there; equals share their mean rank, "
    "and an activation that diverged ranks last. Scores of different data sets do not compare; ranks do."
)
METHOD = (
    "Each data set was compared on by itself, nested and paired; its own report says how, and its words (worse, worse "
    "here, as good, not settled, diverged) answer for the luck of training and of the rows.",
    "Here only the ranks of the mean scores count, so that no data set outweighs another by its scale. They answer for "
    "the third luck, that of the data set: would the order hold on other tables?",
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
    run, summary = read_several(path)
    with style():
        figure = critical_difference(summary)
    svg = write_figure(figure, run.figures / FIGURE)
    caption = CAPTION + ("" if is_significant(summary) else ONE_GROUP)
    content = {
        "title": f"Activation functions compared on {len(summary['data_sets'])} data sets",
        "answer": answer(summary),
        "remarks": remarks(summary),
        "figure": {"svg": inline(svg, FIGURE, alternative(summary)), "caption": caption, "is_narrow": False},
        "ranks": ranks_table(summary, note=RANKS_NOTE + (f" {meanings}." if (meanings := marks_note(summary)) else "")),
        "data_sets": [_data_set(RunDirectory(run.path / entry["name"]), entry) for entry in summary["data_sets"]],
        "method": METHOD,
        "command": repeat_command(run, "compare"),
        "versions": (summary.get("versions") or {}).items(),
    }
    write_text(run.report, render("several.html", content))
    return run.report


def _data_set(run: RunDirectory, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A data set as the template takes it; the link is there where its report is."""
    facts = {"file": entry.get("csv"), "target": entry.get("target"), "rows": entry.get("n_rows")}
    facts["metric"] = Target.of_metric(entry["metric"]).metric_name
    return {
        "name": entry["name"],
        "report": f"{run.path.name}/{run.report.name}" if run.report.exists() else None,
        "answer": entry["answer"],
        "facts": [(name, value) for name, value in facts.items() if value is not None],
    }
