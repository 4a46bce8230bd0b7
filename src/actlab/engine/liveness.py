"""Which workers are alive, so that the trials of dead ones come back to the queue, and one lock for all of them."""

import contextlib
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial

from actlab.engine import database
from actlab.engine.database import advisory_lock
from actlab.engine.journal import SafeJournal
from actlab.engine.locks import FileLock
from actlab.errors import InputError

OWNER, HEARTBEAT = "owner", "heartbeat"


class Liveness(ABC):
    """How one worker shows that it lives, and finds those that do not."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[Any]:
        """A lock between all workers of the study, for queueing; it ends with its holder."""

    @abstractmethod
    def announce(self, trial_id: int) -> None:
        """To be called before a trial is claimed, so that it is known for stale if we die while claiming it."""

    @abstractmethod
    def stale(self, running: Iterable[FrozenTrial]) -> list[int]:
        """Ids of running trials whose worker is gone."""

    @abstractmethod
    def forget(self, trial_ids: Iterable[int]) -> None:
        """These trials were told."""

    @abstractmethod
    def close(self) -> None:
        """The worker leaves."""


class FileLiveness(Liveness):
    """Beside a journal: every worker holds the kernel's lock on a file of its own as long as it lives.

    Unlike a process number this holds between containers, and nobody has to wait to see that a worker is gone.
    Claims are made and signed under the exclusive lock: a running trial that is not signed has no living worker.

    Args:
        journal: The study's file.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._directory = journal.with_name("workers")
        self._queue = journal.with_name(f"{journal.name}.queue")
        self._own = FileLock(self._file(self.token))
        self._is_held = False

    def _file(self, token: str) -> Path:
        return self._directory / f"{token}.alive"

    def exclusive(self) -> AbstractContextManager[Any]:
        return FileLock(self._queue)

    def announce(self, trial_id: int) -> None:
        if not self._is_held:
            self._directory.mkdir(exist_ok=True)
            self._own.acquire()
            self._is_held = True

    def stale(self, running: Iterable[FrozenTrial]) -> list[int]:
        tokens = {trial._trial_id: _token(trial) for trial in running}
        gone = {token for token in set(tokens.values()) if self._is_gone(token)}
        return [trial_id for trial_id, token in tokens.items() if token in gone]

    def _is_gone(self, token: str | None) -> bool:
        if token is None:
            return True
        file = self._file(token)
        if token == self.token or not file.exists():
            return token != self.token
        lock = FileLock(file)
        if not lock.acquire(is_blocking=False):
            return False
        file.unlink(missing_ok=True)
        lock.release()
        return True

    def forget(self, trial_ids: Iterable[int]) -> None:
        """The file says that the worker lives, whatever it does."""

    def close(self) -> None:
        if self._is_held:
            self._own.path.unlink(missing_ok=True)
            self._own.release()
            self._is_held = False
            with contextlib.suppress(OSError):
                self._directory.rmdir()


def _token(trial: FrozenTrial) -> str | None:
    owner: Mapping[str, Any] = trial.user_attrs.get(OWNER) or {}
    return owner.get("worker")


class HeartbeatLiveness(Liveness):
    """On a database: a thread records a heartbeat for every claimed trial.

    Optuna records heartbeats in `optimize` only, so with claimed trials it falls to us.

    Args:
        study: Of a database storage, or of Optuna's gRPC proxy. The proxy has no heartbeats: there the time is kept as
            an attribute of the trial, and the clocks of the machines must agree to within a minute.
    """

    def __init__(self, study: optuna.Study) -> None:
        super().__init__()
        self._study, self._storage = study, study._storage
        self._backend = getattr(self._storage, "_backend", None)
        self._trial_ids: set[int] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def exclusive(self) -> AbstractContextManager[Any]:
        if isinstance(self._backend, database.PatientStorage):
            return advisory_lock(self._backend, f"actlab {self._study.study_name}")
        return nullcontext()

    def announce(self, trial_id: int) -> None:
        self._beat(trial_id)
        self._trial_ids.add(trial_id)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat_for_ever, name="heartbeat", daemon=True)
            self._thread.start()

    def _beat(self, trial_id: int) -> None:
        if isinstance(self._backend, database.PatientStorage):
            self._backend.record_heartbeat(trial_id)
        else:
            self._storage.set_trial_user_attr(trial_id, HEARTBEAT, time.time())

    def _beat_for_ever(self) -> None:
        while not self._stop.wait(database.HEARTBEAT_S):
            for trial_id in list(self._trial_ids):
                # told by another worker that took us for dead, or a database that is away: the next round sees
                with contextlib.suppress(optuna.exceptions.OptunaError, InputError, KeyError):
                    self._beat(trial_id)

    def stale(self, running: Iterable[FrozenTrial]) -> list[int]:
        if isinstance(self._backend, database.PatientStorage):
            return list(self._backend._get_stale_trial_ids(self._study._study_id))
        oldest = time.time() - database.GRACE_S
        return [trial._trial_id for trial in running if trial.user_attrs.get(HEARTBEAT, 0.0) < oldest]

    def forget(self, trial_ids: Iterable[int]) -> None:
        self._trial_ids -= set(trial_ids)

    def close(self) -> None:
        self._stop.set()


def liveness_of(study: optuna.Study) -> Liveness:
    """The kind that fits a study's storage."""
    storage: BaseStorage = study._storage
    if isinstance(storage, JournalStorage) and isinstance(storage._backend, SafeJournal):
        return FileLiveness(storage._backend.path)
    return HeartbeatLiveness(study)
