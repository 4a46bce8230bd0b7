"""The tables of a run: for the terminal, and for the page.

The ranked table and the answer on the terminal, from the summary alone.

The claims and their evidence as a table for the terminal, from the summary alone.

The tables of a report as plain texts and sort keys; the template lays them out and escapes them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from actlab.report.drawing import number
from actlab.report.finished import FinishedRun
from actlab.report.training_figures import N_NAMED, out_of_fold
from actlab.report.words import answer, comparison_with_winner, decimals_for, duration, fixed, rate, remarks, winner_row

# Columns that the table needs; output that is no terminal gets so many.
WIDTH = 100
VERDICT_STYLES = {"worse": "red", "better": "green"}


def render_ranking(summary: Mapping[str, Any]) -> RichTable:
    """The ranking, best first, in 100 columns; `difference` is the paired one from the winner, with its verdict."""
    best = winner_row(summary)
    decimals = decimals_for(best["mean"] if best else 0.1)
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if any(row.get("edge_of_range") for row in summary["ranking"]):
        table.caption = "! the best of the learning rates tried is the lowest or the highest of them"
    table.add_column("activation", min_width=13, max_width=13, overflow="fold")
    for name in ("rate", "mean", "95 % interval", "sd", "diverged", "weights", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference", no_wrap=True)
    for row in summary["ranking"]:
        table.add_row(*_ranking_cells(summary, row, decimals))
    return table


def _ranking_cells(summary: Mapping[str, Any], row: Mapping[str, Any], decimals: int) -> list[Text]:
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


CLAIM_STYLES = {"supported": "green", "not supported": "red"}
SIGNS = {"above": ">", "below": "<", "at": "="}


def render_claims(claims: Sequence[Mapping[str, Any]]) -> RichTable:
    """One row a claim, its parts under it: the value with its interval, what the claim asks of it, and the verdict."""
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("claim", ratio=1)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for claim in claims:
        table.add_row(Text(claim["claim"], style="bold"), "", "", _verdict(claim["verdict"], "bold "))
        for part in claim["parts"]:
            table.add_row(*_part_cells(part))
    return table


def _part_cells(part: Mapping[str, Any]) -> list[Text]:
    shown = three_digits(part["value"])
    if not _is_none(part["ci_low"]):
        shown = f"{shown} ({three_digits(part['ci_low'])} to {three_digits(part['ci_high'])})"
    threshold = part.get("threshold")
    asked = "" if _is_none(threshold) else f"{SIGNS[part['side']]} {three_digits(threshold)}"
    # where there is a value its interval says why it was not enough
    what = part["what"] + (f" [{part['reason']}]" if shown == "-" else "")
    return [Text(f"  {what}", style="dim"), Text(shown), Text(asked), _verdict(part["verdict"])]


def three_digits(value: float | None) -> str:
    """Three significant digits; a dash where there is none."""
    return "-" if _is_none(value) or value is None else f"{value:.3g}"


def _is_none(value: float | None) -> bool:
    return value is None or value != value


def _verdict(verdict: str, prefix: str = "") -> Text:
    return Text(verdict, style=f"{prefix}{CLAIM_STYLES.get(verdict, 'yellow')}")


Kind = Literal["words", "number"]
# Trials of a search that its table names.
N_TRIALS = 15
TONES = {"better": "good", "worse": "bad", "supported": "good", "not supported": "bad"}


@dataclass(frozen=True)
class Cell:
    """What is read, what it is sorted by (empty: always last), and a tone for verdicts."""

    text: str
    value: str
    kind: Kind = "words"
    tone: str = ""


@dataclass(frozen=True)
class Column:
    title: str
    kind: Kind = "number"


@dataclass(frozen=True)
class TableRow:
    cells: tuple[Cell, ...]
    is_winner: bool = False


@dataclass(frozen=True)
class Table:
    """A table that a click on a heading sorts."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]


def words(text: object, tone: str = "") -> Cell:
    return Cell(str(text), str(text), tone=tone)


def quantity(value: object, text: str | None = None) -> Cell:
    """A number; `text` is how it is read."""
    if not is_number(value):
        return Cell("–", "", "number")
    return Cell(number(float(value)) if text is None else text, repr(float(value)), "number")


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and math.isfinite(value)


def ranking_table(run: FinishedRun) -> Table:
    """All of the summary's ranking."""
    best = winner_row(run.summary)
    decimals = decimals_for(best["mean"] if best else 0.1)
    titles = ("place", "rate", "mean", "95 % interval", "sd", "diverged", "weights", "time")
    columns = [Column(title) for title in titles]
    columns.insert(1, Column("activation", "words"))
    rows = []
    for place, row in enumerate(run.ranking, start=1):
        interval = f"{fixed(row.get('ci_low'), decimals)} – {fixed(row.get('ci_high'), decimals)}"
        n_networks = row.get("n_members")
        diverged = str(row.get("diverged") or 0) + (f" of {n_networks}" if n_networks else "")
        seconds, n_weights = row.get("seconds"), row.get("n_parameters")
        cells = (
            quantity(place, str(place)),
            words(row["activation"]),
            quantity(row["learning_rate"], rate(row["learning_rate"]) + ("!" if row.get("edge_of_range") else "")),
            quantity(row["mean"], fixed(row["mean"], decimals)),
            quantity(row.get("ci_low"), interval),
            quantity(row.get("sd"), fixed(row.get("sd"), decimals)),
            quantity(row.get("diverged") or 0, diverged),
            quantity(n_weights, f"{n_weights:,}" if n_weights is not None else ""),
            quantity(seconds, duration(seconds) if seconds is not None else ""),
        )
        rows.append(TableRow(cells, row["activation"] == run.summary.get("winner")))
    return Table("ranking-table", tuple(columns), tuple(rows))


def differences_table(run: FinishedRun) -> Table | None:
    """Each activation against the winner and, where tested, against the baseline that was named before."""
    pairs = [(name, comparison_with_winner(run.summary, name)) for name in run.order]
    found = [(name, comparison) for name, comparison in pairs if comparison is not None]
    if not found:
        return None
    best = winner_row(run.summary)
    baseline = run.summary.get("baseline")
    of_baseline = {
        str(other["b"]): comparison_with_winner({"winner": baseline, "comparisons": [other]}, str(other["b"]))
        for other in run.summary.get("baseline_comparisons") or []
    }
    columns = [Column("activation", "words"), *map(Column, ("difference", "95 % interval", "Holm's p", "P(better)"))]
    columns.append(Column("against the winner", "words"))
    if of_baseline:
        columns.append(Column(f"against {baseline}", "words"))
    decimals = decimals_for(best["mean"] if best else 0.1)
    rows = []
    for name, comparison in found:
        cells = [
            words(name),
            quantity(comparison.get("difference"), f"{comparison.get('difference') or 0:+,.{decimals}f}"),
            quantity(comparison.get("ci_low"), _interval(comparison, decimals)),
            quantity(comparison.get("p_holm"), f"{comparison.get('p_holm') or 0:.2g}"),
            quantity(share := _better(comparison, name, run.summary), f"{share:.0%}"),
            words(comparison["verdict"], TONES.get(comparison["verdict"], "")),
        ]
        if of_baseline:
            other = of_baseline.get(name)
            verdict = "the baseline" if name == baseline else (other or {}).get("verdict", "–")
            cells.append(words(verdict, TONES.get(verdict, "")))
        rows.append(TableRow(tuple(cells)))
    return Table("differences-table", tuple(columns), tuple(rows))


def _interval(comparison: Mapping[str, Any], decimals: int) -> str:
    low, high = comparison.get("ci_low"), comparison.get("ci_high")
    return f"{low:+,.{decimals}f} to {high:+,.{decimals}f}" if is_number(low) and is_number(high) else "–"


def _better(comparison: Mapping[str, Any], name: str, summary: Mapping[str, Any]) -> float:
    """Share of pairs in which `name` scored lower; the summary may state the pair from the winner's side."""
    share = comparison.get("p_better")
    if not is_number(share):
        return math.nan
    stated = any(c["a"] == name and c["b"] == summary.get("winner") for c in summary.get("comparisons") or [])
    return float(share) if stated else 1 - float(share)


def confirmation_table(run: FinishedRun) -> Table | None:
    """Winner and closest rivals, trained again with fresh seeds and folds; seen from the rival, as all differences."""
    found = run.summary.get("confirmation")
    if not found or not found.get("comparisons"):
        return None
    best = winner_row(run.summary)
    decimals = decimals_for(best["mean"] if best else 0.1)
    rows = []
    for stated in found["comparisons"]:
        again = {"winner": stated["a"], "comparisons": [stated]}
        comparison = comparison_with_winner(again, str(stated["b"])) or stated
        first, now = stated.get("first_difference"), comparison.get("difference")
        cells = (
            words(stated["b"]),
            quantity(-first if is_number(first) else None, f"{-(first or 0):+,.{decimals}f}"),
            quantity(now, f"{now or 0:+,.{decimals}f}"),
            quantity(comparison.get("ci_low"), _interval(comparison, decimals)),
            words(comparison["verdict"], TONES.get(comparison["verdict"], "")),
        )
        rows.append(TableRow(cells))
    titles = ("first difference", "second difference", "95 % interval")
    columns = (Column("activation", "words"), *map(Column, titles), Column("second verdict", "words"))
    return Table("confirmation-table", columns, tuple(rows))


def trials_table(run: FinishedRun) -> Table | None:
    """The best trials of a search, with the parameters that differ between its trials."""
    trials: list[Mapping[str, Any]] = list(run.summary.get("trials") or [])
    if not trials:
        return None
    fixed_ = ("trial", "activation", "learning_rate", "val_score")
    varied = [key for key in trials[0] if key not in fixed_ and len({str(trial.get(key)) for trial in trials}) > 1]
    shown = []
    for trial in sorted(trials, key=lambda t: t["val_score"] if is_number(t["val_score"]) else math.inf)[:N_TRIALS]:
        cells = (
            quantity(trial["trial"], str(trial["trial"])),
            words(trial["activation"]),
            quantity(trial["learning_rate"], rate(trial["learning_rate"])),
            *(_setting(trial.get(key)) for key in varied),
            quantity(trial["val_score"], fixed(trial["val_score"], decimals_for(trial["val_score"]))),
        )
        shown.append(TableRow(cells))
    columns = (
        Column("trial"),
        Column("activation", "words"),
        Column("rate"),
        *(Column(key.replace("_", " "), _setting(trials[0].get(key)).kind) for key in varied),
        Column("validation"),
    )
    return Table("trials-table", columns, tuple(shown))


def _setting(value: object) -> Cell:
    if is_number(value) and not isinstance(value, bool):
        return quantity(value, f"{value:.3g}")
    return words(value)


def members_table(run: FinishedRun) -> Table:
    """The networks of a fit, one row each."""
    columns = (Column("seed"), Column("best epoch"), Column("epochs"), Column("validation"), Column("test"))
    rows = [
        TableRow(
            tuple(
                [quantity(int(row[key]), str(int(row[key]))) for key in ("seed", "best_epoch", "epochs")]
                + [quantity(float(row[key])) for key in ("val_score", "test_score")]
            )
        )
        for row in run.members.to_dict("records")
    ]
    return Table("members-table", columns, tuple(rows))


def worst_table(run: FinishedRun) -> Table | None:
    """The rows with the largest residuals, numbered as in the figure and named by the id column where there is one."""
    if run.predictions is None:
        return None
    rows = out_of_fold(run.predictions, run.target).head(2 * N_NAMED)
    has_id = "id" in rows and rows.id.notna().all()
    name = "id" if has_id else "row"
    off = "predicted / actual" if run.target.is_log else "residual"
    columns = (Column("number"), Column(name, "words"), Column("actual"), Column("predicted"), Column(off))
    shown = []
    for place, row in enumerate(rows.to_dict("records"), start=1):
        factor = row["predicted"] / row["actual"] if run.target.is_log else row["residual"]
        cells = (
            quantity(place, str(place)),
            words(row[name]),
            *(quantity(row[key], fixed(row[key], decimals_for(row[key]))) for key in ("actual", "predicted")),
            quantity(factor, f"{factor:.2f}" if run.target.is_log else number(factor)),
        )
        shown.append(TableRow(cells))
    return Table("worst-table", columns, tuple(shown))


def claim_rows(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claims with a line for each measured quantity behind them."""
    return [
        {
            "claim": claim["claim"],
            "verdict": claim["verdict"],
            "tone": TONES.get(claim["verdict"], ""),
            "evidence": [_evidence(part) for part in claim.get("parts") or []] or [claim.get("reason") or ""],
        }
        for claim in claims
    ]


def _evidence(part: Mapping[str, Any]) -> str:
    value = part.get("value")
    if not is_number(value):
        return f"{part['what']}: {part.get('reason') or 'not measured'}"
    text = f"{part['what']}: {_three(value)}"
    if is_number(part.get("ci_low")) and is_number(part.get("ci_high")):
        text += f" (95 % interval {_three(part['ci_low'])} to {_three(part['ci_high'])})"
    if is_number(part.get("threshold")):
        text += f", claimed {part.get('side') or 'at'} {_three(part['threshold'])}"
    if is_number(part.get("p_holm")):
        text += f", p {part['p_holm']:.2g}"
    return text


def _three(value: Any) -> str:
    return f"{value:.3g}"
