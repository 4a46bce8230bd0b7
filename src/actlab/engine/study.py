"""Optuna as the engine: a queue of cells that workers claim, and every cell completed exactly once.

Which workers are alive, so that the trials of dead ones come back to the queue, and one lock for all of them.

A *cell* is the work of one trial under a key that never changes, so that a trial whose worker died can be queued again
under a new trial number and is still the same work. Trials go WAITING -> RUNNING -> COMPLETE or PRUNED; one whose
worker died or was interrupted goes to FAIL, and its cell is queued again.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from actlab.engine import storage as database
from actlab.engine.storage import FileLock, PatientStorage, SafeJournal, advisory_lock, open_database, open_journal
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


# user attributes of a trial
CELL, NUMBER, REASON = "cell", "number", "reason"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def open_storage(journal: Path, url: str | None = None) -> BaseStorage:
    """The run's journal file, or the database of `url` (`postgresql+psycopg://user@host/db`, `grpc://host:port`).

    Raises:
        InputError: the journal is damaged, the database cannot be reached, or the URL holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        return open_journal(journal)
    return open_database(url)


@dataclass(frozen=True)
class Cell:
    """The work of one trial.

    Args:
        key: Names it for ever.
        number: Its place in the results, whatever the number of the trial that does it.
        params: What is to be evaluated; empty where a sampler decides.
        distributions: Where the parameters come from, for Optuna's own tools.
    """

    key: str
    number: int
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)

    def trial(self) -> FrozenTrial:
        return create_trial(
            state=TrialState.WAITING,
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs={CELL: self.key, NUMBER: self.number},
        )


class Study:
    """A study and its storage, through which cells are queued, claimed and told.

    Args:
        storage: From `open_storage`.
        name: Name of the study in the storage.
        sampler: What proposes parameters; not asked where cells bring their own.
    """

    def __init__(self, storage: BaseStorage, name: str, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        self.optuna = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, direction="minimize", load_if_exists=True
        )
        # with the cache that Optuna puts in front of a database
        self.storage = self.optuna._storage
        self.liveness = liveness_of(self.optuna)

    def _synced_once(self) -> AbstractContextManager[None]:
        """Many writes that wait for the disk once, where the study is in a file."""
        backend = self.storage._backend if isinstance(self.storage, JournalStorage) else None
        return backend.synced_once() if isinstance(backend, SafeJournal) else nullcontext()

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in some states (all without any), by number."""
        return self.storage.get_all_trials(self.optuna._study_id, deepcopy=False, states=states or None)

    def done(self) -> dict[str, FrozenTrial]:
        """Cell key to the trial that completed it (or was pruned)."""
        done: dict[str, FrozenTrial] = {}
        for trial in self.trials(*DONE):
            done.setdefault(trial.user_attrs[CELL], trial)
        return done

    def enqueue_missing(self, cells: Iterable[Cell], limit: int | None = None) -> int:
        """Queue every cell that is neither done, nor running in a live worker, nor queued; at most `limit`.

        Returns:
            How many were queued.
        """
        with self.liveness.exclusive(), self._synced_once():
            self.fail_stale()
            known = {trial.user_attrs.get(CELL) for trial in self.trials(*DONE, TrialState.RUNNING, TrialState.WAITING)}
            missing = [cell for cell in cells if cell.key not in known][:limit]
            for cell in missing:
                self.optuna.add_trial(cell.trial())
        return len(missing)

    def fail_stale(self) -> None:
        """Fail the running trials whose worker is gone."""
        for trial_id in self.liveness.stale(self.trials(TrialState.RUNNING)):
            self._fail(trial_id)

    def _fail(self, trial_id: int) -> None:
        try:
            self.storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            # somebody was quicker
            return

    def claim(self, limit: int) -> dict[int, optuna.Trial]:
        """Take up to `limit` queued trials, in the order of the results; unlike `Study.ask` it never invents one.

        Returns:
            Number in the results to trial.
        """
        with self.liveness.exclusive(), self._synced_once():
            busy = {trial.user_attrs.get(CELL) for trial in self.trials(*DONE, TrialState.RUNNING)}
            claimed: dict[int, optuna.Trial] = {}
            for frozen in sorted(self.trials(TrialState.WAITING), key=lambda trial: trial.user_attrs.get(NUMBER, -1)):
                if len(claimed) == limit:
                    break
                if NUMBER not in frozen.user_attrs:
                    # queued by somebody else's tool: not a cell of this run
                    continue
                if frozen.user_attrs[CELL] in busy:
                    self._fail(frozen._trial_id)
                elif trial := self._take(frozen._trial_id):
                    claimed[frozen.user_attrs[NUMBER]] = trial
                    busy.add(frozen.user_attrs[CELL])
        return self._undisputed(claimed) if claimed else {}

    def _take(self, trial_id: int) -> optuna.Trial | None:
        self.liveness.announce(trial_id)
        try:
            if not self.storage.set_trial_state_values(trial_id, state=TrialState.RUNNING):
                self.liveness.forget([trial_id])
                return None
            self.storage.set_trial_user_attr(trial_id, OWNER, self._signature())
            return optuna.Trial(self.optuna, trial_id)
        except UpdateFinishedTrialError:
            self.liveness.forget([trial_id])
            return None

    def _signature(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "pid": os.getpid(), "worker": self.liveness.token}

    def _undisputed(self, claimed: Mapping[int, optuna.Trial]) -> dict[int, optuna.Trial]:
        """Give back what another worker works on too, under another trial number.

        A cell is queued twice where the exclusive lock was lost (a database that was restarted, a proxy that has none).
        Of two workers that see each other both give up, and the cell is queued once more.
        """
        own = {trial._trial_id for trial in claimed.values()}
        others = {
            trial.user_attrs.get(CELL) for trial in self.trials(*DONE, TrialState.RUNNING) if trial._trial_id not in own
        }
        disputed = {number for number, trial in claimed.items() if trial.user_attrs.get(CELL) in others}
        self.release([claimed[number] for number in disputed])
        return {number: trial for number, trial in claimed.items() if number not in disputed}

    def complete(self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any]) -> None:
        """Store a trial's results; nothing happens if it was given up for dead meanwhile: others do its cell."""
        self._tell(trial, value, None, attributes)

    def prune(self, trial: optuna.Trial, reason: str, attributes: Mapping[str, Any]) -> None:
        """Store the results of a trial that was stopped early; its value is the last one it reported."""
        self._tell(trial, None, TrialState.PRUNED, {**attributes, REASON: reason})

    def _tell(
        self, trial: optuna.Trial, value: float | None, state: TrialState | None, attributes: Mapping[str, Any]
    ) -> None:
        try:
            with self._synced_once():
                for key, content in attributes.items():
                    trial.set_user_attr(key, content)
                self.optuna.tell(trial, value, state)
        except (ValueError, UpdateFinishedTrialError) as error:
            if isinstance(error, InputError):
                raise
        finally:
            self.liveness.forget([trial._trial_id])

    def release(self, trials: Sequence[optuna.Trial]) -> None:
        """Give claimed trials back unfinished: their cells can be queued again at once."""
        for trial in trials:
            self._fail(trial._trial_id)
        self.liveness.forget(trial._trial_id for trial in trials)

    def close(self) -> None:
        """The worker leaves; connections to a database are closed."""
        self.liveness.close()
        backend = getattr(self.storage, "_backend", None)
        if isinstance(backend, PatientStorage):
            backend.remove_session()
            backend.engine.dispose()
