"""What is seen while networks train: curves in TensorBoard, and how far a run is.

The populations that train in this process say so, or the study of several workers, whose parent trains nothing itself.
"""

import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import lightning.pytorch as pl
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from actlab.engine.study import Study
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome, by_trial, mean_score
from actlab.report.tensorboard import LIVE_FILE, EventFile, run_name
from actlab.report.words import duration
from actlab.runs.evaluate import MEMBERS
from actlab.runs.progress_bar import Leader, Progress

# The pace counts the last so many seconds: populations slow down when few members are left to share a step.
PACE_WINDOW_S = 20.0
# Points of a curve after which only every second epoch is written, after as many again every fourth, and so on.
POINTS_PER_STRIDE = 500


def find_leader(trials: Iterable[Leader]) -> Leader | None:
    """The best of these trials; None as long as none has a score for each of its members."""
    return min((trial for trial in trials if math.isfinite(trial.score)), key=lambda trial: trial.score, default=None)


def _numbers_and_times(done: str, pace: float, elapsed_s: float, left_s: float) -> tuple[str, str]:
    """In words; the pace is in member-epochs a second, and what is left is nan or infinite while unknown."""
    left = f"about {duration(left_s)} left" if math.isfinite(left_s) else "time left not known yet"
    return f"{done}, {pace:,.0f} network epochs/s", f"{duration(elapsed_s)} elapsed, {left}"


class TeamProgress(Progress):
    """Members done, pace, remaining time and the leader, as the trials of a study that were told have it."""

    def __init__(self, study: Study, n_trials: int, n_splits: int, console: Console | None = None) -> None:
        super().__init__(console)
        self.study, self.n_trials, self.n_splits = study, n_trials, n_splits
        self.last_told = self.started
        done = list(study.done().values())
        self.n_before = self.n_seen = len(done)
        self.epochs_before = _member_epochs(done)

    def show(self) -> None:
        now = time.monotonic()
        if not self.is_due(now):
            return
        done = list(self.study.done().values())
        if len(done) > self.n_seen:
            self.n_seen, self.last_told = len(done), now
        elapsed_s, n_here = now - self.started, self.n_seen - self.n_before
        pace, left_s = (_member_epochs(done) - self.epochs_before) / elapsed_s, math.nan
        if n_here:
            # trials are told a population at a time: the pace is that of the last time when some were
            expected_s = (self.last_told - self.started) * (self.n_trials - self.n_seen) / n_here
            left_s = max(0.0, expected_s - (now - self.last_told))
        n_members = max(self.n_trials, self.n_seen) * self.n_splits
        done_here = f"{self.n_seen * self.n_splits} of {n_members} networks done"
        # those that were stopped early do not lead
        leader = find_leader(
            Leader(trial.params["activation"], trial.params["learning_rate"], trial.values[0])
            for trial in done
            if trial.state == TrialState.COMPLETE
        )
        shown = _numbers_and_times(done_here, pace, elapsed_s, left_s)
        self.draw(now, self.n_seen / self.n_trials, *shown, leader)


def _member_epochs(done: Iterable[FrozenTrial]) -> int:
    return sum(row["epochs"] for trial in done for row in trial.user_attrs[MEMBERS])


def expected_member_epochs(
    running: Iterable[int], n_waiting: int, finished: Iterable[int], patience: int, max_epochs: int
) -> float:
    """Epochs that members still have before them, in all: `running` have some behind them, `n_waiting` none.

    No member stops in its first `patience` epochs unless it diverges. Beyond them, members are taken to leave at a
    constant rate: the number that left over the epochs that all spent there, with one imagined member that left after
    `patience` epochs more, so that there is a rate before anyone leaves. Nobody trains longer than `max_epochs`.
    """
    running, beyond = list(running), [epochs - patience for epochs in finished if epochs > patience]
    exposure = sum(beyond) + sum(max(0, epochs - patience) for epochs in running) + patience
    typical = exposure / (len(beyond) + 1)

    def left(epochs: int) -> float:
        sure = max(0, min(patience, max_epochs) - epochs)
        longest = max(0, max_epochs - epochs - sure)
        return sure + typical * (1 - math.exp(-longest / typical))

    return sum(map(left, running)) + n_waiting * left(0)


class PopulationProgress(Progress, pl.Callback):
    """Members, epochs, pace, remaining time and the current leader, over all the fits of one run.

    The run will train `n_members` (where not known, those of the populations so far), of which `n_already` are done
    without having trained here: an earlier, interrupted run's.
    """

    def __init__(self, n_members: int = 0, n_already: int = 0, console: Console | None = None) -> None:
        super().__init__(console)
        self.n_members, self.n_already = n_members, n_already
        self.past: list[Outcome] = []
        self.module: PopulationModule | None = None
        self.past_member_epochs = 0
        self.pace: deque[tuple[float, int]] = deque()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, PopulationModule):
            self.module = pl_module
            self.n_members = max(self.n_members, self.n_done + len(pl_module.members))
            self.pace.append((time.monotonic(), self.member_epochs))
            if self.is_live:
                self._show(trainer.current_epoch, is_due=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Callbacks hear of the end before the module does, so members still in training count as done here."""
        if self.module is not None:
            self.past_member_epochs += self.module.member_epochs
            self.past = [*self.finished, *self.module.running]
            self.module = None
            self._show(trainer.current_epoch, is_due=self.is_live)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; one line says what was trained here and how long it took."""
        super().close()
        if self.past:
            n_diverged = sum(outcome.is_diverged for outcome in self.past)
            diverged = f", {n_diverged} diverged" if n_diverged else ""
            took = duration(time.monotonic() - self.started)
            self.print(f"{len(self.past)} networks trained in {took} ({self.member_epochs:,} network epochs{diverged})")
            self.past = []

    @property
    def member_epochs(self) -> int:
        return self.past_member_epochs + (self.module.member_epochs if self.module is not None else 0)

    @property
    def finished(self) -> list[Outcome]:
        """Members that are done here, however they ended."""
        return [*self.past, *(self.module.finished.values() if self.module is not None else [])]

    @property
    def n_done(self) -> int:
        return self.n_already + len(self.finished)

    def remaining_member_epochs(self) -> float:
        if self.module is None:
            return 0.0
        running = self.module.running
        if all(member.epochs for member in self.module.members):
            return sum(outcome.member.epochs - outcome.epochs for outcome in running)
        return expected_member_epochs(
            [outcome.epochs for outcome in running],
            max(0, self.n_members - self.n_done - len(running)),
            [outcome.epochs for outcome in self.finished],
            self.module.optimizer_settings.patience,
            self.module.max_epochs,
        )

    def _show(self, epoch: int, is_due: bool = False) -> None:
        now = time.monotonic()
        if not is_due and not self.is_due(now):
            return
        self.pace.append((now, self.member_epochs))
        while len(self.pace) > 2 and now - self.pace[1][0] > PACE_WINDOW_S:
            self.pace.popleft()
        since, before = self.pace[0]
        pace = (self.member_epochs - before) / (now - since) if now > since else 0.0
        left = self.remaining_member_epochs()
        share = self.member_epochs / (self.member_epochs + left) if self.member_epochs else 0.0
        running = self.module.running if self.module is not None else []
        done = f"{self.n_done} of {max(self.n_members, self.n_done)} networks done, epoch {epoch}"
        shown = _numbers_and_times(done, pace, now - self.started, left / pace if pace else math.nan)
        self.draw(now, share, *shown, find_leader(scores_of([*self.finished, *running])))


def scores_of(outcomes: Iterable[Outcome]) -> Iterable[Leader]:
    """What each trial scores so far."""
    for members in by_trial(outcomes).values():
        member = members[0].member
        yield Leader(member.activation, member.learning_rate, mean_score(members))


class LiveCurves(pl.Callback):
    """Appends to one file an activation: scores of its leading trial, and how many of its networks still train.

    The leading trial has the lowest mean of its members' best validation scores so far. Steps are epochs, counted on
    over the fits of a run; n epochs leave about 500 log2(n / 500) steps of 3 values, 150 kB for 4,000 epochs. Each
    process of a run needs a directory of its own: a second one would write over the files.
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
        # an activation is silent once none of its networks trains
        n_running = Counter(outcome.member.activation for outcome in pl_module.running)
        trials = by_trial([*pl_module.running, *pl_module.finished.values()]).values()
        for activation in n_running:
            own = (members for members in trials if members[0].member.activation == activation)
            leading = min(own, key=mean_score)
            values = {
                "live/val": _mean_of_last(outcome.val_curve for outcome in leading),
                "live/train": _mean_of_last(outcome.train_curve for outcome in leading),
                "live/networks": n_running[activation],
            }
            if activation not in self.files:
                self.files[activation] = EventFile(self.directory / run_name(activation) / LIVE_FILE)
            self.files[activation].add_scalars(step, values)
            self.files[activation].flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs_before += trainer.current_epoch

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """To be called when the last population of a run is done."""
        for file in self.files.values():
            file.close()
        self.files = {}


def _mean_of_last(curves: Iterable[Sequence[float]]) -> float:
    """Of the finite ones; nan, which is not written, where there is none."""
    finite = [curve[-1] for curve in curves if curve and math.isfinite(curve[-1])]
    return statistics.fmean(finite) if finite else math.nan
