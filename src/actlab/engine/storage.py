"""Where a study is kept: in a journal file, in PostgreSQL or behind Optuna's gRPC proxy; and the locks around it.

A journal survives processes that die or run out of disk in the middle of a write, calls to a database wait while it is
away, and every lock ends with its holder. SQLAlchemy is imported where it is needed: a run on a journal starts without.
"""

import functools
import hashlib
import json
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import optuna
from filelock import lock_descriptor
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from actlab.engine.optuna_private import DATABASE_CALLS
from actlab.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

# how often a waiting process asks for a lock; one attempt takes microseconds
POLL_S = 0.005


@contextmanager
def _refused_as(what: str, then: str = "") -> Iterator[None]:
    """What the system refuses, and why, as an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}{then}") from error


class FileLock:
    """An exclusive lock on a file, between processes and between threads, which the kernel ends with its process.

    `filelock.FileLock` is something else: it lets its thread in once more, and ends when it is collected as garbage.
    The file stays behind: removing it while others wait would let two in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def acquire(self, is_blocking: bool = True) -> bool:
        """Take the lock; False if somebody has it and `is_blocking` is not set.

        Raises:
            InputError: the file cannot be made, or its file system has no locks.
        """
        with _refused_as(f"{self.path} cannot be written"):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        is_taken = False
        try:
            is_taken = lock_descriptor(descriptor, blocking=is_blocking, poll_interval=POLL_S)
        except OSError as error:
            raise InputError(
                f"{self.path.parent} lies on a file system without file locks ({error.strerror}); "
                "choose another directory with --out"
            ) from error
        finally:
            if is_taken:
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        return is_taken

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # the only one of this opening; a thread that waits for it may go on before this one does
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


# how long a call waits for a database that is being restarted, before the run gives up (its state is safe)
RETRY_S = 300.0
# how long a server is waited for that refuses connections at the start
OPENING_S = 20.0
# what a server or resolver says that no waiting will change
FINAL = ("authentication failed", "does not exist", "no password supplied", "pg_hba.conf", "host name", "resolve host")
# SQLAlchemy's errors in what was asked, whatever the server does
REFUSALS = ("ArgumentError", "CompileError", "DataError", "IntegrityError", "NotSupportedError", "ProgrammingError")
# a worker that has not shown a heartbeat for GRACE_S is taken for dead, and its trials go back to the queue
HEARTBEAT_S, GRACE_S = 30, 120
# so long Optuna's own locks give a holder before they take it for dead
FOREIGN_GRACE_S = 30
# one connection for the work, one for a lock held meanwhile, one for the heartbeat's thread
ENGINE = {"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True}


def open_storage(place: Path | str) -> BaseStorage:
    """A journal file, or the database of a URL: `postgresql+psycopg://user@host/db`, or a proxy's `grpc://host:port`.

    Raises:
        InputError: the journal is damaged, the URL holds a password or names a database that would do harm, or nobody
            answers there.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return SafeJournalStorage(place) if isinstance(place, Path) else _open_database(place)


def _open_database(url: str) -> BaseStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise InputError("storage must be a database URL like postgresql+psycopg://user@host/db") from error
    if parsed.password is not None or "password" in parsed.query:
        shown = parsed._replace(password=None).difference_update_query(["password"]).render_as_string()
        raise InputError(f"storage must not hold a password: give {shown} and put it in ~/.pgpass or PGPASSWORD")
    if parsed.get_backend_name() == "sqlite":
        raise InputError("storage on SQLite hands one trial to several workers: use PostgreSQL, or leave storage away")
    # heartbeats are marked experimental since Optuna 2.9, the proxy since 4.2
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        if parsed.drivername != "grpc":
            return _open_server(url)
        host, port = parsed.host or "localhost", parsed.port or 13000
        try:
            storage = optuna.storages.GrpcStorageProxy(host=host, port=port)
            storage.wait_server_ready(timeout=30)
        except (ImportError, ConnectionError) as error:
            raise InputError(f"storage grpc://{host}:{port} cannot be opened: {error}") from error
        return storage


def _open_server(url: str) -> "RetryingStorage":
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    deadline = time.monotonic() + OPENING_S
    while True:
        try:
            return RetryingStorage(url, dict(ENGINE), heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
        except ImportError as error:
            raise InputError(f"storage {url} needs a driver: pip install 'actlab[postgres]' ({error})") from error
        except (SQLAlchemyError, StorageInternalError) as error:
            # worth another try: a server that is being restarted, or tables that another machine makes
            is_final = any(word in str(error) for word in FINAL)
            may_pass = not is_final if _is_away(error) else isinstance(error, DBAPIError | StorageInternalError)
            if time.monotonic() > deadline or not may_pass:
                raise InputError(f"storage {url} cannot be opened: {_reason(error)}") from error
        time.sleep(0.2 + random.random())


def _reason(error: BaseException) -> str:
    """The driver's own words, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _is_away(error: BaseException) -> bool:
    """Whether a call failed because the server was not there, rather than because of what it was asked. A connection
    that breaks in the middle of a transaction ends in whichever error comes first (`InternalError`,
    `PendingRollbackError`, plain `DatabaseError`), so what cannot be the server's absence is listed instead."""
    from sqlalchemy import exc

    told: list[exc.SQLAlchemyError] = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exc.SQLAlchemyError):
            told.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, exc.DBAPIError) and cause.connection_invalidated for cause in told):
        return True
    refusals = tuple(getattr(exc, name) for name in REFUSALS)
    return bool(told) and not any(isinstance(cause, refusals) for cause in told)


def retrying(call: Callable[..., Any]) -> Callable[..., Any]:
    """Repeat a call while the database is away, for `RETRY_S` at most.

    Every call of a storage may be repeated though it was carried out the first time: what is written is the same, a
    trial that is queued twice is claimed once (`Study.claim`), one that was told already refuses to be told again.
    """

    @functools.wraps(call)
    def repeated(*arguments: Any, **named: Any) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        deadline, pause_s = time.monotonic() + RETRY_S, 0.25
        while True:
            try:
                return call(*arguments, **named)
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _is_away(error):
                    raise
                if time.monotonic() > deadline:
                    raise InputError(
                        f"the database did not answer for {RETRY_S:.0f} s ({_reason(error)}); "
                        "what it holds is safe, and the same command goes on from there"
                    ) from error
            time.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(2 * pause_s, 10.0)

    return repeated


class RetryingStorage(RDBStorage):
    """Optuna's database storage whose calls wait while the server is being restarted."""


for _name, _call in vars(RDBStorage).items():
    is_of_every_storage = callable(_call) and _name in vars(BaseStorage) and not _name.startswith("_")
    if is_of_every_storage or _name in ("record_heartbeat", *DATABASE_CALLS):
        setattr(RetryingStorage, _name, retrying(_call))


@contextmanager
def advisory_lock(storage: RDBStorage, name: str) -> Iterator[None]:
    """A lock between all processes on a PostgreSQL database, given back when its connection ends."""
    if storage.engine.dialect.name != "postgresql":
        yield
        return
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    key = {"key": int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)}

    @retrying
    def take() -> "Connection":
        connection = storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        except BaseException:
            connection.close()
            raise
        return connection

    connection = take()
    try:
        yield
    finally:
        # a server that was restarted meanwhile has forgotten the lock with the connection
        with suppress(SQLAlchemyError), connection:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


class SafeJournalStorage(JournalStorage):
    """A study in a `SafeJournal`, or an `InputError` that says what is wrong with the file."""

    def __init__(self, path: Path) -> None:
        try:
            with _refused_as(f"{path} cannot be opened"):
                self.journal = SafeJournal(path)
                super().__init__(self.journal)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({error}); move it away, or start a new directory with --fresh or --out DIR"
            ) from error


class SafeJournal(JournalFileBackend):
    """Optuna's journal file whose every line is whole.

    A process killed in the middle of a write leaves a torn last line; the next write would be glued to it and nobody
    could read the study again. Here every write first cuts such a tail, and takes its own back when it fails.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._is_synced = path, True
        super().__init__(str(path))
        with journal_lock(path), path.open("a+b", buffering=0) as file:
            cut_torn_line(file)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write whole lines, or nothing; an `InputError` where the disk is full or the file cannot be written."""
        rest = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._unwritable(), journal_lock(self.path), self.path.open("a+b", buffering=0) as file:
            n_whole = cut_torn_line(file)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                if self._is_synced:
                    os.fsync(file.fileno())
            except BaseException:
                file.truncate(n_whole)
                raise

    @contextmanager
    def synced_once(self) -> Iterator[None]:
        """Wait for the disk at the end of a block instead of after each line that it writes.

        A process that dies inside loses nothing, for the kernel has its lines. A machine that dies may lose the last
        ones of them, and a cell whose lines are gone is queued, claimed or trained again. Raises as `append_logs`.
        """
        self._is_synced = False
        try:
            yield
        finally:
            self._is_synced = True
        with self._unwritable(), self.path.open("ab") as file:
            os.fsync(file.fileno())

    def _unwritable(self) -> AbstractContextManager[None]:
        then = "; what is in it is safe, and the same command goes on from there"
        return _refused_as(f"{self.path} cannot be written", then)


def cut_torn_line(file: FileIO) -> int:
    """Cut what follows the last newline of a file, under its lock; returns the length that is left."""
    n_bytes = end = file.seek(0, os.SEEK_END)
    n_whole = 0
    while end > 0 and not n_whole:
        start = max(0, end - (1 << 16))
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        end, n_whole = start, 0 if newline < 0 else start + newline + 1
    if n_whole < n_bytes:
        file.truncate(n_whole)
    return n_whole


@contextmanager
def journal_lock(journal: Path) -> Iterator[None]:
    """Hold the locks of a journal file: the kernel's between our processes, and Optuna's own for everybody else.

    Optuna's lock is a link beside the journal which a killed process leaves behind and which then blocks everybody for
    30 s. Ours is marked, and made only by who has the kernel's lock: whoever has that knows a marked one for stale.
    """
    link = journal.with_name(f"{journal.name}.lock")
    # to the journal itself, as Optuna's link is one, in a spelling of our own
    mark = f"./././{journal.name}"
    with FileLock(journal.with_name(f"{journal.name}.flock")):
        # not there, or not a link
        with suppress(OSError):
            if os.readlink(link) == mark:
                link.unlink()
        _wait_and_make(link, mark)
        try:
            yield
        finally:
            link.unlink(missing_ok=True)


def _wait_and_make(link: Path, mark: str) -> None:
    holder, since, pause_s = (0, 0), 0.0, 0.001
    while True:
        with suppress(FileExistsError):
            try:
                return link.symlink_to(mark)
            except (NotImplementedError, PermissionError):
                # no links here (Windows without the privilege): a plain file, as Optuna's other lock
                return link.touch(exist_ok=False)
        # where it is gone by now, nobody holds it
        with suppress(FileNotFoundError):
            status = link.lstat()
            if (found := (status.st_ino, status.st_mtime_ns)) != holder:
                holder, since = found, time.monotonic()
            elif time.monotonic() - since > FOREIGN_GRACE_S:
                link.unlink()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.5)
