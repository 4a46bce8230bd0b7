"""Write docs/findings.md from finished runs: what their files say, and what could not be shown.

    python scripts/findings.py --run runs/compare-concrete "make compare CONFIG=configs/concrete.yaml ..." --run ...

Every number comes from summary.json, members.csv and health.csv; nothing is trained.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actlab.printed_tables import PrintedTable, TableColumn, as_markdown
from actlab.report.tables import differences_table, ranking_table
from actlab.report.words import answer, compared, listed, of_rows, percent, remarks, three_digits, what_the_words_mean
from actlab.run_files import RunDirectory, write_text
from actlab.verdict.summary import comparison_with_winner

HEAD = """# Findings

What the comparison says of two data sets, written from the run directories by

```
COMMAND
```

A score is the root of the mean squared error over all test rows of a repeat, on natural logarithms, and its mean over
the repeats; lower is better. Differences and intervals are in percent of the best score, and all intervals of a run
hold together at 95 % ([method](method.md))."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], is_text: Sequence[int] = (0,)) -> list[str]:
    """Markdown rows; columns are right-aligned unless they hold text."""
    columns = [TableColumn(title, is_number=place not in is_text) for place, title in enumerate(header)]
    return [as_markdown(PrintedTable.of(columns, rows)), ""]


def span(low: float, high: float) -> str:
    return f"{three_digits(low)} to {three_digits(high)}"


def non_linearity(summary: Mapping[str, Any]) -> list[str]:
    """identity against the best: whether a non-linearity is worth having on these data."""
    found = comparison_with_winner(summary, "identity")
    if found is None:
        return []
    best, gain = summary["winner"], f"{percent(found['ci_low'])} to {percent(found['ci_high'])}"
    new, these = of_rows(summary, "new rows"), of_rows(summary, "these rows")
    sentences = {
        "worse": f"Yes: on {new} of the same source identity, a linear model, is {gain} worse than {best}.",
        "worse here": f"Yes, on {these}: identity, a linear model, is {gain} worse than {best}.",
        "as good": f"No: identity, a linear model, costs at most {percent(found['cost_at_most'])}.",
    }
    unsettled = f"Not settled: identity, a linear model, is anything from {gain} worse than {best}."
    return ["### Is a non-linearity worth having?", "", sentences.get(found["verdict"], unsettled), ""]


def claims(summary: Mapping[str, Any]) -> list[str]:
    rows = []
    for claim in summary.get("claims") or []:
        rows.append([f"**{claim['claim']}**", "", "", "", f"**{claim['verdict']}**"])
        for part in claim["parts"]:
            interval = "" if part["ci_low"] is None else span(part["ci_low"], part["ci_high"])
            asked = {"above": ">", "below": "<", "at": "="}[part["side"]]
            asked = "" if part["threshold"] is None else f"{asked} {three_digits(part['threshold'])}"
            verdict = part["verdict"] + (f" ({part['reason']})" if part["reason"] else "")
            rows.append([part["what"], three_digits(part["value"]), interval, asked, verdict])
    return table(["claim", "measured", "95 % interval", "asked", "verdict"], rows, is_text=(0, 4)) if rows else []


def health(summary: Mapping[str, Any]) -> list[str]:
    """Health at the best epoch of the chosen trials, and what a step costs."""
    found, costs = summary.get("health") or {}, summary.get("costs") or {}
    if not found:
        return []
    dead = found["dead_at_the_end_by_rate"]
    columns = ["gradient_per_layer_start", "gradient_per_layer_best", "mean_output", "saturated", "dead"]
    names = [row["activation"] for row in summary["ranking"]]
    rows = (
        [
            name,
            *(three_digits(found[column].get(name)) for column in columns),
            ", ".join(f"{rate}: {three_digits(share)}" for rate, share in dead.get(name, {}).items()),
            *(three_digits(costs.get(name, {}).get(key)) for key in ("activation_us", "network_us")),
        ]
        for name in names
    )
    header = ["activation", "gradient per layer, start", "best epoch", "mean output", "saturated", "dead"]
    return table([*header, "dead at the end by rate", "us a step, alone", "network"], rows)


# what a verdict leaves open
OPEN = {
    "not settled": "whether {names} score as well as {best} or worse, on {these} already",
    "worse here": "whether {best} is better than {names} on {new} of the same source, too",
}


def open_questions(summary: Mapping[str, Any]) -> list[str]:
    """What could not be shown, in words."""
    lines, found = [], compared(summary)
    for verdict, text in OPEN.items():
        if names := [name for name, one in found.items() if one["verdict"] == verdict]:
            rows = {"new": of_rows(summary, "new rows"), "these": of_rows(summary, "these rows")}
            lines.append(f"- {text.format(names=listed(names, 20), best=summary['winner'], **rows)};")
    lines += [f"- {c['claim'].rstrip('.')}: {c['reason']};" for c in summary.get("claims") or [] if c["reason"]]
    lines.append("- anything about other data sets, other widths, or longer training than was allowed here.")
    return ["### What could not be shown", "", *lines, ""]


def section(path: str, command: str) -> list[str]:
    """Everything about one run."""
    run = RunDirectory(path)
    summary = run.read_summary()
    data, protocol = summary["data"], summary["protocol"]
    size = f"{data['n_rows']} rows, {data['n_columns']} columns, target `{data['target']}`"
    split = f"{protocol['folds']} folds, {protocol['repeats_done']} repeats at most"
    trained = f"{protocol['n_networks_swept']:,} networks for the learning rates, {protocol['n_networks']:,} that count"
    network = f"hidden layers {protocol['hidden']}, at most {protocol['max_epochs']} epochs, seed {protocol['seed']}"
    differences = differences_table(summary)
    return [
        *(f"## {Path(str(data['csv'])).parent.name}", "", f"{size}; {split}; {trained}; {network}.", ""),
        *(
            "```",
            command,
            "```",
            "",
            f"**{answer(summary)}**",
            "",
            *what_the_words_mean(summary),
            "",
            *remarks(summary),
        ),
        *("", "### Ranking", "", as_markdown(ranking_table(summary, is_alone=False)), ""),
        *(["### Differences", "", as_markdown(differences), ""] if differences else []),
        *non_linearity(summary),
        *("### Claims", "", *claims(summary)),
        *("### Health and cost", "", *health(summary)),
        *open_questions(summary),
    ]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Write docs/findings.md from finished runs.")
    parser.add_argument(
        "--run", nargs=2, action="append", required=True, metavar=("DIR", "COMMAND"), help="a run, and how it was made"
    )
    parser.add_argument("--output", default="docs/findings.md")
    asked = parser.parse_args(arguments)
    command = "python scripts/findings.py " + " ".join(f'--run {path} "..."' for path, _ in asked.run)
    lines = [HEAD.replace("COMMAND", command), ""]
    for path, made_by in asked.run:
        lines += section(path, made_by)
    write_text(Path(asked.output), "\n".join(lines))
    print(f"written: {asked.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
