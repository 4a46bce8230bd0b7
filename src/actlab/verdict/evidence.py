"""The parts of a claim: a measured quantity over pairs, where it should lie, and whether it is shown to lie there.

Pairs are (repeat, fold), with everything but the activation equal and inner splits averaged. Tests are two-sided
corrected resampled t-tests of the mean against a threshold, Holm-adjusted over all parts of all claims. Quantities that
compare by ratio are tested on their logarithms, so value and interval are geometric. A pair without a finite value
makes the part `cannot tell`: leaving it out would hide a training that failed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from actlab.settings import ALPHA
from actlab.verdict.paired_tests import corrected_resampled_t, holm

Verdict = Literal["supported", "not supported", "cannot tell"]
Side = Literal["above", "below", "at"]


@dataclass(frozen=True)
class Part:
    """One quantity of a claim.

    Args:
        what: The quantity in words.
        value: Its mean over the pairs (geometric for a ratio).
        ci_low: Lower end of the corrected 95 % interval of this quantity alone; nan for a plain fact.
        ci_high: Upper end.
        p: Two-sided, against `threshold`; nan where there was no test.
        p_holm: The same, adjusted over all parts of all claims.
        threshold: What the quantity is held against.
        side: On which side of it the claim puts the quantity; `at` for a fact.
        refuted_at: A quantity whose whole interval lies short of this value is too small to support the claim.
        pairs: (repeat, fold, value) of each pair; for timings (0, round, value).
        verdict: The answer.
        reason: Why the answer is `cannot tell`.
    """

    what: str
    value: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    threshold: float = math.nan
    side: Side = "above"
    refuted_at: float = math.nan
    pairs: tuple[tuple[int, int, float], ...] = ()
    verdict: Verdict = "cannot tell"
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "n": len(self.pairs), "pairs": [list(pair) for pair in self.pairs]}


def over_pairs(
    what: str,
    values: "pd.Series[float]",
    test_train_ratio: float,
    side: Side,
    threshold: float,
    refuted_at: float = math.nan,
    is_ratio: bool = False,
) -> Part:
    """A part that is a mean over pairs.

    Args:
        what: In words.
        values: One difference, ratio or plain value a pair, indexed by (repeat, fold).
        test_train_ratio: As in `paired_tests`; 0 for rounds of a timing, which share no data.
        side: Where the claim puts the quantity.
        threshold: What it is held against.
        refuted_at: As in `Part`.
        is_ratio: Test logarithms; values are then > 0, and one that is not counts as not finite.
    """
    plain = values.to_numpy(dtype=np.float64)
    pairs = tuple((int(r), int(f), float(v)) for (r, f), v in zip(values.index.tolist(), plain.tolist(), strict=True))
    empty = Part(what, threshold=threshold, side=side, refuted_at=refuted_at, pairs=pairs)
    if len(pairs) < 2:
        return replace(empty, reason="a test needs at least two pairs of repeat and fold")
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(plain) if is_ratio else plain
    n_missing = int((~np.isfinite(scaled)).sum())
    if n_missing:
        return replace(empty, reason=f"{n_missing} of {len(pairs)} pairs have no finite value")
    zero = math.log(threshold) if is_ratio else threshold
    test = corrected_resampled_t(scaled - zero, np.zeros_like(scaled), test_train_ratio)
    back = math.exp if is_ratio else float
    found = [float(back(number + zero)) for number in (test.difference, test.ci_low, test.ci_high)]
    return replace(empty, value=found[0], ci_low=found[1], ci_high=found[2], p=test.p)


def fact(what: str, value: float, is_met: bool, threshold: float) -> Part:
    """A part that needs no test, only its value and what it should be: a count, or an exact check."""
    return Part(what, value, threshold=threshold, side="at", verdict="supported" if is_met else "not supported")


def unknown(what: str, reason: str) -> Part:
    """A part that could not be measured."""
    return Part(what, reason=reason)


def judged(parts: Sequence[Part]) -> list[Part]:
    """The parts with Holm's p-values over all of them, and verdicts."""
    adjusted = holm([part.p for part in parts]).tolist()
    return [_judge(replace(part, p_holm=p)) for part, p in zip(parts, adjusted, strict=True)]


def _judge(part: Part) -> Part:
    if math.isnan(part.p):
        return part
    is_claimed_side = part.value > part.threshold if part.side == "above" else part.value < part.threshold
    if part.p_holm < ALPHA:
        return replace(part, verdict="supported" if is_claimed_side else "not supported")
    is_too_small = part.ci_high < part.refuted_at if part.side == "above" else part.ci_low > part.refuted_at
    if is_too_small:
        return replace(part, verdict="not supported")
    if part.ci_low <= part.threshold <= part.ci_high:
        return replace(part, reason=f"the interval {part.ci_low:.3g} to {part.ci_high:.3g} is too wide for a verdict")
    return replace(part, reason=f"p = {part.p_holm:.2g} after Holm's correction for all parts of all claims")


def overall(parts: Sequence[Part]) -> tuple[Verdict, str]:
    """A claim holds where all its parts hold, and falls with one of them; otherwise the first reason."""
    if any(part.verdict == "not supported" for part in parts):
        return "not supported", ""
    open_parts = [part for part in parts if part.verdict == "cannot tell"]
    return ("cannot tell", open_parts[0].reason) if open_parts else ("supported", "")
