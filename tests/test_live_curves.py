"""Live curves grow by a step an epoch, over several fits, and stay bounded."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from actlab.data.table import read_table
from actlab.runs import progress as live_curves
from actlab.runs.evaluate import Evaluation, Setting, TrialResult, evaluate
from actlab.runs.progress import LiveCurves
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings


def train(tmp_path: Path, callback: LiveCurves, rates: list[float]) -> list[TrialResult]:
    x = np.random.default_rng(0).normal(size=(60, 2))
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.exp(x[:, 0])}).to_csv(tmp_path / "t.csv", index=False)
    data = DataSettings(csv=str(tmp_path / "t.csv"), target="y", batch_size=16)
    trainer = {"max_epochs": 4, "accelerator": "cpu"}
    evaluation = Evaluation(data, ProtocolSettings(folds=2, inner=1), OptimizerSettings(patience=9), trainer)
    settings = {n: Setting("relu", rate, 0.0, (4,), 0.0, "auto") for n, rate in enumerate(rates)}
    return evaluate(settings, evaluation, read_table(data), [callback])


def read(path: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = make_ndarray(value.tensor).item()
    return found


def test_the_leading_trial_is_written_every_epoch_of_every_fit(tmp_path: Path) -> None:
    live = LiveCurves(tmp_path / "tb")
    (bad, good) = train(tmp_path, live, [1e-7, 0.05])
    (path,) = [path for path in (tmp_path / "tb").rglob("*") if path.is_file()]
    assert path.parent.name == "relu"
    found = read(path)
    assert found["live/networks"] == {1: 4, 2: 4, 3: 4, 4: 4}
    for epoch, value in found["live/val"].items():
        assert value == pytest.approx(np.mean([outcome.val_curve[epoch - 1] for outcome in good.outcomes]), rel=1e-6)
    assert good.value < bad.value
    train(tmp_path, live, [0.05])
    live.close()
    assert list(read(path)["live/train"]) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_steps_get_sparse_in_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_curves, "POINTS_PER_STRIDE", 2)
    live = LiveCurves(tmp_path / "tb")
    for _ in range(4):
        train(tmp_path, live, [0.05])
    live.close()
    (path,) = [path for path in (tmp_path / "tb").rglob("*") if path.is_file()]
    assert list(read(path)["live/val"]) == [1, 2, 4, 6, 8, 12, 16]
