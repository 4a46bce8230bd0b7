"""The comparison in TensorBoard, written from a run's frames.

What lies under `tensorboard/`, and how large it can get:

- `<activation>/`, one run an activation: mean and spread of the training and validation scores of its best learning
  rate. One file of 12 tags and at most `MAX_POINTS` steps, under 0.3 MB. The first one also holds the layout of the
  Custom Scalars tab: all activations in one picture, and one picture an activation.
- `settings/<activation> <rate>/`, one run a setting: its HParams row and final scores. One file under 8 kB, for at
  most `MAX_SETTINGS` settings.

So 24 activations x 6 rates make 168 files of under 9 MB in all, and usually under 2. Files have fixed names: writing
again replaces them.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from actlab.records import RunDirectory, write_atomically
from actlab.report.answer import METRIC_NAMES, rate
from actlab.report.event_files import COMPARISON_FILE, LIVE_FILE, EventFile, margin_layout, run_name

# Steps of a curve; longer ones are thinned evenly. TensorBoard itself keeps 1000 of a tag.
MAX_POINTS = 500
# Rows of the HParams tab; some 250 runs make TensorBoard sluggish. The best by validation are kept.
MAX_SETTINGS = 200
# TensorBoard sorts runs by name and this one comes after the activations'.
SETTINGS = "~settings"
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
) -> None:
    """Write the whole comparison; what an earlier call or a live callback left there is replaced.

    Args:
        run: Its `tensorboard` directory is written.
        members: Rows of `MemberRecord`.
        curves: Rows of `CurveRecord`.
        summary: Names the metric and, in its ranking, each activation's best learning rate.
        extra: Trial to further hyper-parameters (dropout, weight decay); those that differ become columns.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    shutil.rmtree(run.tensorboard / SETTINGS, ignore_errors=True)
    for old in (*run.tensorboard.glob(f"*/{LIVE_FILE}"), *run.tensorboard.glob(f"*/{COMPARISON_FILE}")):
        old.unlink()
    best = {row["activation"]: row["learning_rate"] for row in summary["ranking"] if row["learning_rate"] is not None}
    for place, (activation, learning_rate) in enumerate(best.items()):
        chosen = curves[(curves["activation"] == activation) & (curves["learning_rate"] == learning_rate)]
        points = curve_points(chosen, summary["metric"], activation)
        layout = _layout(list(best), summary["metric"]) if place == 0 else None
        _write(run.tensorboard / run_name(activation), points, [layout] if layout is not None else [])
    settings = setting_rows(members, summary["metric"], extra or {})
    for name, (summaries, scores) in _hparams(settings, summary["metric"]).items():
        _write(run.tensorboard / SETTINGS / run_name(name), {0: scores}, summaries)


def _write(directory: Path, points: Mapping[int, Mapping[str, float]], summaries: list[Any]) -> None:
    def fill(temporary: Path) -> None:
        with EventFile(temporary) as events:
            for summary in summaries:
                events.add_summary(summary)
            for step, values in points.items():
                events.add_scalars(step, values)

    write_atomically(directory / COMPARISON_FILE, fill)


def curve_points(curves: pd.DataFrame, metric: str, activation: str) -> dict[int, dict[str, float]]:
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
    points: dict[int, dict[str, float]] = {}
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
    rows.loc[is_repeated, "name"] += [f" trial {trial}" for trial in rows.index[is_repeated]]
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
