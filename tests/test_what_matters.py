"""What a score varies with: by the analysis of variance, by plain loops, and on scores whose shares are known."""

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.verdict.race import Race, Terms, run
from actlab.verdict.summary import repeat_scores
from actlab.verdict.what_matters import INTERACTIONS, components, log_scores, sentence, shares, what_matters

SIZES = [20, 20, 20, 20, 20]
RATES = (1e-3, 3e-3, 1e-2)
Log = Callable[[str, float, int, int, int], float]


def made(log: Log, names: Sequence[str], n_repeats: int | Mapping[str, int], rates: Sequence[float] = RATES) -> Any:
    """Members of a race with log scores by (name, rate, repeat, fold, inner): the sweep, then the middle rate."""
    counts = n_repeats if isinstance(n_repeats, Mapping) else dict.fromkeys(names, n_repeats)
    cells = [(name, rate, 0, 0) for name in names for rate in rates]
    middle = rates[len(rates) // 2]
    cells += [(name, middle, repeat, 0) for name in names for repeat in range(1, counts[name] + 1)]
    return frame(log, cells)


def frame(log: Log, cells: Sequence[tuple[str, float, int, int]]) -> pd.DataFrame:
    rows = []
    for trial, (name, rate, repeat, inner) in enumerate(cells):
        for fold in range(len(SIZES)):
            score = math.exp(log(name, rate, repeat, fold, inner))
            rows.append(
                {"trial": trial, "activation": name, "learning_rate": rate, "repeat": repeat, "fold": fold}
                | {"inner": inner, "val_score": rate + 1, "test_score": score, "diverged": False, "pruned": False}
                | {"seed": 0, "best_epoch": 1, "epochs": 2, "n_parameters": 3, "seconds": 1.0}
            )
    return pd.DataFrame(rows)


def raced(members: pd.DataFrame, n_repeats: int = 64) -> Race:
    return run(repeat_scores(members, SIZES), Terms.race(len(SIZES), 10**6, 0.0, n_repeats))


def told(members: pd.DataFrame, race: Race | None = None, levels: Any = None) -> dict[str, dict[str, float]]:
    names = list(dict.fromkeys(members.activation))
    rows = what_matters(
        members, race or raced(members), SIZES, levels or {name: {"activation": name} for name in names}
    )
    assert rows is not None
    return {row["source"]: row for row in rows}


class Luck:
    """A normal draw for each key, always the same."""

    def __init__(self) -> None:
        self.known: dict[Any, float] = {}

    def __call__(self, *key: Any) -> float:
        if key not in self.known:
            digits = [zlib.crc32(str(one).encode()) for one in key]
            self.known[key] = float(np.random.default_rng(digits).normal())
        return self.known[key]


NAMES = ("a", "b", "c", "d")
LEVEL_OF = {"a": 0.0, "b": 0.01, "c": 0.02, "d": 0.05}


def noisy(own: float = 0.01, common: float = 0.02, curve: float = 0.03, shift: float = 0.0) -> Log:
    luck = Luck()

    def log(name: str, rate: float, repeat: int, fold: int, inner: int) -> float:
        away = curve * math.log(rate / RATES[1]) ** 2
        # of one repeat, whatever the fold, so that its root over all rows has this logarithm
        of_repeat = common * luck("common", repeat) + own * luck(name, repeat, inner)
        of_sweep = 0.003 * luck(name, f"{rate:g}", fold) if repeat == 0 else 0.0
        return shift - 2 + LEVEL_OF.get(name, 0.0) + away + of_repeat + of_sweep

    return log


def test_between_activations_is_the_estimate_of_the_analysis_of_variance() -> None:
    """With the same repeats for all: mean squares of activations, and of what activation and repeat leave."""
    members = made(noisy(), NAMES, 4)
    race = raced(members)
    y = np.stack([own[:, 0] for own in log_scores(members, race, SIZES).values()])
    k, n = y.shape
    assert (k, n) == (4, 4)
    residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    ms_residual = (residual**2).sum() / ((k - 1) * (n - 1))
    ms_activation = n * y.mean(1).var(ddof=1)
    # the variance of those that are here, not of others like them: k - 1 of k
    activation = (ms_activation - ms_residual) / n * (k - 1) / k
    training = y.var(axis=1, ddof=1).mean()
    found = told(members, race)
    assert found["activation"]["share"] / found["training"]["share"] == pytest.approx(activation / training, rel=1e-9)
    assert sum(row["share"] for row in found.values()) == pytest.approx(1)


def test_pairs_are_judged_on_the_repeats_that_both_have_by_plain_loops() -> None:
    counts = {"a": 16, "b": 16, "c": 8, "d": 4}
    members = made(noisy(), NAMES, counts)
    scores = repeat_scores(members, SIZES)
    # d left after four repeats, c after eight
    race = run({name: own[: counts[name]] for name, own in scores.items()}, Terms.race(5, 10**6, 0.0))
    used = {name: min(race.used[name], counts[name]) for name in NAMES}
    logs = {name: np.log(scores[name][: used[name]]) for name in NAMES}
    total = 0.0
    for a, b in itertools.combinations(NAMES, 2):
        n = min(used[a], used[b])
        d = logs[a][:n] - logs[b][:n]
        total += sum(d[r] * d[s] for r in range(n) for s in range(n) if r != s) / (n * (n - 1)) / 16
    freedom = sum(n - 1 for n in used.values())
    training = sum((used[name] - 1) * logs[name].var(ddof=1) for name in NAMES) / freedom
    found = told(members, race)
    assert found["activation"]["share"] / found["training"]["share"] == pytest.approx(total / training, rel=1e-9)


def test_the_curve_over_rates_counts_by_products_of_different_folds() -> None:
    members = made(noisy(), NAMES, 4)
    low, high = math.log(RATES[1] / 3), math.log(RATES[1] * 3)
    low, high = max(low, math.log(RATES[0])), min(high, math.log(RATES[2]))
    grid = [low + (high - low) * (place + 0.5) / 24 for place in range(24)]
    swept = members[members.repeat == 0]
    expected = []
    for name in NAMES:
        own = swept[swept.activation == name]
        curves = []
        for fold in range(5):
            row = own[own.fold == fold].sort_values("learning_rate")
            curve = np.interp(grid, np.log(row.learning_rate), np.log(row.test_score))
            curves.append(curve - curve.mean())
        products = [curves[f] @ curves[g] / 24 for f in range(5) for g in range(5) if f != g]
        expected.append(np.mean(products))
    y = np.stack([own[:, 0] for own in log_scores(members, raced(members), SIZES).values()])
    found = told(members)
    ratio = np.mean(expected) / y.var(axis=1, ddof=1).mean()
    assert found["learning rate"]["share"] / found["training"]["share"] == pytest.approx(ratio, rel=1e-9)


def test_known_shares_are_found_and_lie_in_their_intervals() -> None:
    def log(name: str, rate: float, repeat: int, fold: int, inner: int) -> float:
        # variances of 4, 3 and 1: levels of +-2; a line of slope s over +-log 3 has s^2 (log 3)^2 / 3
        slope = 0.01 * 3 / math.log(3)
        own = {"a": -0.02, "b": 0.02}[name]
        return own + slope * math.log(rate / 3e-3) + 0.01 * luck(name, repeat)

    luck = Luck()
    members = made(log, ("a", "b"), 64, (1e-3, 3e-3, 9e-3))
    # nobody leaves, so that all 64 are read
    scores = repeat_scores(members, SIZES)
    race = run(scores, Terms.grid(5, 0.02, 64))
    found = told(members, race)
    expected = {"activation": 4 / 8, "learning rate": 3 / 8, "training": 1 / 8}
    for source, share in expected.items():
        assert found[source]["share"] == pytest.approx(share, abs=0.04)
        assert found[source]["ci_low"] <= found[source]["share"] <= found[source]["ci_high"]
    assert found["training"]["ci_low"] < 1 / 8 < found["training"]["ci_high"]


def test_without_any_effect_training_has_nearly_all() -> None:
    luck = Luck()
    members = made(lambda name, rate, repeat, fold, inner: luck(name, f"{rate:g}", repeat, fold) / 50, NAMES, 64)
    found = told(members, run(repeat_scores(members, SIZES), Terms.grid(5, 0.02, 64)))
    assert found["activation"]["share"] < 0.05
    assert found["activation"]["ci_low"] == 0
    assert found["training"]["share"] > 0.7


def test_shares_are_right_on_average_and_their_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    n_runs, means = 100, 0.02 * np.linspace(-1, 1, 6)
    levels = {str(place): {"activation": place} for place in range(6)}
    place = (np.arange(24) + 0.5) / 24 - 0.5
    truth = {"activation": means.var(), "learning rate": 0.03**2 * place.var(), "training": 0.01**2 + 0.01**2}
    found: dict[str, list[tuple[float, bool]]] = {source: [] for source in truth}
    for _ in range(n_runs):
        # own luck beside that of the partition; curves that folds tilt
        y = means[:, None] + 0.01 * generator.normal(size=(6, 16)) + 0.01 * generator.normal(size=16)
        slopes = 0.03 + 0.01 * generator.normal(size=(6, 5))
        logs = {name: own[:, None] for name, own in zip(levels, y, strict=True)}
        curves = {name: own[:, None] * place for name, own in zip(levels, slopes, strict=True)}
        for row in shares(components(logs, curves, levels)) or []:
            share = truth[row["source"]] / sum(truth.values())
            found[row["source"]].append((row["share"] - share, row["ci_low"] <= share <= row["ci_high"]))
    for errors in found.values():
        off, is_inside = np.array(errors).T
        assert abs(off.mean()) < 3 * off.std() / math.sqrt(n_runs) + 0.01
        assert is_inside.mean() >= 0.85


def test_another_scale_of_the_score_changes_nothing() -> None:
    one, other = (told(made(noisy(shift=shift), NAMES, 4)) for shift in (0.0, 5.0))
    for source in one:
        for key in ("share", "ci_low", "ci_high"):
            assert other[source][key] == pytest.approx(one[source][key], abs=1e-9)


def test_more_noise_of_training_raises_its_share() -> None:
    found = []
    for own in (0.0, 0.01, 0.03, 0.1):
        members = made(noisy(own=own, common=0.0), NAMES, 16)
        # nobody leaves
        race = run(repeat_scores(members, SIZES), Terms.grid(5, 0.02, 16))
        found.append(told(members, race)["training"]["share"])
    assert found == sorted(found)
    assert len(set(found)) == 4
    assert found[0] == pytest.approx(0.0, abs=1e-12)


def test_partition_and_seed_are_apart_where_there_are_several_inner_splits() -> None:
    log = noisy(own=0.01, common=0.03)
    cells = [(n, rate, r, i) for n in NAMES for rate in RATES for r in range(1, 5) for i in range(2)]
    members = frame(log, cells)
    # one trial a cell, inner splits together
    members["trial"] //= 2
    race = run(repeat_scores(members, SIZES), Terms.grid(10, 0.02, 4))
    found = told(members, race)
    assert list(found) == ["activation", "learning rate", "partition", "seed"]
    y = np.stack(list(log_scores(members, race, SIZES).values()))
    assert y.shape == (4, 4, 2)
    within = y.var(axis=2, ddof=1).mean()
    partition = y.mean(2).var(axis=1, ddof=1).mean() - within / 2
    assert found["partition"]["share"] / found["seed"]["share"] == pytest.approx(partition / within, rel=1e-9)


def test_factors_have_shares_of_their_own_and_what_is_left_is_interactions() -> None:
    luck, levels = Luck(), {}
    for activation, init in itertools.product("ab", ("auto", "torch")):
        levels[f"{activation} [init={init}]"] = {"activation": activation, "init": init}

    def log(name: str, rate: float, repeat: int, fold: int, inner: int) -> float:
        a, b = (1 if levels[name]["activation"] == "b" else -1), (1 if levels[name]["init"] == "torch" else -1)
        return 0.04 * a + 0.02 * b + 0.01 * a * b + 1e-6 * luck(name, repeat)

    members = made(log, list(levels), 4, (1e-3,))
    found = told(members, levels=levels)
    assert list(found) == ["activation", "init", INTERACTIONS, "training"]
    # squares of 4, 2 and 1
    assert [found[s]["share"] for s in ("activation", "init", INTERACTIONS)] == pytest.approx(
        [16 / 21, 4 / 21, 1 / 21], rel=1e-3
    )


def test_one_activation_that_makes_most_of_it_is_named_with_the_shares_without_it() -> None:
    members = made(noisy(), NAMES, 4)
    far = members.activation == "c"
    members.loc[far, ["val_score", "test_score"]] *= 3
    found, alone = told(members), told(members[~far])
    assert {row["without"] for row in found.values()} == {"c"}
    assert found["activation"]["share"] > 0.95
    for source, row in found.items():
        assert row["share_without"] == alone[source]["share"]
    assert "; without c " in sentence(list(found.values()))
    # evenly spaced ones are all of a kind, and of two none is the odd one
    assert {row["without"] for row in told(made(noisy(own=0.0005), NAMES[:3], 4)).values()} == {None}
    assert {row["without"] for row in told(made(noisy(), NAMES[:2], 4)).values()} == {None}


def test_one_learning_rate_has_no_share() -> None:
    assert list(told(made(noisy(), NAMES, 4, (1e-3,)))) == ["activation", "training"]


def test_a_rate_that_was_lost_in_one_fold_is_not_on_the_curve() -> None:
    for column, value in (("diverged", True), ("pruned", True), ("test_score", math.nan)):
        members = made(noisy(), NAMES, 4)
        lost = (members.repeat == 0) & (members.learning_rate == RATES[2])
        members.loc[lost & (members.fold == 1), column] = value
        fewer = made(noisy(), NAMES, 4)
        fewer = fewer[(fewer.repeat > 0) | (fewer.learning_rate != RATES[2])]
        assert told(members) == told(fewer)


def test_what_diverged_is_left_out() -> None:
    members = made(noisy(), NAMES, 4)
    members.loc[(members.activation == "d") & (members.repeat == 2) & (members.fold == 0), "test_score"] = math.nan
    assert told(members) == told(made(noisy(), NAMES[:3], 4))


def test_nothing_is_told_of_one_activation_or_fewer_than_four_repeats() -> None:
    for names, n_repeats in ((NAMES[:1], 4), (NAMES, 3)):
        members = made(noisy(), names, n_repeats)
        levels = {name: {"activation": name} for name in names}
        assert what_matters(members, raced(members), SIZES, levels) is None
    flat = made(lambda *_: 0.0, NAMES, 4)
    assert what_matters(flat, raced(flat), SIZES, {name: {"activation": name} for name in NAMES}) is None


def rows(**found: tuple[float, float, float]) -> list[dict[str, Any]]:
    return [
        {"source": source.replace("_", " "), "share": share, "ci_low": low, "ci_high": high}
        for source, (share, low, high) in found.items()
    ]


def test_the_sentence_says_which_matters_more_and_only_where_intervals_are_apart() -> None:
    clear = rows(activation=(0.1, 0.05, 0.2), learning_rate=(0.5, 0.4, 0.6), training=(0.4, 0.3, 0.5))
    assert sentence(clear) == (
        "The learning rate (a factor of 3 around the best) matters five times as much as the activation here: "
        "50 % against 10 % of the variation of the score, training alone 40 %."
    )
    vague = rows(activation=(0.1, 0.05, 0.4), learning_rate=(0.2, 0.1, 0.6), training=(0.7, 0.3, 0.8))
    assert sentence(vague).startswith("Whether the learning rate (a factor of 3 around the best) or the activation")
    close = rows(activation=(0.35, 0.34, 0.36), learning_rate=(0.3, 0.29, 0.31), training=(0.35, 0.3, 0.4))
    assert sentence(close).startswith("The activation matters a little more than the learning rate (")
    only = rows(activation=(0.9, 0.8, 1.0), training=(0.1, 0.0, 0.2))
    assert sentence(only).startswith("The activation matters more than eight times as much as training here: 90 % ag")
    nothing = rows(activation=(0.0, 0.0, 0.1), learning_rate=(0.5, 0.4, 0.6))
    assert "matters more than eight times as much as the activation here: 50 % against 0 %" in sentence(nothing)
    assert sentence(None) == sentence([]) == ""
