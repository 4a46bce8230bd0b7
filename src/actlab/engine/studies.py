"""Optuna as the engine: a queue of cells that workers claim, and every cell completed exactly once.

A *cell* is the work of one trial under a key that never changes, so that a trial whose worker died can be queued again
under a new trial number and is still the same work. Trials go WAITING -> RUNNING -> COMPLETE or PRUNED; one whose
worker died or was interrupted goes to FAIL, and its cell is queued again.
"""

import os
import socket
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

from actlab.engine.database import PatientStorage, open_database
from actlab.engine.journal import SafeJournal, open_journal
from actlab.engine.liveness import OWNER, liveness_of
from actlab.errors import InputError

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
