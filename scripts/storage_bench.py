"""Measure what a study's storage costs: trials per second and database calls per trial, training replaced by nothing.

    python scripts/storage_bench.py                          journal
    python scripts/storage_bench.py --postgres               a PostgreSQL server started for the measurement
    python scripts/storage_bench.py --postgres --proxy       Optuna's gRPC proxy in front of it

Every worker is a process that claims trials in batches, and completes them with the attributes of a real one.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Cost:
    """What one run of the bench came to."""

    workers: int
    trials: int
    seconds: float
    calls: int

    def row(self) -> str:
        rate, calls = self.trials / self.seconds, self.calls / self.trials
        calls_text = f"{calls:.1f}" if self.calls else "-"
        return (
            f"| {self.workers} | {self.trials} | {rate:.1f} | {1000 * self.seconds / self.trials:.1f} | {calls_text} |"
        )


def attributes(n_members: int, n_epochs: int) -> dict[str, Any]:
    """Members and curves of a trial as a run stores them."""
    from actlab.run_files import CurveRecord, MemberRecord
    from actlab.runs.evaluate import CURVES, MEMBERS

    chance = random.Random(0)
    member = MemberRecord(
        0, "relu", 1e-3, 0, 0, 0, 0, 50, 70, chance.random(), chance.random(), False, False, 54_000, 1.5
    )
    curve = CurveRecord(0, "relu", 1e-3, 1, n_members, *(chance.random() for _ in range(4)))
    return {MEMBERS: [asdict(member)] * n_members, CURVES: [list(asdict(curve).values())] * n_epochs}


def work(name: str, journal: Path, url: str | None, batch: int, members: int, epochs: int, results: "Any") -> None:
    """One worker: claim, complete, until the queue is empty."""
    from actlab.engine.storage import open_storage
    from actlab.engine.study import Study

    study = Study(open_storage(url or journal), name)
    content, calls = attributes(members, epochs), count_calls(study)
    while claimed := study.claim(batch):
        for trial in claimed.values():
            study.complete(trial, 0.1, content)
    results.put(calls[0])
    study.close()


def count_calls(study: Any) -> list[int]:
    """A counter of the statements that go to the database."""
    import sqlalchemy

    calls = [0]
    engine = getattr(study.backend, "engine", None)
    if engine is not None:
        sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *_: calls.__setitem__(0, calls[0] + 1))
    return calls


def measure(url: str | None, n_workers: int, n_trials: int, batch: int, members: int, epochs: int) -> Cost:
    """Time from the first claim to the last trial told."""
    from actlab.engine.storage import open_storage
    from actlab.engine.study import Cell, Study

    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory) / "study.journal"
        name = f"bench {n_workers} {time.time()}"
        study = Study(open_storage(url or journal), name)
        study.enqueue_missing([Cell(f"cell {number}", number, number) for number in range(n_trials)])
        results = FORKS.Queue()
        arguments = (name, journal, url, batch, members, epochs, results)
        FORKS.set_forkserver_preload(["actlab.runs.results"])
        FORKS.Process(target=int).start()
        processes = [FORKS.Process(target=work, args=arguments) for _ in range(n_workers)]
        time.sleep(1)
        started = time.perf_counter()
        for process in processes:
            process.start()
        calls = sum(results.get() for _ in processes)
        seconds = time.perf_counter() - started
        study.close()
        return Cost(n_workers, n_trials, seconds, calls)


@contextmanager
def proxy(url: str, port: int) -> Iterator[str]:
    """Optuna's gRPC proxy in front of a database, in a thread of this process."""
    from actlab.engine.optuna_private import make_proxy_server, with_cache
    from actlab.engine.storage import open_storage

    server = make_proxy_server(with_cache(open_storage(url)), "127.0.0.1", port, n_threads=32)
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None)
    threading.Event().wait(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--proxy", action="store_true")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--batch", type=int, default=5, help="trials that are claimed at a time")
    parser.add_argument("--members", type=int, default=10, help="members of a trial")
    parser.add_argument("--epochs", type=int, default=70, help="rows of its curves")
    asked = parser.parse_args()
    url: str | None = None
    print("| workers | trials | trials/s | ms a trial | statements a trial |\n| --- | --- | --- | --- | --- |")
    with ExitStack() as stack:
        if asked.postgres or asked.proxy:
            from postgres_server import PostgresServer

            server = stack.enter_context(PostgresServer())
            os.environ.update(server.environment)
            url = server.url
        if asked.proxy:
            assert url is not None
            url = stack.enter_context(proxy(url, 13999))
        for n_workers in asked.workers:
            cost = measure(url, n_workers, asked.trials, asked.batch, asked.members, asked.epochs)
            print(cost.row(), flush=True)


if __name__ == "__main__":
    main()
