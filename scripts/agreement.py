"""Do two comparisons of one table that differ in their seed agree? Runs some, and counts contradictions; writes a page.

The seed decides folds, initial weights, batch orders and, by the sweep, the learning rates. Runs are kept in `--out`,
so that an interrupted measurement goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import actlab
from actlab.run_files import write_text
from calibration.training import generated_table

OUTPUT = Path(__file__).parents[1] / "docs" / "agreement.md"
N_SEEDS, N_ROWS = 10, 400
ACTIVATIONS = ["identity", "sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu"]
OVERRIDES: dict[str, Any] = {
    "data": {"target_transform": "none", "batch_size": 32},
    "model": {"hidden": [16, 8]},
    "compare": {"activations": ACTIVATIONS, "learning_rates": [3e-3, 1e-2, 3e-2], "bag": 1},
    "trainer": {"max_epochs": 40, "accelerator": "cpu"},
}
GOOD, WORSE = "as good", "worse"


def settled(summary: Mapping[str, Any]) -> dict[str, str]:
    """What is settled of each activation: as good as the best, or worse; nothing is said of the others.

    The best one itself is as good where all others are worse, or it is known to cost nothing that matters against them.
    """
    words = {"worse": WORSE, "worse here": WORSE, "as good": GOOD}
    found = {
        one["b"]: words[one["verdict"]]
        for one in summary["comparisons"]
        if one["against"] == "best" and one["verdict"] in words
    }
    costs = {row["activation"]: row["cost_at_most"] for row in summary["ranking"]}
    cost, best, protocol = costs[summary["winner"]], summary["winner"], summary["protocol"]
    if protocol["ending"] == "alone" or (cost is not None and cost <= protocol["rope"]):
        found[best] = GOOD
    return found


@dataclass(frozen=True)
class Agreement:
    """Settled verdicts of one run held against another, for every two runs and both ways round.

    Args:
        settled: Verdicts settled in the one.
        confirmed: Settled the same way in the other; `contradicted`: the other way. The rest is not settled there.
    """

    settled: int
    confirmed: int
    contradicted: int


def agreement(found: Sequence[Mapping[str, str]]) -> Agreement:
    pairs = [(one[name], other.get(name)) for one, other in permutations(found, 2) for name in one]
    confirmed = sum(here == there for here, there in pairs)
    return Agreement(len(pairs), confirmed, sum(there is not None for _, there in pairs) - confirmed)


def run(out: Path, seed: int, n_rows: int) -> dict[str, Any]:
    """The summary of a comparison of the table; one that is finished is not run again."""
    csv = out / "table.csv"
    if not csv.is_file():
        out.mkdir(parents=True, exist_ok=True)
        generated_table(n_rows, 0).to_csv(csv, index=False)
    return actlab.compare(csv, "y", out=out / f"seed-{seed}", seed=seed, **OVERRIDES).summary


def page(summaries: Sequence[Mapping[str, Any]], n_rows: int, command: str) -> str:
    verdicts = [settled(summary) for summary in summaries]
    found = agreement(verdicts)
    share = found.contradicted / found.settled if found.settled else 0.0
    head = f"| seed | best | {' | '.join(ACTIVATIONS)} | networks |"
    rows = [
        f"| {seed} | {summary['winner']} | {' | '.join(own.get(name, '') for name in ACTIVATIONS)} "
        f"| {summary['protocol']['n_networks']} |"
        for seed, (summary, own) in enumerate(zip(summaries, verdicts, strict=True))
    ]
    return "\n".join(
        [
            "# Do two runs agree?",
            "",
            f"{len(summaries)} comparisons of one generated table of {n_rows} rows that differ in their seed: other",
            "folds, initial weights and batch orders, and other learning rates where the sweep picks others.",
            "",
            f"```\n{command}\n```",
            "",
            "Settled is what is `worse`, `worse here` or `as good`. Every run is held against every other: of the",
            f"{found.settled} settled verdicts {found.confirmed} are settled the same way there, "
            f"**{found.contradicted} the other way ({share:.1%})**, and",
            f"{found.settled - found.confirmed - found.contradicted} are not settled there.",
            "",
            head,
            f"| ---: | --- |{' --- |' * len(ACTIVATIONS)} ---: |",
            *rows,
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="runs")
    parser.add_argument("--rows", type=int, default=N_ROWS, help="of the table")
    parser.add_argument("--out", type=Path, default=Path("runs/agreement"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args(arguments)
    summaries = [run(asked.out, seed, asked.rows) for seed in range(asked.seeds)]
    text = page(summaries, asked.rows, " ".join(["python scripts/agreement.py", *arguments]))
    write_text(asked.output, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
