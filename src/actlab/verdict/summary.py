"""From the members of a run to its answer: learning rates chosen on validation, ranking, comparisons.

Members are frames of `MemberRecord` rows. Scores are paired as `paired_tests` says. Test scores enter nowhere but in
`score`: what is chosen is chosen by inner validation.
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
# what changes places when a comparison is seen from its other activation
SIDES = {
    "a": "b",
    "ci_low": "ci_high",
    "p_better_low": "p_better_high",
    "p_rope_better": "p_rope_worse",
    "n_diverged_a": "n_diverged_b",
}
# A rate within this share of the (logarithmic) range from one of its ends counts as lying at the edge.
EDGE_SHARE = 0.05


def per_pair(members: pd.DataFrame) -> pd.DataFrame:
    """One row a trial and (repeat, fold): its learning rate, and `val`, `score` and `best_epoch` over its inner splits.

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
    is left. Of equals, the lowest trial number. Rows are those of `per_pair`; `score` is nan when none of the
    activation's trials has finite scores.
    """
    tried = per_pair(members)
    tried["order"] = tried.val.where(np.isfinite(tried.val), math.inf)
    best = tried.sort_values(["activation", *PAIR, "order", "trial"]).groupby(["activation", *PAIR]).head(1)
    best.loc[~np.isfinite(best.val), "score"] = math.nan
    return best.drop(columns="order").reset_index(drop=True)


def scores_of(chosen: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
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

    `comparisons` are with the winner, `baseline_comparisons` with the baseline (see `significance.compare_all`); there
    are none unless every activation was given the same trials (`is_equal_budget`). The region of practical equivalence
    has a half-width of `rope_share` of the baseline's score, or of the winner's where the baseline is not in the run.
    `learning_rates_tried` may be the two ends of a searched range.
    """
    frames = members, choose(members), per_pair(members)
    unordered = scores_of(frames[1])
    scores = {name: unordered[name] for name in ranking(unordered)}
    winner = next(iter(scores))
    rope = default_rope(scores[baseline if baseline in scores else winner], rope_share)

    def with_reference(reference: str) -> tuple[Comparison, ...]:
        is_compared = is_equal_budget and reference in scores
        return compare_all(scores, reference, test_train_ratio, rope) if is_compared else ()

    comparisons = with_reference(winner)
    return {
        "ranking": [_ranking_row(name, frames, test_train_ratio, learning_rates_tried) for name in scores],
        "rope": rope,
        "comparisons": [comparison.to_dict() for comparison in comparisons],
        "baseline": baseline,
        "baseline_comparisons": [comparison.to_dict() for comparison in with_reference(baseline)],
        "winner": winner,
        "indistinguishable_from_winner": list(indistinguishable(comparisons)),
    }


def _ranking_row(
    activation: str, frames: Iterable[pd.DataFrame], test_train_ratio: float, learning_rates_tried: list[float]
) -> dict[str, Any]:
    """From the frames of members, of chosen trials and of all trials."""
    members, chosen, tried = (frame[frame.activation == activation] for frame in frames)
    scores = chosen.score.to_numpy(dtype=np.float64)
    interval = corrected_interval(scores, test_train_ratio)
    counts = chosen.learning_rate.value_counts().sort_index()
    return {
        "activation": activation,
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
        "edge_of_range": is_at_edge(chosen, learning_rates_tried),
        "expected_best": expected_best(tried),
    }


def expected_best(tried: pd.DataFrame) -> list[float]:
    """Expected test score of one activation after n of its settings were tried and the best by validation kept.

    Entry n - 1 is the mean over (repeat, fold) of `significance.expected_best_after`; the last entry is the
    activation's mean score. An activation whose first entries are little worse is easy to tune.
    """
    folds = [expected_best_after(rows.val.to_numpy(), rows.score.to_numpy()) for _, rows in tried.groupby(PAIR)]
    return [float(np.mean(after_n)) for after_n in zip(*folds, strict=False)]


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
    """The `test_train_ratio` of `paired_tests`, from a summary; one that states no counts has its number of folds."""
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
    turned = dict(comparison)
    for one, other in SIDES.items():
        turned[one], turned[other] = comparison.get(other), comparison.get(one)
    for key in ("difference", "ci_low", "ci_high"):
        turned[key] = None if turned.get(key) is None else -turned[key]
    for key in ("p_better", "p_better_low", "p_better_high"):
        turned[key] = None if turned.get(key) is None else 1 - turned[key]
    turned["verdict"] = TURNED_ROUND.get(comparison["verdict"], comparison["verdict"])
    return turned
