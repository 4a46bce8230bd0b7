"""`actlab compare` tries every activation at every learning rate; `actlab search` is an Optuna study over both."""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from actlab import activations
from actlab.config import Configuration
from actlab.engine.pruning import RungPruning, rungs
from actlab.engine.study import Cell
from actlab.members import derive_seed
from actlab.run_files import RunDirectory
from actlab.runs.evaluate import level_text, variants
from actlab.runs.experiment import Experiment


def compare(configuration: Configuration) -> tuple[RunDirectory, dict[str, Any] | None]:
    """Run or resume the comparison; returns the run directory and its summary (None where another process writes it).

    Raises:
        InputError: bad data or configuration, or the run directory holds another run.
    """
    for name in configuration.compare.activations:
        activations.get(name)
    return Compare(configuration).execute()


class Compare(Experiment):
    """The full grid; the same budget for all."""

    command = "compare"
    ignored = ("search",)

    @cached_property
    def cells(self) -> list[Cell]:
        names = [variant.label for variant in variants(self.configuration)]
        rates = self.configuration.compare.learning_rates
        space = space_of(names, rates)
        params = [{"activation": name, "learning_rate": rate} for name in names for rate in rates]
        return [Cell(json.dumps(each), number, each, space) for number, each in enumerate(params)]

    @property
    def batch(self) -> int:
        largest = self.largest_batch
        if self.configuration.storage is not None:
            # nobody knows how many workers there are: one activation at a time
            return min(largest, len(self.configuration.compare.learning_rates))
        # two populations a worker, so that one who gets the slow activations is not waited for long
        return min(largest, -(-len(self.cells) // (2 * self.n_workers))) if self.n_workers > 1 else largest


def search(configuration: Configuration) -> tuple[RunDirectory, dict[str, Any] | None]:
    """Run or resume the search until `search.n_trials` are done; returns and raises what `compare` does.

    The sampler gives activations unequal budgets, so the summary ranks them by what was found but compares nothing.
    """
    for name in candidates(configuration):
        activations.get(name)
    return Search(configuration).execute()


class Search(Experiment):
    """Trials that a sampler proposes, in batches."""

    command = "search"

    @cached_property
    def cells(self) -> list[Cell]:
        asked, names = self.configuration.search, candidates(self.configuration)
        n_trials = max(asked.n_trials, len(self.study.done()))
        space, rates = space_of(names, asked.learning_rate), first_learning_rates(*asked.learning_rate)
        first = [{"activation": name, "learning_rate": rate} for rate in rates for name in names]
        # every activation once; then the sampler has two fifths of the trials at least
        n_first = max(len(names), 3 * asked.n_trials // 5)
        swept = [Cell(f"trial {number}", number, params, space) for number, params in enumerate(first[:n_first])]
        return [*swept, *(Cell(f"trial {number}", number) for number in range(len(swept), n_trials))][:n_trials]

    @property
    def batch(self) -> int:
        """The sweep at once, for the first rung can tell winners from losers only among many; then as configured."""
        asked = self.configuration.search.batch
        if self.configuration.storage is not None:
            # nobody knows how many workers there are
            return asked
        done = self.study.done()
        n_swept = sum(bool(cell.params) and cell.key not in done for cell in self.cells)
        return max(asked, min(self.largest_batch, -(-n_swept // self.n_workers)))

    def _n_queued(self) -> int | None:
        # a batch at a time, so that trials have the order of their cells also where some were queued again
        return self.batch

    def propose(self, number: int, trial: optuna.Trial) -> dict[str, Any]:
        # a seed for each trial: one that is queued again after a crash is drawn as it would have been
        self.study.optuna.sampler = optuna.samplers.TPESampler(seed=self.sampler_seed(number))
        return suggest(trial, self.configuration)

    def sampler_seed(self, number: int) -> int:
        return derive_seed(self.configuration.seed, "sampler", number) % 2**32

    def callbacks(self, claimed: Mapping[int, optuna.Trial]) -> list[pl.Callback]:
        steps = rungs(self.configuration.trainer["max_epochs"])
        if not self.configuration.search.pruning or not steps:
            return super().callbacks(claimed)
        return [RungPruning(self.study, claimed, steps, len(self.splits)), *super().callbacks(claimed)]


def candidates(configuration: Configuration) -> list[str]:
    return configuration.search.activations or configuration.compare.activations


def space_of(names: list[str], learning_rates: list[float]) -> dict[str, BaseDistribution]:
    """What every study varies, as Optuna describes it; from all learning rates, or from the ends of their range."""
    return {
        "activation": CategoricalDistribution(names),
        # a float on a log axis, not a category: that is how Optuna's plots should show it
        "learning_rate": FloatDistribution(min(learning_rates), max(learning_rates), log=True),
    }


def first_learning_rates(lowest: float, highest: float) -> list[float]:
    """Where a search begins: the (at most two) powers of ten nearest the middle of the range, the higher one first.

    Two rates, so that an activation is not written off for one that does not suit it; the higher first, for its trials
    learn faster and set the bar at the first rung. A range without a power of ten begins in its middle.
    """
    middle = math.sqrt(lowest * highest)
    exponents = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    powers = [power for power in (float(f"1e{exponent}") for exponent in exponents) if lowest <= power <= highest]
    nearest = sorted(powers, key=lambda power: abs(math.log(power / middle)))[:2]
    return sorted(nearest, reverse=True) or [middle]


def suggest(trial: optuna.Trial, configuration: Configuration) -> dict[str, Any]:
    """Draw what a trial has not brought along from the search space of the configuration."""
    space = configuration.search
    trial.suggest_categorical("activation", candidates(configuration))
    trial.suggest_float("learning_rate", *space.learning_rate, log=True)
    if space.weight_decay is not None:
        trial.suggest_float("weight_decay", *space.weight_decay, log=True)
    if space.dropout is not None:
        trial.suggest_float("dropout", *space.dropout)
    if space.hidden is not None:
        trial.suggest_categorical("hidden", [level_text(widths) for widths in space.hidden])
    return trial.params
