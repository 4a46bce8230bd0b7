"""The sentence says what the summary holds, and no more."""

import copy
from typing import Any

import pytest

from actlab.report.words import answer, decimals_for, duration, fixed, listed, remarks, three_digits
from actlab.verdict.summary import comparison_with_winner

VERDICTS = {"silu": "", "relu": "no difference shown", "gelu": "no difference shown", "sigmoid": "worse"}


def make_summary(verdicts: dict[str, str], from_winner: bool = True) -> dict[str, Any]:
    """A summary whose first name is the winner; verdicts are the others' against it."""
    winner, *others = verdicts
    flip = {"worse": "better", "better": "worse"}
    ranking = [
        {"activation": name, "learning_rate": 0.003, "mean": 0.1271 + 0.01 * i, "sd": 0.004, "ci_low": 0.117}
        | {"ci_high": 0.137, "n": 5, "diverged": 0, "n_parameters": 50000, "seconds": 9.0, "edge_of_range": False}
        for i, name in enumerate(verdicts)
    ]
    comparisons = [
        {"a": winner, "b": name, "difference": -0.01, "ci_low": -0.03, "ci_high": 0.01, "p_holm": 0.01}
        | {"p_better": 0.9, "verdict": flip.get(verdicts[name], verdicts[name])}
        if from_winner
        else {"a": name, "b": winner, "difference": 0.01, "ci_low": -0.01, "ci_high": 0.03, "p_holm": 0.01}
        | {"p_better": 0.1, "verdict": verdicts[name]}
        for name in others
    ]
    return {
        "metric": "log_rmse",
        "ranking": ranking,
        "comparisons": comparisons,
        "winner": winner,
        "ensemble": {"test_score": 0.1212},
        "references": {"median": 0.4, "ridge": 0.1252, "hist_gradient_boosting": None},
    }


@pytest.mark.parametrize("from_winner", [True, False])
def test_the_sentence_names_winner_ties_and_losers_whichever_way_pairs_are_stated(from_winner: bool) -> None:
    assert answer(make_summary(VERDICTS, from_winner)) == (
        "On this data silu at learning rate 0.003 has the lowest log-RMSE (0.1271, 95 % interval 0.1170 to 0.1370); "
        "relu and gelu show no difference from it; sigmoid is worse."
    )


def test_a_comparison_is_seen_from_the_other_activation() -> None:
    for from_winner in (True, False):
        found = comparison_with_winner(make_summary(VERDICTS, from_winner), "sigmoid")
        assert found is not None
        assert {key: found[key] for key in ("difference", "ci_low", "ci_high", "verdict")} == {
            "difference": 0.01,
            "ci_low": -0.01,
            "ci_high": 0.03,
            "verdict": "worse",
        }


@pytest.mark.parametrize(
    ("verdicts", "end"),
    [
        ({"silu": "", "relu": "no difference shown"}, "), but no difference from relu is shown."),
        (
            {"silu": ""} | dict.fromkeys("abcdef", "no difference shown"),
            "), but no difference from any of the other 6 activations is shown.",
        ),
        (
            {"silu": ""} | dict.fromkeys("abcdef", "worse"),
            "); a, b, c and 3 others are worse.",
        ),
    ],
)
def test_the_end_of_the_sentence_follows_the_verdicts(verdicts: dict[str, str], end: str) -> None:
    assert answer(make_summary(verdicts)).endswith(end)


def test_an_order_without_comparisons_is_called_an_order() -> None:
    summary = make_summary(VERDICTS) | {"comparisons": []}
    assert answer(summary).endswith("), ahead of relu, gelu and sigmoid in an order that no test stands behind.")
    single = make_summary({"silu": ""})
    assert "nothing was compared" in answer(single)


def test_without_a_usable_score_nothing_is_recommended() -> None:
    summary = make_summary(VERDICTS) | {"winner": None}
    for row in summary["ranking"]:
        row.update(mean=None, ci_low=None, ci_high=None, learning_rate=None, diverged=10, n=10)
    assert answer(summary) == (
        "No activation can be recommended on this data: none of the 40 networks gave a usable score."
    )
    assert any("40 networks diverged" in sentence for sentence in remarks(summary))


def test_remarks_name_references_edges_divergence_and_the_linear_network() -> None:
    summary = make_summary({**VERDICTS, "identity": "no difference shown"})
    summary["ranking"][0]["edge_of_range"] = True
    summary["ranking"][3]["diverged"] = 2
    assert remarks(summary) == [
        "On the same test rows: the shipped networks averaged 0.1212, ridge 0.1252, the median 0.4000.",
        "A network without any activation (identity) is not shown to be worse: what is non-linear here is little.",
        "silu: its best learning rate lies at the edge of the range tried, so a wider range may do better.",
        "2 networks diverged: sigmoid 2.",
    ]
    plain = copy.deepcopy(make_summary(VERDICTS)) | {"references": {}, "ensemble": None}
    assert remarks(plain) == []


def test_a_large_lead_over_the_linear_network_that_is_not_shown_is_put_down_to_few_folds() -> None:
    summary = make_summary({**VERDICTS, "identity": "no difference shown"})
    found = next(c for c in summary["comparisons"] if "identity" in (c["a"], c["b"]))
    found["difference"] = 0.06 if found["a"] == "identity" else -0.06
    (sentence,) = [sentence for sentence in remarks(summary) if "identity" in sentence]
    assert "too few folds" in sentence
    assert "little" not in sentence


def test_metrics_in_the_unit_of_the_target_keep_four_digits() -> None:
    summary = make_summary({"silu": ""}) | {"metric": "rmse"}
    summary["ranking"][0].update(mean=31234.4, ci_low=28000.0, ci_high=34000.0)
    assert "a mean RMSE of 31,234, 95 % interval 28,000 to 34,000" in answer(summary)


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


@pytest.mark.parametrize("from_winner", [True, False])
def test_a_verdict_that_hangs_on_the_choice_of_the_winner_is_named(from_winner: bool) -> None:
    found = make_summary({"elu": "", "relu": "worse", "identity": "worse"}, from_winner)
    for comparison, p in zip(found["comparisons"], (0.2, 0.03), strict=True):
        comparison["p_all_pairs"] = p
    said = [line for line in remarks(found) if "picked by these very scores" in line]
    assert len(said) == 1
    assert "the difference from relu is not shown" in said[0]
    found["comparisons"][0]["p_all_pairs"] = 0.04
    assert not any("picked by" in line for line in remarks(found))
