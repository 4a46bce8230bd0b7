"""What textbooks and the teaching experiment say of activations, tested one claim at a time on the run's own data.

Works on `Measurements` alone; see `evidence` for pairs, tests and their correction.
"""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from actlab.verdict.evidence import Part, fact, judged, over_pairs, overall, unknown
from actlab.verdict.measurements import Measurements
from actlab.verdict.summary import PAIR

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
