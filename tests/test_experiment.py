"""The same command again goes on where it stopped, and another command on the same directory is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from optuna.trial import TrialState

from actlab.config import Configuration
from actlab.engine.storage import open_storage
from actlab.engine.study import Study
from actlab.errors import InputError
from actlab.run_files import RunDirectory
from actlab.runs import experiment as experiments
from actlab.runs import results
from actlab.runs.compare_search import Compare, compare
from actlab.settings import CompareSettings, DataSettings, ModelSettings


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, TensorBoard and report take longer than these trainings, and have tests of their own."""
    monkeypatch.setattr(results, "draw_study", lambda study, directory: None)
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)
    monkeypatch.setattr(results, "write_report", lambda run: (run / "report.html").touch())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A resumed run has the bits of an undisturbed one where arithmetic has one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def configuration(csv: str, out: Path) -> Configuration:
    return Configuration(
        data=DataSettings(csv, "price"),
        model=ModelSettings(hidden=[8]),
        compare=CompareSettings(
            activations=["relu", "tanh"], learning_rates=[1e-3, 1e-2], protocol="grid", folds=2, inner=1, repeats=1
        ),
        trainer={"max_epochs": 3, "accelerator": "cpu"},
        out=str(out),
    )


@pytest.fixture
def asked(small_csv: str, tmp_path: Path) -> Configuration:
    """A run that was not started yet."""
    return configuration(small_csv, tmp_path / "run")


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def finished(asked: Configuration, finished_once: Path) -> Configuration:
    """A finished run of the same: trained once, copied for each test."""
    if not finished_once.exists():
        compare(replace(asked, out=str(finished_once)))
    shutil.copytree(finished_once, str(asked.out))
    return asked


def states(asked: Configuration) -> list[TrialState]:
    study = Study(open_storage(RunDirectory(str(asked.out)).journal), "actlab")
    return [trial.state for trial in study.trials()]


class Counting:
    """`evaluate` that counts what it trains, and is interrupted in one of its populations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None, error: Any = None) -> None:
        self.evaluate, self.fails_at, self.error = experiments.evaluate, fails_at, error
        self.trained: list[int] = []
        self.n_calls = 0
        monkeypatch.setattr(experiments, "evaluate", self)
        monkeypatch.setattr(experiments, "POPULATION_MEMBERS", 2)

    def __call__(self, settings: dict[int, Any], *arguments: Any) -> Any:
        self.n_calls += 1
        if self.n_calls == self.fails_at:
            raise self.error
        self.trained += settings
        return self.evaluate(settings, *arguments)


def test_an_interrupted_comparison_goes_on_and_trains_nothing_twice(
    asked: Configuration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupted = Counting(monkeypatch, fails_at=3, error=SystemExit(143))
    with pytest.raises(SystemExit):
        compare(asked)
    before = set(interrupted.trained)
    assert len(before) == 2
    assert TrialState.RUNNING not in states(asked)
    rest = Counting(monkeypatch)
    compare(asked)
    assert len(rest.trained) == 2
    assert not set(rest.trained) & before
    undisturbed = replace(asked, out=str(tmp_path / "undisturbed"))
    compare(undisturbed)
    own, other = (RunDirectory(str(each.out)).read_members().drop(columns="seconds") for each in (asked, undisturbed))
    pd.testing.assert_frame_equal(own, other, check_exact=True)


def test_a_finished_run_gives_its_summary_again_without_any_work(
    finished: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, summary = compare(finished)
    again = Counting(monkeypatch)
    monkeypatch.setattr(experiments, "ResultFiles", None)
    run, same = compare(finished)
    assert again.n_calls == 0
    assert same == summary
    assert json.loads(run.summary.read_text()) == summary


def test_a_run_that_died_while_writing_its_results_writes_them(
    finished: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, summary = compare(finished)
    run.summary.unlink()
    run.members.unlink()
    again = Counting(monkeypatch)
    _, same = compare(finished)
    assert again.n_calls == 0
    assert same is not None
    assert same["ranking"] == summary["ranking"]
    assert len(run.read_members()) == 8


@pytest.mark.parametrize(("change", "says"), [
    ({"seed": 1}, r"seed: 0 -> 1"),
    ({"model": ModelSettings(hidden=[9])}, r"model\.hidden: \[8\] -> \[9\]"),
    ({"trainer": {"max_epochs": 4, "accelerator": "cpu"}}, r"trainer\.max_epochs: 3 -> 4"),
])  # fmt: skip
def test_another_configuration_is_refused_with_what_differs(
    finished: Configuration, change: dict[str, Any], says: str
) -> None:
    compare(finished)
    before = {path: path.read_bytes() for path in Path(str(finished.out)).rglob("*.csv")}
    with pytest.raises(InputError, match=says):
        compare(replace(finished, **change))
    assert before == {path: path.read_bytes() for path in before}


def test_other_data_of_the_same_name_are_refused(finished: Configuration, small_csv: str) -> None:
    compare(finished)
    content = Path(small_csv).read_text().splitlines()
    Path(small_csv).write_text("\n".join(content[:-1]))
    with pytest.raises(InputError, match=r"the content of .*small\.csv \(sha256 .{12} -> .{12}\)"):
        compare(finished)


def test_the_same_data_elsewhere_are_the_same_run(finished: Configuration, small_csv: str, tmp_path: Path) -> None:
    _, summary = compare(finished)
    other = tmp_path / "moved.csv"
    Path(small_csv).rename(other)
    assert compare(replace(finished, data=replace(finished.data, csv=str(other))))[1] == summary


def test_a_directory_whose_study_is_gone_still_refuses_another_configuration(finished: Configuration) -> None:
    run, _ = compare(finished)
    run.journal.unlink()
    with pytest.raises(InputError, match=r"seed: 0 -> 1"):
        compare(replace(finished, seed=1))


def test_other_versions_are_a_warning(
    finished: Configuration, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(finished)
    monkeypatch.setattr(experiments, "versions", lambda: {"python": "4.0"})
    compare(finished)
    assert "warning: this run was started with other versions" in capsys.readouterr().err


def test_fresh_starts_beside_and_overwrites_nothing(finished: Configuration) -> None:
    first, _ = compare(finished)
    content = first.summary.read_bytes()
    second, _ = compare(replace(finished, fresh=True, seed=1))
    third, _ = compare(replace(finished, fresh=True, seed=1))
    assert [run.path.name for run in (first, second, third)] == ["run", "run-2", "run-3"]
    assert first.summary.read_bytes() == content


def test_where_another_machine_writes_the_results_this_one_says_so(
    asked: Configuration, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = Compare(asked)
    comparison.study.optuna.set_user_attr("written_by", {"host": "elsewhere", "directory": "/runs/there"})
    assert comparison.execute()[1] is None
    assert "the results are in /runs/there on elsewhere" in capsys.readouterr().err
    # asked again, with everything done, it writes its own
    assert compare(asked)[1] is not None


ACTLAB = [sys.executable, "-m", "actlab", "compare"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_in_the_middle_of_training_saves_says_how_to_resume_and_has_its_exit_code(
    number: signal.Signals, code: int, workers: int, concrete_csv: str, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    command = [
        *ACTLAB, "--data.csv", concrete_csv, "--data.target", "compressive_strength",
        "--compare.activations", "[relu,tanh]", "--compare.learning_rates", "[0.001,0.01]",
        "--trainer.max_epochs", "5000", "--optimizer.patience", "5000", "--out", str(run.path),
        "--workers", str(workers),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and '"owner"' not in (run.journal.read_text() if run.journal.exists() else ""):
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.strip().splitlines()[-1] == "actlab: interrupted; the same command again goes on where it stopped"
    assert "Traceback" not in said
    study = Study(open_storage(run.journal), "actlab")
    assert not study.trials(TrialState.RUNNING)
