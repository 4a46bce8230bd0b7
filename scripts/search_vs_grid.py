"""Does the search find as good a setting as the full grid, for less? The grid once, the search over study seeds.

    python scripts/search_vs_grid.py --config configs/concrete.yaml --out runs/search-vs-grid
    python scripts/search_vs_grid.py --config configs/house_prices.yaml --out runs/pruning --unpruned

Everything but the sampler's seed is equal: data, splits, initial weights, batch orders. What is compared is the mean
inner-validation score of the best trial, without a tolerance (lower or equal is as good), and the member-epochs that it
took to find it. The best of many noisy scores is better than its setting deserves, the more so the more there are; so
all settings found are trained again, as one population, with fresh folds and seeds (the last column). `--unpruned` adds
the same searches with pruning off. The same command again goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import t

from actlab.config import Configuration, parse
from actlab.data.table import read_table
from actlab.engine.study import Study
from actlab.members import derive_seed
from actlab.runs.compare_search import Compare, Search
from actlab.runs.evaluate import Evaluation, Work, evaluate, setting_of
from actlab.runs.experiment import Experiment

# repeats of the folds on which settings are trained again
FRESH_REPEATS = 5


class SeededSearch(Search):
    """A search whose sampler has a seed of its own."""

    study_seed = 0

    def sampler_seed(self, number: int) -> int:
        return derive_seed(self.study_seed, "study", number) % 2**32


def train(experiment: Experiment) -> Study:
    experiment.train()
    experiment.study.close()
    return experiment.study


def epochs(study: Study) -> int:
    """Member-epochs of all trials, pruned ones included."""
    return sum(row["epochs"] for trial in study.done().values() for row in trial.user_attrs["members"])


def show(name: str, study: Study, grid_epochs: int, grid_value: float) -> None:
    best, spent = study.optuna.best_trial, epochs(study)
    assert best.value is not None
    as_good = "yes" if best.value <= grid_value else "no"
    print(
        f"| {name} | {len(study.done())} | {spent:,} | {100 * spent / grid_epochs:.0f} % | {best.value:.4f} "
        f"| {100 * (best.value / grid_value - 1):+.1f} % "
        f"| {best.params['activation']} at {best.params['learning_rate']:.2g} | {as_good} |",
        flush=True,
    )


def train_again(found: dict[str, Study], configuration: Configuration) -> None:
    """Print the mean inner-validation score of every best setting on fresh folds and seeds, beside the grid's."""
    params = [study.optuna.best_trial.params for study in found.values()]
    repeats = tuple(range(FRESH_REPEATS))
    work = {number: Work(setting_of(own, configuration, 1), repeats) for number, own in enumerate(params)}
    protocol = replace(configuration.compare.splitting("search"), repeats=FRESH_REPEATS)
    fresh = replace(
        Evaluation.of(configuration, "search"), protocol=protocol, seed=derive_seed(configuration.seed, "fresh")
    )
    results = evaluate(work, fresh, read_table(configuration.data))
    grid = np.array([outcome.val_score for outcome in results[0].outcomes])
    print("\n| | setting | fresh validation | against the grid's | 95 % interval |\n| --- | --- | --- | --- | --- |")
    for name, result in zip(found, results, strict=True):
        scores = np.array([outcome.val_score for outcome in result.outcomes])
        # networks of one repeat share rows: its means are the independent draws
        apart = (scores / grid.mean() - grid / grid.mean()).reshape(FRESH_REPEATS, -1).mean(axis=1)
        half = t.ppf(0.975, FRESH_REPEATS - 1) * apart.std(ddof=1) / np.sqrt(FRESH_REPEATS)
        print(
            f"| {name} | {result.setting.label} at {result.setting.learning_rate:.2g} | {scores.mean():.4f} "
            f"| {apart.mean():+.1%} | {apart.mean() - half:+.1%} to {apart.mean() + half:+.1%} |"
        )


def run(configuration: Configuration, out: Path, n_seeds: int, is_unpruned_too: bool) -> None:
    once = replace(configuration.compare, protocol="grid", repeats=1)
    grid = train(Compare(replace(configuration, compare=once, out=str(out / "grid"))))
    grid_epochs, grid_value = epochs(grid), grid.optuna.best_value
    found = {"grid": grid}
    print("| | trials | member-epochs | of the grid | best validation | against the grid | setting | as good |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    show("grid", grid, grid_epochs, grid_value)
    for seed in range(n_seeds):
        SeededSearch.study_seed = seed
        for pruning in [True, False] if is_unpruned_too else [True]:
            name = f"search-{seed}" if pruning else f"unpruned-{seed}"
            asked = replace(configuration, search=replace(configuration.search, pruning=pruning), out=str(out / name))
            label = f"search, seed {seed}" if pruning else f"without pruning, seed {seed}"
            found[label] = train(SeededSearch(asked))
            show(label, found[label], grid_epochs, grid_value)
    train_again(found, configuration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for the grid and the searches")
    parser.add_argument("--seeds", type=int, default=5, help="study seeds")
    parser.add_argument("--unpruned", action="store_true", help="the same searches with pruning off as well")
    asked, rest = parser.parse_known_args()
    run(parse("search", rest, str(__doc__)), asked.out, asked.seeds, asked.unpruned)


if __name__ == "__main__":
    main()
