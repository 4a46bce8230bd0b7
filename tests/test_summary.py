"""The answer from hand-made members: which setting speaks for an activation, its scores, and the summary's rows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.run_files import MemberRecord, RunDirectory, to_frame
from actlab.verdict.comparisons import compared_with_baseline, compared_with_best, ranked_means
from actlab.verdict.paired_tests import corrected_resampled_t, holm
from actlab.verdict.race import Race, Terms, run
from actlab.verdict.summary import (
    baseline_comparison,
    choose,
    comparison_with_winner,
    is_at_edge,
    race_record,
    repeat_scores,
    rows_by_activation,
    scores_of,
    summarise,
    winner_row,
)
from synthetic_runs import Networks, make_run

RATES = [0.001, 0.01, 0.1]
SIZES = [3, 2]


def member(trial: int, name: str, rate: float, fold: int, inner: int, val: float, test: float, **other: Any) -> Any:
    values: dict[str, Any] = {"repeat": 1, "seed": 0, "best_epoch": 3, "epochs": 5, "n_parameters": 10, "seconds": 2.0}
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
    """relu: rate 0.001 has mean validation score 1.05, rate 0.01 1.2; each is the better one in one fold."""
    rows = [
        *(member(0, "relu", 0.001, 0, inner, val, test) for inner, val, test in ((0, 0.8, 3.0), (1, 1.2, 5.0))),
        *(member(0, "relu", 0.001, 1, inner, val, test) for inner, val, test in ((0, 1.0, 1.0), (1, 1.2, 1.0))),
        *(member(1, "relu", 0.01, 0, inner, val, test) for inner, val, test in ((0, 0.5, 0.1), (1, 2.5, 0.1))),
        *(member(1, "relu", 0.01, 1, inner, val, test) for inner, val, test in ((0, 0.9, 6.0), (1, 0.9, 8.0))),
    ]
    return to_frame(rows, MemberRecord)


def random_members(names: list[str], seed: int = 0, n_repeats: int = 5, first: int = 1) -> pd.DataFrame:
    """A grid of two folds with two inner parts each."""
    generator = np.random.default_rng(seed)
    rows = [
        member(place * 9 + at, name, rate, fold, inner, *generator.normal(1.0, 0.1, 2).tolist(), repeat=repeat)
        for place, name in enumerate(names)
        for at, rate in enumerate(RATES)
        for repeat in range(first, first + n_repeats)
        for fold in range(2)
        for inner in range(2)
    ]
    return to_frame(rows, MemberRecord)


def race_of(members: pd.DataFrame, rope: float = 0.02) -> Race:
    scores = repeat_scores(members, SIZES)
    return run(scores, Terms.grid(4, rope, min(map(len, scores.values()))))


def test_one_setting_speaks_for_an_activation_in_all_folds(hand_made: pd.DataFrame) -> None:
    chosen = choose(hand_made, is_comparison=True)
    assert chosen.trial.tolist() == [0, 0]
    assert chosen.learning_rate.tolist() == [0.001, 0.001]
    assert chosen.val.tolist() == pytest.approx([1.0, 1.1])
    assert chosen.score.tolist() == [4.0, 1.0]
    assert scores_of(chosen)["relu"].tolist() == [4.0, 1.0]


def test_the_trials_of_a_rate_are_one_setting_in_a_comparison_and_several_in_a_search() -> None:
    rows = [
        member(trial, "relu", rate, 0, 0, val, val, repeat=repeat)
        for trial, (rate, repeat, val) in enumerate(
            [(0.1, 1, 1.0), (0.1, 2, 2.0), (0.01, 1, 3.0), (0.01, 2, 0.5), (0.1, 0, 0.1)]
        )
    ]
    members = to_frame(rows, MemberRecord)
    # 0.1: (1 + 2) / 2, 0.01: (3 + 0.5) / 2; repeat 0 has found the rates and counts no more
    assert choose(members, is_comparison=True).trial.tolist() == [0, 1]
    assert choose(members, is_comparison=False).trial.tolist() == [4]


@pytest.mark.parametrize("is_comparison", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_test_scores_change_no_choice(seed: int, is_comparison: bool) -> None:
    members = random_members(["relu", "tanh"], seed)
    generator = np.random.default_rng(seed + 100)
    altered = members.assign(test_score=generator.normal(size=len(members)) * 1e3)
    kept = ["activation", "repeat", "fold", "trial", "learning_rate", "val"]
    pd.testing.assert_frame_equal(choose(members, is_comparison)[kept], choose(altered, is_comparison)[kept])


def test_the_order_of_the_rows_does_not_matter() -> None:
    members = random_members(["relu", "tanh"])
    shuffled = members.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(choose(shuffled, is_comparison=True), choose(members, is_comparison=True))
    assert repeat_scores(shuffled, SIZES) == {
        name: pytest.approx(own, rel=1e-14) for name, own in repeat_scores(members, SIZES).items()
    }


@pytest.mark.parametrize("lost", [math.nan, -math.inf, math.inf])
def test_a_setting_with_a_diverged_member_is_not_rewarded(hand_made: pd.DataFrame, lost: float) -> None:
    is_first = (hand_made.trial == 0) & (hand_made.fold == 1) & (hand_made.inner == 0)
    members = hand_made.assign(val_score=hand_made.val_score.mask(is_first, lost))
    # the member left over has the best score of all, and still its setting is not chosen
    members.loc[(members.trial == 0) & (members.fold == 1) & (members.inner == 1), "val_score"] = 0.01
    assert choose(members, is_comparison=True).trial.tolist() == [1, 1]


def test_a_pruned_setting_is_not_chosen_while_another_is_left(hand_made: pd.DataFrame) -> None:
    assert choose(hand_made.assign(pruned=hand_made.trial == 0), is_comparison=False).trial.tolist() == [1, 1]


def test_a_repeats_score_is_the_root_over_all_its_rows(hand_made: pd.DataFrame) -> None:
    """3 rows with mean squares (9 + 25) / 2, 2 rows with 1."""
    assert repeat_scores(hand_made, SIZES)["relu"] == pytest.approx([math.sqrt((3 * 17 + 2 * 1) / 5)])
    # without inner parts the root of all squared errors, whatever the folds
    rng = np.random.default_rng(0)
    errors, rows = rng.normal(size=11), np.array_split(rng.permutation(11), 4)
    frame = to_frame(
        [
            member(0, "relu", 0.1, fold, 0, 1.0, float(np.sqrt(np.mean(errors[own] ** 2))))
            for fold, own in enumerate(rows)
        ],
        MemberRecord,
    )
    assert repeat_scores(frame, [3, 3, 3, 2])["relu"] == pytest.approx([float(np.sqrt(np.mean(errors**2)))], rel=1e-14)


def test_folds_of_one_row_are_not_scored_by_their_mean_absolute_error() -> None:
    errors = np.array([0.1, -0.2, 3.0, 0.4])
    frame = to_frame(
        [member(0, "relu", 0.1, fold, 0, 1.0, abs(error)) for fold, error in enumerate(errors)], MemberRecord
    )
    (score,) = repeat_scores(frame, [1] * 4)["relu"]
    assert score == pytest.approx(math.sqrt(np.mean(errors**2)))
    assert score > 1.6 * scores_of(choose(frame, is_comparison=True))["relu"].mean()


def test_repeats_are_read_as_far_as_they_follow_one_another() -> None:
    members = random_members(["relu"], n_repeats=4)
    every = repeat_scores(members, SIZES)["relu"]
    assert len(every) == 4
    assert repeat_scores(members[members.repeat != 3], SIZES)["relu"] == every[:2]
    # the sweep does not count, and who has nothing else has no scores
    swept = members[members.repeat == 1].assign(repeat=0, val_score=0.0)
    assert repeat_scores(pd.concat([swept, members]), SIZES)["relu"] == every
    assert repeat_scores(pd.concat([swept.assign(activation="tanh"), members]), SIZES) == {"relu": every}


def test_a_repeat_without_a_score_in_one_fold_has_none() -> None:
    members = random_members(["relu", "tanh"], n_repeats=3)
    is_lost = (members.activation == "relu") & (members.repeat == 2) & (members.fold == 1) & (members.inner == 0)
    lost = members.assign(test_score=members.test_score.mask(is_lost))
    own, before = repeat_scores(lost, SIZES), repeat_scores(members, SIZES)
    assert own["tanh"] == before["tanh"]
    assert math.isnan(own["relu"][1])
    assert own["relu"][::2] == before["relu"][::2]


def test_equal_networks_have_equal_scores_to_the_bit() -> None:
    members = random_members(["relu"], n_repeats=6)
    copies = pd.concat([members.assign(activation="copy", trial=members.trial + 50), members])
    scores = repeat_scores(copies, SIZES)
    assert scores["copy"] == scores["relu"]


def test_a_row_of_the_ranking_by_hand(hand_made: pd.DataFrame) -> None:
    """One repeat is too few for a look: a mean and nothing beside it."""
    summary = summarise(hand_made, SIZES, race_of(hand_made), "relu")
    (row,) = summary["ranking"]
    assert row["mean"] == pytest.approx(math.sqrt(53 / 5))
    assert math.isnan(row["sd"])
    assert (row["learning_rate"], row["learning_rates_tried"], row["edge_of_range"]) == (0.001, [0.001, 0.01], True)
    assert (row["n"], row["n_members"], row["member_epochs"], row["seconds"]) == (1, 8, 40, 16.0)
    assert (row["verdict"], summary["comparisons"], summary["winner"]) == (None, [], "relu")
    assert "appendix" not in summary


def test_ranking_and_comparisons_are_the_races_own() -> None:
    members = random_members(["relu", "tanh", "silu"])
    race = race_of(members, rope=0.5)
    summary = summarise(members, SIZES, race, "tanh")
    means = ranked_means(race)
    assert [row["activation"] for row in summary["ranking"]] == list(means)
    assert [row["mean"] for row in summary["ranking"]] == list(means.values())
    scores, best = repeat_scores(members, SIZES), next(iter(means))
    assert [row["sd"] for row in summary["ranking"]] == pytest.approx([np.std(scores[n], ddof=1) for n in means])
    assert {row["n"] for row in summary["ranking"]} == {5}
    stated = [*compared_with_best(race), *compared_with_baseline(race, "tanh")]
    assert [{**vars(one), "seconds_needed": None} for one in stated] == summary["comparisons"]
    assert summary["winner"] == best
    for name in list(means)[1:]:
        own = comparison_with_winner(summary, name)
        assert own is not None
        assert (own["a"], own["difference"]) == (best, pytest.approx(means[name] / means[best] - 1))
        assert rows_by_activation(summary)[name]["verdict"] == own["verdict"]
        assert rows_by_activation(summary)[name]["cost_at_most"] == own["cost_at_most"]
    # the best costs at most what its worst pair's lower end says
    worst = min(0.0, *(one["ci_low"] for one in summary["comparisons"] if one["against"] == "best"))
    assert rows_by_activation(summary)[best]["cost_at_most"] == pytest.approx(-worst)
    assert summary["indistinguishable_from_winner"] == list(means)[1:]
    against_baseline = baseline_comparison(summary, "relu")
    assert against_baseline is not None
    assert against_baseline["a"] == "tanh"
    assert baseline_comparison(summary, "tanh") is comparison_with_winner(summary, best) is None
    assert comparison_with_winner({}, "relu") is None


def test_more_repeats_cost_the_seconds_of_all_that_are_still_in() -> None:
    networks = Networks(("relu", "sigmoid", "tanh", "leaky_relu", "maxout"), "race", 3, 8, 5, seed=0)
    race = networks.race()
    assert race is not None
    frame = networks.members(race).assign(seconds=3.0)
    summary = summarise(frame, networks.sizes, race, "relu")
    tanh = comparison_with_winner(summary, "tanh")
    assert tanh is not None
    assert tanh["verdict"] == "not settled"
    assert race.looks[-1].still_in == ("relu", "sigmoid", "tanh")
    assert tanh["seconds_needed"] == tanh["repeats_needed"] * 3 * 5 * 3.0


def test_the_appendix_has_the_corrected_test_of_the_best_against_each() -> None:
    members = random_members(["relu", "tanh", "silu"])
    summary = summarise(members, SIZES, race_of(members), "tanh")
    scores = scores_of(choose(members, is_comparison=True))
    rows = summary["appendix"]["corrected_resampled_t"]
    best, *others = [row["activation"] for row in summary["ranking"]]
    # two folds: as many rows to test on as to train on
    tests = [corrected_resampled_t(scores[name], scores[best], 1.0) for name in others]
    assert [(row["a"], row["b"], row["n"]) for row in rows] == [(best, name, 10) for name in others]
    assert [row["p"] for row in rows] == [test.p for test in tests]
    assert [row["difference"] for row in rows] == [test.difference for test in tests]
    assert [row["p_holm"] for row in rows] == holm([test.p for test in tests]).tolist()


def test_an_activation_that_left_is_paired_with_the_best_on_the_folds_that_both_have() -> None:
    members = random_members(["relu", "tanh"])
    members.loc[members.activation == "tanh", "test_score"] += 10
    left = members[(members.activation != "tanh") | (members.repeat < 4)]
    (row,) = summarise(left, SIZES, race_of(members), "silu")["appendix"]["corrected_resampled_t"]
    assert row["n"] == 6


def test_who_diverges_comes_last_and_is_not_compared() -> None:
    members = random_members(["relu", "tanh", "silu"])
    members.loc[(members.activation == "tanh") & (members.repeat == 2), ["val_score", "test_score"]] = math.nan
    lost = members[members.activation == "relu"].assign(activation="gelu", trial=99, repeat=0, diverged=True)
    summary = summarise(pd.concat([lost, members]), SIZES, race_of(members), "relu")
    last = summary["ranking"][-2:]
    assert {row["activation"]: row["verdict"] for row in last} == {"tanh": "diverged", "gelu": "diverged"}
    assert all(math.isnan(row["mean"]) for row in last)
    rows = rows_by_activation(summary)
    # gelu never entered: no learning rate of several was chosen
    assert (rows["gelu"]["n"], rows["tanh"]["n"], rows["gelu"]["diverged"]) == (0, 5, 60)
    assert math.isnan(rows["gelu"]["learning_rate"])
    assert rows["gelu"]["edge_of_range"] is False
    found = baseline_comparison(summary, "gelu")
    assert found is not None
    assert found["verdict"] == "diverged"
    against_lost = summarise(pd.concat([lost, members]), SIZES, race_of(members), "gelu")
    assert {row["verdict"] for row in against_lost["comparisons"] if row["against"] == "baseline"} == {"diverged"}


def test_where_everybody_diverges_there_is_a_ranking_without_scores() -> None:
    members = random_members(["relu", "tanh"]).assign(val_score=math.nan, test_score=math.nan, diverged=True)
    race = race_of(members)
    summary = summarise(members, SIZES, race, "relu")
    assert [row["activation"] for row in summary["ranking"]] == ["relu", "tanh"]
    assert summary["comparisons"] == []
    assert winner_row(summary) is None
    assert race_record(race, members)["looks"] == []


@pytest.mark.parametrize(("rate", "is_edge"), [(0.001, True), (0.01, False), (0.1, True), (0.07, False), (0.09, True)])
def test_a_rate_at_an_end_of_the_range_is_flagged(rate: float, is_edge: bool) -> None:
    assert is_at_edge(rate, RATES) is is_edge
    assert is_at_edge(rate, [rate]) is False


def test_a_search_has_a_ranking_and_no_comparisons() -> None:
    members = random_members(["relu", "tanh"], n_repeats=2, first=0)
    members.loc[members.trial == 10, "val_score"] -= 5
    summary = summarise(members, SIZES, None, "relu", searched=[0.001, 1.0])
    assert summary["comparisons"] == summary["indistinguishable_from_winner"] == []
    row = rows_by_activation(summary)["tanh"]
    own = members[members.trial == 10]
    roots = [
        math.sqrt(sum(n * (rows[rows.fold == fold].test_score ** 2).mean() for fold, n in enumerate(SIZES)) / 5)
        for _, rows in own.groupby("repeat")
    ]
    assert (row["mean"], row["learning_rate"], row["edge_of_range"]) == (pytest.approx(np.mean(roots)), 0.01, False)
    assert (row["n"], row["n_members"]) == (2, 24)
    record = race_record(None, members)
    assert (record["n_networks"], record["n_networks_swept"], record["ending"]) == (16, 32, None)


def test_a_baseline_that_is_not_in_the_run_has_no_comparisons() -> None:
    members = random_members(["relu", "tanh"])
    summary = summarise(members, SIZES, race_of(members), "silu")
    assert [row["against"] for row in summary["comparisons"]] == ["best"]


def test_the_winners_row_is_missing_where_nobody_has_a_score() -> None:
    rows = [{"activation": "relu", "mean": 0.1}, {"activation": "tanh", "mean": None}]
    assert winner_row({"winner": "relu", "ranking": rows}) == rows[0]
    assert winner_row({"winner": "tanh", "ranking": rows}) is None
    assert winner_row({"winner": "relu", "ranking": []}) is None


def test_every_word_occurs_in_an_invented_run(tmp_path: Path) -> None:
    summary = RunDirectory(make_run(tmp_path / "run", 14)).read_summary()
    six = RunDirectory(make_run(tmp_path / "six", 6)).read_summary()
    words = [row["verdict"] for row in rows_by_activation(six).values()]
    assert words == [None, "as good", "not settled", "worse here", "worse", "diverged"]
    assert rows_by_activation(summary)["rrelu"]["n"] == 0
    looks = six["protocol"]["looks"]
    assert [(look["n_repeats"], look["entered"]) for look in looks] == [(4, 5), (8, 3)]
    assert looks[0]["left"] == ["leaky_relu", "maxout"]
    assert (six["protocol"]["ending"], six["protocol"]["repeats_done"]) == ("budget", 8)
    # six entered, five were finite at the first look, three went on
    assert six["protocol"]["n_networks"] == 5 * (4 * 6 + 4 * 3)
    assert six["protocol"]["n_networks_swept"] == 5 * 6 * 3
