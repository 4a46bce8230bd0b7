"""Figures of scores: the ranking, what each learning rate gave, and differences from the winner."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure

from actlab.printed_tables import is_number
from actlab.report.drawing import (
    GRID,
    INK,
    MUTED,
    ON_DARK,
    ON_LIGHT,
    ROW,
    Look,
    Row,
    forest,
    look,
    sheet,
    short,
    write_in_cell,
)
from actlab.report.finished import FinishedRun
from actlab.report.words import fixed, p_value, score_decimals, short_number, three_digits
from actlab.verdict.summary import comparison_with_winner, winner_row

REFERENCES = {"ridge": "ridge regression", "hist_gradient_boosting": "gradient boosting"}


def ranking(run: FinishedRun) -> Figure | None:
    """Mean test score of each activation with its 95 % interval, and the references below."""
    if not run.is_ranked:
        return None
    best = winner_row(run.summary)
    decimals = score_decimals(run.summary)
    rows = [
        Row(
            short(str(row["activation"])),
            _number(row["mean"]),
            _number(row.get("ci_low")),
            _number(row.get("ci_high")),
            look(str(row["activation"])),
            fixed(row["mean"], decimals),
        )
        for row in run.ranking
    ]
    scores = run.summary.get("references") or {}
    named = [("shipped, averaged", (run.summary.get("ensemble") or {}).get("test_score"))]
    named += [(name, scores.get(key)) for key, name in REFERENCES.items()]
    rows += [_reference(name, score, decimals) for name, score in named if is_number(score)]
    figure = sheet(0.75 + ROW * len(rows))
    axes = figure.add_subplot()
    forest(axes, rows, ("activation", "mean"))
    if best:
        axes.axvline(best["mean"], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
    if len(rows) > len(run.ranking):
        axes.axhline(len(run.ranking) - 0.5, color=MUTED, linewidth=0.6)
    axes.set_xlabel(f"test {run.target.unit}, mean and 95 % interval; lower is better")
    return figure


def _reference(name: str, score: float, decimals: int) -> Row:
    return Row(name, score, math.nan, math.nan, Look(MUTED, "D", "-"), fixed(score, decimals), is_filled=False)


def differences(run: FinishedRun) -> Figure | None:
    """Paired difference of each activation from the winner, with the test's verdict; None where nothing was tested."""
    best = winner_row(run.summary) if run.is_ranked else None
    if best is None:
        return None
    rows = []
    for name in run.order:
        found = comparison_with_winner(run.summary, name)
        if found is not None:
            p, verdict = _number(found.get("p_holm")), str(found["verdict"])
            words = f"{verdict}, {p_value(p)}" if math.isfinite(p) else verdict
            value, low, high = (_number(found.get(key)) for key in ("difference", "ci_low", "ci_high"))
            rows.append(Row(short(name), value, low, high, look(name), words, verdict != "no difference shown"))
    if not rows:
        return None
    figure = sheet(0.75 + ROW * len(rows))
    axes = figure.add_subplot()
    forest(axes, rows, ("activation", "verdict, Holm's p"), includes=0.0)
    rope = _number(run.summary.get("rope"))
    if math.isfinite(rope):
        axes.axvspan(-rope, rope, color=GRID, zorder=0, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_xlabel(f"test {run.target.metric_name} minus that of {short(str(best['activation']))}, 95 % interval")
    return figure


def rates(run: FinishedRun) -> Figure | None:
    """Mean validation score by activation and learning rate, chosen rates marked: a grid's cells, a search's dots."""
    if not run.is_ranked:
        return None
    figure = sheet(0.95 + ROW * 1.08 * len(run.order))
    axes = figure.add_subplot()
    scores = _trial_scores(run.members)
    norm = _robust_norm(scores.val)
    draw = _grid if run.is_grid else _dots
    draw(axes, run, scores, norm)
    axes.set_yticks(range(len(run.order)), [short(name) for name in run.order])
    axes.set_ylim(len(run.order) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.set_xlabel("learning rate")
    bar = figure.colorbar(axes.collections[0], ax=axes, aspect=40, pad=0.02, fraction=0.05, extend="max")
    bar.outline.set_visible(False)
    bar.set_label(f"validation {run.target.metric_name}")
    ticks = np.geomspace(norm.vmin or 1, norm.vmax or 1, 5)
    bar.set_ticks(ticks.tolist(), labels=[short_number(t) for t in ticks])
    bar.minorticks_off()
    return figure


def _trial_scores(members: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: its setting, mean validation score over finite members, and how many have none."""
    val = members.val_score.where(np.isfinite(members.val_score) & ~members.pruned.astype(bool))
    grouped = members.assign(val=val, missing=members.diverged.astype(bool)).groupby("trial")
    return grouped.agg(
        activation=("activation", "first"),
        learning_rate=("learning_rate", "first"),
        val=("val", "mean"),
        missing=("missing", "sum"),
        n=("missing", "size"),
        pruned=("pruned", "any"),
    ).reset_index()


def _robust_norm(scores: "pd.Series[float]") -> Normalize:
    """Logarithmic from the best score to one that most trials stay under, between 1.25 and 3 times the best."""
    finite = scores[np.isfinite(scores) & (scores > 0)]
    if finite.empty:
        return LogNorm(1, 2)
    best = float(finite.min())
    return LogNorm(best, min(max(float(finite.quantile(0.85)), best * 1.25), best * 3))


def _chosen_counts(run: FinishedRun) -> Counter[tuple[str, int]]:
    """(activation, trial) to the number of test folds that it was chosen for."""
    finite = run.chosen[np.isfinite(run.chosen.val)]
    return Counter(zip(finite.activation, finite.trial, strict=True))


def _grid(axes: Axes, run: FinishedRun, scores: pd.DataFrame, norm: Normalize) -> None:
    columns = sorted(scores.learning_rate.unique())
    best = scores.sort_values("val").drop_duplicates(["activation", "learning_rate"])
    values = np.full((len(run.order), len(columns)), np.nan)
    cells: dict[tuple[int, int], Any] = {}
    for cell in best.itertuples():
        if cell.activation in run.order:
            x, y = columns.index(cell.learning_rate), run.order.index(str(cell.activation))
            values[y, x], cells[x, y] = cell.val, cell
    edges_x, edges_y = np.arange(len(columns) + 1) - 0.5, np.arange(len(run.order) + 1) - 0.5
    mesh = axes.pcolormesh(edges_x, edges_y, np.ma.masked_invalid(values), cmap="cividis", norm=norm)
    axes.set_xticks(range(len(columns)), [three_digits(c) for c in columns])
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.spines[:].set_visible(False)
    counts = _chosen_counts(run)
    for (x, y), cell in cells.items():
        _cell(axes, x, y, cell, counts[str(cell.activation), int(cell.trial)], mesh.cmap, norm)


def _cell(axes: Axes, x: int, y: int, cell: Any, n_chosen: int, colours: Colormap, norm: Normalize) -> None:
    is_known = math.isfinite(cell.val)
    red, green, blue, _ = colours(norm(cell.val)) if is_known else (1, 1, 1, 1)
    colour = (ON_LIGHT if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else ON_DARK) if is_known else MUTED
    lost = "all" if cell.missing == cell.n else f"{cell.missing:.0f}/{cell.n:.0f}"
    text = f"{lost} diverged" if cell.missing else short_number(cell.val)
    size, shift = (5.5 if cell.missing else 7), (0.14 if n_chosen else 0)
    write_in_cell(axes, x - shift, y, text, color=colour, fontsize=size)
    if n_chosen:
        badge = {"boxstyle": "round,pad=0.25", "facecolor": ON_DARK, "edgecolor": ON_LIGHT, "linewidth": 0.6}
        write_in_cell(axes, x + 0.3, y, str(n_chosen), color=ON_LIGHT, fontsize=6, bbox=badge)


def _dots(axes: Axes, run: FinishedRun, scores: pd.DataFrame, norm: Normalize) -> None:
    counts = _chosen_counts(run)
    place = scores.activation.map({name: y for y, name in enumerate(run.order)}).to_numpy(dtype=float)
    known = np.isfinite(scores.val.to_numpy())
    rates_ = scores.learning_rate.to_numpy()
    axes.set_xscale("log")
    axes.scatter(
        rates_[known], place[known], c=scores.val[known], cmap="cividis", norm=norm, s=34, linewidth=0, zorder=2
    )
    axes.scatter(rates_[~known], place[~known], marker="x", color=MUTED, s=22, linewidth=0.9, zorder=2)
    is_chosen = np.array([counts[a, t] > 0 for a, t in zip(scores.activation, scores.trial, strict=True)])
    axes.scatter(rates_[is_chosen], place[is_chosen], s=78, facecolor="none", edgecolor=INK, linewidth=1, zorder=3)
    axes.xaxis.set_major_formatter(lambda value, _: three_digits(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(True, axis="y")
    axes.spines["left"].set_visible(False)


def _number(value: object) -> float:
    return float(value) if is_number(value) else math.nan
