"""Event files that TensorBoard reads, written without torch and without a thread: whole files, or line by line.

One `Event` holds all scalars of a step, so a value costs its tag and some 10 bytes.
"""

import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

# TensorBoard takes any file with `events.out.tfevents` in its name, and reads the files of a run in the order of names.
LIVE_FILE = "events.out.tfevents.1.live"
COMPARISON_FILE = "events.out.tfevents.2.comparison"
FIGURES_FILE = "events.out.tfevents.3.figures"
# Where each of several worker processes writes; no activation's run can have this name.
WORKER_PREFIX = "@worker-"


class EventFile:
    """One event file, truncated when opened.

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

        width, height = png_size(png)
        # the kind of colour: grey, palette, RGB, grey with alpha, RGBA
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


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height in points, which the header of a PNG file names."""
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def run_name(activation: str) -> str:
    """A directory name for any activation; different names stay different."""
    return quote(activation, safe=" =+")


def margin_layout(categories: Mapping[str, Mapping[str, Iterable[str]]]) -> Any:
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
