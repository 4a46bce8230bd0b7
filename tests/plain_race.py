"""The method from noise to words once more, in plain loops and with scipy's quantiles: slow, to check against."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from scipy import stats

LOOKS = {4: 0.005, 8: 0.01, 16: 0.02, 32: 0.01, 64: 0.005}
# variance of rows of a pair on its first so many repeats
RowsVariance = Callable[[str, str, int], float]


@lru_cache(maxsize=10_000)
def plain_quantile(alpha: float, k: int, df: float) -> float:
    return float(stats.studentized_range.isf(alpha, k, df)) / math.sqrt(2)


def plain_noise(scores: Sequence[Sequence[float]]) -> tuple[list[list[float]], int]:
    """Squared standard errors of all pairs and their degrees of freedom."""
    k, n_repeats = len(scores), len(scores[0])
    v = [[0.0] * k for _ in range(k)]
    for i in range(k):
        for j in range(k):
            differences = [a - b for a, b in zip(scores[i], scores[j], strict=True)]
            centre = sum(differences) / n_repeats
            v[i][j] = sum((d - centre) ** 2 for d in differences) / (n_repeats - 1)
    pairs = sorted(v[i][j] for i, j in combinations(range(k), 2))
    middle = len(pairs) // 2
    median = pairs[middle] if len(pairs) % 2 else (pairs[middle - 1] + pairs[middle]) / 2
    m = sum(min(pair, 3 * median) for pair in pairs) / len(pairs)
    se2 = [[max(w, (8 * m + (n_repeats - 1) * w) / (n_repeats + 7)) / n_repeats for w in row] for row in v]
    return se2, min(n_repeats + 7, (k - 1) * (n_repeats - 1))


def plain_race(
    scores: Mapping[str, Sequence[float]],
    n_folds: int,
    budget: float,
    rope: float,
    rows_variance: RowsVariance | None = None,
    rows_df: float = math.nan,
) -> dict[str, Any]:
    """Of settings of which no two are equal: leavers at each look, leaders, U, verdicts against the last leader."""
    race = _Plain(scores, rope, rows_variance, rows_df)
    n_networks, before, ending = 0, 0, "repeats"
    for look, alpha in LOOKS.items():
        cost = len(race.inside) * n_folds * (look - before)
        if n_networks + cost > budget:
            ending = "budget"
            break
        n_networks, before = n_networks + cost, look
        race.look(look, alpha)
        if len(race.inside) < 2:
            ending = "alone"
            break
        if all(race.costs[name] <= rope * race.mean(race.leader, look) for name in race.inside):
            ending = "settled"
            break
    return {
        "looks": race.record,
        "verdicts": {name: race.verdict(name) for name in scores if name != race.leader},
        "n_networks": n_networks,
        "ending": ending,
        "diverged": race.diverged,
    }


class _Plain:
    def __init__(
        self,
        scores: Mapping[str, Sequence[float]],
        rope: float,
        rows_variance: RowsVariance | None,
        rows_df: float,
    ) -> None:
        self.scores, self.rope, self.rows_variance, self.rows_df = scores, rope, rows_variance, rows_df
        self.inside = list(scores)
        self.counts: dict[str, int] = {}
        self.record: list[dict[str, Any]] = []
        self.diverged: dict[str, int] = {}
        self.here: set[str] = set()
        self.anew: set[str] = set()
        self.costs: dict[str, float] = {}
        self.costs_anew: dict[str, float] = {}
        self.leader = ""

    def mean(self, name: str, n_repeats: int) -> float:
        return sum(self.scores[name][:n_repeats]) / n_repeats

    def look(self, look: int, alpha: float) -> None:
        for name in list(self.inside):
            if not all(math.isfinite(x) for x in self.scores[name][:look]):
                self.diverged[name] = look
                self.inside.remove(name)
                self.counts.pop(name, None)
        entered = list(self.inside)
        self.counts.update(dict.fromkeys(entered, look))

        def interval(a: str, b: str, is_anew: bool) -> tuple[float, float]:
            """Of b less a."""
            r = min(self.counts[a], self.counts[b])
            group = [name for name in self.counts if self.counts[name] >= r]
            se2, df = plain_noise([self.scores[name][:r] for name in group])
            training = se2[group.index(a)][group.index(b)]
            both = a in entered and b in entered
            half = plain_quantile(alpha, len(entered) if both else len(self.counts), df) * math.sqrt(training)
            if is_anew:
                if self.rows_variance is None:
                    return -math.inf, math.inf
                rows = self.rows_variance(a, b, r)
                total = training + rows
                of_both = total**2 / (training**2 / df + rows**2 / self.rows_df)
                half = max(half, plain_quantile(alpha, len(self.counts), of_both) * math.sqrt(total))
            d = self.mean(b, r) - self.mean(a, r)
            return d - half, d + half

        def others(name: str, among: Sequence[str]) -> list[str]:
            return [other for other in among if other != name]

        left = {i for i in entered if any(interval(j, i, False)[0] > 0 for j in others(i, entered))}
        every = list(self.counts)
        self.anew |= {i for i in every if any(interval(j, i, True)[0] > 0 for j in others(i, every))}
        self.here |= left
        self.inside = [name for name in entered if name not in left]
        inside = self.inside
        self.costs = {i: max([0.0] + [interval(j, i, False)[1] for j in others(i, inside)]) for i in inside}
        self.costs_anew = {i: max([0.0] + [interval(j, i, True)[1] for j in others(i, every)]) for i in inside}
        if inside:
            self.leader = min(inside, key=lambda name: self.mean(name, look))
            self.record.append({"n": look, "left": left, "leader": self.leader, "costs": dict(self.costs)})

    def verdict(self, name: str) -> tuple[str, str | None]:
        if name in self.diverged:
            return "diverged", None
        if name in self.anew:
            return "worse", "new rows"
        if name in self.here:
            return "worse here", "these rows"
        region = self.rope * self.mean(self.leader, self.counts[self.leader])
        if self.costs[name] <= region:
            return "as good", "new rows" if self.costs_anew[name] <= region else "these rows"
        return "not settled", "these rows"
