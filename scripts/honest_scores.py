"""Is the shipped model as good on new data as its run says? Writes docs/honest_scores.md.

    python scripts/honest_scores.py            # about 15 minutes
    python scripts/honest_scores.py --only groups --tables 3

Tables whose rows are not independent are generated, with as many new rows of the same source as it takes to know the
true score. A small comparison claims a score and 90 % intervals; both are held against the new rows.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import actlab
from actlab.run_files import write_text

OUTPUT = Path(__file__).parents[1] / "docs" / "honest_scores.md"
N_TABLES, LEVEL, SEED = 20, 0.9, 20
# of each table in order of time
N_FUTURES = 8
# small networks and few of them: what is measured is the split, not the model
SMALL: dict[str, Any] = {
    "compare": {"protocol": "grid", "activations": ["relu", "tanh"], "learning_rates": [0.01], "repeats": 1},
    "model": {"hidden": [24]},
    "trainer": {"max_epochs": 60, "accelerator": "cpu", "enable_progress_bar": False},
}
# what is smallest for rows that have a time
RACE = {"activations": ["relu", "tanh"], "learning_rates": [0.003, 0.01], "repeats": 4}


@dataclass(frozen=True)
class Case:
    """A table to train on, new rows of the same source, the keys of `data` that say how its rows belong together, and
    those of a user who does not know."""

    training: pd.DataFrame
    new: pd.DataFrame
    data: dict[str, Any]
    naive: dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Tables of one kind: what they are, what is new, and a function that draws one."""

    title: str
    what: str
    new: str
    draw: Callable[[np.random.Generator], Case]


def signal(x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """(n,) of columns (n, k): a slope and a bend of each."""
    return np.asarray(np.tanh(x) @ slopes + 0.3 * np.abs(x) @ slopes[::-1])


def grouped(rng: np.random.Generator) -> Case:
    """Persons with measurements of their own that stay, and rows that vary; each has a level that nothing explains."""
    n_persons, n_rows, n_new = int(rng.integers(40, 90)), int(rng.integers(6, 18)), 400
    slopes, level = rng.normal(size=4), rng.uniform(0.3, 1.5)

    def persons(n: int, first: int) -> pd.DataFrame:
        person = np.repeat(np.arange(n), rng.integers(max(2, n_rows // 2), 2 * n_rows, n))
        own = rng.normal(size=(n, 2))[person]
        x = np.column_stack([own, rng.normal(size=(len(person), 2))])
        y = signal(x, slopes) + level * rng.normal(size=n)[person] + 0.3 * rng.normal(size=len(person))
        frame = pd.DataFrame(x, columns=["height", "age", "dose", "hour"]).round(6).assign(person=person + first, y=y)
        return frame.sample(frac=1, random_state=int(rng.integers(2**31)), ignore_index=True)

    return Case(persons(n_persons, 1), persons(n_new, n_persons + 1), {"groups": "person"}, {"id": None})


def tripled(rng: np.random.Generator) -> Case:
    """Every row three times, in no order."""
    n, slopes, noise = int(rng.integers(120, 350)), rng.normal(size=4), rng.uniform(0.3, 1.5)

    def rows(n: int) -> pd.DataFrame:
        x = rng.normal(size=(n, 4))
        return pd.DataFrame(x, columns=list("abcd")).assign(y=signal(x, slopes) + noise * rng.normal(size=n))

    training = pd.concat([rows(n)] * 3).sample(frac=1, random_state=int(rng.integers(2**31)), ignore_index=True)
    return Case(training, rows(4000), {}, {"duplicates": "apart"})


def timed(rng: np.random.Generator) -> Case:
    """Days in order, one to five rows each: a level that walks, rises or stays, a season or none, columns that wander
    or do not. What follows, as many rows as a fold tests, is drawn several times."""
    n, a_day, gap = int(rng.integers(600, 1500)), int(rng.choice([1, 1, 2, 5])), int(rng.choice([1, 1, 3]))
    slopes, memory, noise = rng.normal(size=4), rng.choice([0.0, 0.0, 0.95]), rng.uniform(0.3, 1)
    season, phase = rng.choice([0.0, 0.7]), rng.uniform(0, 6)
    walk, rise = [(0.0, 0.0), (rng.uniform(0.5, 2), 0.0), (0.0, rng.uniform(-2, 2))][rng.integers(3)]
    n_days = n // a_day + 1

    def rows(first: int, count: int, x: np.ndarray, level: float) -> tuple[pd.DataFrame, np.ndarray, float]:
        """From row `first` on, after columns x (4,) and a level; with where these end."""
        day, found = (first + np.arange(count)) // a_day, np.empty((count, 4))
        for row in range(count):
            x = memory * x + np.sqrt(1 - memory**2) * rng.normal(size=4)
            found[row] = x
        steps = np.concatenate([[0.0], np.cumsum(rng.normal(size=int(day[-1] - day[0])))])[day - day[0]]
        levels = level + walk * steps / np.sqrt(n_days)
        y = signal(found, slopes) + levels + rise * day / n_days + noise * rng.normal(size=count)
        y += season * np.sin(2 * np.pi * gap * day / 365.25 + phase)
        sold = (pd.Timestamp("2015-03-01") + pd.to_timedelta(gap * day, unit="D")).strftime("%Y-%m-%d")
        return pd.DataFrame(found, columns=list("abcd")).round(6).assign(sold=sold, y=y), x, float(levels[-1])

    training, x, level = rows(0, n, rng.normal(size=4), 0.0)
    later = pd.concat([rows(n, n // 6, x, level)[0] for _ in range(N_FUTURES)], ignore_index=True)
    return Case(
        training.sample(frac=1, random_state=int(rng.integers(2**31)), ignore_index=True), later, {"time": "sold"}, {}
    )


KINDS = {
    "groups": Kind("Groups", "40 to 90 persons of 3 to 35 rows each, `data.groups: person`", "new persons", grouped),
    "tripled": Kind("Copies", "120 to 350 rows, each three times, with all defaults", "new rows", tripled),
    "timed": Kind(
        "Time",
        "600 to 1,500 rows in order of time, with a level that walks, rises or stays, `data.time: sold`",
        "the rows that follow, as many as a fold tests, drawn several times",
        timed,
    ),
}


@dataclass(frozen=True)
class Measured:
    """Claimed and true score of the shipped model, and the share of new rows that 90 % intervals hold."""

    claimed: float
    true: float
    held: float

    @property
    def ratio(self) -> float:
        return self.claimed / self.true


def measure(case: Case, data: dict[str, Any], folder: Path) -> Measured:
    csv = folder / "table.csv"
    case.training.to_csv(csv, index=False)
    keys = SMALL | {
        "data": {"target_transform": "none"} | data,
        "out": str(folder / f"run{len(list(folder.iterdir()))}"),
    }
    if "time" in data:
        keys["compare"] = RACE
    with contextlib.redirect_stderr(io.StringIO()):
        run = actlab.compare(csv, "y", **keys)
        found = run.predict(case.new.drop(columns="y"), interval=LEVEL)
    actual = case.new.y.to_numpy()
    true = float(np.sqrt(np.mean((found.prediction.to_numpy() - actual) ** 2)))
    held = float(np.mean((found.lower.to_numpy() <= actual) & (actual <= found.upper.to_numpy())))
    return Measured(run.summary["ensemble"]["test_score"], true, held)


def table(kind: Kind, measured: list[Measured], naive: list[Measured]) -> list[str]:
    """Of all tables of a kind."""
    rows = []
    for name, own in (("as they are", measured), ("rows split as they come", naive)):
        ratios = [one.ratio for one in own]
        rows.append(
            f"| {name} | {np.mean(ratios):.3f} | {np.std(ratios):.3f} | {np.mean([one.held for one in own]):.1%} |"
        )
    head = ["| splits | claimed / true, mean | sd over tables | 90 % intervals hold |", "| --- | ---: | ---: | ---: |"]
    return [
        f"## {kind.title}",
        "",
        f"{len(measured)} tables: {kind.what}. New data are {kind.new}.",
        "",
        *head,
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=KINDS, help="one kind; the document is not written")
    parser.add_argument("--tables", type=int, default=N_TABLES)
    asked = parser.parse_args()
    lines = [
        "# Is a run's score that of new data?",
        "",
        "A score is honest if the shipped model has it on data that nothing has seen. Tables whose rows are not",
        "independent are generated, a small comparison trains on each, and what it claims is held against many new",
        "rows of the same source. *As they are*: rows that belong together are in one part of every split. *Rows split",
        "as they come*: what a program does that does not know it. 1 is right, below 1 a claim is too good.",
        "",
        "```",
        "python scripts/honest_scores.py",
        "```",
        "",
    ]
    for place, (name, kind) in enumerate(KINDS.items()):
        if asked.only not in (None, name):
            continue
        measured, naive = [], []
        for number in range(asked.tables):
            case = kind.draw(np.random.default_rng([SEED, place, number]))
            with tempfile.TemporaryDirectory() as folder:
                measured.append(measure(case, case.data, Path(folder)))
                naive.append(measure(case, case.naive, Path(folder)))
            print(f"{name} {number}: {measured[-1]} {naive[-1]}", file=sys.stderr, flush=True)
        own = table(kind, measured, naive)
        print("\n".join(own))
        lines += own
    if asked.only is None and asked.tables == N_TABLES:
        write_text(OUTPUT, "\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
