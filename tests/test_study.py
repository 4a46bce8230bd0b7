"""The queue of cells: every cell is claimed in order, and completed once whatever becomes of its worker."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState

from actlab.engine.optuna_private import trial_id
from actlab.engine.storage import open_storage
from actlab.engine.study import NUMBER, Cell, Study

CELLS = [Cell(f"cell {number}", number, number) for number in range(6)]


def open_study(journal: Path) -> Study:
    return Study(open_storage(journal), "actlab")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def numbers(study: Study, *states: TrialState) -> list[int]:
    return [trial.user_attrs[NUMBER] for trial in study.trials(*states)]


def test_a_queued_cell_is_claimed_once_and_in_the_order_of_the_results(journal: Path) -> None:
    first, second = open_study(journal), open_study(journal)
    assert first.enqueue_missing(reversed(CELLS)) == 6
    assert second.enqueue_missing(CELLS) == 0
    assert list(first.claim(4)) == [0, 1, 2, 3]
    assert list(second.claim(4)) == [4, 5]
    assert first.claim(4) == {}


def test_many_threads_claim_every_cell_once(journal: Path) -> None:
    open_study(journal).enqueue_missing(CELLS)
    claimed: list[int] = []

    def work() -> None:
        study = open_study(journal)
        while own := study.claim(1):
            claimed.extend(own)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [0, 1, 2, 3, 4, 5]


def test_a_cell_that_was_queued_twice_is_done_once(journal: Path) -> None:
    study, other = open_study(journal), open_study(journal)
    study.enqueue_missing(CELLS[:1])
    study.optuna.add_trial(CELLS[0].trial())
    (trial,) = study.claim(5).values()
    assert other.claim(5) == {}
    study.complete(trial, 1.0, {})
    assert numbers(study, TrialState.COMPLETE) == [0]
    assert numbers(study, TrialState.WAITING, TrialState.RUNNING) == []


def test_of_two_workers_that_hold_one_cell_none_completes_it_unseen(journal: Path) -> None:
    study, other = open_study(journal), open_study(journal)
    for one in (study, other):
        one.optuna.add_trial(CELLS[0].trial())
    # as after a lost lock: both trials run before either worker looks
    held = other.storage.get_all_trials(0)[1]
    assert other.storage.set_trial_state_values(trial_id(held), TrialState.RUNNING)
    assert study.claim(5) == {}


def test_a_trial_that_was_given_up_for_dead_cannot_be_completed(journal: Path) -> None:
    study, other = open_study(journal), open_study(journal)
    study.enqueue_missing(CELLS[:1])
    (late,) = study.claim(1).values()
    other._fail(trial_id(late))
    assert other.enqueue_missing(CELLS[:1]) == 1
    (again,) = other.claim(1).values()
    study.complete(late, 1.0, {"members": []})
    other.complete(again, 2.0, {})
    assert study.done()["cell 0"].value == 2.0
    assert numbers(study, TrialState.COMPLETE) == [0]


def test_released_trials_can_be_queued_again_at_once(journal: Path) -> None:
    study = open_study(journal)
    study.enqueue_missing(CELLS)
    study.release(list(study.claim(2).values()))
    assert study.enqueue_missing(CELLS) == 2
    assert list(study.claim(2)) == [0, 1]


CLAIM_AND_SAY = """
import sys, time
from pathlib import Path
from actlab.engine.storage import open_storage
from actlab.engine.study import Study
study = Study(open_storage(Path(sys.argv[1])), "actlab")
print(*study.claim(2), flush=True)
time.sleep(60)
"""


def test_what_a_killed_worker_was_doing_comes_back_and_what_a_live_one_does_stays(journal: Path) -> None:
    study = open_study(journal)
    study.enqueue_missing(CELLS)
    live = study.claim(2)
    worker = subprocess.Popen([sys.executable, "-c", CLAIM_AND_SAY, str(journal)], stdout=subprocess.PIPE, text=True)
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().split() == ["2", "3"]
        assert study.enqueue_missing(CELLS) == 0
        worker.send_signal(signal.SIGKILL)
    assert study.enqueue_missing(CELLS) == 2
    assert list(live) == [0, 1]
    assert sorted(numbers(study, TrialState.RUNNING)) == [0, 1]


def test_trials_of_another_tool_are_left_alone(journal: Path) -> None:
    study = open_study(journal)
    study.optuna.enqueue_trial({"x": 1})
    assert study.claim(5) == {}
    assert len(study.trials(TrialState.WAITING)) == 1


def test_a_group_is_claimed_whole_and_cells_in_their_order(journal: Path) -> None:
    study = Study(open_storage(journal), "groups")
    cells = [Cell(f"{name} {k}", 10 * place + k, place, name) for place, name in enumerate("ba") for k in range(3)]
    study.enqueue_missing([*reversed(cells), Cell("alone", 7, 2)])
    first = study.claim(2)
    assert sorted(first) == [0, 1, 2]
    assert sorted(study.claim(1)) == [10, 11, 12]
    assert sorted(study.claim(2)) == [7]
    study.release(list(first.values()))
    study.enqueue_missing(cells)
    assert sorted(study.claim(1)) == [0, 1, 2]
