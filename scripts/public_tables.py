"""Public tables that Python packages ship, through `check` and a small `compare` with nothing but path and target.

    python scripts/public_tables.py # some minutes; writes docs/tables.md

A table ends well where the shipped networks score at most 1.1 times the better of ridge and gradient boosting, or the
comparison stops with one sentence that names the key to set.
"""

import argparse
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from actlab.run_files import write_text

AT_MOST = 1.1
OUTPUT = Path(__file__).parents[1] / "docs" / "tables.md"
# (package, file in it, target)
TABLES = (
    ("statsmodels.datasets.ccard", "ccard.csv", "AVGEXP"),
    ("statsmodels.datasets.cancer", "cancer.csv", "cancer"),
    ("statsmodels.datasets.copper", "copper.csv", "WORLDCONSUMPTION"),
    ("statsmodels.datasets.engel", "engel.csv", "foodexp"),
    ("statsmodels.datasets.fair", "fair.csv", "affairs"),
    ("statsmodels.datasets.grunfeld", "grunfeld.csv", "invest"),
    ("statsmodels.datasets.heart", "heart.csv", "survival"),
    ("statsmodels.datasets.macrodata", "macrodata.csv", "realgdp"),
    ("statsmodels.datasets.modechoice", "modechoice.csv", "ttme"),
    ("statsmodels.datasets.nile", "nile.csv", "volume"),
    ("statsmodels.datasets.scotland", "scotvote.csv", "YES"),
    ("statsmodels.datasets.star98", "star98.csv", "MATHTOT"),
    ("statsmodels.datasets.statecrime", "statecrime.csv", "violent"),
    ("statsmodels.datasets.sunspots", "sunspots.csv", "SUNACTIVITY"),
)
BUDGET = (
    *("--compare.activations", "[relu, silu]", "--compare.repeats", "4"),
    *("--compare.learning_rates", "[1e-3, 3e-3, 1e-2]"),
)
HEAD = """# Public tables

Tables that Python packages ship, with nothing but path and target (and a small budget:
`{budget}`), by
`python scripts/public_tables.py`. Ratio: the shipped networks' score over the better of ridge and
gradient boosting on the same rows; lower is better.

| table | target | rows | ends with | shipped | ridge | boosting | ratio | first warning or refusal |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


def row(package: str, name: str, target: str, out: Path) -> tuple[str, float | None]:
    """One line of the table, what `compare` makes of a file, and the ratio; None where it stopped."""
    path = Path(str(files(package).joinpath(name)))
    asked = ["--data.csv", str(path), "--data.target", target, *BUDGET, "--out", str(out / name)]
    command = [sys.executable, "-m", "actlab", "compare", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line.partition(": ")[2] for line in done.stderr.splitlines() if line.startswith(("actlab: ", "warning: "))]
    sentence = (said[-1] if done.returncode else next(iter(said), "")).replace(str(path), name).replace("|", "\\|")
    scores: list[float] = []
    n_rows = ""
    if done.returncode == 0:
        summary = json.loads((out / name / "summary.json").read_text())
        references = summary["references"]
        scores = [summary["ensemble"]["test_score"], references["ridge"], references["hist_gradient_boosting"]]
        n_rows = str(summary["protocol"]["n_rows"])
    shown = [*(f"{score:.4g}" for score in scores), f"{scores[0] / min(scores[1:]):.3f}"] if scores else ["–"] * 4
    own = (f"{package.split('.')[0]} {name}", target, n_rows, str(done.returncode), *shown, sentence)
    return f"| {' | '.join(own)} |", scores[0] / min(scores[1:]) if scores else None


def tally(ratios: list[float | None]) -> str:
    """How many tables ended well."""
    known = [ratio for ratio in ratios if ratio is not None]
    n_good = sum(ratio <= AT_MOST for ratio in known)
    return (
        f"Of {len(ratios)} tables {len(ratios) - len(known)} stop with the key to set, {n_good} score at most "
        f"{AT_MOST} times the better reference, and {len(known) - n_good} score worse.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/public_tables"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    lines: list[str] = []
    ratios: list[float | None] = []
    for package, name, target in TABLES:
        line, ratio = row(package, name, target, asked.out)
        print(line, flush=True)
        lines.append(line)
        ratios.append(ratio)
    write_text(asked.output, HEAD.format(budget=" ".join(BUDGET)) + "\n".join(lines) + f"\n\n{tally(ratios)}")


if __name__ == "__main__":
    main()
