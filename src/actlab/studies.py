"""Optuna as the engine: storage, a queue of cells that workers claim, and every trial told exactly once.

A *cell* is a stable key for the work of a trial (its parameters), so that a trial whose worker died can be queued
again under a new trial number and is still the same work.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from actlab.errors import InputError

CELL, OWNER = "cell", "owner"
# a worker that has not shown a heartbeat for this long is taken for dead (storages on a database only)
HEARTBEAT_S, GRACE_S = 30, 120


def open_storage(journal: Path, url: str | None = None) -> BaseStorage:
    """The run's journal file, or the database of `url` (`postgresql+psycopg://user@host/db`).

    Raises:
        InputError: the database cannot be reached, or the URL holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        repair(journal)
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
    return _open_database(url)


def _open_database(url: str) -> BaseStorage:
    import sqlalchemy

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(f"storage {url!r} is not a database URL like postgresql+psycopg://user@host/db") from error
    if parsed.password is not None:
        shown = parsed.set(password=None).render_as_string()
        raise InputError(f"storage must not hold a password: give {shown} and put it in ~/.pgpass or PGPASSWORD")
    if parsed.get_backend_name() == "sqlite":
        raise InputError("storage on SQLite hands one trial to several workers: use PostgreSQL, or leave storage away")
    try:
        return RDBStorage(
            url,
            engine_kwargs={"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
        )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"storage {url} cannot be opened: {reason}") from error


def repair(journal: Path) -> None:
    """Cut a torn last line (a kill or a full disk in the middle of a write), which would make the study unreadable."""
    if not journal.exists() or journal.stat().st_size == 0:
        return
    lock = JournalFileOpenLock(str(journal))
    lock.acquire()
    try:
        with journal.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
    finally:
        lock.release()


@dataclass(frozen=True)
class Cell:
    """The work of one trial: Optuna parameters, and the key that names them for ever."""

    params: Mapping[str, Any]

    @property
    def key(self) -> str:
        return json.dumps(dict(self.params), sort_keys=True)


class Study:
    """A study and its storage, through which trials are queued, claimed and told.

    Args:
        storage: From `open_storage`.
        name: Name of the study in the storage.
        sampler: For `ask`; None where every trial is queued.
    """

    def __init__(self, storage: BaseStorage, name: str, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        self.storage = storage
        self.optuna = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, direction="minimize", load_if_exists=True
        )
        self._id = storage.get_study_id_from_name(name)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in some states (all without any), by number."""
        return self.storage.get_all_trials(self._id, deepcopy=False, states=states or None)

    def completed(self) -> dict[str, FrozenTrial]:
        """Cell key to its completed trial; the first one, should a cell have been completed twice."""
        done: dict[str, FrozenTrial] = {}
        for trial in self.trials(TrialState.COMPLETE):
            done.setdefault(trial.user_attrs[CELL], trial)
        return done

    def enqueue_missing(self, cells: Iterable[Cell]) -> None:
        """Queue every cell that is neither done, nor running in a live worker, nor queued."""
        self.fail_stale()
        known = {
            trial.user_attrs[CELL] for trial in self.trials(TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
        }
        for cell in cells:
            if cell.key not in known:
                self.optuna.enqueue_trial(dict(cell.params), user_attrs={CELL: cell.key})

    def claim(self, limit: int) -> list[optuna.Trial]:
        """Take up to `limit` queued trials. Unlike `Study.ask` this never invents one when the queue is empty."""
        claimed: list[optuna.Trial] = []
        for frozen in self.trials(TrialState.WAITING):
            if len(claimed) == limit:
                break
            if self.storage.set_trial_state_values(frozen._trial_id, state=TrialState.RUNNING):
                claimed.append(self._own(optuna.Trial(self.optuna, frozen._trial_id)))
        return claimed

    def ask(self) -> optuna.Trial:
        """A new trial of the sampler's choice."""
        return self._own(self.optuna.ask())

    def _own(self, trial: optuna.Trial) -> optuna.Trial:
        trial.set_user_attr(OWNER, _owner())
        return trial

    def complete(self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any]) -> bool:
        """Store a trial's results; False if the trial was given up for dead meanwhile (its work is done elsewhere)."""
        try:
            for key, content in attributes.items():
                trial.set_user_attr(key, content)
            self.optuna.tell(trial, value)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False
        return True

    def fail_stale(self) -> None:
        """Fail trials that stay RUNNING though their worker is gone, so that their cells can be queued again."""
        if isinstance(self.storage, RDBStorage):
            optuna.storages.fail_stale_trials(self.optuna)
            return
        for trial in self.trials(TrialState.RUNNING):
            if is_gone(trial.user_attrs.get(OWNER)):
                self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_time(os.getpid())}


def is_gone(owner: Mapping[str, Any] | None) -> bool:
    """Whether the process that owns a trial has ended; a process of another host is never taken for gone.

    A trial without an owner was claimed by a process that was killed before it could sign.
    """
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # a process number is used again: the start time tells the old process from a new one
    return bool(owner["started"] != _start_time(owner["pid"]))


def _start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None where the system does not say (no /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
