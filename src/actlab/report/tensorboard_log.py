"""The comparison in TensorBoard, written from a run's frames.

What lies under `tensorboard/`, and how large it can get:

- `<activation>/`, one run an activation: mean and spread of the training and validation scores of its best learning
  rate, and the health of its hidden layers at the start, at the best epoch and at the end. One file of 12 tags at no
  more than `MAX_POINTS` steps, and 4 tags a layer at 3 steps: under 0.3 MB. The winner's also holds the histograms of
  its pre-activations, 2 of 40 bins a layer; the first one's the layout of the Custom Scalars tab: all activations in
  one picture, and one picture an activation.
- `~settings/<activation> <rate>/`, one run a setting: its HParams row and final scores. One file under 8 kB, for at
  most `MAX_SETTINGS` settings.
- `~figures/`, the report's figures as images, and Optuna's. One file of at most `MAX_FIGURES_BYTES`.

So 24 activations x 6 rates make 169 files of under 13 MB in all, and usually under 3. Files have fixed names: writing
again replaces them.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actlab.records import RunDirectory, write_atomically
from actlab.report.answer import METRIC_NAMES, rate
from actlab.report.event_files import (
    COMPARISON_FILE,
    FIGURES_FILE,
    LIVE_FILE,
    WORKER_PREFIX,
    EventFile,
    margin_layout,
    run_name,
)
from actlab.report.tensorboard_layers import Histogram, Points, health_points, histograms

# Steps of a curve; longer ones are thinned evenly. TensorBoard itself keeps 1000 of a tag.
MAX_POINTS = 500
# Rows of the HParams tab; some 250 runs make TensorBoard sluggish. The best by validation are kept.
MAX_SETTINGS = 200
# TensorBoard sorts runs by name and this one comes after the activations'.
SETTINGS = "~settings"
FIGURES = "~figures"
# Figures that would go beyond this are left out.
MAX_FIGURES_BYTES = 4_000_000
# What to put after the `#` of TensorBoard's address: with more than 40 runs, its Custom Scalars tab switches all of
# them off unless the runs are filtered to fewer, here to the activations (the regular expression ^[^~]).
FRAGMENT = "custom_scalars&regexInput=%5E%5B%5E~%5D"

Extra = Mapping[int, Mapping[str, str | float | bool | None]]


def write_comparison(
    run: RunDirectory,
    members: pd.DataFrame,
    curves: pd.DataFrame,
    summary: Mapping[str, Any],
    extra: Extra | None = None,
    health: pd.DataFrame | None = None,
    pre_activations: pd.DataFrame | None = None,
) -> None:
    """Write the whole comparison; what an earlier call or a live callback left there is replaced.

    Args:
        run: Its `tensorboard` directory is written.
        members: Rows of `MemberRecord`.
        curves: Rows of `CurveRecord`.
        summary: Names the metric and, in its ranking, each activation's best learning rate; a fit has no ranking, and
            every activation in it the one rate it was trained with.
        extra: Trial to further hyper-parameters (dropout, weight decay); those that differ become columns.
        health: Rows of `HealthRecord`.
        pre_activations: Rows of `BinRecord`, of the winner.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    _clear(run.tensorboard)
    metric, best = summary["metric"], _best_rates(members, summary)
    health_of = health_points(health, members, bool(summary.get("ranking")))
    pictures = histograms(pre_activations, members, summary)
    for place, (activation, learning_rate) in enumerate(best.items()):
        chosen = curves[(curves["activation"] == activation) & (curves["learning_rate"] == learning_rate)]
        points = _merged(curve_points(chosen, metric, activation), health_of.get(activation, {}))
        layout = [_layout(list(best), metric)] if place == 0 else []
        own = pictures if activation == (summary.get("winner") or activation) else []
        _write(run.tensorboard / run_name(activation), points, layout, own)
    settings = setting_rows(members, metric, extra or {})
    for name, (summaries, scores) in _hparams(settings, metric).items():
        _write(run.tensorboard / SETTINGS / run_name(name), {0: scores}, summaries)


def _clear(directory: Path) -> None:
    for name in (SETTINGS, FIGURES):
        shutil.rmtree(directory / name, ignore_errors=True)
    for workers in directory.glob(f"{WORKER_PREFIX}*"):
        shutil.rmtree(workers, ignore_errors=True)
    for old in (*directory.glob(f"*/{LIVE_FILE}"), *directory.glob(f"*/{COMPARISON_FILE}")):
        old.unlink()


def _best_rates(members: pd.DataFrame, summary: Mapping[str, Any]) -> dict[str, float]:
    """Activation to the learning rate that its run shows, best activation first."""
    if summary.get("ranking"):
        rows = [(row["activation"], row["learning_rate"]) for row in summary["ranking"]]
        return {name: learning_rate for name, learning_rate in rows if learning_rate is not None}
    return dict(zip(members["activation"], members["learning_rate"], strict=True))


def _merged(*parts: Points) -> Points:
    """The values of all parts, step by step."""
    steps = sorted({step for part in parts for step in part})
    return {step: {tag: value for part in parts for tag, value in part.get(step, {}).items()} for step in steps}


def _write(
    directory: Path,
    points: Mapping[int, Mapping[str, float]],
    summaries: Sequence[Any],
    pictures: Sequence[Histogram] = (),
) -> None:
    def fill(temporary: Path) -> None:
        with EventFile(temporary) as events:
            for summary in summaries:
                events.add_summary(summary)
            for step, values in points.items():
                events.add_scalars(step, values)
            for histogram in pictures:
                events.add_histogram(*histogram)

    write_atomically(directory / COMPARISON_FILE, fill)


def write_figures_log(run: RunDirectory) -> None:
    """The PNG files of a run's `figures` as images, small ones first; a run without TensorBoard files stays without.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    if not run.tensorboard.is_dir():
        return
    # a name that begins with a dot is a file that another process has not finished
    paths = sorted(run.figures.glob("[!.]*.png"), key=lambda path: (path.stat().st_size, path.name))

    def fill(temporary: Path) -> None:
        room = MAX_FIGURES_BYTES
        with EventFile(temporary) as events:
            for path in paths:
                png = path.read_bytes()
                # a picture's own bytes, and some hundred for its tag and place
                room -= len(png) + 200
                if room > 0:
                    events.add_image(0, f"figures/{path.stem}", png)

    write_atomically(run.tensorboard / FIGURES / FIGURES_FILE, fill)


def curve_points(curves: pd.DataFrame, metric: str, activation: str) -> Points:
    """Epoch to tag to value, for the trials of one setting: mean, mean - sd and mean + sd.

    Ends where fewer than half of the members still train: a mean over the few that are left says who they are and not
    how training goes on. Each value has two tags, one shared by all activations and one of its own, because a chart
    shows every run that has its tag.
    """
    if curves.empty:
        return {}
    first_trial = curves[curves["trial"] == curves["trial"].min()].sort_values("epoch")
    kept = first_trial[first_trial["members"] * 2 >= first_trial["members"].max()]
    stride = math.ceil(len(kept) / MAX_POINTS)
    points: Points = {}
    for row in kept.iloc[::stride].itertuples():
        values: dict[str, float] = {}
        for part, mean, sd in (("val", row.val_mean, row.val_sd), ("train", row.train_mean, row.train_sd)):
            for tag in (f"{part}/{metric}", _own_tag(activation, part)):
                values |= {tag: mean, f"{tag}_low": mean - sd, f"{tag}_high": mean + sd}
        points[int(row.epoch)] = values
    return points


def _own_tag(activation: str, part: str) -> str:
    # grouped under one heading, after train and val
    return f"zoom/{activation}_{part}"


def _layout(activations: list[str], metric: str) -> Any:
    name = METRIC_NAMES.get(metric, metric)
    band = "mean ± 1 standard deviation over networks"
    together = {f"validation {name}, {band}": [f"val/{metric}"], f"training {name}, {band}": [f"train/{metric}"]}
    alone = {
        f"{activation}: validation and training {name}": [_own_tag(activation, "val"), _own_tag(activation, "train")]
        for activation in activations
    }
    titles = {"All activations, each at its best learning rate": together, "One activation": alone}
    # TensorBoard 2.21 shows the charts of a category last first
    return margin_layout({title: dict(reversed(charts.items())) for title, charts in titles.items()})


def setting_rows(members: pd.DataFrame, metric: str, extra: Extra) -> pd.DataFrame:
    """One row a setting, best validation first: its name, hyper-parameters that differ, and mean final scores.

    Columns `activation` and `learning_rate` are always there; those of `extra` only where values differ and none is
    missing, for one None turns a numeric column into text. Scores are means over the members that have one.
    """
    grouped = members.groupby("trial")
    rows = grouped[["activation", "learning_rate"]].first()
    for key in {key: None for values in extra.values() for key in values}:
        values = [extra.get(int(trial), {}).get(key) for trial in rows.index]
        if None not in values and len(set(values)) > 1:
            rows[key] = values
    hparams = list(rows.columns)
    rows.insert(0, "name", [f"{a} {rate(r)}" for a, r in zip(rows["activation"], rows["learning_rate"], strict=True)])
    is_repeated = rows["name"].duplicated(keep=False)
    names = zip(rows["name"], is_repeated, rows.index, strict=True)
    rows["name"] = [f"{name} trial {trial}" if repeated else name for name, repeated, trial in names]
    rows[f"~final/val_{metric}"] = grouped["val_score"].mean()
    rows[f"~final/test_{metric}"] = grouped["test_score"].mean()
    if members["diverged"].any():
        rows["~final/diverged"] = grouped["diverged"].sum()
    rows = rows.sort_values(f"~final/val_{metric}", na_position="last").head(MAX_SETTINGS)
    rows.attrs["hparams"] = hparams
    return rows


def _hparams(rows: pd.DataFrame, metric: str) -> dict[str, tuple[list[Any], dict[str, float]]]:
    """Setting name to its HParams summaries and final scores; the first setting also declares the columns."""
    from tensorboard.plugins.hparams import summary_v2

    hparams: list[str] = rows.attrs["hparams"]
    scores = [column for column in rows.columns if column.startswith("~final/") and rows[column].notna().any()]
    titles = {f"~final/val_{metric}": "validation", f"~final/test_{metric}": "test", "~final/diverged": "diverged"}
    columns = [summary_v2.HParam(name) for name in hparams]
    metrics = [summary_v2.Metric(tag, display_name=titles[tag]) for tag in scores]
    found: dict[str, tuple[list[Any], dict[str, float]]] = {}
    for row in rows.to_dict("records"):
        summaries = [summary_v2.hparams_pb({name: row[name] for name in hparams}, trial_id=row["name"])]
        if not found:
            summaries.insert(0, summary_v2.hparams_config_pb(columns, metrics))
        found[row["name"]] = (summaries, {tag: float(row[tag]) for tag in scores})
    return found
