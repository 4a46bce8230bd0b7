"""Search: what is proposed, what is pruned and against whom, and that an interruption changes nothing."""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState

from actlab.config import Configuration
from actlab.engine.pruning import n_promoted, reason_to_stop, rungs
from actlab.engine.study import Study, open_storage
from actlab.engine.workers import Worker
from actlab.errors import InputError
from actlab.networks import snapshots
from actlab.networks.population import mean_score
from actlab.runs import experiment as experiments
from actlab.runs import results
from actlab.runs.compare_search import Search, first_learning_rates, search, suggest
from actlab.runs.evaluate import setting_of
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, TensorBoard and report take longer than these trainings, and have tests of their own."""
    monkeypatch.setattr(results, "draw_study", lambda study, directory: None)
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)
    monkeypatch.setattr(results, "write_report", lambda run: (run / "report.html").touch())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def early_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rungs at 2, 4 and 8 epochs, so that a short training has some."""
    monkeypatch.setattr(sys.modules[Search.__module__], "rungs", lambda max_epochs: rungs(4 * max_epochs, 2, 2))


@pytest.fixture
def asked(small_csv: str, tmp_path: Path) -> Configuration:
    return Configuration(
        data=DataSettings(small_csv, "price"),
        model=ModelSettings(hidden=[8]),
        optimizer=OptimizerSettings(patience=100),
        compare=CompareSettings(folds=2, inner=1),
        search=SearchSettings(n_trials=9, batch=3, activations=["relu", "tanh"], learning_rate=[1e-4, 1e-1]),
        trainer={"max_epochs": 9, "accelerator": "cpu"},
        out=str(tmp_path / "run"),
    )


def study_of(asked: Configuration) -> Study:
    return Study(open_storage(Path(str(asked.out)) / "study.journal"), "actlab")


def test_rungs_lie_in_the_first_part_of_training() -> None:
    assert rungs(200) == [12, 36]
    assert rungs(1000) == [12, 36, 108]
    assert rungs(40) == [12]
    assert rungs(39) == [11]
    assert rungs(10) == [3]
    assert rungs(9) == []
    assert rungs(120, first=3, spacing=3) == [3, 9, 27]


def test_the_better_part_goes_on_and_a_trial_alone_always_does() -> None:
    assert [n_promoted(n, 0.4) for n in (1, 2, 3, 5, 8, 9, 26)] == [1, 1, 2, 2, 4, 4, 11]
    assert reason_to_stop(0.5, [], 10, 0.4) == ""
    assert reason_to_stop(0.5, [0.4, 0.6, 0.7, 0.8], 10, 0.4) == ""
    assert reason_to_stop(0.5, [0.3, 0.4, 0.6], 10, 0.4) == "epoch 10: validation score 0.5 is number 3 of 4"
    assert reason_to_stop(0.5, [0.3, 0.4, 0.6], 10, 0.75) == ""
    assert reason_to_stop(0.5, [0.4], 10, 0.4) == "epoch 10: validation score 0.5 is number 2 of 2"
    assert reason_to_stop(math.inf, [0.4, 0.5], 10, 0.4) != ""


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
    cells = Search(replace(asked, search=replace(asked.search, n_trials=n_trials))).cells
    assert [cell.place for cell in cells] == list(range(n_trials))
    assert [cell.key for cell in cells] == [f"trial {number}" for number in range(n_trials)]
    swept = [(cell.params["activation"], cell.params["learning_rate"]) for cell in cells if cell.params]
    assert swept == [("relu", 1e-2), ("tanh", 1e-2), ("relu", 1e-3), ("tanh", 1e-3)][:n_swept]
    assert all(cell.params for cell in cells[:n_swept])


def test_the_sweep_is_one_population_and_workers_share_it(
    asked: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = replace(asked, search=replace(asked.search, n_trials=12, batch=1))
    begun = Search(wide)
    assert begun.batch == 4
    assert Search(wide, Worker(0, 1, 2)).batch == 2
    assert Search(replace(wide, search=replace(wide.search, batch=8), out=f"{asked.out}-8")).batch == 8
    begun.study.enqueue_missing(begun.cells, 3)
    for trial in begun.study.claim(3).values():
        trial.set_user_attr("members", [])
        begun.study.optuna.tell(trial, 0.5)
    assert begun.batch == 1
    monkeypatch.setattr(experiments, "POPULATION_MEMBERS", 4)
    assert Search(replace(wide, out=f"{asked.out}-4")).batch == 2


def test_what_the_sweep_leaves_open_is_drawn_and_what_it_fixes_stays(asked: Configuration) -> None:
    wide = replace(asked, search=replace(asked.search, n_trials=5, dropout=[0.1, 0.3], pruning=False))
    search(replace(wide, trainer={"max_epochs": 1, "accelerator": "cpu"}))
    params = {trial.user_attrs["number"]: trial.params for trial in study_of(wide).trials()}
    assert [(params[n]["activation"], params[n]["learning_rate"]) for n in (0, 1)] == [("relu", 1e-2), ("tanh", 1e-2)]
    assert len({own["dropout"] for own in params.values()}) == 5
    assert all(0.1 <= own["dropout"] <= 0.3 for own in params.values())
    assert len({own["learning_rate"] for own in params.values()}) == 4


def test_equals_are_not_pruned_against_each_other() -> None:
    assert reason_to_stop(0.5, [0.5, 0.5, 0.5], 10, 0.4) == ""


def test_a_search_prunes_losers_and_records_why(asked: Configuration) -> None:
    run, summary = search(asked)
    assert summary is not None
    study = study_of(asked)
    pruned, complete = study.trials(TrialState.PRUNED), study.trials(TrialState.COMPLETE)
    assert len(pruned) + len(complete) == len(study.trials()) == 9
    assert pruned
    members = run.read_members()
    for trial in pruned:
        (last,) = [max(trial.intermediate_values)]
        own = members[members.trial == trial.user_attrs["number"]]
        assert trial.user_attrs["reason"].startswith(f"epoch {last}: ")
        assert own.pruned.all()
        assert (own.epochs == last).all()
        assert trial.value == pytest.approx(own.val_score.mean())
    for trial in complete:
        assert sorted(trial.intermediate_values) == [2, 4, 8]
        assert not members[members.trial == trial.user_attrs["number"]].pruned.any()
    assert summary["comparisons"] == []


def test_a_trial_is_compared_within_its_rung_only(asked: Configuration) -> None:
    search(asked)
    trials = study_of(asked).trials()
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            rung, value = max(trial.intermediate_values.items())
            before = [t.intermediate_values[rung] for t in trials if rung in t.intermediate_values]
            assert sum(other < value for other in before) >= 1


def test_pruning_can_be_switched_off(asked: Configuration) -> None:
    run, _ = search(replace(asked, search=replace(asked.search, pruning=False, n_trials=3)))
    members = run.read_members()
    assert not members.pruned.any()
    assert (members.epochs == 9).all()


def test_pruned_members_cost_nothing_more_and_their_neighbours_do_not_notice(
    asked: Configuration, tmp_path: Path
) -> None:
    first = replace(asked, search=replace(asked.search, n_trials=3))
    halved, _ = search(first)
    whole, _ = search(replace(first, search=replace(first.search, pruning=False), out=str(tmp_path / "whole")))
    own, other = (run.read_members().drop(columns="seconds") for run in (halved, whole))
    kept = ~own.pruned
    assert 0 < kept.sum() < len(own)
    pd.testing.assert_frame_equal(own[kept], other[kept], check_exact=True)
    assert own.epochs.sum() < other.epochs.sum()


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


class StopOnce(pl.Callback):
    """Ends the first training that comes to the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch: int | None = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            self.epoch = None
            raise SystemExit(130)


@pytest.mark.parametrize("epoch", [3, 6])
def test_a_search_interrupted_between_rungs_prunes_as_an_undisturbed_one_does(
    asked: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    undisturbed = replace(asked, out=str(tmp_path / "undisturbed"))
    other, _ = search(undisturbed)
    callbacks, stop = Search.callbacks, StopOnce(epoch)
    monkeypatch.setattr(Search, "callbacks", lambda self, claimed: [*callbacks(self, claimed), stop])
    monkeypatch.setattr(snapshots, "INTERVAL_S", 0.0)
    with pytest.raises(SystemExit):
        search(asked)
    assert list((tmp_path / "run/weights").glob("population-*"))
    run, _ = search(asked)
    pd.testing.assert_frame_equal(
        run.read_members().drop(columns="seconds"), other.read_members().drop(columns="seconds"), check_exact=True
    )
    found, wanted = (
        {
            t.user_attrs["number"]: t.intermediate_values
            for t in study_of(one).trials(TrialState.COMPLETE, TrialState.PRUNED)
        }
        for one in (asked, undisturbed)
    )
    assert found == wanted


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


def test_a_trial_with_a_member_that_has_no_score_is_the_worst(asked: Configuration) -> None:
    class Lost:
        val_score = math.nan

    assert mean_score([Lost()]) == math.inf  # type: ignore[list-item]
