"""Pruning: what is stopped at a rung and against whom, and that neither neighbours nor interruptions change it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import pandas as pd
import pytest
from optuna.trial import TrialState

from actlab.config import Configuration
from actlab.engine.pruning import mean_so_far, reason_to_stop, rungs
from actlab.networks import snapshots
from actlab.networks.population import mean_score
from actlab.runs.compare_search import Search, search
from short_searches import short_search, study_of


@pytest.fixture
def asked(small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configuration]:
    yield from short_search(small_csv, tmp_path / "run", monkeypatch)


def test_rungs_lie_in_the_first_part_of_training() -> None:
    assert rungs(200) == [12, 36]
    assert rungs(1000) == [12, 36, 108]
    assert rungs(40) == [12]
    assert rungs(39) == [11]
    assert rungs(10) == [3]
    assert rungs(9) == []
    assert rungs(120, first=3, spacing=3) == [3, 9, 27]


def test_the_better_part_goes_on_and_a_trial_alone_always_does() -> None:
    def n_promoted(n_trials: int) -> int:
        values = range(n_trials)
        return sum(reason_to_stop(own, [v for v in values if v != own], 10, 0.4) == "" for own in values)

    assert [n_promoted(n) for n in (1, 2, 3, 5, 8, 9, 26)] == [1, 1, 2, 2, 4, 4, 11]
    assert reason_to_stop(0.5, [], 10, 0.4) == ""
    assert reason_to_stop(0.5, [0.4, 0.6, 0.7, 0.8], 10, 0.4) == ""
    assert reason_to_stop(0.5, [0.3, 0.4, 0.6], 10, 0.4) == "epoch 10: validation score 0.5 is number 3 of 4"
    assert reason_to_stop(0.5, [0.3, 0.4, 0.6], 10, 0.75) == ""
    assert reason_to_stop(0.5, [0.4], 10, 0.4) == "epoch 10: validation score 0.5 is number 2 of 2"
    assert reason_to_stop(math.inf, [0.4, 0.5], 10, 0.4) != ""


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


class Scored(NamedTuple):
    val_score: float


def test_a_trial_with_a_member_that_has_no_score_is_the_worst() -> None:
    lost = [Scored(math.nan), Scored(0.1)]
    assert mean_score(lost) == mean_so_far(lost) == math.inf  # type: ignore[arg-type]


def test_what_is_reported_is_a_plain_sum_as_studies_hold_already() -> None:
    members = [Scored(0.1), Scored(0.2), Scored(0.3)]
    assert mean_so_far(members) == sum([0.1, 0.2, 0.3]) / 3  # type: ignore[arg-type]
