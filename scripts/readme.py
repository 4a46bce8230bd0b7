"""Put the answer of a run into README.md, between its markers: table, sentence, and the command behind them.

python scripts/readme.py runs/compare-house_prices runs/compare-concrete
"""

import sys
from pathlib import Path
from typing import Any

from actlab.printed_tables import PrintedTable, TableColumn, as_markdown, text_column
from actlab.report.words import answer, four_digits, percent, remarks, three_digits
from actlab.run_files import RunDirectory
from actlab.verdict.summary import comparison_with_winner

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- answer: begin (scripts/readme.py) -->", "<!-- answer: end -->"


def ranking(summary: dict[str, Any]) -> str:
    """The ranking as a Markdown table."""
    columns = (
        text_column("activation"),
        TableColumn("learning rate", three_digits),
        TableColumn("log-RMSE", four_digits),
        TableColumn("to the first, 95 % interval"),
        text_column("against the first"),
        TableColumn("costs at most"),
        TableColumn("parameters", ","),
    )
    rows = []
    for row in summary["ranking"]:
        found = comparison_with_winner(summary, row["activation"]) or {}
        low, high = (percent(found.get(key), "+") for key in ("ci_low", "ci_high"))
        difference = (
            f"{percent(found['difference'], '+')} ({low} to {high})" if found.get("ci_low") is not None else "-"
        )
        stated = (difference, found.get("verdict", "-"), percent(row["cost_at_most"]))
        rows.append([row["activation"], row["learning_rate"], row["mean"], *stated, row["n_parameters"]])
    return as_markdown(PrintedTable.of(columns, rows))


def section(directory: str) -> str:
    """One run: the command, the table, and what it says."""
    run = RunDirectory(directory)
    summary = run.read_summary()
    config = run.path.name.removeprefix("compare-")
    sentences = "\n".join([answer(summary), *remarks(summary)])
    return f"`actlab compare --config configs/{config}.yaml`\n\n{ranking(summary)}\n\n{sentences}"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n\n".join(section(directory) for directory in sys.argv[1:])
    README.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
