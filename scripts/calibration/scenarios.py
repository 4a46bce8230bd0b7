"""Races whose truth is known, trained for real: who is called worse there, though as good in truth."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actlab.data.table import Table
from actlab.members import derive_seed
from actlab.verdict.comparisons import compared_with_best
from actlab.verdict.race import DEFAULT_LOOK, Race, Terms, default_budget, run
from actlab.verdict.simultaneous import RowNoise, Units, row_sums
from calibration.training import COLUMNS, Arm, FloatArray, Training, generated_table, read, trained

SMALL = Training()
ROPE = 0.02
# races that train as one population
RUNS_AT_ONCE = 4
N_RUNS, MOST_WRONG = 200, 14
ROWS = (100, 200, 1000)
# the copies whose difference makes another's noise three times as large: sqrt(1 + 2 * 2^2)
MORE_NOISE = ("more noise", "less noise")


@dataclass(frozen=True)
class Kind:
    """What is raced, and what of its verdicts is wrong.

    Args:
        title: As the table names it.
        truth: Why the words are wrong.
        arms: Those trained.
        is_noise: The target has nothing to do with the columns.
        is_blind: Arm k does not see column k.
        is_for_new_rows: Only `worse` is wrong: on these very rows the arms do differ.
        worse_in_truth: Arms of which anything may be said.
    """

    title: str
    truth: str
    arms: tuple[Arm, ...]
    is_noise: bool = False
    is_blind: bool = False
    is_for_new_rows: bool = False
    worse_in_truth: tuple[str, ...] = ()

    @property
    def raced(self) -> list[str]:
        return [arm.name for arm in self.arms if arm.name not in MORE_NOISE]

    def tables(self, n_rows: int, seed: int) -> list[Table]:
        """The race's table, in as many variants as there are arms, where each is blind to another column."""
        frame = generated_table(n_rows, derive_seed("table", n_rows, seed), self.is_noise)
        columns = COLUMNS[: len(self.arms)]
        return [read(frame.drop(columns=column)) for column in columns] if self.is_blind else [read(frame)]


def _copies(activation: str, *names: str) -> tuple[Arm, ...]:
    return tuple(Arm(name, activation, derive_seed("arm", name)) for name in names)


FOUR = ("first", "second", "third", "fourth")
KINDS = {
    "copies": Kind("the same activation under four names", "seeds are all that differs", _copies("relu", *FOUR)),
    "noise": Kind(
        "pure noise", "the same, on a target that has nothing to do with the columns", _copies("tanh", *FOUR), True
    ),
    "tables": Kind(
        "new tables of one source",
        "each of three names is blind to another one of four columns that act alike: on one table the one or the other "
        "is better, over tables none is; `worse` is wrong, `worse here` is not",
        tuple(Arm(name, "elu", derive_seed("arm", name), variant=place) for place, name in enumerate(FOUR[:3])),
        is_blind=True,
        is_for_new_rows=True,
    ),
    "mirror": Kind(
        "elu and -elu(-z), two activations",
        "their networks are each other's with the signs of hidden units turned round",
        (Arm("elu", "elu", 1), Arm("mirrored", "calibration.mirrored.MirroredElu", 2)),
    ),
    "noisy": Kind(
        "one of four three times as noisy",
        "to its scores twice the difference of two further copies' is added, whose mean is zero",
        _copies("silu", *FOUR, *MORE_NOISE),
    ),
    "broken": Kind(
        "one of four falls apart in a tenth of its repeats",
        "nothing but what is said of the other three is wrong",
        (*_copies("gelu", *FOUR[:3]), Arm("fourth", "gelu", 4, broken_share=0.1)),
        worse_in_truth=("fourth",),
    ),
}


@dataclass(frozen=True)
class Scenario:
    """A kind of race on tables of so many rows."""

    name: str
    kind: Kind
    n_rows: int


SCENARIOS = {f"{name}-{n}": Scenario(f"{name}-{n}", kind, n) for n in ROWS for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Judged:
    """One race and its verdicts.

    Args:
        seed: Its number.
        here: Arms shown to be worse on these rows.
        worse: Arms shown to be worse for new ones.
        wrong: Those of them that are as good in truth.
        scores: Arm to its score in every repeat.
    """

    seed: int
    here: list[str]
    worse: list[str]
    wrong: list[str]
    scores: dict[str, list[float]]
    seconds: float


def judge(scenario: Scenario, seed: int, errors: Mapping[str, FloatArray], seconds: float) -> Judged:
    """What is said of a race with these squared errors (R, n), and what of that is wrong."""
    kind = scenario.kind
    scores = {name: np.sqrt(values.mean(1)) for name, values in errors.items()}
    rows: RowNoise | None = row_noise({name: errors[name] for name in kind.raced})
    if MORE_NOISE[0] in scores:
        # a score of no network: there are no squared errors to tell the noise of rows by
        added, taken = (scores[name] for name in MORE_NOISE)
        scores[kind.raced[-1]], rows = scores[kind.raced[-1]] + 2 * (added - taken), None
    raced = {name: scores[name].tolist() for name in kind.raced}
    found = raced_by_default(raced, rows)
    here = sorted({name for look in found.looks for name in look.left})
    worse = sorted({name for look in found.looks for name in look.worse})
    said = worse if kind.is_for_new_rows else sorted({*here, *worse})
    wrong = [name for name in said if name not in kind.worse_in_truth]
    return Judged(seed, here, worse, wrong, raced, seconds)


def raced_by_default(scores: Mapping[str, Sequence[float]], rows: RowNoise | None, rope: float = ROPE) -> Race:
    """As `compare` races by default: with a budget that takes everybody to R = 16."""
    return run(scores, Terms.race(SMALL.folds, default_budget(SMALL.folds, len(scores)), rope), rows)


def row_noise(errors: Mapping[str, FloatArray]) -> RowNoise:
    """From squared errors (R, n)."""
    n_repeats, n_rows = next(iter(errors.values())).shape
    units = Units.rows(n_rows)
    looks = [look for look, _ in Terms.race(SMALL.folds, 0, ROPE, n_repeats).looks]
    of_repeats = ({name: values[repeat] for name, values in errors.items()} for repeat in range(n_repeats))
    return RowNoise(units, SMALL.folds, row_sums(of_repeats, units, looks))


def races(scenario: Scenario, seeds: Sequence[int]) -> Iterator[Judged]:
    """Train and judge the races of these numbers, some at a time."""
    for start in range(0, len(seeds), RUNS_AT_ONCE):
        started, own = time.perf_counter(), seeds[start : start + RUNS_AT_ONCE]
        tables = {seed: scenario.kind.tables(scenario.n_rows, seed) for seed in own}
        errors = trained(tables, scenario.kind.arms, range(1, DEFAULT_LOOK + 1), SMALL)
        seconds = (time.perf_counter() - started) / len(own)
        yield from (judge(scenario, seed, errors[seed], seconds) for seed in own)


def stored(directory: Path, scenario: Scenario) -> list[Judged]:
    """The races of a scenario that were trained already, in the order of their numbers."""
    path = _file(directory, scenario)
    lines = path.read_text().splitlines() if path.is_file() else []
    # a line that was being written when the process was ended is not whole
    found = [Judged(**json.loads(line)) for line in lines if line.endswith("}")]
    return sorted(found, key=lambda one: one.seed)


def complete(directory: Path, scenario: Scenario, n_runs: int) -> list[Judged]:
    """Train the races that are missing of `n_runs`, and return all."""
    done = {one.seed for one in stored(directory, scenario)}
    directory.mkdir(parents=True, exist_ok=True)
    with _file(directory, scenario).open("a") as file:
        for judged in races(scenario, [seed for seed in range(n_runs) if seed not in done]):
            file.write("\n" + json.dumps(asdict(judged)))
            file.flush()
    return stored(directory, scenario)


def _file(directory: Path, scenario: Scenario) -> Path:
    return directory / f"{scenario.name}.jsonl"


def copies_on_the_same_seeds(n_rows: int, seed: int) -> dict[str, Any]:
    """Verdict and U of a copy of the best that has its seeds too."""
    arms = [Arm(name, "relu", derive_seed("arm", seed)) for name in ("first", "copy")]
    arms.append(Arm("other", "relu", derive_seed("arm", seed, "other")))
    table = read(generated_table(n_rows, derive_seed("table", n_rows, seed)))
    errors = trained({seed: [table]}, arms, range(1, 5), SMALL)[seed]
    # the copies are ahead of the other, so that they stand against each other
    errors["other"] *= 4
    scores = {name: np.sqrt(values.mean(1)).tolist() for name, values in errors.items()}
    found = compared_with_best(run(scores, Terms.race(SMALL.folds, 4 * SMALL.folds * 3, ROPE), row_noise(errors)))
    (copy,) = (one for one in found if one.b in ("first", "copy"))
    return {"verdict": copy.verdict, "cost_at_most": copy.cost_at_most}


@dataclass(frozen=True)
class SaidAsGood:
    """How often an arm is called as good: one that is in truth, and one that is worse by one and a half regions."""

    rope: float
    n_runs: int
    ties: int
    planted: int


def said_as_good(judged: Sequence[Judged], rope: float) -> SaidAsGood:
    """In races of copies, to one of which a difference is added."""
    ties = planted = 0
    for one in judged:
        name, mean = next(iter(one.scores)), float(np.mean(list(one.scores.values())))
        if not math.isfinite(mean):
            continue
        for size in (0.0, 1.5 * rope * mean):
            scores = {**one.scores, name: [score + size for score in one.scores[name]]}
            last = raced_by_default(scores, None, rope).looks[-1]
            is_said = name in last.still_in and len(last.still_in) > 1 and last.is_as_good(name)
            ties, planted = ties + (is_said and not size), planted + (is_said and size > 0)
    return SaidAsGood(rope, len(judged), ties, planted)
