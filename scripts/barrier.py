"""How long workers wait at the looks of a race: a simulation of its plan with many workers, nothing trained.

Scores are real ones (32 repeats of 13 activations), so who leaves at which look is real, too. A worker claims as many
cells at a time as the engine gives it, trains them one after the other as far as time is concerned, and waits when none
are left until the last one before the look is done. How long a cell takes is drawn: from the members.csv of a run, or
from a lognormal distribution.
"""

import argparse
import heapq
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd

from actlab.runs.compare_search import Compare
from actlab.runs.experiment import POPULATION_MEMBERS
from actlab.settings import CompareSettings
from actlab.verdict.race import LOOKS, Terms, default_budget, run

ROOT = Path(__file__).parents[1]
REPEATS = ROOT / "tests" / "data"
FOLDS = 5
# spread of the logarithm of a cell's seconds: between activations, and between cells of one
BETWEEN, WITHIN = 0.35, 0.2
# a population's start: its splits prepared, its weights drawn
START_S = 1.0

# name and repeat
Cell = tuple[str, int]


@dataclass(frozen=True)
class Segment:
    """What happens between two looks.

    Args:
        n_repeats: The look that it ends with.
        seconds: From the first claim to the look.
        busy: Seconds of training, over all workers.
    """

    n_repeats: int
    n_cells: int
    n_populations: int
    seconds: float
    busy: float

    def idle(self, n_workers: int) -> float:
        return 1 - self.busy / (n_workers * self.seconds)


def engine_batch(n_workers: int, is_database: bool) -> Callable[[int], int]:
    """Cells not done to cells claimed at a time, as `actlab compare` has it: `--workers N`, or N machines."""
    configuration = SimpleNamespace(compare=CompareSettings(), storage="a database" if is_database else None)
    largest = POPULATION_MEMBERS // FOLDS
    stub = SimpleNamespace(configuration=configuration, largest_batch=largest, n_workers=n_workers)
    return lambda n_missing: Compare.batch(cast(Any, stub), n_missing)


def worked_off(
    cells: Sequence[Cell],
    seconds_of: Mapping[Cell, float],
    n_workers: int,
    batch: Callable[[int], int],
    start_s: float = START_S,
) -> tuple[float, float, int]:
    """Seconds until the last cell is done, seconds of training in all, and populations."""
    free = [0.0] * n_workers
    # when each population that was begun ends, and how many cells that are done then
    begun: list[tuple[float, int]] = []
    waiting, busy = list(cells), 0.0
    while waiting:
        now = heapq.heappop(free)
        n_done = sum(n for end, n in begun if end <= now)
        claimed = waiting[: batch(len(cells) - n_done)]
        del waiting[: len(claimed)]
        took = start_s + sum(seconds_of[cell] for cell in claimed)
        busy += took
        begun.append((now + took, len(claimed)))
        heapq.heappush(free, now + took)
    return max(end for end, _ in begun), busy, len(begun)


def segments(
    scores: Mapping[str, Sequence[float]],
    terms: Terms,
    seconds_of: Mapping[Cell, float],
    n_workers: int,
    batch: Callable[[int], int],
) -> Iterator[Segment]:
    """The race of these scores from its first repeat to its end."""
    done: dict[str, list[float]] = {name: [] for name in scores}
    race = run(done, terms)
    while race.missing:
        most = max(max(repeats) for repeats in race.missing.values())
        cells = [(name, r) for r in range(1, most + 1) for name, repeats in race.missing.items() if r in repeats]
        seconds, busy, n_populations = worked_off(cells, seconds_of, n_workers, batch)
        yield Segment(most, len(cells), n_populations, seconds, busy)
        for name, repeat in cells:
            done[name].append(scores[name][repeat - 1])
        race = run(done, terms)


def lognormal_seconds(names: Sequence[str], mean: float, generator: np.random.Generator) -> dict[Cell, float]:
    """Every cell's seconds; some activations take longer than others."""
    factors = np.exp(generator.normal(0, BETWEEN, len(names)))
    cells = [(name, repeat) for name in names for repeat in range(1, LOOKS[-1] + 1)]
    own = np.exp(generator.normal(0, WITHIN, len(cells))) * np.repeat(factors, LOOKS[-1])
    return dict(zip(cells, (mean * own / own.mean()).tolist(), strict=True))


def seconds_of_run(members: pd.DataFrame, names: Sequence[str], generator: np.random.Generator) -> dict[Cell, float]:
    """Every cell's seconds, drawn from those of a run's counting repeats of the same activation."""
    counting = members[members["repeat"] >= 1]
    own = counting.groupby(["activation", "repeat"])["seconds"].sum()
    pools = [own[name].to_numpy() if name in own.index.get_level_values(0) else own.to_numpy() for name in names]
    return {
        (name, repeat): float(generator.choice(pool))
        for name, pool in zip(names, pools, strict=True)
        for repeat in range(1, LOOKS[-1] + 1)
    }


def table(found: Mapping[str, Sequence[Segment]], n_workers: int) -> Iterator[str]:
    yield "| workers | look | cells | populations | seconds | idle |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, parts in found.items():
        for part in parts:
            cells = (part.n_repeats, part.n_cells, part.n_populations, f"{part.seconds:.0f}")
            yield f"| {name} | {' | '.join(map(str, cells))} | {part.idle(n_workers):.0%} |"
        seconds, busy = sum(part.seconds for part in parts), sum(part.busy for part in parts)
        sums = [sum(part.n_cells for part in parts), sum(part.n_populations for part in parts)]
        yield f"| {name} | all | {sums[0]} | {sums[1]} | {seconds:.0f} | {1 - busy / (n_workers * seconds):.0%} |"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--table", default="concrete", choices=("concrete", "house_prices"), help="whose scores")
    parser.add_argument("--seconds", type=float, default=30, help="of a cell of 5 networks, on average")
    parser.add_argument("--members", type=Path, help="members.csv of a run, to draw seconds from instead")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    repeats = pd.read_csv(REPEATS / f"repeats_{asked.table}.csv", index_col=0)
    scores = {str(name).partition("@")[0]: values.tolist() for name, values in repeats.items()}
    generator, names = np.random.default_rng(asked.seed), list(scores)
    if asked.members is not None:
        seconds_of = seconds_of_run(pd.read_csv(asked.members), names, generator)
    else:
        seconds_of = lognormal_seconds(names, asked.seconds, generator)
    terms = Terms.race(FOLDS, default_budget(FOLDS, len(scores)), CompareSettings().rope, len(repeats))
    ways = {f"--workers {asked.workers}": False, f"{asked.workers} machines, --storage": True}
    found = {
        name: list(segments(scores, terms, seconds_of, asked.workers, engine_batch(asked.workers, is_database)))
        for name, is_database in ways.items()
    }
    print("\n".join(table(found, asked.workers)))


if __name__ == "__main__":
    main(sys.argv[1:])
