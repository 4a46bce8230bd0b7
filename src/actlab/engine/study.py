"""Optuna as the engine: a queue of cells that workers claim, and every cell completed exactly once.

A *cell* is the work of one trial under a key that never changes, so that a trial whose worker died can be queued again
under a new trial number and is still the same work. Trials go WAITING -> RUNNING -> COMPLETE or PRUNED; one whose
worker died or was interrupted goes to FAIL, and its cell is queued again.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from actlab.engine.optuna_private import stale_trial_ids, trial_id, with_cache
from actlab.engine.storage import GRACE_S, HEARTBEAT_S, FileLock, RetryingStorage, SafeJournalStorage, advisory_lock
from actlab.errors import InputError

# User attributes of a trial: its cell's key, number, place in the queue and group, why it was pruned, who claimed it,
# and when that one last showed a sign of life where the storage keeps none.
CELL, NUMBER, ORDER, GROUP = "cell", "number", "order", "group"
REASON, OWNER, HEARTBEAT = "reason", "owner", "heartbeat"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class FileCoordinator:
    """What the workers of a study in a journal share: one lock, and who is alive, so that trials of the dead come back.

    Every worker holds the lock on a file of its own while it lives, which unlike a process number works across
    containers, and without waiting. Claims are made and signed under the lock of all: a running trial that is not
    signed has no living worker.
    """

    def __init__(self, storage: SafeJournalStorage, token: str) -> None:
        journal = storage.journal.path
        self._token, self._directory = token, journal.with_name("workers")
        self._queue = journal.with_name(f"{journal.name}.queue")
        self._own = FileLock(self._directory / f"{token}.alive")
        # many writes that wait for the disk once
        self.synced_once = storage.journal.synced_once

    def lock(self) -> AbstractContextManager[Any]:
        """The lock between all workers, for queueing and claiming; it ends with its holder."""
        return FileLock(self._queue)

    def announce(self, claimed: int) -> None:
        """To be called before a trial (its id) is claimed, so that it is known for stale if we die while claiming."""
        if not self._own.is_held:
            self._directory.mkdir(exist_ok=True)
            self._own.acquire()

    def stale(self, running: Iterable[FrozenTrial]) -> list[int]:
        """Ids of running trials whose worker is gone."""
        tokens = {trial_id(trial): trial.user_attrs.get(OWNER, {}).get("worker") for trial in running}
        gone = {token for token in set(tokens.values()) if self._is_gone(token)}
        return [claimed for claimed, token in tokens.items() if token in gone]

    def _is_gone(self, token: str | None) -> bool:
        """Whether a worker is gone; its file goes too."""
        if token is None or token == self._token:
            return token is None
        lock = FileLock(self._own.path.with_name(f"{token}.alive"))
        if lock.path.exists():
            if not lock.acquire(is_blocking=False):
                return False
            lock.path.unlink(missing_ok=True)
            lock.release()
        return True

    def forget(self, told: Iterable[int]) -> None:
        """Trials (their ids) that are not ours any more; the file says that the worker lives, whatever it does."""

    def close(self) -> None:
        if self._own.is_held:
            self._own.path.unlink(missing_ok=True)
            self._own.release()
            with suppress(OSError):
                self._directory.rmdir()


class HeartbeatCoordinator:
    """The same on a server, where a thread records a heartbeat for every claimed trial.

    Optuna records heartbeats in `optimize` only, so with claimed trials it falls to us. A database keeps them. Its
    proxy does not, nor has it a lock: there the time is an attribute of the trial, and the clocks of the machines must
    agree to within a minute. `storage` is given without the cache that would hide its lock.
    """

    synced_once = nullcontext

    def __init__(self, storage: BaseStorage, name: str, study_id: int) -> None:
        self._storage, self._name, self._study_id = storage, name, study_id
        self._database = storage if isinstance(storage, RetryingStorage) else None
        self._claimed: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_for_ever, name="heartbeat", daemon=True)

    def lock(self) -> AbstractContextManager[Any]:
        return advisory_lock(self._database, f"actlab {self._name}") if self._database else nullcontext()

    def announce(self, claimed: int) -> None:
        self._beat(claimed)
        self._claimed.add(claimed)
        if self._thread.ident is None:
            self._thread.start()

    def _beat(self, claimed: int) -> None:
        if self._database:
            self._database.record_heartbeat(claimed)
        else:
            self._storage.set_trial_user_attr(claimed, HEARTBEAT, time.time())

    def _beat_for_ever(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            for claimed in list(self._claimed):
                # told by another worker that took us for dead, or a database that is away: the next round sees
                with suppress(OptunaError, InputError, KeyError):
                    self._beat(claimed)

    def stale(self, running: Iterable[FrozenTrial]) -> list[int]:
        if self._database:
            return stale_trial_ids(self._database, self._study_id)
        oldest = time.time() - GRACE_S
        return [trial_id(trial) for trial in running if trial.user_attrs.get(HEARTBEAT, 0.0) < oldest]

    def forget(self, told: Iterable[int]) -> None:
        self._claimed -= set(told)

    def close(self) -> None:
        self._stop.set()


@dataclass(frozen=True)
class Cell:
    """The work of one trial, which `key` names for ever.

    `number` is that of its members, whatever the number of the trial that does the work; like the key it never changes.
    Cells are claimed in their `order`, those of one `group` (where it has a name) together by one worker. `params` are
    for Optuna's own tools, and `distributions` say where they come from; both are empty where a sampler decides.
    """

    key: str
    number: int
    order: int
    group: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)

    def trial(self) -> FrozenTrial:
        return create_trial(
            state=TrialState.WAITING,
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs={CELL: self.key, NUMBER: self.number, ORDER: self.order, GROUP: self.group},
        )


class Study:
    """A study and its storage, from `open_storage`, through which cells are queued, claimed and told."""

    def __init__(self, storage: BaseStorage, name: str) -> None:
        # what Optuna puts its cache in front of
        self.backend = storage
        self.storage = with_cache(storage)
        self.optuna = optuna.create_study(
            storage=self.storage, study_name=name, direction="minimize", load_if_exists=True
        )
        self._id = self.storage.get_study_id_from_name(name)
        # names this worker
        self._token = uuid.uuid4().hex
        self.coordinator = (
            FileCoordinator(storage, self._token)
            if isinstance(storage, SafeJournalStorage)
            else HeartbeatCoordinator(storage, name, self._id)
        )

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in some states (all without any), by number."""
        return self.storage.get_all_trials(self._id, deepcopy=False, states=states or None)

    def done(self) -> dict[str, FrozenTrial]:
        """Cell key to the trial that completed it (or was pruned)."""
        done: dict[str, FrozenTrial] = {}
        for trial in self.trials(*DONE):
            done.setdefault(trial.user_attrs[CELL], trial)
        return done

    def enqueue_missing(self, cells: Iterable[Cell], limit: int | None = None) -> int:
        """Queue every cell that is neither done, nor running in a live worker, nor queued; returns how many."""
        with self.coordinator.lock(), self.coordinator.synced_once():
            for stale in self.coordinator.stale(self.trials(TrialState.RUNNING)):
                self._fail(stale)
            known = _cells_of(self.trials(*DONE, TrialState.RUNNING, TrialState.WAITING))
            missing = [cell for cell in cells if cell.key not in known][:limit]
            for cell in missing:
                self.optuna.add_trial(cell.trial())
        return len(missing)

    def _fail(self, trial: int) -> None:
        # somebody may have told it already
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(trial, state=TrialState.FAIL)

    def claim(self, limit: int) -> dict[int, optuna.Trial]:
        """Take up to `limit` queued trials, more only to have a group whole, by the number of their members; unlike
        Optuna's `ask` it never invents one."""
        with self.coordinator.lock(), self.coordinator.synced_once():
            busy = _cells_of(self.trials(*DONE, TrialState.RUNNING))
            claimed: dict[int, optuna.Trial] = {}
            group = ""
            # what somebody else's tool queued is not a cell of this run
            waiting = [trial for trial in self.trials(TrialState.WAITING) if NUMBER in trial.user_attrs]
            for frozen in sorted(waiting, key=lambda trial: (trial.user_attrs[ORDER], trial.number)):
                if len(claimed) >= limit and (not group or frozen.user_attrs[GROUP] != group):
                    break
                if frozen.user_attrs[CELL] in busy:
                    self._fail(trial_id(frozen))
                elif trial := self._take(trial_id(frozen)):
                    claimed[frozen.user_attrs[NUMBER]] = trial
                    busy.add(frozen.user_attrs[CELL])
                    group = frozen.user_attrs[GROUP]
        return self._undisputed(claimed) if claimed else {}

    def _take(self, queued: int) -> optuna.Trial | None:
        self.coordinator.announce(queued)
        signature = {"host": socket.gethostname(), "pid": os.getpid(), "worker": self._token}
        with suppress(UpdateFinishedTrialError):
            if self.storage.set_trial_state_values(queued, state=TrialState.RUNNING):
                self.storage.set_trial_user_attr(queued, OWNER, signature)
                return optuna.Trial(self.optuna, queued)
        self.coordinator.forget([queued])
        return None

    def _undisputed(self, claimed: dict[int, optuna.Trial]) -> dict[int, optuna.Trial]:
        """Give back what another worker works on too, under another trial number. A cell is queued twice where the lock
        was lost (a database that was restarted, a proxy that has none). Of two workers that see each other both give
        up, and the cell is queued once more."""
        own = set(map(trial_id, claimed.values()))
        others = _cells_of(trial for trial in self.trials(*DONE, TrialState.RUNNING) if trial_id(trial) not in own)
        disputed = [number for number, trial in claimed.items() if trial.user_attrs.get(CELL) in others]
        self.release([claimed.pop(number) for number in disputed])
        return claimed

    def complete(self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any], pruned: str = "") -> None:
        """Store a trial's results; nothing happens if it was given up for dead meanwhile: others do its cell.

        With a reason in `pruned` it was stopped early, and its value is the last one that it reported.
        """
        try:
            with self.coordinator.synced_once():
                for key, content in attributes.items():
                    trial.set_user_attr(key, content)
                if pruned:
                    trial.set_user_attr(REASON, pruned)
                    self.optuna.tell(trial, state=TrialState.PRUNED)
                else:
                    self.optuna.tell(trial, value)
        except (ValueError, UpdateFinishedTrialError) as error:
            if isinstance(error, InputError):
                raise
        finally:
            self.coordinator.forget([trial_id(trial)])

    def release(self, trials: Sequence[optuna.Trial]) -> None:
        """Give claimed trials back unfinished: their cells can be queued again at once."""
        for trial in trials:
            self._fail(trial_id(trial))
        self.coordinator.forget(map(trial_id, trials))

    def close(self) -> None:
        """The worker leaves; connections to a database are closed."""
        self.coordinator.close()
        if isinstance(self.backend, RetryingStorage):
            self.backend.remove_session()
            self.backend.engine.dispose()


def _cells_of(trials: Iterable[FrozenTrial]) -> set[str | None]:
    return {trial.user_attrs.get(CELL) for trial in trials}
