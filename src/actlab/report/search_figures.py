"""Figures of a search: which parameter mattered, and the score by each of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actlab.report.answer import rate
from actlab.report.colours import PALETTE, look
from actlab.report.drawing import INK, ROW, sheet, short
from actlab.report.finished import FinishedRun

PANELS_A_ROW = 3
LEGEND_COLUMNS = 5
# Levels that have room for their names under a panel; a parameter with more is left to the table of trials.
MAX_LEVELS = 10
LOGARITHMIC = ("learning_rate", "weight_decay")
# what is drawn against a parameter, and what has a figure of its own
NOT_PARAMETERS = ("trial", "activation", "val_score")

Trial = Mapping[str, Any]


def words(parameter: str) -> str:
    """A parameter as an axis names it."""
    return {"hidden": "hidden layers", "init": "initial weights"}.get(parameter, parameter.replace("_", " "))


def importances(run: FinishedRun) -> Figure | None:
    """How much of the variance of the trials' scores each parameter explains, the largest share first."""
    shares: dict[str, float] = run.summary.get("importances") or {}
    if not shares:
        return None
    rows = sorted(shares.items(), key=lambda entry: -entry[1])
    figure = sheet(0.6 + ROW * len(rows))
    axes = figure.add_subplot()
    places = range(len(rows))
    axes.barh(places, [share for _, share in rows], height=0.6, color=PALETTE[0])
    for place, (_, share) in zip(places, rows, strict=True):
        axes.annotate(f"{share:.0%}", (share, place), (4, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(places, [words(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * max(share for _, share in rows) or 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_xlabel("share of the variance of validation scores explained (fANOVA)")
    return figure


def slices(run: FinishedRun) -> Figure | None:
    """Validation score of every trial by each parameter that was searched, a mark an activation."""
    trials = [trial for trial in run.summary.get("trials") or [] if _is_score(trial.get("val_score"))]
    parameters = [name for name in (trials[0] if trials else ()) if _is_drawn(name, trials)]
    if not parameters:
        return None
    names = sorted({str(trial["activation"]) for trial in trials}, key=_place_in(run.order))
    n_rows = math.ceil(len(parameters) / PANELS_A_ROW)
    legend_rows = math.ceil(len(names) / LEGEND_COLUMNS)
    figure = sheet(2.5 * n_rows + 0.22 * legend_rows + 0.1)
    panels = figure.subplots(n_rows, min(PANELS_A_ROW, len(parameters)), sharey=True, squeeze=False)
    for axes, parameter in zip(panels.flat, parameters, strict=False):
        _slice(axes, parameter, trials, names)
    for axes in panels.flat[len(parameters) :]:
        axes.set_visible(False)
    scores = np.array([trial["val_score"] for trial in trials])
    best = float(scores.min())
    panels[0, 0].set_ylim(best * 0.97, max(min(float(scores.max()), best * 3), best * 1.05) * 1.03)
    for row in panels:
        row[0].set_ylabel(f"validation {run.unit.partition(' (')[0]}")
    marks, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(marks, labels, loc="outside lower center", ncols=LEGEND_COLUMNS, handletextpad=0.1, columnspacing=0.9)
    return figure


def _slice(axes: Axes, parameter: str, trials: Sequence[Trial], names: Sequence[str]) -> None:
    levels = [] if _is_numeric(parameter, trials) else sorted({str(trial[parameter]) for trial in trials})
    for name in names:
        own = [trial for trial in trials if trial["activation"] == name]
        x = [levels.index(str(trial[parameter])) if levels else float(trial[parameter]) for trial in own]
        style = look(name)
        axes.scatter(
            x, [t["val_score"] for t in own], s=20, marker=style.marker, color=style.colour, alpha=0.8, linewidth=0,
            label=short(name),
        )  # fmt: skip
    if levels:
        axes.set_xticks(range(len(levels)), [short(level) for level in levels], rotation=90)
        axes.set_xlim(-0.6, len(levels) - 0.4)
    elif parameter in LOGARITHMIC and min(float(trial[parameter]) for trial in trials) > 0:
        _logarithmic(axes, [float(trial[parameter]) for trial in trials])
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel(words(parameter))
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="y")


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A tick a power of ten, or the ends where there is none between them."""
    low, high = math.log10(min(values)), math.log10(max(values))
    decades = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    axes.set_xscale("log")
    ticks = decades[:: math.ceil(len(decades) / 4)] if decades else [min(values), max(values)]
    axes.set_xticks(ticks, [rate(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_drawn(parameter: str, trials: Sequence[Trial]) -> bool:
    n_levels = len({str(trial.get(parameter)) for trial in trials})
    return (
        parameter not in NOT_PARAMETERS and n_levels > 1 and (_is_numeric(parameter, trials) or n_levels <= MAX_LEVELS)
    )


def _is_numeric(parameter: str, trials: Sequence[Trial]) -> bool:
    return all(_is_score(trial.get(parameter)) and not isinstance(trial[parameter], bool) for trial in trials)


def _place_in(order: Sequence[str]) -> Any:
    return lambda name: (order.index(name) if name in order else len(order), name)
