"""The critical-difference diagram of Demsar (2006): mean ranks on a line, bars over what is not told apart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actlab.report.colours import look
from actlab.report.drawing import INK, MUTED, PAPER, WIDTH, sheet, short
from actlab.report.several import mean_rank

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
    axes.set_xlim(0, width)
    axes.set_ylim(height - TOP, -TOP)
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
        row = next(free, None)
        if row is None:
            rows.append([group])
        else:
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
    words = f"critical difference {difference:.2f}" + (": longer than the line" if is_longer else "")
    axes.text(left, y - 0.07, words, ha="left", va="bottom", color=INK)


def _draw_label(axes: Axes, name: str, x: float, y: float, end: float, rank: str) -> None:
    """A line from a mean rank at `x` down to `y` and out to the activation's name at `end`."""
    own, is_left = look(name), end < x
    axes.plot([x, x, end], [0, y, y], color=own.colour, linewidth=1.0, linestyle="-", zorder=2)
    axes.plot(
        [x],
        [0],
        marker=own.marker,
        color=own.colour,
        markeredgecolor=PAPER,
        markeredgewidth=0.4,
        markersize=6,
        linestyle="none",
        zorder=3,
    )
    words = f"{short(name)}  {rank}" if is_left else f"{rank}  {short(name)}"
    axes.text(end + (-0.04 if is_left else 0.04), y, words, ha="right" if is_left else "left", va="center", color=INK)


def alternative(summary: Mapping[str, Any]) -> str:
    """The diagram for those who do not see it."""
    ranks = ", ".join(f"{name} {mean_rank(summary, name)}" for name in summary["activations"])
    groups = "; ".join(", ".join(group) for group in summary["not_distinguished"]) or "none"
    return (
        f"Critical-difference diagram of mean ranks: {ranks}. Critical difference "
        f"{summary['critical_difference']:.2f}. Not told apart: {groups}. The table below has the numbers."
    )
