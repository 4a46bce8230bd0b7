"""Several data sets: the worked example of Demsar (2006), scipy, scikit-posthocs, and the exact null distribution."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from actlab.errors import InputError
from actlab.verdict.across_data_sets import critical_difference, friedman, ranks_frame, summarise_data_sets

# Demsar (2006), table 6: area under the curve of four variants of C4.5 on 14 data sets, higher is better. On voting
# (next to last) the paper ranks the last two 2 and 3 although both are printed as 0.975.
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
DEMSAR = pd.DataFrame(1 - AUC, columns=NAMES)


def agreeing(n_data_sets: int, n_activations: int) -> pd.DataFrame:
    """Scores whose order is the same on every data set."""
    columns = [f"a{i}" for i in range(n_activations)]
    return pd.DataFrame(np.tile(np.arange(n_activations), (n_data_sets, 1)), columns=columns)


def test_average_ranks_and_statistic_are_those_of_the_paper() -> None:
    test = friedman(DEMSAR)
    ranks = dict(zip(test.activations, test.average_ranks, strict=True))
    assert [round(ranks[name], 3) for name in NAMES] == [3.143, 2.000, 2.893, 1.964]
    # the paper's 9.28 has no correction for ties; 4 of its 14 rows tie: three pairs and one of four
    correction = 1 - (4 * 6 - 6 + 60) / (14 * 4 * (4**2 - 1))
    assert test.chi_squared * correction == pytest.approx(9.28, abs=0.006)
    assert test.df == 3


def test_friedman_is_that_of_scipy() -> None:
    test, reference = friedman(DEMSAR), stats.friedmanchisquare(*(1 - AUC).T)
    assert (test.chi_squared, test.p) == pytest.approx((reference.statistic, reference.pvalue), rel=1e-12)


def test_groups_are_those_of_the_papers_diagram() -> None:
    at_5 = friedman(DEMSAR)
    assert at_5.critical_difference == pytest.approx(1.25, abs=0.005)
    assert at_5.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    at_10 = friedman(DEMSAR, alpha=0.10)
    assert at_10.critical_difference == pytest.approx(1.12, abs=0.005)
    assert at_10.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))


# Demsar (2006), table 5a, q at 0.05 for 2 to 10 classifiers
@pytest.mark.parametrize(
    ("n_activations", "q"),
    list(enumerate([1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164], start=2)),
)
def test_critical_difference_has_the_published_quantiles(n_activations: int, q: float) -> None:
    expected = q * math.sqrt(n_activations * (n_activations + 1) / (6 * 20))
    assert critical_difference(n_activations, 20) == pytest.approx(expected, rel=5e-4)


def test_nemenyi_p_agrees_with_the_critical_difference() -> None:
    scores = pd.DataFrame(np.random.default_rng(2).random((12, 6)) + np.arange(6) / 4, columns=list("abcdef"))
    test = friedman(scores)
    p = pd.DataFrame(test.nemenyi_p)
    assert (p.to_numpy() == p.to_numpy().T).all()
    distances = np.abs(np.subtract.outer(test.average_ranks, test.average_ranks))
    assert 0 < (p.to_numpy() < 0.05).sum() < 30
    assert ((p.to_numpy() < 0.05) == (distances > test.critical_difference)).all()


def test_groups_are_the_maximal_sets_without_a_shown_difference() -> None:
    for seed in range(5):
        scores = pd.DataFrame(np.random.default_rng(seed).random((10, 6)) + np.arange(6) / 4, columns=list("abcdef"))
        test = friedman(scores)
        alike = pd.DataFrame(test.nemenyi_p) >= 0.05
        sets = [
            set(names)
            for size in range(2, 7)
            for names in itertools.combinations("abcdef", size)
            if alike.loc[list(names), list(names)].all(axis=None)
        ]
        maximal = [names for names in sets if not any(names < other for other in sets)]
        assert sorted(map(sorted, test.groups)) == sorted(map(sorted, maximal))


@pytest.mark.parametrize(("n_data_sets", "n_activations", "exact"), [(2, 3, 1 / 6), (3, 3, 1 / 36), (2, 4, 1 / 24)])
def test_permutation_p_is_the_exact_one_where_data_sets_agree_fully(
    n_data_sets: int, n_activations: int, exact: float
) -> None:
    # only the other data sets' orders that equal the first one's are as extreme
    test = friedman(agreeing(n_data_sets, n_activations), n_permutations=50_000)
    assert test.p_permutation == pytest.approx(exact, abs=4 * math.sqrt(exact / 50_000))


def test_permutation_p_meets_the_chi_squared_one_on_many_data_sets() -> None:
    scores = pd.DataFrame(np.random.default_rng(3).random((60, 4)) + np.array([0, 0, 0, 0.15]))
    test = friedman(scores)
    assert test.p_permutation == pytest.approx(test.p, abs=0.015)


def test_permutation_p_is_never_zero_and_repeats_with_its_seed() -> None:
    scores = agreeing(8, 6)
    assert friedman(scores, n_permutations=99).p_permutation == 0.01
    assert friedman(DEMSAR, n_permutations=99, seed=1) == friedman(DEMSAR, n_permutations=99, seed=1)


def test_two_data_sets_can_never_show_a_difference_and_three_can() -> None:
    for n_activations in range(3, 21):
        assert critical_difference(n_activations, 2) > n_activations - 1
        assert critical_difference(n_activations, 3) < n_activations - 1
    assert not friedman(agreeing(2, 4)).can_show_difference
    assert friedman(agreeing(3, 4)).can_show_difference


def test_diverged_scores_rank_last_and_tie() -> None:
    scores = pd.DataFrame([[math.nan, 1.0, math.inf], [1.0, 2.0, 3.0]], columns=["a", "b", "c"])
    test = friedman(scores)
    assert test.activations == ("b", "a", "c")
    assert test.average_ranks == (1.5, 1.75, 2.75)


def test_without_any_difference_everything_is_one_group() -> None:
    test = friedman(pd.DataFrame(np.ones((4, 3)), columns=["a", "b", "c"]))
    assert (test.chi_squared, test.p, test.p_permutation) == (0, 1, 1)
    assert test.groups == (("a", "b", "c"),)


def test_only_the_order_within_a_data_set_counts() -> None:
    stretched = DEMSAR.mul(np.arange(1, 15), axis=0) ** 3 + 7
    stretched.iloc[9] = 5.0
    assert friedman(stretched) == friedman(DEMSAR)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (DEMSAR[:1], "at least 2 of them, got 1; a single data set has its own verdicts"),
        (DEMSAR[NAMES[:2]], "at least 3 activations, got 2"),
        (DEMSAR[[NAMES[0], NAMES[1], NAMES[0]]], "activations must be unique"),
    ],
)
def test_too_little_is_refused_with_the_reason(scores: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        friedman(scores)


def test_alpha_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(InputError, match="alpha must be between 0 and 1, got 5"):
        friedman(DEMSAR, alpha=5)


def one_summary(means: dict[str, float | None], verdicts: dict[str, str]) -> dict[str, object]:
    """As summary.json of one data set; the first activation is the best."""
    best = next(iter(means))
    compared = [{"against": "best", "a": best, "b": name, "verdict": verdict} for name, verdict in verdicts.items()]
    # against the baseline the words are others, and are no verdicts against the best
    compared += [{"against": "baseline", "a": "c", "b": name, "verdict": "better"} for name in means if name != "c"]
    ranking = [{"activation": name, "mean": mean} for name, mean in means.items()]
    return {"ranking": ranking, "winner": best, "comparisons": compared}


def test_each_data_sets_own_words_stand_beside_the_ranks_of_its_means() -> None:
    first = {"b": "as good", "c": "worse here", "d": "diverged"}
    second = {"a": "not settled", "d": "worse"}
    summary = summarise_data_sets(
        {
            "one": one_summary({"a": 0.1, "b": 0.2, "c": 0.3, "d": None}, first),
            "two": one_summary({"b": 1.0, "a": 2.0, "c": 3.0, "d": 4.0}, second),
        }
    )
    assert summary["verdicts"] == {"one": first, "two": second}
    assert summary["ranks"]["one"] == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert summary["mean_ranks"] == {"a": 1.5, "b": 1.5, "c": 3, "d": 4}
    frame = ranks_frame(summary).set_index("activation")
    assert frame.one_verdict.dropna().to_dict() == first
    assert frame.two_verdict.dropna().to_dict() == second
