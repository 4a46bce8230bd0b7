"""`actlab report`: a run, or two side by side, as an HTML file that works offline, made from files, without torch.

Everything that comes from a CSV reaches the page through Jinja's escaping; the only script is our own, and the page's
Content-Security-Policy lets no other run, whatever a column is called. Figures are SVG inside the page: they get names
of their own, colours of the page and a text alternative.
"""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from actlab.config import NOT_COMPARED, differences
from actlab.errors import InputError
from actlab.printed_tables import PrintedTable, TableColumn, is_number, number_cell, text_column
from actlab.report import optuna_figures, score_figures, tables, training_figures, words
from actlab.report.drawing import GRID, INK, MUTED, PAPER, style
from actlab.report.finished import FinishedRun, read_finished
from actlab.report.tensorboard import write_figures_log
from actlab.run_files import to_yaml, write_atomically, write_text
from actlab.settings import ALPHA
from actlab.verdict.simultaneous import quantile
from actlab.verdict.summary import rows_by_activation

DPI = 160
# What the summary's `protocol` says of how a run went, which is no setting that two runs differ in.
OUTCOMES = (
    "looks",
    "ending",
    "n_trials",
    "n_networks",
    "n_networks_swept",
    "seconds_per_network",
    "repeats_done",
    "fold_sizes",
)
# With fewer repeats two runs are set side by side without intervals.
FEWEST_REPEATS = 4


@dataclass(frozen=True)
class FigureRecipe:
    """A figure: its file's name, the function that draws it or says None where the run has no data, its heading where
    two runs are set side by side (without one it is not), and whether it is wide enough as it is on a phone."""

    name: str
    draw: Callable[[FinishedRun], Figure | None]
    heading: str = ""
    is_narrow: bool = False


# In reading order. A new figure is a row here, and one in `words.FIGURE_TEXTS`.
RECIPES = (
    FigureRecipe("differences", score_figures.differences, "Differences from the best", is_narrow=True),
    FigureRecipe("what_matters", score_figures.what_matters, "What matters", is_narrow=True),
    FigureRecipe("ranking", score_figures.ranking, "Rankings", is_narrow=True),
    FigureRecipe("learning_rates", score_figures.learning_rates, "Learning rates"),
    FigureRecipe("importances", optuna_figures.importances, is_narrow=True),
    FigureRecipe("slices", optuna_figures.slices),
    FigureRecipe("curves", training_figures.curves, "Training"),
    FigureRecipe("health", training_figures.health, "Inside the networks"),
    FigureRecipe("predictions", training_figures.predictions, "Predictions"),
)


def draw(run: FinishedRun) -> dict[str, Figure]:
    """Every figure that the run has data for, by name, in reading order."""
    with style():
        drawn = {recipe.name: recipe.draw(run) for recipe in RECIPES}
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
    """PNG and SVG of each figure into the run's `figures`, where those that it has no data for go; returns SVG texts.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    for recipe in RECIPES:
        if recipe.name not in figures:
            for suffix in ("png", "svg"):
                (run.directory.figures / f"{recipe.name}.{suffix}").unlink(missing_ok=True)
    return {name: write_figure(figure, run.directory.figures / name) for name, figure in figures.items()}


def write_figure(figure: Figure, path: Path) -> str:
    """PNG and SVG of a figure, their endings put to `path`; returns the SVG text."""
    text = svg(figure)
    write_text(path.with_suffix(".svg"), text)
    with style():
        write_atomically(path.with_suffix(".png"), partial(figure.savefig, format="png", dpi=DPI))
    return text


def inline(svg: str, name: str, alternative: str) -> Markup:
    """The `<svg>` element of a matplotlib file for use inside a page.

    Its ids are prefixed with `name`, because those of two figures on one page would clash; the colours of text, paper
    and grid follow the page; a reader that sees no pictures reads `alternative`.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # matplotlib draws the ids of groups that nothing refers to
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    # the page's colours have a light and a dark value each
    for colour, role in ((INK, "ink"), (PAPER, "paper"), (GRID, "grid"), (MUTED, "muted")):
        body = body.replace(colour, f"var(--{role})")
    # the page says which type, and how lines join
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    width = float(body.partition('viewBox="0 0 ')[2].partition(" ")[0])
    body = re.sub(r' width="[0-9.]+pt" height="[0-9.]+pt"', "", body, count=1)
    opening = f'<svg role="img" aria-label="{escape(alternative)}" style="max-width:{1.6 * width:.0f}px" '
    return Markup(body.replace("<svg ", opening, 1))


def read_run(path: str | Path) -> FinishedRun:
    """A finished run whose verdicts are of the kind that a report speaks of.

    Raises:
        InputError: no finished run there, or one of a version that judged in another way.
    """
    run = read_finished(path)
    if run.is_ranked and ("ci_low" in run.ranking_rows[0] or "confirmation" in run.summary):
        raise InputError(
            f"the run in {run.directory.path} is of an earlier version of actlab, which judged in another way: "
            "train it again, in another directory"
        )
    return run


def write_report(path: str | Path) -> Path:
    """Make `report.html` and `figures/` of a run again; returns the page's path.

    Raises:
        InputError: no finished run there, or it cannot be written.
    """
    run = read_run(path)
    html = page(run)
    write_figures_log(run.directory)
    write_text(run.directory.report, html)
    return run.directory.report


def page(run: FinishedRun) -> str:
    """The HTML of a run's report; writes its figures on the way."""
    pictures = pictures_of(run)
    content: dict[str, Any] = {
        "title": words.title(run),
        "answer": unbroken(words.answer(run.summary) if run.is_ranked else words.fit_answer(run)),
        "remarks": list(map(unbroken, words.remarks(run.summary))) if run.is_ranked else [],
        "meanings": list(map(unbroken, words.what_the_words_mean(run.summary))),
        "is_ranked": run.is_ranked,
        "best": run.summary.get("winner") or "the best",
        "figures": pictures,
        "trials": tables.trials_table(run.summary),
        "ranking": tables.ranking_table(run.summary, is_alone=False) if run.is_ranked else None,
        "differences": tables.differences_table(run.summary) if run.is_ranked else None,
        "untested": f"{words.untested(run.summary).capitalize()}." if run.is_ranked else "",
        "members": None if run.is_ranked else tables.members_table(run),
        "claims": tables.evidence_table(run.summary.get("claims") or []),
        "worst": tables.worst_table(run),
        "protocol": words.protocol(run),
        "command": words.repeat_command(run.directory, run.command),
        "data": words.data_facts(run),
        **{key: run.summary.get(key) or [] for key in ("warnings", "notes")},
        "versions": run.part("versions").items(),
        "configuration": to_yaml(run.config),
        "missing": words.missing(run),
    }
    # ids and names, in reading order, and what a section is there for
    sections = (
        ("differences", "Differences", content["differences"]),
        ("matters", "What matters", pictures.get("what_matters")),
        ("ranking", "Ranking", content["ranking"]),
        ("rates", "Learning rates", pictures.get("learning_rates")),
        ("search", "Search", content["trials"] or pictures.get("slices")),
        ("curves", "Training", pictures.get("curves")),
        ("members", "Networks", content["members"]),
        ("health", "Inside", pictures.get("health") or content["claims"]),
        ("predictions", "Predictions", pictures.get("predictions")),
        ("method", "Method", True),
    )
    return render("report.html", content | {"sections": [(id_, name) for id_, name, found in sections if found]})


def unbroken(sentence: str) -> str:
    """With each percent sign on the line of its number."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def pictures_of(run: FinishedRun, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every figure of a run as the template takes it, ids in it begun with `prefix`; their files are written."""
    found, is_narrow = {}, {recipe.name: recipe.is_narrow for recipe in RECIPES}
    for name, text in write_figures(run, draw(run)).items():
        caption, alternative = words.figure_texts(name, run)
        picture = inline(text, f"{prefix}{name}", alternative)
        found[name] = {"svg": picture, "caption": caption, "is_narrow": is_narrow[name]}
    return found


LOADER = PackageLoader("actlab.report")
ENVIRONMENT = Environment(
    loader=LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, content: dict[str, Any]) -> str:
    """A page with our style and script in it."""
    css, script = (LOADER.get_source(ENVIRONMENT, name)[0] for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shared = {"style": Markup(css), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    return ENVIRONMENT.get_template(template).render(**content, **shared)


PAIRED = (
    "B minus A: mean difference over the repeats that both have, on the same folds, and its 95 % interval (Student's t "
    "over at least 4 repeats). It holds for these rows and for this one comparison. A negative one means that B scores "
    "lower, hence better."
)
UNPAIRED = (
    "The runs did not score the same rows in the same folds, so their scores cannot be paired: the difference of two "
    "means is shown without an interval and may be due to the folds alone."
)


def write_side_by_side(first: str | Path, second: str | Path) -> Path:
    """Make `report-with-B.html` in A's directory, and the figures of both; returns the page's path.

    Raises:
        InputError: one of them is not a finished run, is a `fit`, or they have different metrics.
    """
    runs = a, b = read_run(first), read_run(second)
    if fits := [run.directory.path for run in runs if not run.is_ranked]:
        raise InputError(f"{fits[0]} is a fit of one activation: only compare and search runs have ranks")
    paths = [run.directory.path.resolve() for run in runs]
    if paths[0] == paths[1]:
        raise InputError(f"{first} and {second} are the same run; name two")
    if a.target != b.target:
        raise InputError(
            f"the runs have different metrics, {a.target.metric} and {b.target.metric}: their scores do not compare"
        )
    names = [path.name for path in paths] if paths[0].name != paths[1].name else [str(path) for path in paths]
    sides = [
        {"letter": letter, "name": name, "answer": unbroken(words.answer(run.summary))}
        | {"remarks": list(map(unbroken, words.remarks(run.summary)))}
        for letter, name, run in zip("AB", names, runs, strict=True)
    ]
    pictures = [pictures_of(run, f"{letter}-") for letter, run in zip("AB", runs, strict=True)]
    drawn = [(recipe.heading, *(own.get(recipe.name) for own in pictures)) for recipe in RECIPES if recipe.heading]
    content = {
        "title": f"Two runs: {names[0]} and {names[1]}",
        "sides": sides,
        "table": score_table(a, b),
        "changed": changed(a, b),
        "figures": [(heading, left, right) for heading, left, right in drawn if left or right],
    }
    path = a.directory.path / f"report-with-{paths[1].name}.html"
    write_text(path, render("pair.html", content))
    return path


def are_paired(a: FinishedRun, b: FinishedRun) -> bool:
    """Whether fold i of every repeat has the same rows in both: the same data, folds and seed, and repeats that count
    from the same one on."""
    keys = ("folds", "n_rows", "seed")
    splits = [(run.part("data").get("sha256"), *map(run.part("protocol").get, keys)) for run in (a, b)]
    layouts = [run.part("protocol").get("layout") for run in (a, b)]
    return splits[0] == splits[1] and None not in splits[0] and a.command == b.command and layouts[0] == layouts[1]


def score_table(a: FinishedRun, b: FinishedRun) -> PrintedTable:
    """Rates and means of every activation of either run, in A's order, and the difference where both have it."""
    rows_of = [rows_by_activation(run.summary) for run in (a, b)]
    decimals = words.decimals_for(a.ranking_rows[0]["mean"] or 0.1)
    score, signed = f",.{decimals}f", f"+,.{decimals}f"
    scores = [score_figures.repeats_of(run) for run in (a, b)] if (is_paired := are_paired(a, b)) else [{}, {}]
    columns = (
        text_column("activation"),
        *(TableColumn("rate A", words.three_digits), TableColumn("mean A", score)),
        *(TableColumn("rate B", words.three_digits), TableColumn("mean B", score)),
        *(TableColumn("B minus A", signed), TableColumn("95 % interval"), TableColumn("repeats")),
    )
    rows = []
    for name in dict.fromkeys([*a.order, *b.order]):
        own = [found.get(name, {}) for found in rows_of]
        settings = [row.get(key) for row in own for key in ("learning_rate", "mean")]
        if name in scores[0] and name in scores[1]:
            difference, half, n = paired_difference(scores[0][name], scores[1][name])
            ends = f"{difference - half:{signed}} to {difference + half:{signed}}"
            rows.append([name, *settings, difference, number_cell(difference - half, ends), n])
        else:
            first, second = (row.get("mean") for row in own)
            gap = second - first if is_number(first) and is_number(second) else None
            rows.append([name, *settings, gap, None, None])
    return PrintedTable.of(columns, rows, name="pair-table", note=PAIRED if is_paired else UNPAIRED)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, int]:
    """Mean of b minus a over the repeats that both have, half of its 95 % interval (Student's t; nan below
    `FEWEST_REPEATS` repeats), and how many there are."""
    n = min(len(a), len(b))
    gaps = np.subtract(b[:n], a[:n])
    if n < FEWEST_REPEATS:
        return float(gaps.mean()), math.nan, n
    return float(gaps.mean()), float(quantile(ALPHA, 2, n - 1) * gaps.std(ddof=1) / math.sqrt(n)), n


def changed(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Configuration, data and versions that differ, `key: value in A -> value in B`."""
    configs = [{key: run.config[key] for key in run.config if key not in NOT_COMPARED} for run in (a, b)]
    pairs = [({"command": a.command}, {"command": b.command}), (configs[0], configs[1])]
    held = [{key: value for key, value in run.part("protocol").items() if key not in OUTCOMES} for run in (a, b)]
    pairs += [({"protocol": held[0]}, {"protocol": held[1]})]
    pairs += [({part: a.part(part)}, {part: b.part(part)}) for part in ("data", "versions")]
    return list(dict.fromkeys(line for one, other in pairs for line in differences(one, other)))
