"""From the summaries of several data sets to one: scores and ranks, the Friedman test, and each one's own verdicts."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actlab.verdict.multi_data import FriedmanTest, friedman, ranks_of

FLIPPED = {"better": "worse", "worse": "better"}


def summarise_data_sets(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What summary.json of a comparison on several data sets holds.

    Scores are the means over test folds that each data set's ranking states; they are ranked within their data set, so
    data sets may have different metrics and scales. None, a score that is not finite, ranks last.

    Args:
        summaries: Name of a data set to its summary.json; all with the same activations.

    Raises:
        InputError: fewer than two data sets or three activations.
    """
    scores = _scores(summaries)
    test = friedman(scores)
    ranks = pd.DataFrame(ranks_of(scores), index=scores.index, columns=scores.columns)
    order = list(test.activations)
    return {
        "command": "compare",
        "data_sets": [_data_set(name, summary) for name, summary in summaries.items()],
        "activations": order,
        "mean_ranks": dict(zip(order, test.average_ranks, strict=True)),
        "scores": {name: scores.loc[name, order].to_dict() for name in summaries},
        "ranks": {name: ranks.loc[name, order].to_dict() for name in summaries},
        "friedman": _test(test),
        "critical_difference": test.critical_difference,
        "can_show_difference": test.can_show_difference,
        "not_distinguished": [list(group) for group in test.undistinguished],
        "nemenyi_p": test.nemenyi_frame().to_dict(),
        "verdicts": {name: _verdicts(summary) for name, summary in summaries.items()},
    }


def ranks_frame(summary: Mapping[str, Any]) -> pd.DataFrame:
    """ranks.csv: a row an activation, best mean rank first, with the rank and the score on each data set."""
    frame = pd.DataFrame({"activation": summary["activations"]})
    frame["mean_rank"] = [summary["mean_ranks"][name] for name in summary["activations"]]
    for data_set in summary["ranks"]:
        for column, content in (("rank", summary["ranks"]), ("score", summary["scores"])):
            frame[f"{data_set}_{column}"] = [content[data_set][name] for name in summary["activations"]]
    return frame


def _scores(summaries: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Data sets by activations; nan where a summary has None."""
    rows = {name: {row["activation"]: row["mean"] for row in own["ranking"]} for name, own in summaries.items()}
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def _data_set(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("metric", "winner", "indistinguishable_from_winner")
    return {"name": name, **summary.get("data", {}), **{key: summary.get(key) for key in keys}}


def _test(test: FriedmanTest) -> dict[str, Any]:
    keys = ("chi_squared", "df", "p", "p_permutation", "alpha", "n_data_sets")
    return {key: getattr(test, key) for key in keys} | {"n_activations": len(test.activations)}


def _verdicts(summary: Mapping[str, Any]) -> dict[str, str]:
    """Activation to its verdict against this data set's winner; only those that were tested."""
    winner = summary.get("winner")
    found = {}
    for comparison in summary.get("comparisons") or []:
        if comparison["b"] == winner:
            found[str(comparison["a"])] = str(comparison["verdict"])
        elif comparison["a"] == winner:
            found[str(comparison["b"])] = FLIPPED.get(comparison["verdict"], str(comparison["verdict"]))
    return found
