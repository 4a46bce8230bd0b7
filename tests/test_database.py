"""Calls to a database that goes away in the middle are repeated; what a server refuses for good is not."""

from collections.abc import Callable

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from actlab.engine import storage as database
from actlab.engine.storage import retrying
from actlab.errors import InputError

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


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.time, "sleep", lambda _: None)


@pytest.mark.parametrize("make", AWAY)
def test_a_call_is_repeated_until_the_server_is_back(make: Callable[[], SQLAlchemyError]) -> None:
    call = Flaky(make(), 3)
    assert retrying(call.__call__)() == "answer"
    assert call.n_calls == 4


@pytest.mark.parametrize("make", REFUSED)
def test_a_refusal_is_not_asked_again(make: Callable[[], SQLAlchemyError]) -> None:
    call = Flaky(make(), 1)
    with pytest.raises(StorageInternalError):
        retrying(call.__call__)()
    assert call.n_calls == 1


def test_a_server_that_stays_away_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "RETRY_S", -1.0)
    with pytest.raises(InputError, match=r"did not answer for .* what it holds is safe"):
        retrying(Flaky(AWAY[0](), 1).__call__)()
