"""How much does it flatter an activation that its learning rate was chosen on rows that later test it? Writes a page.

A comparison chooses each activation's learning rate on validation rows of repeat 0, and these are test rows of the
repeats that count. Here each fold's learning rate is chosen by a sweep that sees the rows outside the fold only
(nested), and networks at that rate and at the comparison's own are scored on the fold's rows, on the same splits and
seeds. Sweeps are kept in `--out`, so that an interrupted measurement goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from actlab.config import Configuration, configure
from actlab.data.splits import make_splits
from actlab.data.table import Table, read_table
from actlab.members import Split
from actlab.run_files import write_text
from actlab.runs.compare_search import Compare, Sweep
from actlab.runs.evaluate import Evaluation, Setting, make_member, train_in_waves

OUTPUT = Path(__file__).parents[1] / "docs" / "rate_optimism.md"
CONFIGS = ("configs/house_prices.yaml", "configs/concrete.yaml")
# The repeat whose folds are left out of the nested sweeps, and networks a fold and rate.
REPEAT, N_NETWORKS = 1, 6


class SweepOnly(Compare):
    """A comparison that ends when it knows its learning rates."""

    def _repeats(self, sweeps: Mapping[str, Sweep], done: object) -> list[tuple[str, float, int]]:
        return []


def chosen_rates(configuration: Configuration, out: Path) -> dict[str, float]:
    """The learning rate of each activation by a sweep of the table; those that diverged at every rate have none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with closing(SweepOnly(replace(configuration, out=str(out)))) as sweep:
        sweep.train()
        done = sweep.study.done()
        found = {name: sweep.sweep(name, done).best for name in sweep.variants}
    return {name: rate for name, rate in found.items() if rate is not None}


def nested_rates(configuration: Configuration, table: Table, out: Path) -> list[dict[str, float]]:
    """For each fold of `REPEAT`, those that a sweep of the rows outside it chooses."""
    splits = make_splits(table.layout, configuration.compare.splitting("compare"), configuration.seed)
    texts = pd.read_csv(str(configuration.data.csv), dtype=str, keep_default_na=False)
    found = []
    for fold in range(configuration.compare.folds):
        outside = np.setdiff1d(np.arange(table.n_rows), splits[Split(REPEAT, fold, 0)].test)
        path = out / f"without-{fold}.csv"
        out.mkdir(parents=True, exist_ok=True)
        texts.iloc[outside].to_csv(path, index=False)
        nested = replace(configuration, data=replace(configuration.data, csv=str(path)))
        found.append(chosen_rates(nested, out / f"without-{fold}"))
    return found


def scores(configuration: Configuration, table: Table, rates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Root of the mean squared error over all rows of each activation, at one rate a fold; a mean over networks."""
    protocol = replace(configuration.compare.splitting("compare"), inner=N_NETWORKS)
    evaluation = replace(Evaluation.of(configuration, "compare"), protocol=protocol)
    with_name = {name: place for place, name in enumerate(configuration.compare.activations)}
    members = [
        make_member(
            with_name[name],
            replace(Setting.of(name, configuration), learning_rate=rate),
            Split(REPEAT, fold, inner),
            configuration.seed,
        )
        for fold, own in enumerate(rates)
        for name, rate in own.items()
        for inner in range(N_NETWORKS)
    ]
    outcomes = train_in_waves(members, evaluation, table)
    splits = make_splits(table.layout, protocol, configuration.seed)
    squares = dict.fromkeys(with_name, np.zeros(N_NETWORKS))
    for outcome in outcomes:
        split = outcome.member.split
        own = np.zeros(N_NETWORKS)
        own[split.inner] = outcome.test_score**2 * len(splits[split].test)
        name = configuration.compare.activations[outcome.member.trial]
        squares[name] = squares[name] + own
    return {name: float(np.sqrt(total / table.n_rows).mean()) for name, total in squares.items()}


def section(path: str, out: Path) -> list[str]:
    """The table of one data set."""
    configuration = configure("compare", ["--config", path])
    table, place = read_table(configuration.data), out / Path(path).stem
    own = chosen_rates(configuration, place / "all")
    nested = nested_rates(configuration, table, place)
    at_own = scores(configuration, table, [own] * len(nested))
    at_nested = scores(configuration, table, nested)
    rows, shares = [], []
    for name in sorted(own, key=lambda name: at_own[name]):
        share = at_nested[name] / at_own[name] - 1
        shares.append(share)
        rates = ", ".join(f"{fold[name]:.2g}" for fold in nested)
        rows.append(
            f"| {name} | {own[name]:.2g} | {rates} | {at_own[name]:.4f} | {at_nested[name]:.4f} | {share:+.1%} |"
        )
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    return [
        f"## {Path(path).stem}",
        "",
        f"On average over {len(shares)} activations a nested choice scores **{np.mean(shares):+.1%}** (standard error",
        f"over activations {error:.1%}), lower is better.",
        "",
        "| activation | rate | nested rates, one a fold | score | nested | difference |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
        *rows,
        "",
    ]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS, help="YAML files")
    parser.add_argument("--out", type=Path, default=Path("runs/rate_optimism"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args(arguments)
    lines = [
        "# What choosing the learning rate on the same table flatters",
        "",
        "A comparison chooses each activation's learning rate on inner-validation rows of repeat 0, which are test",
        "rows of the repeats that count. Below, the score at that rate, and at rates that were chosen fold by fold by",
        "a sweep of the rows outside the fold (on a fifth fewer rows);",
        f"{N_NETWORKS} networks a fold, the same splits and seeds.",
        "",
        f"```\n{' '.join(['python scripts/rate_optimism.py', *arguments])}\n```",
        "",
    ]
    for path in asked.configs:
        lines += section(path, asked.out)
    write_text(asked.output, "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
