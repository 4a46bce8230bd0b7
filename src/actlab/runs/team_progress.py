"""What the parent of several workers shows: it trains nothing itself, and reads from the study what they have done."""

import math
import time

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from actlab.engine.studies import Study
from actlab.runs.display import Display, Leader, counts
from actlab.runs.results import MEMBERS


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
