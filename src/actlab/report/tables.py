"""The tables of a run, described for the terminal and the page alike; and what the terminal shows of a summary."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
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

# Trials of a search that its table names.
N_TRIALS = 15
TONES: dict[str, Tone] = {
    **dict.fromkeys(("better", "better here", "as good", "supported"), "good"),
    **dict.fromkeys(("worse", "worse here", "not supported"), "bad"),
    "not settled": "open",
    "diverged": "lost",
}
SIGNS = {"above": ">", "below": "<", "at": "="}
EDGE_NOTE = "! the learning rate is the lowest or the highest of those tried"
RANKING_NOTE = (
    "Scores on test rows, lower is better, each the root over all rows of a repeat and its mean over the repeats. !: "
    "the learning rate is the lowest or highest tried. *: shown against another one than the best. Diverged: networks "
    "whose training went to nan or infinity, over all rates. Sd: over the repeats. Time: of all its networks, "
    "hours:minutes:seconds."
)
DIFFERENCES_NOTE = (
    "Differences and 95 % intervals are in percent of the score that they are against; all intervals hold together "
    "(Tukey's studentized range), each for the rows that its word is said of, at the look that decided. Costs ≤: what "
    "choosing it can cost at most, against the best of all still in. Needed: about how many more repeats, and how long "
    "here, would settle it if the difference stays as large as it is now; or rows, to show it for new ones."
)
TRIALS_NOTE = "The best trials by mean inner-validation score, lower is better, with everything that was searched."
CLAIMS_NOTE = (
    "Over the repeats, with 95 % intervals. Differences of scores are those of the comparison, whose intervals hold "
    "together; the tests of all other quantities are adjusted for each other (Holm)."
)


def print_answer(summary: Mapping[str, Any]) -> None:
    """Ranking, the answer in one sentence, what belongs beside it, and claims with their evidence, to stdout."""
    print_with_sentences(terminal_ranking(summary), words.answer(summary), words.remarks(summary))
    if claims := summary.get("claims"):
        print_with_sentences(claims_table(claims))


def terminal_ranking(summary: Mapping[str, Any]) -> PrintedTable:
    """The ranking in a line for each activation, its minor columns as far as they fit."""
    is_at_edge = any(row.get("edge_of_range") for row in summary["ranking"])
    notes = [EDGE_NOTE] if is_at_edge else []
    elsewhere = {
        name: found["shown_against"] for name, found in words.compared(summary).items() if _is_elsewhere(found)
    }
    if elsewhere:
        notes.append(f"* shown against {', '.join(f'{other} ({name})' for name, other in elsewhere.items())}")
    return ranking_table(summary).without("place", note="; ".join(notes))


def ranking_table(summary: Mapping[str, Any], *, is_alone: bool = True) -> PrintedTable:
    """The ranking, best first; where something was tested with every activation's word, and with its difference to the
    best and cost unless a table of these stands beside it."""
    decimals, found = words.score_decimals(summary), words.compared(summary)
    score, minor = f",.{decimals}f", partial(TableColumn, is_minor=True)
    columns = [TableColumn("place"), text_column("activation", width=13, is_fixed=True), TableColumn("rate")]
    columns.append(TableColumn("score", score))
    if found:
        columns += [TableColumn("to the best, %")] if is_alone else []
        columns.append(text_column("verdict", can_fold=False))
        columns += [TableColumn("costs ≤", words.at_most)] if is_alone else []
    columns += [minor("repeats"), minor("diverged"), minor("sd", score)]
    columns += [minor("weights", ","), minor("time", words.duration)]
    rows = []
    for place, row in enumerate(summary["ranking"], start=1):
        rate = words.three_digits(row["learning_rate"]) + ("!" if row.get("edge_of_range") else "")
        n_diverged, of_all = row.get("diverged") or 0, f" of {row['n_members']}" if row.get("n_members") else ""
        diverged = number_cell(n_diverged, f"{n_diverged}{of_all}", "lost" if n_diverged else "faint")
        own = (place, row["activation"], number_cell(row["learning_rate"], rate), row["mean"])
        stated = _against_best(row, found.get(row["activation"]))[slice(None) if is_alone else slice(1, 2)]
        rows.append(
            (*own, *(stated if found else ()), row.get("n"), diverged, *map(row.get, ("sd", "n_parameters", "seconds")))
        )
    bold = [place for place, row in enumerate(summary["ranking"]) if row["activation"] == summary.get("winner")]
    return PrintedTable.of(columns, rows, name="ranking-table", note=RANKING_NOTE, bold=bold)


def _against_best(row: Mapping[str, Any], found: Mapping[str, Any] | None) -> tuple[object, ...]:
    """Difference with interval, verdict and cost; `found` is None for the best."""
    if found is None:
        return EMPTY, text_cell("best"), row.get("cost_at_most")
    word = str(found["verdict"])
    verdict = text_cell(f"{word}{'*' * _is_elsewhere(found)}", TONES.get(word, ""))
    return _in_percent(found), verdict, found.get("cost_at_most")


def _is_elsewhere(found: Mapping[str, Any]) -> bool:
    """Whether a verdict was earned against another activation than the best, whose interval may hold 0."""
    return bool(found.get("shown_against"))


def _in_percent(found: Mapping[str, Any]) -> TableCell:
    """`+2.5 (+0.9 to +4.1)`, under a heading that says percent."""
    difference, low, high = (
        words.percent(found.get(key), "+").removesuffix(" %") for key in ("difference", "ci_low", "ci_high")
    )
    interval = f" ({low} to {high})" if is_number(found.get("ci_low")) and found["ci_low"] < found["ci_high"] else ""
    return number_cell(found.get("difference"), f"{difference}{interval}")


def _verdict(verdict: str, other: Tone = "") -> TableCell:
    """A verdict in its tone, or in the `other` one where it has none."""
    return text_cell(verdict, TONES.get(verdict, other))


def differences_table(summary: Mapping[str, Any]) -> PrintedTable | None:
    """Each activation against the best and, where there is one, against the baseline that was named before."""
    order, found = [str(row["activation"]) for row in summary["ranking"]], words.compared(summary)
    if not found:
        return None
    baseline, with_baseline = summary.get("baseline"), words.compared(summary, "baseline")
    columns = [
        text_column("activation"),
        TableColumn("difference, %"),
        text_column(f"against {summary['winner']}", can_fold=False),
        text_column("holds for"),
        TableColumn("costs ≤", words.at_most),
        TableColumn("repeats"),
        text_column("needed"),
    ]
    if has_baseline := bool(with_baseline) and baseline != summary["winner"]:
        columns += [TableColumn(f"to {baseline}, %"), text_column(f"against {baseline}", can_fold=False)]
    rows = []
    for name in order:
        if (one := found.get(name)) is not None:
            row = [
                name,
                _in_percent(one),
                text_cell(_than(one), TONES.get(one["verdict"], "")),
                words.of_rows(summary, one["covers"]) if one.get("covers") else "–",
            ]
            row += [one.get("cost_at_most"), one.get("n_repeats"), needed(one, words.unit(summary))]
            if has_baseline:
                other = with_baseline.get(name)
                row += [_in_percent(other), _verdict(str(other["verdict"]))] if other else [EMPTY, "the baseline"]
            rows.append(row)
    return PrintedTable.of(columns, rows, name="differences-table", note=DIFFERENCES_NOTE)


def _than(found: Mapping[str, Any]) -> str:
    """The verdict, and whom it was earned against where that is not the best."""
    if not _is_elsewhere(found):
        return str(found["verdict"])
    low, high = (words.percent(found.get(key), "+").removesuffix(" %") for key in ("shown_low", "shown_high"))
    return f"{found['verdict']} than {found['shown_against']} ({low} to {high})"


def needed(found: Mapping[str, Any], unit: str = "rows") -> str:
    """What would settle a comparison: repeats with the time that they take here, or rows; empty where nothing is open
    or nothing can be said."""
    repeats, rows, seconds = map(found.get, ("repeats_needed", "rows_needed", "seconds_needed"))
    if is_number(repeats):
        return f"{repeats} repeats" + (f", {words.about(seconds)}" if is_number(seconds) else "")
    return f"{words.two_digits(rows)} {unit}" if is_number(rows) else ""


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
