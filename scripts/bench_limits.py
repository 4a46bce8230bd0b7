"""The limits that scripts/bench.py measures against: roofline, where the time goes, how it grows, how it starts.

Shapes: P members, B rows of a batch, F input columns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from actlab.data.datamodule import TabularDataModule, batch_shape
from actlab.data.splits import make_splits
from actlab.data.table import read_table
from actlab.members import Member
from actlab.networks import module as module_of_stacks
from actlab.networks.initialisation import layer_shapes
from actlab.networks.module import PopulationModule
from actlab.networks.population import RowAdamW, SplitTensors, StackTraining
from actlab.networks.regressor import Regressor
from actlab.runs.trials import Evaluation, train
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings
from bench_contestants import N_CORES, Processes, Task, fit_population

SCRIPTS = Path(__file__).parent
# bytes of a parameter that a step moves: read for forward and backward, gradient written, and the optimiser's reads of
# parameter, gradient and two moments with three writes
PARAMETER_BYTES = 4 * (2 + 1 + 4 + 3)
STACK_SIZES = (2_000_000, 4_000_000, 8_000_000, 16_000_000, 32_000_000, 64_000_000)


def step_flops(member: Member, n_features: int, batch: int) -> int:
    """Multiplications and additions of the matrix products of one step; the inputs need no gradient."""
    products = [n_out * n_in for n_out, n_in in layer_shapes(n_features, member.hidden, 1)]
    return 2 * batch * (3 * sum(products) - products[0])


def step_bytes(member: Member, n_features: int, batch: int) -> int:
    """Bytes of one step: parameters, and the batch's rows gathered (read, written) and read forward and backward."""
    n_parameters = sum(n_out * (n_in + 1) for n_out, n_in in layer_shapes(n_features, member.hidden, 1))
    return PARAMETER_BYTES * n_parameters + 4 * 4 * batch * n_features


def seconds_of(work: Callable[[], object], at_least_s: float = 0.3) -> float:
    """Median time of one call, warm, over `at_least_s` of calls."""
    work()
    times: list[float] = []
    while sum(times) < at_least_s or len(times) < 3:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def seconds_in_threads(work: Callable[[int], object], n_threads: int, at_least_s: float) -> float:
    """The same of several Python threads of one arithmetic thread each, which is how populations run."""
    n_before = torch.get_num_threads()
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        seconds = seconds_of(lambda: list(pool.map(work, range(n_threads))), at_least_s)
    torch.set_num_threads(n_before)
    return seconds


def matrix_rate(size: int, n_threads: int, at_least_s: float = 0.5) -> float:
    """FLOP/s of large float32 matrix products: the better of threads inside one and of one in each thread."""
    pairs = [(torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)) for _ in range(n_threads)]

    def multiply(i: int) -> Tensor:
        return torch.mm(pairs[i][0], pairs[i][1], out=pairs[i][2])

    inside = 2 * size**3 / seconds_of(lambda: multiply(0), at_least_s)
    return max(inside, 2 * size**3 * n_threads / seconds_in_threads(multiply, n_threads, at_least_s))


def copy_bandwidth(n_bytes: int, n_threads: int, at_least_s: float = 0.3) -> float:
    """Bytes/s read and written by copies of arrays of so many bytes, one in each thread."""
    pairs = [(torch.ones(n_bytes // 4), torch.ones(n_bytes // 4)) for _ in range(n_threads)]
    seconds = seconds_in_threads(lambda i: pairs[i][1].copy_(pairs[i][0]), n_threads, at_least_s)
    return 2 * n_bytes * n_threads / seconds


@dataclass(frozen=True)
class Machine:
    """What the processor can do at best with the threads given.

    Args:
        flops: Of a large matrix product, per second.
        copy: Bytes/s of copies far larger than the caches.
        copy_in_cache: Bytes/s of copies that together are as large as a stack.
    """

    flops: float
    copy: float
    copy_in_cache: float


def machine(is_smoke: bool = False) -> Machine:
    n_threads = torch.get_num_threads()
    size, large, least_s = (128, 1 << 20, 0.01) if is_smoke else (2048, 1 << 28, 1.0)
    return Machine(
        matrix_rate(size, n_threads, least_s),
        copy_bandwidth(large, n_threads, least_s),
        copy_bandwidth(min(large, module_of_stacks.STACK_BYTES // 2), n_threads, least_s),
    )


@contextmanager
def timers() -> Iterator[dict[str, float]]:
    """Seconds spent in each part of a fit while this is open; parts within parts count for themselves only."""
    spent: dict[str, float] = defaultdict(float)
    stack: list[float] = []
    parts: list[tuple[str, type, str]] = [
        ("epoch", StackTraining, "train_epoch"),
        ("validation", StackTraining, "validate"),
        ("gather", SplitTensors, "gather"),
        ("forward", Regressor, "forward"),
        ("backward", Tensor, "backward"),
        ("optimiser", RowAdamW, "step"),
        ("retiring", PopulationModule, "retire"),
        ("logging", PopulationModule, "_log_means"),
        ("orders", TabularDataModule, "order"),
        ("setting up", PopulationModule, "configure_model"),
        ("setting up", PopulationModule, "configure_optimizers"),
    ]

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if part in ("gather", "forward") and within["validation"]:
                return function(*args, **kwargs)
            within[part] += 1
            stack.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                total = time.perf_counter() - started
                spent[part] += total - stack.pop()
                if stack:
                    stack[-1] += total
                within[part] -= 1

        return run

    within: dict[str, int] = defaultdict(int)
    with ExitStack() as patches:
        for part, owner, name in parts:
            patches.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield spent


def phases(task: Task, members: Sequence[Member]) -> dict[str, float]:
    """Seconds of one fit by what they went into; one thread, so that parts add up."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with timers() as spent, tempfile.TemporaryDirectory() as folder:
            logger = pl.loggers.TensorBoardLogger(folder)
            started = time.perf_counter()
            fit_population(task, members, logger=logger, log_every_n_steps=1)
            total = time.perf_counter() - started
    finally:
        torch.set_num_threads(n_threads)
    found = dict(spent)
    found["loss and the loop"] = found.pop("epoch")
    return {**found, "Lightning": total - sum(found.values()), "total": total}


@contextmanager
def training_seconds() -> Iterator[list[float]]:
    """Wall time of every training epoch of a population, without validation and Lightning."""
    seconds: list[float] = []
    original = PopulationModule.training_step

    def step(self: PopulationModule, batch: Any, batch_idx: int) -> None:
        started = time.perf_counter()
        original(self, batch, batch_idx)
        if self.trainer.strategy.root_device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)

    with mock.patch.object(PopulationModule, "training_step", step):
        yield seconds


def shares_of(task: Task, members: Sequence[Member], step_s: float, limit: Machine) -> dict[str, float]:
    """One member's step against the limits: either alone, and the share of the time that both would take in turn."""
    data = task.data[members[0].split]
    _, batch = batch_shape(len(data.rows.training), task.settings.batch_size)
    flops = step_flops(members[0], data.n_features, batch)
    moved = step_bytes(members[0], data.n_features, batch)
    return {
        "step_us": 1e6 * step_s,
        "flops": flops,
        "bytes": moved,
        "matrix_share": flops / step_s / limit.flops,
        "copy_share": moved / step_s / limit.copy,
        "roofline_share": (flops / limit.flops + moved / limit.copy) / step_s,
        "roofline_share_in_cache": (flops / limit.flops + moved / limit.copy_in_cache) / step_s,
    }


def shares(task: Task, members: Sequence[Member], limit: Machine) -> dict[str, float]:
    """Training steps of a population against the machine's limits. Members must not stop before the last epoch."""
    with training_seconds() as epochs:
        started = time.perf_counter()
        fit_population(task, members)
        fit_s = time.perf_counter() - started
    steps, _ = batch_shape(len(task.data[members[0].split].rows.training), task.settings.batch_size)
    # the first epoch touches fresh memory
    per_epoch = steps * len(members)
    found = shares_of(task, members, median(epochs[1:] or epochs) / per_epoch, limit)
    return {"members": len(members), **found, "fit_step_us": 1e6 * fit_s / len(epochs) / per_epoch}


def rate(task: Task, run: Callable[[], object], n_members: int) -> float:
    """Networks per minute of a call that trains so many."""
    started = time.perf_counter()
    run()
    return 60 * n_members / (time.perf_counter() - started)


def stack_sizes(task: Task, members: Sequence[Member], sizes: Sequence[int] = STACK_SIZES) -> dict[str, float]:
    """Networks per minute by the size at which stacks are cut (weights, gradients and moments, bytes)."""
    found = {}
    for size in sizes:
        with mock.patch.object(module_of_stacks, "STACK_BYTES", size):
            found[f"{size / 1e6:g} MB"] = rate(task, lambda: fit_population(task, members), len(members))
    return found


def threadings(task: Task, members: Sequence[Member]) -> dict[str, float]:
    """Networks per minute by how the cores are used."""

    def without_pool(self: PopulationModule) -> None:
        torch.set_flush_denormal(True)

    found = {"one process, a stack in each thread": rate(task, lambda: fit_population(task, members), len(members))}
    with mock.patch.object(PopulationModule, "on_fit_start", without_pool):
        name = "one process, threads inside each product"
        found[name] = rate(task, lambda: fit_population(task, members), len(members))
    parts = [members[i::N_CORES] for i in range(N_CORES)]
    with Processes(task) as processes:

        def run() -> None:
            list(processes.pool.map(_population_here, parts))

        found["processes of one thread, started before"] = rate(task, run, len(members))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found["one thread"] = rate(task, lambda: fit_population(task, members), len(members))
    torch.set_num_threads(n_threads)
    return found


def _population_here(members: Sequence[Member]) -> int:
    from bench_contestants import _TASKS

    return len(fit_population(_TASKS[0], members))


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


@dataclass(frozen=True)
class Point:
    """One point of a curve of growth: members of each activation, trained on one split of a generated table."""

    members: int = 8
    rows: int = 1000
    columns: int = 20
    activations: tuple[str, ...] = ("relu",)
    epochs: int = 2
    batch: int = 128


ACTIVATIONS = ("relu", "tanh", "sigmoid", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "identity")
GROWTH: dict[str, dict[str, list[Point]]] = {
    "smoke": {
        "members": [Point(n, rows=100, columns=4) for n in (1, 8)],
        "rows": [Point(2, rows=n, columns=4) for n in (100, 1000)],
    },
    "quick": {
        "members": [Point(n) for n in (1, 4, 16, 64, 256, 1024)],
        "rows": [Point(rows=n) for n in (1000, 4000, 16_000, 64_000, 256_000)],
        "columns": [Point(columns=n) for n in (10, 40, 160, 640)],
        "activations": [Point(16, activations=ACTIVATIONS[:n]) for n in (1, 2, 4, 8)],
    },
    "full": {
        "members": [Point(n) for n in (1, 4, 16, 64, 256, 1024, 4096)],
        "rows": [Point(rows=n) for n in (1000, 8000, 64_000, 500_000, 1_000_000, 2_000_000)],
        "columns": [Point(columns=n) for n in (10, 40, 160, 640, 2000)],
        "activations": [Point(16, activations=ACTIVATIONS[:n]) for n in (1, 2, 4, 8, 11)],
    },
}
HIDDEN = (144, 72, 18)


def generate(path: Path, n_rows: int, n_columns: int, seed: int = 0) -> None:
    """Write a CSV of numeric columns and a positive target `y`, block by block."""
    generator = np.random.default_rng(seed)
    with path.open("w") as file:
        file.write(",".join([*(f"x{i}" for i in range(n_columns)), "y"]) + "\n")
        for start in range(0, n_rows, 1 << 14):
            x = generator.normal(size=(min(1 << 14, n_rows - start), n_columns)).round(3)
            y = np.exp(0.3 * np.abs(x[:, 0]) - 0.2 * x[:, -1] + 0.1 * generator.normal(size=len(x)))
            np.savetxt(file, np.column_stack([x, y]), fmt="%.4g", delimiter=",")


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
    split = next(iter(make_splits(table.n_rows, protocol, 0)))
    members = [
        Member(trial, name, 1e-3, split, seed, HIDDEN)
        for trial, name in enumerate(point.activations)
        for seed in range(point.members)
    ]
    optimizer = OptimizerSettings(patience=point.epochs + 1)
    options = {"accelerator": "cpu", "max_epochs": point.epochs}
    first = _FirstStep()
    train(members, [split], Evaluation(data, protocol, optimizer, options), table, [first])
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


def growth(mode: str, rounds: int) -> dict[str, Any]:
    """Every curve: its points with median seconds and memory, and the exponents above the fixed part."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for axis, points in GROWTH[mode].items():
            runs: list[list[dict[str, float]]] = [[] for _ in points]
            for _ in range(rounds):
                for point, own in zip(points, runs, strict=True):
                    own.append(_in_a_process(point, Path(folder)))
            rows = [{key: median(run[key] for run in own) for key in own[0]} for own in runs]
            sizes = [size_of(point, axis) for point in points]
            found[axis] = {
                "points": [{"size": n, **asdict(p), **row} for n, p, row in zip(sizes, points, rows, strict=True)],
                "slopes": {key: exponent(sizes, [row[key] for row in rows]) for key in ("first_step_s", "train_s")},
            }
    return found


def size_of(point: Point, axis: str) -> int:
    value = getattr(point, axis)
    return len(value) if isinstance(value, tuple) else int(value)


def _in_a_process(point: Point, folder: Path) -> dict[str, float]:
    csv = folder / f"{point.rows}-{point.columns}.csv"
    if not csv.exists():
        generate(csv, point.rows, point.columns)
    command = [sys.executable, str(SCRIPTS / "bench_limits.py"), str(csv), json.dumps(asdict(point))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """s of values = a + b sizes^s, a >= 0 the fixed part, by least squares of logarithms; None for under 4 points."""
    from scipy.optimize import least_squares

    if len(sizes) < 4:
        return None
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.asarray(np.logaddexp(p[0], p[1] + p[2] * x) - y)

    start = [y.min(), y.max() - x.max(), 1.0]
    return float(least_squares(residuals, start, loss="soft_l1", f_scale=0.1).x[2])


# Waits in a thread until the class is there, so that nothing is imported which the command would not import.
FIRST_STEP = """
import os, sys, threading, time

def done(*args):
    print(time.time(), flush=True)
    os._exit(0)

def watch():
    while not hasattr(sys.modules.get("actlab.networks.population"), "StackTraining"):
        time.sleep(0.005)
    sys.modules["actlab.networks.population"].StackTraining.train_epoch = done

threading.Thread(target=watch, daemon=True).start()
from actlab.cli import main
main()
"""
IMPORT = "import lightning.pytorch, os, time; print(time.time(), flush=True); os._exit(0)"


def start_up(config: str, rounds: int) -> dict[str, list[float]]:
    """Seconds from the start of a process to the first training step of a comparison, and to the end of an import."""
    found: dict[str, list[float]] = {"import lightning.pytorch": [], "actlab compare": []}
    for _ in range(rounds):
        found["import lightning.pytorch"].append(_until_printed(IMPORT, []))
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["compare", "--config", config, "--out", str(Path(folder) / "run")]
            found["actlab compare"].append(_until_printed(FIRST_STEP, arguments))
    return found


def _until_printed(code: str, arguments: Sequence[str]) -> float:
    started = time.time()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{arguments} failed: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1]) - started


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


LARGE = ["--compare.activations", "[relu, tanh]", "--compare.learning_rates", "[1.0e-3]", "--compare.folds", "2"]
LARGE += ["--compare.inner", "1", "--trainer.max_epochs", "1", "--data.batch_size", "1024"]


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


def constant_length(task: Task, epochs: int, activation: str, **changes: Any) -> Task:
    """A task whose members all train for so many epochs with one activation, on its first split."""
    split = next(iter(task.data))
    first = replace(task.members[0], activation=activation, split=split, **changes)
    members = tuple(replace(first, seed=seed) for seed in range(512))
    optimizer = replace(task.optimizer, patience=epochs + 1)
    return replace(task, members=members, optimizer=optimizer, max_epochs=epochs, data={split: task.data[split]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure one point of growth; scripts/bench.py starts this.")
    parser.add_argument("csv")
    parser.add_argument("point")
    asked = parser.parse_args()
    given = json.loads(asked.point)
    print(json.dumps(measure_point(Point(**{**given, "activations": tuple(given["activations"])}), asked.csv)))
