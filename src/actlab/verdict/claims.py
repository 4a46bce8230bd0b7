"""What textbooks say of activations, tested one claim at a time on the run's own data.

A claim is a sentence with the parts that it stands on: quantities, and plain facts. A quantity has one value a repeat,
the plain mean over its folds and inner splits, over the repeats that all its activations have. Given the table these
are independent draws, so its test is an ordinary two-sided t-test of their mean against a threshold. What is known of
the sweep alone, which is one repeat, has one value a fold and the corrected resampled t-test of `paired_tests`. All are
Holm-adjusted over all parts of all claims. Quantities that compare by ratio are tested on their logarithms, so value
and interval are geometric. A value that is not finite makes the part `cannot tell`: leaving it out would hide a
training that failed. Differences of scores are those of the race, with its simultaneous intervals, so that no claim
contradicts the verdict beside it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from actlab.settings import ALPHA
from actlab.verdict.paired_tests import corrected_resampled_t, holm
from actlab.verdict.race import LOOKS, Race
from actlab.verdict.summary import PAIR

Support = Literal["supported", "not supported", "cannot tell"]
WORST_FIRST: tuple[Support, ...] = ("not supported", "cannot tell", "supported")
Side = Literal["above", "below", "at"]
MEMBER = [*PAIR, "inner"]
# Fewer values have no test: with three, a t interval is four times as wide as the values' own spread.
FEWEST = LOOKS[0]
# A spread under this share of the values is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Part:
    """One quantity of a claim; nan is what a plain fact, or a quantity that could not be tested, does not have.

    The interval is that of this quantity alone, of a score's difference that of the race; `p` is two-sided against
    `threshold`. `side` is where the claim puts the quantity, `at` for a fact. A score's difference whose whole interval
    lies short of `refuted_at` is too small to support the claim. `values` are (repeat, value), of the sweep (fold,
    value), of timings (round, value); `reason` says why the verdict is `cannot tell`.
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
    values: tuple[tuple[int, float], ...] = ()
    verdict: Support = "cannot tell"
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "n": len(self.values), "values": [list(one) for one in self.values]}


def mean_part(
    what: str,
    values: "pd.Series[float]",
    side: Side,
    threshold: float,
    is_ratio: bool = False,
    test_train_ratio: float = 0.0,
) -> Part:
    """A part that is the mean of `values`: a difference, ratio or plain value a repeat, indexed by it; not judged yet.

    `test_train_ratio` is that of `paired_tests` where the values are those of folds, which share training rows. Ratios
    are tested on logarithms: one that is not > 0 counts as not finite. Values without any spread have no test: nothing
    tells how far they are so by luck.
    """
    plain = values.to_numpy(dtype=np.float64)
    pairs = tuple(zip(map(int, values.index.tolist()), plain.tolist(), strict=True))
    empty = Part(what, threshold=threshold, side=side, values=pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(plain) if is_ratio else plain
    if n_missing := int((~np.isfinite(scaled)).sum()):
        return replace(empty, reason=f"{n_missing} of {len(pairs)} values are not finite")
    if len(pairs) < FEWEST:
        return replace(empty, reason=f"a test needs at least {FEWEST} values, and there are {len(pairs)}")
    if np.ptp(scaled) <= ROUNDING * np.abs(scaled).max():
        return replace(empty, value=float(plain[0]), reason=f"all {len(pairs)} values are equal: no spread, no test")
    zero, back = (math.log(threshold), math.exp) if is_ratio else (threshold, float)
    test = corrected_resampled_t(scaled - zero, np.zeros_like(scaled), test_train_ratio)
    value, low, high = (back(x + zero) for x in (test.difference, test.ci_low, test.ci_high))
    return replace(empty, value=value, ci_low=low, ci_high=high, p=test.p)


def judged(parts: Sequence[Part]) -> list[Part]:
    """The parts with Holm's p-values over all of them, and verdicts; those without a p-value stay as they are.

    `supported` and `not supported` rest on the same adjusted two-sided p-value, so all of them hold together.
    """
    adjusted = holm([part.p for part in parts]).tolist()
    return [_judge(replace(part, p_holm=p)) for part, p in zip(parts, adjusted, strict=True)]


def _judge(part: Part) -> Part:
    if math.isnan(part.p):
        return part
    if part.p_holm < ALPHA:
        is_supported = part.value > part.threshold if part.side == "above" else part.value < part.threshold
        return replace(part, verdict="supported" if is_supported else "not supported")
    if part.ci_low <= part.threshold <= part.ci_high:
        return replace(part, reason=_too_wide(part.ci_low, part.ci_high))
    return replace(part, reason=f"p = {part.p_holm:.2g} after Holm's correction for all parts of all claims")


def _too_wide(low: float, high: float) -> str:
    return f"the interval {low:.3g} to {high:.3g} is too wide for a verdict"


def overall(parts: Sequence[Part]) -> tuple[Support, str]:
    """A claim holds where all its parts hold, and falls with one of them; otherwise the first reason."""
    worst = min(parts, key=lambda part: WORST_FIRST.index(part.verdict))
    return worst.verdict, worst.reason


@dataclass(frozen=True)
class Measurements:
    """What a comparison measured; a claim whose measurements are missing says `cannot tell`.

    `chosen` is that of `summary.choose`: one setting an activation, in the repeats that count. Frames have a row a
    record (`MemberRecord`, `HealthRecord`, `ConvergenceRecord`), the sweep's among them. `label_of` is activation to
    its name in the race, where that is another. test_train_ratio is that of `paired_tests`; deviation_from_affine (of
    the trained identity networks) and maxout_error (of `relu` and `leaky_relu`) are those of `diagnostics.measures`.
    Costs are activation to (microseconds of the activation alone, of a whole step), one entry a round each.
    """

    members: pd.DataFrame
    chosen: pd.DataFrame
    race: Race
    test_train_ratio: float
    label_of: Mapping[str, str] = field(default_factory=dict)
    health: pd.DataFrame = field(default_factory=pd.DataFrame)
    convergence: pd.DataFrame = field(default_factory=pd.DataFrame)
    costs: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    deviation_from_affine: float = math.nan
    maxout_error: Mapping[str, float] = field(default_factory=dict)

    @property
    def activations(self) -> list[str]:
        """Those of the members, whether any of their repeats counts or not."""
        return [str(name) for name in dict.fromkeys(self.members.activation)]

    def missing(self, activations: Sequence[str], needs: Sequence[str] = ()) -> str:
        """Why a quantity cannot be measured: activations or other `NEEDS` that are not there; empty where all is."""
        if absent := [name for name in activations if name not in self.activations]:
            return f"not in this run: {', '.join(absent)}"
        return next((NEEDS[need][1] for need in needs if not NEEDS[need][0](self)), "")

    def of_chosen(self, frame: pd.DataFrame, activation: str) -> pd.DataFrame:
        """Rows of `frame` that belong to the activation's chosen setting, in the repeats that count."""
        chosen = self.chosen[self.chosen.activation == activation]
        return frame.merge(chosen[[*PAIR, "trial"]], on=[*PAIR, "trial"])

    def by_repeat(self, rows: pd.DataFrame, activation: str, column: str) -> "pd.Series[float]":
        """Means by repeat of the chosen networks' rows, one a network or several (layers, say)."""
        return _means(self.of_chosen(rows, activation), self.of_chosen(self.members, activation), column, "repeat")

    def health_of(self, activation: str, column: str, moment: str) -> "pd.Series[float]":
        """A measure of the activation's chosen networks by repeat, the mean of all layers."""
        return self.by_repeat(self.health[self.health.moment == moment], activation, column)

    @cached_property
    def swept(self) -> pd.DataFrame:
        """Members of all learning rates: those of the sweep, repeat 0, or of a full grid, which has none."""
        is_swept = self.members.repeat == 0
        return self.members[is_swept] if is_swept.any() else self.members

    @property
    def ratio_of_swept(self) -> float:
        """What a test of `dead` corrects for: folds share training rows, repeats are draws of their own."""
        return self.test_train_ratio if (self.swept.repeat == 0).any() else 0.0

    def trained_rates(self, *activations: str) -> list[float]:
        """Learning rates, lowest first, at which every network of these activations was trained to its end and none
        diverged: one that did has no dead units to count."""
        own = self.swept[self.swept.activation.isin(activations)]
        is_lost = own.pruned.astype(bool) | own.diverged.astype(bool)
        lost, tried = (
            {name: set(rates) for name, rates in rows.groupby("activation").learning_rate}
            for rows in (own[is_lost], own)
        )
        rates = [rates - lost.get(name, set()) for name, rates in tried.items()]
        return sorted(set.intersection(*rates)) if len(rates) == len(activations) else []

    def dead(self, activation: str, learning_rate: float) -> "pd.Series[float]":
        """Share of dead units at the end of training at one learning rate, chosen or not: by fold of the sweep, or by
        repeat of a full grid."""
        members, health = (
            frame[(frame.activation == activation) & (frame.learning_rate == learning_rate)]
            for frame in (self.swept, self.health[self.health.moment == "end"])
        )
        return _means(health, members, "dead", "fold" if (members.repeat == 0).any() else "repeat")

    def layer_factor(self, activation: str, moment: str) -> "pd.Series[float]":
        """Share of the gradient that one hidden layer hands back to the one below, by repeat: the geometric mean of
        all layers."""
        rows = self.health[(self.health.moment == moment) & (self.health.layer == 1)]
        factors = rows.assign(factor=rows.gradient_ratio ** (1 / max(self.n_layers - 1, 1)))
        return self.by_repeat(factors, activation, "factor")

    @cached_property
    def level(self) -> float:
        """The highest R2 on the training rows that every chosen network of tanh and relu reached; nan without one."""
        if self.convergence.empty or self.missing(("tanh", "relu")):
            return math.nan
        rows = pd.concat([self.of_chosen(self.convergence, name) for name in ("tanh", "relu")])
        return max((float(str(r2)) for r2, own in rows.groupby("r2") if own.epoch.notna().all()), default=math.nan)

    @property
    def n_layers(self) -> int:
        """Hidden layers; 0 where health was not measured."""
        return 0 if self.health.empty else int(self.health.layer.max())

    def context(self) -> dict[str, Any]:
        """Mean measures of every activation, without what is not finite, for the reader of a claim to compare with."""
        means: dict[str, Any] = {}
        if self.n_layers:
            names = self.activations
            for column in ("mean_output", "saturated", "dead"):
                means[column] = {name: float(self.health_of(name, column, "best").mean()) for name in names}
            for moment in ("start", "best"):
                key = f"gradient_per_layer_{moment}"
                means[key] = {name: float(self.layer_factor(name, moment).mean()) for name in names}
            means["dead_at_the_end_by_rate"] = {
                name: {f"{rate:g}": float(self.dead(name, rate).mean()) for rate in self.trained_rates(name)}
                for name in names
            }
        return means


def _means(rows: pd.DataFrame, members: pd.DataFrame, column: str, by: str) -> "pd.Series[float]":
    """Plain means of a column by repeat or fold, over one mean for each of the members; one without rows is nan."""
    everyone = pd.MultiIndex.from_frame(members[MEMBER].drop_duplicates().sort_values(MEMBER))
    of_member = _plain_mean(rows.groupby(MEMBER)[column]).reindex(everyone)
    return _plain_mean(of_member.groupby(level=by))


def _plain_mean(groups: Any) -> "pd.Series[float]":
    """nan where any value is: pandas' own means leave it out."""
    means: pd.Series[float] = groups.mean().where(groups.count() == groups.size())
    return means


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
EXACT = (0.0, 1e-9)

# what a quantity may need besides its activations: whether a run has it, and what is said where it has not
NEEDS: dict[str, tuple[Callable[[Measurements], bool], str]] = {
    "health": (lambda run: run.n_layers > 0, "the health of this run was not measured"),
    "layers": (lambda run: run.n_layers > 1, "the network has one hidden layer"),
    "convergence": (lambda run: not run.convergence.empty, "the convergence of this run was not measured"),
    "level": (lambda run: run.level > 0, "no level of the training loss was reached by all of their networks"),
    "costs": (lambda run: {"tanh", "relu"} <= run.costs.keys(), "the costs of a step were not measured"),
}


def _quantity(
    run: Measurements,
    what: str,
    activations: tuple[str] | tuple[str, str],
    measure: Callable[[str], "pd.Series[float]"],
    asked: tuple[Side, float],
    needs: Sequence[str] = (),
    **options: Any,
) -> Part:
    """A measure of one activation over repeats, or the difference or ratio of two over those that both have; the reason
    where the run has none. `asked` is side and threshold of `mean_part`, `options` are others of it."""
    if reason := run.missing(activations, needs):
        return Part(what, reason=reason)
    values, *others = map(measure, activations)
    for other in others:
        own, paired = values.align(other, join="inner")
        values = own / paired if options.get("is_ratio") else own - paired
    return mean_part(what, values, *asked, **options)


def _fact(what: str, value: float, claimed: float, allowed: tuple[float, float], reason: str = "") -> Part:
    """A part that needs no test, only its value and the range that it should lie in: a count, or an exact check."""
    if reason or math.isnan(value):
        return Part(what, reason=reason or "was not checked")
    is_met = allowed[0] <= value <= allowed[1]
    return Part(what, value, threshold=claimed, side="at", verdict="supported" if is_met else "not supported")


def _score_difference(run: Measurements, worse: str, better: str) -> Part:
    """As the race has it at the last look that both were in, with its simultaneous interval and its region."""
    what = f"test score of {worse} minus that of {better}"
    if reason := run.missing((worse, better)):
        return Part(what, reason=reason)
    race, label_of = run.race, {name: run.label_of.get(name, name) for name in (better, worse)}
    if gone := [name for name, own in label_of.items() if own in race.diverged or own not in race.same_as]:
        return Part(what, reason=f"trainings of {gone[0]} diverged")
    a, b = (race.same_as[label] for label in label_of.values())
    look = next((look for look in reversed(race.looks) if {a, b} <= set(look.entered)), None)
    if look is None:
        return Part(what, reason=f"fewer than {FEWEST} repeats tell no difference of scores")
    pair = look.pair(a, b)
    low, high = (pair.low, pair.high) if a != b else (0.0, 0.0)
    own, other = (look.scores[name][: pair.n_repeats] for name in (b, a))
    differences = (own - other).tolist()
    part = Part(what, pair.difference, low, high, threshold=0.0, refuted_at=look.region)
    part = replace(part, values=tuple(enumerate(differences, 1)))
    if math.isnan(low):
        return replace(part, reason=f"all {pair.n_repeats} values are equal: no spread, no test")
    if low > 0 or high <= look.region:
        return replace(part, verdict="supported" if low > 0 else "not supported")
    return replace(part, reason=_too_wide(low, high))


def _layer_factor(run: Measurements, name: str) -> Part:
    what = f"{name}: share of the gradient that a hidden layer hands back, at the start"
    factor, needs = partial(run.layer_factor, moment="start"), ("health", "layers")
    return _quantity(run, what, (name,), factor, ("below", VANISHING_FACTOR), needs, is_ratio=True)


def _time_to_level(run: Measurements, column: str, unit: str) -> Part:
    level = f" (R2 {run.level:g} on the training rows)" if math.isfinite(run.level) else ""
    what = f"{unit} of tanh over those of relu to the same training loss{level}"

    def times(name: str) -> "pd.Series[float]":
        return run.by_repeat(run.convergence[run.convergence.r2 == run.level], name, column)

    needs = ("convergence", "level")
    return _quantity(run, what, ("tanh", "relu"), times, ("above", SEVERAL), needs, is_ratio=True)


def _step_cost(run: Measurements, place: int, of_what: str) -> Part:
    what = f"time per step of tanh over that of relu, {of_what}"

    def times(name: str) -> "pd.Series[float]":
        return pd.Series(run.costs[name][place])

    return _quantity(run, what, ("tanh", "relu"), times, ("above", 1.0), ("costs",), is_ratio=True)


def _dying(run: Measurements) -> list[Part]:
    """Units that die at the highest learning rate that trained, and those of them that leaky ReLU repairs."""

    def at_rates(what: str, names: Any, n_rates: int, measure: Callable[[float, float, str], Any]) -> Part:
        rates = run.trained_rates(*names)
        if len(rates) < n_rates:
            reason = run.missing(names, ("health",)) or f"all networks trained at {len(rates)} learning rates"
            return Part(what.format(low="a low rate", high="a high rate"), reason=reason)
        named = what.format(low=f"rate {rates[0]:g}", high=f"rate {rates[-1]:g}")
        values, how = partial(measure, rates[0], rates[-1]), {"test_train_ratio": run.ratio_of_swept}
        return _quantity(run, named, names, values, ("above", DEAD_UNITS), ("health",), **how)

    more, repaired = "at {high} minus at {low}", "at {high}, relu minus leaky_relu"
    return [
        at_rates(
            f"dead units of relu at the end, {more}",
            ("relu",),
            2,
            lambda low, high, name: run.dead(name, high) - run.dead(name, low),
        ),
        at_rates(
            f"dead units at the end {repaired}", ("relu", "leaky_relu"), 1, lambda _, high, name: run.dead(name, high)
        ),
    ]


def _maxout(run: Measurements) -> list[Part]:
    what = "largest difference between {} and a maxout of two multiples of z"
    names = ("relu", "leaky_relu")
    contained = [_fact(what.format(name), run.maxout_error.get(name, math.nan), 0.0, EXACT) for name in names]
    n_weights = run.members.groupby("activation").n_parameters.max()
    ratio = float(n_weights.get("maxout", math.nan) / n_weights.get("relu", math.nan))
    what = "weights of the maxout network over those of the relu network"
    return [*contained, _fact(what, ratio, 2.0, DOUBLED, run.missing(("maxout", "relu")))]


def parts_by_claim(run: Measurements) -> dict[str, list[Part]]:
    """Every claim with its parts, not yet judged."""
    centred = "sigmoid: mean output of its hidden units at the best epoch"
    mean_output = partial(run.health_of, column="mean_output", moment="best")
    affine = "largest deviation of the trained identity networks from affine functions, in standard deviations"
    return {
        "Gradients vanish under sigmoid and tanh.": [_layer_factor(run, "sigmoid"), _layer_factor(run, "tanh")],
        "Sigmoid is not zero-centred.": [
            _quantity(run, centred, ("sigmoid",), mean_output, ("above", CENTRED), ("health",))
        ],
        "Tanh beats sigmoid.": [_score_difference(run, worse="sigmoid", better="tanh")],
        "ReLU converges several times faster than tanh and costs less per step.": [
            _time_to_level(run, "epoch", unit="epochs"),
            _time_to_level(run, "seconds", unit="seconds"),
            _step_cost(run, 0, "the activation alone"),
            _step_cost(run, 1, "the network"),
        ],
        "ReLU units die at high learning rates, and leaky ReLU repairs it.": _dying(run),
        "Maxout contains ReLU and leaky ReLU, and doubles the parameters.": _maxout(run),
        "Without a non-linearity the network is a linear model.": [
            _fact(affine, run.deviation_from_affine, 0.0, EXACT, run.missing(("identity",)))
        ],
        "Leaky ReLU improves on sigmoid.": [_score_difference(run, worse="sigmoid", better="leaky_relu")],
    }


def claims(run: Measurements) -> list[dict[str, Any]]:
    """Every claim with its parts, the values behind them and its verdict, as summary.json holds them."""
    found = parts_by_claim(run)
    parts = iter(judged([part for own in found.values() for part in own]))
    records = []
    for sentence, unjudged in found.items():
        own = [next(parts) for _ in unjudged]
        verdict, reason = overall(own)
        records.append({"claim": sentence, "verdict": verdict, "reason": reason, "parts": [p.to_dict() for p in own]})
    return records
