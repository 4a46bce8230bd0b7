"""A run in TensorBoard, written without torch and without a thread: its comparison, its figures, and live curves.

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
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import pandas as pd

from actlab.data.target import Target
from actlab.report.finished import one_curve
from actlab.report.words import three_digits
from actlab.run_files import RunDirectory, write_atomically
from actlab.verdict.summary import choose

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

MEASURES = ("dead", "saturated", "mean_output", "gradient_ratio")
MOMENTS = ("start", "best", "end")
# what names the trial that validation chose for an activation and test fold
KEYS = ["activation", "repeat", "fold", "trial"]

# step to tag to value
Points = dict[int, dict[str, float]]
# step, tag, edges and counts
Histogram = tuple[int, str, list[float], list[int]]
# trial to hyper-parameters besides activation and learning rate
Extra = Mapping[int, Mapping[str, str | float | bool | None]]


class EventFile:
    """An event file that TensorBoard reads, truncated when opened.

    One `Event` holds all scalars of a step, so a value costs its tag and some 10 bytes.

    Args:
        path: Its name; must contain `events.out.tfevents`.
    """

    def __init__(self, path: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        path.parent.mkdir(parents=True, exist_ok=True)
        self.records = RecordWriter(path.open("wb"))
        self._write(file_version="brain.Event:2")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by tag at a step; those that are not finite are left out, for a chart cannot show them."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=t, simple_value=v) for t, v in values.items() if math.isfinite(v)]
        if points:
            self._write(step=step, summary=Summary(value=points))

    def add_histogram(self, step: int, tag: str, edges: Sequence[float], counts: Sequence[float]) -> None:
        """Counts (n,) between ascending edges (n + 1,); moments are those of the middles of the bins."""
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        middles = (np.asarray(edges[:-1]) + np.asarray(edges[1:])) / 2
        histogram = HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=float(middles @ counts),
            sum_squares=float(middles**2 @ counts),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, histo=histogram)]))

    def add_image(self, step: int, tag: str, png: bytes) -> None:
        """A picture, as the bytes of its PNG file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        # the header of a PNG file names its size in points, and the kind of colour
        width, height = struct.unpack(">II", png[16:24])
        # grey, palette, RGB, grey with alpha, RGBA
        channels = {0: 1, 4: 2, 6: 4}.get(png[25], 3)
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def add_summary(self, summary: Any) -> None:
        """A summary protobuf, as plugins make them."""
        self._write(summary=summary)

    def flush(self) -> None:
        """Let a TensorBoard that is watching see everything so far."""
        self.records.flush()

    def close(self) -> None:
        self.records.close()


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
    health_of = _health_points(health, members, summary)
    pictures = _histograms(pre_activations, members, summary)
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

    Each value has two tags, one shared by all activations and one of its own, because a chart shows every run that has
    its tag.
    """
    kept = one_curve(curves)
    stride = math.ceil(len(kept) / MAX_POINTS) or 1
    row: Any
    points: Points = {}
    for row in kept.iloc[::stride].itertuples():
        values: dict[str, float] = {}
        for part, mean, sd in (("val", row.val_mean, row.val_sd), ("train", row.train_mean, row.train_sd)):
            for tag in (f"{part}/{metric}", _own_tag(activation, part)):
                values |= {tag: mean, f"{tag}_low": mean - sd, f"{tag}_high": mean + sd}
        points[int(row.epoch)] = values
    return points


def _health_points(health: pd.DataFrame | None, members: pd.DataFrame, summary: Mapping[str, Any]) -> dict[str, Points]:
    """Activation to step to tag to value: means over the networks that the ranking rests on.

    Steps are epochs: 0 for the initial weights, the mean best epoch, and the mean epoch of the end, which is left out
    where it is the best. Gradients are averaged as ratios (geometric mean), as in the report.
    """
    if health is None or health.empty:
        return {}
    members = _chosen(members, summary)
    health = health.merge(members[KEYS].drop_duplicates(), on=KEYS)
    found: dict[str, Points] = {}
    for activation, rows in health[health.layer <= MAX_LAYERS].groupby("activation"):
        steps = _steps(members[members.activation == activation])
        points = found.setdefault(str(activation), {})
        for (moment, layer), own in rows.groupby(["moment", "layer"]):
            values = {f"health_{name}/layer_{layer}": _mean(own[name], name) for name in MEASURES}
            if moment != "end" or steps["end"] > steps["best"]:
                points.setdefault(steps[str(moment)], {}).update(values)
    return found


def _steps(members: pd.DataFrame) -> dict[str, int]:
    best = max(1, round(float(members.best_epoch.mean())))
    return {"start": 0, "best": best, "end": round(float(members.epochs.mean()))}


def _mean(values: "pd.Series[float]", name: str) -> float:
    """nan, which is not written, where there is no finite value."""
    array = values.to_numpy(dtype=float)
    is_ratio = name == "gradient_ratio"
    array = array[np.isfinite(array) & (array > 0)] if is_ratio else array[np.isfinite(array)]
    if not len(array):
        return float("nan")
    return float(np.exp(np.log(array).mean()) if is_ratio else array.mean())


def _histograms(bins: pd.DataFrame | None, members: pd.DataFrame, summary: Mapping[str, Any]) -> list[Histogram]:
    """The winner's pre-activations, a tag a hidden layer, at the steps of its health; all networks of a fit count."""
    if bins is None or bins.empty:
        return []
    own = _chosen(members, summary)
    steps = _steps(own[own.activation == summary["winner"]] if summary.get("winner") else own)
    shown = bins[bins.layer <= MAX_LAYERS].sort_values(["layer", "low"])
    return [
        (
            steps[moment],
            f"pre_activations/layer_{layer}",
            [*rows.low.tolist(), float(rows.high.iloc[-1])],
            rows["count"].tolist(),
        )
        for moment in MOMENTS
        for layer, rows in shown[shown.moment == moment].groupby("layer")
    ]


def _chosen(members: pd.DataFrame, summary: Mapping[str, Any]) -> pd.DataFrame:
    """The networks that the ranking rests on: of the trials that validation chose; all of a fit."""
    return members.merge(choose(members)[KEYS], on=KEYS) if summary.get("ranking") else members


def _own_tag(activation: str, part: str) -> str:
    # grouped under one heading, after train and val
    return f"zoom/{activation}_{part}"


def _layout(activations: list[str], metric: str) -> Any:
    name = Target.of_metric(metric).metric_name
    band = "mean ± 1 standard deviation over networks"
    together = {f"validation {name}, {band}": [f"val/{metric}"], f"training {name}, {band}": [f"train/{metric}"]}
    alone = {
        f"{activation}: validation and training {name}": [_own_tag(activation, "val"), _own_tag(activation, "train")]
        for activation in activations
    }
    titles = {"All activations, each at its best learning rate": together, "One activation": alone}
    # TensorBoard 2.21 shows the charts of a category last first
    return _margin_layout({title: dict(reversed(charts.items())) for title, charts in titles.items()})


def _margin_layout(categories: Mapping[str, Mapping[str, Iterable[str]]]) -> Any:
    """Custom-scalars layout: category to chart title to tags, each drawn with the band from `<tag>_low` to
    `<tag>_high`."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    def chart(title: str, tags: Iterable[str]) -> Any:
        bands = [
            layout_pb2.MarginChartContent.Series(value=tag, lower=f"{tag}_low", upper=f"{tag}_high") for tag in tags
        ]
        return layout_pb2.Chart(title=title, margin=layout_pb2.MarginChartContent(series=bands))

    layout = layout_pb2.Layout(
        category=[
            layout_pb2.Category(title=title, chart=[chart(*entry) for entry in charts.items()])
            for title, charts in categories.items()
        ]
    )
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME)
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])


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
    pairs = zip(rows["activation"], rows["learning_rate"], strict=True)
    rows.insert(0, "name", [f"{activation} {three_digits(learning_rate)}" for activation, learning_rate in pairs])
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
