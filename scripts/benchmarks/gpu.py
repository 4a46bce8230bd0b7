"""Section `gpu`: populations on a GPU, the same program with `trainer.accelerator=gpu`.

Nothing here or in actlab names a kind of device: Lightning chooses it, and `torch.accelerator` is asked about it.
`python scripts/bench.py full --sections gpu` measures it alone.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any
from unittest import mock

import torch

from actlab.data.datamodule import batch_shape
from actlab.members import Member
from actlab.networks import population as population_of_stacks
from benchmarks.markdown import Section, table
from benchmarks.plain_loop import plain
from benchmarks.plans import HOUSE_PRICES, Bench
from benchmarks.roofline import SHARES, Machine, shares_of, training_seconds
from benchmarks.stacked import fit_population, vmap
from benchmarks.tasks import N_CORES, Task, article_task, constant_length

TEXT = """## GPU

The same program with `trainer.accelerator=gpu`. `in steps alone` counts training steps only; the rest of a fit this
short is Python's: initial weights, batch orders, and the best weights back from the device. The matrix product's rate
is measured in the same precision. Steps are recorded once and replayed (`src/actlab/networks/steps.py`); the same
training with every kernel launched by itself stands beside it, to the same bits.
"""
POPULATIONS = {"smoke": (4,), "quick": (64, 512, 4096), "full": (64, 512, 2048, 8192, 32_768)}
EPOCHS = {"smoke": 2, "quick": 10, "full": 10}
PRECISIONS = ("32-true", "bf16-mixed")
MATRIX, COPY_FLOATS = 8192, 1 << 28
# Networks of the contestants on the device, and the share of the memory that the largest population is given.
PLAIN_NETWORKS, VMAP_NETWORKS, RACE_NETWORKS = 3, (64, 512), 2048
MEMORY_SHARES = (0.95, 0.9, 0.8, 0.6)


def device_seconds(device: torch.device, work: Any, repeats: int = 5) -> float:
    """Median time of a call on the device, warm and waited for."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def device_limits(device: torch.device, precision: str, size: int = MATRIX, n_floats: int = COPY_FLOATS) -> Machine:
    """Rates of a large matrix product in this precision, and of copies (stacks are far beyond a GPU's caches)."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source, target = torch.ones(n_floats, device=device), torch.empty(n_floats, device=device)
    flops = 2 * size**3 / device_seconds(device, lambda: torch.mm(a, b))
    copy = 8 * n_floats / device_seconds(device, lambda: target.copy_(source))
    return Machine(flops, copy, copy)


def measure(mode: str, csv: str, target: str, accelerator: str = "gpu", whole: Task | None = None) -> dict[str, Any]:
    """Everything of the GPU section; `measured` says whether there was a GPU.

    Args:
        mode: smoke, quick or full.
        csv: The article's table.
        target: Its target.
        accelerator: For Lightning.
        whole: The members of a comparison, which train with and without recorded steps.
    """
    if accelerator == "gpu" and not torch.accelerator.is_available():
        return {"measured": False, "why": "no GPU on this machine"}
    device = (torch.accelerator.current_accelerator() if accelerator == "gpu" else None) or torch.device("cpu")
    is_smoke = mode == "smoke"
    epochs = EPOCHS[mode]
    tasks = {"article": article_task(csv, target, 4, epochs)}
    tasks["batch of 128"] = replace(tasks["article"], settings=replace(tasks["article"].settings, batch_size=128))
    rows = []
    for precision in PRECISIONS:
        limit = device_limits(device, precision, *((64, 1 << 12) if is_smoke else ()))
        for name, task in tasks.items():
            rows += [_row(name, task, count, accelerator, precision, limit, device) for count in POPULATIONS[mode]]
    found = {
        "measured": True,
        "device": _name(device),
        "cores": N_CORES,
        "rows": rows,
        "agreement": {precision: agreement(tasks["article"], accelerator, precision) for precision in PRECISIONS},
    }
    article = replace(tasks["article"], device=device)
    found["race"] = race(article, accelerator, *((1, (2,), 2) if is_smoke else ()))
    found["comparison"] = {} if whole is None else recorded_or_not(whole, accelerator)
    found["largest"] = {} if is_smoke else {own: largest(article, rows, own) for own in PRECISIONS}
    return found


def race(
    task: Task,
    accelerator: str,
    n_plain: int = PLAIN_NETWORKS,
    n_vmap: Sequence[int] = VMAP_NETWORKS,
    n_actlab: int = RACE_NETWORKS,
) -> list[tuple[str, int, float]]:
    """Contestant, networks, networks per minute on the device; each has trained an epoch before."""
    runs: list[tuple[str, int, Callable[[Task, Sequence[Member]], object]]] = [
        ("plain torch loop, one network after the other", n_plain, plain),
        *(("torch.func.vmap, fused optimiser", n, partial(vmap, at_once=n)) for n in n_vmap),
        ("actlab, one population", n_actlab, partial(fit_population, accelerator=accelerator)),
    ]
    found = []
    for title, count, run in runs:
        longest, members = population(task, count)
        run(replace(longest, max_epochs=1), members)
        started = time.perf_counter()
        run(longest, members)
        wait(task.device)
        found.append((title, count, 60 * count / (time.perf_counter() - started)))
    return found


def recorded_or_not(task: Task, accelerator: str) -> dict[str, float]:
    """Seconds that the members of a whole comparison train: recorded, launched one by one, and on the CPU."""

    def seconds(where: str) -> float:
        started = time.perf_counter()
        fit_population(task, task.members, accelerator=where)
        return time.perf_counter() - started

    found = {"recorded and replayed": seconds(accelerator)}
    with mock.patch.object(population_of_stacks, "recorder", return_value=None):
        found["launched one by one"] = seconds(accelerator)
    return {**found, "on the CPU": seconds("cpu")}


def _name(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    properties = torch.get_device_module(device).get_device_properties(device)
    return str(getattr(properties, "name", device.type))


def population(task: Task, count: int) -> tuple[Task, tuple[Member, ...]]:
    """So many ReLU networks of different seeds that train to the last epoch."""
    longest = constant_length(task, task.max_epochs, "relu")
    first = longest.members[0]
    members = tuple(replace(first, seed=seed) for seed in range(count))
    return longest, members


def _row(
    name: str, task: Task, count: int, accelerator: str, precision: str, limit: Machine, device: torch.device
) -> dict[str, Any]:
    """One population: networks per minute, shares of the limits, memory."""
    task, members = population(task, count)
    found: dict[str, Any] = {"task": name, "precision": precision, "members": count}
    if device.type != "cpu":
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats()
    try:
        with training_seconds() as epochs:
            started = time.perf_counter()
            fit_population(task, members, accelerator=accelerator, precision=precision)
            wait(device)
            seconds = time.perf_counter() - started
    except torch.OutOfMemoryError:
        return {**found, "out_of_memory": True}
    steps, _ = batch_shape(len(next(iter(task.data.values())).rows.training), task.settings.batch_size)
    # the first epoch compiles kernels and allocates
    step_s = median(epochs[1:] or epochs) / steps / count
    row = {
        **found,
        **shares_of(task, members, step_s, limit),
        "networks_per_minute": 60 * count / seconds,
        "steps_alone_per_minute": 60 * count / (median(epochs[1:] or epochs) * task.max_epochs),
        "peak_bytes": torch.accelerator.max_memory_allocated() if device.type != "cpu" else 0,
        "limits": asdict(limit),
    }
    print(f"gpu: {name}, {precision}, {count} members, {seconds:.1f} s", file=sys.stderr)
    return row


def agreement(task: Task, accelerator: str, precision: str) -> dict[str, float]:
    """Largest difference of validation scores between CPU in 32 bits and the accelerator, over the task's members."""
    cpu = [outcome.val_curve for outcome in fit_population(task, task.members)]
    gpu = fit_population(task, task.members, accelerator=accelerator, precision=precision)
    pairs = list(zip(cpu, (outcome.val_curve for outcome in gpu), strict=True))
    return {
        "first_epoch": max(abs(a[0] - b[0]) for a, b in pairs),
        "last_epoch": max(abs(a[-1] - b[-1]) for a, b in pairs),
    }


def largest(task: Task, rows: Sequence[dict[str, Any]], precision: str) -> int:
    """The largest population that trains for an epoch, by what the measured ones took of the memory; 0 if none.

    Members repeat 256 seeds: their memory is the same, and drawing initial weights does not take minutes.
    """
    one, two = [row for row in rows if row["task"] == "article" and row["precision"] == precision][-2:]
    member_bytes = (two["peak_bytes"] - one["peak_bytes"]) / (two["members"] - one["members"])
    torch.accelerator.empty_cache()
    free, _ = torch.accelerator.get_memory_info()
    task = replace(task, max_epochs=1)
    for share in MEMORY_SHARES:
        count = int(share * free / member_bytes)
        longest, members = population(task, count)
        print(f"gpu: {precision}, one epoch of {count} members", file=sys.stderr)
        try:
            fit_population(
                longest, [replace(m, seed=m.seed % 256) for m in members], accelerator="gpu", precision=precision
            )
        except RuntimeError:
            # memory that runs out while a step is recorded is not always called so
            gc.collect()
            torch.accelerator.empty_cache()
            continue
        return count
    return 0


def render(found: dict[str, Any]) -> str:
    head = ("network", "precision", "members", "networks a minute", "in steps alone", "peak memory, MB")
    rows = [
        (row["task"], row["precision"], f"{row['members']:,}", "out of memory", *["-"] * 6)
        if row.get("out_of_memory")
        else (
            row["task"],
            row["precision"],
            f"{row['members']:,}",
            f"{row['networks_per_minute']:,.0f}",
            f"{row['steps_alone_per_minute']:,.0f}",
            f"{row['peak_bytes'] / 1e6:,.0f}",
            *(f"{row[key]:.0%}" for key in SHARES[:3]),
        )
        for row in found["rows"]
    ]
    agreement = [
        f"- {precision}: validation scores differ from the CPU's by at most {own['first_epoch']:.1e} after the first "
        f"epoch and {own['last_epoch']:.1e} after the last."
        for precision, own in found["agreement"].items()
    ]
    largest = [
        f"- {precision}: the largest that trains has {n:,} members." for precision, n in found["largest"].items()
    ]
    best = max(rate for _, _, rate in found["race"])
    race = [(title, f"{count:,}", f"{rate:,.0f}", f"{best / rate:.1f} x") for title, count, rate in found["race"]]
    whole = [(title, f"{seconds:.1f}") for title, seconds in found["comparison"].items()]
    return (
        f"{found['device']}, {found['cores']} processor cores.\n\n"
        + table((*head, "matrix product", "copies", "roofline"), rows)
        + "\n".join(["", *agreement, *largest, "", "The article's network on the device:", "", ""])
        + table(("contestant", "networks", "networks a minute", "the fastest is"), race)
        + ("\n" + table(("the default comparison's members train", "seconds"), whole) if whole else "")
    )


def measure_here(bench: Bench) -> dict[str, Any]:
    return measure(bench.mode, *HOUSE_PRICES, whole=None if bench.is_smoke else bench.tasks["comparison"])


SECTION = Section(TEXT, measure_here, render)
