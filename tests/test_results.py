"""The second look: who is trained again, with what, and what stands beside what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actlab.config import Configuration
from actlab.data.table import read_table
from actlab.run_files import MemberRecord, to_frame
from actlab.runs import results
from actlab.runs.compare_search import compare
from actlab.runs.evaluate import Evaluation, Setting, TrialResult, evaluate
from actlab.runs.model_building import RunNetworks
from actlab.runs.results import confirmation, first_look, rivals
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, ProtocolSettings
from actlab.verdict.summary import choose, summarise

NAMES, RATES = ("relu", "tanh", "identity"), (0.003, 0.03)


def summary_of(order: list[str], close: list[str], unpaid: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "ranking": [{"activation": name} for name in order],
        "winner": order[0],
        "indistinguishable_from_winner": close,
        "comparisons": [
            {
                "a": order[0],
                "b": b,
                "difference": -0.1,
                "verdict": "better",
                "p_all_pairs": 0.2 if b in unpaid else 0.01,
            }
            for b in order[1:]
        ],
    }


def test_rivals_are_the_best_of_those_not_shown_to_differ() -> None:
    order = ["a", "b", "c", "d", "e", "f"]
    assert rivals(summary_of(order, ["f", "d", "c", "e"])) == ["c", "d", "e"]
    assert rivals(summary_of(order, ["f"])) == ["f"]
    assert rivals(summary_of(order, [])) == ["b"]
    assert rivals(summary_of(["a"], [])) == []
    assert rivals(summary_of(order, ["b"], unpaid="d")) == ["b", "d"]


def test_the_first_look_is_found_by_its_pair() -> None:
    summary = summary_of(["a", "b"], [])
    assert first_look(summary, "a", "b") == {"first_difference": -0.1, "first_verdict": "better"}
    assert first_look(summary, "a", "z") == {"first_difference": None, "first_verdict": None}


@pytest.fixture
def first(small_csv: str, tmp_path: Path) -> tuple[RunNetworks, pd.DataFrame, dict[str, Any], dict[int, Setting]]:
    data = DataSettings(small_csv, "price", batch_size=32)
    evaluation = Evaluation(data, ProtocolSettings(3, 1), OptimizerSettings(patience=3), {"max_epochs": 4}, seed=5)
    table = read_table(data)
    settings = {
        number: Setting(name, rate, 0.01, (6,), 0.0, "auto")
        for number, (name, rate) in enumerate((name, rate) for name in NAMES for rate in RATES)
    }
    records = [record for result in evaluate(settings, evaluation, table) for record in result.member_records()]
    members = to_frame(records, MemberRecord)
    # variants have names of their own
    members["activation"] = members.activation + " [init=auto]"
    summary = summarise(members, 0.5, "relu [init=auto]", list(RATES), is_equal_budget=True)
    summary |= {"data": {"n_rows": 120}, "protocol": {"n_test": 40}}
    return RunNetworks(tmp_path, evaluation, table, {}), members, summary, settings


def test_winner_and_rivals_are_trained_again_with_other_seeds_and_folds(first: Any, monkeypatch: Any) -> None:
    networks, members, summary, settings = first
    seen: dict[str, Any] = {}

    def spy(asked: dict[int, Setting], fresh: Evaluation, *rest: Any) -> list[TrialResult]:
        seen["results"] = evaluate(asked, fresh, *rest)
        return list(seen["results"])

    monkeypatch.setattr(results, "evaluate", spy)
    found = confirmation(networks, members, summary, settings)
    assert found["winner"] == summary["winner"]
    assert found["rivals"] == rivals(summary)
    assert set(found["means"]) == {found["winner"], *found["rivals"]}
    chosen = choose(members)
    expected = set(chosen[chosen.activation.isin(found["means"])].trial)
    assert {result.number for result in seen["results"]} == expected
    assert found["n_members"] == 3 * len(expected)
    old = set(zip(members.seed, members.val_score, strict=True))
    new = {(o.member.seed, o.val_score) for result in seen["results"] for o in result.outcomes}
    assert not {seed for seed, _ in old} & {seed for seed, _ in new}
    assert not {score for _, score in old} & {score for _, score in new}


def test_both_looks_stand_side_by_side_and_the_second_is_reproducible(first: Any) -> None:
    networks, members, summary, settings = first
    found = confirmation(networks, members, summary, settings)
    assert [c["b"] for c in found["comparisons"]] == found["rivals"]
    for comparison in found["comparisons"]:
        before = next(c for c in summary["comparisons"] if c["b"] == comparison["b"])
        assert comparison["first_difference"] == before["difference"]
        assert comparison["first_verdict"] == before["verdict"]
        assert comparison["difference"] == pytest.approx(
            found["means"][found["winner"]] - found["means"][comparison["b"]]
        )
        assert comparison["difference"] != before["difference"]
    assert confirmation(networks, members, summary, settings) == found


def test_the_second_look_shows_its_progress(
    small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # drawing takes longer than these trainings, and has tests of its own
    monkeypatch.setattr(results, "draw_study", lambda study, directory: None)
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)
    monkeypatch.setattr(results, "write_report", lambda run: (run / "report.html").touch())
    asked = Configuration(
        data=DataSettings(small_csv, "price"),
        model=ModelSettings(hidden=[8]),
        compare=CompareSettings(activations=["relu", "tanh"], learning_rates=[1e-2], folds=2, inner=1, confirm=True),
        trainer={"max_epochs": 2, "accelerator": "cpu"},
        out=str(tmp_path / "run"),
    )
    _, summary = compare(asked)
    assert summary is not None
    before, _, after = capsys.readouterr().err.partition("training the winner and its rivals again")
    assert f"{summary['confirmation']['n_members']} networks trained in" in after
    assert before.count("networks trained in") == 2
