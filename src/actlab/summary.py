"""From the members of a run to its answer: learning rates chosen on validation, ranking, comparisons.

Reads frames of `MemberRecord` rows only; nothing here trains or needs torch. Everything is paired: entry i of every
activation's scores is the same (repeat, fold), with the same splits, seeds and batch orders.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from actlab.significance import Comparison, compare_all, default_rope, indistinguishable, ranking
from actlab.paired_tests import corrected_interval

PAIR = ["repeat", "fold"]


def choose(members: pd.DataFrame) -> pd.DataFrame:
    """The trial chosen for each activation and (repeat, fold): the best mean over its inner-validation scores.

    A trial with a member that has no finite score, or that was pruned, in that fold is not chosen there while another
    is left. Test scores play no part.

    Returns:
        One row for each activation and (repeat, fold): trial, learning_rate, and `score`, the mean test score of the
        chosen trial's members of that fold (nan when none of the activation's trials has finite scores).
    """
    cells = (
        members.assign(val_score=members.val_score.where(~members.pruned))
        .groupby(["activation", *PAIR, "trial"], sort=True)
        .agg(
            learning_rate=("learning_rate", "first"),
            # a plain mean over the members: skipping nan would reward the trial whose worse member diverged
            val=("val_score", lambda scores: scores.mean(skipna=False)),
            score=("test_score", lambda scores: scores.mean(skipna=False)),
        )
        .reset_index()
    )
    cells["order"] = cells.val.fillna(math.inf)
    best = cells.sort_values(["activation", *PAIR, "order", "trial"]).groupby(["activation", *PAIR]).head(1)
    best.loc[best.val.isna(), "score"] = math.nan
    return best.drop(columns="order").reset_index(drop=True)


def scores_of(chosen: pd.DataFrame) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Activation to its test scores (n_pairs,), in the order of (repeat, fold)."""
    return {
        str(name): rows.sort_values(PAIR).score.to_numpy(dtype=np.float64)
        for name, rows in chosen.groupby("activation", sort=False)
    }


def summarise(
    members: pd.DataFrame,
    test_train_ratio: float,
    baseline: str,
    rates_tried: list[float],
    is_equal_budget: bool,
) -> dict[str, Any]:
    """Ranking, comparisons and winner, as summary.json holds them.

    Args:
        members: Rows as `MemberRecord`.
        test_train_ratio: Rows in the test fold over rows outside it, for the corrected tests.
        baseline: The activation whose score sets the region of practical equivalence (1 % of it).
        rates_tried: The learning rates, or the two ends of the searched range, for `edge_of_range`.
        is_equal_budget: Whether every activation was given the same trials; only then are there comparisons.
    """
    chosen = choose(members)
    scores = scores_of(chosen)
    order = ranking(scores)
    winner = order[0]
    comparisons: tuple[Comparison, ...] = ()
    if is_equal_budget and len(order) > 1:
        yardstick = scores[baseline if baseline in scores else winner]
        comparisons = compare_all(
            # the winner is picked by these very scores: Holm over all pairs pays for that choice
            scores,
            winner,
            test_train_ratio,
            default_rope(yardstick),
            family="all_pairs",
        )
    return {
        "ranking": [
            _ranking_row(members[members.activation == name], chosen[chosen.activation == name], test_train_ratio)
            | {"edge_of_range": is_at_edge(chosen[chosen.activation == name], rates_tried)}
            for name in order
        ],
        "comparisons": [comparison.to_dict() for comparison in comparisons],
        "winner": winner,
        "indistinguishable_from_winner": list(indistinguishable(comparisons)),
    }


def _ranking_row(members: pd.DataFrame, chosen: pd.DataFrame, test_train_ratio: float) -> dict[str, Any]:
    interval = corrected_interval(chosen.score.to_numpy(dtype=np.float64), test_train_ratio)
    counts = chosen.learning_rate.value_counts().sort_index()
    return {
        "activation": str(members.activation.iloc[0]),
        "learning_rate": favourite_rate(chosen),
        "mean": interval.mean,
        "sd": interval.sd,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "n": interval.n,
        "diverged": int(members.diverged.sum()),
        "n_members": len(members),
        "n_parameters": int(members.n_parameters.max()),
        "seconds": float(members.seconds.sum()),
        "member_epochs": int(members.epochs.sum()),
        "learning_rates_chosen": {f"{rate:g}": int(count) for rate, count in counts.items()},
    }


def favourite_rate(chosen: pd.DataFrame) -> float:
    """The learning rate chosen in most folds; of equals, the one with the better validation score."""
    tally = chosen.groupby("learning_rate").agg(count=("val", "size"), val=("val", "mean"))
    return float(tally.sort_values(["count", "val"], ascending=[False, True]).index[0])


def is_at_edge(chosen: pd.DataFrame, rates_tried: list[float]) -> bool:
    """Whether the favourite rate is the lowest or highest tried, so that a better one may lie outside."""
    return favourite_rate(chosen) in (min(rates_tried), max(rates_tried))
