"""What textbooks say of activations, tested one claim at a time on the run's own data.

A claim is a sentence with the parts that it stands on: quantities over pairs, and plain facts. Pairs are (repeat, fold)
with everything but the activation equal and inner splits averaged. Tests are two-sided corrected resampled t-tests of
the mean against a threshold, Holm-adjusted over all parts of all claims. Quantities that compare by ratio are tested on
their logarithms, so value and interval are geometric. A pair without a finite value makes the part `cannot tell`:
leaving it out would hide a training that failed.
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
from actlab.verdict.summary import PAIR, choose

Support = Literal["supported", "not supported", "cannot tell"]
WORST_FIRST: tuple[Support, ...] = ("not supported", "cannot tell", "supported")
Side = Literal["above", "below", "at"]
MEMBER = [*PAIR, "inner"]
PLAIN_MEAN = partial(pd.Series.mean, skipna=False)


@dataclass(frozen=True)
class Part:
    """One quantity of a claim; nan is what a plain fact, or a quantity that could not be tested, does not have.

    The interval is that of this quantity alone, `p` two-sided against `threshold`. `side` is where the claim puts the
    quantity, `at` for a fact. One whose whole interval lies short of `refuted_at` is too small to support the claim.
    `pairs` are (repeat, fold, value), for timings (0, round, value); `reason` says why the verdict is `cannot tell`.
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
    verdict: Support = "cannot tell"
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
    """A part that is the mean of `values`: a difference, ratio or plain value a pair, indexed by (repeat, fold).

    `test_train_ratio` is as in `paired_tests`, and 0 for rounds of a timing, which share no data. Ratios are tested on
    logarithms: one that is not > 0 counts as not finite.
    """
    plain = values.to_numpy(dtype=np.float64)
    pairs = tuple((int(r), int(f), float(v)) for (r, f), v in zip(values.index.tolist(), plain.tolist(), strict=True))
    empty = Part(what, threshold=threshold, side=side, refuted_at=refuted_at, pairs=pairs)
    if len(pairs) < 2:
        return replace(empty, reason="a test needs at least two pairs of repeat and fold")
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(plain) if is_ratio else plain
    if n_missing := int((~np.isfinite(scaled)).sum()):
        return replace(empty, reason=f"{n_missing} of {len(pairs)} pairs have no finite value")
    zero, back = (math.log(threshold), math.exp) if is_ratio else (threshold, float)
    test = corrected_resampled_t(scaled - zero, np.zeros_like(scaled), test_train_ratio)
    value, low, high = (back(x + zero) for x in (test.difference, test.ci_low, test.ci_high))
    return replace(empty, value=value, ci_low=low, ci_high=high, p=test.p)


def judged(parts: Sequence[Part]) -> list[Part]:
    """The parts with Holm's p-values over all of them, and verdicts."""
    adjusted = holm([part.p for part in parts]).tolist()
    return [_judge(replace(part, p_holm=p)) for part, p in zip(parts, adjusted, strict=True)]


def _judge(part: Part) -> Part:
    if math.isnan(part.p):
        return part
    is_above = part.side == "above"
    if part.p_holm < ALPHA:
        is_supported = part.value > part.threshold if is_above else part.value < part.threshold
        return replace(part, verdict="supported" if is_supported else "not supported")
    if part.ci_high < part.refuted_at if is_above else part.ci_low > part.refuted_at:
        return replace(part, verdict="not supported")
    if part.ci_low <= part.threshold <= part.ci_high:
        return replace(part, reason=f"the interval {part.ci_low:.3g} to {part.ci_high:.3g} is too wide for a verdict")
    return replace(part, reason=f"p = {part.p_holm:.2g} after Holm's correction for all parts of all claims")


def overall(parts: Sequence[Part]) -> tuple[Support, str]:
    """A claim holds where all its parts hold, and falls with one of them; otherwise the first reason."""
    worst = min(parts, key=lambda part: WORST_FIRST.index(part.verdict))
    return worst.verdict, worst.reason


@dataclass(frozen=True)
class Measurements:
    """What a run measured; a claim whose measurements are missing says `cannot tell`.

    Values come by pair, inner splits averaged by a plain mean: a member without a value makes its pair nan. An
    activation stands with the trial chosen for it in each pair by inner validation. Frames have a row a record
    (`MemberRecord`, `HealthRecord`, `ConvergenceRecord`), test_train_ratio is that of `paired_tests`, `rope`
    that of `summarise`; deviation_from_affine (of the trained identity networks) and maxout_error (of `relu` and
    `leaky_relu`) are those of `diagnostics.measures`. Costs are activation to (microseconds of the activation alone, of
    a whole step), one entry a round each; `ridge` is (repeat, fold) to ridge's score on the same test rows.
    """

    members: pd.DataFrame
    test_train_ratio: float
    rope: float
    health: pd.DataFrame = field(default_factory=pd.DataFrame)
    convergence: pd.DataFrame = field(default_factory=pd.DataFrame)
    costs: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    deviation_from_affine: float = math.nan
    maxout_error: Mapping[str, float] = field(default_factory=dict)
    ridge: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @property
    def activations(self) -> list[str]:
        return [str(name) for name in dict.fromkeys(self.members.activation)]

    @property
    def learning_rates(self) -> list[float]:
        """Lowest first."""
        return sorted(set(self.members.learning_rate.tolist()))

    def missing(self, activations: Sequence[str], needs: Sequence[str] = ()) -> str:
        """Why a quantity cannot be measured: activations or other `NEEDS` that are not there; empty where all is."""
        if absent := [name for name in activations if name not in self.activations]:
            return f"not in this run: {', '.join(absent)}"
        return next((NEEDS[need][1] for need in needs if not NEEDS[need][0](self)), "")

    def scores(self, activation: str) -> "pd.Series[float]":
        return self._chosen[activation].set_index(PAIR).score

    def of_chosen(self, frame: pd.DataFrame, activation: str) -> pd.DataFrame:
        """Rows of `frame` that belong to the trial chosen for the activation in their pair."""
        return frame.merge(self._chosen[activation][[*PAIR, "trial"]], on=[*PAIR, "trial"])

    @cached_property
    def _chosen(self) -> dict[str, pd.DataFrame]:
        # once for all activations: every measure of every claim asks for it
        return {str(name): rows for name, rows in choose(self.members, is_comparison=True).groupby("activation")}

    def by_pair(self, rows: pd.DataFrame, column: str) -> "pd.Series[float]":
        """Means by pair of rows that have one a member, or several (layers, say) that are averaged first."""
        per_member = rows.groupby(MEMBER)[column].agg(PLAIN_MEAN)
        everyone = pd.MultiIndex.from_frame(self.members[MEMBER].drop_duplicates().sort_values(MEMBER))
        by_pair: pd.Series[float] = per_member.reindex(everyone).groupby(level=PAIR).agg(PLAIN_MEAN)
        return by_pair

    def health_of(self, activation: str, column: str, moment: str) -> "pd.Series[float]":
        """A measure of the activation's chosen trials by pair, the mean of all layers."""
        return self.by_pair(self.of_chosen(self.health[self.health.moment == moment], activation), column)

    def dead(self, activation: str, learning_rate: float) -> "pd.Series[float]":
        """Share of dead units by pair at the end of training at one learning rate, chosen or not."""
        own = self.health[(self.health.activation == activation) & (self.health.moment == "end")]
        return self.by_pair(own[own.learning_rate == learning_rate], "dead")

    def layer_factor(self, activation: str, moment: str) -> "pd.Series[float]":
        """Share of the gradient that one hidden layer hands back to the one below: the geometric mean of all layers."""
        rows = self.health.assign(factor=self.health.gradient_ratio ** (1 / max(self.n_layers - 1, 1)))
        first = self.of_chosen(rows[(rows.moment == moment) & (rows.layer == 1)], activation)
        return self.by_pair(first, "factor")

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
                name: {f"{rate:g}": float(self.dead(name, rate).mean()) for rate in self.learning_rates}
                for name in names
            }
        if self.ridge and "identity" in self.activations:
            ridge = pd.Series(dict(self.ridge), dtype=float).rename_axis(PAIR).sort_index()
            means["identity_minus_ridge"] = float((self.scores("identity") - ridge).mean())
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
    "learning rates": (lambda run: len(run.learning_rates) > 1, "only one learning rate was tried"),
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
    """A measure of one activation over pairs, or the difference or ratio of two; the reason where the run has none.
    `asked` is side and threshold of `over_pairs`, `options` are others of it."""
    if reason := run.missing(activations, needs):
        return Part(what, reason=reason)
    values, *others = map(measure, activations)
    for other in others:
        values = values / other if options.get("is_ratio") else values - other
    return over_pairs(what, values, options.pop("test_train_ratio", run.test_train_ratio), *asked, **options)


def _fact(what: str, value: float, claimed: float, allowed: tuple[float, float], reason: str = "") -> Part:
    """A part that needs no test, only its value and the range that it should lie in: a count, or an exact check."""
    if reason or math.isnan(value):
        return Part(what, reason=reason or "was not checked")
    is_met = allowed[0] <= value <= allowed[1]
    return Part(what, value, threshold=claimed, side="at", verdict="supported" if is_met else "not supported")


def _score_difference(run: Measurements, worse: str, better: str) -> Part:
    what = f"test score of {worse} minus that of {better}"
    return _quantity(run, what, (worse, better), run.scores, ("above", 0.0), refuted_at=run.rope)


def _layer_factor(run: Measurements, name: str) -> Part:
    what = f"{name}: share of the gradient that a hidden layer hands back, at the start"
    factor, needs = partial(run.layer_factor, moment="start"), ("health", "layers")
    return _quantity(run, what, (name,), factor, ("below", VANISHING_FACTOR), needs, is_ratio=True)


def _time_to_level(run: Measurements, column: str, unit: str) -> Part:
    level = f" (R2 {run.level:g} on the training rows)" if math.isfinite(run.level) else ""
    what = f"{unit} of tanh over those of relu to the same training loss{level}"

    def times(name: str) -> "pd.Series[float]":
        return run.by_pair(run.of_chosen(run.convergence[run.convergence.r2 == run.level], name), column)

    needs = ("convergence", "level")
    return _quantity(run, what, ("tanh", "relu"), times, ("above", SEVERAL), needs, is_ratio=True)


def _step_cost(run: Measurements, place: int, of_what: str) -> Part:
    what = f"time per step of tanh over that of relu, {of_what}"

    def times(name: str) -> "pd.Series[float]":
        return pd.concat({0: pd.Series(run.costs[name][place])}, names=PAIR)

    # rounds share no data: nothing to correct for
    how: dict[str, Any] = {"is_ratio": True, "test_train_ratio": 0.0}
    return _quantity(run, what, ("tanh", "relu"), times, ("above", 1.0), ("costs",), **how)


def _dying(run: Measurements) -> list[Part]:
    """Units that die at the highest learning rate, and those of them that leaky ReLU repairs."""
    low, high, needs = run.learning_rates[0], run.learning_rates[-1], ("health", "learning rates")
    what = f"dead units of relu at the end, at rate {high:g} minus at rate {low:g}"
    dead = partial(run.dead, learning_rate=high)
    more = _quantity(run, what, ("relu",), lambda name: dead(name) - run.dead(name, low), ("above", DEAD_UNITS), needs)
    what = f"dead units at the end at rate {high:g}, relu minus leaky_relu"
    return [more, _quantity(run, what, ("relu", "leaky_relu"), dead, ("above", DEAD_UNITS), ("health",))]


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
    """Every claim with its parts, the pairs behind them and its verdict, as summary.json holds them."""
    found = parts_by_claim(run)
    parts = iter(judged([part for own in found.values() for part in own]))
    records = []
    for sentence, unjudged in found.items():
        own = [next(parts) for _ in unjudged]
        verdict, reason = overall(own)
        records.append({"claim": sentence, "verdict": verdict, "reason": reason, "parts": [p.to_dict() for p in own]})
    return records
