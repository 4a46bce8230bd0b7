"""Every sentence says what the summary holds, and no more."""

import copy
from typing import Any

import pytest

from actlab.report.words import (
    about,
    answer,
    at_most,
    budget_sentence,
    compared,
    decimals_for,
    duration,
    fixed,
    four_digits,
    how_to_go_on,
    listed,
    of_rows,
    percent,
    remarks,
    three_digits,
    two_digits,
    untested,
    what_the_words_mean,
)
from actlab.verdict.race import Terms

VERDICTS = {"silu": "", "relu": "as good", "gelu": "as good", "sigmoid": "worse"}


def make_summary(verdicts: dict[str, str], cost_of_best: float | None = 0.012, **protocol: Any) -> dict[str, Any]:
    """A race over 16 repeats and 5 folds whose first name is the best; verdicts are the others' against it. Those not
    settled need 16 more repeats and 90 seconds, those worse here 8,214 rows."""
    winner, *others = verdicts
    ranking = [
        {"activation": name, "learning_rate": 0.003, "mean": 0.1271 + 0.01 * i, "sd": 0.004, "n": 16, "diverged": 0}
        | {"cost_at_most": None if i else cost_of_best, "verdict": verdicts[name] or None, "n_members": 105}
        | {"n_parameters": 50000, "seconds": 9.0, "edge_of_range": False}
        for i, name in enumerate(verdicts)
    ]
    comparisons = [
        {"against": "best", "a": winner, "b": name, "verdict": verdicts[name], "covers": "these rows"}
        | {"difference": 0.024, "ci_low": 0.01, "ci_high": 0.038, "cost_at_most": 0.0151, "n_repeats": 16}
        | {"shown_against": None, "shown_low": None, "shown_high": None}
        | {"repeats_needed": 16 if verdicts[name] == "not settled" else None}
        | {"seconds_needed": 90.0 if verdicts[name] == "not settled" else None}
        | {"rows_needed": 8214 if verdicts[name] == "worse here" else None}
        for name in others
    ]
    held = {"protocol": "race", "folds": 5, "inner": 1, "n_rows": 1460, "rope": 0.02, "repeats_done": 16}
    held |= {"ending": "budget", "n_networks": 320}
    return {
        "metric": "log_rmse",
        "command": "compare",
        "protocol": held | protocol,
        "ranking": ranking,
        "comparisons": comparisons,
        "winner": winner,
        "baseline": "relu",
        "ensemble": {"test_score": 0.1212},
        "references": {"median": 0.4, "ridge": 0.1252, "hist_gradient_boosting": None},
    }


def test_the_answer_names_the_best_with_what_it_can_cost_and_everybody_elses_word() -> None:
    assert answer(make_summary(VERDICTS | {"elu": "diverged"})) == (
        "On this data silu at learning rate 0.003 has the lowest log-RMSE (0.1271) and costs at most 1.2 % against the "
        "best of the 5; relu and gelu are as good; sigmoid is worse; elu diverged."
    )


@pytest.mark.parametrize(
    ("verdicts", "end"),
    [
        ({"silu": "", "relu": "worse"}, "(0.1271); relu is worse."),
        (
            {"silu": ""} | dict.fromkeys("abcdef", "worse"),
            "(0.1271); all 6 others are worse.",
        ),
        (
            {"silu": ""} | dict.fromkeys("abcdef", "worse here") | {"g": "worse"},
            "(0.1271); g is worse; a, b, c and 3 others are worse here (about 8,300 rows would show it for new rows).",
        ),
        (
            {"silu": "", "relu": "worse here", "gelu": "diverged"},
            "; relu is worse here (about 8,300 rows would show it for new rows); gelu diverged.",
        ),
    ],
)
def test_where_nobody_else_is_in_the_answer_has_no_cost(verdicts: dict[str, str], end: str) -> None:
    assert answer(make_summary(verdicts, cost_of_best=0.0)).endswith(end)


def test_what_is_not_settled_comes_with_what_would_settle_it() -> None:
    summary = make_summary(VERDICTS | {"elu": "not settled"})
    assert answer(summary).endswith(
        "sigmoid is worse; elu is not settled: 16 more repeats, about 2 minutes here, would settle it."
    )
    summary = make_summary(VERDICTS | dict.fromkeys(["elu", "selu"], "not settled"))
    assert answer(summary).endswith(
        "elu and selu are not settled: 16 more repeats, about 2 minutes here, would settle them."
    )
    summary["comparisons"][-1].update(repeats_needed=None, seconds_needed=None)
    assert answer(summary).endswith("16 more repeats, about 2 minutes here, would settle 1 of them.")
    summary["comparisons"][-2].update(repeats_needed=None, seconds_needed=None)
    assert answer(summary).endswith("are not settled, and by what is known more repeats would not tell.")
    summary["protocol"]["repeats_done"] = 64
    assert answer(summary).endswith("elu and selu are not settled.")


def test_where_most_are_not_settled_the_answer_opens_with_what_the_best_can_cost() -> None:
    summary = make_summary({"silu": "", "relu": "worse"} | dict.fromkeys(["gelu", "elu"], "not settled"), 0.0231)
    assert answer(summary) == (
        "On this data silu at learning rate 0.003 (log-RMSE 0.1271) costs at most 2.4 % against the best of the 4, "
        "whichever that is; relu is worse; gelu and elu are not settled: 16 more repeats, about 2 minutes here, would "
        "settle them."
    )
    assert answer(make_summary({"silu": "", "relu": "not settled"}, 0.0231)).startswith(
        "On this data silu at learning rate 0.003 (log-RMSE 0.1271) costs at most 2.4 % against relu; relu is not "
        "settled"
    )


def test_rows_are_named_where_more_of_them_are_needed_and_repeats_are_not_enough() -> None:
    summary = make_summary({"silu": "", "relu": "worse here", "gelu": "worse here"}, 0.0)
    summary["comparisons"][0]["rows_needed"] = 1900
    assert "(about 1,900 to 8,300 rows would show it for new rows)" in answer(summary)
    summary["comparisons"][0]["rows_needed"] = 1400
    assert "(about 8,300 rows would show it of 1 of them for new rows)" in answer(summary)
    summary["comparisons"][1]["rows_needed"] = None
    assert answer(summary).endswith("relu and gelu are worse here.")


def test_an_order_without_a_test_is_called_one_with_the_reason() -> None:
    nothing = {"comparisons": []}
    search = make_summary(VERDICTS) | nothing | {"command": "search"}
    assert answer(search).endswith(
        "(0.1271), ahead of relu, gelu and sigmoid; a search gives activations unequal numbers of trials, so nothing "
        "was tested."
    )
    grid = make_summary(VERDICTS, protocol="grid") | nothing
    grid["ranking"][0]["n"] = 2
    assert answer(grid).endswith("; 2 repeats are too few for a verdict, compare.repeats 4 gives one.")
    grid["ranking"][0]["n"] = 1
    assert "; 1 repeat is too few" in answer(grid)
    assert answer(make_summary(VERDICTS) | nothing).endswith("; too little was finite for a test.")
    single = make_summary({"silu": ""})
    assert (
        answer(single)
        == "On this data silu at learning rate 0.003 scores 0.1271 (log-RMSE); nothing was compared with it."
    )
    assert untested(single) == "there is nothing to compare with"


def test_without_a_usable_score_nothing_is_recommended() -> None:
    summary = make_summary(VERDICTS) | {"winner": None, "comparisons": []}
    for row in summary["ranking"]:
        row.update(mean=None, learning_rate=None, diverged=10, n_members=10)
    assert answer(summary) == (
        "No activation can be recommended on this data: none of the 40 networks gave a usable score."
    )
    assert any("40 networks diverged" in sentence for sentence in remarks(summary))


def test_remarks_name_references_edges_divergence_and_the_linear_network() -> None:
    summary = make_summary({**VERDICTS, "identity": "as good"})
    summary["ranking"][0]["edge_of_range"] = True
    summary["ranking"][3]["diverged"] = 2
    assert remarks(summary) == [
        "On the same test rows: the shipped networks averaged 0.1212, ridge 0.1252, the median 0.4000.",
        "A network without any activation (identity) costs at most 1.6 %: a linear model does as well here.",
        "silu: its best learning rate lies at the edge of the range tried, so a wider range may do better.",
        "2 networks diverged: sigmoid 2.",
    ]
    plain = copy.deepcopy(make_summary(VERDICTS)) | {"references": {}, "ensemble": None}
    assert remarks(plain) == []


@pytest.mark.parametrize("verdict", ["not settled", "worse here", "worse", "diverged"])
def test_nothing_is_inferred_of_a_linear_model_from_what_is_not_shown(verdict: str) -> None:
    assert not any("identity" in line for line in remarks(make_summary({**VERDICTS, "identity": verdict})))
    first = make_summary({"identity": "", "relu": "as good"})
    assert "a linear model" in " ".join(remarks(first))


def test_a_race_that_left_something_open_says_how_it_goes_on() -> None:
    verdicts = {"silu": "", "relu": "worse here", "gelu": "as good", "elu": "not settled"}
    # silu, gelu and elu are in: 3 x 16 more repeats x 5 folds
    assert how_to_go_on(make_summary(verdicts)) == (
        "The run ended after 16 repeats and 320 networks: the same command with --compare.budget 560 goes on to repeat "
        "32 in the same directory."
    )
    capped = how_to_go_on(make_summary(verdicts, ending="repeats"))
    assert "with --compare.repeats 32 --compare.budget 560 goes on" in capped
    unknown = make_summary(verdicts)
    unknown["comparisons"][2]["repeats_needed"] = None
    assert "--compare.budget 560 goes on to repeat 32" in how_to_go_on(unknown)
    assert how_to_go_on(make_summary(verdicts, repeats_done=64)) == (
        "After 64 repeats no error is left to spend on another look: what is not settled stays so."
    )
    assert how_to_go_on(make_summary(VERDICTS)) == ""
    assert how_to_go_on(make_summary(verdicts, protocol="grid")) == ""


def test_three_sentences_say_what_the_words_mean_where_there_are_any() -> None:
    said = what_the_words_mean(make_summary(VERDICTS))
    assert len(said) == 3
    assert "at most 2.0 % of the score" in said[0]
    assert "new rows of the same source" in said[1]
    assert "other tables" in said[2]
    assert what_the_words_mean(make_summary(VERDICTS) | {"comparisons": []}) == []


def test_of_groups_more_of_them_would_tell_and_of_given_splits_no_more_is_said() -> None:
    verdicts = {"silu": "", "gelu": "worse here", "relu": "worse here"}
    summary = make_summary(verdicts, unit="groups", n_units=427)
    assert "(about 8,300 groups would show it for new groups)" in answer(summary)
    # of so many groups there are more already
    assert "would show it" not in answer(make_summary(verdicts, unit="groups", n_units=9000))
    said = what_the_words_mean(summary)
    assert "worse on new groups of the same source" in said[1]
    assert "more groups can tell" in said[1]
    assert of_rows(summary, "new rows") == "new groups"
    given = make_summary(verdicts, has_given_splits=True)
    assert (
        "on these splits it is worse whatever the seeds, while new training rows are not covered"
        in (what_the_words_mean(given)[0])
    )
    assert (of_rows(given, "these rows"), of_rows(given, "new rows")) == ("these splits", "new rows")
    copies = make_summary(verdicts, unit="distinct rows", n_units=400)
    assert "(about 8,300 distinct rows would show it for new rows)" in answer(copies)
    assert what_the_words_mean(copies) == what_the_words_mean(make_summary(verdicts))


def test_what_is_against_the_baseline_is_kept_apart() -> None:
    summary = make_summary(VERDICTS)
    summary["comparisons"].append({"against": "baseline", "a": "relu", "b": "silu", "verdict": "better here"})
    assert list(compared(summary)) == ["relu", "gelu", "sigmoid"]
    assert compared(summary, "baseline")["silu"]["verdict"] == "better here"


@pytest.mark.parametrize(
    ("n_settings", "budget", "said"),
    [
        (
            2,
            160,
            "with 160 networks after the sweep: about 2.2 % of the score on these rows; --compare.budget 640: "
            "about 1.2 %",
        ),
        (2, 640, "with 640 networks after the sweep: about 1.2 % of the score on these rows"),
        (2, 30, ""),
        (1, 320, ""),
    ],
)
def test_what_a_budget_can_show(n_settings: int, budget: int, said: str) -> None:
    assert budget_sentence(Terms.race(5, budget, 0.02), n_settings, 5) == said


def test_what_a_grid_can_show() -> None:
    assert budget_sentence(Terms.grid(5, 0.02, 4), 13, 5) == "with 4 repeats: about 6.2 % of the score on these rows"
    assert budget_sentence(Terms.grid(5, 0.02, 2), 13, 5) == ""


def test_metrics_in_the_unit_of_the_target_keep_four_digits() -> None:
    summary = make_summary({"silu": ""}) | {"metric": "rmse"}
    summary["ranking"][0].update(mean=31234.4)
    assert "scores 31,234 (RMSE); nothing" in answer(summary)


@pytest.mark.parametrize(("score", "text"), [(1.2341e-16, "1.234e-16"), (1.2341e20, "1.234e+20"), (3e-5, "0.00003000")])
def test_scores_in_any_unit_have_four_digits(score: float, text: str) -> None:
    assert four_digits(score) == text
    summary = make_summary({"silu": ""}) | {"metric": "rmse"}
    summary["ranking"][0].update(mean=score)
    assert f"scores {text} (RMSE)" in answer(summary)
    assert fixed(score, 4) == (text if abs(score) > 1 else f"{score:.3e}")


def test_numbers_and_names_are_short() -> None:
    assert [decimals_for(value) for value in (0.1271, 1.5, 123.4, 35000.0, 0.0)] == [4, 3, 1, 0, 4]
    assert [fixed(0.12714, 4), fixed(None, 4), three_digits(3e-5), three_digits(0.003), three_digits(None)] == [
        "0.1271",
        "-",
        "3e-05",
        "0.003",
        "-",
    ]
    assert [listed("a"), listed("ab"), listed("abcd"), listed("abcde"), listed("")] == [
        "a",
        "a and b",
        "a, b, c and d",
        "a, b, c and 2 others",
        "",
    ]
    assert [duration(s) for s in (0, 7.4, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]
    assert [about(s) for s in (0.1, 60, 61, 125, 720, 5399, 12600)] == [
        "10 seconds",
        "60 seconds",
        "70 seconds",
        "2 minutes",
        "12 minutes",
        "90 minutes",
        "3.5 hours",
    ]
    assert [two_digits(n) for n in (8214, 8200, 99, 7, 123456)] == ["8,300", "8,200", "99", "7", "130,000"]


def test_a_share_is_never_rounded_across_what_it_is_compared_with() -> None:
    assert [percent(x, "+") for x in (0.024, -0.0312, 0.24, 0.0, 0.0003, -0.00002, 1.5, None)] == [
        "+2.4 %",
        "-3.1 %",
        "+24 %",
        "+0.0 %",
        "+0.03 %",
        "-0.002 %",
        "+150 %",
        "-",
    ]
    assert [at_most(x) for x in (0.0, 0.02, 0.02001, 0.0199, 0.0151)] == ["0.0 %", "2.0 %", "2.1 %", "2.0 %", "1.6 %"]
