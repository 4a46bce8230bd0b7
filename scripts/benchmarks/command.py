"""Section `comparison`: a whole comparison as users run it, and commands timed from outside."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actlab.data.datamodule import batch_shape
from actlab.model.ensemble import load
from benchmarks.contest import CONTESTANTS, PROCESSES, PROCESSES_TITLE
from benchmarks.frameworks import lightning
from benchmarks.markdown import Section, span, spread, table
from benchmarks.plain_loop import Processes
from benchmarks.plans import Bench
from benchmarks.tasks import Task

TEXT = """## A comparison as users run it

From the command to the answer, everything included (start, reading, report), against a sample of the same members
trained by one Lightning `Trainer` each and by a plain loop in parallel processes, scaled by network epochs: of the
comparison and of the networks in the model that it leaves, whose epochs have more steps, for they train on the
validation rows too. Neither counts preprocessing, statistics, a report or, for Lightning, the start of Python.
"""


def timed_command(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak bytes of a command, with the processes that it waited for."""
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed: {log.read()[-2000:]}")
    return seconds, float(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def network_epochs(run: Path, task: Task) -> tuple[int, int]:
    """Network epochs of a finished comparison, and of the networks in its model as epochs of so many steps.

    The model's train on the validation rows too, which makes their epochs longer.
    """
    batch, of_model = task.settings.batch_size, 0.0
    for one in load(run / "best.ckpt").members:
        rows = task.data[one.member.split].rows
        steps, _ = batch_shape(len(rows.training), batch)
        longer, _ = batch_shape(len(rows.training) + len(rows.validation), batch)
        of_model += one.member.epochs * longer / steps
    return int(pd.read_csv(run / "members.csv").epochs.sum()), round(of_model)


def measure(bench: Bench) -> dict[str, Any]:
    """A comparison from command to answer, and what a sample of its members costs done otherwise."""
    plan, task = bench.plan, bench.tasks["comparison"]
    sample = task.sample(plan.sample)
    command = ["compare", "--config", plan.config, *plan.flags]
    whole: list[float] = []
    others: dict[str, list[float]] = {"lightning": [], PROCESSES: []}
    of_comparison = of_model = 0
    for _ in range(plan.commands):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            seconds, _ = timed_command([sys.executable, "-m", "actlab", *command, "--out", str(run)])
            whole.append(seconds)
            of_comparison, of_model = network_epochs(run, task)
        started = time.perf_counter()
        trained = lightning(task, sample)
        others["lightning"].append((time.perf_counter() - started) / sum(trained.epochs))
        started = time.perf_counter()
        with Processes(task) as processes:
            start_s = time.perf_counter() - started
            trained = processes(task, sample)
        epoch_s = (time.perf_counter() - started - start_s) / sum(trained.epochs)
        others[PROCESSES].append(epoch_s + start_s / (of_comparison + of_model))
    member_epochs = of_comparison + of_model
    return {
        "command": "actlab " + " ".join(command),
        "members": len(task.members),
        "member_epochs": of_comparison,
        "model_epochs": of_model,
        "sample": len(sample),
        "actlab": spread(whole),
        "lightning": spread([member_epochs * epoch_s for epoch_s in others["lightning"]]),
        PROCESSES: spread([member_epochs * epoch_s for epoch_s in others[PROCESSES]]),
    }


def render(found: dict[str, Any]) -> str:
    titles = {"actlab": "actlab", "lightning": CONTESTANTS["lightning"][0], PROCESSES: PROCESSES_TITLE}
    rows = [
        (title, span(found[key]), f"{found[key]['median'] / found['actlab']['median']:.1f} x")
        for key, title in titles.items()
    ]
    return (
        f"`{found['command']}`: {found['members']:,} members, {found['member_epochs']:,} network epochs, and "
        f"as many steps as {found['model_epochs']:,} for the model's networks; the others on a sample of "
        f"{found['sample']} members.\n\n" + table(("", "seconds", "of actlab's"), rows)
    )


SECTION = Section(TEXT, measure, render)
