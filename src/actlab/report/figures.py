"""The figures of a run: which there are, what each shows in words, and their files."""

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from matplotlib.figure import Figure

from actlab.records import write_atomically, write_text
from actlab.report import score_figures, search_figures, training_figures
from actlab.report.drawing import style
from actlab.report.finished import FinishedRun

DPI = 160


@dataclass(frozen=True)
class Kind:
    """One kind of figure: its file name, and the function that draws it or says None where the run has no data."""

    name: str
    draw: Callable[[FinishedRun], Figure | None]


# In reading order. A new figure is a row here.
KINDS: tuple[Kind, ...] = (
    Kind("ranking", score_figures.ranking),
    Kind("learning_rates", score_figures.rates),
    Kind("importances", search_figures.importances),
    Kind("slices", search_figures.slices),
    Kind("differences", score_figures.differences),
    Kind("curves", training_figures.curves),
    Kind("health", training_figures.health),
    Kind("predictions", training_figures.predictions),
)


def draw(run: FinishedRun) -> dict[str, Figure]:
    """Every figure that the run has data for, by name, in reading order."""
    with style():
        drawn = {kind.name: kind.draw(run) for kind in KINDS}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same bytes for the same numbers."""
    text = StringIO()
    with style():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    # laid out by now; a second time would take as long and change nothing
    figure.set_layout_engine("none")
    return text.getvalue()


def write_figures(run: FinishedRun, figures: dict[str, Figure]) -> dict[str, str]:
    """PNG and SVG of each figure into the run's `figures`; returns the SVG texts.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    texts = {name: svg(figure) for name, figure in figures.items()}
    for name, figure in figures.items():
        write_text(run.directory.figures / f"{name}.svg", texts[name])
        _write_png(run.directory.figures / f"{name}.png", figure)
    for kind in KINDS:
        if kind.name not in figures:
            for suffix in ("png", "svg"):
                (run.directory.figures / f"{kind.name}.{suffix}").unlink(missing_ok=True)
    return texts


def _write_png(path: Path, figure: Figure) -> None:
    with style():
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))
