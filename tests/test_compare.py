"""The comparison's grid, how it is cut, and what its run directory and study hold."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from actlab.config import Configuration
from actlab.data.splits import make_splits
from actlab.data.table import read_table
from actlab.engine.workers import Worker
from actlab.errors import InputError
from actlab.run_files import RunDirectory, jsonable, read_out_of_fold
from actlab.runs.compare_search import Compare, check_budget, compare
from actlab.runs.experiment import choose_directory
from actlab.runs.fit import score as score_checkpoint
from actlab.settings import CompareSettings, DataSettings, ModelSettings


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, house_csv: str) -> Configuration:
    return Configuration(
        data=DataSettings(house_csv, "SalePrice"),
        model=ModelSettings(hidden=[8]),
        compare=CompareSettings(
            activations=["relu", "tanh", "identity"], learning_rates=[1e-3, 1e-2], folds=2, repeats=4
        ),
        trainer={"max_epochs": 2, "accelerator": "cpu"},
        out=str(tmp_path_factory.mktemp("compare") / "run"),
    )


@pytest.fixture(scope="module")
def run(asked: Configuration) -> RunDirectory:
    return compare(asked)[0]


def trained_only(asked: Configuration) -> dict[str, FrozenTrial]:
    """Every cell of a comparison, without its results being written."""
    comparison = Compare(asked)
    comparison.train()
    done = comparison.study.done()
    found = {cell.key: done[cell.key] for cell in comparison.plan()}
    comparison.close()
    return found


def rows_of(trials: dict[str, FrozenTrial]) -> dict[str, list[dict[str, Any]]]:
    """Cell to its members, but for what a clock or a name of the trial says."""
    return {
        key: [{name: value for name, value in row.items() if name != "seconds"} for row in trial.user_attrs["members"]]
        for key, trial in trials.items()
    }


def test_rates_are_swept_once_and_one_of_each_activation_is_raced(run: RunDirectory) -> None:
    members = run.read_members()
    assert members.trial.tolist() == sorted(members.trial)
    swept, counting = members[members.repeat == 0], members[members.repeat >= 1]
    assert {1e-3, 1e-2} <= set(swept.learning_rate)
    assert len(swept) == 2 * swept[["activation", "learning_rate"]].drop_duplicates().shape[0]
    assert counting.groupby("activation").learning_rate.nunique().tolist() == [1, 1, 1]
    assert counting.groupby("activation").repeat.unique().map(list).tolist() == [[1, 2, 3, 4]] * 3
    assert counting.groupby(["activation", "repeat"]).fold.apply(list).tolist() == [[0, 1]] * 12
    summary = run.read_summary()
    assert [look["n_repeats"] for look in summary["protocol"]["looks"]] == [4]
    assert summary["protocol"]["n_networks"] == 24
    assert summary["protocol"]["n_networks_swept"] == len(swept)


def test_every_activation_has_the_same_folds_and_seeds(run: RunDirectory) -> None:
    counting = run.read_members().query("repeat >= 1")
    of = counting.groupby("activation").apply(lambda own: tuple(zip(own.repeat, own.fold, own.seed, strict=True)))
    assert len(set(of)) == 1


def test_the_run_directory_has_every_file(run: RunDirectory) -> None:
    files = (run.config, run.journal, run.members, run.curves, run.summary, run.checkpoint, run.out_of_fold)
    for path in (*files, run.tensorboard, run.report):
        assert path.exists(), path
    assert not run.weights.exists()


def test_plain_optuna_reads_the_study(run: RunDirectory) -> None:
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    study = optuna.load_study(study_name="actlab", storage=storage)
    members = run.read_members()
    assert len(study.trials) == members.trial.nunique()
    for trial in study.trials:
        key = json.loads(trial.user_attrs["cell"])
        assert trial.params == key
        own = members.query("activation == @key['activation'] and repeat == @key['repeat']")
        own = own[own.learning_rate == key["learning_rate"]]
        assert trial.value == pytest.approx(own.val_score.mean())
        assert [row["best_epoch"] for row in trial.user_attrs["members"]] == own.best_epoch.tolist()


def test_the_same_run_is_done_and_trains_nothing(
    run: RunDirectory, asked: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = run.summary.stat().st_mtime_ns
    refuse_training(monkeypatch)
    assert compare(asked)[1] == run.read_summary()
    assert run.summary.stat().st_mtime_ns == written


def refuse_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("there was nothing to train")

    monkeypatch.setattr(importlib.import_module("actlab.runs.experiment"), "evaluate", refuse)


@pytest.mark.parametrize(
    "changed",
    [
        {"rope": 0.3},
        {"baseline": "tanh"},
        {"activations": ["identity", "tanh", "relu"]},
        {"activations": ["relu", "tanh"]},
    ],
)
def test_what_is_there_is_judged_again_without_training(
    run: RunDirectory, asked: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    refuse_training(monkeypatch)
    again = replace(asked, compare=replace(asked.compare, **changed), out=str(tmp_path / "run"))
    found, summary = compare(again)
    assert summary is not None
    assert {row["activation"] for row in summary["ranking"]} == set(again.compare.activations)
    assert summary["baseline"] == again.compare.baseline
    assert summary["protocol"]["rope"] == again.compare.rope
    assert found.read_config()["compare"] == jsonable(again.to_dict())["compare"]


def test_a_run_grows_by_an_activation_and_repeats_as_if_it_had_been_so_from_the_start(
    run: RunDirectory, asked: Configuration, tmp_path: Path
) -> None:
    shutil.copytree(run.path, tmp_path / "grown")
    wider = replace(asked.compare, activations=["relu", "tanh", "identity", "silu"], repeats=8)
    before = rows_of(trained_only(asked))
    grown, fresh = (
        rows_of(trained_only(replace(asked, compare=wider, out=str(tmp_path / name)))) for name in ("grown", "fresh")
    )
    assert grown == fresh
    assert {key: grown[key] for key in before} == before
    assert any(json.loads(key)["activation"] == "silu" for key in grown)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"learning_rates": [1e-3]}, "learning_rates"), ({"folds": 3}, "folds"), ({"protocol": "grid"}, "protocol")],
)
def test_what_changes_numbers_is_another_run(
    run: RunDirectory, asked: Configuration, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=rf"holds another run, which differs in .*compare\.{named}"):
        compare(replace(asked, compare=replace(asked.compare, **changed)))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"inner": 2}, "one network a fold"),
        ({"repeats": 3}, "must be at least 4"),
        ({"budget": 23}, r"at least 24 networks \(4 repeats x 2 folds x 3 activations\), got budget=23"),
    ],
)
def test_what_a_race_cannot_do_is_refused(
    asked: Configuration, tmp_path: Path, changed: dict[str, Any], rule: str
) -> None:
    with pytest.raises(InputError, match=rule):
        compare(replace(asked, compare=replace(asked.compare, **changed), out=str(tmp_path / "run")))
    assert list(tmp_path.iterdir()) == []


def test_what_the_budget_can_show_is_said_before_training(
    asked: Configuration, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(asked.compare, activations=["relu", "tanh"], folds=5, repeats=None, budget=160)
    refuse_training(monkeypatch)
    with pytest.raises(AssertionError, match="nothing to train"):
        compare(replace(asked, compare=two, out=str(tmp_path / "run")))
    said = (
        "with 160 networks after the sweep: about 2.2 % of the score on these rows; --compare.budget 640: about 1.2 %"
    )
    assert said in capsys.readouterr().err


def test_repeats_are_rounded_down_to_a_look_and_that_is_said(
    asked: Configuration, capsys: pytest.CaptureFixture[str]
) -> None:
    check_budget(replace(asked, compare=replace(asked.compare, repeats=20)))
    assert "rounded down to the look at 16" in capsys.readouterr().err


def test_a_grid_trains_every_rate_on_every_repeat(asked: Configuration, tmp_path: Path) -> None:
    grid = replace(asked.compare, protocol="grid", repeats=2, inner=2, activations=["relu", "tanh"])
    keys = [json.loads(key) for key in trained_only(replace(asked, compare=grid, out=str(tmp_path / "run")))]
    wanted = [(name, rate, r) for r in (1, 2) for name in ("relu", "tanh") for rate in (1e-3, 1e-2)]
    assert [tuple(key.values()) for key in keys] == wanted


def test_a_sweep_is_claimed_by_whole_activations(asked: Configuration, tmp_path: Path) -> None:
    comparison = Compare(replace(asked, out=str(tmp_path / "run")), Worker(0, 1, 2))
    cells = comparison.plan()
    assert comparison.batch(len(cells)) == 2
    comparison.study.enqueue_missing(cells)
    claimed = [json.loads(trial.user_attrs["cell"]) for trial in comparison.study.claim(1).values()]
    assert [key["activation"] for key in claimed] == ["relu", "relu"]
    comparison.close()


def test_small_populations_find_the_same(asked: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = replace(
        asked,
        trainer={"max_epochs": 14, "accelerator": "cpu"},
        compare=replace(
            asked.compare, learning_rates=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], activations=["relu", "tanh"]
        ),
    )
    monkeypatch.setattr(importlib.import_module("actlab.runs.compare_search"), "rungs", lambda _: [3, 6])
    whole = rows_of(trained_only(replace(longer, out=str(tmp_path / "whole"))))
    assert any(row["pruned"] for rows in whole.values() for row in rows)
    monkeypatch.setattr(importlib.import_module("actlab.runs.experiment"), "POPULATION_MEMBERS", 4)
    assert rows_of(trained_only(replace(longer, out=str(tmp_path / "parts")))) == whole


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


def test_a_comparison_of_groups_keeps_each_in_one_part_and_speaks_of_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    person = rng.permutation(np.repeat(np.arange(20), 6))
    x = rng.normal(size=120)
    frame = pd.DataFrame({"person": person, "x": x, "y": np.exp(0.5 * x + rng.normal(size=20)[person])})
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = Configuration(
        data=DataSettings(str(tmp_path / "t.csv"), "y", groups=["person"]),
        model=ModelSettings(hidden=[4]),
        compare=CompareSettings(
            activations=["relu", "tanh"], learning_rates=[1e-2], folds=3, protocol="grid", inner=1, repeats=4
        ),
        trainer={"max_epochs": 3, "accelerator": "cpu"},
        out=str(tmp_path / "run"),
    )
    run, summary = compare(asked)
    assert summary is not None
    held = summary["protocol"]
    assert (held["unit"], held["n_units"], held["has_given_splits"]) == ("groups", 20, False)
    table = read_table(asked.data)
    splits = make_splits(table.layout, asked.compare.splitting("compare"), 0)
    assert held["fold_sizes"] == [splits.test_sizes(repeat) for repeat in range(5)]
    # the shipped model's predictions, and those that the statistics read
    predictions = pd.read_csv(run.predictions)
    assert predictions.groupby(person[predictions.row]).fold.nunique().max() == 1
    actual, out_of_fold = read_out_of_fold(run)
    score = np.mean(
        [np.sqrt(np.mean((own[0] - actual) ** 2)) for own in out_of_fold[summary["winner"]].predictions]  # type: ignore[union-attr]
    )
    ranked = {row["activation"]: row["mean"] for row in summary["ranking"]}
    assert ranked[summary["winner"]] == pytest.approx(score, rel=1e-6)
    # the model is scored on its own folds again
    again = score_checkpoint(replace(asked, ckpt_path=str(run.checkpoint), data=DataSettings()), "test")
    assert again == pytest.approx(summary["ensemble"]["test_score"], rel=1e-5)
    # other groups are another run
    with pytest.raises(InputError, match=r"data.groups: \['person'\] -> \[\]"):
        compare(replace(asked, data=replace(asked.data, groups=[])))


def test_given_folds_take_the_place_of_those_asked_for(small_csv: str, tmp_path: Path) -> None:
    frame = pd.read_csv(small_csv).assign(part=np.arange(120) % 3)
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = Configuration(
        data=DataSettings(str(tmp_path / "t.csv"), "price", fold="part"),
        model=ModelSettings(hidden=[4]),
        compare=CompareSettings(activations=["relu", "tanh"], learning_rates=[1e-2], repeats=4, budget=24),
        trainer={"max_epochs": 2, "accelerator": "cpu"},
        out=str(tmp_path / "run"),
    )
    with pytest.raises(InputError, match=r"at least 24 networks \(4 repeats x 3 folds x 2 activations\)"):
        compare(replace(asked, compare=replace(asked.compare, budget=23)))
    assert not (tmp_path / "run").exists()
    run, summary = compare(asked)
    assert summary is not None
    assert (summary["protocol"]["folds"], summary["protocol"]["has_given_splits"]) == (3, True)
    predictions = pd.read_csv(run.predictions)
    assert (predictions.fold == predictions.row % 3).all()
    members = run.read_members()
    assert sorted(set(members.fold)) == [0, 1, 2]
    # the same command finds it finished
    assert compare(asked)[1] == summary
