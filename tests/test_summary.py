"""The answer from hand-made members: who is chosen, by what, and what the rows of the summary say."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.run_files import MemberRecord, to_frame
from actlab.verdict.paired_tests import corrected_interval, corrected_resampled_t, holm
from actlab.verdict.summary import (
    choose,
    comparison_of,
    comparison_with_winner,
    expected_best,
    favourite_learning_rate,
    fold_ratio,
    is_at_edge,
    per_pair,
    scores_of,
    summarise,
    winner_row,
)

RATES = [0.001, 0.01, 0.1]


def member(trial: int, name: str, rate: float, fold: int, inner: int, val: float, test: float, **other: Any) -> Any:
    values: dict[str, Any] = {"repeat": 0, "seed": 0, "best_epoch": 3, "epochs": 5, "n_parameters": 10, "seconds": 2.0}
    values |= {"diverged": False, "pruned": False} | other
    return MemberRecord(
        trial=trial,
        activation=name,
        learning_rate=rate,
        fold=fold,
        inner=inner,
        val_score=val,
        test_score=test,
        **values,
    )


@pytest.fixture
def hand_made() -> pd.DataFrame:
    """relu: rate 0.001 is chosen in fold 0 (val 1.0 against 1.5), rate 0.01 in fold 1 (val 0.9 against 1.1)."""
    rows = [
        *(member(0, "relu", 0.001, 0, inner, val, test) for inner, val, test in ((0, 0.8, 3.0), (1, 1.2, 5.0))),
        *(member(0, "relu", 0.001, 1, inner, val, test) for inner, val, test in ((0, 1.0, 1.0), (1, 1.2, 1.0))),
        *(member(1, "relu", 0.01, 0, inner, val, test) for inner, val, test in ((0, 0.5, 0.1), (1, 2.5, 0.1))),
        *(member(1, "relu", 0.01, 1, inner, val, test) for inner, val, test in ((0, 0.9, 6.0), (1, 0.9, 8.0))),
    ]
    return to_frame(rows, MemberRecord)


def random_members(names: list[str], seed: int = 0, n_repeats: int = 2, n_folds: int = 5) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = [
        member(
            len(RATES) * place + at,
            name,
            rate,
            fold,
            inner,
            *generator.normal(1.0, 0.1, size=2).tolist(),
            repeat=repeat,
        )
        for place, name in enumerate(names)
        for at, rate in enumerate(RATES)
        for repeat in range(n_repeats)
        for fold in range(n_folds)
        for inner in range(2)
    ]
    return to_frame(rows, MemberRecord)


def test_each_fold_takes_the_rate_with_the_best_mean_over_its_inner_parts(hand_made: pd.DataFrame) -> None:
    chosen = choose(hand_made)
    assert chosen.trial.tolist() == [0, 1]
    assert chosen.learning_rate.tolist() == [0.001, 0.01]
    assert chosen.val.tolist() == [1.0, 0.9]
    assert chosen.score.tolist() == [4.0, 7.0]
    assert scores_of(chosen)["relu"].tolist() == [4.0, 7.0]


@pytest.mark.parametrize("seed", range(5))
def test_test_scores_change_no_choice(seed: int) -> None:
    members = random_members(["relu", "tanh"], seed)
    generator = np.random.default_rng(seed + 100)
    altered = members.assign(test_score=generator.normal(size=len(members)) * 1e3)
    kept = ["activation", "repeat", "fold", "trial", "learning_rate", "val"]
    pd.testing.assert_frame_equal(choose(members)[kept], choose(altered)[kept])


def test_the_score_comes_from_the_test_rows_of_the_chosen_trial_only() -> None:
    members = random_members(["relu", "tanh"])
    chosen = choose(members)
    keys = set(zip(chosen.trial, chosen.repeat, chosen.fold, strict=True))
    is_chosen = [key in keys for key in zip(members.trial, members.repeat, members.fold, strict=True)]
    elsewhere = members.assign(test_score=members.test_score.where(is_chosen, 1e9))
    pd.testing.assert_frame_equal(choose(elsewhere), chosen)


def test_the_order_of_the_rows_does_not_matter() -> None:
    members = random_members(["relu", "tanh"])
    shuffled = members.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(choose(shuffled), choose(members))


def test_a_trial_with_a_diverged_inner_member_is_not_rewarded(hand_made: pd.DataFrame) -> None:
    """The member left over has the best score of all, and still the trial loses the fold."""
    is_first = (hand_made.trial == 1) & (hand_made.fold == 1) & (hand_made.inner == 0)
    members = hand_made.assign(
        val_score=hand_made.val_score.mask(is_first, math.nan), diverged=hand_made.diverged | is_first
    )
    members.loc[(members.trial == 1) & (members.fold == 1) & (members.inner == 1), "val_score"] = 0.01
    assert choose(members).trial.tolist() == [0, 0]
    # an infinite score is no better than none
    assert choose(members.fillna({"val_score": -math.inf})).trial.tolist() == [0, 0]


def test_a_pruned_trial_is_not_chosen_while_another_is_left(hand_made: pd.DataFrame) -> None:
    assert choose(hand_made.assign(pruned=hand_made.trial == 1)).trial.tolist() == [0, 0]


def test_an_activation_that_diverges_everywhere_has_no_score_and_comes_last(hand_made: pd.DataFrame) -> None:
    lost = hand_made.assign(activation="tanh", trial=hand_made.trial + 2, val_score=math.nan, diverged=True)
    summary = summarise(pd.concat([lost, hand_made]), 0.25, "relu", RATES, True)
    assert [row["activation"] for row in summary["ranking"]] == ["relu", "tanh"]
    assert math.isnan(summary["ranking"][1]["mean"])
    assert summary["ranking"][1]["diverged"] == 8
    assert summary["comparisons"][0]["verdict"] == "no difference shown"
    assert summary["comparisons"][0]["n_diverged_b"] == 2
    assert summary["indistinguishable_from_winner"] == []


def test_a_row_of_the_ranking_by_hand(hand_made: pd.DataFrame) -> None:
    (row,) = summarise(hand_made, 0.25, "relu", RATES, True)["ranking"]
    interval = corrected_interval([4.0, 7.0], 0.25)
    assert row["mean"] == 5.5
    assert row["sd"] == pytest.approx(math.sqrt(4.5))
    assert (row["ci_low"], row["ci_high"]) == (interval.ci_low, interval.ci_high)
    assert row["interquartile_mean"] == 5.5
    assert row["learning_rates_chosen"] == {"0.001": 1, "0.01": 1}
    # one fold each: the better validation score decides
    assert row["learning_rate"] == 0.01
    assert row["edge_of_range"] is False
    assert (row["n"], row["n_members"], row["member_epochs"], row["seconds"]) == (2, 8, 40, 16.0)
    # one rate tried: fold 0 has scores 4.0 and 0.1, fold 1 has 1.0 and 7.0, each rate with chance one half
    assert row["expected_best"] == pytest.approx([(2.05 + 4.0) / 2, 5.5])


def test_the_last_expected_best_is_the_mean_of_the_ranking() -> None:
    members = random_members(["relu"])
    assert expected_best(per_pair(members))[-1] == pytest.approx(choose(members).score.mean())


@pytest.mark.parametrize(("rate", "is_edge"), [(0.001, True), (0.01, False), (0.1, True), (0.07, False), (0.09, True)])
def test_a_rate_at_an_end_of_the_range_is_flagged(rate: float, is_edge: bool) -> None:
    chosen = pd.DataFrame({"learning_rate": [rate, rate, 0.02], "val": [1.0, 1.0, 0.5]})
    assert favourite_learning_rate(chosen) == rate
    assert is_at_edge(chosen, RATES) is is_edge


def test_comparisons_are_adjusted_among_themselves_and_over_all_pairs() -> None:
    members = random_members(["relu", "tanh", "silu"])
    summary = summarise(members, 0.25, "tanh", RATES, True)
    scores = scores_of(choose(members))
    assert {c["a"] for c in summary["comparisons"]} == {summary["winner"]}
    assert [c["b"] for c in summary["comparisons"]] == [row["activation"] for row in summary["ranking"][1:]]
    others = [c["b"] for c in summary["baseline_comparisons"]]
    assert sorted(others) == ["relu", "silu"]
    p = [corrected_resampled_t(scores["tanh"], scores[name], 0.25).p for name in others]
    assert [c["p_holm"] for c in summary["baseline_comparisons"]] == pytest.approx(holm(p).tolist())
    pairs = [("relu", "tanh"), ("relu", "silu"), ("tanh", "silu")]
    every = holm([corrected_resampled_t(scores[a], scores[b], 0.25).p for a, b in pairs]).tolist()
    adjusted = {frozenset(pair): p for pair, p in zip(pairs, every, strict=True)}
    for comparison in summary["comparisons"]:
        assert comparison["p_all_pairs"] == pytest.approx(adjusted[frozenset((comparison["a"], comparison["b"]))])
    against = [corrected_resampled_t(scores[c["a"]], scores[c["b"]], 0.25).p for c in summary["comparisons"]]
    assert [c["p_holm"] for c in summary["comparisons"]] == pytest.approx(holm(against).tolist())


def test_the_region_of_practical_equivalence_is_a_share_of_the_baselines_score() -> None:
    members = random_members(["relu", "tanh"])
    relu = scores_of(choose(members))["relu"].mean()
    for share in (0.01, 0.05):
        summary = summarise(members, 0.25, "relu", RATES, True, rope_share=share)
        assert summary["rope"] == pytest.approx(share * relu)
        assert {c["rope"] for c in summary["comparisons"]} == {summary["rope"]}


def test_a_search_has_a_ranking_and_no_comparisons() -> None:
    summary = summarise(random_members(["relu", "tanh"]), 0.25, "relu", [0.001, 0.1], False)
    assert summary["comparisons"] == summary["baseline_comparisons"] == []
    assert len(summary["ranking"]) == 2


def test_a_baseline_that_is_not_in_the_run_has_no_comparisons() -> None:
    summary = summarise(random_members(["relu", "tanh"]), 0.25, "silu", RATES, True)
    assert len(summary["comparisons"]) == 1
    assert summary["baseline_comparisons"] == []


def test_a_comparison_turned_round_is_the_one_stated_from_the_other_side() -> None:
    members = random_members(["relu", "tanh", "silu"])
    names = {"relu": "tanh", "tanh": "relu"}
    stated, other = (summarise(members, 0.25, name, RATES, True)["baseline_comparisons"] for name in names)
    turned = comparison_of(stated, "tanh", "relu")
    wanted = next(c for c in other if c["b"] == "relu")
    assert turned is not None
    # what is adjusted over the comparisons of one reference, and the reference's scale, do not turn
    own = ("p_holm", "rope", "p_rope_better", "p_rope_equal", "p_rope_worse", "verdict")
    for key in wanted.keys() - set(own):
        assert turned[key] == (pytest.approx(wanted[key]) if isinstance(wanted[key], float) else wanted[key]), key
    assert comparison_of([turned], "relu", "tanh") == pytest.approx(comparison_of(stated, "relu", "tanh"))
    assert comparison_of(stated, "tanh", "silu") is None
    assert comparison_of(None, "tanh", "silu") is None
    for verdict, seen in {"better": "worse", "worse": "better", "no difference shown": "no difference shown"}.items():
        found = comparison_with_winner({"winner": "a", "comparisons": [{"a": "a", "b": "b", "verdict": verdict}]}, "b")
        assert found is not None
        assert found["verdict"] == seen


def test_the_winners_row_is_missing_where_nobody_has_a_score() -> None:
    rows = [{"activation": "relu", "mean": 0.1}, {"activation": "tanh", "mean": None}]
    assert winner_row({"winner": "relu", "ranking": rows}) == rows[0]
    assert winner_row({"winner": "tanh", "ranking": rows}) is None
    assert winner_row({"winner": "relu", "ranking": []}) is None


def test_every_row_outside_a_fold_counts_as_trained_on() -> None:
    assert fold_ratio({"data": {"n_rows": 10}, "protocol": {"folds": 3, "n_test": 4}}) == 4 / 6
    assert fold_ratio({"protocol": {"folds": 3}}) == 0.5
    assert fold_ratio({}) == 0.25
