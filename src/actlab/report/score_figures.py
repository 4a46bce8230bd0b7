"""Figures of scores: the ranking, what each learning rate gave, and differences from the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter

from actlab.data.splits import fold_sizes
from actlab.printed_tables import is_number
from actlab.report.drawing import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    PAPER,
    ROW,
    Look,
    Row,
    forest,
    label_rows,
    look,
    sheet,
    short,
    write_in_cell,
)
from actlab.report.finished import FinishedRun
from actlab.report.words import added_rates, at_most, compared, fixed, score_decimals, short_number, three_digits
from actlab.verdict.summary import repeat_scores, winner_row

# Learning rates whose labels have room side by side.
MOST_LEVEL = 7
# How many times further off than all that is in question a difference may lie and be drawn whole.
FARTHEST = 4
# Rows of a heat map beside which the label of its colours has room.
FEWEST_ROWS = 4
REFERENCES = {"ridge": "ridge regression", "hist_gradient_boosting": "gradient boosting"}


def ranking(run: FinishedRun) -> Figure | None:
    """Mean test score of each activation with its repeats, and the references below. No intervals: those of single
    scores say how hard the folds are, and are read as if they told activations apart."""
    if not run.is_ranked:
        return None
    best, repeats = winner_row(run.summary), repeats_of(run)
    decimals = score_decimals(run.summary)
    rows = [
        Row(
            short(str(row["activation"])),
            row["mean"] if is_number(row["mean"]) else math.nan,
            *(math.nan, math.nan),
            look(str(row["activation"])),
            fixed(row["mean"], decimals),
            values=tuple(repeats.get(str(row["activation"]), ())),
        )
        for row in run.ranking_rows
    ]
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
    axes.set_xlabel(f"test {run.target.unit}; lower is better")
    return figure


def repeats_of(run: FinishedRun) -> dict[str, list[float]]:
    """Activation to the scores of its repeats; nothing where the summary does not say how large the folds were."""
    p = run.part("protocol")
    if not p.get("n_rows") or not p.get("folds"):
        return {}
    known = p.get("fold_sizes")
    sizes = known.__getitem__ if known else fold_sizes(int(p["n_rows"]), int(p["folds"]))
    return repeat_scores(run.members, sizes, run.command == "compare")


def differences(run: FinishedRun) -> Figure | None:
    """Difference of each activation from the best, in percent, with its simultaneous interval and its word; None where
    nothing was tested."""
    best, found = winner_row(run.summary), compared(run.summary)
    if best is None or not found:
        return None
    name = str(best["activation"])
    first = Row(short(name), 0.0, math.nan, math.nan, look(name), "best" + _cost(best))
    rows, region = [_difference(found[one]) for one in run.order if one in found], run.part("protocol").get("rope")
    rope = 100 * region if is_number(region) else 0.0
    figure, axes = forest([first, *rows], ("activation", "verdict"), _near(rows, rope))
    axes.axvspan(-rope, rope, color=GRID, zorder=0, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_xlabel(f"{run.target.metric_name} worse than that of {short(name)}, %")
    return figure


def _near(rows: Sequence[Row], rope: float) -> tuple[float, float]:
    """Limits that show the region of practical equivalence and whole intervals of all that are not settled, and of
    those that are worse the ones that are not many times further off, or else the nearest third."""
    nearest = sorted((row for row in rows if math.isfinite(row.high)), key=lambda row: row.high)
    edge = FARTHEST * max([rope, *(row.high for row in nearest if not row.is_filled)])
    shown = [row for row in nearest if row.high <= edge] or nearest[: math.ceil(len(nearest) / 3)]
    left, right = min([-rope, *(row.low for row in shown)]), max([rope, *(row.high for row in shown)])
    margin = 0.04 * (right - left) or 1.0
    return left - margin, right + margin


def _difference(found: Mapping[str, Any]) -> Row:
    numbers = (found.get(key) for key in ("difference", "ci_low", "ci_high"))
    value, low, high = (100 * number if is_number(number) else math.nan for number in numbers)
    verdict, than = str(found["verdict"]), found.get("shown_against")
    note = f"{verdict} than {short(str(than))}" if than else verdict + _cost(found)
    is_settled, name = verdict != "not settled", str(found["b"])
    return Row(short(name), value, low, high, look(name), note, is_settled, lost="diverged")


def _cost(found: Mapping[str, Any]) -> str:
    cost = found.get("cost_at_most")
    return f", at most {at_most(cost)}" if is_number(cost) and cost > 0 else ""


def learning_rates(run: FinishedRun) -> Figure | None:
    """Mean validation score by activation and learning rate, what is ranked marked: a grid's cells, a search's dots."""
    if not run.is_ranked:
        return None
    figure = sheet(0.95 + ROW * 1.08 * max(FEWEST_ROWS, len(run.order)))
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
    """One row a setting: mean validation score of its finite members, how many diverged, whether all were stopped
    early, and whether it is the one that is ranked. In a race of the sweep, the one repeat that all settings have."""
    members, chosen = run.members, run.chosen
    if (members.repeat == 0).any() and run.command == "compare":
        members = members[members.repeat == 0]
    key = ["activation", "learning_rate"] if run.is_grid else ["trial", "activation", "learning_rate"]
    pruned = members.pruned.astype(bool)
    val = members.val_score.where(np.isfinite(members.val_score) & ~pruned)
    members = members.assign(val=val, missing=members.diverged.astype(bool), stopped=pruned)
    aggregated = {"val": ("val", "mean"), "missing": ("missing", "sum"), "stopped": ("stopped", "all")}
    scores = members.groupby(key).agg(**aggregated, n=("missing", "size")).reset_index()
    is_ranked = pd.MultiIndex.from_frame(scores[key]).isin(pd.MultiIndex.from_frame(chosen[key]))
    return scores.assign(is_chosen=is_ranked)


def _robust_norm(scores: "pd.Series[float]") -> Normalize:
    """Logarithmic from the best score to one that most trials stay under, between 1.25 and 3 times the best."""
    finite = scores[np.isfinite(scores) & (scores > 0)]
    if finite.empty:
        return LogNorm(1, 2)
    best = float(finite.min())
    return LogNorm(best, min(max(float(finite.quantile(0.85)), best * 1.25), best * 3))


def _grid(axes: Axes, run: FinishedRun, scores: pd.DataFrame, norm: Normalize) -> None:
    values = scores.pivot_table("val", "activation", "learning_rate", dropna=False).reindex(run.order)
    columns: list[Any] = list(values.columns)
    edges_x, edges_y = np.arange(len(columns) + 1) - 0.5, np.arange(len(run.order) + 1) - 0.5
    mesh = axes.pcolormesh(edges_x, edges_y, np.ma.masked_invalid(values), cmap="cividis", norm=norm)
    added = added_rates(run)
    ticks = [("+" if column in added else "") + three_digits(column) for column in columns]
    axes.set_xticks(range(len(columns)), ticks, rotation=90 if len(columns) > MOST_LEVEL else 0)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.spines[:].set_visible(False)
    for trial in scores[scores.activation.isin(run.order)].itertuples():
        _write_trial(
            axes, columns.index(trial.learning_rate), run.order.index(str(trial.activation)), trial, mesh, norm
        )


def _write_trial(axes: Axes, x: int, y: int, trial: Any, mesh: QuadMesh, norm: Normalize) -> None:
    colour, text, size = MUTED, short_number(trial.val), 7.0
    if math.isfinite(trial.val):
        red, green, blue, _ = mesh.cmap(norm(trial.val))
        colour = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
    if trial.missing:
        how_many = "" if trial.missing == trial.n else f"{trial.missing:.0f}/{trial.n:.0f}\n"
        text, size = f"{how_many}diverged", 5.0
    elif trial.stopped:
        text, size = "stopped", 5.5
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=GRID, linewidth=0))
    write_in_cell(axes, x, y, text, color=colour, fontsize=size)
    if trial.is_chosen:
        for frame, width in ((PAPER, 2.6), (INK, 1.2)):
            own: Any = {"fill": False, "edgecolor": frame, "linewidth": width, "zorder": 4}
            axes.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, **own))


def _dots(axes: Axes, run: FinishedRun, scores: pd.DataFrame, norm: Normalize) -> None:
    y = scores.activation.map({name: place for place, name in enumerate(run.order)}).to_numpy(dtype=float)
    x, is_known = scores.learning_rate.to_numpy(), np.isfinite(scores.val.to_numpy())
    is_chosen = scores.is_chosen.to_numpy()
    axes.set_xscale("log")
    coloured: Any = {"c": scores.val[is_known], "cmap": "cividis", "norm": norm}
    axes.scatter(x[is_known], y[is_known], s=34, linewidth=0, zorder=2, **coloured)
    axes.scatter(x[~is_known], y[~is_known], marker="x", color=MUTED, s=22, linewidth=0.9, zorder=2)
    axes.scatter(x[is_chosen], y[is_chosen], s=78, facecolor="none", edgecolor=INK, linewidth=1, zorder=3)
    axes.xaxis.set_major_formatter(lambda value, _: three_digits(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="y")
    axes.spines["left"].set_visible(False)


def what_matters(run: FinishedRun) -> Figure | None:
    """Shares of the variation of the score with their intervals, a bar a source; None where they are not known."""
    rows = run.summary.get("what_matters")
    if not rows:
        return None
    figure = sheet(0.6, n_rows=len(rows))
    axes = figure.add_subplot()
    shares = [100 * row["share"] for row in rows]
    axes.barh(range(len(rows)), shares, height=0.6, color=PALETTE[0])
    for place, row in enumerate(rows):
        low, high = 100 * row["ci_low"], 100 * row["ci_high"]
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2, solid_capstyle="butt", zorder=3)
        text: Any = {"textcoords": "offset points", "va": "center", "color": INK}
        axes.annotate(f"{shares[place]:.0f} %", (high, place), (5, 0), **text)
    label_rows(axes, [row["source"] for row in rows])
    axes.set_xlim(0, 1.12 * max(100 * row["ci_high"] for row in rows))
    axes.grid(True, axis="x")
    axes.set_xlabel("share of the variation of the score, %, and 95 % interval")
    return figure
