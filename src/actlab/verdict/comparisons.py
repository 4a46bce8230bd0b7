"""What may be said of everybody in a race: words, intervals, and what would settle the rest.

The words are those of the look at which they were earned, with that look's intervals: none contradicts its word.
"""

import math
from dataclasses import dataclass
from typing import Literal

from actlab.settings import ALPHA
from actlab.verdict.race import LOOKS, SHARES, Covers, Look, Race, degrees
from actlab.verdict.simultaneous import quantile

Verdict = Literal["better", "better here", "as good", "not settled", "worse here", "worse", "diverged"]
HERE: Covers = "these rows"
WORDS_HERE: tuple[Verdict, Verdict] = ("worse here", "better here")


@dataclass(frozen=True)
class Comparison:
    """What `b` is against `a`, the best or the baseline; shares of a's mean unless named otherwise.

    Args:
        difference: The mean of b minus that of a over the repeats that both have; `ci_low`, `ci_high` its simultaneous
            interval, at the look that decided, of the kind that `covers` names.
        cost_at_most: U; against the baseline the upper end of the interval, at least 0. nan for who left.
        shown_against: Whom the word was earned against where that is not `a`, with that pair's interval.
        repeats_needed: More repeats that would settle it, by its present estimate; None where it is settled, or where
            no number of repeats up to the last look would.
        rows_needed: Rows of this kind that would show for new rows what is shown for these.
    """

    against: Literal["best", "baseline"]
    a: str
    b: str
    verdict: Verdict
    covers: Covers | None = None
    difference: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    cost_at_most: float = math.nan
    n_repeats: int = 0
    shown_against: str | None = None
    shown_low: float = math.nan
    shown_high: float = math.nan
    repeats_needed: int | None = None
    rows_needed: int | None = None


def compared_with_best(race: Race) -> list[Comparison]:
    """Every other setting against the best of those still in at the last look; nothing where there was no look."""
    if not race.looks:
        return []
    best = race.looks[-1].best
    return [_against_best(race, best, name) for name in race.same_as if name != best]


def _against_best(race: Race, best: str, name: str) -> Comparison:
    if name in race.diverged:
        return Comparison("best", best, name, "diverged", n_repeats=race.diverged[name])
    own, last = race.same_as[name], race.looks[-1]
    if own == best:
        return _same("best", last, best, name)
    kinds: tuple[tuple[Covers, Verdict], ...] = (("new rows", "worse"), (HERE, "worse here"))
    for covers, verdict in kinds:
        if (look := _first_look(race, name, covers)) is not None:
            return _stated(look, last, best, name, verdict, covers)
    if last.is_as_good(name):
        return _stated(last, last, best, name, "as good", "new rows" if last.is_as_good(name, "new rows") else HERE)
    return _stated(last, last, best, name, "not settled", HERE)


def _same(against: Literal["best", "baseline"], look: Look, a: str, b: str) -> Comparison:
    """Of settings that are equal to the bit."""
    covers: Covers = HERE if look.rows is None else "new rows"
    return Comparison(against, a, b, "as good", covers, 0.0, 0.0, 0.0, 0.0, look.pair(a, b).n_repeats)


def _first_look(race: Race, name: str, covers: Covers) -> Look | None:
    """The look at which a word was earned that stays."""
    return next((look for look in race.looks if look.same_as[name] in look.worse_than(covers)), None)


def _stated(look: Look, last: Look, best: str, name: str, verdict: Verdict, covers: Covers) -> Comparison:
    """With the numbers of the look that decided."""
    pair = look.pair(best, name, covers)
    scale = 1 / look.mean(best, pair.n_repeats)
    shown_against, low, high = None, math.nan, math.nan
    if verdict in ("worse", "worse here") and not pair.low > 0:
        shown_against = look.worse_than(covers)[look.same_as[name]]
        other = look.pair(shown_against, name, covers)
        to_other = 1 / look.mean(shown_against, other.n_repeats)
        low, high = other.low * to_other, other.high * to_other
    is_in = last.same_as[name] in last.still_in
    cost = last.cost_at_most(name, covers if verdict == "as good" else HERE) if is_in else math.nan
    return Comparison(
        "best",
        best,
        name,
        verdict,
        covers,
        pair.difference * scale,
        pair.low * scale,
        pair.high * scale,
        cost / last.mean(best, last.n_repeats),
        pair.n_repeats,
        shown_against,
        low,
        high,
        repeats_needed(last, best, name) if verdict == "not settled" else None,
        rows_needed(look, best, name) if verdict == "worse here" else None,
    )


def repeats_needed(look: Look, a: str, b: str) -> int | None:
    """More repeats, up to the first look at which the present estimate of b against a would be settled: its difference
    as large as it is now and its noise smaller by the root of the repeats; None where no look would, or where one of
    them left and gets no more repeats."""
    if not {look.same_as[a], look.same_as[b]} <= set(look.still_in):
        return None
    pair, (se, _) = look.pair(a, b), look.standard_error(a, b)
    k, region = len(look.still_in), look.region_of(a, pair)
    for n_repeats, alpha in _looks_to_come(look):
        q = float(quantile(alpha, k, degrees(k, n_repeats)))
        half = q * se * math.sqrt(look.n_repeats / n_repeats)
        if half < abs(pair.difference) or pair.difference + half <= region:
            return n_repeats - look.n_repeats
    return None


def _looks_to_come(look: Look) -> list[tuple[int, float]]:
    """Repeats and alpha. A grid has one look with all of alpha, at any number of repeats."""
    is_grid = look.alpha == ALPHA
    every = [(n_repeats, ALPHA) for n_repeats in range(LOOKS[0], LOOKS[-1] + 1)]
    planned = every if is_grid else [(of, ALPHA * share) for of, share in zip(LOOKS, SHARES, strict=True)]
    return [(n_repeats, alpha) for n_repeats, alpha in planned if n_repeats > look.n_repeats]


def rows_needed(look: Look, a: str, b: str) -> int | None:
    """Rows of this kind at which the difference would be shown for new rows, trained to where only their noise is left;
    None where the estimate does not say b is worse, where no more rows are needed than there are, or where nothing is
    known of rows."""
    variance, difference = look.variance_of_rows(a, b), look.pair(a, b).difference
    if look.rows is None or not variance > 0 or not difference > 0:
        return None
    q, n_rows = float(quantile(look.alpha, len(look.counts), look.rows.df)), look.rows.units.n
    needed = math.ceil(n_rows * variance * q**2 / difference**2)
    return needed if needed > n_rows else None


def compared_with_baseline(race: Race, baseline: str) -> list[Comparison]:
    """Every other setting against one that was named beforehand; nothing where it is not in the race."""
    if not race.looks or baseline not in race.same_as:
        return []
    return [_against_baseline(race, baseline, name) for name in race.same_as if name != baseline]


def _against_baseline(race: Race, baseline: str, name: str) -> Comparison:
    if gone := [race.diverged[one] for one in (name, baseline) if one in race.diverged]:
        return Comparison("baseline", baseline, name, "diverged", n_repeats=min(gone))
    last = race.looks[-1]
    if race.same_as[baseline] == race.same_as[name]:
        return _same("baseline", last, baseline, name)
    kinds: tuple[tuple[Covers, Verdict, Verdict], ...] = (("new rows", "worse", "better"), (HERE, *WORDS_HERE))
    for covers, worse, better in kinds:
        for look in race.looks:
            pair = look.pair(baseline, name, covers)
            if pair.low > 0 or pair.high < 0:
                return _with_baseline(look, baseline, name, worse if pair.low > 0 else better, covers)
    here, anew = last.pair(baseline, name), last.pair(baseline, name, "new rows")
    if here.high <= (region := last.region_of(baseline, here)):
        return _with_baseline(last, baseline, name, "as good", "new rows" if anew.high <= region else HERE)
    return _with_baseline(last, baseline, name, "not settled", HERE)


def _with_baseline(look: Look, baseline: str, name: str, verdict: Verdict, covers: Covers) -> Comparison:
    pair = look.pair(baseline, name, covers)
    scale = 1 / look.mean(baseline, pair.n_repeats)
    numbers = (pair.difference * scale, pair.low * scale, pair.high * scale, max(0.0, pair.high * scale))
    a, b = (name, baseline) if verdict == "better here" else (baseline, name)
    return Comparison(
        "baseline",
        baseline,
        name,
        verdict,
        covers,
        *numbers,
        pair.n_repeats,
        repeats_needed=repeats_needed(look, a, b) if verdict == "not settled" else None,
        rows_needed=rows_needed(look, a, b) if verdict in WORDS_HERE else None,
    )


def ranked_means(race: Race) -> dict[str, float]:
    """Mean score of every setting, best first: the best's own mean plus the pair's difference on the repeats that both
    have, so that one that left early is not compared on other folds; who diverged comes last, nan."""
    if not race.looks:
        return {}
    last = race.looks[-1]
    best = last.best
    known = {
        name: last.mean(best, last.n_repeats) + last.pair(best, name).difference
        for name in race.same_as
        if name not in race.diverged
    }
    # the best is the best of those still in: who left may have been ahead of it on the repeats that both have
    order = sorted(known, key=lambda name: (name != best, known[name], name))
    return {name: known[name] for name in order} | dict.fromkeys(sorted(race.diverged), math.nan)
