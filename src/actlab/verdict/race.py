"""The race: which repeats to train next, and who leaves at which look.

Repeats are trained for all that are still in; at a few looks those shown to be worse leave. What comes next is a pure
function of the scores that are there, so several workers, a run that was interrupted and one that has grown agree.
Scores, noise and quantiles are as `simultaneous` has them; a score that is not finite is a training that diverged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from actlab.settings import ALPHA
from actlab.verdict.simultaneous import FloatArray, RowNoise, noise_of_training, quantile

Covers = Literal["new rows", "these rows"]
Ending = Literal["settled", "alone", "budget", "repeats"]

# Repeats at which a race is looked at, and the share of the error that each look may spend, for each of two questions.
LOOKS, SHARES = (4, 8, 16, 32, 64), (0.1, 0.2, 0.4, 0.2, 0.1)
# The look that the default budget takes everybody to.
DEFAULT_LOOK = 16
# Standard deviation over repeats of the difference of two settings, as a share of the score, for one network a fold in
# FOLDS_OF_SPREAD folds: between those of House Prices (2.2 %) and Concrete (3.0 %).
TYPICAL_SPREAD, FOLDS_OF_SPREAD = 0.025, 5
# A standard error below this share of the mean is rounding, not noise.
SMALLEST = 1e-12
# of the standard normal: what a difference must exceed besides the quantile to be found four times in five
POWER_QUANTILE = 0.84


@dataclass(frozen=True)
class Terms:
    """What a race is held under.

    Args:
        n_folds: Networks of one setting and repeat that are averaged to one score: folds, times inner splits.
        budget: Networks to train at most.
        rope: Half-width of the region of practical equivalence, as a share of the leader's mean.
        looks: (repeats, alpha) of each look, in order.
    """

    n_folds: int
    budget: int
    rope: float
    looks: tuple[tuple[int, float], ...]

    @classmethod
    def race(cls, n_folds: int, budget: int, rope: float, n_repeats: int = LOOKS[-1]) -> "Terms":
        """Looks up to `n_repeats`."""
        spent = zip(LOOKS, SHARES, strict=True)
        return cls(n_folds, budget, rope, tuple((look, ALPHA * share) for look, share in spent if look <= n_repeats))

    @classmethod
    def grid(cls, n_folds: int, rope: float, n_repeats: int) -> "Terms":
        """One look at the end, without a budget; below the fewest repeats of a race none, and no verdict."""
        return cls(n_folds, 2**62, rope, ((n_repeats, ALPHA),) if n_repeats >= LOOKS[0] else ())


def default_budget(n_folds: int, n_settings: int) -> int:
    """Networks that take every setting to `DEFAULT_LOOK`."""
    return DEFAULT_LOOK * n_folds * n_settings


def least_budget(n_folds: int, n_settings: int) -> int:
    """Networks that take every setting to the first look."""
    return LOOKS[0] * n_folds * n_settings


def look_reached(terms: Terms, n_settings: int) -> tuple[int, float] | None:
    """The last look that the budget reaches if nobody leaves."""
    reached = [look for look in terms.looks if look[0] * terms.n_folds * n_settings <= terms.budget]
    return reached[-1] if reached else None


def detectable(terms: Terms, n_settings: int, n_folds: int) -> float | None:
    """About the smallest difference, as a share of the score, that is found four times in five on these rows; before
    anything is known of this table's noise, so for a typical one. None where the budget reaches no look."""
    look = look_reached(terms, n_settings)
    if look is None or n_settings < 2:
        return None
    n_repeats, alpha = look
    spread = TYPICAL_SPREAD * math.sqrt(FOLDS_OF_SPREAD / n_folds / n_repeats)
    return (float(quantile(alpha, n_settings, degrees(n_settings, n_repeats))) + POWER_QUANTILE) * spread


def degrees(k: int, n_repeats: int) -> float:
    """Degrees of freedom of the noise of training of k settings."""
    return noise_of_training(np.zeros((k, n_repeats)))[1]


@dataclass(frozen=True)
class Pair:
    """The mean of b minus that of a over the first `n_repeats` repeats, and half of its simultaneous interval; nan
    where nothing can be said: without any spread over repeats there is no telling how large it is by luck."""

    difference: float
    half: float
    n_repeats: int

    @property
    def low(self) -> float:
        return self.difference - self.half

    @property
    def high(self) -> float:
        return self.difference + self.half


@dataclass(frozen=True, eq=False)
class Look:
    """What is known after some repeats.

    Args:
        entered: Settings in the race when it began, finite in every repeat so far, equal ones once.
        counts: Repeats of every setting that is or was in the race, equal ones once, those that diverged left out.
        scores: Setting to its scores, at least so many.
        same_as: Setting to the one that stands for it among those, equal to the bit in every repeat so far.
        rows: Noise of rows; None where only these rows are spoken of.

    Methods take any setting that was finite so far; what they return names those that stand for others.
    """

    n_repeats: int
    alpha: float
    rope: float
    entered: tuple[str, ...]
    counts: Mapping[str, int]
    scores: Mapping[str, FloatArray]
    same_as: Mapping[str, str]
    rows: RowNoise | None = None
    _noise: dict[int, tuple[dict[str, int], FloatArray, float]] = field(default_factory=dict)
    _pairs: dict[tuple[str, str, Covers], Pair] = field(default_factory=dict)

    def _noise_at(self, n_repeats: int) -> tuple[dict[str, int], FloatArray, float]:
        """Places of the settings that have so many repeats, squared standard errors of their pairs, and df."""
        if n_repeats not in self._noise:
            # in an order of their own: sums of floats must not depend on the order of the settings
            names = sorted(name for name, count in self.counts.items() if count >= n_repeats)
            found = noise_of_training(np.stack([self.scores[name][:n_repeats] for name in names]))
            self._noise[n_repeats] = {name: place for place, name in enumerate(names)}, *found
        return self._noise[n_repeats]

    def mean(self, name: str, n_repeats: int) -> float:
        return float(self.scores[name][:n_repeats].mean())

    def standard_error(self, a: str, b: str, covers: Covers = "these rows") -> tuple[float, float]:
        """Of the difference of two settings on the repeats that both have, and its degrees of freedom."""
        a, b = self.same_as[a], self.same_as[b]
        n_repeats = min(self.counts[a], self.counts[b])
        places, squared, df = self._noise_at(n_repeats)
        training = float(squared[places[a], places[b]])
        if covers == "these rows":
            return math.sqrt(training), df
        rows = self.variance_of_rows(a, b)
        total = training + rows
        if not total > 0:
            return math.sqrt(total) if total == 0 else math.nan, df
        assert self.rows is not None
        return math.sqrt(total), total**2 / (training**2 / df + rows**2 / self.rows.df)

    def variance_of_rows(self, a: str, b: str) -> float:
        if self.rows is None:
            return math.nan
        a, b = self.same_as[a], self.same_as[b]
        n_repeats = min(self.counts[a], self.counts[b])
        return self.rows.variance(a, b, n_repeats, {name: self.mean(name, n_repeats) for name in (a, b)})

    def pair(self, a: str, b: str, covers: Covers = "these rows") -> Pair:
        """b against a; the quantile answers for all that entered where both did and these rows are asked about, else
        for all settings.

        What holds for new rows holds for these: that interval is never the narrower one, as it could be by the degrees
        of freedom alone, which the noise of rows adds to those of training.
        """
        low, high = sorted((self.same_as[a], self.same_as[b]))
        if (low, high, covers) not in self._pairs:
            self._pairs[low, high, covers] = self._pair(low, high, covers)
        found = self._pairs[low, high, covers]
        return found if low == self.same_as[a] else replace(found, difference=-found.difference)

    def _pair(self, a: str, b: str, covers: Covers) -> Pair:
        n_repeats = min(self.counts[a], self.counts[b])
        if a == b:
            return Pair(0.0, 0.0, n_repeats)
        difference = self.mean(b, n_repeats) - self.mean(a, n_repeats)
        se, df = self.standard_error(a, b, covers)
        if not se > SMALLEST * abs(self.mean(a, n_repeats)):
            return Pair(difference, math.nan, n_repeats)
        are_in = covers == "these rows" and a in self.entered and b in self.entered
        half = se * float(quantile(self.alpha, len(self.entered if are_in else self.counts), df))
        return Pair(difference, half if covers == "these rows" else max(half, self.pair(a, b).half), n_repeats)

    def _worst(self, name: str, others: Sequence[str], covers: Covers) -> str | None:
        """Whom `name` is shown to be worse than, by the widest margin."""
        margins = {other: self.pair(other, name, covers).low for other in others if other != name}
        shown = {other: low for other, low in margins.items() if low > 0}
        return max(sorted(shown), key=lambda other: shown[other]) if shown else None

    @cached_property
    def left(self) -> dict[str, str]:
        """Those shown to be worse here than another that entered, with that other; they leave the race."""
        found = {name: self._worst(name, self.entered, "these rows") for name in self.entered}
        return {name: other for name, other in found.items() if other is not None}

    @cached_property
    def still_in(self) -> tuple[str, ...]:
        """Best mean first."""
        names = [name for name in self.entered if name not in self.left]
        return tuple(sorted(names, key=lambda name: (self.mean(name, self.n_repeats), name)))

    @property
    def best(self) -> str:
        return self.still_in[0]

    @cached_property
    def worse(self) -> dict[str, str]:
        """All settings shown to be worse than another for new rows of the same source, with that other."""
        if self.rows is None or len(self.counts) < 2:
            return {}
        found = {name: self._worst(name, list(self.counts), "new rows") for name in self.counts}
        return {name: other for name, other in found.items() if other is not None}

    def worse_than(self, covers: Covers) -> dict[str, str]:
        """`left` or `worse`."""
        return self.left if covers == "these rows" else self.worse

    @property
    def region(self) -> float:
        """Half-width of the region of practical equivalence."""
        return self.rope * self.mean(self.best, self.n_repeats)

    def region_of(self, a: str, pair: Pair) -> float:
        """The same beside a difference from `a`, which is printed as a share of its mean on the repeats of the pair."""
        return self.rope * self.mean(a, pair.n_repeats)

    def cost_at_most(self, name: str, covers: Covers = "these rows") -> float:
        """U: what choosing `name`, still in, can cost at most against any other that is in (for new rows: any other),
        at least 0."""
        others = self.still_in if covers == "these rows" else tuple(self.counts)
        highs = [self.pair(other, name, covers).high for other in others if other != self.same_as[name]]
        return math.nan if any(map(math.isnan, highs)) else max([0.0, *highs])

    def is_as_good(self, name: str, covers: Covers = "these rows") -> bool:
        return self.cost_at_most(name, covers) <= self.region


@dataclass(frozen=True, eq=False)
class Race:
    """A race as far as its scores go.

    Args:
        looks: Those that were taken; none where all that were still in diverged, and nobody is left to compare with.
        missing: Setting to the repeats, from 1 on, that the next look needs and that are not there; empty at the end.
        ending: Why it ended; None while repeats are missing.
        n_networks: That count for its looks.
        same_as: Setting to the one that stands for it, equal to the bit up to the last look that it was in.
        diverged: Setting to the repeats after which it left because one of them was not finite.
        used: Setting to the repeats that its looks have read.
    """

    terms: Terms
    looks: tuple[Look, ...]
    missing: Mapping[str, tuple[int, ...]]
    ending: Ending | None
    n_networks: int
    same_as: Mapping[str, str]
    diverged: Mapping[str, int]
    used: Mapping[str, int]

    @property
    def is_over(self) -> bool:
        return self.ending is not None


def run(scores: Mapping[str, Sequence[float]], terms: Terms, rows: RowNoise | None = None) -> Race:
    """Replay the race of these settings from its start.

    `scores` has each setting's scores of repeats 1, 2, ... as far as they were trained; a look reads no more than its
    own number of repeats, however many are there.
    """
    known = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    still_in, counts, same_as = list(known), dict.fromkeys(known, 0), {name: name for name in known}
    looks: list[Look] = []
    diverged: dict[str, int] = {}
    used = dict.fromkeys(known, 0)
    n_networks = before = 0
    ending: Ending = "repeats"
    for n_repeats, alpha in terms.looks:
        cost = len(still_in) * (n_repeats - before) * terms.n_folds
        if n_networks + cost > terms.budget:
            ending = "budget"
            break
        missing = {name: tuple(range(len(known[name]) + 1, n_repeats + 1)) for name in still_in}
        if any(missing.values()):
            needed = {name: repeats for name, repeats in missing.items() if repeats}
            return Race(terms, tuple(looks), needed, None, n_networks, same_as, diverged, used)
        n_networks, before = n_networks + cost, n_repeats
        used |= dict.fromkeys(still_in, n_repeats)
        is_finite = {name: bool(np.isfinite(known[name][:n_repeats]).all()) for name in still_in}
        diverged |= {name: n_repeats for name in still_in if not is_finite[name]}
        still_in = [name for name in still_in if is_finite[name]]
        counts |= dict.fromkeys(still_in, n_repeats)
        # one that diverged is like nobody any more
        same_as |= {name: name for name in is_finite}
        first: dict[bytes, str] = {}
        for name in sorted(still_in):
            same_as[name] = first.setdefault(known[name][:n_repeats].tobytes(), name)
        shown = {name: count for name, count in counts.items() if name not in diverged and same_as[name] == name}
        if not still_in:
            looks, ending = [], "alone"
            break
        look = Look(n_repeats, alpha, terms.rope, tuple(first.values()), shown, known, dict(same_as), rows)
        looks.append(look)
        still_in = [name for name in still_in if same_as[name] in look.still_in]
        if len(look.still_in) < 2:
            ending = "alone"
            break
        if all(map(look.is_as_good, look.still_in)):
            ending = "settled"
            break
    return Race(terms, tuple(looks), {}, ending, n_networks, same_as, diverged, used)
