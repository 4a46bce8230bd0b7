"""Progress counts right over several fits, estimates soundly, and is plain where nobody looks; curves are bounded."""

import io
import math
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from actlab.data.table import Table, read_table
from actlab.engine.storage import open_storage
from actlab.engine.study import Cell, Study
from actlab.members import Member, Split
from actlab.networks.population import Outcome
from actlab.runs import progress as progress_module
from actlab.runs import progress_bar
from actlab.runs.evaluate import Evaluation, Setting, TrialResult, evaluate
from actlab.runs.progress import (
    LiveCurves,
    PopulationProgress,
    TeamProgress,
    expected_member_epochs,
    find_leader,
    scores_of,
)
from actlab.runs.progress_bar import Leader, RowProgress
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings
from short_searches import works


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    x = np.random.default_rng(0).normal(size=(60, 2))
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.exp(x[:, 0])})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return DataSettings(csv=str(tmp_path / "t.csv"), target="y", batch_size=16)


def train(data: DataSettings, progress: PopulationProgress, trials: dict[int, str]) -> list[TrialResult]:
    table: Table = read_table(data)
    trainer = {"max_epochs": 4, "accelerator": "cpu"}
    evaluation = Evaluation(data, ProtocolSettings(folds=2, inner=1), OptimizerSettings(patience=2), trainer)
    settings = {n: Setting(name, 0.01, 0.0, (4,), 0.0, "auto") for n, name in trials.items()}
    return evaluate(works(settings), evaluation, table, [progress])


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that goes on by a second whenever it is read by the progress."""
    ticks = count(100.0)

    class Ticking:
        @staticmethod
        def monotonic() -> float:
            return next(ticks)

    for module in (progress_module, progress_bar):
        monkeypatch.setattr(module, "time", Ticking)
    return


def test_several_fits_of_a_run_add_up(data: DataSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "PLAIN_S", 0)
    out = io.StringIO()
    with PopulationProgress(7, 1, Console(file=out)) as progress:
        results = train(data, progress, {0: "relu", 1: "tanh"})
        assert progress.n_done == 5
        results += train(data, progress, {2: "silu"})
        assert progress.n_done == 7
        epochs = sum(outcome.epochs for result in results for outcome in result.outcomes)
        assert progress.member_epochs == epochs
        assert progress.remaining_member_epochs() == 0
    lines = out.getvalue().splitlines()
    assert lines[-1].startswith("6 networks trained in 0:0")
    assert f"({epochs} network epochs" in lines[-1]
    assert "\x1b" not in out.getvalue()
    assert "1 of 7 networks done, epoch 1, " in lines[0]
    assert " at 0.01 leads with " in lines[0]


def test_plain_output_keeps_its_interval(data: DataSettings, ticking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "PLAIN_S", 1e9)
    out = io.StringIO()
    with PopulationProgress(4, console=Console(file=out)) as progress:
        train(data, progress, {0: "relu", 1: "tanh"})
    assert len(out.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar_that_goes_away(data: DataSettings, ticking: None) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, legacy_windows=False, _environ={"TERM": "xterm"})
    with PopulationProgress(4, console=console) as progress:
        train(data, progress, {0: "relu", 1: "tanh"})
        assert progress.bar.live.is_started
        shown = out.getvalue()
    bar, counts, leader = shown.split("\x1b[2K")[-1].splitlines()
    assert "━" in bar
    assert counts.startswith("4 of 4 networks done, epoch ")
    assert " at 0.01 leads with " in leader
    assert out.getvalue().rstrip().splitlines()[-1].split("\x1b[2K")[-1].startswith("4 networks trained in ")


def test_the_leader_is_the_trial_of_the_lowest_mean_with_every_score_there() -> None:
    def outcome(trial: int, fold: int, score: float) -> Outcome:
        return Outcome(Member(trial, f"a{trial}", 0.1 * trial, Split(0, fold, 0), 0, (4,)), 1, val_score=score)

    scores = {1: (0.3, 0.1), 2: (0.15, 0.17), 3: (0.1, float("nan"))}
    outcomes = [outcome(trial, fold, score) for trial, both in scores.items() for fold, score in enumerate(both)]
    assert find_leader(scores_of(outcomes)) == Leader("a2", 0.2, pytest.approx(0.16))
    assert str(find_leader(scores_of(outcomes))) == "a2 at 0.2 leads with 0.1600 on validation rows"
    assert find_leader(scores_of(outcomes[-1:])) is None


def test_the_estimate_is_right_on_average_for_members_that_leave_at_a_constant_rate() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(20 + np.ceil(rng.exponential(30, size=5000)), 100).astype(int)
    for epoch in (25, 40, 60):
        running = [epoch] * int((lengths > epoch).sum())
        finished = lengths[lengths <= epoch].tolist()
        left = np.maximum(lengths - epoch, 0).sum()
        assert expected_member_epochs(running, 0, finished, 20, 100) == pytest.approx(left, rel=0.06)
    finished = lengths.tolist()
    assert expected_member_epochs([], 5000, finished, 20, 100) == pytest.approx(lengths.sum(), rel=0.06)


def test_the_estimate_never_passes_the_last_epoch() -> None:
    assert expected_member_epochs([0, 3], 1, [], patience=20, max_epochs=5) == pytest.approx(5 + 2 + 5)
    assert expected_member_epochs([100], 0, [], patience=20, max_epochs=100) == 0
    assert expected_member_epochs([], 0, [7, 9], patience=20, max_epochs=100) == 0
    assert 0 < expected_member_epochs([0], 0, [1, 1, 1], patience=20, max_epochs=100) < 100


def test_drawing_650_members_is_cheap(data: DataSettings) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = PopulationProgress(650, console=console)
    progress.past = [
        Outcome(Member(n // 10, "relu", 0.1, Split(0, n % 10, 0), 0, (4,)), 1, val_score=0.1, epochs=50)
        for n in range(650)
    ]
    started = time.process_time()
    for _ in range(10):
        progress._show(3, is_due=True)
    # twice a second, with room for a slow machine: under 1 % would be 5 ms
    assert (time.process_time() - started) / 10 < 0.05
    progress.close()


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (progress_module, progress_bar):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_rows_of_a_file_are_shown_with_what_remains(clock: Clock) -> None:
    out = io.StringIO()
    progress = RowProgress(Console(file=out, width=200))
    clock.now = 5.0
    progress.show(100_000, 1_000_000)
    assert out.getvalue() == ""
    clock.now = 20.0
    progress.show(400_000, 1_000_000)
    progress.close()
    assert out.getvalue() == "400,000 of about 1,000,000 rows, 20,000 rows/s, about 0:30 left\n"


def tell(study: Study, number: int, value: float, n_epochs: int) -> None:
    """Do one trial of two members as a worker does."""
    study.complete(study.claim(1)[number], value, {"members": [{"epochs": n_epochs}] * 2})


def queue(study: Study) -> None:
    space = {"activation": CategoricalDistribution(["relu", "tanh"]), "learning_rate": FloatDistribution(1e-3, 1e-1)}
    study.enqueue_missing(
        [
            Cell(f"{n}", n, n, "", {"activation": ["relu", "tanh"][n % 2], "learning_rate": 0.01}, space)
            for n in range(6)
        ]
    )


def test_the_parent_of_workers_shows_what_the_study_knows(tmp_path: Path, clock: Clock) -> None:
    study, worker = (Study(open_storage(tmp_path / "study.journal"), "actlab") for _ in range(2))
    queue(study)
    tell(worker, 0, 0.5, 40)
    out = io.StringIO()
    progress = TeamProgress(study, 6, 2, Console(file=out))
    progress.show()
    clock.now = 10.0
    progress.show()
    tell(worker, 1, 0.25, 60)
    tell(worker, 2, math.inf, 30)
    clock.now = 20.0
    progress.show()
    # between two looks of 10 s nothing is printed; of the 30 s expected 5 have passed
    clock.now = 25.0
    progress.show()
    clock.now = 30.0
    progress.show()
    progress.close()
    assert out.getvalue().splitlines() == [
        "2 of 12 networks done, 0 network epochs/s, 0:10 elapsed, time left not known yet; "
        "relu at 0.01 leads with 0.5000 on validation rows",
        "6 of 12 networks done, 9 network epochs/s, 0:20 elapsed, about 0:30 left; "
        "tanh at 0.01 leads with 0.2500 on validation rows",
        "6 of 12 networks done, 6 network epochs/s, 0:30 elapsed, about 0:20 left; "
        "tanh at 0.01 leads with 0.2500 on validation rows",
    ]


def test_the_parent_of_workers_draws_on_a_terminal(tmp_path: Path, clock: Clock) -> None:
    study = Study(open_storage(tmp_path / "study.journal"), "actlab")
    queue(study)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, legacy_windows=False, _environ={"TERM": "xterm"})
    progress = TeamProgress(study, 6, 2, console)
    clock.now = 1.0
    progress.show()
    tell(study, 0, 0.5, 40)
    clock.now = 2.0
    progress.show()
    bar, counts, leader = out.getvalue().split("\x1b[2K")[-1].splitlines()
    assert "━" in bar
    assert bar.rstrip().endswith(" 0:02 elapsed, about 0:10 left")
    assert counts.startswith("2 of 12 networks done, 40 network epochs/s")
    assert "relu at 0.01 leads with 0.5000" in leader
    progress.close()
    assert not progress.bar.live.is_started


def train_with_curves(tmp_path: Path, callback: LiveCurves, rates: list[float]) -> list[TrialResult]:
    x = np.random.default_rng(0).normal(size=(60, 2))
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.exp(x[:, 0])}).to_csv(tmp_path / "t.csv", index=False)
    data = DataSettings(csv=str(tmp_path / "t.csv"), target="y", batch_size=16)
    trainer = {"max_epochs": 4, "accelerator": "cpu"}
    evaluation = Evaluation(data, ProtocolSettings(folds=2, inner=1), OptimizerSettings(patience=9), trainer)
    settings = {n: Setting("relu", rate, 0.0, (4,), 0.0, "auto") for n, rate in enumerate(rates)}
    return evaluate(works(settings), evaluation, read_table(data), [callback])


def read(path: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = make_ndarray(value.tensor).item()
    return found


def test_the_leading_trial_is_written_every_epoch_of_every_fit(tmp_path: Path) -> None:
    live = LiveCurves(tmp_path / "tb")
    (bad, good) = train_with_curves(tmp_path, live, [1e-7, 0.05])
    (path,) = [path for path in (tmp_path / "tb").rglob("*") if path.is_file()]
    assert path.parent.name == "relu"
    found = read(path)
    assert found["live/networks"] == {1: 4, 2: 4, 3: 4, 4: 4}
    for epoch, value in found["live/val"].items():
        assert value == pytest.approx(np.mean([outcome.val_curve[epoch - 1] for outcome in good.outcomes]), rel=1e-6)
    assert good.value < bad.value
    train_with_curves(tmp_path, live, [0.05])
    live.close()
    assert list(read(path)["live/train"]) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_steps_get_sparse_in_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "POINTS_PER_STRIDE", 2)
    live = LiveCurves(tmp_path / "tb")
    for _ in range(4):
        train_with_curves(tmp_path, live, [0.05])
    live.close()
    (path,) = [path for path in (tmp_path / "tb").rglob("*") if path.is_file()]
    assert list(read(path)["live/val"]) == [1, 2, 4, 6, 8, 12, 16]
