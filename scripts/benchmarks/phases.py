"""Section `phases`: where the time of a fit goes."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from actlab.data.datamodule import TabularDataModule
from actlab.members import Member
from actlab.networks.compiled import Chunks
from actlab.networks.module import PopulationModule
from actlab.networks.population import StackTraining
from actlab.networks.streams import SharedBatches
from benchmarks.markdown import Section, table
from benchmarks.plans import Bench
from benchmarks.stacked import fit_population
from benchmarks.tasks import Task, constant_length

TEXT = """## Where the time goes

Shares of one fit with one thread, with TensorBoard logging switched on; ReLU networks that train for EPOCHS epochs.
An epoch's time is divided by what torch's profiler says of some chunks of a second fit: matrix products forward
(`baddbmm`) and backward (`bmm`), the gather of batches, the optimiser, and the rest (activations, dropout, sums, loss,
the calls themselves). `between kernels` is what an epoch takes outside the compiled steps, `batches and masks` what is
made once for all members of a seed and split (here they all have different ones), `Lightning` what remains of the fit.
Setting up happens once a fit, so its share is as large as here only in fits as short as these.
"""
KERNELS = {
    "aten::baddbmm": "forward products",
    "aten::bmm": "backward products",
    "aten::index_select": "gather",
    "aten::_fused_adamw_": "optimiser",
}
REST = "the rest of a step"
# where the steps of a chunk, or of all chunks of a stack, are taken; the last argument is the order of the epoch
STEPS = ("train_alone", "train_together")
# calls of these under the profiler, which takes seconds to put the events of one in order
MOST_PROFILED = 16
TITLES = {"article": "article, batch 24", "comparison": "comparison, batch 128, its dropout"}


@contextmanager
def timers() -> Iterator[dict[str, float]]:
    """Seconds spent in each part of a fit while this is open; parts within parts count for themselves only."""
    spent: dict[str, float] = defaultdict(float)
    stack: list[float] = []
    parts: list[tuple[str, type, str]] = [
        *(("steps", Chunks, name) for name in STEPS),
        ("between kernels", StackTraining, "begin_epoch"),
        ("between kernels", StackTraining, "train"),
        ("batches and masks", SharedBatches, "fill"),
        ("validation", StackTraining, "validate"),
        ("retiring", PopulationModule, "retire"),
        ("logging", PopulationModule, "log"),
        ("orders", TabularDataModule, "order"),
        ("setting up", PopulationModule, "setup"),
        ("setting up", PopulationModule, "configure_optimizers"),
    ]

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            stack.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                total = time.perf_counter() - started
                spent[part] += total - stack.pop()
                if stack:
                    stack[-1] += total

        return run

    with ExitStack() as patches:
        for part, owner, name in parts:
            patches.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield spent


@contextmanager
def profiled(spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds that the kernels of a few chunks' training steps take while this is open."""
    left = iter(range(MOST_PROFILED))

    def watched(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: Any) -> Tensor:
            # the first epoch touches fresh memory
            if args[-1].epoch == 0 or next(left, None) is None:
                return original(*args)
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                total = original(*args)
            for event in profiler.key_averages():
                spent[KERNELS.get(event.key, REST)] += event.self_cpu_time_total / 1e6
            return total

        return run

    with ExitStack() as patches:
        for name in STEPS:
            patches.enter_context(mock.patch.object(Chunks, name, watched(getattr(Chunks, name))))
        yield


def phases(task: Task, members: Sequence[Member]) -> dict[str, float]:
    """Seconds of one fit by what they went into; one thread, so that parts add up."""
    kernels: dict[str, float] = defaultdict(float)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with timers() as spent, tempfile.TemporaryDirectory() as folder:
            logger = pl.loggers.TensorBoardLogger(folder)
            started = time.perf_counter()
            fit_population(task, members, logger=logger, log_every_n_steps=1)
            total = time.perf_counter() - started
        with profiled(kernels):
            fit_population(task, members)
    finally:
        torch.set_num_threads(n_threads)
    found = dict(spent)
    steps = found.pop("steps")
    found |= {part: steps * seconds / sum(kernels.values()) for part, seconds in kernels.items()}
    return {**found, "Lightning": total - sum(found.values()), "total": total}


def measure(bench: Bench) -> dict[str, Any]:
    """One fit for each task and population, with one thread."""
    found: dict[str, Any] = {}
    for name, task in bench.tasks.items():
        settled = constant_length(task, bench.plan.epochs, "relu")
        for count in bench.plan.phase_members:
            found[f"{TITLES[name]}: {count}"] = phases(settled, settled.members[:count])
    return {"epochs": bench.plan.epochs, "fits": found}


def render(found: dict[str, Any]) -> str:
    fits = found["fits"]
    parts = list(dict.fromkeys(part for own in fits.values() for part in own if part != "total"))
    rows = [
        (f"{name} members", f"{own['total']:.2f}", *(f"{own.get(part, 0) / own['total']:.1%}" for part in parts))
        for name, own in fits.items()
    ]
    return table(("", "seconds", *parts), rows)


SECTION = Section(TEXT, measure, render)
