"""Worker processes: what they raise, how they are replaced and stopped, and that their number changes no bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from actlab.engine.storage import open_storage
from actlab.engine.study import DONE, OWNER, Study
from actlab.engine.workers import Worker, run_workers
from actlab.errors import InputError
from actlab.run_files import RunDirectory


def note(argument: Path, worker: Worker) -> None:
    """A job: leave a file that says who ran."""
    (argument / f"{worker.index}-{os.getpid()}").write_text(f"{worker.n_threads} {worker.n_workers}")


def die_once(argument: Path, worker: Worker) -> None:
    """A job whose first worker is killed."""
    note(argument, worker)
    if worker.index == 0 and len(list(argument.glob("0-*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def die(argument: Path, worker: Worker) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(argument: Path, worker: Worker) -> None:
    raise InputError("the column is not there")


def fail(argument: Path, worker: Worker) -> None:
    raise RuntimeError("a bug")


def sleep(argument: Path, worker: Worker) -> None:
    note(argument, worker)
    time.sleep(120)


@pytest.fixture(autouse=True)
def jobs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process finds the jobs of this file by name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr("actlab.engine.workers.STOP_S", 5.0)


def test_a_killed_worker_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    run_workers(die_once, notes, 2, tmp_path / "logs", lambda: None)
    assert sorted(file.name[0] for file in notes.iterdir()) == ["0", "0", "1"]
    assert "worker 0 died and is replaced" in capsys.readouterr().err


def test_an_input_error_of_a_worker_is_the_parents(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^the column is not there$"):
        run_workers(refuse, tmp_path, 1, tmp_path / "logs", lambda: None)


def test_a_bug_in_a_worker_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"worker 0 failed; .*0\.log says why"):
        run_workers(fail, tmp_path, 1, tmp_path / "logs", lambda: None)
    assert "a bug" in (tmp_path / "logs" / "0.log").read_text()


@pytest.mark.slow
def test_workers_that_keep_dying_are_given_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keep dying"):
        run_workers(die, tmp_path, 1, tmp_path / "logs", lambda: None)


def test_a_parent_that_is_interrupted_stops_its_workers(tmp_path: Path) -> None:
    def watch() -> None:
        if list(tmp_path.glob("0-*")):
            raise SystemExit(130)

    with pytest.raises(SystemExit):
        run_workers(sleep, tmp_path, 1, tmp_path / "logs", watch)
    (pid,) = [int(file.name.split("-")[1]) for file in tmp_path.glob("0-*")]
    assert not is_running(pid)


PARENT = """
import sys
from pathlib import Path
from test_workers import sleep
from actlab.engine.workers import run_workers
run_workers(sleep, Path(sys.argv[1]), 1, Path(sys.argv[1]) / "logs", lambda: None)
"""


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)]) as parent:
        while not list(tmp_path.glob("0-*")):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    (pid,) = [int(file.name.split("-")[1]) for file in tmp_path.glob("0-*")]
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Not gone, and not a zombie that nobody has collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_one_worker_and_four_give_the_same_members_to_the_bit(small_csv: str, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "actlab", "compare", "--data.csv", small_csv, "--data.target", "price",
        "--model.hidden", "[16,8]", "--compare.activations", "[relu,tanh,silu]",
        "--compare.learning_rates", "[0.001,0.01]",
        "--compare.repeats", "8", "--trainer.max_epochs", "20",
    ]  # fmt: skip
    frames, answers, owners = [], [], []
    for n_workers in (1, 4):
        run = RunDirectory(tmp_path / str(n_workers))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--workers", str(n_workers), "--out", str(run.path)], check=True, env=environment, timeout=300
        )
        frames.append(run.read_members().drop(columns="seconds"))
        summary = run.read_summary()
        # means, intervals, p-values and verdicts, to the bit
        ranking = [{key: value for key, value in row.items() if key != "seconds"} for row in summary["ranking"]]
        comparisons = [
            {key: value for key, value in row.items() if key != "seconds_needed"} for row in summary["comparisons"]
        ]
        answers.append((summary["winner"], ranking, comparisons))
        trials = Study(open_storage(run.journal), "actlab").trials(*DONE)
        assert len(trials) == frames[-1].trial.nunique()
        owners.append({trial.user_attrs[OWNER]["worker"] for trial in trials})
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert answers[0] == answers[1]
    assert len(owners[0]) == 1
    assert len(owners[1]) > 1
