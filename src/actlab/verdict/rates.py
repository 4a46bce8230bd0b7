"""The learning rate of an activation, from a sweep's validation scores alone: the best, and further ones to try.

`tried` has every learning rate of one activation that was trained in the sweep and its mean log validation score over
the folds: infinite where a fold diverged, None where training was stopped early because others were better.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Tried = Mapping[float, float | None]

# Neighbours on either side of the best that are never given up, and that the parabola is fitted to.
STEPS = 2
# Further learning rates on either side of those asked for, at most.
MOST_FURTHER = 3
# A parabola has three parameters; with fewer points than this it says no more than they do.
FEWEST_FITTED = 4
# It describes the valley and not the cliff beyond: learning rates this much worse (in logarithms) are not fitted.
CLIFF = 0.2


def kept(scores: Mapping[float, float]) -> set[float]:
    """Of learning rates still in training, those that go on at a rung: the better half, and the best with its two
    neighbours on either side. `scores` are mean validation scores so far, infinite where one diverged."""
    rates = sorted(scores)
    order = sorted(rates, key=lambda rate: (scores[rate], rate))
    place = rates.index(order[0])
    return {*order[: math.ceil(len(rates) / 2)], *rates[max(0, place - STEPS) : place + STEPS + 1]}


def _finished(tried: Tried) -> dict[float, float]:
    return {rate: score for rate, score in sorted(tried.items()) if score is not None and math.isfinite(score)}


def lowest(tried: Tried) -> float | None:
    """The learning rate with the lowest mean; None where all diverged."""
    finished = _finished(tried)
    return min(finished, key=lambda rate: (finished[rate], rate)) if finished else None


def best_rate(tried: Tried) -> float | None:
    """The finished learning rate with the lowest value of a parabola in log rate, fitted by least squares to the
    finished ones within two steps of the lowest mean and not far worse; that with the lowest mean where the parabola is
    not convex or fewer than four are left. None where all diverged.

    True curves are flat, and the lowest mean of a few noisy ones is lower by luck.
    """
    finished, start = _finished(tried), lowest(tried)
    if start is None:
        return None
    rates = list(finished)
    place = rates.index(start)
    near = rates[max(0, place - STEPS) : place + STEPS + 1]
    near = [rate for rate in near if finished[rate] <= finished[start] + CLIFF]
    if len(near) < FEWEST_FITTED:
        return start
    x = np.log(near) - math.log(start)
    curvature, slope, _ = np.polyfit(x, [finished[rate] for rate in near], 2)
    if not curvature > 0:
        return start
    return near[int(np.argmin(curvature * x**2 + slope * x))]


def _ends(tried: Tried) -> list[int]:
    """At which ends of the learning rates tried the best ones lie: -1, 1, both or none."""
    rates, best = sorted(tried), {lowest(tried), best_rate(tried)}
    return [side for side, end in ((-1, rates[0]), (1, rates[-1])) if end in best and len(rates) > 1]


def further_rates(tried: Tried, asked: Sequence[float]) -> list[float]:
    """The learning rates to try next, beyond an end where the best one lies: by the ratio of the last two, at most
    `MOST_FURTHER` on either side of those `asked` for; none where a single one was asked for."""
    if len(asked) < 2:
        return []
    rates, found = sorted(tried), []
    for side in _ends(tried):
        last, before = (rates[0], rates[1]) if side < 0 else (rates[-1], rates[-2])
        n_further = sum(rate < min(asked) if side < 0 else rate > max(asked) for rate in rates)
        if n_further < MOST_FURTHER:
            found.append(float(f"{last * last / before:.3g}"))
    return found
