"""The ranked table and the answer on the terminal, from the summary alone."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actlab.report.answer import (
    answer,
    comparison_with_winner,
    decimals_for,
    duration,
    fixed,
    rate,
    remarks,
    winner_row,
)

# Columns that the table needs; output that is no terminal gets so many.
WIDTH = 100
VERDICT_STYLES = {"worse": "red", "better": "green"}


def render_ranking(summary: Mapping[str, Any]) -> Table:
    """The ranking, best first, in 100 columns; `difference` is the paired one from the winner, with its verdict."""
    best = winner_row(summary)
    decimals = decimals_for(best["mean"] if best else 0.1)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if any(row.get("edge_of_range") for row in summary["ranking"]):
        table.caption = "! the best of the learning rates tried is the lowest or the highest of them"
    table.add_column("activation", min_width=13, max_width=13, overflow="fold")
    for name in ("rate", "mean", "95 % interval", "sd", "diverged", "weights", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference", no_wrap=True)
    for row in summary["ranking"]:
        table.add_row(*_cells(summary, row, decimals))
    return table


def _cells(summary: Mapping[str, Any], row: Mapping[str, Any], decimals: int) -> list[Text]:
    is_winner = row["activation"] == summary.get("winner")
    interval = f"{fixed(row.get('ci_low'), decimals)}–{fixed(row.get('ci_high'), decimals)}"
    n_diverged, seconds = row.get("diverged") or 0, row.get("seconds")
    cells = [
        Text(row["activation"], style="bold" if is_winner else ""),
        Text(rate(row["learning_rate"]) + ("!" if row.get("edge_of_range") else "")),
        Text(fixed(row["mean"], decimals), style="bold" if is_winner else ""),
        Text("-" if row.get("ci_low") is None else interval),
        Text(fixed(row.get("sd"), decimals)),
        Text(str(n_diverged), style="red" if n_diverged else "dim"),
        Text(f"{row['n_parameters']:,}" if row.get("n_parameters") is not None else "-"),
        Text("-" if seconds is None else duration(seconds)),
    ]
    return [*cells, Text("winner", style="bold") if is_winner else _against_winner(summary, row, decimals)]


def _against_winner(summary: Mapping[str, Any], row: Mapping[str, Any], decimals: int) -> Text:
    comparison = comparison_with_winner(summary, row["activation"])
    if comparison is None:
        return Text("not compared", style="dim")
    difference, verdict = comparison.get("difference"), comparison["verdict"]
    shown = "-" if difference is None else f"{difference:+,.{decimals}f}"
    # "no difference shown", said under a heading that has the word already
    words = "not shown" if verdict == "no difference shown" else verdict
    return Text(f"{shown} {words}", style=VERDICT_STYLES.get(verdict, ""))


def print_answer(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """The ranked table, the answer in one sentence, and what belongs beside it, to stdout unless given a console."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    console.print(render_ranking(summary))
    console.print(Text(answer(summary), style="bold"))
    for remark in remarks(summary):
        console.print(Text(remark))
