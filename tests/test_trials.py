"""One evaluation for all: records, determinism, and waves that change nothing."""

import gc
import math

import lightning.pytorch as pl
import numpy as np
import pytest

from actlab.data.datamodule import TabularDataModule
from actlab.data.splits import make_splits
from actlab.data.table import Table, read_table
from actlab.run_files import MemberRecord, to_frame
from actlab.runs import evaluate as trials
from actlab.runs.evaluate import Evaluation, Setting, evaluate
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

SETTINGS = {
    0: Setting("relu", 1e-2, 0.0, (16, 8), 0.1, "auto"),
    1: Setting("tanh", 1e-2, 0.0, (16, 8), 0.1, "auto"),
}


def evaluation(csv: str) -> Evaluation:
    return Evaluation(
        DataSettings(csv=csv, target="price", batch_size=32),
        ProtocolSettings(folds=3, inner=2),
        OptimizerSettings(patience=5),
        {"max_epochs": 15, "accelerator": "cpu"},
    )


@pytest.fixture
def table(small_csv: str) -> Table:
    return read_table(DataSettings(csv=small_csv, target="price"))


def frame(csv: str, table: Table, settings: dict[int, Setting] | None = None) -> "np.ndarray":
    results = evaluate(settings or SETTINGS, evaluation(csv), table)
    records = [record for result in results for record in result.member_records()]
    return to_frame(records, MemberRecord).drop(columns="seconds")


def test_two_runs_give_the_same_rows_but_for_the_seconds(small_csv: str, table: Table) -> None:
    assert frame(small_csv, table).equals(frame(small_csv, table))


def test_every_setting_has_one_member_on_every_split(small_csv: str, table: Table) -> None:
    members = frame(small_csv, table)
    assert len(members) == 2 * 6
    assert not members.duplicated(["trial", "repeat", "fold", "inner"]).any()
    assert np.isfinite(members.test_score).all()


def test_splits_in_waves_give_the_same_rows(small_csv: str, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    together = frame(small_csv, table)
    monkeypatch.setattr(trials, "SPLIT_BYTES", 120 * 6 * 8 * 2)
    assert (
        len(trials._waves(list(make_splits(120, ProtocolSettings(folds=3, inner=2), 0)), table, evaluation(small_csv)))
        > 1
    )
    assert frame(small_csv, table).equals(together)


def test_a_callback_that_outlives_its_population_does_not_keep_the_rows(small_csv: str, table: Table) -> None:
    def datamodules() -> int:
        return sum(type(found) is TabularDataModule for found in gc.get_objects())

    gc.collect()
    before, callback = datamodules(), pl.Callback()
    evaluate(SETTINGS, evaluation(small_csv), table, [callback])
    assert datamodules() == before
    assert not vars(callback)


def test_the_test_score_is_the_rmse_of_the_log_predictions(small_csv: str, table: Table) -> None:
    (result,) = evaluate({0: SETTINGS[0]}, evaluation(small_csv), table)
    splits = make_splits(table.n_rows, ProtocolSettings(folds=3, inner=2), 0)
    assert table.target is not None
    for outcome in result.outcomes:
        truth = np.log(table.target[splits[outcome.member.split].test])
        assert outcome.network is not None
        assert outcome.network.test_predictions is not None
        wanted = math.sqrt(np.mean((outcome.network.test_predictions.numpy() - truth) ** 2))
        assert outcome.test_score == pytest.approx(wanted, rel=1e-6)


def test_a_trial_with_a_diverged_member_keeps_its_row_and_has_no_value(small_csv: str, table: Table) -> None:
    wild = Setting("relu_squared", 1e25, 0.0, (16, 8), 0.0, "auto")
    results = evaluate({0: wild, 1: SETTINGS[1]}, evaluation(small_csv), table)
    assert math.isnan(results[0].value)
    assert all(record.diverged for record in results[0].member_records())
    assert math.isfinite(results[1].value)


def test_curves_have_a_row_an_epoch_with_the_members_still_in_training(small_csv: str, table: Table) -> None:
    (result,) = evaluate({0: SETTINGS[0]}, evaluation(small_csv), table)
    curves = result.curve_records()
    assert [row.epoch for row in curves] == list(range(1, max(o.epochs for o in result.outcomes) + 1))
    assert curves[0].members == 6
    assert curves[0].val_mean == pytest.approx(np.mean([o.val_curve[0] for o in result.outcomes]))
