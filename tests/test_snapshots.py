"""An interrupted population goes on from the end of an epoch, to the last bit as if nothing had happened."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from actlab.data.table import Table, read_table
from actlab.diagnostics.health import HealthMonitor
from actlab.networks import snapshots
from actlab.networks.machine import is_accelerated
from actlab.networks.module import PopulationModule
from actlab.runs.evaluate import Evaluation, Setting, TrialResult, evaluate, snapshots_in
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings
from short_searches import works

# compiled and by autograd (rrelu), with and without dropout and learned numbers, some that stop early
SETTINGS = {
    number: Setting(activation, learning_rate, 0.01, (16, 8), dropout, "auto")
    for number, (activation, learning_rate, dropout) in enumerate(
        [
            ("relu", 0.003, 0.0),
            ("relu", 0.03, 0.0),
            ("prelu", 0.01, 0.1),
            ("maxout", 0.03, 0.0),
            ("rrelu", 0.01, 0.1),
            ("silu", 0.3, 0.0),
        ]
    )
}
EPOCHS = 24


class Stop(pl.Callback):
    """Ends training with an error at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise InterruptedError


class Epochs(pl.Callback):
    """Counts the epochs that were trained."""

    n_trained = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PopulationModule)
        self.n_trained += bool(pl_module.training_stacks)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(96, 4))
    frame = pd.DataFrame(x, columns=list("abcd")).assign(y=np.exp(np.sin(x[:, 0]) + 0.3 * x[:, 1]))
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    frame.to_csv(path, index=False)
    data = DataSettings(str(path), "y", batch_size=32)
    trainer = {"max_epochs": EPOCHS, "accelerator": "cpu"}
    return Evaluation(data, ProtocolSettings(folds=2, inner=2), OptimizerSettings(patience=3), trainer)


@pytest.fixture(scope="module")
def table(evaluation: Evaluation) -> Table:
    return read_table(evaluation.data)


@pytest.fixture(scope="module")
def whole(evaluation: Evaluation, table: Table) -> tuple[list[TrialResult], HealthMonitor]:
    """What training gives that nothing interrupts."""
    monitor = HealthMonitor()
    return evaluate(works(SETTINGS), evaluation, table, [monitor]), monitor


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "INTERVAL_S", 0.0)
    monkeypatch.setattr(snapshots, "LARGEST_SHARE", float("inf"))


def interrupt(directory: Path, evaluation: Evaluation, table: Table, epoch: int) -> None:
    with pytest.raises(InterruptedError):
        evaluate(
            works(SETTINGS),
            evaluation,
            table,
            [HealthMonitor(), Stop(epoch)],
            snapshots_in(directory, evaluation, table),
        )


def assert_same(found: Sequence[TrialResult], wanted: Sequence[TrialResult]) -> None:
    for one, other in zip(found, wanted, strict=True):
        for own, theirs in zip(one.outcomes, other.outcomes, strict=True):
            assert own.member == theirs.member
            for name in ("val_curve", "train_curve", "val_score", "test_score", "best_epoch", "epochs", "is_diverged"):
                assert getattr(own, name) == getattr(theirs, name), (own.member, name)
            assert own.state is not None
            assert theirs.state is not None
            assert all(torch.equal(own.state[name], value) for name, value in theirs.state.items())


@pytest.mark.parametrize("epoch", [1, 7, 15, 22])
def test_an_interrupted_population_goes_on_to_the_last_bit(
    tmp_path: Path, evaluation: Evaluation, table: Table, whole: tuple[list[TrialResult], HealthMonitor], epoch: int
) -> None:
    interrupt(tmp_path, evaluation, table, epoch)
    monitor, epochs, again = HealthMonitor(), Epochs(), snapshots_in(tmp_path, evaluation, table)
    found = evaluate(works(SETTINGS), evaluation, table, [monitor, epochs], again)
    assert_same(found, whole[0])
    longest = max(outcome.epochs for result in found for outcome in result.outcomes)
    assert epochs.n_trained == longest - epoch
    for trial in SETTINGS:
        # nan equals nan in a frame
        pd.testing.assert_frame_equal(*(pd.DataFrame(map(vars, m.of(trial))) for m in (monitor, whole[1])))
    again.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not is_accelerated(), reason="there is no accelerator")
@pytest.mark.parametrize("epoch", [1, 9, 20])
def test_a_population_on_an_accelerator_goes_on_to_the_last_bit(
    tmp_path: Path, evaluation: Evaluation, table: Table, epoch: int
) -> None:
    there = replace(evaluation, trainer={**evaluation.trainer, "accelerator": "auto"})
    undisturbed = evaluate(works(SETTINGS), there, table)
    interrupt(tmp_path, there, table, epoch)
    assert_same(evaluate(works(SETTINGS), there, table, (), snapshots_in(tmp_path, there, table)), undisturbed)


def test_what_another_process_took_over_is_left_out(
    tmp_path: Path, evaluation: Evaluation, table: Table, whole: tuple[list[TrialResult], HealthMonitor]
) -> None:
    interrupt(tmp_path, evaluation, table, 9)
    some = {number: SETTINGS[number] for number in (0, 2, 5)} | {7: SETTINGS[3]}
    monitor = HealthMonitor()
    found = evaluate(works(some), evaluation, table, [monitor], snapshots_in(tmp_path, evaluation, table))
    assert_same(found[:3], [whole[0][number] for number in (0, 2, 5)])
    assert {record.trial for record in monitor.records} == set(some)


def test_results_of_a_population_that_another_one_follows_are_kept(
    tmp_path: Path, evaluation: Evaluation, table: Table, whole: tuple[list[TrialResult], HealthMonitor]
) -> None:
    first = {number: SETTINGS[number] for number in (0, 1)}
    members = [outcome.member for number in first for outcome in whole[0][number].outcomes]
    kept = snapshots_in(tmp_path, evaluation, table)
    evaluate(works(first), evaluation, table, [kept.callback(members, is_last=False)])
    epochs = Epochs()
    found = evaluate(works(first), evaluation, table, [epochs], snapshots_in(tmp_path, evaluation, table))
    assert_same(found, whole[0][:2])
    assert epochs.n_trained == 0


def test_another_evaluation_or_a_damaged_file_starts_anew(
    tmp_path: Path, evaluation: Evaluation, table: Table, whole: tuple[list[TrialResult], HealthMonitor]
) -> None:
    interrupt(tmp_path, evaluation, table, 9)
    members = [outcome.member for result in whole[0] for outcome in result.outcomes]
    other = replace(evaluation, optimizer=replace(evaluation.optimizer, patience=4))
    elsewhere = replace(table, content_hash="0")
    assert [path for _, path in snapshots_in(tmp_path, other, table).groups(members)] == [None]
    assert [path for _, path in snapshots_in(tmp_path, evaluation, elsewhere).groups(members)] == [None]
    (path,) = tmp_path.iterdir()
    assert [found for _, found in snapshots_in(tmp_path, evaluation, table).groups(members)] == [path]
    path.write_bytes(path.read_bytes()[:-1000])
    assert [found for _, found in snapshots_in(tmp_path, evaluation, table).groups(members)] == [None]


def test_a_full_disk_does_not_stop_training(
    tmp_path: Path,
    evaluation: Evaluation,
    table: Table,
    whole: tuple[list[TrialResult], HealthMonitor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def full(content: object, path: Path) -> None:
        tried.append(path)
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    found = evaluate(works({0: SETTINGS[0]}), evaluation, table, [], snapshots_in(tmp_path, evaluation, table))
    assert_same(found, whole[0][:1])
    # once: to try again and again would cost as much as to succeed
    assert len(tried) == 1
    assert list(tmp_path.iterdir()) == []


def test_snapshots_wait_for_their_time(
    tmp_path: Path, evaluation: Evaluation, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "INTERVAL_S", 3600.0)
    evaluate(works({0: SETTINGS[0]}), evaluation, table, [], snapshots_in(tmp_path, evaluation, table))
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_written_to_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LARGEST_SHARE", 0.1)
    callback = snapshots.SnapshotCallback(tmp_path / "population-0.ckpt", "key", is_last=True)

    class Trainer:
        should_stop = False
        n_saved = 0

        def save_checkpoint(self, path: Path) -> None:
            self.n_saved += 1
            time.sleep(0.05)

    trainer = Trainer()
    for _ in range(3):
        callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.n_saved == 1
    assert callback.wait_s >= 0.5
