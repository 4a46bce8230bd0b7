"""What all figures share: the look of each activation, type size, colours that a page can turn dark, axes, intervals.

An activation has one look in every figure of every run. The colours are those of Okabe & Ito (2008) and Tol (2021) that
colour-blind readers tell apart and that show on white and on black. Eight colours cannot tell all activations apart, so
the marker differs as well, and figures name their rows and panels besides. The variants of an activation, which differ
in another setting, have its colour and markers of their own.
"""

import math
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import style as styles
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from numpy.typing import NDArray

from actlab.activations import BY_NAME
from actlab.report.words import short_number

PALETTE = ("#1f83c6", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a63b8", "#8c8c8c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")


@dataclass(frozen=True)
class Look:
    """How an activation is drawn."""

    colour: str
    marker: str


def look(name: str) -> Look:
    """The look of an activation or of one of its variants (`relu [dropout=0.1]`), whatever else is in the figure.

    >>> look("relu")
    Look(colour='#1f83c6', marker='o')
    >>> look("mine.Bump") == look("mine.Bump") != look("relu")
    True
    >>> look("relu [init=torch]").colour == look("relu").colour
    True
    """
    activation, _, levels = name.partition(" [")
    record = BY_NAME.get(activation)
    place = zlib.crc32(activation.encode()) if record is None or record.look is None else record.look
    # variants of all activations that have the same levels keep the distance that the activations have
    marker = place + (zlib.crc32(levels.encode()) if levels else 0)
    return Look(PALETTE[place % len(PALETTE)], MARKERS[marker % len(MARKERS)])


# Each stands for one role and for nothing else: the report replaces them by colours of the page.
INK, PAPER, GRID, MUTED = "#222221", "#fffffe", "#d9d9d8", "#6f6f6e"
# Inches: a column of text, which a phone can still show.
WIDTH = 5.4
ROW = 0.235

STYLE: Any = {
    "font.family": "sans-serif",
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8.5),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), PAPER),
    "grid.color": GRID,
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.6),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.axisbelow": True,
    # a column of a CSV may have dollar signs in its name
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "actlab",
}


def style() -> AbstractContextManager[None]:
    """Figures are made and saved in here, whatever the caller's own settings are, and these stay as they are."""
    return styles.context(["default", STYLE])


def sheet(height: float, width: float = WIDTH, n_rows: int = 0) -> Figure:
    """An empty figure that no window and no global state knows of, `height` inches more than its rows of text."""
    return Figure(figsize=(width, height + ROW * n_rows), layout="constrained")


def short(activation: str) -> str:
    """A name that fits beside a row: the class alone for a dotted path, with a variant's levels in their brackets."""
    path, bracket, levels = activation.partition(" [")
    name = (path.rpartition(".")[2] or path) + bracket + levels
    return name if len(name) <= 24 else f"{name[:23]}…"


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """A label on the left of each row, from top to bottom."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def place_ticks(axis: Axis, ticks: Sequence[float], labels: Sequence[str]) -> None:
    """Only these ticks, whatever the scale would add between them."""
    axis.set_ticks(ticks, labels)
    axis.set_ticks([], minor=True)


def panels_of(figure: Figure, n: int, n_columns: int, *, sharex: bool) -> NDArray[Any]:
    """Axes (rows, columns) for `n` panels with one y axis; those left over in the last row are hidden."""
    n_columns = min(n_columns, n)
    panels = figure.subplots(math.ceil(n / n_columns), n_columns, sharex=sharex, sharey=True, squeeze=False)
    for axes in panels.flat[n:]:
        axes.set_visible(False)
    return panels


def mark(axes: Axes, x: float, y: float, look: Look, **style: Any) -> None:
    """An activation's marker."""
    axes.plot([x], [y], marker=look.marker, color=look.colour, linestyle="none", zorder=3, **style)


def write_in_cell(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """A text in the middle of a heat map's cell; black or white on a colour, which no page changes."""
    # not in the layout: it lies within its cell, and measuring hundreds of them takes seconds
    axes.text(x, y, text, ha="center", va="center", in_layout=False, **style)


@dataclass(frozen=True)
class Row:
    """A line of a forest plot: a point with an interval or with the values that it is the mean of, a label on the left
    and a note on the right. `lost` is written in place of a point that is nan."""

    label: str
    value: float
    low: float
    high: float
    look: Look
    note: str
    is_filled: bool = True
    values: tuple[float, ...] = ()
    lost: str = "no usable score"


def forest(
    rows: Sequence[Row], headings: tuple[str, str], limits: tuple[float, float] | None = None
) -> tuple[Figure, Axes]:
    """Rows from top to bottom; what lies beyond the limits, a robust range where none are given, ends in an arrow."""
    figure = sheet(0.75, n_rows=len(rows))
    axes = figure.add_subplot()
    left, right = limits or robust_range(rows)
    axes.set_xlim(left, right)
    axes.grid(True, axis="x")
    for side, labels in ((axes, [row.label for row in rows]), (axes.twinx(), [row.note for row in rows])):
        label_rows(side, labels)
        side.spines["left"].set_visible(False)
    for y, row in enumerate(rows):
        _interval(axes, y, row, left, right)
    for heading, x, shift, align in ((headings[0], 0.0, -6, "right"), (headings[1], 1.0, 6, "left")):
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": align, "va": "bottom"}
        axes.annotate(heading, (x, 1), (shift, 3), color=MUTED, **place)
    return figure, axes


def _interval(axes: Axes, y: int, row: Row, left: float, right: float) -> None:
    if not math.isfinite(row.value):
        axes.text((left + right) / 2, y, row.lost, ha="center", va="center", color=MUTED)
        return
    colour = row.look.colour
    inside = [value for value in row.values if left <= value <= right]
    axes.plot(inside, [y] * len(inside), ".", color=colour, alpha=0.5, markersize=5, markeredgewidth=0, zorder=2)
    if math.isfinite(row.low) and math.isfinite(row.high):
        low, high = max(row.low, left), min(row.high, right)
        axes.plot([low, max(low, high)], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        for is_beyond, edge, marker in ((row.low < left, left, "<"), (row.high > right, right, ">")):
            if is_beyond:
                axes.plot([edge], [y], marker=marker, color=colour, markersize=5, clip_on=False, zorder=3)
    if left <= row.value <= right:
        face = colour if row.is_filled else PAPER
        mark(axes, row.value, y, row.look, markerfacecolor=face, markersize=5.5)
    else:
        x, shift, side = (left, 8, "left") if row.value < left else (right, -8, "right")
        place: Any = {"textcoords": "offset points", "ha": side, "va": "center"}
        axes.annotate(f"at {short_number(row.value)}", (x, y), (shift, 0), color=MUTED, **place)


def _ends(row: Row) -> tuple[float, float]:
    values = [value for value in row.values if math.isfinite(value)]
    return (min(values), max(values)) if values else (row.low, row.high)


def robust_range(rows: Sequence[Row]) -> tuple[float, float]:
    """Limits that show most of the intervals whole; one bad row does not press the others together."""
    numbers = np.array([(row.value, *_ends(row)) for row in rows if math.isfinite(row.value)])
    if not len(numbers):
        return 0.0, 1.0
    _, lows, highs = np.where(np.isfinite(numbers), numbers, numbers[:, :1]).T
    inner_low, inner_high = np.quantile(lows, 0.25), np.quantile(highs, 0.75)
    span = inner_high - inner_low or 0.1 * abs(inner_high) or 1.0
    left, right = max(lows.min(), inner_low - 0.75 * span), min(highs.max(), inner_high + 0.75 * span)
    margin = 0.04 * (right - left) or 0.5 * span
    return float(left - margin), float(right + margin)
