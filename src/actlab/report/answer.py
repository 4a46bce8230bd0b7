"""The answer in words, from the summary alone: one sentence, and what the reader must know besides.

Works on the keys of summary.json as `json` reads them: a number that was not finite is None.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from actlab.settings import ALPHA

# from here on a lead that is not shown is the test's lack of folds rather than a want of non-linearity
MUCH_WORSE = 0.2
METRIC_NAMES = {"log_rmse": "log-RMSE", "rmse": "RMSE"}


def answer(summary: Mapping[str, Any]) -> str:
    """One sentence: which activation at which learning rate, how sure that is, and how the others compare.

    Says `difference` only of comparisons that the summary holds; a ranking without comparisons (a search gives its
    activations unequal budgets) is called an order and no more.
    """
    best = winner_row(summary)
    if best is None:
        trained = sum(row.get("n") or 0 for row in summary["ranking"])
        return f"No activation can be recommended on this data: none of the {trained} networks gave a usable score."
    decimals = decimals_for(best["mean"])
    mean = fixed(best["mean"], decimals)
    interval = f", 95 % interval {fixed(best['ci_low'], decimals)} to {fixed(best['ci_high'], decimals)}"
    certainty = f"{mean}{interval}" if _is_number(best.get("ci_low")) else mean
    setting = f"{best['activation']} at learning rate {rate(best['learning_rate'])}"
    metric = METRIC_NAMES.get(summary["metric"], summary["metric"])
    others = [row["activation"] for row in summary["ranking"] if row["activation"] != best["activation"]]
    if not others:
        return f"On this data {setting} has a mean {metric} of {certainty}; nothing was compared with it."
    return (
        f"On this data {setting} has the lowest {metric} ({certainty}){_standing(summary, best['activation'], others)}."
    )


def _standing(summary: Mapping[str, Any], winner: str, others: Sequence[str]) -> str:
    """How the other activations compare with the winner, as the end of a sentence."""
    verdicts = {name: comparison_with_winner(summary, name) for name in others}
    if not any(verdicts.values()):
        return f", ahead of {listed(others)} in an order that no test stands behind"
    unshown = [name for name in others if (verdicts[name] or {}).get("verdict") == "no difference shown"]
    worse = [name for name in others if (verdicts[name] or {}).get("verdict") == "worse"]
    better = [name for name in others if (verdicts[name] or {}).get("verdict") == "better"]
    if len(unshown) == len(others):
        whom = f"any of the other {len(others)} activations" if len(others) > 1 else unshown[0]
        return f", but no difference from {whom} is shown"
    parts = [(unshown, "shows no difference from it", "show no difference from it")]
    parts += [(worse, "is worse", "are worse"), (better, "is better in the test", "are better in the test")]
    clauses = [f"{listed(names)} {one if len(names) == 1 else many}" for names, one, many in parts if names]
    return f"; {'; '.join(clauses)}"


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Sentences that belong beside the answer: what averaging gives, the references, edges of the range, divergence,
    whether a network without any activation does as well, and which verdicts hang on the choice of the winner."""
    found = [_scores_beside(summary), _linear(summary), _choice(summary), _edges(summary), _diverged(summary)]
    return [sentence for sentence in found if sentence]


def _scores_beside(summary: Mapping[str, Any]) -> str:
    best = winner_row(summary)
    references = summary.get("references") or {}
    named = {
        "the shipped networks averaged": (summary.get("ensemble") or {}).get("test_score"),
        "ridge": references.get("ridge"),
        "gradient boosting": references.get("hist_gradient_boosting"),
        "the median": references.get("median"),
    }
    decimals = decimals_for(best["mean"] if best else named["the median"] or 1.0)
    known = [f"{name} {fixed(score, decimals)}" for name, score in named.items() if _is_number(score)]
    return f"On the same test rows: {', '.join(known)}." if known else ""


def _linear(summary: Mapping[str, Any]) -> str:
    best = winner_row(summary)
    if best is None:
        return ""
    if best["activation"] == "identity":
        return "The lowest score belongs to identity, a network without any activation: a linear model."
    comparison = comparison_with_winner(summary, "identity")
    if comparison is None or comparison["verdict"] != "no difference shown":
        return ""
    share = comparison["difference"] / best["mean"] if _is_number(comparison.get("difference")) else 0.0
    if share > MUCH_WORSE:
        return (
            f"A network without any activation (identity) scores {share:.0%} worse in these folds, but the test, "
            "adjusted for all comparisons, has too few folds to show it: compare.repeats 3 gives it more."
        )
    return "A network without any activation (identity) is not shown to be worse: what is non-linear here is little."


def _choice(summary: Mapping[str, Any]) -> str:
    """What is shown against the winner as such, but no longer once the tests pay for picking it by these scores."""
    compared = {row["activation"]: comparison_with_winner(summary, row["activation"]) for row in summary["ranking"]}
    weak = [
        name
        for name, found in compared.items()
        if found and found["verdict"] == "worse" and (found.get("p_all_pairs") or 0.0) >= ALPHA
    ]
    if not weak or summary.get("confirmation"):
        return ""
    return (
        f"The winner was picked by these very scores; adjusted for that, over all pairs, the difference from "
        f"{listed(weak)} is not shown: --confirm tests it on fresh seeds and folds."
    )


def _edges(summary: Mapping[str, Any]) -> str:
    at_edge = [row["activation"] for row in summary["ranking"] if row.get("edge_of_range")]
    if not at_edge:
        return ""
    whose = "its best learning rate" if len(at_edge) == 1 else "their best learning rates"
    verb = "lies" if len(at_edge) == 1 else "lie"
    return f"{listed(at_edge)}: {whose} {verb} at the edge of the range tried, so a wider range may do better."


def _diverged(summary: Mapping[str, Any]) -> str:
    """Counts what the ranking counts: networks of each activation that went to nan or infinity."""
    counts = {row["activation"]: row.get("diverged") or 0 for row in summary["ranking"]}
    total = sum(counts.values())
    if not total:
        return ""
    noun = "network" if total == 1 else "networks"
    return f"{total} {noun} diverged: {listed([f'{name} {count}' for name, count in counts.items() if count], 6)}."


def winner_row(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ranking's row of the winner; None where no activation has a score."""
    rows: Sequence[Mapping[str, Any]] = summary["ranking"]
    return next((r for r in rows if r["activation"] == summary.get("winner") and _is_number(r["mean"])), None)


def comparison_with_winner(summary: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """`name` against the winner, seen from `name`: a positive difference means that it scores worse.

    None where the summary holds no such comparison. summary.json may state a pair either way round.
    """
    winner = summary.get("winner")
    for found in summary.get("comparisons") or []:
        if (found["a"], found["b"]) == (name, winner):
            return dict(found)
        if (found["a"], found["b"]) == (winner, name):
            flipped = {"better": "worse", "worse": "better"}
            verdict = flipped.get(found["verdict"], found["verdict"])
            low, high = _negated(found.get("ci_high")), _negated(found.get("ci_low"))
            turned = {"a": name, "b": winner, "verdict": verdict, "ci_low": low, "ci_high": high}
            return {**found, **turned, "difference": _negated(found.get("difference"))}
    return None


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def decimals_for(value: float) -> int:
    """Decimals that show four significant digits of `value`: 4 for 0.1271, 1 for 123.4, 0 for 35000."""
    if not _is_number(value) or value == 0:
        return 4
    return min(12, max(0, 3 - math.floor(math.log10(abs(value)))))


def fixed(value: float | None, decimals: int) -> str:
    """A score with so many decimals and separated thousands; a dash where there is none."""
    return f"{value:,.{decimals}f}" if value is not None and _is_number(value) else "-"


def rate(learning_rate: float | None) -> str:
    """A learning rate in three significant digits: 0.003, 3e-05."""
    return "-" if learning_rate is None else f"{learning_rate:.3g}"


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def listed(names: Sequence[str], n_shown: int = 3) -> str:
    """`a`, `a and b`, `a, b and c`, or `a, b, c and 4 others`; one more than `n_shown` is named, not counted."""
    if len(names) > n_shown + 1:
        return f"{', '.join(names[:n_shown])} and {len(names) - n_shown} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
