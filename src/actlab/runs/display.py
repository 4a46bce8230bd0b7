"""How progress is shown: two lines and a bar that are drawn over on a terminal, plain lines elsewhere."""

import math
import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actlab.report.answer import decimals_for, duration, fixed, rate

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
