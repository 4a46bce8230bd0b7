"""Races drawn from a bank of real repeats: what is found of a planted difference, and what the corrected t-test finds.

Differences between the activations of a bank are taken out, so that all are equal but for what is planted, with the
noise of real training. Shapes: `k` activations, `N` repeats in the bank, `R` drawn ones, `K` folds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from actlab.config import parse
from actlab.data.layout import RowLayout
from actlab.data.table import read_table
from actlab.settings import ALPHA
from actlab.verdict.paired_tests import corrected_resampled_t, holm
from actlab.verdict.race import LOOKS, Terms, default_budget, run
from calibration.training import Arm, FloatArray, Training, race_splits, trained

FOLDS, N_REPEATS = 5, 100
# repeats of the bank that train as one population
AT_ONCE = 2
PLANTED = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)
ROPE = 0.02
FOLD_COLUMNS = [f"fold_{fold}" for fold in range(FOLDS)]


@dataclass(frozen=True)
class Source:
    """What a bank is trained on: a configuration, and activations at the rates that the sweep picks there."""

    config: str
    settings: tuple[str, ...]


SOURCES = {
    "house_prices": Source("configs/house_prices.yaml", ("relu@0.01", "tanh@0.001", "elu@0.01", "sigmoid@0.001")),
    "concrete": Source("configs/concrete.yaml", ("relu@0.01", "tanh@0.003", "elu@0.003", "sigmoid@0.03")),
}


def fill(path: Path, config: str, settings: Sequence[str], n_repeats: int = N_REPEATS) -> None:
    """Train the repeats that the bank still lacks, each activation (`name@rate`) on the same folds and seeds."""
    configuration = parse("compare", ["--config", config])
    model, optimizer = configuration.model, configuration.optimizer
    how = Training(
        configuration.data,
        FOLDS,
        tuple(model.hidden),
        weight_decay=optimizer.weight_decay,
        dropout=model.dropout,
        init=model.init,
        max_epochs=configuration.trainer["max_epochs"],
        patience=optimizer.patience,
    )
    table = read_table(configuration.data)
    named = [(name, float(rate)) for name, _, rate in (setting.partition("@") for setting in settings)]
    arms = [Arm(setting, name, 0, rate) for setting, (name, rate) in zip(settings, named, strict=True)]
    done = 0
    if path.is_file():
        done = int(pd.read_csv(path)["repeat"].max())
    for start in range(done + 1, n_repeats + 1, AT_ONCE):
        repeats = range(start, min(start + AT_ONCE, n_repeats + 1))
        errors = trained({0: [table]}, arms, repeats, how)[0]
        scores = fold_scores(errors, table.layout, repeats)
        path.parent.mkdir(parents=True, exist_ok=True)
        scores.to_csv(path, mode="a", header=not path.is_file(), index=False, float_format="%.7g")


def fold_scores(errors: dict[str, FloatArray], layout: RowLayout, repeats: Sequence[int]) -> pd.DataFrame:
    """One row for each repeat and setting, from squared errors (R, n): its score, the root over all rows, and that of
    each fold."""
    tests = {(split.repeat, split.fold): rows.test for split, rows in race_splits(0, layout, repeats, FOLDS).items()}
    rows = [
        (repeat, setting, *(math.sqrt(own[place][part].mean()) for part in [slice(None), *parts]))
        for place, repeat in enumerate(repeats)
        for parts in [[tests[repeat, fold] for fold in range(FOLDS)]]
        for setting, own in errors.items()
    ]
    return pd.DataFrame(rows, columns=["repeat", "setting", "score", *FOLD_COLUMNS])


@dataclass(frozen=True)
class Bank:
    """Scores of k equal activations.

    Args:
        scores: (k, N), each activation's mean taken to the smallest.
        folds: (k, N, K) scores of folds, moved by as much; None where only those of repeats are known.
    """

    scores: FloatArray
    folds: FloatArray | None

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


def read_bank(path: Path) -> Bank:
    """What `fill` wrote."""
    frame = pd.read_csv(path)
    of_settings = [rows for _, rows in frame.groupby("setting", sort=False)]
    scores = np.stack([rows["score"].to_numpy() for rows in of_settings])
    folds = np.stack([rows[FOLD_COLUMNS].to_numpy() for rows in of_settings])
    shift = scores.mean(1, keepdims=True) - scores.mean(1).min()
    return Bank(scores - shift, folds - shift[:, :, None])


def read_repeats(path: Path) -> Bank:
    """A column for each activation, a row for each repeat."""
    scores = pd.read_csv(path, index_col=0).to_numpy().T
    return Bank(scores - scores.mean(1, keepdims=True) + scores.mean(1).min(), None)


@dataclass(frozen=True)
class Power:
    """Shares of drawn races.

    Args:
        planted: By how much of the score one activation is worse.
        found: It is called worse on these rows.
        wrong: Another one is.
        as_good: It is called as good.
        networks: Trained in a race, on average, one for each fold.
        found_by_t: It is worse than the winner by the corrected resampled t-test, adjusted by Holm, of as many
            networks; `wrong_by_t`: another one is.
    """

    planted: float
    found: float
    wrong: float
    as_good: float
    networks: float
    found_by_t: float
    wrong_by_t: float


def power(bank: Bank, planted: float, n_races: int, is_unlimited: bool, seed: int = 0) -> Power:
    """Races with the default budget, or as far as there are looks, of repeats drawn with replacement."""
    generator = np.random.default_rng([seed, round(1e4 * planted)])
    found = np.mean([_race(bank, planted, is_unlimited, generator) for _ in range(n_races)], axis=0)
    return Power(planted, *found.tolist())


def _race(bank: Bank, planted: float, is_unlimited: bool, generator: np.random.Generator) -> tuple[float, ...]:
    k, size = len(bank.scores), planted * bank.mean
    # repeats are drawn whole: in each, all activations have the same folds
    drawn = generator.integers(bank.scores.shape[1], size=LOOKS[-1])
    worse = int(generator.integers(k))
    shift = np.where(np.arange(k) == worse, size, 0.0)
    scores = {str(place): (bank.scores[place][drawn] + shift[place]).tolist() for place in range(k)}
    budget = 2**62 if is_unlimited else default_budget(FOLDS, k)
    found = run(scores, Terms.race(FOLDS, budget, ROPE))
    left, last = {name for look in found.looks for name in look.left}, found.looks[-1]
    is_as_good = str(worse) in last.still_in and len(last.still_in) > 1 and last.is_as_good(str(worse))
    n_equal = max(1, round(found.n_networks / (FOLDS * k)))
    by_t = worse_by_t(bank, drawn[:n_equal], shift)
    is_wrong = [bool(said - ({str(worse)} if planted else set())) for said in (left, {str(place) for place in by_t})]
    return str(worse) in left, is_wrong[0], is_as_good, found.n_networks, worse in by_t, is_wrong[1]


def worse_by_t(bank: Bank, drawn: np.ndarray, shift: FloatArray) -> set[int]:
    """Activations that the corrected resampled t-test, adjusted by Holm, calls worse than the one with the best mean.

    Where scores of folds are not known, a fold's difference is taken to vary K times as much as its repeat's: folds'
    differences hardly correlate.
    """
    means = bank.scores[:, drawn].mean(1) + shift
    best = int(means.argmin())
    others = [place for place in range(len(means)) if place != best]
    p_values = [_p_value(bank, drawn, best, place, shift[place] - shift[best]) for place in others]
    return {place for place, p in zip(others, holm(p_values), strict=True) if p < ALPHA}


def _p_value(bank: Bank, drawn: np.ndarray, best: int, other: int, shift: float) -> float:
    from scipy import stats

    ratio = 1 / (FOLDS - 1)
    if bank.folds is not None:
        a, b = bank.folds[best, drawn].ravel(), bank.folds[other, drawn].ravel() + shift
        return corrected_resampled_t(a, b, ratio).p
    differences = bank.scores[other, drawn] + shift - bank.scores[best, drawn]
    n_pairs = FOLDS * len(drawn)
    se = math.sqrt(FOLDS * differences.var(ddof=1) * (1 / n_pairs + ratio))
    return float(2 * stats.t.sf(abs(differences.mean()) / se, n_pairs - 1))
