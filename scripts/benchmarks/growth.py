"""Section `growth`: time and memory against members, rows, columns and activations."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.growth_point import Point, generate
from benchmarks.markdown import Section, number, table
from benchmarks.plans import Bench

TEXT = """## Growth

Every point is a process of its own on a generated CSV, with the median of up to ROUNDS rounds (a point that takes more
than LONG_S s is measured once). The exponent s is that of time = a + b n^s, where a is the fixed part: 1.0 is linear.
Rows, columns and activations are those of the whole table; peak memory includes the imports.
"""
SCRIPTS = Path(__file__).parents[1]
# points that take longer are measured in one round
LONG_S = 15
ACTIVATIONS = ("relu", "tanh", "sigmoid", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "identity")
GROWTH: dict[str, dict[str, list[Point]]] = {
    "smoke": {
        "members": [Point(n, rows=100, columns=4) for n in (1, 8)],
        "rows": [Point(2, rows=n, columns=4) for n in (100, 1000)],
    },
    "quick": {
        "members": [Point(n) for n in (1, 4, 16, 64, 256, 1024, 4096)],
        "rows": [Point(rows=n) for n in (1000, 4000, 16_000, 64_000, 256_000, 2_000_000)],
        "columns": [Point(columns=n) for n in (10, 40, 160, 640, 2000)],
        "activations": [Point(16, activations=ACTIVATIONS[:n]) for n in (1, 2, 4, 8)],
    },
    "full": {
        "members": [Point(n) for n in (1, 4, 16, 64, 256, 1024, 4096)],
        "rows": [Point(rows=n) for n in (1000, 4000, 16_000, 64_000, 256_000, 1_000_000, 2_000_000)],
        "columns": [Point(columns=n) for n in (10, 40, 160, 640, 2000)],
        "activations": [Point(16, activations=ACTIVATIONS[:n]) for n in (1, 2, 4, 8, 11)],
    },
}


class Measurer:
    """A process that measures points, each in a fork of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.growth_point"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def __call__(self, point: Point) -> dict[str, float]:
        csv = self.folder / f"{point.rows}-{point.columns}.csv"
        if not csv.exists():
            generate(csv, point.rows, point.columns)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(csv), asdict(point)]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            # whatever libraries print lies before
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                return found
        raise RuntimeError(f"{asdict(point)} could not be measured: exit code {self.process.wait()}")

    def close(self) -> None:
        # the end of its input is the end of it
        self.process.communicate()


@contextlib.contextmanager
def measurer() -> Iterator[Measurer]:
    with tempfile.TemporaryDirectory() as folder:
        process = Measurer(Path(folder))
        try:
            yield process
        finally:
            process.close()


def measure(bench: Bench) -> dict[str, Any]:
    """Every curve: its points with median seconds and memory, and the exponents above the fixed part."""
    with measurer() as process:
        axes = {axis: _curve(process, axis, points, bench.plan.rounds) for axis, points in GROWTH[bench.mode].items()}
    return {"rounds": bench.plan.rounds, "axes": axes}


def _curve(process: Measurer, axis: str, points: Sequence[Point], rounds: int) -> dict[str, Any]:
    runs: list[list[dict[str, float]]] = [[] for _ in points]
    for _ in range(rounds):
        for point, own in zip(points, runs, strict=True):
            if not own or own[0]["first_step_s"] + own[0]["train_s"] < LONG_S:
                own.append(process(point))
    rows = [{key: median(run[key] for run in own) for key in own[0]} for own in runs]
    sizes = [size_of(point, axis) for point in points]
    return {
        "points": [
            {"size": n, "n": len(own), **asdict(p), **row}
            for n, p, row, own in zip(sizes, points, rows, runs, strict=True)
        ],
        "slopes": {key: exponent(sizes, [row[key] for row in rows]) for key in ("first_step_s", "train_s")},
    }


def size_of(point: Point, axis: str) -> int:
    value = getattr(point, axis)
    return len(value) if isinstance(value, tuple) else int(value)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """s of values = a + b sizes^s, a >= 0 the fixed part, by least squares of logarithms.

    None for under 4 points, and where the fixed part is so large that values do not double.
    """
    from scipy.optimize import least_squares

    if len(sizes) < 4 or max(values) < 2 * min(values):
        return None
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.asarray(np.logaddexp(p[0], p[1] + p[2] * x) - y)

    start = [y.min(), y.max() - x.max(), 1.0]
    return float(least_squares(residuals, start, loss="soft_l1", f_scale=0.1).x[2])


def render(found: dict[str, Any]) -> str:
    parts = []
    for axis, own in found["axes"].items():
        head = (axis, "CSV read, s", "to the first step, s", "training, s", "peak memory, MB", "of which imports, MB")
        rows = [
            (
                f"{point['size']:,}",
                *(f"{point[key]:.2f}" for key in ("read_s", "first_step_s", "train_s")),
                *(f"{point[key] / 1e6:,.0f}" for key in ("peak_bytes", "imported_bytes")),
            )
            for point in own["points"]
        ]
        fixed = {key: value for key, value in own["points"][0].items() if key in POINT and key != axis}
        slopes = own["slopes"]
        parts.append(
            f"### By {axis} ({', '.join(f'{key} {shown(value)}' for key, value in fixed.items())})\n\n"
            + table(head, rows)
            + f"\nExponent of training {number(slopes['train_s'], '.2f')}, of the time to the first step "
            f"{number(slopes['first_step_s'], '.2f')}.\n"
        )
    return "\n".join(parts)


POINT = ("members", "rows", "columns", "activations", "epochs", "batch")


def shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value:,}"


SECTION = Section(TEXT, measure, render)
