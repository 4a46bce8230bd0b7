"""Figures of scores: the ranking, what each learning rate gave, and differences from the winner."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from actlab.printed_tables import is_number
from actlab.report.drawing import GRID, INK, MUTED, ROW, Look, Row, forest, look, sheet, short, write_in_cell
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
    rows = [_row(row, "mean", str(row["activation"]), fixed(row["mean"], decimals)) for row in run.ranking_rows]
    scores = run.summary.get("references") or {}
    named = [("shipped, averaged", (run.summary.get("ensemble") or {}).get("test_score"))]
    named += [(name, scores.get(key)) for key, name in REFERENCES.items()]
    rows += [
        Row(name, score, math.nan, math.nan, Look(MUTED, "D"), fixed(score, decimals), is_filled=False)
        for name, score in named
        if is_number(score)
    ]
    figure, axes = forest(rows, ("activation", "mean"))
    if best:
        axes.axvline(best["mean"], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
    if len(rows) > len(run.ranking_rows):
        axes.axhline(len(run.ranking_rows) - 0.5, color=MUTED, linewidth=0.6)
    axes.set_xlabel(f"test {run.target.unit}, mean and 95 % interval; lower is better")
    return figure


def _row(found: Mapping[str, Any], key: str, name: str, note: str, is_filled: bool = True) -> Row:
    numbers = (found.get(number) for number in (key, "ci_low", "ci_high"))
    value, low, high = (float(number) if is_number(number) else math.nan for number in numbers)
    return Row(short(name), value, low, high, look(name), note, is_filled)


def differences(run: FinishedRun) -> Figure | None:
    """Paired difference of each activation from the winner, with the test's verdict; None where nothing was tested."""
    best = winner_row(run.summary) if run.is_ranked else None
    if best is None:
        return None
    rows = []
    for name in run.order:
        found = comparison_with_winner(run.summary, name)
        if found is not None:
            p, verdict = found.get("p_holm"), str(found["verdict"])
            note = f"{verdict}, {p_value(p)}" if is_number(p) else verdict
            rows.append(_row(found, "difference", name, note, verdict != "no difference shown"))
    if not rows:
        return None
    figure, axes = forest(rows, ("activation", "verdict, Holm's p"), includes=0.0)
    if is_number(rope := run.summary.get("rope")):
        axes.axvspan(-rope, rope, color=GRID, zorder=0, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_xlabel(f"test {run.target.metric_name} minus that of {short(str(best['activation']))}, 95 % interval")
    return figure


def learning_rates(run: FinishedRun) -> Figure | None:
    """Mean validation score by activation and learning rate, chosen rates marked: a grid's cells, a search's dots."""
    if not run.is_ranked:
        return None
    figure = sheet(0.95 + ROW * 1.08 * len(run.order))
    axes = figure.add_subplot()
    scores = _trial_scores(run)
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


def _trial_scores(run: FinishedRun) -> pd.DataFrame:
    """One row a trial: setting, mean validation score of finite members, how many diverged, folds it was chosen for."""
    members, chosen = run.members, run.chosen
    val = members.val_score.where(np.isfinite(members.val_score) & ~members.pruned.astype(bool))
    members = members.assign(val=val, missing=members.diverged.astype(bool))
    grouped = members.groupby(["trial", "activation", "learning_rate"])
    scores = grouped.agg(val=("val", "mean"), missing=("missing", "sum"), n=("missing", "size")).reset_index()
    n_chosen = chosen.trial[np.isfinite(chosen.val)].value_counts()
    return scores.assign(n_chosen=scores.trial.map(n_chosen).fillna(0).astype(int))


def _robust_norm(scores: "pd.Series[float]") -> Normalize:
    """Logarithmic from the best score to one that most trials stay under, between 1.25 and 3 times the best."""
    finite = scores[np.isfinite(scores) & (scores > 0)]
    if finite.empty:
        return LogNorm(1, 2)
    best = float(finite.min())
    return LogNorm(best, min(max(float(finite.quantile(0.85)), best * 1.25), best * 3))


def _grid(axes: Axes, run: FinishedRun, scores: pd.DataFrame, norm: Normalize) -> None:
    best = scores.sort_values("val").drop_duplicates(["activation", "learning_rate"])
    values = best.pivot_table("val", "activation", "learning_rate", dropna=False).reindex(run.order)
    columns: list[Any] = list(values.columns)
    edges_x, edges_y = np.arange(len(columns) + 1) - 0.5, np.arange(len(run.order) + 1) - 0.5
    mesh = axes.pcolormesh(edges_x, edges_y, np.ma.masked_invalid(values), cmap="cividis", norm=norm)
    axes.set_xticks(range(len(columns)), [three_digits(column) for column in columns])
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.spines[:].set_visible(False)
    for trial in best[best.activation.isin(run.order)].itertuples():
        x, y = columns.index(trial.learning_rate), run.order.index(str(trial.activation))
        _write_trial(axes, x, y, trial, mesh.cmap, norm)


def _write_trial(axes: Axes, x: int, y: int, trial: Any, colours: Colormap, norm: Normalize) -> None:
    colour = MUTED
    if math.isfinite(trial.val):
        red, green, blue, _ = colours(norm(trial.val))
        colour = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
    lost = "all" if trial.missing == trial.n else f"{trial.missing:.0f}/{trial.n:.0f}"
    text = f"{lost} diverged" if trial.missing else short_number(trial.val)
    size, shift = (5.5 if trial.missing else 7), (0.14 if trial.n_chosen else 0)
    write_in_cell(axes, x - shift, y, text, color=colour, fontsize=size)
    if trial.n_chosen:
        badge = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "black", "linewidth": 0.6}
        write_in_cell(axes, x + 0.3, y, str(trial.n_chosen), color="black", fontsize=6, bbox=badge)


def _dots(axes: Axes, run: FinishedRun, scores: pd.DataFrame, norm: Normalize) -> None:
    y = scores.activation.map({name: place for place, name in enumerate(run.order)}).to_numpy(dtype=float)
    x, is_known = scores.learning_rate.to_numpy(), np.isfinite(scores.val.to_numpy())
    is_chosen = scores.n_chosen.to_numpy() > 0
    axes.set_xscale("log")
    coloured: Any = {"c": scores.val[is_known], "cmap": "cividis", "norm": norm}
    axes.scatter(x[is_known], y[is_known], s=34, linewidth=0, zorder=2, **coloured)
    axes.scatter(x[~is_known], y[~is_known], marker="x", color=MUTED, s=22, linewidth=0.9, zorder=2)
    axes.scatter(x[is_chosen], y[is_chosen], s=78, facecolor="none", edgecolor=INK, linewidth=1, zorder=3)
    axes.xaxis.set_major_formatter(lambda value, _: three_digits(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="y")
    axes.spines["left"].set_visible(False)
