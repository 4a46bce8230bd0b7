"""Where studies are kept: torn files heal, locks of the dead do not hold, and a database may go away for a while."""

import errno
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from actlab.engine import storage as storages
from actlab.engine.storage import FileLock, open_storage, retrying
from actlab.engine.study import CELL, Cell, Study
from actlab.errors import InputError

CELLS = [Cell(f"cell {number}", number, number) for number in range(6)]


def open_study(journal: Path) -> Study:
    return Study(open_storage(journal), "actlab")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


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
    monkeypatch.setattr(storages.os, "fsync", lambda descriptor: synced.append(journal.read_bytes().count(b"\n")))
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

    monkeypatch.setattr(storages.os, "fsync", fail)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        study.enqueue_missing(CELLS)
    synced: list[int] = []
    monkeypatch.setattr(storages.os, "fsync", synced.append)
    assert study.enqueue_missing(CELLS) == 0
    assert len(synced) == 1
    assert list(study.claim(6)) == [0, 1, 2, 3, 4, 5]


ON_A_JOURNAL = """
import sys
from pathlib import Path
from actlab.engine.storage import open_storage
from actlab.engine.study import Cell, Study
study = Study(open_storage(Path(sys.argv[1])), "actlab")
study.enqueue_missing([Cell("cell 0", 0, 0)])
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
    monkeypatch.setattr(storages, "FOREIGN_GRACE_S", 0.3)
    study = open_study(journal)
    JournalFileOpenLock(str(journal)).acquire()
    study.enqueue_missing(CELLS[:1])
    assert [trial.user_attrs[CELL] for trial in study.trials()] == ["cell 0"]


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


def test_a_file_lock_excludes_other_threads_and_waits_for_them(tmp_path: Path) -> None:
    lock, got = FileLock(tmp_path / "lock"), []
    lock.acquire()
    waiting = FileLock(lock.path)
    thread = threading.Thread(target=lambda: got.append(waiting.acquire()))
    thread.start()
    thread.join(0.2)
    assert got == []
    assert not waiting.is_held
    lock.release()
    thread.join()
    assert got == [True]
    assert waiting.is_held
    waiting.release()
    # it does not end with the object that took it
    FileLock(lock.path).acquire()
    assert not FileLock(lock.path).acquire(is_blocking=False)


def test_a_lock_that_cannot_be_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"not_there.*cannot be written: No such file or directory"):
        FileLock(tmp_path / "not_there" / "lock").acquire()

    def refuse(descriptor: int, **_: Any) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(storages, "lock_descriptor", refuse)
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(InputError, match=r"file system without file locks \(No locks available\)"):
        lock.acquire()
    assert not lock.is_held


@pytest.mark.parametrize(("url", "says"), [
    ("postgresql+psycopg://me:secret@host/db", "must not hold a password: give postgresql.psycopg://me@host/db and"),
    ("postgresql+psycopg://me@host/db?password=secret", "must not hold a password"),
    ("sqlite:///study.db", "SQLite hands one trial to several workers"),
    ("nonsense", "must be a database URL"),
    ("postgresql+nodriver://me@host/db", "cannot be opened"),
])  # fmt: skip
def test_a_storage_that_would_do_harm_is_refused_without_repeating_its_password(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


def test_a_journal_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError):
        open_study(tmp_path / "study.journal")
    tmp_path.chmod(0o700)


AWAY: list[Callable[[], SQLAlchemyError]] = [
    lambda: sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection")),
    lambda: sqlalchemy.exc.InterfaceError("SELECT 1", {}, Exception("connection already closed")),
    lambda: sqlalchemy.exc.PendingRollbackError("Can't reconnect until invalid transaction is rolled back"),
    lambda: sqlalchemy.exc.DatabaseError("SELECT 1", {}, Exception("the connection is lost")),
]
REFUSED: list[Callable[[], SQLAlchemyError]] = [
    lambda: sqlalchemy.exc.ProgrammingError("SELECT x", {}, Exception('column "x" does not exist')),
    lambda: sqlalchemy.exc.DataError("INSERT", {}, Exception("value too long")),
    lambda: sqlalchemy.exc.IntegrityError("INSERT", {}, Exception("duplicate key")),
]


class Flaky:
    """Fails a number of times, as Optuna does: the database's error is the cause of a `StorageInternalError`."""

    def __init__(self, error: SQLAlchemyError, n_failures: int) -> None:
        self.error, self.n_failures, self.n_calls = error, n_failures, 0

    def __call__(self) -> str:
        self.n_calls += 1
        if self.n_calls <= self.n_failures:
            raise StorageInternalError("An exception is raised during the commit.") from self.error
        return "answer"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("make", AWAY)
def test_a_call_is_repeated_until_the_server_is_back(make: Callable[[], SQLAlchemyError]) -> None:
    call = Flaky(make(), 3)
    assert retrying(call.__call__)() == "answer"
    assert call.n_calls == 4


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("make", REFUSED)
def test_a_refusal_is_not_asked_again(make: Callable[[], SQLAlchemyError]) -> None:
    call = Flaky(make(), 1)
    with pytest.raises(StorageInternalError):
        retrying(call.__call__)()
    assert call.n_calls == 1


@pytest.mark.usefixtures("no_waiting")
def test_a_server_that_stays_away_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "RETRY_S", -1.0)
    with pytest.raises(InputError, match=r"did not answer for .* what it holds is safe"):
        retrying(Flaky(AWAY[0](), 1).__call__)()
