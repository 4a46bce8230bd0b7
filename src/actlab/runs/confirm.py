"""A second look at the winner: trained again with fresh seeds and fresh folds, beside the rivals close to it.

The first comparison picks its winner by the scores it then reports, so its differences are too good on average. Here
the winner is named before a single score is seen: the differences are unbiased for these rows. The rows are the same,
so what the data set itself happens to favour is not removed; only new data can do that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import pandas as pd

from actlab.data.splits import make_splits
from actlab.data.table import Table
from actlab.members import derive_seed
from actlab.records import MemberRecord, to_frame
from actlab.runs.trials import Evaluation, Setting, evaluate
from actlab.settings import ALPHA
from actlab.verdict.significance import compare_all, ranking
from actlab.verdict.summary import choose, scores_of

MAX_RIVALS = 3


def confirm(
    evaluation: Evaluation,
    table: Table,
    members: pd.DataFrame,
    summary: Mapping[str, Any],
    settings: Mapping[int, Setting],
    callbacks: Sequence[pl.Callback] = (),
) -> dict[str, Any]:
    """Train winner and rivals again and compare them, as summary.json holds it under `confirmation`.

    Only settings that inner validation chose in at least one fold before are trained again; among them the choice per
    fold is made anew, on the fresh folds' inner validation. Comparisons are two-sided corrected resampled t-tests with
    the winner, paired by the fresh (repeat, fold), Holm-adjusted over the rivals.

    Args:
        evaluation: That of the first look.
        table: The data.
        members: members.csv of the first look; its names of activations are kept.
        summary: Winner, ranking, comparisons and rope of the first look.
        settings: Trial number to setting.
        callbacks: Passed on to the training.
    """
    names = [str(summary["winner"]), *rivals(summary)]
    chosen = choose(members)
    trials = sorted(set(chosen[chosen.activation.isin(names)].trial.tolist()))
    name_of = dict(zip(members.trial.tolist(), members.activation.tolist(), strict=True))
    fresh = replace(evaluation, seed=derive_seed(evaluation.seed, "confirm"))
    results = evaluate({trial: settings[trial] for trial in trials}, fresh, table, callbacks)
    again = [replace(r, activation=name_of[result.number]) for result in results for r in result.member_records()]
    found = scores_of(choose(to_frame(again, MemberRecord)))
    scores = {name: found[name] for name in names}
    n_test = len(next(iter(make_splits(table.n_rows, fresh.protocol, fresh.seed).values())).test)
    ratio = n_test / (table.n_rows - n_test)
    comparisons = compare_all(scores, names[0], ratio, summary["rope"]) if len(names) > 1 else ()
    return {
        "seed": fresh.seed,
        "winner": names[0],
        "rivals": names[1:],
        "means": {name: float(scores[name].mean()) for name in ranking(scores)},
        "comparisons": [c.to_dict() | first_look(summary, names[0], c.b) for c in comparisons],
        "n_members": len(again),
    }


def rivals(summary: Mapping[str, Any], at_most: int = MAX_RIVALS) -> list[str]:
    """Who is trained again beside the winner: those not shown to differ, or no longer if the choice of the winner
    were paid for too, best first; else the runner-up."""
    unpaid = {found["b"] for found in summary["comparisons"] if (found["p_all_pairs"] or 0.0) >= ALPHA}
    order = [str(row["activation"]) for row in summary["ranking"] if row["activation"] != summary["winner"]]
    close = [name for name in order if name in unpaid.union(summary["indistinguishable_from_winner"])]
    return (close or order[:1])[:at_most]


def first_look(summary: Mapping[str, Any], winner: str, rival: str) -> dict[str, Any]:
    """Difference and verdict that the first comparison gave the same pair, seen from the winner."""
    for found in summary["comparisons"]:
        if (found["a"], found["b"]) == (winner, rival):
            return {"first_difference": found["difference"], "first_verdict": found["verdict"]}
    return {"first_difference": None, "first_verdict": None}
