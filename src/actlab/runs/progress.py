"""What the terminal shows while populations train: members, pace, remaining time and who leads."""

import math
import time
from collections import deque
from collections.abc import Iterable
from typing import Self

import lightning.pytorch as pl
from rich.console import Console

from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.report.answer import duration
from actlab.runs.display import Display, Leader, counts

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
