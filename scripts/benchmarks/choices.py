"""Section `choices`: stack size, threads or processes, memory layout, each by what it gives."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from actlab.members import Member
from actlab.networks import compiled as chunks
from actlab.networks import module as module_of_stacks
from actlab.networks import population
from actlab.networks import population as planning
from actlab.networks.module import PopulationModule
from benchmarks import plain_loop
from benchmarks.markdown import Section, span, spread, table
from benchmarks.plain_loop import Processes
from benchmarks.plans import Bench
from benchmarks.roofline import seconds_of
from benchmarks.stacked import fit_population
from benchmarks.tasks import N_CORES, Task, constant_length

STACK_SIZES = (4_000_000, 16_000_000, 32_000_000, 64_000_000)
CHUNK_SIZES = (1_000_000, 2_000_000, 4_000_000, 6_000_000, 8_000_000, 12_000_000, 16_000_000, 32_000_000)
TEXT = """## How the choices were made

Networks per minute of MEMBERS members of the article's network by the size of chunks (a few members, with weights,
gradients, moments and signals, that train an epoch before the next few) and of stacks (which are validated and thinned
out together; without signals), by what makes the gradients, by how the cores are used, and by whether the C library
keeps what a step frees; microseconds a member of the first layer, forward and backward, by memory layout. A chunk
has half of a core's share of the last-level cache, but 8 MB at least and 16 at most: machines differ in which is best.
"""


def rate(task: Task, run: Callable[[], object], n_members: int) -> float:
    """Networks per minute of a call that trains so many."""
    started = time.perf_counter()
    run()
    return 60 * n_members / (time.perf_counter() - started)


def stack_sizes(task: Task, members: Sequence[Member], sizes: Sequence[int] = STACK_SIZES) -> dict[str, float]:
    """Networks per minute by the size at which stacks are cut (weights, gradients and moments, bytes)."""
    found = {}
    for size in sizes:
        with mock.patch.object(planning, "STACK_BYTES", size):
            found[f"stacks of {size / 1e6:g} MB"] = rate(task, lambda: fit_population(task, members), len(members))
    return found


def chunk_sizes(task: Task, members: Sequence[Member]) -> dict[str, float]:
    """Networks per minute by the size of chunks, bytes."""
    found = {}
    for size in CHUNK_SIZES:
        with mock.patch.object(chunks, "chunk_bytes", return_value=size):
            found[f"chunks of {size / 1e6:g} MB"] = rate(task, lambda: fit_population(task, members), len(members))
    return found


def gradients(task: Task, members: Sequence[Member]) -> dict[str, float]:
    """Networks per minute of compiled steps and of autograd."""
    found = {"compiled steps": rate(task, lambda: fit_population(task, members), len(members))}
    with mock.patch.object(population, "can_compile", return_value=False):
        found["autograd"] = rate(task, lambda: fit_population(task, members), len(members))
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threadings(task: Task, members: Sequence[Member], processes: Processes) -> dict[str, float]:
    """Networks per minute by how the cores are used."""

    def without_pool(self: PopulationModule) -> None:
        torch.set_flush_denormal(True)

    def train() -> None:
        fit_population(task, members)

    def train_in_processes() -> None:
        list(processes.pool.map(_population_here, [members[i::N_CORES] for i in range(N_CORES)]))

    found = {"one process, a chunk in each thread": rate(task, train, len(members))}
    with mock.patch.object(PopulationModule, "on_fit_start", without_pool):
        found["one process, threads inside each product"] = rate(task, train, len(members))
    found["processes of one thread, started before"] = rate(task, train_in_processes, len(members))
    with one_thread():
        found["one thread"] = rate(task, train, len(members))
    return found


def _population_here(members: Sequence[Member]) -> int:
    return len(fit_population(plain_loop.task_here(), members))


def freed_memory(task: Task, members: Sequence[Member], n_threads: int) -> dict[str, float]:
    """Networks per minute with freed memory kept and given back, each in a fresh process: there is no way back."""
    found = {}
    for title, is_kept in (("freed memory kept", True), ("freed memory given back", False)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            seconds = pool.submit(_train_in_fresh_process, task, members, is_kept, n_threads).result()
        found[title] = 60 * len(members) / seconds
    return found


def _train_in_fresh_process(task: Task, members: Sequence[Member], is_kept: bool, n_threads: int) -> float:
    torch.set_num_threads(n_threads)
    with nullcontext() if is_kept else mock.patch.object(module_of_stacks, "keep_freed_memory", int):
        # the first fit pays for what is imported late
        fit_population(task, members[:2])
        started = time.perf_counter()
        fit_population(task, members)
    return time.perf_counter() - started


def layouts(n_members: int, batch: int, n_in: int, n_out: int, at_least_s: float = 0.3) -> dict[str, float]:
    """Microseconds a member of the first layer forward and backward, by how its weights lie; one thread."""
    inputs = torch.randn(n_members, batch, n_in)
    bias = torch.zeros(n_members, 1, n_out, requires_grad=True)
    upstream = torch.randn(n_members, batch, n_out)
    lying = {
        "(P, in, out)": torch.randn(n_members, n_in, n_out, requires_grad=True),
        "(P, out, in)": torch.randn(n_members, n_out, n_in, requires_grad=True),
    }

    def step(weight: Tensor) -> None:
        turned = weight if weight.shape[1] == n_in else weight.transpose(1, 2)
        torch.baddbmm(bias, inputs, turned).backward(upstream)  # type: ignore[no-untyped-call]
        weight.grad = bias.grad = None

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for name, weight in lying.items():
        found[name] = 1e6 * seconds_of(lambda w=weight: step(w), at_least_s) / n_members  # type: ignore[misc]
    torch.set_num_threads(n_threads)
    return found


def measure(bench: Bench) -> dict[str, Any]:
    """Everything once a round, in turn."""
    task = constant_length(bench.tasks["article"], bench.plan.epochs, "relu")
    members = task.members[: 2 if bench.is_smoke else 128]
    sizes, threads, lying = [], [], []
    with Processes(task) as processes:
        for _ in range(bench.plan.rounds):
            sizes.append(chunk_sizes(task, members) | stack_sizes(task, members) | gradients(task, members))
            threads.append(threadings(task, members, processes) | freed_memory(task, members, torch.get_num_threads()))
            lying.append(layouts(len(members), 24, 288, 144))
    return {
        "members": len(members),
        "sizes": {key: spread([own[key] for own in sizes]) for key in sizes[0]},
        "threads": {key: spread([own[key] for own in threads]) for key in threads[0]},
        "layouts_us": {key: spread([own[key] for own in lying]) for key in lying[0]},
    }


def render(found: dict[str, Any]) -> str:
    rates = {**found["sizes"], **found["threads"]}
    layouts = found["layouts_us"].items()
    return (
        table(("", "networks a minute"), [(key, span(own)) for key, own in rates.items()])
        + "\n"
        + table(("weights of the first layer", "us a member"), [(key, span(own, ".0f")) for key, own in layouts])
    )


SECTION = Section(TEXT, measure, render)
