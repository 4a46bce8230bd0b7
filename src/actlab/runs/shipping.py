"""Which networks of a finished run become the model people take home, and how good that model is.

A mean of networks predicts better than one of them, and by how much differs between activations: the ranking, which
is about single networks, does not say whose mean is best. So activations are scored here as endless bags, and the
best few go into the model in equal parts. In nested cross-validation that beat the winner alone, and weights fitted on
out-of-fold predictions were no better than equal ones (docs/accuracy.md).

What is shipped are new networks of these settings. Those of the comparison gave up rows to stop early and to choose
the learning rate; both are known now, and the model trains on all rows outside a fold.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import pandas as pd

from actlab.runs.assembly import FoldKey, Network, Networks
from actlab.runs.trials import Setting
from actlab.settings import CompareSettings
from actlab.verdict.summary import PAIR

# An activation goes into the model only if its score is within this share of the best one's.
CLOSE = 0.05


def ship(
    networks: Networks,
    chosen: pd.DataFrame,
    settings: Mapping[int, Setting],
    grid: CompareSettings,
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[list[Network], dict[str, Any]]:
    """The networks of the model, and what summary.json says about it.

    `test_score` is the mean over (repeat, fold) of the score of the fold's own networks on its test rows. Which
    activations go in was decided by these rows too; in `test_score_chosen_on_other_folds` the other folds of the
    repeat decide for each fold, and in `test_score_chosen_on_validation` it has the one activation and rate with the
    best inner-validation score.

    Args:
        networks: All that the run trained.
        chosen: As `summary.choose` returns them.
        settings: Trial number to setting.
        grid: `ensemble` and `bag`.
        callbacks: Passed on to the training.
    """
    scores = bag_scores(networks, chosen, settings)
    keys = fold_keys(chosen)
    inside = best(scores, keys, grid.ensemble)
    outside = {
        (repeat, fold): best(scores, [key for key in keys if key[0] == repeat and key[1] != fold], grid.ensemble)
        for repeat, fold in keys
    }
    own, elsewhere = (rows_of(chosen, names) for names in (dict.fromkeys(keys, inside), outside))
    on_validation = chosen.sort_values("val").groupby(PAIR).head(1)
    wanted = pd.concat([own, elsewhere, on_validation]).drop_duplicates(["trial", *PAIR])
    trained = networks.refit(wanted, settings, grid.bag, callbacks)
    shipped = networks_of_rows(trained, own)
    label = dict(zip(own.trial, own.activation, strict=True))
    names = [label[network.member.trial] for network in shipped]
    return shipped, {
        "activations": {name: names.count(name) for name in sorted(set(names))},
        "n_members": len(shipped),
        "test_score": networks.score(shipped),
        "test_score_chosen_on_other_folds": networks.score(networks_of_rows(trained, elsewhere)),
        "test_score_chosen_on_validation": networks.score(networks_of_rows(trained, on_validation)),
    }


def bag_scores(networks: Networks, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> pd.DataFrame:
    """Test score of each activation's endless bag: activations by (repeat, fold), nan where there is none."""
    found = {
        name: networks.endless_scores(networks.gather(rows[rows.score.notna()], settings))
        for name, rows in chosen.groupby("activation")
    }
    keys = fold_keys(chosen)
    table = [[own.get(key, math.nan) for key in keys] for own in found.values()]
    return pd.DataFrame(table, index=list(found), columns=pd.MultiIndex.from_tuples(keys), dtype=float)


def fold_keys(chosen: pd.DataFrame) -> list[FoldKey]:
    """Every (repeat, fold), in order."""
    return [(int(repeat), int(fold)) for repeat, fold in sorted(set(map(tuple, chosen[PAIR].to_numpy().tolist())))]


def best(scores: pd.DataFrame, keys: Sequence[FoldKey], at_most: int) -> list[str]:
    """The activations with the lowest mean over some folds, best first, that are close to the best of them.

    One that has no score in more of these folds than others is left out.
    """
    own = scores[list(keys)]
    n_missing = own.isna().sum(axis=1)
    order = own[n_missing == n_missing.min()].mean(axis=1).dropna().sort_values(kind="stable")
    return [str(name) for name in order[order <= (1 + CLOSE) * order.min()].index[:at_most]]


def rows_of(chosen: pd.DataFrame, names: Mapping[FoldKey, Sequence[str]]) -> pd.DataFrame:
    """The rows of some activations for each (repeat, fold)."""
    wanted = {(name, *key) for key, own in names.items() for name in own}
    rows = chosen[["activation", *PAIR]].itertuples(index=False, name=None)
    return chosen[[row in wanted for row in rows]]


def networks_of_rows(networks: Sequence[Network], rows: pd.DataFrame) -> list[Network]:
    """The networks of the (trial, repeat, fold) of some rows."""
    wanted = set(rows[["trial", *PAIR]].itertuples(index=False, name=None))
    return [n for n in networks if (n.member.trial, n.member.split.repeat, n.member.split.fold) in wanted]
