"""Curves in TensorBoard while populations train; `tensorboard_log` replaces them when the run is done."""

import math
import statistics
from collections.abc import Iterable
from pathlib import Path

import lightning.pytorch as pl

from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.report.event_files import LIVE_FILE, EventFile, run_name

# Points of a curve after which only every second epoch is written, after as many again every fourth, and so on.
POINTS_PER_STRIDE = 500


class LiveCurves(pl.Callback):
    """Appends to one run an activation: scores of its leading trial, and how many of its networks still train.

    The leading trial has the lowest mean of its members' best validation scores so far. Steps are epochs, counted on
    over the fits of a run. One file an activation; n epochs leave about 500 log2(n / 500) steps of 3 values in it,
    150 kB for 4,000 epochs. For one process of a run: a second one would write over its files.

    Args:
        directory: The run's `tensorboard` directory; for one of several workers a directory of its own in there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[str, EventFile] = {}
        self.epochs_before = 0
        self.n_written = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not isinstance(pl_module, PopulationModule):
            return
        step = self.epochs_before + trainer.current_epoch + 1
        if step % 2 ** (self.n_written // POINTS_PER_STRIDE):
            return
        self.n_written += 1
        running = [outcome for training in pl_module.training_stacks for outcome in training.outcomes.values()]
        n_running: dict[str, int] = {}
        for outcome in running:
            n_running[outcome.member.activation] = n_running.get(outcome.member.activation, 0) + 1
        for activation, outcomes in _leading_trials([*running, *pl_module.finished.values()]).items():
            # an activation is silent once none of its networks trains
            if activation in n_running:
                values = {
                    "live/val": _mean(outcome.val_curve[-1] for outcome in outcomes if outcome.val_curve),
                    "live/train": _mean(outcome.train_curve[-1] for outcome in outcomes if outcome.train_curve),
                    "live/networks": n_running[activation],
                }
                self._file(activation).add_scalars(step, values)
                self._file(activation).flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs_before += trainer.current_epoch

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; call it when the last population of a run is done."""
        for file in self.files.values():
            file.close()
        self.files = {}

    def _file(self, activation: str) -> EventFile:
        if activation not in self.files:
            self.files[activation] = EventFile(self.directory / run_name(activation) / LIVE_FILE)
        return self.files[activation]


def _leading_trials(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Activation to the members of its leading trial; trials with a member that has no score come last."""
    trials: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        trials.setdefault((outcome.member.activation, outcome.member.trial), []).append(outcome)
    leading: dict[str, tuple[float, list[Outcome]]] = {}
    for (activation, _), members in trials.items():
        mean = statistics.fmean(outcome.val_score for outcome in members)
        score = mean if math.isfinite(mean) else math.inf
        if activation not in leading or score < leading[activation][0]:
            leading[activation] = (score, members)
    return {activation: members for activation, (_, members) in leading.items()}


def _mean(values: Iterable[float]) -> float:
    """Of the finite ones; nan, which is not written, where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan
