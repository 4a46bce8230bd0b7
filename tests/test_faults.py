"""Workers killed at random moments, torn files, a database that goes away: every cell is done once, with the same bits.

Real processes, real kills, a real PostgreSQL server; the seed of a round is in its name. Workers are forked from a
process that has the libraries loaded, so that a round takes seconds.
"""

import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import TrialState

from actlab.config import Configuration
from actlab.engine.storage import open_storage
from actlab.engine.study import CELL, Study
from actlab.run_files import RunDirectory
from actlab.runs.compare_search import Compare
from actlab.runs.experiment import Experiment
from actlab.settings import CompareSettings, DataSettings, ModelSettings
from postgres_server import PostgresServer, binaries

pytestmark = pytest.mark.slow

N_WORKERS = 4
FORKS = multiprocessing.get_context("forkserver")
needs_postgres = pytest.mark.skipif(binaries() is None, reason="PostgreSQL's server is not installed")


def configuration(csv: str, out: Path, storage: str | None = None) -> Configuration:
    return Configuration(
        data=DataSettings(csv, "price"),
        model=ModelSettings(hidden=[8]),
        compare=CompareSettings(
            activations=["relu", "tanh", "silu"], learning_rates=[1e-3, 3e-3, 1e-2, 3e-2], folds=2, repeats=4
        ),
        trainer={"max_epochs": 6, "accelerator": "cpu"},
        out=str(out),
        storage=storage,
    )


def work(asked: Configuration, environment: Mapping[str, str], file_limit: int | None) -> None:
    """One worker: the command as typed, without the time that it takes to start."""
    import torch

    from actlab.engine import storage, study
    from actlab.networks import snapshots
    from actlab.runs import experiment

    os.environ.update(environment)
    os.dup2(os.open(f"{asked.out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    # a dead worker of a database shows after seconds instead of minutes
    for module in (storage, study):
        module.HEARTBEAT_S, module.GRACE_S = 1, 4  # type: ignore[attr-defined]
    # what is killed goes on from its last epoch
    snapshots.INTERVAL_S, snapshots.LARGEST_SHARE = 0.0, float("inf")
    # two cells a population
    sys.modules[Experiment.__module__].POPULATION_MEMBERS = 4  # type: ignore[attr-defined]
    experiment.LONGEST_WAIT_S = 1.0
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    try:
        Compare(asked).execute()
    except experiment.InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


class Crew:
    """Workers on one run, some of which are killed."""

    def __init__(self, asked: Configuration, environment: Mapping[str, str] | None = None) -> None:
        self.asked, self.environment = asked, environment or {}
        self.processes: list[BaseProcess] = []

    def start(self, n_workers: int, file_limit: int | None = None) -> None:
        FORKS.set_forkserver_preload(["actlab.runs.compare_search"])
        for _ in range(n_workers):
            process = FORKS.Process(target=work, args=(self.asked, self.environment, file_limit), daemon=True)
            process.start()
            self.processes.append(process)

    def kill(self, process: BaseProcess) -> None:
        process.kill()
        process.join()
        self.processes.remove(process)

    def kill_all(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self.processes = []

    def finish(self, timeout_s: float = 120) -> list[int | None]:
        deadline = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.1, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill_all()
        # pytest shows it beside a round that failed
        print(Path(f"{self.asked.out}.log").read_text())
        return codes


def frame_of(run: Path) -> pd.DataFrame:
    return RunDirectory(run).read_members().drop(columns="seconds")


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> str:
    generator = random.Random(0)
    rows = [(generator.gauss(0, 1), generator.gauss(0, 1)) for _ in range(120)]
    frame = pd.DataFrame(rows, columns=["x", "y"])
    frame["price"] = [2.718 ** (0.5 * x - 0.3 * abs(y)) for x, y in rows]
    path = tmp_path_factory.mktemp("data") / "small.csv"
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(csv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one worker that nothing happened to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    crew = Crew(configuration(csv, run))
    crew.start(1)
    assert crew.finish() == [0]
    return run


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    before = os.environ.get("PGPASSWORD")
    with PostgresServer() as running:
        os.environ.update(running.environment)
        yield running
    os.environ.pop("PGPASSWORD") if before is None else os.environ.update(PGPASSWORD=before)


def timeless(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a clock has no part in."""
    return [{key: value for key, value in row.items() if key != "seconds_needed"} for row in comparisons]


def check(asked: Configuration, undisturbed: Path) -> None:
    """Every cell is done once, nothing is left over, and the results are those of the undisturbed run to the bit."""
    run = RunDirectory(str(asked.out))
    storage = open_storage(asked.storage or run.journal)
    study = Study(storage, "actlab" if asked.storage is None else run.path.name)
    states = Counter(trial.state for trial in study.trials())
    assert not {TrialState.RUNNING, TrialState.WAITING} & states.keys(), states
    done = Counter(trial.user_attrs[CELL] for trial in study.trials(TrialState.COMPLETE))
    study.close()
    assert len(done) == RunDirectory(undisturbed).read_members().trial.nunique()
    assert set(done.values()) == {1}
    pd.testing.assert_frame_equal(frame_of(run.path), frame_of(undisturbed), check_exact=True)
    own, other = run.read_summary(), RunDirectory(undisturbed).read_summary()
    assert own["winner"] == other["winner"]
    assert timeless(own["comparisons"]) == timeless(other["comparisons"])
    assert [row["activation"] for row in own["ranking"]] == [row["activation"] for row in other["ranking"]]


def check_secrets(asked: Configuration, server: PostgresServer) -> None:
    """The password, which the environment held, is in no file that the run wrote and in nothing that it printed."""
    written = [path for path in Path(str(asked.out)).rglob("*") if path.is_file()]
    assert {"config.yaml", "report.html", "best.ckpt"} <= {path.name for path in written}
    for path in [*written, Path(f"{asked.out}.log")]:
        assert server.password.encode() not in path.read_bytes(), path


def kill_at_random(crew: Crew, chance: random.Random, n_kills: int, disturb: Callable[[], Any] = int) -> None:
    for _ in range(n_kills):
        time.sleep(chance.uniform(0.0, 0.5))
        alive = [process for process in crew.processes if process.is_alive()]
        if not alive:
            return
        crew.kill(chance.choice(alive))
        disturb()
        crew.start(1)


@pytest.mark.parametrize("seed", range(12))
def test_a_journal_survives_kills_of_single_workers(seed: int, csv: str, tmp_path: Path, undisturbed: Path) -> None:
    crew = Crew(configuration(csv, tmp_path / "run"))
    crew.start(N_WORKERS)
    kill_at_random(crew, random.Random(seed), n_kills=6)
    assert crew.finish() == [0] * N_WORKERS
    check(crew.asked, undisturbed)


@pytest.mark.parametrize("seed", range(100, 112))
def test_a_journal_survives_the_death_of_all_with_a_torn_line_and_a_stale_lock(
    seed: int, csv: str, tmp_path: Path, undisturbed: Path
) -> None:
    chance, crew = random.Random(seed), Crew(configuration(csv, tmp_path / "run"))
    journal = RunDirectory(tmp_path / "run").journal
    for _ in range(3):
        crew.start(N_WORKERS)
        time.sleep(chance.uniform(0.1, 0.8))
        crew.kill_all()
        if journal.exists() and journal.stat().st_size:
            lines = journal.read_bytes().splitlines(keepends=True)
            with journal.open("ab") as file:
                file.write(lines[-1][: chance.randrange(1, len(lines[-1]))])
            lock = journal.with_name(f"{journal.name}.lock")
            lock.unlink(missing_ok=True)
            lock.symlink_to(f"./././{journal.name}")
    crew.start(N_WORKERS)
    started = time.monotonic()
    assert crew.finish() == [0] * N_WORKERS
    assert time.monotonic() - started < 25, "a stale lock of ours must not cost Optuna's 30 s"
    check(crew.asked, undisturbed)


@pytest.mark.parametrize("seed", range(200, 206))
def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_after(
    seed: int, csv: str, tmp_path: Path, undisturbed: Path
) -> None:
    chance, crew = random.Random(seed), Crew(configuration(csv, tmp_path / "run"))
    # files that may not grow further fail like a full disk does: a short write, then an error
    crew.start(N_WORKERS, file_limit=chance.randrange(2_000, 30_000))
    assert set(crew.finish()) == {2}
    said = Path(f"{crew.asked.out}.log").read_text()
    assert "cannot be written: File too large" in said
    assert "Traceback" not in said
    crew.start(N_WORKERS)
    assert crew.finish() == [0] * N_WORKERS
    check(crew.asked, undisturbed)


@needs_postgres
@pytest.mark.parametrize("seed", range(300, 306))
def test_a_database_survives_kills(
    seed: int, csv: str, tmp_path: Path, undisturbed: Path, server: PostgresServer
) -> None:
    crew = Crew(configuration(csv, tmp_path / f"run-{seed}", server.url), server.environment)
    crew.start(N_WORKERS)
    kill_at_random(crew, random.Random(seed), n_kills=5)
    assert crew.finish() == [0] * N_WORKERS
    check(crew.asked, undisturbed)
    check_secrets(crew.asked, server)


@needs_postgres
@pytest.mark.parametrize("seed", range(400, 404))
def test_a_database_may_be_restarted_in_the_middle(
    seed: int, csv: str, tmp_path: Path, undisturbed: Path, server: PostgresServer
) -> None:
    chance = random.Random(seed)
    crew = Crew(configuration(csv, tmp_path / f"run-{seed}", server.url), server.environment)
    crew.start(N_WORKERS)
    kill_at_random(crew, chance, 2, lambda: server.restart(chance.choice(["fast", "immediate"])))
    assert crew.finish() == [0] * N_WORKERS
    check(crew.asked, undisturbed)
