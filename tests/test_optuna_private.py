"""The private names of Optuna that actlab needs are there, and do what they are needed for."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage, RDBStorage

from actlab.engine.optuna_private import DATABASE_CALLS, trial_id, with_cache

NAMES = [*(f"optuna.storages.RDBStorage.{name}" for name in DATABASE_CALLS), "optuna.storages.get_storage",
         "optuna.storages._grpc.server.make_server"]  # fmt: skip


def find(name: str) -> Any:
    """What a dotted name stands for; None where there is nothing."""
    parts = name.split(".")
    for n_modules in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n_modules]))
        except ImportError:
            continue
        for part in parts[n_modules:]:
            found = getattr(found, part, None)
        return found
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_private_name_is_there(name: str) -> None:
    assert callable(find(name)), (
        f"Optuna {optuna.__version__} has no {name}: src/actlab/engine/optuna_private.py needs another way"
    )


def test_trials_have_the_number_that_their_storage_knows_them_by() -> None:
    study = optuna.create_study()
    asked = study.ask()
    (frozen,) = study.trials
    for trial in (asked, frozen):
        assert hasattr(trial, "_trial_id"), f"Optuna {optuna.__version__}: {type(trial).__name__} has no _trial_id"
    assert trial_id(asked) == trial_id(frozen)
    assert asked.study is study


def test_databases_get_a_cache_and_other_storages_do_not(tmp_path: Path) -> None:
    memory, database = InMemoryStorage(), RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    assert with_cache(memory) is memory
    cached = with_cache(database)
    assert cached is not database
    assert optuna.create_study(storage=cached).trials == []
    database.engine.dispose()


def test_stale_trials_are_asked_for_by_study() -> None:
    assert list(inspect.signature(RDBStorage._get_stale_trial_ids).parameters) == ["self", "study_id"]
