"""Progress counts right over several fits, estimates soundly, and is plain where nobody looks."""

import io
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from actlab.data.table import Table, read_table
from actlab.members import Member, Split
from actlab.networks.population import Outcome
from actlab.runs import progress as progress_module
from actlab.runs.progress import Leader, PopulationProgress, expected_member_epochs, find_leader
from actlab.runs.trials import Evaluation, Setting, TrialResult, evaluate
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings


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
    return evaluate(settings, evaluation, table, [progress])


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that goes on by a second whenever it is read by the progress."""
    ticks = count(100.0)

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return next(ticks)

    monkeypatch.setattr(progress_module, "time", Clock)
    return


def test_several_fits_of_a_run_add_up(data: DataSettings) -> None:
    out = io.StringIO()
    with PopulationProgress(console=Console(file=out), interval_s=0) as progress:
        progress.plan(7)
        progress.advance(1)
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


def test_plain_output_keeps_its_interval(data: DataSettings, ticking: None) -> None:
    out = io.StringIO()
    with PopulationProgress(4, Console(file=out), interval_s=1e9) as progress:
        train(data, progress, {0: "relu", 1: "tanh"})
    assert len(out.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar_that_goes_away(data: DataSettings, ticking: None) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, legacy_windows=False, _environ={"TERM": "xterm"})
    with PopulationProgress(4, console) as progress:
        train(data, progress, {0: "relu", 1: "tanh"})
        assert progress.live is not None
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
    assert find_leader(outcomes) == Leader("a2", 0.2, pytest.approx(0.16))
    assert str(find_leader(outcomes)) == "a2 at 0.2 leads with 0.1600 on validation rows"
    assert find_leader(outcomes[-1:]) is None


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
    progress = PopulationProgress(650, console)
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
