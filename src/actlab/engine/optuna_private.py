"""Every name that Optuna keeps to itself and that is needed here, behind functions of our own.

Checked with Optuna 5.0.0. `pyproject.toml` keeps the next major version out; where a version before it drops one of
these names, `tests/test_optuna_private.py` says which.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

# Calls of a database storage that its cache and its heartbeats make, besides those of every storage.
DATABASE_CALLS = ("_get_trials", "_get_stale_trial_ids")


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """What a storage knows a trial by; unlike its number it is unique in the storage."""
    return trial._trial_id


def with_cache(storage: BaseStorage) -> BaseStorage:
    """A database behind Optuna's cache of finished trials, which it does not have itself; others as they are."""
    return optuna.storages.get_storage(storage)


def stale_trial_ids(storage: RDBStorage, study_id: int) -> list[int]:
    """Running trials without a heartbeat for longer than the storage's grace period."""
    return storage._get_stale_trial_ids(study_id)


def make_proxy_server(storage: BaseStorage, host: str, port: int, n_threads: int) -> Any:
    """Optuna's gRPC proxy in front of a storage, not started: Optuna's own function for it cannot be stopped."""
    from optuna.storages._grpc.server import make_server

    return make_server(storage, host, port, ThreadPoolExecutor(n_threads))
