"""A study in a database (PostgreSQL), or behind Optuna's gRPC proxy, that may be away for a while.

SQLAlchemy is imported by who needs it, as Optuna does: a run on a journal starts without.
"""

import contextlib
import functools
import hashlib
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from actlab.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

# how long a call waits for a database that is being restarted, before the run gives up (its state is safe)
PATIENCE_S = 300.0
# how long a server is waited for that refuses connections at the start
OPENING_S = 20.0
# what a server or resolver says that no waiting will change
FINAL = ("authentication failed", "does not exist", "no password supplied", "pg_hba.conf", "host name", "resolve host")
# SQLAlchemy's errors in what was asked, whatever the server does
REFUSALS = ("ArgumentError", "CompileError", "DataError", "IntegrityError", "NotSupportedError", "ProgrammingError")
# a worker that has not shown a heartbeat for GRACE_S is taken for dead, and its trials go back to the queue
HEARTBEAT_S, GRACE_S = 30, 120
# one connection for the work, one for a lock held meanwhile, one for the heartbeat's thread
ENGINE = {"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True}


def open_database(url: str) -> BaseStorage:
    """The storage of `postgresql+psycopg://user@host/db`, or of `grpc://host:port`, a proxy in front of one.

    Raises:
        InputError: the URL holds a password or names a database that would do harm, or nobody answers.
    """
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
    if parsed.drivername == "grpc":
        return _open_proxy(parsed.host or "localhost", parsed.port or 13000)
    return _open_server(url)


def _open_server(url: str) -> "PatientStorage":
    from sqlalchemy.exc import SQLAlchemyError

    deadline = time.monotonic() + OPENING_S
    while True:
        try:
            with warnings.catch_warnings():
                # heartbeats are marked experimental since Optuna 2.9
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return PatientStorage(
                    url, engine_kwargs=dict(ENGINE), heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S
                )
        except ImportError as error:
            raise InputError(f"storage {url} needs a driver: pip install 'actlab[postgres]' ({error})") from error
        except (SQLAlchemyError, StorageInternalError) as error:
            if time.monotonic() > deadline or not _may_pass(error):
                raise InputError(f"storage {url} cannot be opened: {_reason(error)}") from error
        time.sleep(0.2 + random.random())


def _may_pass(error: BaseException) -> bool:
    """Whether opening is worth another try: a server that is being restarted, or tables that another machine makes."""
    from sqlalchemy.exc import DBAPIError

    if _is_away(error):
        return not any(word in str(error) for word in FINAL)
    return isinstance(error, DBAPIError | StorageInternalError)


def _open_proxy(host: str, port: int) -> BaseStorage:
    try:
        with warnings.catch_warnings():
            # the proxy is marked experimental since Optuna 4.2
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.GrpcStorageProxy(host=host, port=port)
        storage.wait_server_ready(timeout=30)
    except (ImportError, ConnectionError) as error:
        raise InputError(f"storage grpc://{host}:{port} cannot be opened: {error}") from error
    return storage


def _reason(error: BaseException) -> str:
    """The driver's own words, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _is_away(error: BaseException) -> bool:
    """Whether a call failed because the server was not there, rather than because of what it was asked.

    A connection that breaks in the middle of a transaction ends in whichever error comes first (`InternalError`,
    `PendingRollbackError`, plain `DatabaseError`), so what cannot be the server's absence is listed instead.
    """
    from sqlalchemy import exc

    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, exc.DBAPIError) and cause.connection_invalidated for cause in causes):
        return True
    told = [cause for cause in causes if isinstance(cause, exc.SQLAlchemyError)]
    refusals = tuple(getattr(exc, name) for name in REFUSALS)
    return bool(told) and not any(isinstance(cause, refusals) for cause in told)


def patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Repeat a call while the database is away, for `PATIENCE_S` at most.

    Every call of a storage may be repeated though it was carried out the first time: what is written is the same, a
    trial that is queued twice is claimed once (`Study.claim`), one that was told already refuses to be told again.
    """

    @functools.wraps(call)
    def waiting(*arguments: Any, **named: Any) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        deadline, pause_s = time.monotonic() + PATIENCE_S, 0.25
        while True:
            try:
                return call(*arguments, **named)
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _is_away(error):
                    raise
                if time.monotonic() > deadline:
                    raise InputError(
                        f"the database did not answer for {PATIENCE_S:.0f} s ({_reason(error)}); "
                        "what it holds is safe, and the same command goes on from there"
                    ) from error
            time.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(2 * pause_s, 10.0)

    return waiting


class PatientStorage(RDBStorage):
    """Optuna's database storage whose calls wait while the server is being restarted."""

    _get_trials = patient(RDBStorage._get_trials)
    _get_stale_trial_ids = patient(RDBStorage._get_stale_trial_ids)
    record_heartbeat = patient(RDBStorage.record_heartbeat)


for _name, _call in vars(RDBStorage).items():
    if callable(_call) and _name in vars(BaseStorage) and not _name.startswith("_"):
        setattr(PatientStorage, _name, patient(_call))


@contextlib.contextmanager
def advisory_lock(storage: RDBStorage, name: str) -> Iterator[None]:
    """A lock between all processes on a PostgreSQL database, given back when its connection ends."""
    if storage.engine.dialect.name != "postgresql":
        yield
        return
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    connection = patient(_take)(storage, key)
    try:
        yield
    finally:
        # a server that was restarted meanwhile has forgotten the lock with the connection
        with contextlib.suppress(SQLAlchemyError):
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _take(storage: RDBStorage, key: int) -> "Connection":
    from sqlalchemy import text

    connection = storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
    except BaseException:
        connection.close()
        raise
    return connection
