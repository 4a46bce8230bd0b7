"""From the members of a run and its race to the answer: what summary.json says of every activation.

Members are frames of `MemberRecord` rows. Test scores enter nowhere but in `score`: what is chosen is chosen by inner
validation. In a comparison repeats from 1 on count; repeat 0, where there is one, was trained to find learning rates.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from actlab.verdict.comparisons import Comparison, compared_with_baseline, compared_with_best, ranked_means
from actlab.verdict.paired_tests import corrected_resampled_t, holm
from actlab.verdict.race import Look, Race

PAIR = ["repeat", "fold"]
# Test rows of each fold, in every repeat or by repeat.
FoldSizes = Sequence[float] | Callable[[int], Sequence[float]]
# A rate within this share of the (logarithmic) range from one of its ends counts as lying at the edge.
EDGE_SHARE = 0.05


def per_pair(members: pd.DataFrame) -> pd.DataFrame:
    """One row a trial and (repeat, fold): its learning rate, and `val`, `score` and `best_epoch` over its inner splits.

    Plain means: a member without a finite score makes its trial's mean nan, because leaving it out would reward the
    trial whose worse member diverged. A pruned member has no validation score that could be compared.
    """
    rows = members.assign(val_score=members.val_score.where(~members.pruned.astype(bool)))
    scores = ["val_score", "test_score"]
    # an infinite member makes its mean infinite, which is then no score
    values = rows[scores].astype(np.float64)
    rows[scores] = values.where(np.isfinite(values), math.inf)
    means = (
        rows.groupby(["activation", *PAIR, "trial"], sort=True)
        .agg(
            learning_rate=("learning_rate", "first"),
            val=("val_score", "mean"),
            score=("test_score", "mean"),
            best_epoch=("best_epoch", "mean"),
        )
        .reset_index()
    )
    return means.assign(val=means.val.where(means.val < math.inf), score=means.score.where(means.score < math.inf))


def choose(members: pd.DataFrame, is_comparison: bool) -> pd.DataFrame:
    """The one setting of each activation, as its rows of `per_pair`: the lowest mean validation score over all of them.

    In a comparison that is one of the activation's learning rates, and repeats from 1 on count; an activation without
    any (each of its rates diverged in repeat 0) has no row. In a search it is one of its trials. A setting with a
    member that has no finite validation score, or that was pruned, is not chosen while another is left; of equals, the
    one with the lowest trial number. `score` is nan where the validation score is not finite.
    """
    tried = per_pair(members[members.repeat >= 1] if is_comparison else members)
    tried.loc[~np.isfinite(tried.val), "score"] = math.nan
    setting = ["activation", "learning_rate"] if is_comparison else ["activation", "trial"]
    settings = tried.assign(val=tried.val.where(np.isfinite(tried.val), math.inf), first=tried.trial).groupby(setting)
    means = settings.agg(mean=("val", "mean"), first=("first", "min")).reset_index()
    best = means.sort_values(["activation", "mean", "first"]).groupby("activation").head(1)
    return tried.merge(best[setting], on=setting).sort_values(["activation", *PAIR], ignore_index=True)


def members_of(chosen: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """The rows of `members` that belong to the rows of `choose`."""
    return members.merge(chosen[["trial", *PAIR]], on=["trial", *PAIR])


def scores_of(chosen: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
    """Activation to the test scores of its folds (n_pairs,), in the order of (repeat, fold)."""
    return {
        str(name): rows.sort_values(PAIR).score.to_numpy(dtype=np.float64)
        for name, rows in chosen.groupby("activation", sort=False)
    }


def repeat_scores(members: pd.DataFrame, fold_sizes: FoldSizes, is_comparison: bool = True) -> dict[str, list[float]]:
    """Activation to the scores of its repeats, as far as they follow one another without a gap.

    A repeat's score is the root of the mean squared error over all rows, sqrt(sum_f n_f mean_inner(score^2) / n), with
    n_f of `fold_sizes` (what rows weigh, where they have weights): not the mean of its folds' roots, which is lower.
    nan where a network has no score. In a search the repeats begin at 0.
    """
    if members.empty:
        return {}
    chosen = choose(members, is_comparison)
    own = members_of(chosen, members)
    scores = own.test_score.astype(np.float64)
    squares = own.assign(square=scores.where(np.isfinite(scores), math.inf) ** 2)
    of_folds = squares.groupby(["activation", *PAIR])["square"].mean().reset_index()
    sizes = {repeat: sizes_in(fold_sizes, repeat) for repeat in set(of_folds.repeat.tolist())}
    pairs = of_folds[PAIR].astype(int).itertuples(index=False, name=None)
    of_folds["square"] *= [sizes[repeat][fold] / sum(sizes[repeat]) for repeat, fold in pairs]
    of_repeats = of_folds.groupby(["activation", "repeat"])["square"].agg(["sum", "size"])
    n_folds = len(sizes_in(fold_sizes, int(is_comparison)))
    roots = np.sqrt(of_repeats["sum"].where((of_repeats["size"] == n_folds) & np.isfinite(of_repeats["sum"])))
    by_repeat: dict[Any, float] = roots.to_dict()
    found: dict[str, list[float]] = {}
    for name in dict.fromkeys(map(str, members.activation)):
        last = next(repeat for repeat in count(int(is_comparison)) if (name, repeat) not in by_repeat)
        found[name] = [by_repeat[name, repeat] for repeat in range(int(is_comparison), last)]
    return {name: repeats for name, repeats in found.items() if repeats}


def sizes_in(fold_sizes: FoldSizes, repeat: int) -> Sequence[float]:
    return fold_sizes(repeat) if callable(fold_sizes) else fold_sizes


def summarise(
    members: pd.DataFrame,
    fold_sizes: FoldSizes,
    race: Race | None,
    baseline: str,
    searched: Sequence[float] = (),
) -> dict[str, Any]:
    """`ranking`, `comparisons`, `winner` and what belongs to them, as summary.json holds them.

    `race` is that of the `repeat_scores` of these members; None for a search, whose activations have unequal budgets,
    so that nothing is compared. `searched` are the ends of a search's range of learning rates. Differences, intervals
    and what a choice can cost at most are shares of the mean that they are stated against.
    """
    is_comparison = race is not None
    chosen, scores = choose(members, is_comparison), repeat_scores(members, fold_sizes, is_comparison)
    compared = [] if race is None else _compared(race, members, baseline)
    with_best = {one.b: one for one in compared if one.against == "best"}
    means = _means(scores, race, members)
    rows = [
        _ranking_row(members[members.activation == name], chosen[chosen.activation == name], searched)
        | _scores_row(scores.get(name, []), mean, _n_repeats(name, scores, race))
        | _verdict_row(name, with_best, race)
        for name, mean in means.items()
    ]
    seconds = seconds_per_network(members, chosen)
    found = {
        "ranking": [{"activation": name} | row for name, row in zip(means, rows, strict=True)],
        "comparisons": [_comparison_row(one, race, seconds) for one in compared],
        "winner": next(iter(means)),
        "indistinguishable_from_winner": [
            name for name in means if name in with_best and with_best[name].verdict in ("as good", "not settled")
        ],
        "baseline": baseline,
    }
    return found | ({"appendix": _appendix(chosen, means, len(sizes_in(fold_sizes, 1)))} if compared else {})


def _compared(race: Race, members: pd.DataFrame, baseline: str) -> list[Comparison]:
    """With the best and with the baseline; an activation that never entered the race diverged before it."""
    if not race.looks:
        return []
    best, names = race.looks[-1].best, list(dict.fromkeys(map(str, members.activation)))
    absent = [name for name in names if name not in race.same_as]
    compared = compared_with_best(race) + [Comparison("best", best, name, "diverged") for name in absent]
    if baseline not in names:
        return compared
    lost = [name for name in (names if baseline in absent else absent) if name != baseline]
    compared += compared_with_baseline(race, baseline)
    return compared + [Comparison("baseline", baseline, name, "diverged") for name in lost]


def _means(scores: Mapping[str, Sequence[float]], race: Race | None, members: pd.DataFrame) -> dict[str, float]:
    """Activation to its mean score, best first, those without one last; plain means where there was no look."""
    plain = {name: float(np.mean(values)) for name, values in scores.items()}
    # nan compares false with everything
    means = dict(sorted(plain.items(), key=lambda item: (math.isnan(item[1]), item[1])))
    if race is not None and race.looks:
        means = ranked_means(race)
    return {str(name): means.get(str(name), math.nan) for name in [*means, *dict.fromkeys(members.activation)]}


def _n_repeats(name: str, scores: Mapping[str, Sequence[float]], race: Race | None) -> int:
    """Repeats behind what is said of an activation: those up to the look at which it left."""
    if race is None or not race.looks:
        return len(scores.get(name, []))
    return race.diverged.get(name) or race.looks[-1].counts.get(race.same_as.get(name, name), 0)


def _scores_row(scores: Sequence[float], mean: float, n_repeats: int) -> dict[str, Any]:
    own = np.asarray(scores[:n_repeats], dtype=np.float64)
    return {"mean": mean, "sd": float(own.std(ddof=1)) if n_repeats > 1 else math.nan, "n": n_repeats}


def _verdict_row(name: str, with_best: Mapping[str, Comparison], race: Race | None) -> dict[str, Any]:
    """What choosing the activation costs at most, and what it is against the best; the best has no verdict."""
    if name in with_best:
        return {"cost_at_most": with_best[name].cost_at_most, "verdict": with_best[name].verdict}
    if not with_best or race is None:
        return {"cost_at_most": math.nan, "verdict": None}
    last = race.looks[-1]
    return {"cost_at_most": last.cost_at_most(last.best) / last.mean(last.best, last.n_repeats), "verdict": None}


def _ranking_row(members: pd.DataFrame, chosen: pd.DataFrame, searched: Sequence[float]) -> dict[str, Any]:
    """From the members of one activation and the rows chosen of it."""
    tried = sorted(set(members.learning_rate.tolist()))
    # none was chosen of an activation that diverged at several
    rate = float(chosen.learning_rate.iloc[0]) if len(chosen) else tried[0] if len(tried) == 1 else math.nan
    return {
        "learning_rate": rate,
        "diverged": int(members.diverged.sum()),
        "n_members": len(members),
        "n_parameters": int(members.n_parameters.max()),
        "seconds": float(members.seconds.sum()),
        "member_epochs": int(members.epochs.sum()),
        "edge_of_range": is_at_edge(rate, searched or tried),
        "learning_rates_tried": tried,
    }


def is_at_edge(rate: float, tried: Sequence[float]) -> bool:
    """Whether a rate is (nearly) the lowest or highest of several, so that a better one may lie outside."""
    low, high = math.log(min(tried)), math.log(max(tried))
    margin = EDGE_SHARE * (high - low) + 1e-9
    position = math.log(rate)
    return high > low and (position <= low + margin or position >= high - margin)


def _comparison_row(comparison: Comparison, race: Race | None, seconds: float) -> dict[str, Any]:
    """With the seconds that the repeats needed would take, in which everybody still in is trained."""
    assert race is not None
    last, needed = race.looks[-1], comparison.repeats_needed
    n_in = sum(own in last.still_in for own in race.same_as.values())
    return vars(comparison) | {
        "seconds_needed": None if needed is None else needed * n_in * race.terms.n_folds * seconds
    }


def _appendix(chosen: pd.DataFrame, order: Mapping[str, float], n_folds: int) -> dict[str, Any]:
    """The corrected resampled t-test of the best against each, over the folds of the repeats that both have, for
    readers who know it. Its differences are those of mean scores of folds, in the unit of the score."""
    by_name = {str(name): rows.set_index(PAIR).score for name, rows in chosen.groupby("activation")}
    best, *others = [name for name in order if name in by_name]
    pairs = {name: by_name[best].to_frame("a").join(by_name[name].rename("b"), how="inner") for name in others}
    tests = {name: corrected_resampled_t(pair.b, pair.a, 1 / (n_folds - 1)) for name, pair in pairs.items()}
    adjusted = holm([test.p for test in tests.values()]).tolist()
    rows = [
        {"a": best, "b": name} | vars(test) | {"p_holm": p, "n": len(pairs[name])}
        for (name, test), p in zip(tests.items(), adjusted, strict=True)
    ]
    return {"corrected_resampled_t": rows}


def race_record(race: Race | None, members: pd.DataFrame) -> dict[str, Any]:
    """How the run went: the part of summary.json's `protocol` that says what was looked at and why it ended."""
    chosen = choose(members, race is not None)
    own = members_of(chosen, members)
    looks = race.looks if race is not None else ()
    n_repeats = chosen.groupby("activation").repeat.nunique()
    return {
        "looks": [_look_row(look) for look in looks] if race is not None else [],
        "ending": race.ending if race is not None else None,
        "n_networks": race.n_networks if race is not None and looks else len(own),
        "n_networks_swept": len(members) - len(own),
        "seconds_per_network": seconds_per_network(members, chosen),
        "repeats_done": looks[-1].n_repeats if looks else int(n_repeats.max()) if len(n_repeats) else 0,
    }


def _look_row(look: Look) -> dict[str, Any]:
    """Equal settings stand for themselves here."""
    return {
        "n_repeats": look.n_repeats,
        "alpha": look.alpha,
        "entered": sum(own in look.entered for own in look.same_as.values()),
        "left": [name for name, own in look.same_as.items() if own in look.left],
        "leader": look.best,
    }


def seconds_per_network(members: pd.DataFrame, chosen: pd.DataFrame) -> float:
    """Mean over the networks that count; nan without any."""
    return float(members_of(chosen, members).seconds.mean())


def winner_row(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ranking's row of the winner; None where no activation has a score."""
    row = rows_by_activation(summary).get(str(summary.get("winner")))
    return row if row is not None and row["mean"] is not None and math.isfinite(row["mean"]) else None


def rows_by_activation(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Activation to its row of the ranking, best first; nothing for a fit."""
    return {str(row["activation"]): row for row in summary.get("ranking") or []}


def comparison_with_winner(summary: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What an activation is against the best; None for the best itself, and where nothing was compared."""
    return _comparison_of(summary, "best", name)


def baseline_comparison(summary: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What an activation is against the baseline; None for the baseline itself, and where nothing was compared."""
    return _comparison_of(summary, "baseline", name)


def _comparison_of(
    summary: Mapping[str, Any], against: Literal["best", "baseline"], name: str
) -> dict[str, Any] | None:
    rows = summary.get("comparisons") or []
    return next((dict(row) for row in rows if row.get("against") == against and row["b"] == name), None)
