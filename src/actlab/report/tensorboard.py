"""A run in TensorBoard, written without torch and without a thread: its comparison, its figures, and live curves.

What lies under `tensorboard/`, and how large it can get:

- `<activation>/`, one run an activation: mean and spread of the training and validation scores of its best learning
  rate, 12 tags at no more than `MAX_POINTS` steps, and the health of its hidden layers, 4 tags a layer at the start,
  at the best epoch and at the end: under 0.3 MB. The winner's also holds histograms of its pre-activations, 2 of 40
  bins a layer; the first one's the layout of the Custom Scalars tab.
- `~settings/<activation> <rate>/`, one run a setting: its HParams row and final scores. One file under 8 kB, for at
  most `MAX_SETTINGS` settings.
- `~figures/`, the report's figures as images, and Optuna's. One file of at most `MAX_FIGURES_BYTES`.

So 24 activations x 6 rates make 169 files of under 13 MB in all, and usually under 3. Files have fixed names: writing
again replaces them. What is written are the fields of TensorBoard's protobufs, as dictionaries.
"""

import math
import shutil
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from actlab.data.target import Target
from actlab.report.finished import one_curve
from actlab.report.words import compared, three_digits
from actlab.run_files import RunDirectory, write_atomically
from actlab.verdict.summary import PAIR, choose

# TensorBoard takes any file with `events.out.tfevents` in its name, and reads the files of a run in the order of names.
LIVE_FILE = "events.out.tfevents.1.live"
COMPARISON_FILE = "events.out.tfevents.2.comparison"
FIGURES_FILE = "events.out.tfevents.3.figures"
# Where each of several worker processes writes; no activation's run can have this name.
WORKER_PREFIX = "@worker-"
# TensorBoard sorts runs by name and these come after the activations'.
SETTINGS = "~settings"
FIGURES = "~figures"
# Steps of a curve; longer ones are thinned evenly. TensorBoard itself keeps 1000 of a tag.
MAX_POINTS = 500
# Hidden layers that are shown, from the inputs on: bounds the number of charts.
MAX_LAYERS = 12
# Rows of the HParams tab; some 250 runs make TensorBoard sluggish. The best by validation are kept.
MAX_SETTINGS = 200
# Figures that would go beyond this are left out.
MAX_FIGURES_BYTES = 4_000_000
# What to put after the `#` of TensorBoard's address: with more than 40 runs, its Custom Scalars tab switches all of
# them off unless the runs are filtered to fewer, here to the activations (the regular expression ^[^~]).
FRAGMENT = "custom_scalars&regexInput=%5E%5B%5E~%5D"

# of an activation and a part of the rows; grouped under one heading, after train and val
OWN_TAG = "zoom/{}_{}"

MEASURES = ["dead", "saturated", "mean_output", "gradient_ratio"]
# what names a trial and test fold of the setting that validation chose for an activation
KEYS = ["activation", *PAIR, "trial"]

# step to tag to value
Points = dict[int, dict[str, float]]
# a step, and values of one or several tags: `Summary.Value`, or its fields
Entry = tuple[int, Iterable[Any]]
# trial to hyper-parameters besides activation and learning rate
Extra = Mapping[int, Mapping[str, str | float | bool | None]]


class EventFile:
    """An event file that TensorBoard reads, truncated when opened; its name must contain `events.out.tfevents`.

    One `Event` holds all scalars of a step, so a value costs its tag and some 10 bytes.
    """

    def __init__(self, path: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        path.parent.mkdir(parents=True, exist_ok=True)
        self.records = RecordWriter(path.open("wb"))
        self._write(file_version="brain.Event:2")

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def add(self, step: int, values: Iterable[Any]) -> None:
        """Nothing is written where there is no value."""
        if values := list(values):
            self._write(step=step, summary={"value": values})

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Those that are not finite are left out, for a chart cannot show them."""
        self.add(step, _scalars(values))

    def flush(self) -> None:
        """Let a TensorBoard that is watching see everything so far."""
        self.records.flush()

    def close(self) -> None:
        self.records.close()


def _scalars(values: Mapping[str, float]) -> list[Any]:
    return [{"tag": tag, "simple_value": value} for tag, value in values.items() if math.isfinite(value)]


def run_name(activation: str) -> str:
    """A directory name for any activation; different names stay different."""
    return quote(activation, safe=" =+")


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

    Frames have a row a record (`MemberRecord`, `CurveRecord`, `HealthRecord`; `BinRecord` of the winner). The summary's
    ranking names each activation's best rate; a fit has none, and one rate an activation. Of the hyper-parameters in
    `extra` (dropout, weight decay) those that differ become columns.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    for stale in (SETTINGS, FIGURES, f"{WORKER_PREFIX}*"):
        for directory in run.tensorboard.glob(stale):
            shutil.rmtree(directory, ignore_errors=True)
    for old in (*run.tensorboard.glob(f"*/{LIVE_FILE}"), *run.tensorboard.glob(f"*/{COMPARISON_FILE}")):
        old.unlink()
    metric, shown = summary["metric"], summary.get("ranking") or members.to_dict("records")
    # activation to the learning rate that its run shows, best activation first
    best = {row["activation"]: row["learning_rate"] for row in shown if row["learning_rate"] is not None}
    health_of = _health_points(health, members, summary)
    entries = [_layout(list(best), metric)]
    for activation, learning_rate in best.items():
        chosen = curves[(curves["activation"] == activation) & (curves["learning_rate"] == learning_rate)]
        points = curve_points(chosen, metric, activation)
        for step, values in health_of.get(activation, {}).items():
            points.setdefault(step, {}).update(values)
        entries += [(step, _scalars(points[step])) for step in sorted(points)]
        if activation == (summary.get("winner") or activation):
            entries += _histograms(pre_activations, members, summary)
        _write(run.tensorboard / run_name(activation) / COMPARISON_FILE, entries)
        entries = []
    for name, entries in _hparams(setting_rows(members, summary, extra or {}), metric).items():
        _write(run.tensorboard / SETTINGS / run_name(name) / COMPARISON_FILE, entries)


def _write(path: Path, entries: Iterable[Entry]) -> None:
    def fill(temporary: Path) -> None:
        with closing(EventFile(temporary)) as events:
            for step, values in entries:
                events.add(step, values)

    write_atomically(path, fill)


def write_figures_log(run: RunDirectory) -> None:
    """The PNG files of a run's `figures` as images, small ones first; a run without TensorBoard files stays without.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    if not run.tensorboard.is_dir():
        return
    entries: list[Entry] = []
    room = MAX_FIGURES_BYTES
    # a name that begins with a dot is a file that another process has not finished
    for path in sorted(run.figures.glob("[!.]*.png"), key=lambda path: (path.stat().st_size, path.name)):
        png = path.read_bytes()
        # a picture's own bytes, and some hundred for its tag and place
        room -= len(png) + 200
        if room > 0:
            # the header of a PNG file names its size in points, and the kind of colour: grey, with alpha, RGBA or RGB
            width, height = struct.unpack(">II", png[16:24])
            channels = {0: 1, 4: 2, 6: 4}.get(png[25], 3)
            image = {"height": height, "width": width, "colorspace": channels, "encoded_image_string": png}
            entries.append((0, [{"tag": f"figures/{path.stem}", "image": image}]))
    _write(run.tensorboard / FIGURES / FIGURES_FILE, entries)


def curve_points(curves: pd.DataFrame, metric: str, activation: str) -> Points:
    """Epoch to tag to value, for the trials of one setting: mean, mean - sd and mean + sd.

    Each has two tags, one that all activations share and one of its own: a chart shows every run that has its tag.
    """
    kept, points = one_curve(curves), Points()
    row: Any
    for row in kept.iloc[:: math.ceil(len(kept) / MAX_POINTS) or 1].itertuples():
        values = points.setdefault(int(row.epoch), {})
        for part, mean, sd in (("val", row.val_mean, row.val_sd), ("train", row.train_mean, row.train_sd)):
            for tag in (f"{part}/{metric}", OWN_TAG.format(activation, part)):
                values |= {tag: mean, f"{tag}_low": mean - sd, f"{tag}_high": mean + sd}
    return points


def _health_points(health: pd.DataFrame | None, members: pd.DataFrame, summary: Mapping[str, Any]) -> dict[str, Points]:
    """Activation to step to tag to value: means of the finite values of the networks that the ranking rests on. The end
    is left out where it is the best epoch. Gradients are averaged as ratios (geometric mean), as in the report."""
    if health is None or health.empty:
        return {}
    members = _chosen(members, summary)
    rows = health[health.layer <= MAX_LAYERS].merge(members[KEYS].drop_duplicates(), on=KEYS)
    rows = rows.replace([math.inf, -math.inf], math.nan)
    rows["gradient_ratio"] = np.log(rows.gradient_ratio.where(rows.gradient_ratio > 0))
    means = rows.groupby(["activation", "moment", "layer"])[MEASURES].mean()
    means["gradient_ratio"] = np.exp(means.gradient_ratio)
    found: dict[str, Points] = {}
    for activation, own in means.groupby("activation"):
        steps = _steps(members[members.activation == activation])
        points = found.setdefault(str(activation), {})
        key: Any
        for key, values in own.iterrows():
            _, moment, layer = key
            if moment != "end" or steps["end"] > steps["best"]:
                tags = {f"health_{name}/layer_{layer}": value for name, value in values.items()}
                points.setdefault(steps[moment], {}).update(tags)
    return found


def _steps(members: pd.DataFrame) -> dict[str, int]:
    """Moment to epoch: 0 for the initial weights, the mean best epoch, and the mean last one."""
    best = max(1, round(float(members.best_epoch.mean())))
    return {"start": 0, "best": best, "end": round(float(members.epochs.mean()))}


def _histograms(bins: pd.DataFrame | None, members: pd.DataFrame, summary: Mapping[str, Any]) -> list[Entry]:
    """The winner's pre-activations, a tag a hidden layer, at the steps of its health; all networks of a fit count."""
    if bins is None or bins.empty:
        return []
    own = _chosen(members, summary)
    steps = _steps(own[own.activation == summary["winner"]] if summary.get("winner") else own)
    shown = bins[bins.layer <= MAX_LAYERS].sort_values(["layer", "low"])
    return [
        (step, [{"tag": f"pre_activations/layer_{layer}", "histo": _histogram(rows)}])
        for moment, step in steps.items()
        for layer, rows in shown[shown.moment == moment].groupby("layer")
    ]


def _histogram(rows: pd.DataFrame) -> dict[str, Any]:
    """Of ascending bins that touch; moments are those of their middles."""
    middles, counts = ((rows.low + rows.high) / 2).to_numpy(), rows["count"].to_numpy()
    return {
        "min": rows.low.iloc[0],
        "max": rows.high.iloc[-1],
        "num": counts.sum(),
        "sum": middles @ counts,
        "sum_squares": middles**2 @ counts,
        "bucket_limit": rows.high,
        "bucket": counts,
    }


def _chosen(members: pd.DataFrame, summary: Mapping[str, Any]) -> pd.DataFrame:
    """The networks that the ranking rests on: of the settings that validation chose; all of a fit."""
    return members.merge(choose(members, _is_comparison(summary))[KEYS], on=KEYS) if summary.get("ranking") else members


def _layout(activations: list[str], metric: str) -> Entry:
    """The Custom Scalars tab: charts whose tags are each drawn with the band from `<tag>_low` to `<tag>_high`."""
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    def chart(title: str, *tags: str) -> dict[str, Any]:
        bands = [{"value": tag, "lower": f"{tag}_low", "upper": f"{tag}_high"} for tag in tags]
        return {"title": title, "margin": {"series": bands}}

    name = Target.of_metric(metric).metric_name
    # TensorBoard 2.21 shows the charts of a category last first
    together = [
        chart(f"{title} {name}, mean ± 1 standard deviation over networks", f"{part}/{metric}")
        for title, part in (("training", "train"), ("validation", "val"))
    ]
    alone = [
        chart(f"{own}: validation and training {name}", *(OWN_TAG.format(own, part) for part in ("val", "train")))
        for own in reversed(activations)
    ]
    titles = {"All activations, each at its best learning rate": together, "One activation": alone}
    layout = layout_pb2.Layout(category=[{"title": title, "chart": charts} for title, charts in titles.items()])
    tensor = {"dtype": DT_STRING, "string_val": [layout.SerializeToString()], "tensor_shape": {}}
    value = {"tag": metadata.CONFIG_SUMMARY_TAG, "tensor": tensor, "metadata": metadata.create_summary_metadata()}
    return 0, [value]


def setting_rows(members: pd.DataFrame, summary: Mapping[str, Any], extra: Extra) -> pd.DataFrame:
    """One row a setting, best validation first: its name, hyper-parameters that differ, and its final scores.

    A setting is a trial, in a comparison an activation at a learning rate. Columns `activation` and `learning_rate` are
    always there; those of `extra` only where values differ and none is missing, for one None turns a numeric column
    into text. Validation scores are means over the members that have one, in a race over those of the sweep. Of a
    comparison the settings that were raced alone have test scores, with their verdict and difference.
    """
    metric, is_comparison = summary["metric"], _is_comparison(summary)
    first = members.groupby(["activation", "learning_rate"])["trial"].transform("min")
    members = members.assign(setting=first if is_comparison else members.trial)
    rows = members.groupby("setting")[["activation", "learning_rate"]].first()
    for key in {key: None for values in extra.values() for key in values}:
        values = [extra.get(int(trial), {}).get(key) for trial in rows.index]
        if None not in values and len(set(values)) > 1:
            rows[key] = values
    is_swept = members.repeat == 0 if is_comparison and (members.repeat == 0).any() else members.repeat >= 0
    validation = members[is_swept].groupby("setting")["val_score"].mean()
    if is_comparison:
        rows = _with_verdicts(rows, summary)
    hparams = [name for name in rows.columns if not name.startswith("~")]
    names = rows["activation"] + " " + rows["learning_rate"].map(three_digits)
    rows["name"] = names.where(~names.duplicated(keep=False), names + " trial " + rows.index.astype(str))
    rows[f"~final/val_{metric}"] = validation
    if not is_comparison:
        rows[f"~final/test_{metric}"] = members.groupby("setting")["test_score"].mean()
    if members["diverged"].any():
        rows["~final/diverged"] = members.groupby("setting")["diverged"].sum()
    rows = rows.sort_values(f"~final/val_{metric}", na_position="last").head(MAX_SETTINGS)
    rows.attrs["hparams"] = hparams
    return rows


def _with_verdicts(rows: pd.DataFrame, summary: Mapping[str, Any]) -> pd.DataFrame:
    """Test score, verdict and difference to the best, in percent, of the settings that are ranked."""
    found = compared(summary)
    ranked = {(row["activation"], row["learning_rate"]): row for row in summary["ranking"]}
    own = [ranked.get(key) for key in zip(rows.activation, rows.learning_rate, strict=True)]
    if found:
        stated = [found.get(row["activation"], {"verdict": "best", "difference": 0.0}) if row else {} for row in own]
        rows["verdict"] = [one.get("verdict", "only swept") for one in stated]
        rows["~final/worse_percent"] = [100 * _value(one.get("difference")) for one in stated]
    rows[f"~final/test_{summary['metric']}"] = [_value(row["mean"]) if row else math.nan for row in own]
    return rows


def _value(number: float | None) -> float:
    return math.nan if number is None else number


def _is_comparison(summary: Mapping[str, Any]) -> bool:
    return bool(summary.get("ranking")) and summary.get("command") != "search"


def _hparams(rows: pd.DataFrame, metric: str) -> dict[str, list[Entry]]:
    """Setting name to its HParams row and final scores; the first setting also declares the columns."""
    from tensorboard.plugins.hparams import summary_v2

    hparams: list[str] = rows.attrs["hparams"]
    titles = {f"~final/val_{metric}": "validation", f"~final/test_{metric}": "test"}
    titles |= {"~final/worse_percent": "worse than the best, %", "~final/diverged": "diverged"}
    titles = {tag: title for tag, title in titles.items() if tag in rows and rows[tag].notna().any()}
    metrics = [summary_v2.Metric(tag, display_name=title) for tag, title in titles.items()]
    entries: list[Entry] = [(0, summary_v2.hparams_config_pb(list(map(summary_v2.HParam, hparams)), metrics).value)]
    found: dict[str, list[Entry]] = {}
    for row in rows.to_dict("records"):
        own = summary_v2.hparams_pb({name: row[name] for name in hparams}, trial_id=row["name"])
        found[row["name"]] = [*entries, (0, own.value), (0, _scalars({tag: row[tag] for tag in titles}))]
        entries = []
    return found
