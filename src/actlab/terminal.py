"""What a comparison or a search leaves on the terminal."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from actlab.records import RunDirectory

# a file or a pipe has no width of its own
PIPE_WIDTH = 110


def show(run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Ranking, answer and claims, or summary.json; nothing where another process writes the results and said so."""
    _show(run, summary, as_json, _print_one)


def show_several(run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Mean ranks over several data sets, the answer across them, and that of each; or summary.json."""
    _show(run, summary, as_json, _print_several)


def _show(
    run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool, print_words: "Callable[[Any, Console], None]"
) -> None:
    if summary is None:
        return
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    print_words(summary, console)
    console.print(f"results: {run.path}", highlight=False, markup=False)


def _print_one(summary: Mapping[str, Any], console: "Console") -> None:
    from actlab.report.claims_table import render_claims
    from actlab.report.ranking_table import print_answer

    print_answer(summary, console)
    if claims := summary.get("claims"):
        console.print(render_claims(claims))


def _print_several(summary: Mapping[str, Any], console: "Console") -> None:
    from actlab.report.several import print_several

    print_several(summary, console)
