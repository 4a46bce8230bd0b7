"""What is seen while populations train: lines and a bar on the terminal, curves in TensorBoard.

How progress is shown: two lines and a bar that are drawn over on a terminal, plain lines elsewhere.

Curves in TensorBoard while populations train; `tensorboard_log` replaces them when the run is done.

What the terminal shows while populations train: members, pace, remaining time and who leads.

What the parent of several workers shows: it trains nothing itself, and reads from the study what they have done.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import lightning.pytorch as pl
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actlab.engine.study import Study
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.report.tensorboard import LIVE_FILE, EventFile, run_name
from actlab.report.words import decimals_for, duration, fixed, rate
from actlab.runs.evaluate import MEMBERS

# Drawing takes 1-2 ms, so twice a second is far below 1 % of the time.
REDRAW_S = 0.5


@dataclass(frozen=True)
class Leader:
    """The trial with the lowest mean of its members' best validation scores so far."""

    activation: str
    learning_rate: float
    score: float

    def __str__(self) -> str:
        score = fixed(self.score, decimals_for(self.score))
        return f"{self.activation} at {rate(self.learning_rate)} leads with {score} on validation rows"


def counts(
    n_done: int, n_members: int, pace: float, elapsed_s: float, remaining_s: float, epoch: int | None = None
) -> str:
    """The line of numbers.

    Args:
        n_done: Members that are done.
        n_members: Members in all.
        pace: Member-epochs a second.
        elapsed_s: Since the start.
        remaining_s: Expected; nan or infinite while unknown.
        epoch: Of the population in training, where there is one.
    """
    return ", ".join(
        [
            f"{n_done} of {max(n_members, n_done)} networks done",
            *([] if epoch is None else [f"epoch {epoch}"]),
            f"{pace:,.0f} network epochs/s",
            f"{duration(elapsed_s)} elapsed",
            f"about {duration(remaining_s)} left" if math.isfinite(remaining_s) else "time left not known yet",
        ]
    )


class RowProgress:
    """Rows done, pace and remaining time of a file that is read through once.

    Args:
        console: As in `Display`.
        interval_s: As in `Display`.
    """

    def __init__(self, console: Console | None = None, interval_s: float = 10.0) -> None:
        self.display = Display(console, interval_s)
        self.started = time.monotonic()

    def show(self, n_rows: int, n_about: int) -> None:
        """After some rows, of about so many."""
        now = time.monotonic()
        if self.display.is_due(now):
            pace = n_rows / (now - self.started)
            left = duration((n_about - n_rows) / pace)
            line = f"{n_rows:,} of about {n_about:,} rows, {pace:,.0f} rows/s, about {left} left"
            self.display.show(now, n_rows / n_about, line, None)

    def close(self) -> None:
        """Give the terminal back."""
        self.display.close()


class Display:
    """Where progress goes: stderr unless given a console.

    Args:
        console: Where to write.
        interval_s: Seconds between two plain lines.
    """

    def __init__(self, console: Console | None = None, interval_s: float = 10.0) -> None:
        self.console = console or Console(stderr=True)
        self.interval_s = interval_s
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live: Live | None = None
        self.last_shown = time.monotonic()

    def is_due(self, now: float) -> bool:
        """Whether it is time to show something again."""
        return now - self.last_shown >= (REDRAW_S if self.is_live else self.interval_s)

    def show(self, now: float, share: float, line: str, leader: Leader | None) -> None:
        """Draw the share that is done (0 to 1), the line of numbers and the leader."""
        self.last_shown = now
        if not self.is_live:
            self.print("; ".join([line, *([str(leader)] if leader else [])]))
            return
        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        lines = Table.grid()
        lines.add_row(ProgressBar(total=1.0, completed=share))
        lines.add_row(Text(line))
        lines.add_row(Text(str(leader or ""), style="dim"))
        self.live.update(lines, refresh=True)

    def print(self, line: str) -> None:
        """A line that stays."""
        self.console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self.live is not None:
            self.live.stop()
            self.live = None


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


# The pace counts the last so many seconds: populations slow down when few members are left to share a step.
PACE_WINDOW_S = 20.0


def find_leader(outcomes: Iterable[Outcome]) -> Leader | None:
    """Best trial among those whose members all have a score; None as long as there is none."""
    trials: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        trials.setdefault(outcome.member.trial, []).append(outcome)
    best: Leader | None = None
    for members in trials.values():
        score = sum(outcome.val_score for outcome in members) / len(members)
        if math.isfinite(score) and (best is None or score < best.score):
            best = Leader(members[0].member.activation, members[0].member.learning_rate, score)
    return best


def expected_member_epochs(
    running: Iterable[int], n_waiting: int, finished: Iterable[int], patience: int, max_epochs: int
) -> float:
    """Epochs that members still have before them, in all.

    No member stops in its first `patience` epochs unless it diverges. Beyond them, members are taken to leave at a
    constant rate: the number that left over the epochs that all spent there, with one imagined member that left after
    `patience` epochs more, so that there is a rate before anyone leaves. Nobody trains longer than `max_epochs`.

    Args:
        running: Epochs that each member in training has behind it.
        n_waiting: Members that have not begun.
        finished: Epochs of each member that is done.
        patience: Epochs without a better score after which a member stops.
        max_epochs: Longest training.
    """
    running, beyond = list(running), [epochs - patience for epochs in finished if epochs > patience]
    exposure = sum(beyond) + sum(max(0, epochs - patience) for epochs in running) + patience
    typical = exposure / (len(beyond) + 1)

    def left(epochs: int) -> float:
        sure = max(0, min(patience, max_epochs) - epochs)
        longest = max(0, max_epochs - epochs - sure)
        return sure + typical * (1 - math.exp(-longest / typical))

    return sum(map(left, running)) + n_waiting * left(0)


class PopulationProgress(pl.Callback):
    """Members, epochs, pace, remaining time and the current leader, over all the fits of one run.

    On a terminal a bar of two lines that is drawn over; elsewhere a plain line at most every `interval_s` seconds.
    Writes to stderr unless given a console. Close it (or use it as a context manager) to get the terminal back.

    Args:
        n_members: Members that the run will train; `plan` sets it later. Else those of the populations so far.
        console: Where to write.
        interval_s: Seconds between two plain lines.
    """

    def __init__(self, n_members: int = 0, console: Console | None = None, interval_s: float = 10.0) -> None:
        self.display = Display(console, interval_s)
        self.n_members = n_members
        self.n_already = 0
        self.past: list[Outcome] = []
        self.module: PopulationModule | None = None
        self.started = time.monotonic()
        self.past_member_epochs = 0
        self.pace: deque[tuple[float, int]] = deque([(self.started, 0)])

    def plan(self, n_members: int) -> None:
        """Set how many members the run trains in all, those of `advance` among them."""
        self.n_members = n_members

    def advance(self, n_members: int) -> None:
        """Count members that are done without having trained here: an earlier, interrupted run's."""
        self.n_already += n_members

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, PopulationModule):
            self.module = pl_module
            self.n_members = max(self.n_members, self.n_done + len(pl_module.members))
            self.pace.append((time.monotonic(), self.member_epochs))
            if self.display.is_live:
                self._show(trainer.current_epoch, is_due=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer.current_epoch + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Callbacks hear of the end before the module does, so members still in training count as done here."""
        if self.module is not None:
            self.past_member_epochs += self.module.member_epochs
            self.past += self._current()
            self.module = None
            self._show(trainer.current_epoch, is_due=self.display.is_live)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; one line says what was trained."""
        self.display.close()
        if self.past:
            self.display.print(self.closing_line())
            self.past = []

    @property
    def member_epochs(self) -> int:
        """Epochs of all members so far."""
        return self.past_member_epochs + (self.module.member_epochs if self.module is not None else 0)

    @property
    def n_done(self) -> int:
        """Members that are done, however they ended."""
        return self.n_already + len(self.past) + (len(self.module.finished) if self.module is not None else 0)

    def _current(self) -> list[Outcome]:
        """Outcomes of the population in training: those that left, then those that go on."""
        if self.module is None:
            return []
        running = [outcome for training in self.module.training_stacks for outcome in training.outcomes.values()]
        return [*self.module.finished.values(), *running]

    def remaining_member_epochs(self) -> float:
        """What is expected to be left of the whole run."""
        if self.module is None:
            return 0.0
        current, n_left = self._current(), len(self.module.finished)
        if all(outcome.member.epochs for outcome in current):
            return sum(outcome.member.epochs - outcome.epochs for outcome in current[n_left:])
        finished = [outcome.epochs for outcome in [*self.past, *current[:n_left]]]
        running = [outcome.epochs for outcome in current[n_left:]]
        n_waiting = max(0, self.n_members - self.n_done - len(running))
        patience = self.module.optimizer_settings.patience
        return expected_member_epochs(running, n_waiting, finished, patience, self.module.max_epochs)

    def _measure_pace(self, now: float) -> float:
        """Member epochs a second over the last seconds; 0 while unknown."""
        self.pace.append((now, self.member_epochs))
        while len(self.pace) > 2 and now - self.pace[1][0] > PACE_WINDOW_S:
            self.pace.popleft()
        since, before = self.pace[0]
        return (self.member_epochs - before) / (now - since) if now > since else 0.0

    def _show(self, epoch: int, is_due: bool = False) -> None:
        now = time.monotonic()
        if not is_due and not self.display.is_due(now):
            return
        pace, left = self._measure_pace(now), self.remaining_member_epochs()
        line = counts(self.n_done, self.n_members, pace, now - self.started, left / pace if pace else math.nan, epoch)
        share = self.member_epochs / (self.member_epochs + left) if self.member_epochs else 0.0
        self.display.show(now, share, line, find_leader([*self.past, *self._current()]))

    def closing_line(self) -> str:
        """What was trained here and how long it took."""
        n_diverged = sum(outcome.is_diverged for outcome in self.past)
        diverged = f", {n_diverged} diverged" if n_diverged else ""
        took = duration(time.monotonic() - self.started)
        return f"{len(self.past)} networks trained in {took} ({self.member_epochs:,} network epochs{diverged})"


class TeamProgress:
    """Members done, pace, remaining time and the current leader, as far as trials that were told say.

    Args:
        study: The workers' study.
        n_trials: Trials in all.
        n_splits: Members of a trial.
        console: Where to write.
        interval_s: Seconds between two plain lines.
    """

    def __init__(
        self, study: Study, n_trials: int, n_splits: int, console: Console | None = None, interval_s: float = 10.0
    ) -> None:
        self.study, self.n_trials, self.n_splits = study, n_trials, n_splits
        self.display = Display(console, interval_s)
        self.started = self.last_told = time.monotonic()
        self.n_before = self.n_seen = len(study.done())
        self.epochs_before = member_epochs(list(study.done().values()))

    def show(self) -> None:
        """Look at the study and draw, if it is time to."""
        now = time.monotonic()
        if not self.display.is_due(now):
            return
        done = list(self.study.done().values())
        if len(done) > self.n_seen:
            self.n_seen, self.last_told = len(done), now
        elapsed_s = now - self.started
        pace = (member_epochs(done) - self.epochs_before) / elapsed_s if elapsed_s > 0 else 0.0
        line = counts(
            len(done) * self.n_splits, self.n_trials * self.n_splits, pace, elapsed_s, self._remaining_s(len(done), now)
        )
        self.display.show(now, len(done) / self.n_trials, line, leader_of(done))

    def _remaining_s(self, n_done: int, now: float) -> float:
        """Trials are told a population at a time: the pace is that of the last time when some were."""
        n_here = n_done - self.n_before
        if n_here == 0:
            return math.nan
        expected_s = (self.last_told - self.started) * (self.n_trials - n_done) / n_here
        return max(0.0, expected_s - (now - self.last_told))

    def close(self) -> None:
        """Give the terminal back."""
        self.display.close()


def member_epochs(done: list[FrozenTrial]) -> int:
    """Epochs that the members of these trials trained."""
    return sum(row["epochs"] for trial in done for row in trial.user_attrs[MEMBERS])


def leader_of(done: list[FrozenTrial]) -> Leader | None:
    """The best of the trials that were trained to their end."""
    scored = [
        (trial.value, trial)
        for trial in done
        if trial.state == TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    ]
    if not scored:
        return None
    score, best = min(scored, key=lambda each: each[0])
    return Leader(best.params["activation"], best.params["learning_rate"], score)
