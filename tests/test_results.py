"""From finished trials to files: what is kept of them, what a race is held under, and one number in all places."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from actlab.config import Configuration
from actlab.data.layout import RowLayout
from actlab.data.splits import fold_sizes, make_splits
from actlab.data.table import read_table
from actlab.members import Split
from actlab.run_files import RunDirectory, read_out_of_fold
from actlab.runs import compare_search, results
from actlab.runs.compare_search import compare, search
from actlab.runs.results import PREDICTIONS, frames, predictions_of, terms_of
from actlab.settings import CompareSettings, DataSettings, ModelSettings, SearchSettings
from actlab.verdict.race import LOOKS, run
from actlab.verdict.simultaneous import RowNoise, Units, row_sums
from actlab.verdict.summary import choose, rows_by_activation, summarise
from actlab.verdict.summary import repeat_scores as scores_of_repeats


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    # drawing takes longer than these trainings, and has tests of its own
    monkeypatch.setattr(results, "draw_study", lambda study, directory: None)
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)
    monkeypatch.setattr(results, "write_report", lambda run: (run / "report.html").touch())


def asked(csv: str, out: Path, **compare: Any) -> Configuration:
    protocol = {"activations": ["relu", "tanh"], "learning_rates": [3e-2], "folds": 7, "repeats": 4} | compare
    return Configuration(
        data=DataSettings(csv, "price"),
        model=ModelSettings(hidden=[6]),
        compare=CompareSettings(**protocol),
        search=SearchSettings(n_trials=4),
        trainer={"max_epochs": 3, "accelerator": "cpu"},
        out=str(out),
    )


def finished(run: RunDirectory) -> tuple[pd.DataFrame, dict[str, Any], Any, Any]:
    return run.read_members(), run.read_summary(), *read_out_of_fold(run)


@pytest.mark.parametrize("protocol", ["race", "grid"])
def test_out_of_fold_predictions_score_what_the_ranking_shows(
    small_csv: str, tmp_path: Path, protocol: Literal["race", "grid"]
) -> None:
    """120 rows in seven folds of unequal size: the root over all rows, from three sources."""
    run_directory, _ = compare(asked(small_csv, tmp_path / "run", protocol=protocol))
    members, summary, actual, out_of_fold = finished(run_directory)
    table = read_table(DataSettings(small_csv, "price"))
    assert table.target is not None
    np.testing.assert_allclose(actual, np.log(table.target), rtol=1e-14)
    scores = scores_of_repeats(members, fold_sizes(120, 7))
    assert set(out_of_fold) == {"relu", "tanh"}
    n_inner = 1 if protocol == "race" else 2
    for name, own in out_of_fold.items():
        assert (own.learning_rate, own.repeats, own.squared_errors) == (3e-2, (1, 2, 3, 4), None)
        assert own.predictions.shape == (4, n_inner, 120)
        assert own.predictions.dtype == np.float64
        roots = np.sqrt(np.square(own.predictions - actual).mean((1, 2)))
        np.testing.assert_allclose(roots, scores[name], rtol=1e-6)
        row = rows_by_activation(summary)[name]
        assert row["mean"] == pytest.approx(np.mean(scores[name]), rel=1e-12)
        assert row["sd"] == pytest.approx(np.std(scores[name], ddof=1), rel=1e-12)
        assert (row["n"], row["n_members"]) == (4, 4 * 7 * n_inner)
    # the errors of rows are those that the noise of rows is taken from
    errors = [
        {name: np.square(own.predictions[r].astype(float) - actual).mean(0) for name, own in out_of_fold.items()}
        for r in range(4)
    ]
    units = Units.rows(120)
    race = run(scores, terms_of(asked(small_csv, tmp_path, protocol=protocol).compare, 2), _noise(errors, units))
    again = summarise(members, fold_sizes(120, 7), race, "relu")
    for found, wanted in zip(summary["comparisons"], again["comparisons"], strict=True):
        for key, value in wanted.items():
            is_number = isinstance(value, float) and np.isfinite(value)
            assert found[key] == (pytest.approx(value, rel=1e-9) if is_number else None if value != value else value)
    assert summary["protocol"]["n_networks"] == 2 * 4 * 7 * n_inner
    assert (summary["protocol"]["n_networks_swept"], summary["protocol"]["repeats"]) == (0, 4)


def _noise(errors: list[dict[str, Any]], units: Units) -> RowNoise:
    return RowNoise(units, 7, row_sums(errors, units, [4]))


def test_what_networks_predict_is_theirs_for_rows_they_never_saw(small_csv: str, tmp_path: Path) -> None:
    """A fold's networks, trained by themselves, predict the same."""
    configuration = asked(small_csv, tmp_path / "run")
    run_directory, _ = compare(configuration)
    _, _, _, out_of_fold = finished(run_directory)
    members = run_directory.read_members()
    splits = make_splits(RowLayout(120), configuration.compare.splitting("compare"), 0)
    own = members[(members.activation == "tanh") & (members.repeat == 3)]
    actual = read_out_of_fold(run_directory)[0]
    for fold, score in zip(own.fold, own.test_score, strict=True):
        rows = splits[Split(3, fold, 0)].test
        errors = out_of_fold["tanh"].predictions[2, 0, rows] - actual[rows]
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(score, rel=1e-6)


def test_a_table_of_very_many_rows_keeps_sums_and_says_the_same(
    small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_directory, _ = compare(asked(small_csv, tmp_path / "few"))
    _, few, actual, whole = finished(run_directory)
    monkeypatch.setattr(results, "MANY_ROWS", 100)
    monkeypatch.setattr(compare_search, "MANY_ROWS", 100)
    trained: list[int] = []
    evaluate = results.RunNetworks.save
    monkeypatch.setattr(
        results.RunNetworks, "save", lambda own, n, outcomes: (trained.append(n), evaluate(own, n, outcomes))
    )
    run_directory, _ = compare(asked(small_csv, tmp_path / "many"))
    _, many, _, sums = finished(run_directory)
    # every cell's networks are kept until then: none is trained a second time
    assert len(trained) == len(set(trained)) == 8
    for name, own in sums.items():
        assert own.predictions is None
        squares = np.square(whole[name].predictions[:, 0].astype(float) - actual).sum(0)
        np.testing.assert_allclose(own.squared_errors, squares, rtol=1e-12)
    assert many["comparisons"] == [
        {**row, "seconds_needed": now["seconds_needed"]}
        for row, now in zip(few["comparisons"], many["comparisons"], strict=True)
    ]


def test_a_search_keeps_the_predictions_of_its_best_trials(small_csv: str, tmp_path: Path) -> None:
    run_directory, _ = search(asked(small_csv, tmp_path / "run", folds=3, repeats=2))
    members, summary, actual, out_of_fold = finished(run_directory)
    chosen = choose(members, is_comparison=False)
    for name, own in out_of_fold.items():
        assert own.repeats == (0, 1)
        roots = np.sqrt(np.square(own.predictions - actual).mean((1, 2)))
        assert rows_by_activation(summary)[name]["mean"] == pytest.approx(roots.mean(), rel=1e-6)
        assert own.learning_rate == chosen[chosen.activation == name].learning_rate.iloc[0]
    assert summary["comparisons"] == summary["protocol"]["looks"] == []
    assert [row["trial"] for row in summary["trials"]] == list(range(4))


def test_where_all_trainings_diverge_the_files_say_so(small_csv: str, tmp_path: Path) -> None:
    configuration = asked(small_csv, tmp_path / "run", activations=["relu", "identity"], learning_rates=[1e24, 1e25])
    run_directory, _ = compare(configuration)
    members, summary, _, out_of_fold = finished(run_directory)
    assert set(members.repeat) == {0}
    assert out_of_fold == {}
    assert [row["mean"] for row in summary["ranking"]] == [None, None]
    assert [row["learning_rate"] for row in summary["ranking"]] == [None, None]
    assert summary["comparisons"] == []
    assert summary["ensemble"]["n_members"] == summary["protocol"]["repeats_done"] == 0
    assert not run_directory.checkpoint.exists()


def test_predictions_come_back_bit_by_bit() -> None:
    kept = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    kept[1, 2] = np.nan
    result: Any = SimpleNamespace(
        number=0, setting=SimpleNamespace(label="relu"), outcomes=(), curve_records=list, member_records=list
    )
    monitor: Any = SimpleNamespace(of=lambda number: [])
    attributes = json.loads(json.dumps(results.attributes_of(result, monitor, 1.0, kept)))
    found = predictions_of(SimpleNamespace(user_attrs=attributes), 5)  # type: ignore[arg-type]
    assert found is not None
    assert found.tobytes() == kept.tobytes()
    assert PREDICTIONS not in results.attributes_of(result, monitor, 1.0)
    assert predictions_of(SimpleNamespace(user_attrs={}), 5) is None  # type: ignore[arg-type]


def test_trials_are_numbered_by_their_place_in_the_results() -> None:
    curve = [17, "relu", 0.1, 1, 5, 1.0, None, 1.0, 0.1]
    trials: Any = [
        SimpleNamespace(user_attrs={"curves": [[*curve]]}),
        SimpleNamespace(user_attrs={"curves": [[*curve]]}),
    ]
    found = frames(trials)["curves"]
    assert found.trial.tolist() == [0, 1]
    assert found.train_sd.isna().all()


def test_the_terms_of_a_race() -> None:
    settings = CompareSettings(folds=5)
    terms = terms_of(settings, 13)
    assert [look for look, _ in terms.looks] == list(LOOKS)
    # sixteen repeats of five networks for thirteen
    assert (terms.budget, terms.n_folds, terms.rope) == (1040, 5, 0.02)
    assert terms_of(replace(settings, confirm=True), 13).budget == 2080
    # 16 repeats would cost 1,040: 1,000 reach the eighth, and one look more is the sixteenth
    assert terms_of(replace(settings, budget=1000, confirm=True), 13).budget == 1040
    assert terms_of(replace(settings, budget=10**6, confirm=True), 13).budget == 10**6
    assert [look for look, _ in terms_of(replace(settings, repeats=20), 13).looks] == [4, 8, 16]


def test_a_grid_has_one_look_at_its_end() -> None:
    terms = terms_of(CompareSettings(protocol="grid", folds=5, repeats=6), 3)
    assert terms.looks == ((6, 0.05),)
    assert terms.n_folds == 10
    assert terms_of(CompareSettings(protocol="grid", repeats=3), 3).looks == ()
