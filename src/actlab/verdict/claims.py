"""What textbooks say of activations, tested one claim at a time on the run's own data.

The parts of a claim: a measured quantity over pairs, where it should lie, and whether it is shown to lie there.

Pairs are (repeat, fold), with everything but the activation equal and inner splits averaged. Tests are two-sided
corrected resampled t-tests of the mean against a threshold, Holm-adjusted over all parts of all claims. Quantities that
compare by ratio are tested on their logarithms, so value and interval are geometric. A pair without a finite value
makes the part `cannot tell`: leaving it out would hide a training that failed.

Everything that claims about activations are judged by: the frames of a run, read by activation and pair.

What textbooks and the teaching experiment say of activations, tested one claim at a time on the run's own data.

Works on `Measurements` alone; see `evidence` for pairs, tests and their correction.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from actlab.settings import ALPHA
from actlab.verdict.paired_tests import corrected_resampled_t, holm
from actlab.verdict.summary import PAIR, choose

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


MEMBER = [*PAIR, "inner"]


@dataclass(frozen=True)
class Measurements:
    """What a run measured; a claim whose measurements are missing says `cannot tell`.

    Values come by pair, (repeat, fold), with inner splits averaged by a plain mean: a member without a value makes its
    pair nan. An activation stands with the trial chosen for it in each pair by inner validation.

    Args:
        members: Rows of `MemberRecord`.
        test_train_ratio: Rows in the test fold over rows outside it.
        rope: Differences of scores smaller than this are of no practical use.
        health: Rows of `HealthRecord`.
        convergence: Rows of `ConvergenceRecord`.
        costs: Activation to (microseconds of the activation alone, of a whole step), one entry a round each.
        deviation_from_affine: Of the trained identity networks, as `representation.deviation_from_affine`.
        maxout_error: `relu` and `leaky_relu` to `representation.maxout_error`.
        ridge: (repeat, fold) to ridge's score on the same test rows.
    """

    members: pd.DataFrame
    test_train_ratio: float
    rope: float
    health: pd.DataFrame | None = None
    convergence: pd.DataFrame | None = None
    costs: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    deviation_from_affine: float = math.nan
    maxout_error: Mapping[str, float] = field(default_factory=dict)
    ridge: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @property
    def activations(self) -> list[str]:
        """Those of the run, in its order."""
        return [str(name) for name in dict.fromkeys(self.members.activation)]

    @property
    def rates(self) -> list[float]:
        """Learning rates of the run, lowest first."""
        return sorted(set(self.members.learning_rate.tolist()))

    def missing(self, *activations: str) -> str:
        """Why activations cannot be compared: those that are not in the run; empty where all are."""
        absent = [name for name in activations if name not in self.activations]
        return f"not in this run: {', '.join(absent)}" if absent else ""

    def scores(self, activation: str) -> "pd.Series[float]":
        """Test scores by pair."""
        return self._chosen_for(activation).set_index(PAIR).score

    def of_chosen(self, frame: pd.DataFrame, activation: str) -> pd.DataFrame:
        """Rows of `frame` that belong to the trial chosen for the activation in their pair."""
        return frame.merge(self._chosen_for(activation)[[*PAIR, "trial"]], on=[*PAIR, "trial"])

    def _chosen_for(self, activation: str) -> pd.DataFrame:
        return self._chosen[self._chosen.activation == activation]

    @cached_property
    def _chosen(self) -> pd.DataFrame:
        # once for all activations: every measure of every claim asks for it
        return choose(self.members)

    def by_pair(self, rows: pd.DataFrame, column: str) -> "pd.Series[float]":
        """Means by pair of rows that have one a member, or several (layers, say) that are averaged first."""
        per_member = rows.groupby(MEMBER)[column].agg(_plain_mean)
        everyone = pd.MultiIndex.from_frame(self.members[MEMBER].drop_duplicates().sort_values(MEMBER))
        found: pd.Series[float] = per_member.reindex(everyone).groupby(level=PAIR).agg(_plain_mean)
        return found

    def health_of(self, activation: str, column: str, moment: str, layer: int | None = None) -> "pd.Series[float]":
        """A measure of the activation's chosen trials by pair, of one layer or the mean of all."""
        assert self.health is not None
        rows = self.of_chosen(self.health[self.health.moment == moment], activation)
        return self.by_pair(rows if layer is None else rows[rows.layer == layer], column)

    def dead(self, activation: str, rate: float) -> "pd.Series[float]":
        """Share of dead units by pair at the end of training at one learning rate, chosen or not."""
        assert self.health is not None
        own = self.health[(self.health.activation == activation) & (self.health.moment == "end")]
        return self.by_pair(own[own.learning_rate == rate], "dead")

    def layer_factor(self, activation: str, moment: str) -> "pd.Series[float]":
        """Share of the gradient that one hidden layer hands back to the one below: the geometric mean of all layers."""
        assert self.health is not None
        rows = self.health.assign(factor=self.health.gradient_ratio ** (1 / max(self.n_layers - 1, 1)))
        first = self.of_chosen(rows[(rows.moment == moment) & (rows.layer == 1)], activation)
        return self.by_pair(first, "factor")

    @property
    def n_layers(self) -> int:
        """Hidden layers; 0 where health was not measured."""
        return 0 if self.health is None or self.health.empty else int(self.health.layer.max())

    def context(self) -> dict[str, Any]:
        """Mean measures of every activation, for the reader of a claim to compare with."""
        found: dict[str, Any] = {}
        if self.n_layers:
            for key, column in (("mean_output", "mean_output"), ("saturated", "saturated"), ("dead", "dead")):
                found[key] = {name: _mean(self.health_of(name, column, "best")) for name in self.activations}
            for moment in ("start", "best"):
                key = f"gradient_per_layer_{moment}"
                found[key] = {name: _mean(self.layer_factor(name, moment)) for name in self.activations}
            found["dead_at_the_end_by_rate"] = {
                name: {f"{rate:g}": _mean(self.dead(name, rate)) for rate in self.rates} for name in self.activations
            }
        if self.ridge and "identity" in self.activations:
            found["identity_minus_ridge"] = _mean(self.scores("identity") - self.ridge_scores())
        return found

    def ridge_scores(self) -> "pd.Series[float]":
        """Ridge's test scores by pair."""
        keys = sorted(self.ridge)
        return pd.Series([self.ridge[key] for key in keys], pd.MultiIndex.from_tuples(keys, names=PAIR), dtype=float)


def _plain_mean(values: "pd.Series[float]") -> float:
    return float(values.mean(skipna=False))


def _mean(values: "pd.Series[float]") -> float:
    """The mean of what is finite: context, not a test."""
    return float(values.mean())


# A layer that hands back less than half of the gradient it gets makes gradients vanish with depth.
VANISHING_FACTOR = 0.5
# A mean output under a tenth is as good as centred for activations whose outputs are of order 1.
CENTRED = 0.1
# "Several times" begins at two.
SEVERAL = 2.0
# Fewer dead units than one in a hundred need no repair.
DEAD_UNITS = 0.01
# "Doubles" within a tenth: the output layer and the learned slopes do not double.
DOUBLED = (1.8, 2.2)
ROUNDING = 1e-9
NO_HEALTH = "the health of this run was not measured"


def claims(found: Measurements) -> list[dict[str, Any]]:
    """Every claim with its parts, the pairs behind them and its verdict, as summary.json holds them."""
    groups = [build(found) for _, build in CLAIMS]
    flat = iter(judged([part for group in groups for part in group]))
    records = []
    for (sentence, _), group in zip(CLAIMS, groups, strict=True):
        own = [next(flat) for _ in group]
        verdict, reason = overall(own)
        parts = [part.to_dict() for part in own]
        records.append({"claim": sentence, "verdict": verdict, "reason": reason, "parts": parts})
    return records


def _score_difference(found: Measurements, worse: str, better: str) -> list[Part]:
    what = f"test score of {worse} minus that of {better}"
    if reason := found.missing(worse, better):
        return [unknown(what, reason)]
    d = found.scores(worse) - found.scores(better)
    return [over_pairs(what, d, found.test_train_ratio, "above", 0.0, refuted_at=found.rope)]


def _vanishing(found: Measurements) -> list[Part]:
    return [_layer_factor(found, name) for name in ("sigmoid", "tanh")]


def _layer_factor(found: Measurements, name: str) -> Part:
    what = f"{name}: share of the gradient that a hidden layer hands back, at the start"
    reason = found.missing(name) or ("" if found.n_layers else NO_HEALTH)
    if reason or found.n_layers < 2:
        return unknown(what, reason or "the network has one hidden layer")
    factor = found.layer_factor(name, "start")
    return over_pairs(what, factor, found.test_train_ratio, "below", VANISHING_FACTOR, is_ratio=True)


def _centred(found: Measurements) -> list[Part]:
    what = "sigmoid: mean output of its hidden units at the best epoch"
    if reason := found.missing("sigmoid") or ("" if found.n_layers else NO_HEALTH):
        return [unknown(what, reason)]
    means = found.health_of("sigmoid", "mean_output", "best")
    return [over_pairs(what, means, found.test_train_ratio, "above", CENTRED)]


def _convergence(found: Measurements) -> list[Part]:
    return [_time_to_level(found, "epoch", "epochs"), _time_to_level(found, "seconds", "seconds"), *_step_costs(found)]


def _time_to_level(found: Measurements, column: str, unit: str) -> Part:
    what = f"{unit} of tanh over those of relu to the same training loss"
    reason = found.missing("tanh", "relu")
    if reason or found.convergence is None:
        return unknown(what, reason or "the convergence of this run was not measured")
    tables = {name: found.of_chosen(found.convergence, name) for name in ("tanh", "relu")}
    reached = pd.concat(tables).groupby("r2").epoch.agg(lambda epochs: bool(epochs.notna().all()))
    if not reached.any():
        return unknown(what, "no level of the training loss was reached by all of their networks")
    level = float(reached[reached].index.max())
    times = {name: found.by_pair(rows[rows.r2 == level], column) for name, rows in tables.items()}
    said, ratio = f"{what} (R2 {level:g} on the training rows)", times["tanh"] / times["relu"]
    return over_pairs(said, ratio, found.test_train_ratio, "above", SEVERAL, is_ratio=True)


def _step_costs(found: Measurements) -> list[Part]:
    parts = []
    for place, of_what in enumerate(("the activation alone", "the network")):
        what = f"time per step of tanh over that of relu, {of_what}"
        if "tanh" not in found.costs or "relu" not in found.costs:
            parts.append(unknown(what, found.missing("tanh", "relu") or "the costs of a step were not measured"))
            continue
        tanh, relu = (pd.Series(found.costs[name][place], dtype=float) for name in ("tanh", "relu"))
        ratio = (tanh / relu).set_axis(pd.MultiIndex.from_product([[0], range(len(tanh))], names=PAIR))
        # rounds share no data: nothing to correct for
        parts.append(over_pairs(what, ratio, 0.0, "above", 1.0, is_ratio=True))
    return parts


def _dying(found: Measurements) -> list[Part]:
    low, high = found.rates[0], found.rates[-1]
    dying = f"dead units of relu at the end, at rate {high:g} minus at rate {low:g}"
    repaired = f"dead units at the end at rate {high:g}, relu minus leaky_relu"
    no_health = "" if found.n_layers else NO_HEALTH
    one_rate = "" if low < high else "only one learning rate was tried"
    parts = []
    if reason := found.missing("relu") or no_health or one_rate:
        parts.append(unknown(dying, reason))
    else:
        d = found.dead("relu", high) - found.dead("relu", low)
        parts.append(over_pairs(dying, d, found.test_train_ratio, "above", DEAD_UNITS))
    if reason := found.missing("relu", "leaky_relu") or no_health:
        parts.append(unknown(repaired, reason))
    else:
        d = found.dead("relu", high) - found.dead("leaky_relu", high)
        parts.append(over_pairs(repaired, d, found.test_train_ratio, "above", DEAD_UNITS))
    return parts


def _maxout(found: Measurements) -> list[Part]:
    parts = []
    for name in ("relu", "leaky_relu"):
        what = f"largest difference between {name} and a maxout of two multiples of z"
        error = found.maxout_error.get(name, math.nan)
        is_known = not math.isnan(error)
        parts.append(fact(what, error, error <= ROUNDING, 0.0) if is_known else unknown(what, "was not checked"))
    what = "weights of the maxout network over those of the relu network"
    if reason := found.missing("maxout", "relu"):
        return [*parts, unknown(what, reason)]
    n_weights = found.members.groupby("activation").n_parameters.max()
    ratio = float(n_weights["maxout"] / n_weights["relu"])
    return [*parts, fact(what, ratio, DOUBLED[0] <= ratio <= DOUBLED[1], 2.0)]


def _linear(found: Measurements) -> list[Part]:
    what = "largest deviation of the trained identity networks from affine functions, in standard deviations"
    error = found.deviation_from_affine
    if reason := found.missing("identity") or ("was not checked" if math.isnan(error) else ""):
        return [unknown(what, reason)]
    return [fact(what, error, error <= ROUNDING, 0.0)]


CLAIMS: tuple[tuple[str, Callable[[Measurements], list[Part]]], ...] = (
    ("Gradients vanish under sigmoid and tanh.", _vanishing),
    ("Sigmoid is not zero-centred.", _centred),
    ("Tanh beats sigmoid.", lambda found: _score_difference(found, "sigmoid", "tanh")),
    ("ReLU converges several times faster than tanh and costs less per step.", _convergence),
    ("ReLU units die at high learning rates, and leaky ReLU repairs it.", _dying),
    ("Maxout contains ReLU and leaky ReLU, and doubles the parameters.", _maxout),
    ("Without a non-linearity the network is a linear model.", _linear),
    ("Leaky ReLU improves on sigmoid.", lambda found: _score_difference(found, "sigmoid", "leaky_relu")),
)
