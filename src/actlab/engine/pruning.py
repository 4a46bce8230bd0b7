"""Stopping losing trials of a search early: successive halving over epochs, inside the population that trains.

At every rung the better part of the trials known there goes on (Jamieson & Talwalkar 2016; asynchronous, so trials of
earlier populations count, as in Li et al. 2020). The members of the others leave the stacks and cost nothing more.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import optuna
from optuna.trial import TrialState

from actlab.engine.optuna_private import trial_id
from actlab.engine.study import DONE, Study
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


class RungPruning(pl.Callback):
    """Reports the trials of a population, by place in the results, at every rung and retires those that lose.

    A trial has `n_splits` members; where fewer train together, its mean would not compare with the others'.
    """

    def __init__(self, study: Study, claimed: Mapping[int, optuna.Trial], steps: Sequence[int], n_splits: int) -> None:
        self.study, self.claimed, self.steps, self.n_splits = study, claimed, steps, n_splits
        # place in the results to rung to value
        self.reported: dict[int, dict[int, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        """For an interrupted population: its trials are claimed again under other numbers of the study."""
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for place in state_dict["reported"].keys() & self.claimed.keys():
            for rung, value in state_dict["reported"][place].items():
                self._report(place, value, rung)

    def _report(self, place: int, value: float, rung: int) -> None:
        self.claimed[place].report(value, rung)
        self.reported.setdefault(place, {})[rung] = value

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # callbacks come before the module's own hook, where members that are done leave
        rung = trainer.current_epoch + 1
        if rung not in self.steps or not isinstance(pl_module, PopulationModule):
            return
        running = pl_module.running
        trials = by_trial([*pl_module.finished.values(), *running])
        values = {
            place: mean_so_far(outcomes)
            for place, outcomes in trials.items()
            if len(outcomes) == self.n_splits and not any(outcome.pruned for outcome in outcomes)
        }
        for place, value in values.items():
            self._report(place, value, rung)
        own = set(map(trial_id, self.claimed.values()))
        elsewhere = [
            trial.intermediate_values[rung]
            for trial in self.study.trials(*DONE, TrialState.RUNNING)
            if rung in trial.intermediate_values and trial_id(trial) not in own
        ]
        kept = FIRST_KEPT if rung == self.steps[0] else LATER_KEPT
        for place in values.keys() & {outcome.member.trial for outcome in running}:
            others = [*elsewhere, *(value for other, value in values.items() if other != place)]
            if reason := reason_to_stop(values[place], others, rung, kept):
                for outcome in trials[place]:
                    outcome.pruned = reason
        pl_module.retire(lambda outcome: outcome.pruned)
