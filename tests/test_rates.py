"""The best learning rate of a sweep, and where it goes on."""

import math

import numpy as np
import pytest

from actlab.verdict.rates import best_rate, further_rates, kept, lowest
from actlab.verdict.summary import is_at_edge

ASKED = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]


def test_the_better_half_and_the_neighbours_of_the_best_go_on() -> None:
    rates = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    # the four best are 1, 2, 7 and 8; those around 8 stay whatever they score
    scores = dict(zip(rates, [0.2, 0.3, 0.9, 0.9, 0.9, 0.8, 0.25, 0.1], strict=True))
    assert kept(scores) == {1.0, 2.0, 6.0, 7.0, 8.0}
    assert kept({1.0: math.inf, 2.0: 0.5}) == {1.0, 2.0}


def test_the_lowest_mean_is_the_best_among_few_or_without_a_convex_parabola() -> None:
    assert best_rate({1e-3: -1.0, 1e-2: -1.2, 1e-1: -1.1}) == 1e-2
    assert best_rate({1e-3: -1.3, 1e-2: -1.0, 1e-1: -1.0, 1.0: -1.29}) == 1e-3
    assert best_rate({1e-3: math.inf, 1e-2: None}) is None


def test_a_parabola_over_the_neighbours_finds_the_middle_of_a_flat_valley() -> None:
    # on a parabola with its lowest point at 10^-2.4, but for luck at 10^-2: the neighbours say better
    truth = {10.0**x: 0.1 * (x + 2.4) ** 2 for x in (-3, -2.5, -2, -1.5)}
    lucky = {**truth, 10.0**-2: 0.0005}
    assert lowest(lucky) == 10.0**-2
    assert best_rate(truth) == best_rate(lucky) == 10.0**-2.5


def test_a_cliff_bends_no_parabola() -> None:
    tried = {1e-3: -1.80, 3e-3: -1.83, 1e-2: -1.85, 3e-2: -1.86, 9e-2: -0.5}
    assert best_rate(tried) == best_rate({**tried, 9e-2: 3.0}) == 3e-2


def test_the_parabola_is_least_squares_within_two_steps() -> None:
    tried = {1e-5: 0.2, **dict(zip(ASKED, [0.10, 0.04, 0.03, 0.05, 0.2], strict=True))}
    # 1e-5 lies three steps from 3e-3 and would bend it
    near = {rate: score for rate, score in tried.items() if rate > 1e-4}
    curvature, slope, _ = np.polyfit(np.log(list(near)), list(near.values()), 2)
    fitted = {rate: curvature * math.log(rate) ** 2 + slope * math.log(rate) for rate in near}
    assert best_rate(tried) == min(fitted, key=lambda rate: fitted[rate])


@pytest.mark.parametrize(
    ("scores", "further"),
    [
        ([5, 4, 3, 4, 5], []),
        ([5, 4, 3, 2, 1], [0.09]),
        ([1, 2, 3, 4, 5], [9e-5]),
        ([None, None, 3, 2, 1], [0.09]),
        ([5, 4, 3, 2, math.inf], []),
        ([math.inf] * 5, []),
    ],
)
def test_an_end_that_is_best_is_gone_beyond_by_the_ratio_of_the_last_two(
    scores: list[float | None], further: list[float]
) -> None:
    assert further_rates(dict(zip(ASKED, scores, strict=True)), ASKED) == further


def test_at_most_three_further_rates_a_side_and_none_for_a_single_one() -> None:
    tried: dict[float, float | None] = dict(zip(ASKED, [5.0, 4.0, 3.0, 2.0, 1.0], strict=True))
    added = []
    while further := further_rates(tried, ASKED):
        added += further
        tried[further[0]] = -float(len(added))
    assert added == [0.09, 0.27, 0.81]
    assert best_rate(tried) == 0.81
    assert is_at_edge(0.81, list(tried))
    assert further_rates({1e-3: 0.1}, [1e-3]) == []


def test_divergence_beyond_the_best_ends_the_widening_and_is_no_edge() -> None:
    tried = dict(zip([*ASKED, 0.09], [5.0, 4.0, 3.0, 2.0, 1.0, math.inf], strict=True))
    assert further_rates(tried, ASKED) == []
    best = best_rate(tried)
    assert best in (1e-2, 3e-2)
    assert not is_at_edge(best, list(tried))
