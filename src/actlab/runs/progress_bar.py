"""A progress bar over two lines on a terminal, plain lines elsewhere; light, since prediction shows one too."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from actlab.report.words import duration, four_digits, three_digits

# Drawing takes 1-2 ms, so twice a second is far below 1 % of the time; a plain line stays, so it comes less often.
REDRAW_S, PLAIN_S = 0.5, 10.0


@dataclass(frozen=True)
class Leader:
    """The trial with the lowest mean of its members' best validation scores so far."""

    activation: str
    learning_rate: float
    score: float

    def __str__(self) -> str:
        score = four_digits(self.score)
        return f"{self.activation} at {three_digits(self.learning_rate)} leads with {score} on validation rows"


class _BarOverLines(rich_progress.Progress):
    """A bar and the times on one line, the numbers and a dimmed line below it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            yield Text(task.fields["numbers"])
            yield Text(task.fields["leader"], style="dim")


class Progress:
    """A bar over two lines that are drawn over on a terminal; elsewhere a plain line every `PLAIN_S` seconds.

    It writes to stderr unless a console is given. Close it (or use it as a context manager) to get the terminal back.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        columns = rich_progress.BarColumn(bar_width=None), rich_progress.TextColumn("{task.description}")
        self.bar = _BarOverLines(
            *columns, console=self.console, auto_refresh=False, transient=True, disable=not self.is_live, expand=True
        )
        self.task = self.bar.add_task("", total=1.0, numbers="", leader="")
        self.started = self.last_shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_due(self, now: float) -> bool:
        """Whether it is time to show something again."""
        return now - self.last_shown >= (REDRAW_S if self.is_live else PLAIN_S)

    def draw(self, now: float, share: float, numbers: str, times: str, leader: Leader | None = None) -> None:
        """Draw the share that is done (0 to 1), what was done, how long it took and takes, and the leader."""
        self.last_shown = now
        if self.is_live:
            self.bar.start()
            named = str(leader or "")
            self.bar.update(self.task, completed=share, description=times, numbers=numbers, leader=named, refresh=True)
        else:
            self.print("; ".join([f"{numbers}, {times}", *([str(leader)] if leader else [])]))

    def print(self, line: str) -> None:
        """A line that stays."""
        self.console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back."""
        self.bar.stop()


class RowProgress(Progress):
    """Rows done, pace and remaining time of a file that is read through once."""

    def show(self, n_rows: int, n_about: int) -> None:
        """After some rows, of about so many."""
        now = time.monotonic()
        if self.is_due(now):
            pace = n_rows / (now - self.started)
            numbers = f"{n_rows:,} of about {n_about:,} rows, {pace:,.0f} rows/s"
            self.draw(now, n_rows / n_about, numbers, f"about {duration((n_about - n_rows) / pace)} left")
