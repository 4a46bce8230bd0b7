"""Several activations on several data sets, from their summaries: ranks, Friedman test, critical difference.

This answers for the luck of the data set: would the order hold on other tables? The luck of training and that of the
rows are answered for by each data set's own verdicts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from actlab.config import MIN_DATA_SETS
from actlab.errors import InputError
from actlab.verdict.summary import comparison_with_winner, rows_by_activation

MIN_ACTIVATIONS = 3


@dataclass(frozen=True)
class FriedmanTest:
    """Average ranks (1 is best) and what they show; sequences follow `activations`, best average rank first.

    `p` is the chi-squared approximation, `p_permutation` the Monte Carlo permutation p-value of the same statistic.
    `nemenyi_p` is symmetric, name to name. A group is a maximal set of activations whose average ranks span no more
    than `critical_difference`: one bar of a critical-difference diagram.
    """

    activations: tuple[str, ...]
    average_ranks: tuple[float, ...]
    n_data_sets: int
    chi_squared: float
    df: int
    p: float
    p_permutation: float
    alpha: float
    critical_difference: float
    nemenyi_p: dict[str, dict[str, float]]
    groups: tuple[tuple[str, ...], ...]

    @property
    def can_show_difference(self) -> bool:
        """Whether full agreement of all data sets would exceed the critical difference; at 5 % two never can."""
        return self.critical_difference < len(self.activations) - 1


def friedman(
    scores: pd.DataFrame, alpha: float = 0.05, n_permutations: int = 9_999, seed: int | np.random.Generator = 0
) -> FriedmanTest:
    """Friedman test with Nemenyi's post-hoc comparison (Demsar 2006) of `scores`, data sets by activations.

    One score for each cell, lower is better; activations are paired by data set, and only their order within a data
    set counts. Friedman's statistic (`scipy.stats.friedmanchisquare`, corrected for ties) asks whether any differ;
    its chi-squared p-value needs some ten data sets, the permutation p-value (ranks shuffled within data sets, exact
    up to Monte Carlo error) does not. Iman and Davenport's F is left out: where few data sets agree fully it is
    infinite and its p-value 0. Nemenyi's p-values and `critical_difference` (studentised range over all pairs,
    two-sided) control the family-wise error at `alpha` themselves: no Holm on top.

    A score that is not finite (diverged) ranks behind every finite one, diverged ones tie. What `check_size` refuses
    is refused; with two data sets the test runs, but no difference can reach Nemenyi's critical difference at 5 %
    before there are three (`can_show_difference`).
    """
    import scikit_posthocs
    from scipy import stats

    n_data_sets, n_activations = scores.shape
    check_size(n_data_sets, n_activations)
    if not scores.columns.is_unique:
        raise InputError(f"activations must be unique, got {', '.join(map(str, scores.columns))}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be between 0 and 1, got {alpha}")
    ranks = ranks_of(scores)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    ranks = ranks[:, order]
    names, average_ranks = [str(name) for name in scores.columns[order]], ranks.mean(axis=0).tolist()
    chi_squared, p = stats.friedmanchisquare(*ranks.T) if np.ptp(ranks, axis=1).any() else (0.0, 1.0)
    difference = critical_difference(n_activations, n_data_sets, alpha)
    # ranks of ranks are the ranks: diverged scores keep their last place
    nemenyi_p = scikit_posthocs.posthoc_nemenyi_friedman(ranks).set_axis(names).set_axis(names, axis=1)
    return FriedmanTest(
        activations=tuple(names),
        average_ranks=tuple(average_ranks),
        n_data_sets=n_data_sets,
        chi_squared=float(chi_squared),
        df=n_activations - 1,
        p=float(p),
        p_permutation=_permutation_p(ranks, n_permutations, np.random.default_rng(seed)),
        alpha=alpha,
        critical_difference=difference,
        nemenyi_p=nemenyi_p.to_dict(),
        groups=_groups(names, average_ranks, difference),
    )


def ranks_of(scores: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Ranks within each row, 1 for the lowest score; equals share their mean rank, and nan ranks with infinity."""
    from scipy import stats

    values = scores.to_numpy(dtype=np.float64)
    return np.asarray(stats.rankdata(np.where(np.isfinite(values), values, np.inf), axis=1), dtype=np.float64)


def critical_difference(n_activations: int, n_data_sets: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of two average ranks, q_alpha sqrt(k (k + 1) / (6 N)) (Demsar 2006).

    q_alpha is the upper `alpha` quantile of the studentised range of k normals (infinite degrees of freedom) / sqrt(2).
    """
    from scipy import stats

    q = float(stats.studentized_range.ppf(1 - alpha, n_activations, np.inf)) / math.sqrt(2)
    return q * math.sqrt(n_activations * (n_activations + 1) / (6 * n_data_sets))


def check_size(n_data_sets: int, n_activations: int) -> None:
    """Raise an `InputError` with the reason where there is too little to rank."""
    if n_data_sets < MIN_DATA_SETS:
        raise InputError(
            "the Friedman test ranks activations against each other across data sets and needs at least "
            f"{MIN_DATA_SETS} of them, got {n_data_sets}; a single data set has its own verdicts"
        )
    if n_activations < MIN_ACTIVATIONS:
        raise InputError(
            f"the Friedman test needs at least {MIN_ACTIVATIONS} activations, got {n_activations}; "
            "for two, see the verdicts on each data set"
        )


def _permutation_p(ranks: npt.NDArray[np.float64], n_permutations: int, generator: np.random.Generator) -> float:
    """Share of shuffles, the observed order included, with at least the observed sum of squared rank sums."""
    rank_sums = np.zeros((n_permutations, ranks.shape[1]))
    for row in ranks:
        rank_sums += generator.permuted(np.tile(row, (n_permutations, 1)), axis=1)
    observed = (ranks.sum(axis=0) ** 2).sum()
    n_as_extreme = np.count_nonzero((rank_sums**2).sum(axis=1) >= observed - 1e-9)
    return float((1 + n_as_extreme) / (1 + n_permutations))


def _groups(names: list[str], average_ranks: list[float], difference: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of at least two names, in rank order, that span no more than `difference`."""
    groups: list[tuple[str, ...]] = []
    last_end = 0
    for start, rank in enumerate(average_ranks):
        end = start + sum(other - rank <= difference for other in average_ranks[start:])
        if end > max(last_end, start + 1):
            groups.append(tuple(names[start:end]))
        last_end = max(last_end, end)
    return tuple(groups)


def summarise_data_sets(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What summary.json of a comparison holds, from those of data sets by name, all with the same activations.

    Scores are the means over repeats that each data set's ranking states; they are ranked within their data set, so
    data sets may have different metrics and scales. None, of an activation that diverged, ranks last. `verdicts` are
    each data set's own words for its activations against its best.

    Raises what `check_size` raises.
    """
    rows = {name: rows_by_activation(summary) for name, summary in summaries.items()}
    means = {name: {activation: row["mean"] for activation, row in own.items()} for name, own in rows.items()}
    scores = pd.DataFrame.from_dict(means, orient="index").astype(float)
    test = friedman(scores)
    ranks = pd.DataFrame(ranks_of(scores), index=scores.index, columns=scores.columns)
    order = list(test.activations)
    # where the permutation test shows no difference at all, Nemenyi's groups do not count (Demsar's order)
    groups = test.groups if test.p_permutation <= test.alpha else (test.activations,)
    stated = ("chi_squared", "df", "p", "p_permutation", "alpha", "n_data_sets")
    kept = ("metric", "winner", "indistinguishable_from_winner")
    return {
        "command": "compare",
        "data_sets": [
            {"name": name, **summary.get("data", {}), **{key: summary.get(key) for key in kept}}
            for name, summary in summaries.items()
        ],
        "activations": order,
        "mean_ranks": dict(zip(order, test.average_ranks, strict=True)),
        "scores": {name: scores.loc[name, order].to_dict() for name in summaries},
        "ranks": {name: ranks.loc[name, order].to_dict() for name in summaries},
        "friedman": {key: getattr(test, key) for key in stated} | {"n_activations": len(order)},
        "critical_difference": test.critical_difference,
        "can_show_difference": test.can_show_difference,
        "not_distinguished": [list(group) for group in groups],
        "nemenyi_p": test.nemenyi_p,
        "verdicts": {name: _verdicts(summary) for name, summary in summaries.items()},
    }


def ranks_frame(summary: Mapping[str, Any]) -> pd.DataFrame:
    """ranks.csv: a row an activation, best mean rank first, with rank, score and verdict on each data set."""
    columns = {"mean_rank": summary["mean_ranks"]}
    for data_set, verdicts in summary["verdicts"].items():
        columns |= {f"{data_set}_rank": summary["ranks"][data_set], f"{data_set}_score": summary["scores"][data_set]}
        columns[f"{data_set}_verdict"] = verdicts
    return pd.DataFrame(columns, index=pd.Index(summary["activations"], name="activation")).reset_index()


def _verdicts(summary: Mapping[str, Any]) -> dict[str, str]:
    """Activation to what it is against this data set's best; nothing for the best, and where nothing was compared."""
    compared = {name: comparison_with_winner(summary, name) for name in rows_by_activation(summary)}
    return {name: str(comparison["verdict"]) for name, comparison in compared.items() if comparison is not None}
