"""Rows in order of time, and a file that is scored at the end: what is later, or new, reaches no choice."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.cli import dispatch
from actlab.config import Configuration
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.table import Table, read_rows, read_table
from actlab.data.windows import Window, windows
from actlab.errors import InputError
from actlab.model.ensemble import load
from actlab.model.intervals import check_level, prediction_interval
from actlab.run_files import RunDirectory
from actlab.runs import results
from actlab.runs.compare_search import compare, search
from actlab.runs.fit import fit, score
from actlab.runs.references import RIDGE_ALPHAS
from actlab.settings import CompareSettings, DataSettings, ModelSettings, ProtocolSettings

FOLDS = 3
N_ROWS = 160


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    # drawing takes longer than these trainings, and has tests of its own
    monkeypatch.setattr(results, "draw_study", lambda study, directory: None)
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)


def timed_frame(seed: int = 0, n_rows: int = N_ROWS) -> pd.DataFrame:
    """Days in random order, two rows a day; a price that rises, of a number and a category."""
    rng = np.random.default_rng(seed)
    day = rng.permutation(np.arange(n_rows) // 2)
    x, kind = rng.normal(size=n_rows), rng.choice(["a", "b"], n_rows)
    frame = pd.DataFrame({"day": 18_000 + day, "x": x, "z": rng.normal(size=n_rows), "kind": kind})
    frame["price"] = np.exp(np.sin(2 * x) + 0.5 * (kind == "a") + day / n_rows + 0.2 * rng.normal(size=n_rows))
    return frame


def asked(csv: Path, out: Path, test_csv: Path | None = None, **compare: Any) -> Configuration:
    protocol = {"activations": ["relu", "tanh"], "learning_rates": [3e-3, 1e-2], "folds": FOLDS, "repeats": 4} | compare
    return Configuration(
        data=DataSettings(str(csv), "price", time="day", test_csv=None if test_csv is None else str(test_csv)),
        model=ModelSettings(hidden=[6]),
        compare=CompareSettings(**protocol),
        trainer={"max_epochs": 6, "accelerator": "cpu"},
        out=str(out),
    )


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """One on a table, and one on the same table with all that is in the last block of time made different."""
    folder = tmp_path_factory.mktemp("timed")
    frame = timed_frame()
    last = windows(frame.day.to_numpy(float), ProtocolSettings(FOLDS))[FOLDS - 1].test
    other = frame.copy()
    rng = np.random.default_rng(1)
    other.loc[last, ["x", "z"]] = rng.normal(5, 3, (len(last), 2))
    other.loc[last, "kind"] = "new"
    other.loc[last, "price"] = rng.uniform(1e3, 1e6, len(last))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_study", lambda study, directory: None)
        patch.setattr(results, "write_comparison", lambda *_: None)
        return {
            name: compare(asked(written(own, folder / f"{name}.csv"), folder / name))[0]
            for name, own in (("first", frame), ("other", other))
        }


def test_nothing_of_earlier_folds_depends_on_later_rows(runs: dict[str, RunDirectory]) -> None:
    a, b = (run.read_members().drop(columns="seconds") for run in runs.values())
    chosen = [own[own.repeat > 0].groupby("activation").learning_rate.unique().map(list).to_dict() for own in (a, b)]
    assert chosen[0] == chosen[1]
    # the sweep too: it trains and validates before the first test row
    earlier = [own[(own.fold < FOLDS - 1) | (own.repeat == 0)] for own in (a, b)]
    swept = [own[own.repeat == 0].drop(columns="test_score") for own in earlier]
    pd.testing.assert_frame_equal(*swept)
    pd.testing.assert_frame_equal(*(own[own.repeat > 0].reset_index(drop=True) for own in earlier))
    predicted = [pd.read_csv(run.predictions) for run in runs.values()]
    assert set(predicted[0].fold) == {1, 2}
    pd.testing.assert_frame_equal(*(own[own.fold < FOLDS - 1].reset_index(drop=True) for own in predicted))
    assert not predicted[0].equals(predicted[1])


def test_scores_are_roots_over_the_tested_rows(runs: dict[str, RunDirectory]) -> None:
    run = runs["first"]
    frame, summary = timed_frame(), run.read_summary()
    first, *others = (one.test for one in windows(frame.day.to_numpy(float), ProtocolSettings(FOLDS)))
    tested = np.concatenate([first, *others])
    predicted = pd.read_csv(run.predictions)
    # the model is scored by the later half
    assert sorted(predicted.row) == sorted(set(tested.tolist()) - set(first.tolist()))
    residuals = np.log(predicted.actual / predicted.predicted)
    assert summary["ensemble"]["test_score"] == pytest.approx(np.sqrt(np.mean(residuals**2)), rel=1e-9)
    with np.load(run.out_of_fold) as arrays:
        errors = arrays["predictions_0"][:, 0] - arrays["actual"]
        name = str(arrays["activations"][0])
    assert np.isnan(errors[:, np.setdiff1d(np.arange(N_ROWS), tested)]).all()
    own = {row["activation"]: row for row in summary["ranking"]}[name]
    assert own["mean"] == pytest.approx(np.sqrt(np.mean(errors[:, tested] ** 2, axis=1)).mean(), rel=1e-5)
    assert summary["protocol"]["n_units"] == 20
    assert summary["data"]["time"] == "day"


def test_the_model_has_trained_on_all_rows_and_its_errors_are_those_of_the_windows(
    runs: dict[str, RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["first"]
    model, summary = load(run.checkpoint), run.read_summary()
    assert list(model.folds) == [(1, FOLDS)]
    assert sorted((one.repeat, one.fold) for one in model.residuals) == [(1, 1), (1, 2)]
    assert len(model.members) == summary["ensemble"]["n_members"] == sum(summary["ensemble"]["activations"].values())
    table = read_table(DataSettings(str(run.read_config()["data"]["csv"]), "price", time="day"))
    # the scale of the target is that of all rows
    for one in model.members:
        assert one.scaler.mean == pytest.approx(np.log(table.target).mean())
    # as long as those of the last window
    members = run.read_members()
    for one in model.members:
        own = members[
            (members.activation == one.member.activation) & (members.repeat > 0) & (members.fold == FOLDS - 1)
        ]
        assert one.member.epochs == max(1, round(1.5 * own.best_epoch.mean()))
    lower, upper = prediction_interval(model, model.predict_by_fold(table.features), 0.8)
    assert (lower < upper).all()
    assert check_level(model.residuals, 0.8) > 0
    value = score(Configuration(ckpt_path=str(run.checkpoint)), "test")
    assert value == pytest.approx(summary["ensemble"]["test_score"], rel=1e-9)
    assert f"on {sum(len(one.residuals) for one in model.residuals)} test rows" in capsys.readouterr().out
    with pytest.raises(InputError, match="trained on their validation rows too"):
        score(Configuration(ckpt_path=str(run.checkpoint)), "validation")


def ridge_errors(table: Table, features: pd.DataFrame, target: np.ndarray, one: Window) -> np.ndarray:
    """Of the test rows among all (log) rows: fitted before them, the penalty chosen on the last of these."""
    from sklearn.linear_model import Ridge

    known = np.sort(np.concatenate([one.training, one.validation]))
    settings = DataSettings("", "price", time="day")
    inputs = fit_preprocessor(features, table.schema, known, settings).transform(features).astype(float)
    z = (target - target[known].mean()) / target[known].std()

    def errors(alpha: float, fitted: np.ndarray, scored: np.ndarray) -> np.ndarray:
        return np.asarray(Ridge(alpha).fit(inputs[fitted], z[fitted]).predict(inputs[scored]) - z[scored])

    best = min(RIDGE_ALPHAS, key=lambda alpha: np.mean(errors(alpha, one.training, one.validation) ** 2))
    return errors(best, known, one.test) * target[known].std()


def test_ridge_is_fitted_on_earlier_rows_its_penalty_chosen_on_the_last_of_them(runs: dict[str, RunDirectory]) -> None:
    run = runs["first"]
    table = read_table(DataSettings(str(run.read_config()["data"]["csv"]), "price", time="day"))
    target = np.log(table.target)
    found = windows(table.layout.time, ProtocolSettings(FOLDS))[1:-1]
    errors = np.concatenate([ridge_errors(table, table.features, target, one) for one in found])
    assert run.read_summary()["references"]["ridge"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)


def test_a_fit_tests_the_last_block(tmp_path: Path) -> None:
    frame = timed_frame()
    run = fit(asked(written(frame, tmp_path / "timed.csv"), tmp_path / "fit"))
    one = windows(frame.day.to_numpy(float), ProtocolSettings(FOLDS))[FOLDS - 1]
    assert sorted(pd.read_csv(run.predictions).row) == one.test.tolist()
    model = load(run.checkpoint)
    assert model.members[0].scaler.mean == pytest.approx(np.log(frame.price[one.training]).mean())
    value = score(Configuration(ckpt_path=str(run.checkpoint)), "test")
    assert value == pytest.approx(run.read_summary()["ensemble"]["test_score"], rel=1e-6)


@pytest.mark.parametrize("keys", [{"groups": ["kind"]}, {"fold": "kind"}])
def test_time_is_refused_beside_groups_and_folds(keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="splits rows by time alone, got"):
        DataSettings("a.csv", "price", time="day", **keys)


@pytest.mark.parametrize("scaling", ["robust", "standard", "minmax"])
def test_in_the_column_of_the_time_later_rows_are_as_the_last_ones_of_training(scaling: Any, tmp_path: Path) -> None:
    frame = timed_frame().sort_values("day", ignore_index=True)
    for days in (frame.day, pd.to_datetime(frame.day, unit="D").dt.strftime("%Y-%m-%d")):
        settings = DataSettings(
            str(written(frame.assign(day=days), tmp_path / "timed.csv")), "price", time="day", scaling=scaling
        )
        table, known = read_table(settings), np.arange(100)
        assert table.layout.time.tolist() == frame.day.tolist()
        rules = fit_preprocessor(table.features, table.schema, known, settings)
        inputs = pd.DataFrame(rules.transform(table.features), columns=rules.feature_names)
        assert (inputs.day[99:] == inputs.day[99]).all()
        assert inputs.day[:100:2].is_monotonic_increasing
        assert inputs.day[:100:2].is_unique
        untimed = fit_preprocessor(table.features, table.schema, known, replace(settings, time=None))
        others = pd.DataFrame(untimed.transform(table.features), columns=untimed.feature_names)
        pd.testing.assert_frame_equal(inputs[:100], others[:100])
        pd.testing.assert_frame_equal(inputs.drop(columns="day"), others.drop(columns="day"))


@pytest.mark.parametrize(("command", "keys"), [(compare, {"protocol": "grid"}), (search, {})])
def test_what_would_choose_by_later_rows_is_refused(
    command: Callable[[Configuration], Any], keys: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is for a race"):
        command(asked(written(timed_frame(), tmp_path / "timed.csv"), tmp_path / "run", **keys))


def refusal(csv: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_table(DataSettings(str(csv), "price", time="day"))
    return str(caught.value)


def test_a_time_that_is_missing_or_none_is_refused_with_its_line(tmp_path: Path) -> None:
    frame = timed_frame().astype({"day": object})
    missing, odd = frame.copy(), frame.copy()
    missing.loc[[3, 7], "day"] = ""
    odd.loc[5, "day"] = "soon"
    said = refusal(written(missing, tmp_path / "missing.csv"))
    assert said.endswith("column 'day': data.time is missing in lines 5, 9; fill the cells in, or remove these rows")
    said = refusal(written(odd, tmp_path / "odd.csv"))
    assert "line 7, column 'day': data.time must be a number or a date like 2024-12-31 in every row, got 'soon'" in said


def test_the_test_file_is_scored_once_by_model_and_references_and_reaches_nothing_else(
    tmp_path: Path, runs: dict[str, RunDirectory]
) -> None:
    csv = Path(str(runs["first"].read_config()["data"]["csv"]))
    later = timed_frame(5, 60).assign(day=lambda rows: rows.day + 200)
    test_csv = written(later, tmp_path / "later.csv")
    run, summary = compare(asked(csv, tmp_path / "run", test_csv))
    assert summary is not None
    found = summary.pop("test_file")
    assert (found["csv"], found["n_rows"]) == (str(test_csv), 60)
    model = load(run.checkpoint)
    (rows,) = read_rows(str(test_csv), model.schema)
    errors = np.log(later.price.to_numpy()) - np.log(model.predict(rows.features))
    assert found["shipped"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-9)
    table = read_table(DataSettings(str(csv), "price", time="day"))
    y, actual = np.log(table.target), np.log(later.price.to_numpy())
    assert found["median"] == pytest.approx(np.sqrt(np.mean((actual - np.median(y)) ** 2)), rel=1e-9)
    both = pd.concat([table.features, rows.features], ignore_index=True)
    last = windows(table.layout.time, ProtocolSettings(FOLDS))[-1]._replace(test=N_ROWS + np.arange(60))
    ridge = ridge_errors(table, both, np.concatenate([y, actual]), last)
    assert found["ridge"] == pytest.approx(np.sqrt(np.mean(ridge**2)), rel=1e-6)
    # everything else is as without it, but for clocks
    other = runs["first"].read_summary()
    for own in (summary, other):
        own["data"].pop("test_csv", None)
        own["protocol"].pop("seconds_per_network")
        own.pop("costs")
        for row in own["ranking"]:
            row.pop("seconds")
        for row in own["comparisons"]:
            row.pop("seconds_needed")
        own["claims"] = [claim for claim in own["claims"] if "step" not in json.dumps(claim)]
    assert summary["ranking"] == other["ranking"]
    assert summary["ensemble"] == other["ensemble"]
    assert summary["comparisons"] == other["comparisons"]
    assert "On the 60 rows of" in run.report.read_text(encoding="utf-8")


def test_a_finished_run_scores_another_test_file_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = written(timed_frame(), tmp_path / "timed.csv")
    first, second = (written(timed_frame(seed, 50), tmp_path / f"{seed}.csv") for seed in (7, 8))
    run, before = compare(asked(csv, tmp_path / "run", first))
    checkpoint = run.checkpoint.read_bytes()
    monkeypatch.setattr("actlab.runs.experiment.evaluate", None)
    _, same = compare(asked(csv, tmp_path / "run", first))
    _, after = compare(asked(csv, tmp_path / "run", second))
    assert before is not None
    assert same is not None
    assert after is not None
    assert same["test_file"] == before["test_file"]
    assert after["test_file"]["csv"] == str(second)
    assert after["test_file"]["shipped"] != before["test_file"]["shipped"]
    assert after["ensemble"] == before["ensemble"]
    assert run.checkpoint.read_bytes() == checkpoint
    assert run.read_summary()["test_file"] == after["test_file"]


def test_the_table_itself_is_refused_as_test_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = written(timed_frame(), tmp_path / "timed.csv")
    keys = ["--data.csv", str(csv), "--data.target", "price", "--data.test_csv", str(csv), "--out", str(tmp_path / "r")]
    with pytest.raises(InputError, match="is the file of"):
        dispatch(["compare", *keys])
    assert not (tmp_path / "r").exists()
