"""Figures of training: curves, health of the hidden layers, and the ensemble's predictions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox

from actlab.data.target import Target
from actlab.report.drawing import GRID, INK, MUTED, WIDTH, look, panels_of, place_ticks, sheet, short, write_in_cell
from actlab.report.finished import FinishedRun, one_curve
from actlab.report.words import short_number
from actlab.verdict.summary import PAIR

PANELS_A_ROW = 4
MAX_POINTS = 80
# More points than this are drawn as an image inside the SVG.
MAX_VECTOR_POINTS = 600
N_NAMED = 8

# column of health.csv, moment, heading, largest value that the shading tells apart, value as text
MEASURES: tuple[tuple[str, str, str, float | None, Callable[[float], str]], ...] = (
    ("dead", "best", "dead units, %", 0.5, lambda value: f"{100 * value:.0f}"),
    ("saturated", "best", "saturated, %", 1.0, lambda value: f"{100 * value:.0f}"),
    ("mean_output", "best", "mean output", 1.0, lambda value: f"{value:z.2f}".replace("-", "−")),
    ("gradient_ratio", "start", "gradient ratio", None, lambda value: f"{value:{'.2g' if value < 10 else '.0f'}}"),
)


def curves(run: FinishedRun) -> Figure | None:
    """A panel an activation, at its learning rate: validation with its spread, training dashed, best of all behind."""
    shown = {name: frame for name in run.order if len(frame := _chosen_curve(run, name))}
    if not shown:
        return None
    n_rows = math.ceil(len(shown) / PANELS_A_ROW)
    figure = sheet(0.7 + (1.15 if n_rows > 1 else 2.4) * n_rows)
    panels = panels_of(figure, len(shown), PANELS_A_ROW, sharex=True)
    best = next(iter(shown.values()))
    for axes, (name, frame) in zip(panels.flat, shown.items(), strict=False):
        if frame is not best:
            axes.plot(best.epoch, best.val_mean, color=GRID, linewidth=1.6, zorder=1)
        _curve(axes, name, frame)
    # the last panel of a column has the numbers, also where the row below has none in it
    for axes in panels.flat[max(0, len(shown) - PANELS_A_ROW) : len(shown)]:
        axes.tick_params(labelbottom=True)
    _score_axis(panels[0, 0], shown)
    last = max(float(frame.epoch.max()) for frame in shown.values())
    panels[0, 0].set_xscale("log")
    panels[0, 0].set_xlim(0.9, 1.1 * last)
    ticks = [tick for tick in (1, 10, 100, 1000, 10000) if tick <= last]
    place_ticks(panels[0, 0].xaxis, ticks, list(map(str, ticks)))
    figure.supxlabel("epoch", fontsize=8.5)
    figure.supylabel(run.target.unit, fontsize=8.5)
    return figure


def _chosen_curve(run: FinishedRun, name: str) -> pd.DataFrame:
    """Curve of an activation's first trial at its learning rate, to where half of its members still train, thinned."""
    if run.curves is None:
        return pd.DataFrame()
    rate = next((row["learning_rate"] for row in run.ranking_rows if row["activation"] == name), None)
    own = run.curves[run.curves.activation == name]
    if rate is not None:
        own = own[np.isclose(own.learning_rate, rate, rtol=1e-9)]
    own = one_curve(own)
    own = own[np.isfinite(own.val_mean)]
    # evenly on the logarithmic axis that it is drawn on
    places = np.unique(np.geomspace(1, max(1, len(own)), MAX_POINTS).round().astype(int)) - 1
    thinned: pd.DataFrame = own.iloc[places[places < len(own)]]
    return thinned


def _curve(axes: Axes, name: str, frame: pd.DataFrame) -> None:
    colour = look(name).colour
    low, high = frame.val_mean - frame.val_sd, frame.val_mean + frame.val_sd
    axes.fill_between(frame.epoch, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(frame.epoch, frame.val_mean, color=colour, linewidth=1.4)
    axes.plot(frame.epoch, frame.train_mean, color=colour, linewidth=1.0, linestyle=(0, (3, 1.5)))
    axes.set_title(short(name), pad=2)
    axes.tick_params(labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="y")


def _score_axis(axes: Axes, shown: dict[str, pd.DataFrame]) -> None:
    """Logarithmic, from the lowest curve to where most curves start, so that a bad one does not flatten the others."""
    values = np.concatenate([np.r_[frame.val_mean, frame.train_mean] for frame in shown.values()])
    values = values[np.isfinite(values) & (values > 0)]
    axes.set_yscale("log")
    if len(values):
        low = float(values.min())
        high = max(low * 1.2, min(float(values.max()), float(np.quantile(values, 0.97)) * 1.3, low * 30))
        axes.set_ylim(low / 1.05, high)
        ticks = _ticks(low, high)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the limits; finer ones where there is only one of these."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.5))):
        found = [float(f"{step * 10.0**decade:.3g}") for decade in decades for step in steps]
        within = [tick for tick in found if low / 1.05 <= tick <= high]
        if len(within) > 2:
            break
    return within[:: math.ceil(len(within) / 6)] if within else [low]


def health(run: FinishedRun) -> Figure | None:
    """Numbers a hidden layer, at the rate chosen in each fold: dead and saturated units, mean output, gradient."""
    if run.health is None:
        return None
    keys = ["activation", *PAIR, "trial"]
    rows = run.health.merge(run.chosen[keys], on=keys) if run.is_ranked else run.health
    names = [name for name in run.order if name in set(rows.activation)]
    if not names:
        return None
    layers = sorted(run.health.layer.unique())
    figure = sheet(0.8, max(WIDTH, 1.2 + 0.34 * len(layers) * len(MEASURES)), len(names))
    panels = figure.subplots(1, len(MEASURES), squeeze=False)[0]
    for axes, (column, moment, heading, ceiling, to_text) in zip(panels, MEASURES, strict=True):
        own = rows[rows.moment == moment]
        # ratios are averaged by their logarithms
        own = own.assign(value=own[column] if ceiling else np.log(own[column].where(own[column] > 0)))
        means = own.pivot_table("value", "activation", "layer", dropna=False).reindex(index=names, columns=layers)
        values: Any = means.to_numpy() if ceiling else np.exp(means.to_numpy())
        # how far from healthy: none dead, none saturated, mean of 0, gradient as large as at the last layer
        badness = np.abs(values) / ceiling if ceiling else np.abs(np.log10(np.clip(values, 1e-6, 1e6))) / 2
        axes.pcolormesh(np.ma.masked_invalid(badness), cmap="Oranges", vmin=0, vmax=1.25)
        for y, x in np.ndindex(*values.shape):
            text = to_text(values[y, x]) if math.isfinite(values[y, x]) else "–"
            colour = "white" if badness[y, x] > 0.9 else "black"
            write_in_cell(axes, x + 0.5, y + 0.5, text, fontsize=6.5, color=colour)
        axes.set_title(f"{heading}\n({moment})", pad=4)
        axes.set_xticks(np.arange(len(layers)) + 0.5, [str(layer) for layer in layers])
        axes.set_yticks([])
        axes.set_ylim(len(names), 0)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    panels[0].set_yticks(np.arange(len(names)) + 0.5, [short(name) for name in names])
    figure.supxlabel("hidden layer, counted from the inputs", fontsize=8.5)
    return figure


def out_of_fold(predictions: pd.DataFrame, target: Target) -> pd.DataFrame:
    """One row of the data each, the repeats averaged: actual, predicted and residual, largest residual first.

    The residual is their difference on the scale that is learned, such as ln(actual / predicted).
    """
    first = {column: "first" for column in ("row", "id", "actual") if column in predictions}
    grouped = predictions.assign(predicted=target.forward(predictions.predicted)).groupby("row", sort=False)
    rows = grouped.agg(first | {"predicted": "mean"}).reset_index(drop=True)
    rows["predicted"] = target.inverse(rows.predicted)
    rows["residual"] = target.residual(rows.actual, rows.predicted)
    return rows.sort_values("residual", key=np.abs, ascending=False).reset_index(drop=True)


def predictions(run: FinishedRun) -> Figure | None:
    """Out-of-fold predictions of the shipped networks against the truth, and their residuals; the worst numbered."""
    if run.predictions is None:
        return None
    rows = out_of_fold(run.predictions, run.target)
    rows = rows[np.isfinite(rows.residual)]
    if rows.empty:
        return None
    is_log, scale = run.target.is_log, {None: "linear", 0.0: "log", 1.0: "symlog"}[run.target.shift]
    target = str((run.summary.get("data") or {}).get("target") or "target")
    target = target if len(target) <= 24 else f"{target[:23]}…"
    shipped = list((run.summary.get("ensemble") or {}).get("activations") or {}) or [run.order[0]]
    # networks of several activations have the colour of none of them
    colour = look(str(shipped[0])).colour if len(shipped) == 1 else MUTED
    figure = sheet(2.9, WIDTH * 1.15)
    truth, rest = figure.subplots(1, 2)
    for axes, x, y in ((truth, rows.predicted, rows.actual), (rest, rows.predicted, rows.residual)):
        axes.scatter(x, y, s=7, color=colour, alpha=0.6, linewidth=0, rasterized=len(rows) > MAX_VECTOR_POINTS)
        axes.set_xlabel(f"predicted {target}")
        axes.set_xscale(scale)
        if is_log:
            _plain_ticks(axes.xaxis, x)
        axes.grid(True)
        _number_worst(axes, x, y)
    ends = [float(min(rows.actual.min(), rows.predicted.min())), float(max(rows.actual.max(), rows.predicted.max()))]
    truth.plot(ends, ends, color=INK, linewidth=0.8)
    truth.set_ylabel(f"actual {target}")
    truth.set_yscale(scale)
    if is_log:
        _plain_ticks(truth.yaxis, rows.actual)
    rest.axhline(0, color=INK, linewidth=0.8)
    rest.set_ylabel(f"residual: {run.target.difference}{f' {target}' if scale == 'linear' else ''}")
    return figure


def _plain_ticks(axis: Axis, values: "pd.Series[float]") -> None:
    """Those of `_ticks` whose labels have room."""
    low, high = float(values.min()), float(values.max())
    ticks: list[float] = []
    for tick in _ticks(low, high):
        if not ticks or math.log(tick / ticks[-1]) > 0.2 * math.log(high / low):
            ticks.append(tick)
    place_ticks(axis, ticks, [_thousands(tick) for tick in ticks])


def _thousands(value: float) -> str:
    """1.5k, 20M; smaller numbers as they are."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{letter}"
    return short_number(value) if abs(value) < 1e-3 else f"{value:g}"


def _number_worst(axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]") -> None:
    """1 for the largest residual and so on, as the table of worst rows counts; overlapping ones are left out."""
    axes.autoscale_view()
    taken: list[Bbox] = []
    for number, point in enumerate(zip(x[:N_NAMED], y[:N_NAMED], strict=True), start=1):
        left, bottom = axes.transData.transform(point)
        box = Bbox.from_bounds(left, bottom, 12, 12)
        if not any(box.overlaps(other) for other in taken):
            taken.append(box)
            axes.annotate(str(number), point, (3, 2), textcoords="offset points", fontsize=7, color=INK)
