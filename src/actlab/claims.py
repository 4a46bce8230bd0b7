"""What textbooks and the teaching experiment say of activations, tested one claim at a time on the run's own data.

Reads frames of a run only. Unless a claim says otherwise, an activation stands with the trial chosen for it in each
(repeat, fold) by inner validation; see `evidence` for pairs, tests and their correction.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from actlab.evidence import Part, fact, judged, overall, tested, unknown
from actlab.summary import PAIR, choose

# A layer that hands back less than half of the gradient it gets makes gradients vanish with depth.
VANISHING_FACTOR = 0.5
# A mean output under a tenth is as good as centred for activations whose outputs are of order 1.
CENTRED = 0.1
# "Several times" begins at two.
SEVERAL = 2.0
# Fewer dead units than one in a hundred need no repair.
DEAD_UNITS = 0.01
ROUNDING = 1e-9
NON_FINITE = "a chosen member is missing"


@dataclass(frozen=True)
class Measurements:
    """All that the claims are judged by; a part whose measurements are missing says `cannot tell`.

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

    def missing(self, *activations: str) -> str:
        """Why activations cannot be compared: those that are not in the run; empty where all are."""
        absent = [name for name in activations if name not in set(self.members.activation)]
        return f"not in this run: {', '.join(absent)}" if absent else ""

    def scores(self, activation: str) -> "pd.Series[float]":
        """Test scores by (repeat, fold)."""
        chosen = choose(self.members[self.members.activation == activation])
        return chosen.set_index(PAIR).score

    def of_chosen(self, frame: pd.DataFrame, activation: str) -> pd.DataFrame:
        """Rows of `frame` that belong to the trial chosen for the activation in their (repeat, fold)."""
        chosen = choose(self.members[self.members.activation == activation])[[*PAIR, "trial"]]
        return frame.merge(chosen, on=[*PAIR, "trial"])


def claims(found: Measurements) -> list[dict[str, Any]]:
    """Every claim with its parts, the pairs behind them and its verdict, as summary.json holds them."""
    parts = [build(found) for _, build in CLAIMS]
    flat = judged([part for group in parts for part in group])
    records, start = [], 0
    for (sentence, _), group in zip(CLAIMS, parts, strict=True):
        own = flat[start : start + len(group)]
        start += len(group)
        verdict, reason = overall(own)
        record = {"claim": sentence, "verdict": verdict, "reason": reason, "parts": [part.to_dict() for part in own]}
        records.append(record)
    return records


def _score_difference(found: Measurements, worse: str, better: str) -> list[Part]:
    what = f"test score of {worse} minus that of {better}"
    if reason := found.missing(worse, better):
        return [unknown(what, reason)]
    d = found.scores(worse) - found.scores(better)
    return [tested(what, d, found.test_train_ratio, "above", 0.0, refuted_at=found.rope)]


def _vanishing(found: Measurements) -> list[Part]:
    return [_layer_factor(found, name) for name in ("sigmoid", "tanh")]


def _layer_factor(found: Measurements, name: str) -> Part:
    what = f"{name}: share of the gradient that a hidden layer hands back, at the start"
    if reason := found.missing(name):
        return unknown(what, reason)
    if found.health is None or found.health.layer.max() < 2:
        return unknown(what, "needs the health of at least two hidden layers")
    rows = found.of_chosen(found.health, name)
    n_steps = rows.layer.max() - 1
    first = rows[(rows.layer == 1) & (rows.moment == "start")]
    factor = (first.gradient_ratio ** (1 / n_steps)).groupby([first[key] for key in PAIR]).agg(_strict_mean)
    return tested(what, factor, found.test_train_ratio, "below", VANISHING_FACTOR, is_ratio=True)


def _centred(found: Measurements) -> list[Part]:
    what = "sigmoid: mean output of its hidden units at the best epoch"
    if reason := found.missing("sigmoid"):
        return [unknown(what, reason)]
    if found.health is None:
        return [unknown(what, "the health of this run was not measured")]
    rows = found.of_chosen(found.health, "sigmoid")
    means = rows[rows.moment == "best"].groupby(PAIR).mean_output.agg(_strict_mean)
    return [tested(what, means, found.test_train_ratio, "above", CENTRED, refuted_at=CENTRED)]


def _convergence(found: Measurements) -> list[Part]:
    whats = {unit: f"{unit} of tanh over those of relu to the same training loss" for unit in ("epochs", "seconds")}
    reason = found.missing("tanh", "relu")
    frame = found.convergence
    if not reason and frame is None:
        reason = "the convergence of this run was not measured"
    if reason or frame is None:
        return [*(unknown(what, reason) for what in whats.values()), *_step_costs(found)]
    tables = {name: found.of_chosen(frame, name) for name in ("tanh", "relu")}
    level = _highest_level_reached(list(tables.values()))
    if math.isnan(level):
        return [*(unknown(w, "no level was reached by all of them") for w in whats.values()), *_step_costs(found)]
    parts = []
    for unit, what in whats.items():
        column = "epoch" if unit == "epochs" else "seconds"
        means = {name: rows[rows.r2 == level].groupby(PAIR)[column].agg(_strict_mean) for name, rows in tables.items()}
        said = f"{what} (R2 {level:g} on the training rows)"
        ratio = means["tanh"] / means["relu"]
        parts.append(tested(said, ratio, found.test_train_ratio, "above", SEVERAL, refuted_at=SEVERAL, is_ratio=True))
    return [*parts, *_step_costs(found)]


def _highest_level_reached(tables: list[pd.DataFrame]) -> float:
    """The hardest level that no member of any table missed."""
    rows = pd.concat(tables)
    reached = rows.groupby("r2").epoch.agg(lambda epochs: bool(epochs.notna().all()))
    return float(reached[reached].index.max()) if reached.any() else math.nan


def _step_costs(found: Measurements) -> list[Part]:
    parts = []
    for place, of_what in enumerate(("the activation alone", "the network")):
        what = f"time per step of tanh over that of relu, {of_what}"
        if "tanh" not in found.costs or "relu" not in found.costs:
            parts.append(unknown(what, found.missing("tanh", "relu") or "the costs of this run were not measured"))
            continue
        tanh, relu = (pd.Series(found.costs[name][place], dtype=float) for name in ("tanh", "relu"))
        ratio = tanh / relu
        ratio.index = pd.MultiIndex.from_product([[0], range(len(ratio))], names=PAIR)
        # rounds share no data: nothing to correct for
        parts.append(tested(what, ratio, 0.0, "above", 1.0, refuted_at=1.0, is_ratio=True))
    return parts


def _dying(found: Measurements) -> list[Part]:
    rates = sorted(set(found.members.learning_rate))
    high, low = rates[-1], rates[0]
    whats = [
        f"dead units of relu at the end, at rate {high:g} minus at rate {low:g}",
        f"dead units at the end at rate {high:g}, relu minus leaky_relu",
    ]
    reasons = [found.missing("relu"), found.missing("relu", "leaky_relu")]
    if len(rates) < 2:
        reasons[0] = reasons[0] or "only one learning rate was tried"
    health = found.health
    if health is None:
        reasons = [reason or "the health of this run was not measured" for reason in reasons]
    if health is None or all(reasons):
        return [unknown(what, reason) for what, reason in zip(whats, reasons, strict=True)]

    def dead(name: str, rate: float) -> "pd.Series[float]":
        own = health[(health.activation == name) & (health.learning_rate == rate) & (health.moment == "end")]
        return own.groupby(PAIR).dead.agg(_strict_mean)

    differences = (
        lambda: dead("relu", high) - dead("relu", low),
        lambda: dead("relu", high) - dead("leaky_relu", high),
    )
    return [
        unknown(what, reason)
        if reason
        else tested(what, difference(), found.test_train_ratio, "above", DEAD_UNITS, refuted_at=DEAD_UNITS)
        for what, reason, difference in zip(whats, reasons, differences, strict=True)
    ]


def _maxout(found: Measurements) -> list[Part]:
    parts = []
    for name in ("relu", "leaky_relu"):
        what = f"largest difference between {name} and a maxout of two multiples of z"
        error = found.maxout_error.get(name, math.nan)
        is_known = not math.isnan(error)
        parts.append(fact(what, error, error <= ROUNDING, 0.0, "below") if is_known else unknown(what, "not checked"))
    what = "weights of the maxout network over those of the relu network"
    if reason := found.missing("maxout", "relu"):
        return [*parts, unknown(what, reason)]
    n_weights = found.members.groupby("activation").n_parameters.max()
    ratio = float(n_weights["maxout"] / n_weights["relu"])
    return [*parts, fact(what, ratio, 1.8 <= ratio <= 2.2, 2.0, "above")]


def _linear(found: Measurements) -> list[Part]:
    what = "largest deviation of the trained identity networks from affine functions, in standard deviations"
    if reason := found.missing("identity"):
        return [unknown(what, reason)]
    if math.isnan(found.deviation_from_affine):
        return [unknown(what, "the trained identity networks were not checked")]
    error = found.deviation_from_affine
    return [fact(what, error, error <= ROUNDING, 0.0, "below")]


def _strict_mean(values: "pd.Series[float]") -> float:
    return float(values.mean(skipna=False))


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
