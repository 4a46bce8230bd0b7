"""Several worker processes on this machine: started, watched and stopped by one parent that trains nothing itself."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
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


def run_workers(
    job: Callable[[Any, Worker], None], argument: Any, n_workers: int, logs: Path, watch: Callable[[], None]
) -> None:
    """Run `job(argument, worker)` in processes of their own until all are done.

    A worker that was killed is replaced while others are at work or were; what it was doing is the job's to recover.
    `job` is pickled by its name, `logs` is a directory for what each one prints, `watch` is called twice a second.

    Raises:
        InputError: a worker refused its input, or workers keep dying.
    """
    import torch

    n_threads = max(1, torch.get_num_threads() // n_workers)
    starting = [Worker(index, n_threads, n_workers) for index in range(n_workers)]
    logs.mkdir(parents=True, exist_ok=True)
    log = {worker: logs / f"{worker.index}.log" for worker in starting}
    children: dict[Worker, subprocess.Popen[bytes]] = {}
    replacements = 2 * n_workers
    try:
        while starting or children:
            for worker in starting:
                children[worker] = child = _start(n_threads, log[worker])
                assert child.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    pickle.dump((job, argument, worker), child.stdin)
                    child.stdin.flush()
            watch()
            starting = []
            for worker in [worker for worker, child in children.items() if child.poll() is not None]:
                child = children.pop(worker)
                # closes the pipe to it
                child.communicate()
                if child.returncode in (1, 2):
                    raise _failure(worker, child.returncode, log[worker])
                if child.returncode != 0:
                    if replacements == 0:
                        raise InputError(f"workers keep dying; the last lines of {log[worker]} may say why")
                    replacements -= 1
                    print(f"actlab: worker {worker.index} died and is replaced", file=sys.stderr)
                    starting.append(worker)
            time.sleep(POLL_S)
        watch()
    finally:
        _stop(children.values())


def _start(n_threads: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "actlab.engine.workers"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)},
            # Ctrl-C is for the parent, who tells the workers
            start_new_session=True,
        )


def _failure(worker: Worker, code: int, log: Path) -> Exception:
    """What a worker that was not killed failed with: an `InputError` in its own words, or where to look."""
    if code == 1:
        return RuntimeError(f"worker {worker.index} failed; {log} says why")
    lines = log.read_text(errors="replace").strip().splitlines()
    said = lines[-1] if lines else f"worker {worker.index} stopped without a word"
    return InputError(said.removeprefix("actlab: "))


def _stop(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """Tell all to stop, and end those that do not."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for child in children:
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
