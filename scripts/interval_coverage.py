"""Do 90 % intervals hold 90 % of new rows, and are they any narrower than ridge's? Writes docs/intervals.md.

    python scripts/interval_coverage.py

An outer KFold(5, shuffle, random_state=0), laid around everything: on the rows outside an outer fold a comparison is
run as it ships, with one activation named beforehand (its own folds, inner splits and choice of the learning rate),
its networks and their out-of-fold errors become the model, and the model's CV+ intervals are counted on the outer
fold's rows, which nothing has seen. Ridge beside it: out-of-fold errors on the very same folds, the same rank of their
absolute values, one constant width for all rows.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from actlab.configuration import Configuration, parse
from actlab.data.preprocessing import fit_target
from actlab.data.splits import SplitRows, make_splits
from actlab.data.table import Table, read_table
from actlab.model.ensemble import Ensemble
from actlab.model.intervals import check_level, cv_plus
from actlab.records import MemberRecord, to_frame, write_text
from actlab.runs.assembly import Networks, shipped_splits
from actlab.runs.references import REFERENCES, FoldData
from actlab.runs.trial_settings import count_features, setting_of
from actlab.runs.trials import Evaluation, evaluate
from actlab.verdict.summary import choose

Values = NDArray[np.float64]

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "intervals.md"
CONFIGS = ("configs/house_prices.yaml", "configs/concrete.yaml")
LEVELS = (0.5, 0.8, 0.9, 0.95)
OUTER_FOLDS = 5

INTRODUCTION = """# Do the intervals hold what they promise?

`actlab predict --interval 0.9` writes the ends of CV+ intervals (Barber, Candes, Ramdas & Tibshirani 2021): each
training row was predicted by networks that never saw it, and the sizes of these errors, set around what every fold's
networks predict for a new row, give its interval. Under a log the interval is taken on the log scale, so that its width
is a share of the price. Here that is put to the test on rows that nothing has seen:

```
{command}
```

An outer KFold(5, shuffle, random_state=0) lies around everything. On the rows outside an outer fold the shipped
comparison runs with one activation, named beforehand ({activation}): its own {folds} folds x {inner} inner splits, its
own choice of the learning rate. Its networks make the intervals, and the rows of the outer fold are counted. *Ridge* is
what a plain model would give: errors out of fold on the same folds, the same rank of their sizes, one constant width
for all rows. Widths are on the log scale, means over rows; 0.40 means that the upper end is exp(0.40) = 1.49 times the
lower one. The standard error of a coverage of 90 % is sqrt(0.09 / rows): {errors}.
"""

LIMITS = """## What they do not promise

The promise is about rows on average, not about each kind of row. Below, the rows of the outer folds in thirds, by their
prediction and by how far the folds' networks disagree, with the share that the 90 % intervals hold.
"""


@dataclass(frozen=True)
class Tested:
    """The outer test rows of one data set, all folds one after the other, on the scale trained on.

    Args:
        fold: (N,) outer fold of each row.
        truth: (N,).
        predicted: (N,) mean over the folds of the ensemble.
        spread: (N,) standard deviation over them.
        ends: Level to (2, N) lower and upper ends of the networks' intervals.
        ridge_ends: The same of ridge's.
    """

    fold: NDArray[np.int64]
    truth: Values
    predicted: Values
    spread: Values
    ends: dict[float, Values]
    ridge_ends: dict[float, Values]


def subset(table: Table, rows: NDArray[np.int64]) -> Table:
    """The table with these rows only."""
    assert table.target is not None
    return replace(
        table, features=table.features.iloc[rows].reset_index(drop=True), target=table.target[rows], ids=None
    )


def train(table: Table, configuration: Configuration, activation: str) -> Ensemble:
    """What `actlab compare` would ship if the activation won."""
    splits = make_splits(table.n_rows, configuration.compare, configuration.seed)
    evaluation = Evaluation(
        configuration.data, configuration.compare, configuration.optimizer, configuration.trainer, configuration.seed
    )
    n_features = count_features(table, next(iter(splits.values())), configuration.data)
    settings = {
        number: setting_of({"activation": activation, "learning_rate": rate}, configuration, n_features)
        for number, rate in enumerate(configuration.compare.learning_rates)
    }
    with tempfile.TemporaryDirectory() as folder:
        shipped = shipped_splits(table.n_rows, configuration.compare, configuration.seed)
        networks = Networks(Path(folder), evaluation, table, shipped)
        records: list[MemberRecord] = []
        for result in evaluate(settings, evaluation, table):
            records += result.member_records()
            networks.keep(result.number, result.outcomes)
        chosen = choose(to_frame(records, MemberRecord))
        return networks.ensemble(networks.bag(chosen, settings, configuration.compare.bag), {}, {}, {})


def ridge_intervals(
    table: Table, configuration: Configuration, rows: NDArray[np.int64], outer: NDArray[np.int64]
) -> dict[float, Values]:
    """Level to (2, n_outer) ends of constant width around ridge, from its out-of-fold errors on the comparison's folds.

    Args:
        table: All rows.
        configuration: Its protocol makes the folds among `rows`.
        rows: Numbers of those to fit on.
        outer: Numbers of those to predict.
    """
    folds: dict[tuple[int, int], SplitRows] = {}
    for split, parts in make_splits(len(rows), configuration.compare, configuration.seed).items():
        folds.setdefault((split.repeat, split.fold), parts)
    errors = [
        np.abs(log_target(table, configuration)[rows[parts.test]] - ridge(table, configuration, fitting, test))
        for parts in folds.values()
        for fitting, test in [(rows[np.union1d(parts.training, parts.validation)], rows[parts.test])]
    ]
    centre = ridge(table, configuration, rows, outer)
    ordered = np.sort(np.concatenate(errors))
    n_repeats = configuration.compare.repeats
    ranks = {level: int(np.ceil(round(level * (len(ordered) + n_repeats), 6))) for level in LEVELS}
    return {level: np.stack([centre - ordered[rank - 1], centre + ordered[rank - 1]]) for level, rank in ranks.items()}


def ridge(table: Table, configuration: Configuration, fitting: NDArray[np.int64], test: NDArray[np.int64]) -> Values:
    """(n_test,) predictions on the scale trained on."""
    assert table.target is not None
    scaler = fit_target(table.target, fitting, configuration.data.target_transform)
    data = FoldData(fitting, test, scaler.forward(table.target), table, configuration.data)
    with threadpool_limits(1):
        return REFERENCES["ridge"](data) * scaler.sd + scaler.mean


def log_target(table: Table, configuration: Configuration) -> Values:
    assert table.target is not None
    return np.log(table.target) if configuration.data.target_transform == "log" else table.target


def measure(configuration: Configuration, activation: str) -> Tested:
    """Train on the rest of each outer fold and predict its rows."""
    table = read_table(configuration.data)
    parts: list[Tested] = []
    outer_folds = KFold(OUTER_FOLDS, shuffle=True, random_state=0).split(np.arange(table.n_rows))
    for number, (rows, outer) in enumerate(outer_folds):
        start = time.monotonic()
        ensemble = train(subset(table, rows), configuration, activation)
        by_fold = ensemble.predict_by_fold(table.features.iloc[outer])
        stacked = np.stack(list(by_fold.values()))
        for level in LEVELS:
            check_level(ensemble.residuals, level)
        parts.append(
            Tested(
                np.full(len(outer), number),
                log_target(table, configuration)[outer],
                stacked.mean(axis=0),
                stacked.std(axis=0),
                {level: np.stack(cv_plus(by_fold, ensemble.residuals, level)) for level in LEVELS},
                ridge_intervals(table, configuration, rows, outer),
            )
        )
        print(f"outer fold {number + 1} of {OUTER_FOLDS}: {time.monotonic() - start:.0f} s", flush=True)
    return join(parts)


def join(parts: Sequence[Tested]) -> Tested:
    def ends(name: str) -> dict[float, Values]:
        return {level: np.concatenate([getattr(part, name)[level] for part in parts], axis=1) for level in LEVELS}

    rows = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("fold", "truth", "predicted", "spread")
    }
    return Tested(**rows, ends=ends("ends"), ridge_ends=ends("ridge_ends"))


def is_within(tested: Tested, ends: Values) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = (ends[0] <= tested.truth) & (tested.truth <= ends[1])
    return within


def level_table(tested: Tested) -> Iterator[str]:
    yield "| asked for | networks: held | mean width | ridge: held | mean width | narrower by |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for level in LEVELS:
        own, other = tested.ends[level], tested.ridge_ends[level]
        width, ridge_width = np.mean(own[1] - own[0]), np.mean(other[1] - other[0])
        yield (
            f"| {level:.0%} | {is_within(tested, own).mean():.1%} | {width:.3f} "
            f"| {is_within(tested, other).mean():.1%} | {ridge_width:.3f} | {1 - width / ridge_width:.1%} |"
        )


def fold_sentence(tested: Tested) -> str:
    within = is_within(tested, tested.ends[0.9])
    shares = ", ".join(f"{within[tested.fold == fold].mean():.1%}" for fold in range(OUTER_FOLDS))
    return f"The 90 % intervals, outer fold by outer fold: {shares}."


def thirds_row(name: str, tested: Tested) -> str:
    within = is_within(tested, tested.ends[0.9])

    def shares(values: Values) -> list[str]:
        order = pd.Series(values).rank(method="first", pct=True).to_numpy()
        return [f"{within[(low < order) & (order <= low + 1 / 3)].mean():.1%}" for low in (0.0, 1 / 3, 2 / 3)]

    return f"| {name} | {' | '.join([*shares(tested.predicted), *shares(tested.spread)])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--activation", help="which one; the comparison's baseline when not given")
    parser.add_argument("--max_epochs", type=int, help="for a first look")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    overrides = [] if asked.max_epochs is None else ["--trainer.max_epochs", str(asked.max_epochs)]
    found: dict[str, Tested] = {}
    for config in asked.configs:
        configuration = parse("compare", "", ["--config", str(config), *overrides])
        activation = asked.activation or configuration.compare.baseline
        found[Path(config).stem] = measure(configuration, activation)
    flags = "" if asked.activation is None else f" --activation {asked.activation}"
    epochs = "" if asked.max_epochs is None else f" --max_epochs {asked.max_epochs}"
    paths = "" if tuple(asked.configs) == CONFIGS else "".join(f" {config}" for config in asked.configs)
    sections = [
        INTRODUCTION.format(
            command=f"python scripts/interval_coverage.py{paths}{flags}{epochs}",
            activation=activation,
            folds=configuration.compare.folds,
            inner=configuration.compare.inner,
            errors=", ".join(f"{np.sqrt(0.09 / len(t.truth)):.1%} for {name}" for name, t in found.items()),
        )
    ]
    for name, tested in found.items():
        sections.append("\n".join([f"## {name}", "", *level_table(tested), "", fold_sentence(tested), ""]))
    head = "| | least third predicted | middle | largest | folds agree most | middle | least |"
    lines = [LIMITS, head, f"| --- |{' ---: |' * 6}", *(thirds_row(name, tested) for name, tested in found.items())]
    text = "\n".join([*sections, *lines, ""])
    write_text(asked.output, text)
    print(text)


if __name__ == "__main__":
    main()
