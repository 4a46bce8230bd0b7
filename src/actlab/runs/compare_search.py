"""`actlab compare` races activations, each at its best learning rate; `actlab search` is an Optuna study over both."""

import json
import math
import statistics
import sys
from collections.abc import KeysView, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from actlab import activations
from actlab.config import Configuration
from actlab.data.table import Table
from actlab.engine.pruning import RateRace, RungPruning, rungs
from actlab.engine.study import Cell
from actlab.engine.workers import Worker
from actlab.errors import InputError
from actlab.members import derive_seed
from actlab.report.words import budget_sentence
from actlab.run_files import RunDirectory
from actlab.runs.evaluate import MEMBERS, Setting, Work, level_text, setting_of, variants
from actlab.runs.experiment import Experiment
from actlab.runs.results import MANY_ROWS, frames, terms_of
from actlab.settings import RACE_REPEATS
from actlab.verdict.race import LOOKS, Terms, least_budget, run
from actlab.verdict.rates import best_rate, further_rates, kept
from actlab.verdict.summary import repeat_scores

# What the key of a comparison's cell names besides the repeat.
VARIED = ("activation", "learning_rate")
# Cells of a race that a worker of a database claims at a time.
QUEUED = 2
# Attribute of the study: the activations that it began with.
NAMES = "activations"
# Learning rates that Optuna's tools are told of; what was tried beyond them widens them.
LOWEST_RATE, HIGHEST_RATE = 1e-7, 10.0


def compare(configuration: Configuration, table: Table | None = None) -> tuple[RunDirectory, dict[str, Any] | None]:
    """Run or resume the comparison; returns the run directory and its summary (None where another process writes it).
    `table` is what data.csv names, where it is read already.

    Raises:
        InputError: bad data or configuration, or the run directory holds another run.
    """
    for name in configuration.compare.activations:
        activations.get(name)
    check_budget(configuration)
    return Compare(configuration, table=table).execute()


def check_budget(configuration: Configuration) -> None:
    """Refuse what a race cannot do, and say what it rounds.

    Raises:
        InputError: a budget that does not reach the first look, fewer repeats than that has, or inner parts given.
    """
    asked = configuration.compare
    if asked.protocol == "grid":
        return
    if asked.inner is not None:
        raise InputError(
            f"a race trains one network a fold, got compare.inner={asked.inner}; leave it out, or add "
            "--compare.protocol grid"
        )
    if asked.repeats is not None:
        reached = [look for look in LOOKS if look <= asked.repeats]
        if not reached:
            raise InputError(
                f"compare.repeats must be at least {LOOKS[0]} in a race, whose first look is then, "
                f"got repeats={asked.repeats}"
            )
        if reached[-1] < asked.repeats:
            print(f"compare.repeats {asked.repeats} is rounded down to the look at {reached[-1]}", file=sys.stderr)
    if configuration.data.fold is None:
        check_least_budget(configuration)


def check_least_budget(configuration: Configuration) -> None:
    """Refuse a budget that does not reach the first look; where folds are given, once it is known how many."""
    asked, n_settings = configuration.compare, len(variants(configuration))
    least = least_budget(asked.folds, n_settings)
    if asked.protocol == "race" and asked.budget is not None and asked.budget < least:
        raise InputError(
            f"compare.budget must be at least {least} networks ({LOOKS[0]} repeats x {asked.folds} folds x "
            f"{n_settings} activations), got budget={asked.budget}"
        )


@dataclass(frozen=True)
class Sweep:
    """The learning rates of one variant.

    Args:
        tried: As `verdict.rates` takes them.
        waiting: Those to be trained next; empty once the best one is known.
        best: None as long as rates are waiting, and where all of them diverged.
    """

    tried: Mapping[float, float | None]
    waiting: tuple[float, ...]
    best: float | None

    @property
    def learning_rates(self) -> list[float]:
        """In the order in which they were asked for."""
        return [*self.tried, *self.waiting]


def cell_key(name: str, learning_rate: float, repeat: int) -> str:
    return json.dumps(dict(zip((*VARIED, "repeat"), (name, learning_rate, repeat), strict=True)))


def validation_of(trial: FrozenTrial) -> float | None:
    """Mean log validation score over the members of a trial: infinite where one diverged, None where it was pruned."""
    rows = trial.user_attrs[MEMBERS]
    if any(row["pruned"] for row in rows):
        return None
    scores = [row["val_score"] for row in rows]
    if any(score is None or row["diverged"] for row, score in zip(rows, scores, strict=True)):
        return math.inf
    # a score of 0 is as good as it gets, and has no logarithm
    return statistics.fmean(math.log(max(score, sys.float_info.min)) for score in scores)


class Compare(Experiment):
    """A sweep of the learning rates, then a race of fresh repeats; or the full grid.

    A cell is an activation (with its factor levels), a learning rate and a repeat; repeat 0 is the sweep.
    """

    command = "compare"
    ignored = ("search",)
    free = tuple(
        f"compare.{key}"
        for key in ("activations", "budget", "repeats", "rope", "baseline", "ensemble", "bag", "confirm")
    )

    def __init__(self, configuration: Configuration, worker: Worker | None = None, table: Table | None = None) -> None:
        super().__init__(configuration, worker, table)
        self._planned: tuple[KeysView[str], list[Cell]] | None = None
        with self.study.coordinator.lock():
            if NAMES not in self.study.optuna.user_attrs:
                self.study.optuna.set_user_attr(NAMES, list(self.variants))

    def check(self) -> None:
        super().check()
        check_least_budget(self.configuration)

    @cached_property
    def variants(self) -> dict[str, Setting]:
        """What is compared, by label."""
        return {variant.label: variant for variant in variants(self.configuration)}

    @cached_property
    def terms(self) -> Terms:
        return terms_of(self.configuration.compare, len(self.variants))

    def execute(self) -> tuple[RunDirectory, dict[str, Any] | None]:
        if not self._is_done() and (sentence := budget_sentence(self.terms, len(self.variants), self.n_networks)):
            print(f"What this comparison can show: {sentence}.", file=sys.stderr)
        return super().execute()

    def plan(self) -> list[Cell]:
        done = self.study.done()
        # asked for several times between two populations, and a race takes a while to replay
        if self._planned is None or self._planned[0] != done.keys():
            self._planned = done.keys(), self._plan(done)
        return self._planned[1]

    def _plan(self, done: Mapping[str, FrozenTrial]) -> list[Cell]:
        asked = self.configuration.compare
        if asked.protocol == "grid":
            repeats = range(1, self.protocol.repeats)
            keys = [
                (name, rate, repeat) for repeat in repeats for name in self.variants for rate in asked.learning_rates
            ]
        else:
            sweeps = {name: self.sweep(name, done) for name in self.variants}
            swept = [(name, rate, 0) for name, sweep in sweeps.items() for rate in sweep.learning_rates]
            keys = [*swept, *self._repeats(sweeps, done)]
        return [self._cell(order, *key) for order, key in enumerate(keys)]

    def _cell(self, order: int, name: str, learning_rate: float, repeat: int) -> Cell:
        key, asked = cell_key(name, learning_rate, repeat), self.configuration.compare.learning_rates
        # the rates of an activation race within one population, wherever that trains
        group = name if repeat == 0 and learning_rate in asked else ""
        number = derive_seed("cell", key) % 2**53
        # categories may not change within a study, so an activation that came later is named by the key alone
        known = list(self.study.optuna.user_attrs.get(NAMES, self.variants))
        params: dict[str, Any] = {"learning_rate": learning_rate, "repeat": repeat}
        space: dict[str, BaseDistribution] = {
            # a float on a log axis, not a category: that is how Optuna's plots should show it
            "learning_rate": FloatDistribution(
                min(LOWEST_RATE, learning_rate), max(HIGHEST_RATE, learning_rate), log=True
            ),
            "repeat": IntDistribution(0, RACE_REPEATS),
        }
        if name in known:
            params["activation"], space["activation"] = name, CategoricalDistribution(known)
        return Cell(key, number, order, group, params, space)

    def sweep(self, name: str, done: Mapping[str, FrozenTrial]) -> Sweep:
        """The sweep of a variant, as far as it is known by what is done; none where one learning rate was asked for."""
        asked = list(self.configuration.compare.learning_rates)
        if len(asked) == 1:
            return Sweep({}, (), asked[0])
        tried: dict[float, float | None] = {}
        waiting = asked
        while all(cell_key(name, rate, 0) in done for rate in waiting):
            tried |= {rate: validation_of(done[cell_key(name, rate, 0)]) for rate in waiting}
            waiting = further_rates(tried, asked)
            if not waiting:
                return Sweep(tried, (), best_rate(tried))
        return Sweep(tried, tuple(waiting), None)

    def _repeats(self, sweeps: Mapping[str, Sweep], done: Mapping[str, FrozenTrial]) -> list[tuple[str, float, int]]:
        """The cells of the race: those that its looks have read, and those that the next one needs."""
        rates = {name: sweep.best for name, sweep in sweeps.items() if sweep.best is not None}
        if any(sweep.waiting for sweep in sweeps.values()):
            # sure to be needed, whatever the rates of the others turn out to be
            counts = dict.fromkeys(rates, self.terms.looks[0][0])
        else:
            counting = [trial for key, trial in done.items() if json.loads(key)["repeat"] >= 1]
            own = repeat_scores(frames(counting)[MEMBERS], self.networks.splits.test_sizes)
            race = run({name: own.get(name, []) for name in rates}, self.terms)
            counts = {name: max([race.used[name], *race.missing.get(name, ())]) for name in rates}
        most = max(counts.values(), default=0)
        return [(name, rates[name], r) for r in range(1, most + 1) for name, count in counts.items() if r <= count]

    @property
    def n_trials_at_most(self) -> int:
        cells = self.plan()
        if self.configuration.compare.protocol == "grid" or self._is_done():
            return len(cells)
        n_swept = sum(json.loads(cell.key)["repeat"] == 0 for cell in cells)
        return int(max(len(cells), n_swept + self.terms.budget // self.n_networks))

    def work_of(self, key: str, params: Mapping[str, Any]) -> Work:
        own = json.loads(key)
        return Work(
            setting_of({name: own[name] for name in VARIED}, self.configuration, self.n_features), (own["repeat"],)
        )

    def keeps_networks(self, work: Work) -> bool:
        # those of the model's folds, which the report looks into; all others only predict, and that is kept
        return work.repeats == (1,) or (work.repeats != (0,) and not self.keeps_predictions(work))

    def keeps_predictions(self, work: Work) -> bool:
        return work.repeats != (0,) and self.table.n_rows <= MANY_ROWS

    def callbacks(self, claimed: Mapping[int, optuna.Trial]) -> list[pl.Callback]:
        steps = rungs(self.configuration.trainer["max_epochs"])
        own = [cell for cell in self.plan() if cell.group]
        rate_of = {cell.number: (cell.group, json.loads(cell.key)["learning_rate"]) for cell in own}
        if not steps or not rate_of.keys() & claimed.keys():
            return super().callbacks(claimed)
        race = RateRace(self.study, claimed, steps, self.n_networks, rate_of=rate_of, kept=kept)
        return [race, *super().callbacks(claimed)]

    def batch(self, n_missing: int) -> int:
        if self.configuration.storage is not None:
            # nobody knows how many workers there are: few, so that nobody waits long at a look; a sweep is claimed by
            # whole activations all the same
            return min(self.largest_batch, QUEUED)
        # two populations a worker, so that one who gets the slow activations is not waited for long
        return (
            min(self.largest_batch, -(-n_missing // (2 * self.n_workers))) if self.n_workers > 1 else self.largest_batch
        )


def search(configuration: Configuration, table: Table | None = None) -> tuple[RunDirectory, dict[str, Any] | None]:
    """Run or resume the search until `search.n_trials` are done; returns and raises what `compare` does.

    The sampler gives activations unequal budgets, so the summary ranks them by what was found but compares nothing.
    """
    for name in candidates(configuration):
        activations.get(name)
    return Search(configuration, table=table).execute()


class Search(Experiment):
    """Trials that a sampler proposes, in batches."""

    command = "search"
    free = (
        "search.n_trials",
        *(
            f"compare.{key}"
            for key in ("baseline", "rope", "budget", "confirm", "protocol", "factors", "ensemble", "bag")
        ),
    )

    def plan(self) -> list[Cell]:
        return self._cells

    @property
    def n_networks(self) -> int:
        return super().n_networks * self.protocol.repeats

    @cached_property
    def _cells(self) -> list[Cell]:
        asked, names = self.configuration.search, candidates(self.configuration)
        n_trials = max(asked.n_trials, len(self.study.done()))
        space, rates = space_of(names, asked.learning_rate), first_learning_rates(*asked.learning_rate)
        first = [{"activation": name, "learning_rate": rate} for rate in rates for name in names]
        # every activation once; then the sampler has two fifths of the trials at least
        n_first = max(len(names), 3 * asked.n_trials // 5)
        swept = [
            Cell(f"trial {number}", number, number, "", params, space) for number, params in enumerate(first[:n_first])
        ]
        others = (Cell(f"trial {number}", number, number) for number in range(len(swept), n_trials))
        return [*swept, *others][:n_trials]

    def batch(self, n_missing: int) -> int:
        """The sweep at once, for the first rung can tell winners from losers only among many; then as configured."""
        asked = self.configuration.search.batch
        if self.configuration.storage is not None:
            # nobody knows how many workers there are
            return asked
        done = self.study.done()
        n_swept = sum(bool(cell.params) and cell.key not in done for cell in self._cells)
        return max(asked, min(self.largest_batch, -(-n_swept // self.n_workers)))

    def _n_queued(self) -> int | None:
        # a batch at a time, so that trials have the order of their cells also where some were queued again
        return self.batch(0)

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
        return [RungPruning(self.study, claimed, steps, self.n_networks), *super().callbacks(claimed)]


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
