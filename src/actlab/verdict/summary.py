"""From the members of a run to its answer: learning rates chosen on validation, ranking, comparisons.

Reads frames of `MemberRecord` rows only; nothing here trains or needs torch. Everything is paired: entry i of every
activation's scores is the same (repeat, fold), with the same splits, seeds and batch orders. Test scores enter
nowhere but in `score`: what is chosen is chosen by inner validation.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from actlab.verdict.paired_tests import corrected_interval
from actlab.verdict.significance import (
    Comparison,
    compare_all,
    default_rope,
    expected_best_after,
    indistinguishable,
    interquartile_mean,
    ranking,
)

PAIR = ["repeat", "fold"]
TURNED_ROUND = {"better": "worse", "worse": "better"}
# A rate within this share of the (logarithmic) range from one of its ends counts as lying at the edge.
EDGE_SHARE = 0.05

Scores = dict[str, npt.NDArray[np.float64]]


def per_pair(members: pd.DataFrame) -> pd.DataFrame:
    """One row for each trial and (repeat, fold): learning_rate, and `val`, `score` and `best_epoch`, its inner splits
    averaged.

    Plain means: a member without a finite score makes its trial's mean nan, because leaving it out would reward the
    trial whose worse member diverged. A pruned member has no validation score that could be compared.
    """
    return (
        members.assign(val_score=members.val_score.where(~members.pruned.astype(bool)))
        .groupby(["activation", *PAIR, "trial"], sort=True)
        .agg(
            learning_rate=("learning_rate", "first"),
            val=("val_score", lambda scores: scores.mean(skipna=False)),
            score=("test_score", lambda scores: scores.mean(skipna=False)),
            best_epoch=("best_epoch", "mean"),
        )
        .reset_index()
    )


def choose(members: pd.DataFrame) -> pd.DataFrame:
    """The trial chosen for each activation and (repeat, fold): the best mean over its inner-validation scores.

    A trial with a member that has no finite score, or that was pruned, in that fold is not chosen there while another
    is left. Of equals, the lowest trial number. Test scores play no part.

    Returns:
        One row for each activation and (repeat, fold): trial, learning_rate, `val`, the mean `best_epoch`, and `score`,
        the mean test score of the chosen trial's members of that fold (nan when none of the activation's trials has
        finite scores).
    """
    tried = per_pair(members)
    tried["order"] = tried.val.where(np.isfinite(tried.val), math.inf)
    best = tried.sort_values(["activation", *PAIR, "order", "trial"]).groupby(["activation", *PAIR]).head(1)
    best.loc[~np.isfinite(best.val), "score"] = math.nan
    return best.drop(columns="order").reset_index(drop=True)


def scores_of(chosen: pd.DataFrame) -> Scores:
    """Activation to its test scores (n_pairs,), in the order of (repeat, fold)."""
    return {
        str(name): rows.sort_values(PAIR).score.to_numpy(dtype=np.float64)
        for name, rows in chosen.groupby("activation", sort=False)
    }


def summarise(
    members: pd.DataFrame,
    test_train_ratio: float,
    baseline: str,
    learning_rates_tried: list[float],
    is_equal_budget: bool,
    rope_share: float = 0.01,
) -> dict[str, Any]:
    """Ranking, comparisons and winner, as summary.json holds them.

    `comparisons` are with the winner, `baseline_comparisons` with the baseline, each Holm-adjusted over its own;
    `p_all_pairs` is adjusted over every pair of activations, because the winner is picked by these very scores.
    Two-sided corrected resampled t-tests; see `significance.compare_all` for nan and for what either adjustment keeps.

    Args:
        members: Rows as `MemberRecord`.
        test_train_ratio: Rows in the test fold over rows outside it, for the corrected tests.
        baseline: The activation that every other one is also compared with; its score sets the region of practical
            equivalence (the winner's where the baseline is not in the run).
        learning_rates_tried: The learning rates, or the two ends of the searched range, for `edge_of_range`.
        is_equal_budget: Whether every activation was given the same trials; only then are there comparisons.
        rope_share: Half-width of the region of practical equivalence, as a share of that score.
    """
    chosen, tried = choose(members), per_pair(members)
    scores = scores_of(chosen)
    order = ranking(scores)
    scores = {name: scores[name] for name in order}
    winner = order[0]
    rope = default_rope(scores[baseline if baseline in scores else winner], rope_share)

    def with_reference(reference: str) -> tuple[Comparison, ...]:
        if not is_equal_budget or len(scores) < 2 or reference not in scores:
            return ()
        return compare_all(scores, reference, test_train_ratio, rope)

    comparisons = with_reference(winner)
    return {
        "ranking": [
            _ranking_row(_only(members, name), _only(chosen, name), test_train_ratio)
            | {
                "edge_of_range": is_at_edge(_only(chosen, name), learning_rates_tried),
                "expected_best": expected_best(_only(tried, name)),
            }
            for name in order
        ],
        "rope": rope,
        "comparisons": [comparison.to_dict() for comparison in comparisons],
        "baseline": baseline,
        "baseline_comparisons": [comparison.to_dict() for comparison in with_reference(baseline)],
        "winner": winner,
        "indistinguishable_from_winner": list(indistinguishable(comparisons)),
    }


def _only(frame: pd.DataFrame, activation: str) -> pd.DataFrame:
    return frame[frame.activation == activation]


def _ranking_row(members: pd.DataFrame, chosen: pd.DataFrame, test_train_ratio: float) -> dict[str, Any]:
    scores = chosen.score.to_numpy(dtype=np.float64)
    interval = corrected_interval(scores, test_train_ratio)
    counts = chosen.learning_rate.value_counts().sort_index()
    return {
        "activation": str(members.activation.iloc[0]),
        "learning_rate": favourite_learning_rate(chosen),
        "mean": interval.mean,
        "sd": interval.sd,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "interquartile_mean": interquartile_mean(scores),
        "n": interval.n,
        "diverged": int(members.diverged.sum()),
        "n_members": len(members),
        "n_parameters": int(members.n_parameters.max()),
        "seconds": float(members.seconds.sum()),
        "member_epochs": int(members.epochs.sum()),
        "learning_rates_chosen": {f"{rate:g}": int(count) for rate, count in counts.items()},
    }


def expected_best(tried: pd.DataFrame) -> list[float]:
    """Expected test score of one activation after n of its settings were tried and the best by validation kept.

    Entry n - 1 is the mean over (repeat, fold) of `significance.expected_best_after`, for n = 1 to the number of
    settings; the last entry is the activation's mean score. An activation whose first entries are little worse is easy
    to tune. nan as long as a setting with a member that has no finite score may be the only one tried.
    """
    folds = [
        expected_best_after(rows.val.to_numpy(dtype=np.float64), rows.score.to_numpy(dtype=np.float64))
        for _, rows in tried.groupby(PAIR, sort=True)
    ]
    n_settings = min(len(fold) for fold in folds)
    return [float(np.mean([fold[n] for fold in folds])) for n in range(n_settings)]


def favourite_learning_rate(chosen: pd.DataFrame) -> float:
    """The learning rate chosen in most folds; of equals, the one with the better validation score."""
    tally = chosen.groupby("learning_rate").agg(count=("val", "size"), val=("val", "mean"))
    return float(tally.sort_values(["count", "val"], ascending=[False, True]).index[0])


def is_at_edge(chosen: pd.DataFrame, learning_rates_tried: list[float]) -> bool:
    """Whether the favourite rate is (nearly) the lowest or highest tried, so that a better one may lie outside."""
    low, high = math.log(min(learning_rates_tried)), math.log(max(learning_rates_tried))
    position, margin = math.log(favourite_learning_rate(chosen)), EDGE_SHARE * (high - low) + 1e-9
    return position <= low + margin or position >= high - margin


def fold_ratio(summary: Mapping[str, Any]) -> float:
    """Rows in a test fold over rows outside it, the `test_train_ratio` of `paired_tests`, from a summary.

    Inner validation belongs to the training procedure: all rows outside the fold count. A summary that states no
    counts has its number of folds.
    """
    protocol, n_rows = summary.get("protocol") or {}, (summary.get("data") or {}).get("n_rows")
    if n_rows is None or protocol.get("n_test") is None:
        return 1 / (int(protocol.get("folds", 5)) - 1)
    return float(protocol["n_test"] / (n_rows - protocol["n_test"]))


def winner_row(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ranking's row of the winner; None where no activation has a score."""
    row = rows_by_activation(summary).get(str(summary.get("winner")))
    return row if row is not None and row["mean"] is not None and math.isfinite(row["mean"]) else None


def rows_by_activation(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Activation to its row of the ranking, best first; nothing for a fit."""
    return {str(row["activation"]): row for row in summary.get("ranking") or []}


def comparison_with_winner(summary: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """`name` against the winner, as `comparison_of` gives it."""
    return comparison_of(summary.get("comparisons"), name, summary.get("winner"))


def comparison_of(
    comparisons: Iterable[Mapping[str, Any]] | None, name: str, other: str | None
) -> dict[str, Any] | None:
    """The comparison of two activations seen from `name`: a positive difference means that it scores worse.

    None where there is no such comparison. Summaries may state a pair either way round.
    """
    for found in comparisons or []:
        if (found["a"], found["b"]) == (name, other):
            return dict(found)
        if (found["a"], found["b"]) == (other, name):
            return turned_round(found)
    return None


def turned_round(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison as summary.json holds it, seen from its other activation."""

    def negated(key: str) -> float | None:
        return None if comparison.get(key) is None else -comparison[key]

    def complement(key: str) -> float | None:
        return None if comparison.get(key) is None else 1 - comparison[key]

    return {
        **comparison,
        "a": comparison["b"],
        "b": comparison["a"],
        "difference": negated("difference"),
        "ci_low": negated("ci_high"),
        "ci_high": negated("ci_low"),
        "p_better": complement("p_better"),
        "p_better_low": complement("p_better_high"),
        "p_better_high": complement("p_better_low"),
        "p_rope_better": comparison.get("p_rope_worse"),
        "p_rope_worse": comparison.get("p_rope_better"),
        "n_diverged_a": comparison.get("n_diverged_b"),
        "n_diverged_b": comparison.get("n_diverged_a"),
        "verdict": TURNED_ROUND.get(comparison["verdict"], comparison["verdict"]),
    }
