"""The claims and their evidence as a table for the terminal, from the summary alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

VERDICT_STYLES = {"supported": "green", "not supported": "red"}
SIGNS = {"above": ">", "below": "<", "at": "="}


def render_claims(claims: Sequence[Mapping[str, Any]]) -> Table:
    """One row a claim, its parts under it: the value with its interval, what the claim asks of it, and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("claim", ratio=1)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for claim in claims:
        table.add_row(Text(claim["claim"], style="bold"), "", "", _verdict(claim["verdict"], "bold "))
        for part in claim["parts"]:
            table.add_row(*_cells(part))
    return table


def _cells(part: Mapping[str, Any]) -> list[Text]:
    shown = number(part["value"])
    if not _is_none(part["ci_low"]):
        shown = f"{shown} ({number(part['ci_low'])} to {number(part['ci_high'])})"
    threshold = part.get("threshold")
    asked = "" if _is_none(threshold) else f"{SIGNS[part['side']]} {number(threshold)}"
    # where there is a value its interval says why it was not enough
    what = part["what"] + (f" [{part['reason']}]" if shown == "-" else "")
    return [Text(f"  {what}", style="dim"), Text(shown), Text(asked), _verdict(part["verdict"])]


def number(value: float | None) -> str:
    """Three significant digits; a dash where there is none."""
    return "-" if _is_none(value) or value is None else f"{value:.3g}"


def _is_none(value: float | None) -> bool:
    return value is None or value != value


def _verdict(verdict: str, prefix: str = "") -> Text:
    return Text(verdict, style=f"{prefix}{VERDICT_STYLES.get(verdict, 'yellow')}")
