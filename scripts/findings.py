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
from actlab.report.words import answer, decimals_for, duration, fixed, listed, remarks, three_digits
from actlab.run_files import RunDirectory, write_text
from actlab.verdict.significance import Comparison, compare_all
from actlab.verdict.summary import choose, scores_of

HEAD = """# Findings

What the comparison says of two data sets, written from the run directories by

```
COMMAND
```

Scores are means over (repeat, fold) of the log-RMSE on test rows, natural logarithm, lower is better. Learning rates
are chosen per fold on inner validation. Intervals and p-values are those of the corrected resampled t-test (Nadeau &
Bengio 2003), Holm-adjusted over the comparisons with the winner; p (all pairs) also pays for picking the winner by
these scores. `no difference shown` means what it says; it is not a proof of equality. P(equal) is the posterior
probability that the difference lies within the region of practical equivalence: 1 % of the baseline's score unless
set otherwise."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], is_text: Sequence[int] = (0,)) -> list[str]:
    """Markdown rows; columns are right-aligned unless they hold text."""
    columns = [TableColumn(title, is_number=place not in is_text) for place, title in enumerate(header)]
    return [as_markdown(PrintedTable.of(columns, rows)), ""]


def span(low: float, high: float) -> str:
    return f"{three_digits(low)} to {three_digits(high)}"


def ranking(summary: Mapping[str, Any]) -> list[str]:
    rows = summary["ranking"]
    decimals = decimals_for(rows[0]["mean"])
    header = ["activation", "rate", "mean", "95 % interval", "IQM", "after 1 rate", "after 2", "diverged", "weights"]
    return table(
        [*header, "member-epochs", "time"],
        (
            [
                row["activation"],
                three_digits(row["learning_rate"]) + (" (edge)" if row["edge_of_range"] else ""),
                fixed(row["mean"], decimals),
                f"{fixed(row['ci_low'], decimals)} to {fixed(row['ci_high'], decimals)}",
                fixed(row["interquartile_mean"], decimals),
                *(fixed(value, decimals) for value in [*row["expected_best"], None, None][:2]),
                f"{row['diverged']} of {row['n_members']}",
                f"{row['n_parameters']:,}",
                f"{row['member_epochs']:,}",
                duration(row["seconds"]),
            ]
            for row in rows
        ),
    )


def comparisons(found: Sequence[Mapping[str, Any]], decimals: int) -> list[str]:
    header = ["against", "difference", "95 % interval", "p (Holm)", "p (all pairs)", "p (naive)"]
    return table(
        [*header, "P(better)", "P(equal)", "verdict"],
        (
            [
                c["b"],
                fixed(c["difference"], decimals),
                f"{fixed(c['ci_low'], decimals)} to {fixed(c['ci_high'], decimals)}",
                three_digits(c["p_holm"]),
                three_digits(c["p_all_pairs"]),
                three_digits(c["p_naive"]),
                f"{three_digits(c['p_better'])} ({span(c['p_better_low'], c['p_better_high'])})",
                three_digits(c["p_rope_equal"]),
                str(c["verdict"]),
            ]
            for c in found
        ),
        is_text=(0, 8),
    )


def against_identity(run: RunDirectory, summary: Mapping[str, Any]) -> list[str]:
    """identity against every other activation: whether a non-linearity is worth having on these data."""
    scores = scores_of(choose(run.read_members(), is_comparison=True))
    if "identity" not in scores:
        return []
    protocol = summary["protocol"]
    ratio = protocol["n_test"] / (protocol["n_training"] + protocol["n_validation"])
    found = compare_all(scores, "identity", ratio, summary["rope"])
    lines = ["### Is a non-linearity worth having?", "", _identity_sentence(found), ""]
    return lines + comparisons([c.to_dict() for c in found], decimals_for(summary["ranking"][0]["mean"]))


def _identity_sentence(found: Sequence[Comparison]) -> str:
    by_verdict = {
        word: [c.b for c in found if c.verdict == word] for word in ("worse", "better", "no difference shown")
    }
    if len(by_verdict["worse"]) == len(found):
        return "Yes: identity, a linear model, is worse than every activation."
    parts = [
        f"identity is {word} than {listed(by_verdict[word], 20)}" for word in ("worse", "better") if by_verdict[word]
    ]
    if open_ones := by_verdict["no difference shown"]:
        parts.append(f"no difference from {listed(open_ones, 20)} could be shown")
    return f"Not shown for all: {'; '.join(parts)}."


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


def confirmation(summary: Mapping[str, Any]) -> list[str]:
    found = summary.get("confirmation")
    if not found:
        return []
    decimals = decimals_for(summary["ranking"][0]["mean"])
    rows = (
        [
            f"{c['a']} minus {c['b']}",
            *(fixed(c[key], decimals) for key in ("first_difference", "difference")),
            f"{fixed(c['ci_low'], decimals)} to {fixed(c['ci_high'], decimals)}",
            three_digits(c["p_holm"]),
            str(c["verdict"]),
        ]
        for c in found["comparisons"]
    )
    header = ["pair", "first look", "second look", "95 % interval", "p (Holm)", "verdict"]
    text = "The winner and its close rivals, trained again with fresh seeds and folds on the same rows."
    return ["### Second look", "", text, "", *table(header, rows, is_text=(0, 5))]


def open_questions(summary: Mapping[str, Any]) -> list[str]:
    """What could not be shown, in words."""
    unshown = list(summary["indistinguishable_from_winner"])
    lines = []
    if unshown:
        lines.append(f"- that {summary['winner']} is better than {listed(unshown, 20)};")
    lines += [f"- {c['claim'].rstrip('.')}: {c['reason']};" for c in summary.get("claims") or [] if c["reason"]]
    lines.append("- anything about other data sets, other widths, or longer training than was allowed here.")
    return ["### What could not be shown", "", *lines, ""]


def section(path: str, command: str) -> list[str]:
    """Everything about one run."""
    run = RunDirectory(path)
    summary = run.read_summary()
    data, protocol = summary["data"], summary["protocol"]
    decimals = decimals_for(summary["ranking"][0]["mean"])
    size = f"{data['n_rows']} rows, {data['n_columns']} columns, target `{data['target']}`"
    split = f"{protocol['repeats']} x {protocol['folds']}-fold, {protocol['inner']} inner splits"
    network = f"hidden layers {protocol['hidden']}, at most {protocol['max_epochs']} epochs, seed {protocol['seed']}"
    return [
        *(f"## {Path(str(data['csv'])).parent.name}", "", f"{size}; {split}; {network}.", ""),
        *("```", command, "```", "", f"**{answer(summary)}**", "", *remarks(summary), ""),
        *("### Ranking", "", *ranking(summary)),
        *(
            f"### {summary['winner']} (the winner) against the others",
            "",
            *comparisons(summary["comparisons"], decimals),
        ),
        *against_identity(run, summary),
        *confirmation(summary),
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
