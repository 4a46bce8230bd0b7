"""Search: what is proposed, how the sweep begins, and that an interruption changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actlab.config import Configuration
from actlab.engine.workers import Worker
from actlab.errors import InputError
from actlab.runs import experiment as experiments
from actlab.runs.compare_search import Search, first_learning_rates, search, suggest
from actlab.runs.evaluate import setting_of
from short_searches import short_search, study_of


@pytest.fixture
def asked(small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configuration]:
    yield from short_search(small_csv, tmp_path / "run", monkeypatch)


def test_a_search_begins_at_powers_of_ten_near_the_middle_of_the_range() -> None:
    assert first_learning_rates(3e-4, 3e-2) == [1e-2, 1e-3]
    assert first_learning_rates(1e-5, 1e-2) == [1e-3, 1e-4]
    assert first_learning_rates(1e-3, 1e-2) == [1e-2, 1e-3]
    assert first_learning_rates(2e-3, 2e-2) == [1e-2]
    assert first_learning_rates(2e-3, 8e-3) == [pytest.approx(4e-3)]


@pytest.mark.parametrize(("n_trials", "n_swept"), [(1, 1), (2, 2), (4, 2), (5, 3), (8, 4), (20, 4)])
def test_every_activation_is_tried_before_the_sampler_proposes(
    asked: Configuration, n_trials: int, n_swept: int
) -> None:
    cells = Search(replace(asked, search=replace(asked.search, n_trials=n_trials))).plan()
    assert [cell.number for cell in cells] == list(range(n_trials))
    assert [cell.key for cell in cells] == [f"trial {number}" for number in range(n_trials)]
    swept = [(cell.params["activation"], cell.params["learning_rate"]) for cell in cells if cell.params]
    assert swept == [("relu", 1e-2), ("tanh", 1e-2), ("relu", 1e-3), ("tanh", 1e-3)][:n_swept]
    assert all(cell.params for cell in cells[:n_swept])


def test_the_sweep_is_one_population_and_workers_share_it(
    asked: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = replace(asked, search=replace(asked.search, n_trials=12, batch=1))
    begun = Search(wide)
    assert begun.batch(0) == 4
    assert Search(wide, Worker(0, 1, 2)).batch(0) == 2
    assert Search(replace(wide, search=replace(wide.search, batch=8), out=f"{asked.out}-8")).batch(0) == 8
    begun.study.enqueue_missing(begun.plan(), 3)
    for trial in begun.study.claim(3).values():
        trial.set_user_attr("members", [])
        begun.study.optuna.tell(trial, 0.5)
    assert begun.batch(0) == 1
    monkeypatch.setattr(experiments, "POPULATION_MEMBERS", 4)
    assert Search(replace(wide, out=f"{asked.out}-4")).batch(0) == 2


def test_what_the_sweep_leaves_open_is_drawn_and_what_it_fixes_stays(asked: Configuration) -> None:
    wide = replace(asked, search=replace(asked.search, n_trials=5, dropout=[0.1, 0.3], pruning=False))
    search(replace(wide, trainer={"max_epochs": 1, "accelerator": "cpu"}))
    params = {trial.user_attrs["number"]: trial.params for trial in study_of(wide).trials()}
    assert [(params[n]["activation"], params[n]["learning_rate"]) for n in (0, 1)] == [("relu", 1e-2), ("tanh", 1e-2)]
    assert len({own["dropout"] for own in params.values()}) == 5
    assert all(0.1 <= own["dropout"] <= 0.3 for own in params.values())
    assert len({own["learning_rate"] for own in params.values()}) == 4


def test_an_interrupted_search_proposes_and_finds_what_an_undisturbed_one_does(
    asked: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, calls = experiments.evaluate, []

    def interrupted(settings: dict[int, Any], *arguments: Any) -> Any:
        calls.append(settings)
        if len(calls) == 2:
            raise SystemExit(130)
        return evaluate(settings, *arguments)

    monkeypatch.setattr(experiments, "evaluate", interrupted)
    with pytest.raises(SystemExit):
        search(asked)
    run, _ = search(asked)
    other, _ = search(replace(asked, out=str(tmp_path / "undisturbed")))
    pd.testing.assert_frame_equal(
        run.read_members().drop(columns="seconds"), other.read_members().drop(columns="seconds"), check_exact=True
    )


def test_the_number_of_trials_is_a_total_that_may_grow(asked: Configuration) -> None:
    small = replace(asked, search=replace(asked.search, n_trials=3))
    _, summary = search(small)
    run, larger = search(replace(small, search=replace(small.search, n_trials=5)))
    assert summary is not None
    assert larger is not None
    assert (summary["protocol"]["n_trials"], larger["protocol"]["n_trials"]) == (3, 5)
    assert run.read_members().trial.nunique() == 5


def test_another_search_space_is_refused(asked: Configuration) -> None:
    small = replace(asked, search=replace(asked.search, n_trials=1))
    search(small)
    with pytest.raises(InputError, match=r"search\.learning_rate"):
        search(replace(small, search=replace(small.search, learning_rate=[1e-3, 1e-1])))


def test_weight_decay_dropout_and_widths_are_searched_where_asked(asked: Configuration) -> None:
    wide = replace(
        asked,
        search=replace(
            asked.search, n_trials=2, weight_decay=[1e-4, 1e-1], dropout=[0.0, 0.3], hidden=[[8], [8, 4]], pruning=False
        ),
        trainer={"max_epochs": 2, "accelerator": "cpu"},
    )
    run, _ = search(wide)
    trials = study_of(wide).trials()
    assert {"activation", "learning_rate", "weight_decay", "dropout", "hidden"} == set(trials[0].params)
    for trial in trials:
        setting = setting_of(trial.params, wide, 5)
        assert setting.hidden == tuple(map(int, trial.params["hidden"].split("-")))
        assert (setting.weight_decay, setting.dropout) == (trial.params["weight_decay"], trial.params["dropout"])
    assert run.read_members().n_parameters.nunique() == len({trial.params["hidden"] for trial in trials})


def test_what_is_not_searched_comes_from_the_configuration(asked: Configuration) -> None:
    study = study_of(replace(asked, out=str(Path(str(asked.out)).parent)))
    trial = study.optuna.ask()
    setting = setting_of(suggest(trial, asked), asked, 5)
    assert set(trial.params) == {"activation", "learning_rate"}
    assert (setting.hidden, setting.dropout, setting.weight_decay) == ((8,), 0.0, asked.optimizer.weight_decay)
