"""One point of a curve of growth, in a process of its own: `python -m benchmarks.growth_point` reads them from stdin.

The process imports once and forks for each point, so that a point's peak of memory is its own and does not cost the
seconds of an import. What is measured starts with the CSV, after the imports.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from actlab.data.splits import make_splits
from actlab.data.table import read_table
from actlab.members import Member
from actlab.runs.evaluate import Evaluation, train
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

HIDDEN = (144, 72, 18)
# cells of generated tables: numbers of three decimals, written once each
N_CELLS = 4001


@dataclass(frozen=True)
class Point:
    """One point of a curve of growth: members of each activation, trained on one split of a generated table."""

    members: int = 8
    rows: int = 1000
    columns: int = 20
    activations: tuple[str, ...] = ("relu",)
    epochs: int = 2
    batch: int = 128


def generate(path: Path, n_rows: int, n_columns: int, seed: int = 0) -> None:
    """Write a CSV of numeric columns and a positive target `y`, block by block."""
    generator = np.random.default_rng(seed)
    values = np.linspace(-2, 2, N_CELLS)
    texts = [f"{value:.3f}" for value in values]
    with path.open("w") as file:
        file.write(",".join([*(f"x{i}" for i in range(n_columns)), "y"]) + "\n")
        for start in range(0, n_rows, 1 << 14):
            cells = generator.integers(0, N_CELLS, size=(min(1 << 14, n_rows - start), n_columns))
            first, last = values[cells[:, 0]], values[cells[:, -1]]
            y = np.exp(0.3 * np.abs(first) - 0.2 * last + 0.1 * generator.normal(size=len(cells)))
            lines = (",".join([texts[cell] for cell in row]) for row in cells.tolist())
            file.writelines(f"{line},{target:.4g}\n" for line, target in zip(lines, y.tolist(), strict=True))


class _FirstStep(pl.Callback):
    at = 0.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.at = self.at or time.perf_counter()


def measure_point(point: Point, csv: str) -> dict[str, float]:
    """In a process of its own: seconds from the CSV to the first step, of the training, and the peak of memory."""
    before = peak_bytes()
    started = time.perf_counter()
    data = DataSettings(csv=csv, target="y", batch_size=point.batch)
    table = read_table(data)
    read_at = time.perf_counter()
    protocol = ProtocolSettings(inner=1)
    split = next(iter(make_splits(table.layout, protocol, 0)))
    members = [
        Member(trial, name, 1e-3, split, seed, HIDDEN)
        for trial, name in enumerate(point.activations)
        for seed in range(point.members)
    ]
    optimizer = OptimizerSettings(patience=point.epochs + 1)
    options = {"accelerator": "cpu", "max_epochs": point.epochs}
    first = _FirstStep()
    train(members, Evaluation(data, protocol, optimizer, options), table, [first])
    ended = time.perf_counter()
    return {
        "read_s": read_at - started,
        "first_step_s": first.at - started,
        "train_s": ended - first.at,
        "peak_bytes": peak_bytes(),
        "imported_bytes": before,
    }


def peak_bytes() -> float:
    import resource

    # kilobytes on Linux, bytes on macOS
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def import_the_rest() -> None:
    """What actlab imports at the point of use, so that no fork pays for it."""
    for name in ("sklearn.impute", "sklearn.preprocessing"):
        importlib.import_module(name)


def answers(lines: Iterator[str]) -> Iterator[str]:
    """For each line (a CSV's path and a point as JSON) the figures of a fork that measured it, as JSON."""
    for line in lines:
        csv, given = json.loads(line)
        point = Point(**{**given, "activations": tuple(given["activations"])})
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writer, "w") as out:
                out.write(json.dumps(measure_point(point, csv)))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            text = answer.read()
        _, status = os.waitpid(child, 0)
        if status != 0 or not text:
            raise SystemExit(f"{asdict(point)} ended with status {status}")
        yield text


if __name__ == "__main__":
    import_the_rest()
    for found in answers(iter(sys.stdin.readline, "")):
        print(found, flush=True)
