"""The queue of cells: torn files heal, locks of the dead do not hold, and every cell is completed once."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from actlab.engine import storage as journals
from actlab.engine.optuna_private import trial_id
from actlab.engine.storage import FileLock
from actlab.engine.study import CELL, PLACE, Cell, Study, open_storage
from actlab.errors import InputError

CELLS = [Cell(f"cell {number}", number) for number in range(6)]


def open_study(journal: Path) -> Study:
    return Study(open_storage(journal), "actlab")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def numbers(study: Study, *states: TrialState) -> list[int]:
    return [trial.user_attrs[PLACE] for trial in study.trials(*states)]


def test_a_queued_cell_is_claimed_once_and_in_the_order_of_the_results(journal: Path) -> None:
    first, second = open_study(journal), open_study(journal)
    assert first.enqueue_missing(reversed(CELLS)) == 6
    assert second.enqueue_missing(CELLS) == 0
    assert list(first.claim(4)) == [0, 1, 2, 3]
    assert list(second.claim(4)) == [4, 5]
    assert first.claim(4) == {}


def test_many_threads_claim_every_cell_once(journal: Path) -> None:
    open_study(journal).enqueue_missing(CELLS)
    claimed: list[int] = []

    def work() -> None:
        study = open_study(journal)
        while own := study.claim(1):
            claimed.extend(own)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [0, 1, 2, 3, 4, 5]


def test_a_cell_that_was_queued_twice_is_done_once(journal: Path) -> None:
    study, other = open_study(journal), open_study(journal)
    study.enqueue_missing(CELLS[:1])
    study.optuna.add_trial(CELLS[0].trial())
    (trial,) = study.claim(5).values()
    assert other.claim(5) == {}
    study.complete(trial, 1.0, {})
    assert numbers(study, TrialState.COMPLETE) == [0]
    assert numbers(study, TrialState.WAITING, TrialState.RUNNING) == []


def test_of_two_workers_that_hold_one_cell_none_completes_it_unseen(journal: Path) -> None:
    study, other = open_study(journal), open_study(journal)
    for one in (study, other):
        one.optuna.add_trial(CELLS[0].trial())
    # as after a lost lock: both trials run before either worker looks
    held = other.storage.get_all_trials(0)[1]
    assert other.storage.set_trial_state_values(trial_id(held), TrialState.RUNNING)
    assert study.claim(5) == {}


def test_a_trial_that_was_given_up_for_dead_cannot_be_completed(journal: Path) -> None:
    study, other = open_study(journal), open_study(journal)
    study.enqueue_missing(CELLS[:1])
    (late,) = study.claim(1).values()
    other._fail(trial_id(late))
    assert other.enqueue_missing(CELLS[:1]) == 1
    (again,) = other.claim(1).values()
    study.complete(late, 1.0, {"members": []})
    other.complete(again, 2.0, {})
    assert study.done()["cell 0"].value == 2.0
    assert numbers(study, TrialState.COMPLETE) == [0]


def test_released_trials_can_be_queued_again_at_once(journal: Path) -> None:
    study = open_study(journal)
    study.enqueue_missing(CELLS)
    study.release(list(study.claim(2).values()))
    assert study.enqueue_missing(CELLS) == 2
    assert list(study.claim(2)) == [0, 1]


CLAIM_AND_SAY = """
import sys, time
from pathlib import Path
from actlab.engine.study import Study, open_storage
study = Study(open_storage(Path(sys.argv[1])), "actlab")
print(*study.claim(2), flush=True)
time.sleep(60)
"""


def test_what_a_killed_worker_was_doing_comes_back_and_what_a_live_one_does_stays(journal: Path) -> None:
    study = open_study(journal)
    study.enqueue_missing(CELLS)
    live = study.claim(2)
    worker = subprocess.Popen([sys.executable, "-c", CLAIM_AND_SAY, str(journal)], stdout=subprocess.PIPE, text=True)
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().split() == ["2", "3"]
        assert study.enqueue_missing(CELLS) == 0
        worker.send_signal(signal.SIGKILL)
    assert study.enqueue_missing(CELLS) == 2
    assert list(live) == [0, 1]
    assert sorted(numbers(study, TrialState.RUNNING)) == [0, 1]


def test_trials_of_another_tool_are_left_alone(journal: Path) -> None:
    study = open_study(journal)
    study.optuna.enqueue_trial({"x": 1})
    assert study.claim(5) == {}
    assert len(study.trials(TrialState.WAITING)) == 1


@pytest.mark.parametrize("torn", [b'{"op_code":', b'{"op_code":8,"worker_id":"a"}', b"\x00" * 100_000])
def test_a_torn_last_line_is_cut_before_the_next_write(journal: Path, torn: bytes) -> None:
    study = open_study(journal)
    study.enqueue_missing(CELLS[:1])
    with journal.open("ab") as file:
        file.write(torn)
    # by a process that had the study open when it happened, and by one that opens it after
    study.enqueue_missing(CELLS[:2])
    with journal.open("ab") as file:
        file.write(torn)
    other = open_study(journal)
    other.enqueue_missing(CELLS[:3])
    plain = optuna.load_study(study_name="actlab", storage=JournalStorage(JournalFileBackend(str(journal))))
    assert [trial.user_attrs[CELL] for trial in plain.trials] == ["cell 0", "cell 1", "cell 2"]
    assert journal.read_bytes().endswith(b"\n")


def test_a_damaged_journal_is_refused_in_a_sentence(journal: Path) -> None:
    open_study(journal).enqueue_missing(CELLS[:1])
    journal.write_bytes(b"not json\n" + journal.read_bytes())
    with pytest.raises(InputError, match="is damaged"):
        open_storage(journal)


def test_a_write_that_fails_in_the_middle_leaves_whole_lines(journal: Path) -> None:
    study = open_study(journal)
    study.enqueue_missing(CELLS[:1])
    before = journal.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written: File too large.*goes on from there"):
            study.enqueue_missing(CELLS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.read_bytes() == before
    assert study.enqueue_missing(CELLS) == 5


def test_a_queue_a_claim_and_a_trial_wait_for_the_disk_once_each(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, synced = open_study(journal), []
    # what is on the disk after each wait
    monkeypatch.setattr(journals.os, "fsync", lambda descriptor: synced.append(journal.read_bytes().count(b"\n")))
    n_lines = journal.read_bytes().count(b"\n")
    study.enqueue_missing(CELLS)
    assert synced == [n_lines + 6]
    claimed = study.claim(4)
    assert synced == [n_lines + 6, n_lines + 14]
    study.complete(claimed[0], 1.0, {"a": 1, "b": 2})
    assert synced == [n_lines + 6, n_lines + 14, n_lines + 17]
    study.optuna.set_user_attr("alone", 1)
    assert len(synced) == 4


def test_a_disk_that_fails_at_the_end_of_many_writes_is_told_and_the_next_write_waits_again(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(journal)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "fsync", fail)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        study.enqueue_missing(CELLS)
    synced: list[int] = []
    monkeypatch.setattr(journals.os, "fsync", synced.append)
    assert study.enqueue_missing(CELLS) == 0
    assert len(synced) == 1
    assert list(study.claim(6)) == [0, 1, 2, 3, 4, 5]


ON_A_JOURNAL = """
import sys
from pathlib import Path
from actlab.engine.study import Cell, Study, open_storage
study = Study(open_storage(Path(sys.argv[1])), "actlab")
study.enqueue_missing([Cell("cell 0", 0)])
(trial,) = study.claim(1).values()
study.complete(trial, 1.0, {})
study.close()
print(*(name for name in ("sqlalchemy", "alembic", "grpc") if name in sys.modules))
"""


def test_a_study_in_a_file_does_without_the_libraries_of_databases(journal: Path) -> None:
    command = [sys.executable, "-c", ON_A_JOURNAL, str(journal)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == ""


def test_a_lock_left_by_a_killed_worker_of_ours_holds_nobody_up(journal: Path) -> None:
    study = open_study(journal)
    journal.with_name(f"{journal.name}.lock").symlink_to(f"./././{journal.name}")
    started = time.monotonic()
    study.enqueue_missing(CELLS)
    assert time.monotonic() - started < 5


def test_a_lock_of_another_optuna_process_is_respected_until_it_is_released(journal: Path) -> None:
    study = open_study(journal)
    foreign = JournalFileOpenLock(str(journal))
    foreign.acquire()
    timer = threading.Timer(0.5, foreign.release)
    timer.start()
    started = time.monotonic()
    study.enqueue_missing(CELLS[:1])
    assert time.monotonic() - started > 0.4
    timer.join()


def test_a_lock_that_another_optuna_process_left_behind_is_broken_after_its_grace(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "FOREIGN_GRACE_S", 0.3)
    study = open_study(journal)
    JournalFileOpenLock(str(journal)).acquire()
    study.enqueue_missing(CELLS[:1])
    assert numbers(study) == [0]


def test_a_file_lock_excludes_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "from actlab.engine.storage import FileLock; from pathlib import Path; "
        f"FileLock(Path({str(path)!r})).acquire(); "
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert not FileLock(path).acquire(is_blocking=False)
        holder.kill()
    with FileLock(path):
        assert not FileLock(path).acquire(is_blocking=False)
    assert FileLock(path).acquire(is_blocking=False)


@pytest.mark.parametrize(("url", "says"), [
    ("postgresql+psycopg://me:secret@host/db", "must not hold a password: give postgresql.psycopg://me@host/db and"),
    ("postgresql+psycopg://me@host/db?password=secret", "must not hold a password"),
    ("sqlite:///study.db", "SQLite hands one trial to several workers"),
    ("nonsense", "must be a database URL"),
    ("postgresql+nodriver://me@host/db", "cannot be opened"),
])  # fmt: skip
def test_a_storage_that_would_do_harm_is_refused_without_repeating_its_password(
    url: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        open_storage(tmp_path / "study.journal", url)
    assert "secret" not in str(caught.value)


def test_a_journal_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError):
        open_study(tmp_path / "study.journal")
    tmp_path.chmod(0o700)
