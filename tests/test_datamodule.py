"""No leak: what is fitted and what is visited depends on training rows alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from actlab.data.datamodule import LANES, TabularDataModule, batch_orders, batch_shape
from actlab.members import Split
from actlab.settings import DataSettings, ProtocolSettings

PROTOCOL = ProtocolSettings(folds=3, inner=2)
SPLIT = Split(0, 1, 1)
STREAM = (7, SPLIT)


def prepared(csv: str) -> TabularDataModule:
    data = TabularDataModule(DataSettings(csv, "price", batch_size=32), PROTOCOL)
    data.setup()
    data.streams = (STREAM,)
    return data


def test_altering_test_or_validation_rows_changes_no_preprocessing_number_and_no_training_batch(
    small_csv: str, tmp_path: Path
) -> None:
    before = prepared(small_csv)
    rows = before.data[SPLIT].rows
    frame = pd.read_csv(small_csv)
    held_out = np.concatenate([rows.validation, rows.test])
    # each another value: rows that are equal in all features would be kept in one part
    frame.loc[held_out, "x"] = 1e6 + np.arange(len(held_out))
    frame.loc[held_out, "gap"] = np.nan
    frame.loc[held_out, "kind"] = "never seen"
    frame.loc[held_out, "price"] = 1e9
    altered = tmp_path / "altered.csv"
    frame.to_csv(altered, index=False)
    after = prepared(str(altered))
    assert after.data[SPLIT].preprocessor == before.data[SPLIT].preprocessor
    assert after.data[SPLIT].scaler == before.data[SPLIT].scaler
    for epoch in range(3):
        order, again = before.order(epoch).rows[STREAM], after.order(epoch).rows[STREAM]
        assert torch.equal(order, again)
        for name in ("features", "targets"):
            batches = getattr(before.data[SPLIT], name)[order]
            assert torch.equal(batches, getattr(after.data[SPLIT], name)[again])
    assert not torch.equal(before.data[SPLIT].features, after.data[SPLIT].features)


def test_altering_a_training_row_does_change_the_preprocessing(small_csv: str, tmp_path: Path) -> None:
    before = prepared(small_csv)
    frame = pd.read_csv(small_csv)
    frame.loc[before.data[SPLIT].rows.training[:40], "x"] = 50.0
    altered = tmp_path / "altered.csv"
    frame.to_csv(altered, index=False)
    assert prepared(str(altered)).data[SPLIT].preprocessor != before.data[SPLIT].preprocessor


def test_an_epoch_visits_every_training_row_and_no_other(small_csv: str) -> None:
    data = prepared(small_csv)
    training = data.data[SPLIT].rows.training
    for epoch in range(3):
        order = data.order(epoch).rows[STREAM]
        assert set(order.flatten().tolist()) == set(training.tolist())


def test_batch_orders_come_from_stream_and_epoch_alone() -> None:
    rows = torch.arange(100)
    first = batch_orders(rows, [STREAM], 0, 32)
    assert torch.equal(first, batch_orders(rows, [STREAM], 0, 32))
    assert not torch.equal(first, batch_orders(rows, [STREAM], 1, 32))
    assert not torch.equal(first, batch_orders(rows, [(8, SPLIT)], 0, 32))


def test_batches_are_of_one_size() -> None:
    assert batch_shape(993, 128) == (8, 128)
    assert batch_shape(1024, 128) == (8, 128)
    # fewer rows than a batch: one batch, filled up to whole lanes
    assert batch_shape(70, 128) == (1, 96)
    assert batch_shape(70, 128)[1] % LANES == 0


def test_targets_are_standardised_by_the_training_rows(small_csv: str) -> None:
    data = prepared(small_csv).data[SPLIT]
    own = data.targets[torch.from_numpy(data.rows.training)]
    assert abs(own.mean().item()) < 1e-12
    assert abs(own.std(correction=0).item() - 1) < 1e-12
