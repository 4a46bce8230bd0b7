"""What a comparison or a search leaves on the terminal."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from actlab.records import RunDirectory

# a file or a pipe has no width of its own
PIPE_WIDTH = 110


def show(run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Ranking, answer and claims, or summary.json; nothing where another process writes the results and said so."""
    if summary is None:
        return
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    from actlab.report.claims_table import render_claims
    from actlab.report.ranking_table import print_answer

    console = _console()
    print_answer(summary, console)
    if claims := summary.get("claims"):
        console.print(render_claims(claims))
    console.print(f"results: {run.path}", highlight=False, markup=False)


def show_several(run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Mean ranks over several data sets, the answer across them, and that of each; or summary.json."""
    if summary is None:
        return
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    from actlab.report.several import print_several

    console = _console()
    print_several(summary, console)
    console.print(f"results: {run.path}", highlight=False, markup=False)


def _console() -> "Console":
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
