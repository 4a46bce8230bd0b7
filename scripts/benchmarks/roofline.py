"""Section `limits`: training steps against the rate of a large matrix product and of large copies."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from actlab.data.datamodule import batch_shape
from actlab.members import Member
from actlab.networks import population as planning
from actlab.networks.module import PopulationModule
from actlab.networks.network import layer_shapes
from benchmarks.markdown import Section, medians, table
from benchmarks.plans import Bench
from benchmarks.stacked import fit_population
from benchmarks.tasks import Task, constant_length

TEXT = """## Against the limit

Training steps of a population (no validation, no Lightning) against a large matrix product and against large copies,
each with the same number of threads in the same process, the better of threads inside one product and a product in
each thread. The speed of a machine changes within seconds, so a product is timed after every epoch, and medians are
those of epochs, each against the product that followed it. Floating-point operations are those of the matrix products,
2 B (3 W - W_1) a step for W weights, W_1 of them in the first layer, whose inputs need no gradient. Bytes are 40 a
parameter (weights read forward and backward, gradient written, the optimiser's four reads and three writes) and four
times the batch's inputs. The roofline adds both times: its share is (FLOP / FLOP rate + bytes / copy rate) / time;
`in cache` takes the rate of copies as large as a stack instead, which are faster, so that less of the time is excused.
A share above 100 % is no error: a few members train an epoch before the next few, and most of the bytes that a step
counts never leave the cache. ReLU networks without dropout, each with a seed and so with batches of its own.
"""
SHARES = ("matrix_share", "copy_share", "roofline_share", "roofline_share_in_cache")
# bytes of a parameter that a step moves: read for forward and backward, gradient written, and the optimiser's reads of
# parameter, gradient and two moments with three writes
PARAMETER_BYTES = 4 * (2 + 1 + 4 + 3)


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


class Products:
    """Large float32 matrix products of two (size, size) matrices, in threads as populations have them.

    Args:
        size: Rows and columns.
        n_threads: Threads of Python, of one thread of arithmetic each.
        at_least_s: How long to try which is faster, such threads or threads inside one product.
    """

    def __init__(self, size: int, n_threads: int, at_least_s: float) -> None:
        self.flops, self.n_threads = 2 * size**3 * n_threads, n_threads
        self.pairs = [(torch.randn(size, size), torch.empty(size, size)) for _ in range(n_threads)]
        inside_s = seconds_of(lambda: self._multiply(0), at_least_s)
        self.gain = max(1.0, seconds_in_threads(self._multiply, n_threads, at_least_s) / (inside_s * n_threads))
        self.pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))

    def _multiply(self, i: int) -> Tensor:
        factor, into = self.pairs[i]
        return torch.mm(factor, factor, out=into)

    def rate(self) -> float:
        """FLOP/s right now, of one product in each thread; by as much higher as threads inside one were faster."""
        started = time.perf_counter()
        list(self.pool.map(self._multiply, range(self.n_threads)))
        return self.gain * self.flops / (time.perf_counter() - started)


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


def products(is_smoke: bool = False) -> Products:
    """With the threads that torch has now."""
    size, least_s = (128, 0.01) if is_smoke else (2048, 0.5)
    return Products(size, torch.get_num_threads(), least_s)


def copies(is_smoke: bool = False) -> tuple[float, float]:
    """Bytes/s of copies with the threads that torch has now: far larger than the caches, and as large as a stack."""
    n_threads = torch.get_num_threads()
    large, least_s = (1 << 20, 0.01) if is_smoke else (1 << 28, 0.3)
    sizes = (large, min(large, planning.STACK_BYTES // 2))
    first, second = (copy_bandwidth(size, n_threads, least_s) for size in sizes)
    return first, second


@contextmanager
def training_seconds(after: Callable[[], None] = lambda: None) -> Iterator[list[float]]:
    """Wall time of every training epoch of a population, without validation and Lightning; `after` is called then."""
    seconds: list[float] = []
    original = PopulationModule.training_step

    def step(self: PopulationModule, batch: Any, batch_idx: int) -> None:
        started = time.perf_counter()
        original(self, batch, batch_idx)
        if self.trainer.strategy.root_device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
        after()

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


def epochs_beside_products(task: Task, members: Sequence[Member], look: Products) -> tuple[list[float], list[float]]:
    """Seconds of each training epoch, and FLOP/s of large products right after it; members must not stop early."""
    rates: list[float] = []
    with training_seconds(lambda: rates.append(look.rate())) as epochs:
        fit_population(task, members)
    return epochs, rates


def fit_seconds(task: Task, members: Sequence[Member]) -> float:
    """Seconds of all of a fit for each of its epochs."""
    started = time.perf_counter()
    fit_population(task, members)
    return (time.perf_counter() - started) / task.max_epochs


def measure(bench: Bench) -> dict[str, Any]:
    """Both batch sizes at several populations: every epoch beside products, every population beside copies."""
    article = constant_length(bench.tasks["article"], bench.plan.limit_epochs, "relu")
    tasks = {
        "batch of 24": article,
        "batch of 128": replace(article, settings=replace(article.settings, batch_size=128)),
    }
    rows: list[dict[str, Any]] = []
    limits: list[Machine] = []
    look = products(bench.is_smoke)
    for _ in range(bench.plan.rounds):
        for (name, task), count in product(tasks.items(), bench.plan.limit_members):
            members = task.members[:count]
            steps, _ = batch_shape(len(task.data[members[0].split].rows.training), task.settings.batch_size)
            found = {"task": name, "members": count, "fit_step_us": 1e6 * fit_seconds(task, members) / steps / count}
            epochs, rates = epochs_beside_products(task, members, look)
            moved = copies(bench.is_smoke)
            # the first epoch touches fresh memory
            for seconds, rate in list(zip(epochs, rates, strict=True))[1:]:
                limits.append(Machine(rate, *moved))
                rows.append(found | shares_of(task, members, seconds / steps / count, limits[-1]))
    return {"machines": [asdict(limit) for limit in limits], "rows": medians(rows, ("task", "members"))}


def render(found: dict[str, Any]) -> str:
    flops, copy, cache = (median(m[key] for m in found["machines"]) for key in ("flops", "copy", "copy_in_cache"))
    head = ("ReLU network", "members", "us a step and member", "with all of the fit", "matrix product", "copies")
    rows = [
        (
            row["task"],
            str(row["members"]),
            f"{row['step_us']:.0f}",
            f"{row['fit_step_us']:.0f}",
            *(f"{row[key]:.0%}" for key in SHARES),
        )
        for row in found["rows"]
    ]
    return (
        f"Matrix product {flops / 1e9:.0f} GFLOP/s, copies {copy / 1e9:.1f} GB/s, in cache {cache / 1e9:.1f} GB/s.\n\n"
        + table((*head, "roofline", "roofline in cache"), rows)
    )


SECTION = Section(TEXT, measure, render)
