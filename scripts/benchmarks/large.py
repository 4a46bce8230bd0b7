"""Section `large`: a whole comparison on a CSV of a million rows."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import timed_command
from benchmarks.growth_point import generate
from benchmarks.markdown import Section
from benchmarks.plans import Bench

TEXT = """## A large CSV

A comparison as a command, one round; peak memory is that of the process.
"""
LARGE = ["--compare.activations", "[relu, tanh]", "--compare.learning_rates", "[1.0e-3]", "--compare.folds", "2"]
LARGE += ["--compare.protocol", "grid", "--compare.inner", "1", "--compare.repeats", "1"]
LARGE += ["--trainer.max_epochs", "1", "--data.batch_size", "1024"]


def large_comparison(n_rows: int, n_columns: int) -> dict[str, Any]:
    """A whole comparison on a large CSV, as a command."""
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "large.csv"
        generate(csv, n_rows, n_columns)
        shown = ["actlab", "compare", "--data.csv", csv.name, "--data.target", "y", *LARGE]
        command = [sys.executable, "-m", *shown, "--out", str(Path(folder) / "run")]
        command[command.index(csv.name)] = str(csv)
        seconds, peak = timed_command(command)
        size = csv.stat().st_size
    return {
        "rows": n_rows,
        "columns": n_columns,
        "csv_bytes": size,
        "command": " ".join(shown),
        "seconds": seconds,
        "peak_bytes": peak,
    }


def measure(bench: Bench) -> dict[str, Any]:
    if bench.plan.large is None:
        return {"measured": False}
    return large_comparison(*bench.plan.large)


def render(found: dict[str, Any]) -> str:
    return (
        f"`{found['command']}` on {found['rows']:,} rows x {found['columns']} columns ({found['csv_bytes'] / 1e6:,.0f} "
        f"MB): {found['seconds']:.0f} s, peak memory {found['peak_bytes'] / 1e9:.2f} GB.\n"
    )


SECTION = Section(TEXT, measure, render)
