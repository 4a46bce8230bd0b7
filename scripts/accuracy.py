"""How accurate is the model that a comparison ships? Measured on outer folds that take no part in anything.

The outer folds are scikit-learn's KFold(5, shuffle=True, random_state=0), GroupKFold where rows belong together; the
score is the mean over folds of the log-RMSE (RMSE under `target_transform: none`).

    python scripts/accuracy.py shipped --out DIR --config configs/house_prices.yaml [any flags of actlab compare]

runs the whole comparison on the rows outside each outer fold, as a file of their own, and predicts the fold's rows
with the best.ckpt it wrote: nothing but the file for prediction ever sees them. A second start goes on where the
first one stopped.

    python scripts/accuracy.py nested --pairs '[[relu, 0.003], [silu, 0.001]]' --config configs/house_prices.yaml

trains some settings as a comparison does, and scores every way of making a model of these networks on the outer folds:
each setting stands for an activation, and what goes into the model is decided by the networks' scores in their own
folds. The networks are those that stopped early; what a comparison ships is trained again on all rows of its folds.

    python scripts/accuracy.py refit --out DIR --lengths '[1.0, 1.5, 2.0]' --config configs/concrete.yaml

trains one comparison and then its model several times, for so many best epochs each, and prints the score on the test
rows of the comparison's own folds (in brackets with activations picked by the other folds), beside that of the networks
that stopped early.

    python scripts/accuracy.py settings --config configs/house_prices.yaml [any flags of actlab compare]

is the quick look for trying things: the outer folds are the comparison's own folds, every setting of the grid trains
`compare.inner` networks in each, and all ways to make a model of them are scored without training again.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

from accuracy_rules import Floats, Found, alone, gathered, rmse, rules
from actlab.config import Configuration, parse
from actlab.data import splits
from actlab.data.datamodule import prepare
from actlab.data.layout import RowLayout
from actlab.data.table import Table, read_rows, read_table
from actlab.data.target import Target
from actlab.members import FoldKey
from actlab.model.ensemble import Ensemble, load
from actlab.networks.module import predict
from actlab.runs import model_building as assembly
from actlab.runs.compare_search import Compare, compare
from actlab.runs.evaluate import Evaluation, Work, evaluate, setting_of, variants
from actlab.runs.model_building import best_activations, first_repeat, rows_of, ship, squares_by_activation
from actlab.runs.results import frames
from actlab.verdict.summary import choose

N_OUTER = 5
# a bag of networks whose size is large enough to call it endless
MANY = 10_000


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["shipped", "nested", "refit", "settings"])
    parser.add_argument("--out", type=Path, help="directory of the five comparisons (shipped), or of one (refit)")
    parser.add_argument("--lengths", type=yaml.safe_load, default=[assembly.LENGTH], help="in best epochs (refit)")
    parser.add_argument("--pairs", type=yaml.safe_load, default=[], help="activations and learning rates (nested)")
    own, others = parser.parse_known_args(arguments)
    configuration = parse("compare", others)
    if own.what in ("shipped", "refit") and own.out is None:
        parser.error(f"{own.what} needs --out DIR")
    if own.what == "shipped":
        shipped(configuration, own.out)
    elif own.what == "refit":
        refit(configuration, own.out, own.lengths)
    elif own.what == "nested":
        nested(configuration, [(str(name), float(rate)) for name, rate in own.pairs])
    else:
        settings(configuration)


def outer_folds(layout: RowLayout) -> list[NDArray[np.int64]]:
    """Test rows of each outer fold."""
    kind = KFold if layout.groups is None else GroupKFold
    splits = kind(N_OUTER, shuffle=True, random_state=0).split(np.zeros(layout.n_rows), groups=layout.groups)
    return [test for _, test in splits]


def on_trained_scale(values: Floats, configuration: Configuration) -> Floats:
    return Target.of(configuration.data.target_transform).forward(values)


def true_values(table: Table, configuration: Configuration) -> Floats:
    assert table.target is not None
    return on_trained_scale(table.target, configuration)


@dataclass(frozen=True)
class Shipped:
    """What a comparison on the rows outside an outer fold left, and the fold's rows.

    Args:
        model: Its best.ckpt.
        summary: Its summary.json.
        training: Row numbers outside the fold.
        test: Row numbers of the fold.
        hidden: A CSV with the fold's rows, in this order.
    """

    model: Ensemble
    summary: dict[str, Any]
    training: NDArray[np.int64]
    test: NDArray[np.int64]
    hidden: Path


def comparisons(configuration: Configuration, out: Path) -> Iterator[Shipped]:
    """Compare on each outer training part, as a file of its own; comparisons that are there already are only read."""
    assert configuration.data.csv is not None
    text = pd.read_csv(configuration.data.csv, dtype=str, keep_default_na=False)
    for fold, test in enumerate(outer_folds(read_table(configuration.data).layout)):
        folder = out / f"outer-{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        training, hidden = folder / "training.csv", folder / "test.csv"
        rows = np.setdiff1d(np.arange(len(text)), test)
        text.iloc[rows].to_csv(training, index=False)
        text.iloc[test].to_csv(hidden, index=False)
        data = replace(configuration.data, csv=str(training))
        run, summary = compare(replace(configuration, data=data, out=str(folder / "run")))
        assert summary is not None, "another process writes this run"
        yield Shipped(load(run.checkpoint), summary, rows, test, hidden)


def shipped(configuration: Configuration, out: Path) -> None:
    """Compare on each outer training part, predict its test rows with best.ckpt, and print the scores."""
    truth = true_values(read_table(configuration.data), configuration)
    scores = []
    for fold, found in enumerate(comparisons(configuration, out)):
        model = found.model
        predicted = np.concatenate([model.predict(r.features) for r in read_rows(str(found.hidden), model.schema)])
        scores.append(rmse(on_trained_scale(predicted, configuration) - truth[found.test]))
        inside, parts = found.summary["ensemble"]["test_score"], ", ".join(found.summary["ensemble"]["activations"])
        print(
            f"outer fold {fold}: {scores[-1]:.4f} by {len(model.members)} networks ({parts}), "
            f"who score {inside:.4f} in their own comparison",
            flush=True,
        )
    print(f"shipped model: {np.mean(scores):.4f} (mean of {N_OUTER} outer folds, sd {np.std(scores, ddof=1):.4f})")


def nested(configuration: Configuration, pairs: list[tuple[str, float]]) -> None:
    """Train the pairs on each outer training part, and print the scores of the models made of them."""
    table = read_table(configuration.data)
    truth = true_values(table, configuration)
    rows: dict[str, list[float]] = {}
    for test in outer_folds(table.layout):
        training = np.setdiff1d(np.arange(table.n_rows), test)
        inside, outside, names = predictions(configuration, table, training, test, pairs)
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(rmse(outside[row] - truth[test]))
        for name, weights in inside.items():
            rows.setdefault(name, []).append(rmse(weights @ outside - truth[test]))
    for name, scores in rows.items():
        print(f"{name:<48} {np.mean(scores):.4f}  {' '.join(f'{score:.4f}' for score in scores)}")


def refit(configuration: Configuration, out: Path, lengths: list[float]) -> None:
    """Train a comparison, then the networks of its model for several lengths, and print their scores."""
    experiment = Compare(replace(configuration, out=str(out)))
    experiment.train()
    files, networks, grid = experiment.result_files(), experiment.networks, configuration.compare
    chosen = choose(frames(files.trials)["members"], is_comparison=True)
    out_of_fold = {name: np.concatenate(list(own.values())) for name, own in files.predictions(chosen).items()}
    experiment.study.close()
    usable = first_repeat(chosen)
    squares = squares_by_activation(networks, usable, out_of_fold)
    keys: list[FoldKey] = squares.columns.to_list()  # type: ignore[assignment]
    early = rows_of(usable, dict.fromkeys(keys, best_activations(squares, keys, grid.ensemble)))
    print(f"networks that stopped early: {networks.score(networks.load_chosen(early, files.settings)):.4f}")
    for length in lengths:
        with mock.patch.object(assembly, "LENGTH", length):
            _, found = ship(networks, chosen, out_of_fold, files.settings, grid)
        print(
            f"trained again for {length:g} best epochs: {found['test_score']:.4f} "
            f"({found['test_score_chosen_on_other_folds']:.4f}) by {', '.join(found['activations'])}",
            flush=True,
        )


def predictions(
    configuration: Configuration,
    table: Table,
    training: NDArray[np.int64],
    test: NDArray[np.int64],
    pairs: list[tuple[str, float]],
) -> tuple[dict[str, Floats], Floats, list[str]]:
    """Weights by every rule from the training rows alone, predictions (pairs, test rows), and the pairs' names."""
    assert table.target is not None
    features = table.features.iloc[training].reset_index(drop=True)
    part = replace(table, features=features, target=table.target[training], ids=None, layout=table.layout.of(training))
    results = evaluate(trials_of(configuration, pairs), Evaluation.of(configuration, "search"), part)
    parts = splits.make_splits(part.layout, configuration.compare.splitting("search"), configuration.seed)
    by_split = {split: prepare(part, own, configuration.data) for split, own in parts.items()}
    outside = np.zeros((len(pairs), len(test)))
    for row, result in enumerate(results):
        for outcome in result.outcomes:
            data = by_split[outcome.member.split]
            inputs = torch.from_numpy(data.preprocessor.transform(table.features.iloc[test]))
            own = predict([outcome], inputs)[0].double().numpy() * data.scaler.sd + data.scaler.mean
            outside[row] += own / len(result.outcomes)
    folds = [own.test for split, own in parts.items() if (split.repeat, split.inner) == (0, 0)]
    found = gathered(results, pairs, folds, true_values(part, configuration), n_inner(configuration))
    assert len(found.names) == len(pairs), "a setting diverged; leave it out"
    everything = list(range(len(folds)))
    return {name: rule(everything) for name, rule in rules(found).items()}, outside, found.names


def settings(configuration: Configuration) -> None:
    """Train the grid on the outer folds; print the score of every setting, and of models made of several."""
    table = read_table(configuration.data)
    with mock.patch.object(splits, "_folds", lambda layout, *_: outer_folds(layout)):
        found = train(configuration, table)
    print(f"{'setting':<28} {'one':>7} {'mean of ' + str(found.n_inner):>10} {'bag of 10':>10} {'endless':>8}")
    for row, name in enumerate(found.names):
        only = alone(row, len(found.names))
        scores = [found.score(only, n) for n in (found.n_inner, 10, MANY)]
        print(f"{name:<28} {found.single[row].mean():7.4f} {scores[0]:10.4f} {scores[1]:10.4f} {scores[2]:8.4f}")
    # as in a comparison: in each fold the learning rate with the best inner-validation score
    arms = list(dict.fromkeys(found.arms))
    of_arm = {arm: np.flatnonzero([own == arm for own in found.arms]) for arm in arms}
    rows = [[int(of_arm[a][found.validation[of_arm[a], f].argmin()]) for f in range(N_OUTER)] for a in arms]
    chosen = found.pick(rows, arms)
    size = configuration.compare.bag
    print(f"\n{'model, chosen or weighted by the other folds':<48} mean of {found.n_inner}  bag of {size}")
    for name, rule in rules(chosen).items():
        print(f"{name:<48} {chosen.score(rule, found.n_inner):9.4f} {chosen.score(rule, size):9.4f}")


def train(configuration: Configuration, table: Table) -> Found:
    """Every setting of the grid on every split."""
    grid = configuration.compare
    pairs = [(variant.label, rate) for variant in variants(configuration) for rate in grid.learning_rates]
    results = evaluate(trials_of(configuration, pairs), Evaluation.of(configuration, "search"), table)
    return gathered(
        results, pairs, outer_folds(table.layout), true_values(table, configuration), n_inner(configuration)
    )


def n_inner(configuration: Configuration) -> int:
    return configuration.compare.splitting("search").inner


def trials_of(configuration: Configuration, pairs: list[tuple[str, float]]) -> dict[int, Work]:
    return {
        number: Work(setting_of({"activation": name, "learning_rate": rate}, configuration, 1))
        for number, (name, rate) in enumerate(pairs)
    }


if __name__ == "__main__":
    main(sys.argv[1:])
