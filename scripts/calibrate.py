"""Count false alarms of the comparison where nothing is to be found, and its power where something is.

Everything runs through the code that a comparison runs through: members trained as one population, the learning rate
chosen per fold on inner validation, corrected and adjusted tests. A family is one comparison of a few names on
3 x repeated 5-fold cross-validation; the winner stands against every other name.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actlab.data.splits import make_splits
from actlab.data.table import Table, read_table
from actlab.members import Member, Split, derive_seed
from actlab.run_files import MemberRecord, to_frame, write_text
from actlab.runs.evaluate import Evaluation, member_record, train
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings
from actlab.verdict.paired_tests import corrected_resampled_t, naive_paired_t
from actlab.verdict.summary import choose, scores_of, summarise

FOLDS, REPEATS = 5, 3
RATIO = 1 / (FOLDS - 1)
RATES = (3e-3, 3e-2)
HIDDEN = (16, 8)
MAX_EPOCHS = 25
ALPHA = 0.05
N_NAMES = 4
NOISE_ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu")
# planted differences, in standard deviations of one pair's difference
PLANTED = (0.5, 1.0, 1.5, 2.0, 3.0)
# families that train as one population, each on its own repeats
FAMILIES_PER_TABLE = 12
COMMAND = "make calibrate"


@dataclass(frozen=True)
class Count:
    """How often comparisons said `better`, by actlab's verdict and by the naive paired t-test."""

    scenario: str
    families: int
    comparisons: int
    better: int
    naive: int
    families_with_better: int
    families_over_all_pairs: int

    @property
    def share(self) -> float:
        return self.better / self.comparisons

    @property
    def naive_share(self) -> float:
        return self.naive / self.comparisons

    def upper(self) -> float:
        """Upper end of the one-sided 95 % Clopper-Pearson interval of the share."""
        from scipy import stats

        return float(stats.beta.ppf(0.95, self.better + 1, self.comparisons - self.better))


def generated_table(n_rows: int, seed: int, is_noise: bool) -> tuple[DataSettings, Table]:
    """A table of four columns whose target depends on them smoothly with noise, or not at all."""
    generator = np.random.default_rng(derive_seed(seed, "table", is_noise))
    x = generator.normal(size=(n_rows, 4))
    signal = np.zeros(n_rows) if is_noise else np.sin(2 * x[:, 0]) + np.abs(x[:, 1]) + x[:, 2] * x[:, 3]
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["y"] = signal + generator.normal(size=n_rows) * (1.0 if is_noise else 0.3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        frame.to_csv(path, index=False)
        settings = DataSettings(str(path), "y", target_transform="none", batch_size=32)
        return settings, read_table(settings)


def trained(arms: Sequence[tuple[str, str, int]], n_rows: int, seed: int, families: int, is_noise: bool) -> Any:
    """members.csv of arms (name, activation, seed) on a generated table, `REPEATS` repeats a family."""
    data, table = generated_table(n_rows, seed, is_noise)
    protocol = ProtocolSettings(FOLDS, inner=1, repeats=REPEATS * families)
    trainer = {"max_epochs": MAX_EPOCHS, "accelerator": "cpu"}
    evaluation = Evaluation(data, protocol, OptimizerSettings(patience=10), trainer, seed)
    splits = list(make_splits(table.n_rows, protocol, seed))
    members = list(_members(arms, splits))
    names = [name for name, _, _ in arms for _ in RATES]
    outcomes = train(members, evaluation, table, [])
    records = [replace(member_record(o), activation=names[o.member.trial]) for o in outcomes]
    return to_frame(records, MemberRecord)


def _members(arms: Sequence[tuple[str, str, int]], splits: Sequence[Split]) -> Iterator[Member]:
    for place, (_, activation, seed) in enumerate(arms):
        for at, rate in enumerate(RATES):
            for split in splits:
                yield Member(len(RATES) * place + at, activation, rate, split, seed, HIDDEN, weight_decay=0.01)


def split_families(members: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """One frame for each family of repeats."""
    for _, rows in members.groupby(members.repeat // REPEATS):
        yield rows


def same_under_several_names(families: int, n_rows: int, seed: int) -> list[pd.DataFrame]:
    """ReLU under several names with a seed for each: names are exchangeable, so the null is exactly true."""
    arms = [(f"name {k}", "relu", derive_seed(seed, "name", k)) for k in range(N_NAMES)]
    frames: list[pd.DataFrame] = []
    while len(frames) < families:
        count = min(FAMILIES_PER_TABLE, families - len(frames))
        frames += split_families(trained(arms, n_rows, derive_seed(seed, len(frames)), count, is_noise=False))
    return frames


def activations_on_noise(families: int, n_rows: int, seed: int) -> list[pd.DataFrame]:
    """Activations on a target without any relation to the columns, drawn anew for each family."""
    arms = [(name, name, seed) for name in NOISE_ACTIVATIONS]
    return [trained(arms, n_rows, derive_seed(seed, k), 1, is_noise=True) for k in range(families)]


def count(scenario: str, frames: Sequence[pd.DataFrame]) -> Count:
    """Verdicts of every family's comparisons with its winner, and of the naive test on the same pairs."""
    found = [summarise(frame, RATIO, "relu", list(RATES), is_equal_budget=True)["comparisons"] for frame in frames]
    flat = [comparison for family in found for comparison in family]
    return Count(
        scenario,
        len(frames),
        len(flat),
        sum(c["verdict"] == "better" for c in flat),
        sum(c["p_naive"] < ALPHA and c["difference"] < 0 for c in flat),
        sum(any(c["verdict"] == "better" for c in family) for family in found),
        sum(any(c["verdict"] == "better" and c["p_all_pairs"] < ALPHA for c in family) for family in found),
    )


def twin_columns(families: int, n_rows: int, seed: int) -> Count:
    """Two linear models, each blind to one of two columns that matter equally, on data drawn anew for each family.

    Neither is better over tables, yet on one table the same luck runs through all folds: what the correction is for.
    """
    generator = np.random.default_rng(derive_seed(seed, "twins"))
    tests = [_twin_tests(generator, n_rows) for _ in range(families)]
    ours = sum(corrected < ALPHA for corrected, _ in tests)
    return Count("twin columns", families, families, ours, sum(naive < ALPHA for _, naive in tests), ours, ours)


def _twin_tests(generator: np.random.Generator, n_rows: int) -> tuple[float, float]:
    x = np.column_stack([np.ones(n_rows), generator.normal(size=(n_rows, 3))])
    y = x[:, 1] + x[:, 2] + x[:, 3] + generator.normal(size=n_rows)
    scores: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPEATS):
        for test in np.array_split(generator.permutation(n_rows), FOLDS):
            training = np.setdiff1d(np.arange(n_rows), test)
            for column, own in scores.items():
                seen = x[:, [0, column, 3]]
                weights = np.linalg.lstsq(seen[training], y[training], rcond=None)[0]
                own.append(float(np.sqrt(np.mean((y[test] - seen[test] @ weights) ** 2))))
    return corrected_resampled_t(scores[1], scores[2], RATIO).p, naive_paired_t(scores[1], scores[2]).p


@dataclass(frozen=True)
class Power:
    """How often a planted difference was found.

    Args:
        effect: Its size in standard deviations of one pair's difference.
        share: The same as a share of the mean score.
        baseline: Share of families that found it against a baseline named before.
        winner: Share of families that found it against their winner.
    """

    effect: float
    share: float
    baseline: float
    winner: float


def power(frames: Sequence[pd.DataFrame]) -> list[Power]:
    """Power at every planted size, in families where nothing else differs.

    One name's scores, validation and test, are raised by the effect: a difference of exactly this size with the noise
    of real training. Counted are verdicts on this name alone.
    """
    scores = [scores_of(choose(frame)) for frame in frames]
    sd = float(np.sqrt(np.mean([np.var(own["name 0"] - own["name 1"], ddof=1) for own in scores])))
    mean = float(np.mean([own["name 0"].mean() for own in scores]))
    return [_power(frames, effect, effect * sd, mean) for effect in PLANTED]


def _power(frames: Sequence[pd.DataFrame], effect: float, size: float, mean: float) -> Power:
    against_baseline, against_winner = 0, 0
    for frame in frames:
        planted = frame.copy()
        planted.loc[planted.activation == "name 1", ["val_score", "test_score"]] += size
        summary = summarise(planted, RATIO, "name 0", list(RATES), is_equal_budget=True)
        against_baseline += any(_is_better(c) for c in summary["baseline_comparisons"])
        against_winner += any(_is_better(c) for c in summary["comparisons"])
    return Power(effect, size / mean, against_baseline / len(frames), against_winner / len(frames))


def _is_better(comparison: dict[str, Any]) -> bool:
    return bool(comparison["b"] == "name 1" and comparison["verdict"] == "better")


def document(counts: Sequence[Count], powers: Sequence[Power], settings: str, seconds: float) -> str:
    """docs/calibration.md."""
    rows = [
        f"| {c.scenario} | {c.families} | {c.comparisons} | {c.better} ({c.share:.1%}) | {c.upper():.1%} "
        f"| {c.families_with_better / c.families:.1%} | {c.families_over_all_pairs / c.families:.1%} "
        f"| {c.naive} ({c.naive_share:.1%}) |"
        for c in counts
    ]
    power_rows = [f"| {p.effect:g} sd | {p.share:.1%} | {p.baseline:.0%} | {p.winner:.0%} |" for p in powers]
    return "\n".join(
        [*HEAD, "", settings, "", *TABLE, *rows, *POWER, *power_rows, "", f"{seconds:.0f} s of wall time.", ""]
    )


HEAD = """# Calibration

How often does actlab say `better` where nothing is better? Written by

```
COMMAND
```

A *family* is one comparison: a few names on 3 x repeated 5-fold cross-validation, learning rate chosen per fold on
inner validation among two, tiny networks, generated data. Its comparisons set the winner against each other name;
each `better` among them is wrong. The promise: at most 5 % of them.

- **same activation**: ReLU under four names, each with its own seeds for weights and batch orders, on the same splits.
  The names are exchangeable, so the null is exactly true and the noise is that of training.
- **pure noise**: identity, sigmoid, tanh and ReLU on a target that has nothing to do with the columns, a new one for
  each family. What differs here is how soon an activation fits noise, so the null is only nearly true: a `better` can
  be right, and is counted as wrong all the same.
- **twin columns**: two linear models, each blind to one of two columns that matter equally; one comparison a family,
  a new table each time. Neither is better over tables, but on one table the same luck runs through all folds. This is
  where the correction of the corrected resampled t-test is needed.

The naive column counts p < 0.05 of the ordinary paired t-test on the same pairs, without correction for overlapping
training sets and without any adjustment. *Families with one* have at least one wrong verdict: the winner is picked by
the scores that it is tested on, so this may exceed 5 %. *Over all pairs* counts those that are left when the test pays
for that choice too; a report names the verdicts that this would take back.""".replace("COMMAND", COMMAND).splitlines()

TABLE = [
    "| scenario | families | comparisons | wrong `better` | at most (95 %) | families with one | over all pairs "
    "| naive paired t |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
]
POWER = """
## Power

In the families of the same activation, one name's scores are raised by a known amount, stated in standard deviations
of one pair's difference and as a share of the mean score. Shown is how often this name is found to be worse: than a
baseline named beforehand, and than the winner, whoever that is. Honest tests ask for large effects: with 15 pairs the
standard error of a mean difference is sqrt(1/15 + 1/4) = 0.56 of these standard deviations, where the naive test
believes in 0.26.

| planted difference | of the score | against the baseline | against the winner |
| ---: | ---: | ---: | ---: |""".splitlines()


def calibrate(families: int, n_rows: int, seed: int) -> tuple[list[Count], list[Power]]:
    """Every scenario and the power, with so many families each."""
    same = same_under_several_names(families, n_rows, seed)
    noise = activations_on_noise(families, n_rows, seed)
    counts = [count("same activation", same), count("pure noise", noise), twin_columns(5 * families, n_rows, seed)]
    return counts, power(same)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Count false alarms of the statistics on data without a difference.")
    parser.add_argument("--families", type=int, default=70, help="comparisons of four names; 70 give 210 comparisons")
    parser.add_argument("--rows", type=int, default=200, help="rows of a generated table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="docs/calibration.md")
    asked = parser.parse_args(arguments)
    started = time.perf_counter()
    counts, powers = calibrate(asked.families, asked.rows, asked.seed)
    settings = f"Tables of {asked.rows} rows, seed {asked.seed}, hidden layers {HIDDEN}, {MAX_EPOCHS} epochs at most."
    text = document(counts, powers, settings, time.perf_counter() - started)
    write_text(Path(asked.output), text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
