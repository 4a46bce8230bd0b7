"""Count wrong verdicts where the truth is known, and how often a planted difference is found; writes the document.

Races that were trained are kept in the directory `--out`, so that an interrupted calibration goes on.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from actlab.run_files import write_text
from calibration.bank import N_REPEATS, PLANTED, SOURCES, Bank, Power, fill, power, read_bank, read_repeats
from calibration.document import document
from calibration.scenarios import (
    N_RUNS,
    SCENARIOS,
    Judged,
    Scenario,
    complete,
    copies_on_the_same_seeds,
    races,
    said_as_good,
    stored,
)

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "calibration.md"
BANKS = ROOT / "scripts" / "calibration" / "banks"
REPEATS = ROOT / "tests" / "data"
ROPES = (0.02, 0.05, 0.1, 0.2)
N_SAME_SEEDS, N_DRAWN = 20, 400


def banks() -> dict[str, Bank]:
    """Those trained by `--bank`, and real repeats without the scores of folds."""
    own = {f"{name}-bank": BANKS / f"{name}.csv" for name in SOURCES}
    found = {name: read_bank(path) for name, path in own.items() if path.is_file()}
    return found | {name: read_repeats(REPEATS / f"repeats_{name}.csv") for name in SOURCES}


def powers(name: str, bank: Bank, n_drawn: int, out: Path) -> list[tuple[str, Power]]:
    """For every budget and planted size; kept in `out` as long as the bank is the same."""
    path = out / f"power-{'-'.join(map(str, (name, *bank.scores.shape, n_drawn)))}.json"
    if path.is_file():
        return [(budget, Power(**own)) for budget, own in json.loads(path.read_text())]
    budgets = (("default", False), ("none", True))
    found = [(budget, power(bank, size, n_drawn, unlimited)) for budget, unlimited in budgets for size in PLANTED]
    write_text(path, json.dumps([(budget, asdict(own)) for budget, own in found]))
    return found


def written(judged: Mapping[Scenario, Sequence[Judged]], n_same_seeds: int, n_drawn: int, out: Path) -> str:
    """The document; an error where copies on the same seeds are anything but as good."""
    copies = {scenario.name: found for scenario, found in judged.items() if scenario.name.startswith("copies")}
    as_good = {name: [said_as_good(found, rope) for rope in ROPES] for name, found in copies.items() if found}
    for seed in range(n_same_seeds):
        found = copies_on_the_same_seeds(100, seed)
        if found != {"verdict": "as good", "cost_at_most": 0.0}:
            raise ValueError(f"a copy on the same seeds is {found} in race {seed}")
    found_powers = {name: (bank, powers(name, bank, n_drawn, out)) for name, bank in banks().items()}
    return document(judged, as_good, n_same_seeds, found_powers, n_drawn)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=N_RUNS, help="races of every scenario")
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS), help="train no others")
    parser.add_argument("--scenario", choices=SCENARIOS, help="train and show one race, with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bank", choices=SOURCES, help="train repeats to draw from, and nothing else")
    parser.add_argument("--repeats", type=int, default=N_REPEATS, help="of each activation in the bank")
    parser.add_argument("--drawn", type=int, default=N_DRAWN, help="races drawn from a bank for every row")
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args(arguments)
    # networks this small gain nothing from threads
    torch.set_num_threads(1)
    if asked.bank:
        source = SOURCES[asked.bank]
        fill(BANKS / f"{asked.bank}.csv", source.config, source.settings, asked.repeats)
    elif asked.scenario:
        (found,) = races(SCENARIOS[asked.scenario], [asked.seed])
        said = {"worse here": found.here, "worse": found.worse, "of these wrong": found.wrong}
        print("; ".join(f"{word}: {', '.join(names) or 'none'}" for word, names in said.items()))
        for name, scores in found.scores.items():
            print(f"{name:10} {statistics.fmean(scores):.4f} (sd {statistics.stdev(scores):.4f})")
    else:
        for name in asked.only:
            complete(asked.out, SCENARIOS[name], asked.runs)
        judged = {scenario: stored(asked.out, scenario) for scenario in SCENARIOS.values()}
        text = written(judged, N_SAME_SEEDS, asked.drawn, asked.out)
        write_text(asked.output, text)
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
