"""How soon a member's training loss came down: epochs and seconds to fixed shares of the target's variance.

The levels are the same for every activation, so that times are compared at equal losses and never at equal epochs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from actlab.networks.population import Outcome

# Shares of the variance of the (log) target that the network explains on the rows it trains on, in training.
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class ConvergenceRecord:
    """When the training loss of one member first reached a level; nan where it never did.

    Args:
        r2: The level: training score <= sd sqrt(1 - r2), where sd is that of the (log) target over the whole table.
        epoch: Number of the epoch whose mean training loss is the first at the level, from 1.
        seconds: That epoch times the member's mean seconds an epoch, its share of the population's time.
    """

    trial: int
    activation: str
    learning_rate: float
    repeat: int
    fold: int
    inner: int
    r2: float
    epoch: float
    seconds: float


def convergence_records(outcomes: Sequence[Outcome], target_sd: float) -> list[ConvergenceRecord]:
    """One record for each member and level.

    Args:
        outcomes: Trained members with their training curves.
        target_sd: Standard deviation of the target, of its logarithm where networks train on that.
    """
    records = []
    for outcome in outcomes:
        member = outcome.member
        for r2 in LEVELS:
            epoch = first_epoch_at(outcome.train_curve, target_sd * math.sqrt(1 - r2))
            seconds = epoch * outcome.seconds / max(outcome.epochs, 1)
            where = (member.split.repeat, member.split.fold, member.split.inner)
            rate = member.learning_rate
            records.append(ConvergenceRecord(member.trial, member.activation, rate, *where, r2, epoch, seconds))
    return records


def first_epoch_at(curve: Sequence[float], level: float) -> float:
    """The first epoch, from 1, whose value is at or under the level; nan where none is."""
    return next((float(epoch) for epoch, value in enumerate(curve, start=1) if value <= level), math.nan)
