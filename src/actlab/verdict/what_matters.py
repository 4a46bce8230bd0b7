"""What a score varies with: shares of activation, learning rate, training and further factors in its variance.

Imagine a network of this run drawn at random: one of the activations (with factors, one of all combinations), a
learning rate within a factor of `NEAR` around that activation's own, drawn evenly on a logarithmic scale, and a
training (partition and seed). By the law of total variance the variance of its log score is the sum of
- activation: the variance of the activations' mean log scores, at their own learning rates. With factors it falls into
  main effects of each and what is left, interactions (functional ANOVA: Hutter, Hoos & Leyton-Brown 2014; exact where
  no combination diverged);
- learning rate: the variance along each activation's curve of log test score over log rate, from the sweep (its choice
  was made on validation rows), interpolated between the rates that trained, pooled over the activations;
- training: the variance over repeats within an activation, the part that a partition does to all of them included.
  Where there are several inner splits it is the variance of one network's score, in two parts: seed, within a repeat,
  and partition, the rest.
Squared effects are estimated without bias by products of two different repeats (folds of the sweep): the squared mean
less its noise, as in the analysis of variance (Searle, Casella & McCulloch 1992); a sum below 0 counts as 0. Intervals
are percentiles of a bootstrap over repeats, of equal counts up to each look, and over folds of the sweep. A repeat
drawn twice makes luck look like an effect, so the draws are moved to have the estimate as their mean. Activations that
diverged are left out. Where one activation makes most of the variance between them (identity where nothing is linear),
shares are stated without it, too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from actlab.verdict.race import LOOKS, Race
from actlab.verdict.simultaneous import FloatArray
from actlab.verdict.summary import FoldSizes, choose, members_of, repeat_scores

# A learning rate is known about so well without any search.
NEAR = 3.0
N_GRID = 24
N_BOOTSTRAP, LEVEL = 1000, 0.95
ACTIVATION, RATE, TRAINING, PARTITION, SEED = "activation", "learning rate", "training", "partition", "seed"
INTERACTIONS = "interactions"
# An activation makes most of what all do where the others leave less than this share of it.
LITTLE = 0.25
# Components (1 + N_BOOTSTRAP,) in squared logarithms: the estimate, then the draws.
Components = dict[str, FloatArray]


def what_matters(
    members: pd.DataFrame, race: Race, fold_sizes: FoldSizes, levels: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """`source`, `share`, `ci_low` and `ci_high` of every source of variation; the shares add to 1. Where one activation
    makes most of what all do, `without` is its name and `share_without` the share that is left without it, else None.

    `levels` has the level of every source that settings were made of, `activation` first, by the name in the race.
    Learning rates have no share where no activation was tried at two that trained. None for fewer than two activations
    that did not diverge, or without a look at their repeats.
    """
    logs = log_scores(members, race, fold_sizes)
    if len(logs) < 2:
        return None
    curves = rate_curves(members, choose(members, is_comparison=True), list(logs))
    whole = components(logs, curves, levels)
    if (rows := shares(whole)) is None:
        return None
    without, rest = outlier(logs, curves, levels, float(whole.get(ACTIVATION, np.zeros(1))[0]))
    left = {row["source"]: row["share"] for row in rest}
    return [row | {"without": without, "share_without": left.get(row["source"])} for row in rows]


def components(
    logs: Mapping[str, FloatArray], curves: Mapping[str, FloatArray], levels: Mapping[str, Mapping[str, Any]]
) -> Components:
    """Of settings with log scores (repeats, inner splits), and of the curves of those among them that have one."""
    generator = np.random.default_rng(0)
    draws = drawn(sorted({len(own) for own in logs.values()}), generator)
    found = effects({name: own.mean(1) for name, own in logs.items()}, levels, draws)
    if own_curves := {name: curve for name, curve in curves.items() if name in logs}:
        found[RATE] = of_rates(own_curves, drawn([len(next(iter(own_curves.values())))], generator))
    return found | of_training(list(logs.values()), draws)


def outlier(
    logs: Mapping[str, FloatArray],
    curves: Mapping[str, FloatArray],
    levels: Mapping[str, Mapping[str, Any]],
    whole: float,
) -> tuple[str | None, list[dict[str, Any]]]:
    """The activation without which less than `LITTLE` of the variance between activations, `whole`, is left, and the
    shares without it."""
    names = list(dict.fromkeys(levels[name][ACTIVATION] for name in logs))
    if len(names) < 3:
        return None, []
    # the one that is farthest from the middle
    middle = {
        name: float(np.mean([own.mean() for label, own in logs.items() if levels[label][ACTIVATION] == name]))
        for name in names
    }
    farthest = max(names, key=lambda name: abs(middle[name] - float(np.median(list(middle.values())))))
    rest = components(
        {label: own for label, own in logs.items() if levels[label][ACTIVATION] != farthest}, curves, levels
    )
    if max(0.0, float(rest.get(ACTIVATION, np.zeros(1))[0])) >= LITTLE * whole:
        return None, []
    return str(farthest), shares(rest) or []


def log_scores(members: pd.DataFrame, race: Race, fold_sizes: FoldSizes) -> dict[str, FloatArray]:
    """Setting to its log scores (repeats, inner splits), of the repeats that the looks have read, at least those of the
    first; those that diverged are left out."""
    own = members_of(choose(members, is_comparison=True), members)
    inner = [repeat_scores(own[own.inner == place], fold_sizes) for place in sorted(set(own.inner))]
    read = {name: race.used[name] for name in race.same_as if name not in race.diverged and race.used[name] >= LOOKS[0]}
    return {
        name: np.log(np.stack([np.asarray(scores[name][:n_repeats]) for scores in inner], axis=1))
        for name, n_repeats in read.items()
    }


def drawn(counts: Sequence[int], generator: np.random.Generator) -> FloatArray:
    """How often each of max(counts) repeats is drawn (1 + N_BOOTSTRAP, repeats): in the first row once, then with
    replacement, as many up to each of the `counts` (lowest first) as there are."""
    strata = np.diff([0, *counts])
    found = [generator.multinomial(n, np.full(n, 1 / n), N_BOOTSTRAP) for n in strata]
    return np.vstack([np.ones(counts[-1]), np.hstack(found)])


def _moments(draws: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance (ddof 1) of values (n, ...) in each of the draws: (1 + N_BOOTSTRAP, ...)."""
    weights, n = draws[:, : len(values)], len(values)
    # around a centre, so that nothing is lost to rounding
    centre = values.mean(0)
    means = np.tensordot(weights, values - centre, 1) / n
    squares = np.tensordot(weights, (values - centre) ** 2, 1) / n
    return means + centre, np.maximum(squares - means**2, 0.0) * n / (n - 1)


def _squared_mean(draws: FloatArray, values: FloatArray) -> FloatArray:
    """The squared mean of values (n, ...) without what chance adds to it: the mean product of two different ones."""
    means, variances = _moments(draws, values)
    return np.asarray(means**2 - variances / len(values))


def effects(logs: Mapping[str, FloatArray], levels: Mapping[str, Mapping[str, Any]], draws: FloatArray) -> Components:
    """What the settings' levels explain of the variance between them, from their log scores (repeats,); a pair is
    judged on the repeats that both have."""
    names = list(logs)
    k = len(names)
    distances = np.zeros((len(draws), k, k))
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            shared = min(len(logs[a]), len(logs[b]))
            distances[:, i, j] = distances[:, j, i] = _squared_mean(draws, logs[a][:shared] - logs[b][:shared])
    rest, found = np.eye(k) - 1 / k, {}
    for source in levels[names[0]]:
        own = [levels[name][source] for name in names]
        same = np.array([[one == other for other in own] for one in own], dtype=np.float64)
        # the mean of those with the same level less the mean of all
        effect = same / same.sum(1) - 1 / k
        if not same.all():
            found[source] = effect
        rest = rest - effect
    if len(found) > 1:
        found[INTERACTIONS] = rest
    # y'Ay / k over differences, which is the same for rows that sum to 0: each pair then has its own repeats
    return {source: -(effect * distances).sum((1, 2)) / (2 * k) for source, effect in found.items()}


def rate_curves(members: pd.DataFrame, chosen: pd.DataFrame, names: Sequence[str]) -> dict[str, FloatArray]:
    """Setting to the curves (folds of the sweep or repeats of a grid, N_GRID) of its log score over log rates evenly
    spaced within `NEAR` of its own, as far as rates were tried there, each less its mean."""
    is_swept = (members.repeat == 0).any()
    own_rates = chosen.groupby("activation").learning_rate.first()
    found = {}
    for name in names:
        own = members[members.activation == name]
        own = own[own.repeat == 0] if is_swept else own
        lost = own.learning_rate[own.pruned.astype(bool) | own.diverged.astype(bool) | ~np.isfinite(own.test_score)]
        own = own[~own.learning_rate.isin(lost)]
        logs = own.assign(log=np.log(own.test_score))
        table = logs.pivot_table("log", "fold" if is_swept else "repeat", "learning_rate")
        rates = np.log(table.columns.to_numpy(dtype=np.float64))
        if len(rates) < 2:
            continue
        centre = math.log(own_rates[name])
        low, high = max(centre - math.log(NEAR), rates[0]), min(centre + math.log(NEAR), rates[-1])
        if low < high:
            grid = low + (high - low) * (np.arange(N_GRID) + 0.5) / N_GRID
            curves = np.stack([np.interp(grid, rates, row) for row in table.to_numpy(dtype=np.float64)])
            found[name] = curves - curves.mean(1, keepdims=True)
    return found


def of_rates(curves: Mapping[str, FloatArray], draws: FloatArray) -> FloatArray:
    """The variance along a curve, without what chance adds to it, averaged over the settings that have one."""
    return np.asarray(np.mean([_squared_mean(draws, own).mean(-1) for own in curves.values()], axis=0))


def of_training(logs: Sequence[FloatArray], draws: FloatArray) -> Components:
    """The variance of a log score (repeats, inner splits) over trainings of one setting, pooled over all; apart where
    there are several inner splits."""
    freedom = np.array([len(own) - 1 for own in logs]) / sum(len(own) - 1 for own in logs)
    of_means = freedom @ np.stack([_moments(draws, own.mean(1))[1] for own in logs])
    n_inner = logs[0].shape[1]
    if n_inner == 1:
        return {TRAINING: of_means}
    within = freedom @ np.stack([_moments(draws, own.var(1, ddof=1))[0] for own in logs])
    return {PARTITION: of_means - within / n_inner, SEED: within}


def shares(components: Components) -> list[dict[str, Any]] | None:
    """Of their sum, with intervals; None where nothing varies."""
    found = np.stack(list(components.values()))
    found[:, 1:] += found[:, :1] - found[:, 1:].mean(1, keepdims=True)
    found = np.maximum(found, 0.0)
    total = found.sum(0)
    if not total[0] > 0:
        return None
    found = found[:, total > 0] / total[total > 0]
    ends = np.quantile(found[:, 1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1) if found.shape[1] > 1 else found.T
    rows = zip(components, found[:, 0].tolist(), ends[0].tolist(), ends[-1].tolist(), strict=True)
    return [
        {"source": source, "share": share, "ci_low": min(low, share), "ci_high": max(high, share)}
        for source, share, low, high in rows
    ]


TIMES = ("", "", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times")
NAMES = {RATE: f"the learning rate (a factor of {NEAR:g} around the best)", ACTIVATION: "the activation"}


def sentence(rows: Sequence[Mapping[str, Any]] | None) -> str:
    """Whether the learning rate or the activation matters more here; training in the place of the learning rate where
    that was not varied. It says so only where their intervals are apart. Empty where nothing can be told."""
    known = {row["source"]: row for row in rows or []}
    other = next((name for name in (RATE, TRAINING, SEED) if name in known), None)
    if other is None or ACTIVATION not in known:
        return ""
    more, less = sorted((known[ACTIVATION], known[other]), key=lambda row: -row["share"])
    first, second = (NAMES.get(row["source"], row["source"]) for row in (more, less))
    figures = f"{100 * more['share']:.0f} % against {100 * less['share']:.0f} % of the variation of the score"
    if other == RATE and TRAINING in known:
        figures += f", training alone {100 * known[TRAINING]['share']:.0f} %"
    if (name := more.get("without")) is not None and more["share_without"] is not None:
        ends = (100 * (row["share_without"] or 0.0) for row in (more, less))
        figures += f"; without {name} {' against '.join(f'{end:.0f} %' for end in ends)}"
    if not more["ci_low"] > less["ci_high"]:
        return f"Whether {first} or {second} matters more here is not told: {figures}."
    return f"{first[0].upper()}{first[1:]} matters {_times(more['share'], less['share'])} {second} here: {figures}."


def _times(more: float, less: float) -> str:
    ratio = min(more / less, len(TIMES)) if less > 0 else len(TIMES)
    if ratio < 1.5:
        return "a little more than"
    return f"{TIMES[round(ratio)] if round(ratio) < len(TIMES) else 'more than eight times'} as much as"
