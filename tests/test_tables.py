"""The tables fit a terminal of 80 columns and show verdicts in words, with the numbers that belong to them."""

from itertools import pairwise
from typing import Any

import pytest

from actlab.printed_tables import as_text
from actlab.report.tables import differences_table, print_answer, ranking_table, terminal_ranking

NAMES = ["identity", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", *(f"activation_{i:02}" for i in range(17))]
NAMES.append("my_package.layers.MyOwnActivation")
OF_PLACE = ("not settled", "as good", "worse here", "worse")


def make_summary() -> dict[str, Any]:
    """24 activations, identity the best; sigmoid diverged, maxout at the edge of its rates."""
    ranking = [
        {"activation": name, "learning_rate": 0.000333, "mean": 0.1271 + i / 1000, "sd": 0.0041, "n": 16}
        | {"cost_at_most": 0.0231 if i < 4 else None, "diverged": i % 4 // 3, "n_parameters": 100_497, "seconds": 123.4}
        | {"edge_of_range": name == "maxout"}
        for i, name in enumerate(NAMES)
    ]
    ranking[1].update(mean=None, sd=None, learning_rate=None, cost_at_most=None)
    nothing = dict.fromkeys(("shown_against", "shown_low", "shown_high", "repeats_needed", "seconds_needed"))
    comparisons = [
        {"against": "best", "a": "identity", "b": name, "covers": "new rows" if i % 4 == 3 else "these rows"}
        | {"difference": i / 100, "ci_low": i / 100 - 0.012, "ci_high": i / 100 + 0.012, "n_repeats": 16, **nothing}
        | {"verdict": OF_PLACE[i % 4], "cost_at_most": 0.0231 if i < 4 else None, "rows_needed": None}
        for i, name in enumerate(NAMES)
    ][1:]
    comparisons[0].update(
        verdict="diverged", covers=None, cost_at_most=None, difference=None, ci_low=None, ci_high=None
    )
    return {
        "metric": "log_rmse",
        "command": "compare",
        "ranking": ranking,
        "comparisons": comparisons,
        "winner": "identity",
        "baseline": "relu",
    }


def lines_of(text: str) -> dict[str, str]:
    """First word to its line, blanks as single ones."""
    return {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize("width", [80, 100, 120])
def test_24_activations_fit_their_width_one_line_each(width: int) -> None:
    text = as_text(terminal_ranking(make_summary()), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert {"best", "worse here", "not settled", "diverged", "as good"} <= {
        word for word in ("best", *OF_PLACE, "diverged") if word in text
    }
    for name in NAMES[:-1]:
        assert name in lines_of(text)


def test_differences_verdicts_gaps_and_edges_are_shown() -> None:
    lines = lines_of(as_text(terminal_ranking(make_summary()), 130))
    assert lines["activation"] == (
        "activation rate score to the best, % verdict costs ≤ repeats diverged sd weights time"
    )
    assert lines["identity"] == "identity 0.000333 0.1271 - best 2.4 % 16 0 0.0041 100,497 2:03"
    assert lines["sigmoid"] == "sigmoid - - - diverged - 16 0 - 100,497 2:03"
    assert lines["tanh"] == "tanh 0.000333 0.1291 +2.0 (+0.8 to +3.2) worse here 2.4 % 16 0 0.0041 100,497 2:03"
    assert lines["relu"] == "relu 0.000333 0.1301 +3.0 (+1.8 to +4.2) worse 2.4 % 16 1 0.0041 100,497 2:03"
    assert lines["maxout"] == "maxout 0.000333! 0.1321 +5.0 (+3.8 to +6.2) as good - 16 0 0.0041 100,497 2:03"
    assert lines["!"] == "! the learning rate is the lowest or the highest of those tried"


def test_time_weights_and_spread_go_first_where_a_terminal_is_narrow() -> None:
    table = terminal_ranking(make_summary())
    heads = [as_text(table, width).splitlines()[0].split() for width in (130, 108, 100, 80)]
    kept = [[word for word in ("repeats", "diverged", "sd", "weights", "time") if word in head] for head in heads]
    assert kept[0] == ["repeats", "diverged", "sd", "weights", "time"]
    assert kept[-1] == []
    assert all(len(more) >= len(less) and more[: len(less)] == less for more, less in pairwise(kept))
    assert "≤" in heads[-1]


def test_beside_a_table_of_differences_the_ranking_has_the_words_alone() -> None:
    titles = [column.title for column in ranking_table(make_summary(), is_alone=False).columns]
    assert titles[:6] == ["place", "activation", "rate", "score", "verdict", "repeats"]
    rows = ranking_table(make_summary(), is_alone=False).rows
    assert [row.cells[4].text for row in rows[:4]] == ["best", "diverged", "worse here", "worse"]


def test_without_a_test_there_are_no_columns_of_one() -> None:
    text = as_text(terminal_ranking(make_summary() | {"comparisons": []}))
    assert "verdict" not in text
    assert "to the best" not in text
    assert differences_table(make_summary() | {"comparisons": []}) is None


def test_the_answer_follows_the_table_without_control_codes_where_nobody_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_answer(make_summary())
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100
    assert "On this data identity at learning rate 0.000333 has the lowest log-RMSE" in out


def differences(summary: dict[str, Any]) -> tuple[list[str], dict[str, list[str | None]]]:
    table = differences_table(summary)
    assert table is not None
    rows = {str(row.cells[0].text): [cell.text for cell in row.cells[1:]] for row in table.rows}
    return [column.title for column in table.columns], rows


def test_differences_say_what_they_hold_for_and_what_would_settle_them() -> None:
    summary = make_summary()
    by_name = {one["b"]: one for one in summary["comparisons"]}
    by_name["leaky_relu"].update(repeats_needed=16, seconds_needed=90.0)
    by_name["activation_02"].update(repeats_needed=48, seconds_needed=None)
    by_name["tanh"].update(rows_needed=8214)
    by_name["activation_00"].update(shown_against="maxout", shown_low=0.0101, shown_high=0.031)
    titles, rows = differences(summary)
    assert titles == [
        "activation",
        "difference, %",
        "against identity",
        "holds for",
        "costs ≤",
        "repeats",
        "needed",
    ]
    assert "identity" not in rows
    assert rows["relu"] == ["+3.0 (+1.8 to +4.2)", "worse", "new rows", "2.4 %", "16", ""]
    assert rows["tanh"][1:] == ["worse here", "these rows", "2.4 %", "16", "8,300 rows"]
    assert rows["leaky_relu"][-1] == "16 repeats, 2 minutes"
    assert rows["activation_02"][-1] == "48 repeats"
    assert rows["activation_00"][1] == "worse here than maxout (+1.0 to +3.1)"
    assert rows["sigmoid"] == [None, "diverged", "–", None, "16", ""]


def test_the_ranking_says_whom_a_word_was_earned_against_where_that_is_not_the_best() -> None:
    summary = make_summary()
    by_name = {one["b"]: one for one in summary["comparisons"]}
    by_name["activation_00"].update(shown_against="maxout", shown_low=0.0101, shown_high=0.031)
    text = as_text(terminal_ranking(summary), 130)
    assert "worse here*" in lines_of(text)["activation_00"]
    assert text.count("worse here*") == 1
    assert "* shown against maxout (activation_00)" in " ".join(text.split())


def test_the_baseline_has_columns_of_its_own_unless_it_is_the_best() -> None:
    summary = make_summary()
    own = {"against": "baseline", "a": "relu", "covers": "these rows", "difference": -0.02, "ci_low": -0.03}
    own |= {"ci_high": -0.01, "cost_at_most": 0.0, "verdict": "better here"}
    summary["comparisons"].append(own | {"b": "tanh"})
    titles, rows = differences(summary)
    assert titles[-2:] == ["to relu, %", "against relu"]
    assert rows["tanh"][-2:] == ["-2.0 (-3.0 to -1.0)", "better here"]
    assert rows["relu"][-2:] == [None, "the baseline"]
    assert "against identity" in differences(summary | {"baseline": "identity"})[0]
    assert differences(summary | {"baseline": "identity"})[0][-1] == "needed"
