"""Stopping losing trials early: successive halving over epochs, inside the population that trains.

At every rung the better part of the trials goes on (Jamieson & Talwalkar 2016): of a search all that are known there
(asynchronous, so trials of earlier populations count, as in Li et al. 2020), of a sweep the learning rates of each
activation. The members of the others leave the stacks and cost nothing more.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import optuna
from optuna.trial import FrozenTrial, TrialState

from actlab.engine.optuna_private import trial_id
from actlab.engine.study import DONE, NUMBER, Study
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome, by_trial

# The share of the trials at the first rung, and at later ones, that goes on. A first rung saves the most and may be
# strict once ranks mean something, which at epoch 8 they do not: of 221 settings of House Prices the best is number 141
# there. Later ranks among trials that are all good change to the end, so a strict second rung loses the best of them.
FIRST_KEPT, LATER_KEPT = 0.4, 0.75
# The first rung, how many times further on the next one is, and the share of the longest training where they end: the
# last ranks are decided late, and early stopping saves more there than a rung would. docs/scaling.md has the figures.
FIRST_RUNG, SPACING, LAST_SHARE = 12, 3, 0.3
# A training so short that this share of it has fewer epochs has no rung.
FEWEST = 3


def rungs(max_epochs: int, first: int = FIRST_RUNG, spacing: int = SPACING) -> list[int]:
    """Epochs at which trials are compared; the end of `LAST_SHARE` alone where that comes before `first`."""
    last = int(LAST_SHARE * max_epochs)
    if FEWEST <= last < first:
        return [last]
    steps = []
    while first <= last:
        steps.append(first)
        first *= spacing
    return steps


def mean_so_far(outcomes: Sequence[Outcome]) -> float:
    """Mean of the members' best validation scores so far; infinite where one has none."""
    # a plain sum, not `fmean`, which can differ in the last bit from what older studies hold of the same trial
    mean = sum(outcome.val_score for outcome in outcomes) / len(outcomes)
    return mean if math.isfinite(mean) else math.inf


def reason_to_stop(value: float, others: Sequence[float], rung: int, kept: float) -> str:
    """Why a trial is stopped at a rung, an epoch; empty where it goes on, as the share `kept` of all does.

    `value` is its `mean_so_far`, `others` are those of the other trials at the same rung; at least one goes on.
    """
    n_trials = len(others) + 1
    rank = 1 + sum(other < value for other in others)
    # rounded first: 0.4 * 5 could be a little more than 2
    if rank <= math.ceil(round(n_trials * kept, 6)):
        return ""
    return f"epoch {rung}: validation score {value:.6g} is number {rank} of {n_trials}"


class Rungs(pl.Callback, ABC):
    """Reports the trials of a population, by the number of their members, at every rung and retires those that lose.

    A trial has `n_splits` members; where fewer train together, its mean would not compare with the others'.
    """

    def __init__(self, study: Study, claimed: Mapping[int, optuna.Trial], steps: Sequence[int], n_splits: int) -> None:
        self.study, self.claimed, self.steps, self.n_splits = study, claimed, steps, n_splits
        # number to rung to value
        self.reported: dict[int, dict[int, float]] = {}

    @abstractmethod
    def losers(self, values: Mapping[int, float], rung: int) -> Mapping[int, str]:
        """Of the trials with these values, numbers of those to stop, and why."""

    def state_dict(self) -> dict[str, Any]:
        """For an interrupted population: its trials are claimed again under other numbers of the study."""
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for number in state_dict["reported"].keys() & self.claimed.keys():
            for rung, value in state_dict["reported"][number].items():
                self._report(number, value, rung)

    def _report(self, number: int, value: float, rung: int) -> None:
        self.claimed[number].report(value, rung)
        self.reported.setdefault(number, {})[rung] = value

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # callbacks come before the module's own hook, where members that are done leave
        rung = trainer.current_epoch + 1
        if rung not in self.steps or not isinstance(pl_module, PopulationModule):
            return
        running = pl_module.running
        trials = by_trial([*pl_module.finished.values(), *running])
        values = {
            number: mean_so_far(outcomes)
            for number, outcomes in trials.items()
            if number in self.claimed
            and len(outcomes) == self.n_splits
            and not any(outcome.pruned for outcome in outcomes)
        }
        for number, value in values.items():
            self._report(number, value, rung)
        reasons, in_training = self.losers(values, rung), {outcome.member.trial for outcome in running}
        for number in reasons.keys() & in_training:
            for outcome in trials[number]:
                outcome.pruned = reasons[number]
        pl_module.retire(lambda outcome: outcome.pruned)

    def elsewhere(self, rung: int) -> Iterator[tuple[FrozenTrial, float]]:
        """Trials of other populations that reported at a rung, and what."""
        own = set(map(trial_id, self.claimed.values()))
        for trial in self.study.trials(*DONE, TrialState.RUNNING):
            if rung in trial.intermediate_values and trial_id(trial) not in own:
                yield trial, trial.intermediate_values[rung]


class RungPruning(Rungs):
    """Of all trials known at a rung, a share goes on."""

    def losers(self, values: Mapping[int, float], rung: int) -> Mapping[int, str]:
        elsewhere = [value for _, value in self.elsewhere(rung)]
        kept = FIRST_KEPT if rung == self.steps[0] else LATER_KEPT
        reasons = {}
        for number, value in values.items():
            others = [*elsewhere, *(own for other, own in values.items() if other != number)]
            reasons[number] = reason_to_stop(value, others, rung, kept)
        return {number: reason for number, reason in reasons.items() if reason}


class RateRace(Rungs):
    """Of the learning rates of each activation, `kept` says which go on.

    `kept` takes rate to mean validation score so far, of one activation. `rate_of` has the group and the learning rate
    of every trial that races. What other trials of a group were told earlier (its worker died in between) counts as if
    they trained here.
    """

    def __init__(
        self,
        *shared: Any,
        rate_of: Mapping[int, tuple[str, float]],
        kept: Callable[[Mapping[float, float]], set[float]],
    ) -> None:
        super().__init__(*shared)
        self.rate_of, self.kept = rate_of, kept

    def losers(self, values: Mapping[int, float], rung: int) -> Mapping[int, str]:
        scores: dict[str, dict[float, float]] = {}
        for number in values.keys() & self.rate_of.keys():
            group, rate = self.rate_of[number]
            scores.setdefault(group, {})[rate] = values[number]
        known = {number: own for number, own in self.rate_of.items() if number not in self.claimed}
        for trial, value in self.elsewhere(rung):
            if (own := known.get(trial.user_attrs[NUMBER])) is not None:
                scores.setdefault(own[0], {})[own[1]] = value
        on = {group: self.kept(own) for group, own in scores.items()}
        return {
            number: f"epoch {rung}: other learning rates are better"
            for number, (group, rate) in self.rate_of.items()
            if number in values and rate not in on[group]
        }
