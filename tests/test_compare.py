"""The comparison's grid, how it is cut, and what its run directory and study hold."""

import importlib
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from actlab.config import Configuration
from actlab.engine.workers import Worker
from actlab.errors import InputError
from actlab.run_files import RunDirectory
from actlab.runs.compare_search import Compare, compare
from actlab.runs.experiment import choose_directory
from actlab.settings import CompareSettings, DataSettings, ModelSettings


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, house_csv: str) -> Configuration:
    return Configuration(
        data=DataSettings(house_csv, "SalePrice"),
        model=ModelSettings(hidden=[8]),
        compare=CompareSettings(activations=["relu", "tanh", "identity"], learning_rates=[1e-3, 1e-2], folds=2),
        trainer={"max_epochs": 2, "accelerator": "cpu"},
        out=str(tmp_path_factory.mktemp("compare") / "run"),
    )


@pytest.fixture(scope="module")
def run(asked: Configuration) -> RunDirectory:
    return compare(asked)[0]


def test_every_setting_has_the_same_budget_and_its_place(run: RunDirectory) -> None:
    members = run.read_members()
    assert members.trial.tolist() == [number for number in range(6) for _ in range(4)]
    first = members.groupby("trial").first()
    assert first.activation.tolist() == ["relu", "relu", "tanh", "tanh", "identity", "identity"]
    assert first.learning_rate.tolist() == [1e-3, 1e-2] * 3
    pairs = members.groupby("trial").apply(lambda own: [*zip(own.repeat, own.fold, own.inner, own.seed, strict=True)])
    assert len({tuple(each) for each in pairs}) == 1


def test_the_run_directory_has_every_file(run: RunDirectory) -> None:
    for path in (run.config, run.journal, run.members, run.curves, run.summary, run.checkpoint, run.tensorboard):
        assert path.exists(), path
    assert {path.name for path in run.figures.iterdir()} >= {
        "optuna_slice.png",
        "optuna_importances.png",
        "optuna_learning_rate_by_activation.png",
    }


def test_plain_optuna_reads_the_study(run: RunDirectory) -> None:
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    study = optuna.load_study(study_name="actlab", storage=storage)
    members = run.read_members()
    assert len(study.trials) == 6
    for trial in study.trials:
        own = members[members.trial == trial.user_attrs["number"]]
        assert trial.params == {"activation": own.activation.iloc[0], "learning_rate": own.learning_rate.iloc[0]}
        assert trial.value == pytest.approx(own.val_score.mean())
        assert [row["best_epoch"] for row in trial.user_attrs["members"]] == own.best_epoch.tolist()
    assert study.best_value == min(trial.value for trial in study.trials if trial.value is not None)


def test_a_grid_is_cut_in_two_populations_a_worker_and_whole_activations_for_unknown_many(
    asked: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("actlab.runs.experiment"), "POPULATION_MEMBERS", 1000)
    larger = replace(
        asked,
        compare=replace(asked.compare, learning_rates=[1e-4, 1e-3, 1e-2, 1e-1]),
        out=str(tmp_path / "run"),
    )
    assert Compare(larger).batch == 250
    assert Compare(larger, Worker(0, 1, 2)).batch == 3
    comparison = Compare(larger)
    comparison.configuration = replace(larger, storage="postgresql+psycopg://host/db")
    assert comparison.batch == 4


def test_an_unknown_activation_is_refused_before_anything_is_written(asked: Configuration, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nonsense"):
        compare(
            replace(asked, compare=replace(asked.compare, activations=["relu", "nonsense"]), out=str(tmp_path / "run"))
        )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_another_worker_has_just_begun_is_taken(asked: Configuration, tmp_path: Path) -> None:
    for name in (".config.yaml.x1y2.yaml", "study.journal.lock"):
        (tmp_path / name).touch()
    assert choose_directory("compare", replace(asked, out=str(tmp_path))).path == tmp_path


def test_a_directory_with_other_files_is_refused(asked: Configuration, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="other files in it"):
        compare(replace(asked, out=str(tmp_path)))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        compare(replace(asked, out=str(tmp_path / "file")))
