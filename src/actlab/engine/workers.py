"""Several worker processes on this machine: started, watched and stopped by one parent that trains nothing itself."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from actlab.errors import InputError

POLL_S = 0.5
# a worker that was told to stop saves what it has to; then it is ended
STOP_S = 20.0


@dataclass(frozen=True)
class Worker:
    """One of `n_workers` processes on this machine, counted from 0, and its share of the machine's threads."""

    index: int
    n_threads: int
    n_workers: int

    def device(self) -> int | None:
        """The GPU of this worker where there are several; None leaves the choice to Lightning."""
        import torch

        n_gpus = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
        return self.index % n_gpus if n_gpus > 1 else None


Job = Callable[[Any, Worker], None]


def run_workers(job: Job, argument: Any, n_workers: int, logs: Path, watch: Callable[[], None]) -> None:
    """Run `job(argument, worker)` in processes of their own until all are done.

    A worker that was killed is replaced while others are at work or were; what it was doing is the job's to recover.

    Args:
        job: A function of a module, pickled by its name together with `argument`.
        logs: Directory for what each one prints.
        watch: Called twice a second.

    Raises:
        InputError: a worker refused its input, or workers keep dying.
    """
    import torch

    n_threads = max(1, torch.get_num_threads() // n_workers)
    team = _Team(job, argument, logs)
    try:
        for index in range(n_workers):
            team.start(Worker(index, n_threads, n_workers))
        replacements = 2 * n_workers
        while team.children:
            watch()
            for worker in team.ended():
                if replacements == 0:
                    raise InputError(f"workers keep dying; the last lines of {team.log(worker)} may say why")
                replacements -= 1
                print(f"actlab: worker {worker.index} died and is replaced", file=sys.stderr)
                team.start(worker)
            time.sleep(POLL_S)
        watch()
    finally:
        team.stop()


class _Team:
    """The worker processes that are alive."""

    def __init__(self, job: Job, argument: Any, logs: Path) -> None:
        self.job, self.argument, self.logs = job, argument, logs
        self.children: dict[Worker, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def log(self, worker: Worker) -> Path:
        return self.logs / f"{worker.index}.log"

    def start(self, worker: Worker) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(worker.n_threads), "MKL_NUM_THREADS": str(worker.n_threads)}
        with self.log(worker).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "actlab.engine.workers"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C is for the parent, who tells the workers
                start_new_session=True,
            )
        self.children[worker] = child
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((self.job, self.argument, worker), child.stdin)
            child.stdin.flush()

    def ended(self) -> Iterator[Worker]:
        """Workers that died (not those that are done); an `InputError` in the words of one that raised it."""
        for worker, child in list(self.children.items()):
            code = child.poll()
            if code is None:
                continue
            # closes the pipe to it
            self.children.pop(worker).communicate()
            if code == 2:
                lines = self.log(worker).read_text(errors="replace").strip().splitlines()
                said = lines[-1] if lines else f"worker {worker.index} stopped without a word"
                raise InputError(said.removeprefix("actlab: "))
            if code == 1:
                raise RuntimeError(f"worker {worker.index} failed; {self.log(worker)} says why")
            if code != 0:
                yield worker

    def stop(self) -> None:
        """Tell all to stop, and end those that do not."""
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for child in self.children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
            # closes the pipe to it: while it saves what it has to, that would stop it once more
            child.communicate()


def _follow_parent(lifeline: IO[bytes]) -> None:
    """Stop when the parent is gone: it holds the other end of our input for as long as it lives."""
    while os.read(lifeline.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """What a worker process runs: the job that its parent sends."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    lifeline = sys.stdin.buffer
    # the number of threads is in the environment, where torch finds it
    job, argument, worker = pickle.load(lifeline)
    threading.Thread(target=_follow_parent, args=(lifeline,), daemon=True).start()
    try:
        job(argument, worker)
    except InputError as error:
        print(f"actlab: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
