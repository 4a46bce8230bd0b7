"""`actlab report`: a run as one HTML file that works offline, made from the run's files alone, without torch.

Everything that comes from a CSV reaches the page through Jinja's escaping; the only script is our own, and the page's
Content-Security-Policy lets no other run, whatever a column is called.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from actlab.configuration import to_yaml
from actlab.records import write_text
from actlab.report.answer import answer, remarks
from actlab.report.figures import draw, write_figures
from actlab.report.finished import FinishedRun, read_finished
from actlab.report.inline_svg import inline
from actlab.report.tables import (
    claim_rows,
    confirmation_table,
    differences_table,
    members_table,
    ranking_table,
    trials_table,
    worst_table,
)
from actlab.report.tensorboard_log import write_figures_log
from actlab.report.words import (
    alternative,
    caption,
    command,
    data_facts,
    fit_answer,
    missing,
    protocol,
    title,
)

NARROW = ("ranking", "differences", "importances")
RANKING_NOTE = (
    "Scores on test rows, lower is better; rate: the learning rate chosen in most folds, with ! where it is the "
    "lowest or highest tried; diverged: networks whose training went to nan or infinity, over all rates; time: "
    "of all its networks, hours:minutes:seconds."
)
DIFFERENCES_NOTE = (
    "Two-sided corrected resampled t-tests (Nadeau & Bengio 2003), adjusted by Holm over the comparisons with the "
    "winner, or with the baseline. The winner was picked by these scores: what would not hold if that were paid for "
    "too, by Holm over every pair of activations, is said under the answer. An interval belongs to its one comparison. "
    "P(better): share of folds in which the activation scores lower than the winner. No difference shown does not mean "
    "that there is none."
)
UNTESTED = (
    "Nothing was tested: activations were given unequal budgets, or there is only one of them. "
    "Run actlab compare for differences with verdicts."
)
CONFIRMATION_NOTE = (
    "Minus the winner, as above. The winner was picked by the scores of the first look, which makes its lead there "
    "look larger than it is; here it was named before. The rows are the same: only new data can say "
    "what these rows favour."
)
SECTIONS = {
    "ranking": "Ranking",
    "rates": "Learning rates",
    "search": "Search",
    "differences": "Differences",
    "curves": "Training",
    "members": "Networks",
    "health": "Inside",
    "predictions": "Predictions",
    "method": "Method",
}


def write_report(path: str | Path) -> Path:
    """Make `report.html` and `figures/` of a run again; returns the page's path.

    Raises:
        InputError: no finished run there, or it cannot be written.
    """
    run = read_finished(path)
    html = page(run)
    write_figures_log(run.directory)
    write_text(run.directory.report, html)
    return run.directory.report


def page(run: FinishedRun) -> str:
    """The HTML of a run's report; writes its figures on the way."""
    pictures = pictures_of(run)
    content: dict[str, Any] = {
        "title": title(run),
        "answer": answer(run.summary) if run.is_ranked else fit_answer(run),
        "remarks": remarks(run.summary) if run.is_ranked else [],
        "is_ranked": run.is_ranked,
        "figures": pictures,
        "trials": trials_table(run),
        "ranking": ranking_table(run) if run.is_ranked else None,
        "ranking_note": RANKING_NOTE,
        "differences": (tested := differences_table(run) if run.is_ranked else None),
        "differences_note": DIFFERENCES_NOTE if tested else UNTESTED,
        "confirmation": confirmation_table(run),
        "confirmation_note": CONFIRMATION_NOTE,
        "members": None if run.is_ranked else members_table(run),
        "claims": claim_rows(run.summary.get("claims") or []),
        "worst": worst_table(run),
        "protocol": protocol(run),
        "command": command(run),
        "data": data_facts(run),
        "versions": [(name, str(version)) for name, version in (run.summary.get("versions") or {}).items()],
        "configuration": to_yaml(run.config),
        "missing": missing(run),
    }
    content["sections"] = [(id_, name) for id_, name in SECTIONS.items() if _has(id_, content)]
    return render("report.html", content)


def _has(section: str, content: dict[str, Any]) -> bool:
    figures = content["figures"]
    present = {
        "ranking": content["ranking"],
        "rates": figures.get("learning_rates"),
        "search": content["trials"] or figures.get("slices"),
        "differences": content["is_ranked"],
        "curves": figures.get("curves"),
        "members": content["members"],
        "health": figures.get("health") or content["claims"],
        "predictions": figures.get("predictions"),
    }
    return bool(present.get(section, True))


def pictures_of(run: FinishedRun, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every figure of a run as the template takes it; their files are written.

    Args:
        run: The run.
        prefix: Keeps the names inside two runs' drawings apart on one page.
    """
    texts = write_figures(run, draw(run))
    return {
        name: {
            "svg": inline(text, f"{prefix}{name}", alternative(name, run)),
            "caption": caption(name, run),
            "is_narrow": name in NARROW,
        }
        for name, text in texts.items()
    }


def render(template: str, content: dict[str, Any]) -> str:
    """A page with our style and script in it."""
    environment = _environment()
    script = _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shared = {"style": Markup(_source("style.css")), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    return environment.get_template(template).render(**content, **shared)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("actlab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]
