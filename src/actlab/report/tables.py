"""The tables of a run, described for the terminal and the page alike; and what the terminal shows of a summary."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from actlab.printed_tables import (
    EMPTY,
    PrintedTable,
    TableCell,
    TableColumn,
    Tone,
    is_number,
    is_quantity,
    number_cell,
    print_with_sentences,
    text_cell,
    text_column,
)
from actlab.report import words
from actlab.report.finished import FinishedRun
from actlab.report.training_figures import N_NAMED, out_of_fold
from actlab.verdict.summary import comparison_of, comparison_with_winner, turned_round

# Trials of a search that its table names.
N_TRIALS = 15
TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "supported": "good", "not supported": "bad"}
SIGNS = {"above": ">", "below": "<", "at": "="}
EDGE_NOTE = "! the best of the learning rates tried is the lowest or the highest of them"
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
CONFIRMATION_NOTE = (
    "Minus the winner, as above. The winner was picked by the scores of the first look, which makes its lead there "
    "look larger than it is; here it was named before. The rows are the same: only new data can say "
    "what these rows favour."
)
TRIALS_NOTE = "The best trials by mean inner-validation score, lower is better, with everything that was searched."
CLAIMS_NOTE = "Intervals are 95 %; p-values are adjusted (Holm) over all quantities of this table."


def print_answer(summary: Mapping[str, Any]) -> None:
    """Ranking, the answer in one sentence, what belongs beside it, and claims with their evidence, to stdout."""
    print_with_sentences(terminal_ranking(summary), words.answer(summary), words.remarks(summary))
    if claims := summary.get("claims"):
        print_with_sentences(claims_table(claims))


def terminal_ranking(summary: Mapping[str, Any]) -> PrintedTable:
    """The ranking in a line of 100 columns for each activation."""
    is_at_edge = any(row.get("edge_of_range") for row in summary["ranking"])
    return ranking_table(summary).without("place", note=EDGE_NOTE if is_at_edge else "")


def ranking_table(summary: Mapping[str, Any]) -> PrintedTable:
    """The ranking, best first; `difference` is the paired one from the winner, with its verdict."""
    decimals = words.score_decimals(summary)
    score = f",.{decimals}f"
    columns = (
        TableColumn("place"),
        text_column("activation", width=13, is_fixed=True),
        TableColumn("rate"),
        TableColumn("mean", score),
        TableColumn("95 % interval"),
        TableColumn("sd", score),
        TableColumn("diverged"),
        TableColumn("weights", ","),
        TableColumn("time", words.duration),
        text_column("difference", can_fold=False),
    )
    rows = []
    for place, row in enumerate(summary["ranking"], start=1):
        rate = words.three_digits(row["learning_rate"]) + ("!" if row.get("edge_of_range") else "")
        ends = "–".join(words.fixed(row.get(key), decimals) for key in ("ci_low", "ci_high"))
        settings = (row["activation"], number_cell(row["learning_rate"], rate))
        scores = (row["mean"], number_cell(row.get("ci_low"), ends), row.get("sd"))
        n_diverged, of_all = row.get("diverged") or 0, f" of {row['n_members']}" if row.get("n_members") else ""
        diverged = number_cell(n_diverged, f"{n_diverged}{of_all}", "lost" if n_diverged else "faint")
        costs = (diverged, row.get("n_parameters"), row.get("seconds"))
        rows.append((place, *settings, *scores, *costs, _difference(summary, row["activation"], decimals)))
    bold = [place for place, row in enumerate(summary["ranking"]) if row["activation"] == summary.get("winner")]
    return PrintedTable.of(columns, rows, name="ranking-table", note=RANKING_NOTE, bold=bold)


def _difference(summary: Mapping[str, Any], name: str, decimals: int) -> TableCell:
    if name == summary.get("winner"):
        return text_cell("winner")
    comparison = comparison_with_winner(summary, name)
    if comparison is None:
        return text_cell("not compared", "faint")
    difference, verdict = comparison.get("difference"), str(comparison["verdict"])
    shown = f"{difference:+,.{decimals}f}" if is_number(difference) else "-"
    # "no difference shown", said under a heading that has the word already
    said = "not shown" if verdict == "no difference shown" else verdict
    return text_cell(f"{shown} {said}", TONES.get(verdict, ""))


def _verdict(verdict: str, other: Tone = "") -> TableCell:
    """A verdict in its tone, or in the `other` one where it has none."""
    return text_cell(verdict, TONES.get(verdict, other))


def signed_interval(comparison: Mapping[str, Any], signed: str) -> TableCell:
    """The interval of a difference, its ends in the format `signed`."""
    low, high = comparison.get("ci_low"), comparison.get("ci_high")
    return number_cell(low, f"{low:{signed}} to {high:{signed}}") if is_number(low) and is_number(high) else EMPTY


def differences_table(summary: Mapping[str, Any]) -> PrintedTable | None:
    """Each activation against the winner and, where tested, against the baseline that was named before."""
    order = [str(row["activation"]) for row in summary["ranking"]]
    found = {name: comparison for name in order if (comparison := comparison_with_winner(summary, name))}
    if not found:
        return None
    signed = f"+,.{words.score_decimals(summary)}f"
    columns = [
        text_column("activation"),
        TableColumn("difference", signed),
        TableColumn("95 % interval"),
        TableColumn("Holm's p", ".2g"),
        TableColumn("P(better)", ".0%"),
        text_column("against the winner"),
    ]
    baseline, with_baseline = summary.get("baseline"), summary.get("baseline_comparisons")
    if with_baseline:
        columns.append(text_column(f"against {baseline}"))
    rows = []
    for name, comparison in found.items():
        difference, p_holm, p_better = map(comparison.get, ("difference", "p_holm", "p_better"))
        interval, verdict = signed_interval(comparison, signed), _verdict(comparison["verdict"])
        row = [name, difference, interval, p_holm, p_better, verdict]
        if with_baseline:
            other = comparison_of(with_baseline, name, baseline) or {}
            row.append("the baseline" if name == baseline else _verdict(other.get("verdict", "–")))
        rows.append(row)
    return PrintedTable.of(columns, rows, name="differences-table", note=DIFFERENCES_NOTE)


def confirmation_table(summary: Mapping[str, Any]) -> PrintedTable | None:
    """Winner and closest rivals, trained again with fresh seeds and folds; seen from the rival, as all differences."""
    again = (summary.get("confirmation") or {}).get("comparisons")
    if not again:
        return None
    signed = f"+,.{words.score_decimals(summary)}f"
    columns = (
        text_column("activation"),
        *(TableColumn(title, signed) for title in ("first difference", "second difference")),
        TableColumn("95 % interval"),
        text_column("second verdict"),
    )
    rows = []
    for stated in again:
        first, now = stated.get("first_difference"), turned_round(stated)
        differences = (-first if is_number(first) else None, now["difference"], signed_interval(now, signed))
        rows.append((stated["b"], *differences, _verdict(now["verdict"])))
    return PrintedTable.of(columns, rows, name="confirmation-table", note=CONFIRMATION_NOTE)


def trials_table(summary: Mapping[str, Any]) -> PrintedTable | None:
    """The best trials of a search, with the parameters that differ between its trials."""
    trials: list[Mapping[str, Any]] = summary.get("trials") or []
    if not trials:
        return None
    named = ("trial", "activation", "learning_rate", "val_score")
    varied = [key for key in trials[0] if key not in named and len({str(trial.get(key)) for trial in trials}) > 1]
    columns = (
        TableColumn("trial"),
        text_column("activation"),
        TableColumn("rate", words.three_digits),
        *(TableColumn(key.replace("_", " "), ".3g", is_quantity(trials[0].get(key))) for key in varied),
        TableColumn("validation", words.four_digits),
    )
    best = sorted(trials, key=lambda trial: trial["val_score"] if is_number(trial["val_score"]) else math.inf)
    rows = []
    for trial in best[:N_TRIALS]:
        own = (value if is_quantity(value) else str(value) for value in map(trial.get, varied))
        rows.append((trial["trial"], trial["activation"], trial["learning_rate"], *own, trial["val_score"]))
    return PrintedTable.of(columns, rows, name="trials-table", note=TRIALS_NOTE)


def members_table(run: FinishedRun) -> PrintedTable:
    """The networks of a fit, one row each."""
    counts = [TableColumn(title, ".0f") for title in ("seed", "best epoch", "epochs")]
    scores = [TableColumn(title, words.short_number) for title in ("validation", "test")]
    shown = run.members[["seed", "best_epoch", "epochs", "val_score", "test_score"]]
    return PrintedTable.of([*counts, *scores], shown.itertuples(index=False), name="members-table")


def worst_table(run: FinishedRun) -> PrintedTable | None:
    """The rows with the largest residuals, numbered as in the figure and named by the id column where there is one."""
    if run.predictions is None:
        return None
    is_log = run.target.is_log
    worst = out_of_fold(run.predictions, run.target).head(2 * N_NAMED)
    name = "id" if "id" in worst and worst.id.notna().all() else "row"
    columns = (
        TableColumn("number"),
        text_column(name),
        *(TableColumn(title, words.four_digits) for title in ("actual", "predicted")),
        TableColumn("predicted / actual", ".2f") if is_log else TableColumn("residual", words.short_number),
    )
    off = worst.predicted / worst.actual if is_log else worst.residual
    values = zip(worst[name], worst.actual, worst.predicted, off, strict=True)
    return PrintedTable.of(columns, [(place, *row) for place, row in enumerate(values, start=1)], name="worst-table")


def claims_table(claims: Sequence[Mapping[str, Any]]) -> PrintedTable:
    """One row a claim, its parts under it: the value with its interval, what the claim asks of it, and the verdict."""
    columns = (text_column("claim"), *map(TableColumn, ("measured", "asked")), text_column("verdict", can_fold=False))
    rows: list[tuple[object, ...]] = []
    bold = []
    for claim in claims:
        bold.append(len(rows))
        rows.append((claim["claim"], "", "", _verdict(claim["verdict"], "open")))
        for part in claim.get("parts") or []:
            threshold = part.get("threshold")
            asked = f"{SIGNS[part['side']]} {words.three_digits(threshold)}" if is_number(threshold) else ""
            # where there is a value its interval says why it was not enough
            why = "" if is_number(part["value"]) else f" [{part['reason']}]"
            what = text_cell(f"  {part['what']}{why}", "faint")
            rows.append((what, _measured(part), asked, _verdict(part["verdict"], "open")))
    return PrintedTable.of(columns, rows, bold=bold)


def evidence_table(claims: Sequence[Mapping[str, Any]]) -> PrintedTable | None:
    """One row a claim, with a line for each quantity that was measured for it."""
    if not claims:
        return None
    columns = (text_column("claim"), text_column("measured here"), text_column("verdict"))
    rows = []
    for claim in claims:
        lines = [_evidence(part) for part in claim.get("parts") or []] or [claim.get("reason") or ""]
        rows.append((claim["claim"], "\n".join(lines), _verdict(claim["verdict"])))
    return PrintedTable.of(columns, rows, name="claims", note=CLAIMS_NOTE)


def _evidence(part: Mapping[str, Any]) -> str:
    if not is_number(part.get("value")):
        return f"{part['what']}: {part.get('reason') or 'not measured'}"
    text = f"{part['what']}: {_measured(part, '95 % interval ')}"
    if is_number(part.get("threshold")):
        text += f", claimed {part.get('side') or 'at'} {words.three_digits(part['threshold'])}"
    if is_number(part.get("p_holm")):
        text += f", p {part['p_holm']:.2g}"
    return text


def _measured(part: Mapping[str, Any], interval: str = "") -> str:
    """A part's value, and its interval where it has one."""
    value, *ends = map(words.three_digits, (part["value"], part.get("ci_low"), part.get("ci_high")))
    return f"{value} ({interval}{' to '.join(ends)})" if is_number(part.get("ci_low")) else value
