"""The table fits a terminal of 100 columns and shows the verdicts in words."""

from typing import Any

import pytest

from actlab.printed_tables import as_text
from actlab.report.tables import print_answer, terminal_ranking

NAMES = ["identity", "sigmoid", "tanh", "relu", "leaky_relu", "maxout", *(f"activation_{i:02}" for i in range(17))]
NAMES.append("my_package.layers.MyOwnActivation")


def make_summary() -> dict[str, Any]:
    """24 activations, identity the winner; sigmoid without any score, maxout at the edge of the range."""
    ranking = [
        {"activation": name, "learning_rate": 0.000333, "mean": 0.1271 + i / 1000, "sd": 0.0041, "ci_low": 0.117}
        | {"ci_high": 0.137, "n": 5, "diverged": i % 4 // 3, "n_parameters": 100_497, "seconds": 123.4}
        | {"edge_of_range": name == "maxout"}
        for i, name in enumerate(NAMES)
    ]
    ranking[1].update(mean=None, sd=None, ci_low=None, ci_high=None, learning_rate=None)
    comparisons = [
        {"a": "identity", "b": name, "difference": -i / 1000, "ci_low": -0.03, "ci_high": 0.01, "p_holm": 0.01}
        | {"p_better": 0.9, "verdict": "better" if i > 3 else "no difference shown"}
        for i, name in enumerate(NAMES)
    ][1:-1]
    comparisons[0]["difference"] = None
    return {"metric": "log_rmse", "ranking": ranking, "comparisons": comparisons, "winner": "identity"}


def rendered(width: int = 100) -> str:
    return as_text(terminal_ranking(make_summary()), width)


def test_24_activations_fit_100_columns_one_line_each() -> None:
    lines = rendered().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in rendered()
    for name in NAMES[:-1]:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.rstrip().endswith(("winner", "worse", "not shown")), line.rstrip()


def test_numbers_verdicts_gaps_and_edges_are_shown() -> None:
    text = " ".join(rendered().split())
    assert "identity 0.000333 0.1271 0.1170–0.1370 0.0041 0 100,497 2:03 winner" in text
    assert "sigmoid - - - - 0 100,497 2:03 - not shown" in text
    assert "relu 0.000333 0.1301 0.1170–0.1370 0.0041 1 100,497 2:03 +0.0030 not shown" in text
    assert "maxout 0.000333! 0.1321 0.1170–0.1370 0.0041 0 100,497 2:03 +0.0050 worse" in text
    assert "not compared" in text
    assert "! the best of the learning rates tried" in text


def test_the_answer_follows_the_table_without_control_codes_where_nobody_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_answer(make_summary())
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100
    assert "On this data identity at learning rate 0.000333 has the lowest log-RMSE" in out
