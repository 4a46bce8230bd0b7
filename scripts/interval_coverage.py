"""Do 90 % intervals hold 90 % of new rows, and are they any narrower than ridge's? Writes docs/intervals.md.

    python scripts/interval_coverage.py --out DIR [CONFIG ...]

The comparisons are those of `scripts/accuracy.py shipped --out DIR/NAME --config CONFIG`: one on the rows outside each
fold of an outer KFold(5, shuffle, random_state=0), whole and with defaults. The intervals of the model that it left are
counted on the outer fold's rows, which nothing has seen. Ridge beside it: out-of-fold errors on the very same folds,
the same rank of their absolute values, one constant width for all rows. The same command again goes on.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from accuracy import N_OUTER, comparisons, true_values
from actlab.config import Configuration, parse
from actlab.data.splits import SplitRows, make_splits
from actlab.data.table import Table, read_rows, read_table
from actlab.data.target import fit_target
from actlab.members import FoldKey
from actlab.model.ensemble import FoldPrediction, FoldResiduals
from actlab.model.intervals import check_level, interval_of
from actlab.run_files import write_text
from actlab.runs.references import REFERENCES, FoldData

Values = NDArray[np.float64]

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "intervals.md"
CONFIGS = ("configs/house_prices.yaml", "configs/concrete.yaml")
LEVELS = (0.5, 0.8, 0.9, 0.95)

INTRODUCTION = """# Do the intervals hold what they promise?

`actlab predict --interval 0.9` writes the ends of prediction intervals in the way of CV+ (Barber, Candes, Ramdas &
Tibshirani 2021): each training row was predicted by networks that never saw it, and the sizes of these errors, set
around the prediction for a new row, give its interval. Errors are counted in units of a scale, which says how large
errors are where networks disagree as much as here and predict what they predict here; it is fitted to the errors of the
other folds. And what is predicted is the mean over all folds, whose error is smaller than each fold's by what the folds
are apart on that row (`src/actlab/model/intervals.py`). Under a log the interval is taken on the log scale, so that its
width is a share of the price. Here that is put to the test on rows that nothing has seen:

```
{command}
```

An outer KFold(5, shuffle, random_state=0), for Concrete GroupKFold by mix, lies around everything. On the rows outside
an outer fold the shipped comparison runs as it is, and the model that it leaves makes the intervals; the rows of the
outer fold are counted. *CV+* is the paper's own formula for the same networks, without a scale and around each fold's
prediction. *Ridge* is what a plain model would give: errors out of fold on the same folds, the same rank of their
sizes, one constant width
for all rows. Widths are means over rows on the scale trained on; 0.40 on the log scale means that the upper end is
exp(0.40) = 1.49 times the lower one. The standard error of a coverage of 90 % is sqrt(0.09 / rows):
{errors}.

The form of the intervals was chosen among six with an eye on these very tables, so on other data they may hold a little
more or less.
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
        cv_plus_ends: The same by the formula of the paper.
        ridge_ends: The same of ridge's.
    """

    fold: NDArray[np.int64]
    truth: Values
    predicted: Values
    spread: Values
    ends: dict[float, Values]
    cv_plus_ends: dict[float, Values]
    ridge_ends: dict[float, Values]


def cv_plus(by_fold: Mapping[FoldKey, FoldPrediction], residuals: Sequence[FoldResiduals], level: float) -> Values:
    """(2, N) ends by equation (1.8) of Barber et al. 2021, with the K-fold mu."""
    rank = check_level(residuals, level)
    centres = [np.repeat(by_fold[p.repeat, p.fold].mean[:, None], len(p.residuals), axis=1) for p in residuals]
    errors = [np.abs(np.broadcast_to(p.residuals.numpy(), mu.shape)) for p, mu in zip(residuals, centres, strict=True)]
    centre, error = np.concatenate(centres, axis=1), np.concatenate(errors, axis=1)
    return np.stack([np.sort(centre - error)[:, -rank], np.sort(centre + error)[:, rank - 1]])


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
    for split, parts in make_splits(
        table.layout.of(rows), configuration.compare.splitting("search"), configuration.seed
    ).items():
        folds.setdefault((split.repeat, split.fold), parts)
    errors = [
        np.abs(true_values(table, configuration)[rows[parts.test]] - ridge(table, configuration, fitting, test))
        for parts in folds.values()
        for fitting, test in [(rows[np.union1d(parts.training, parts.validation)], rows[parts.test])]
    ]
    centre = ridge(table, configuration, rows, outer)
    ordered = np.sort(np.concatenate(errors))
    n_repeats = configuration.compare.splitting("search").repeats
    ranks = {level: int(np.ceil(round(level * (len(ordered) + n_repeats), 6))) for level in LEVELS}
    return {level: np.stack([centre - ordered[rank - 1], centre + ordered[rank - 1]]) for level, rank in ranks.items()}


def ridge(table: Table, configuration: Configuration, fitting: NDArray[np.int64], test: NDArray[np.int64]) -> Values:
    """(n_test,) predictions on the scale trained on."""
    assert table.target is not None
    scaler = fit_target(table.target, fitting, configuration.data.target_transform)
    data = FoldData(fitting, test, scaler.forward(table.target), table, configuration.data)
    with threadpool_limits(1):
        return REFERENCES["ridge"](data) * scaler.sd + scaler.mean


def measure(configuration: Configuration, out: Path) -> Tested:
    """Compare on the rest of each outer fold and predict its rows."""
    table = read_table(configuration.data)
    truth = true_values(table, configuration)
    parts: list[Tested] = []
    for number, found in enumerate(comparisons(configuration, out)):
        model = found.model
        (rows,) = read_rows(str(found.hidden), model.schema)
        by_fold = model.predict_by_fold(rows.features)
        means = np.stack([said.mean for said in by_fold.values()])
        for level in LEVELS:
            check_level(model.residuals, level)
        parts.append(
            Tested(
                np.full(len(found.test), number),
                truth[found.test],
                means.mean(axis=0),
                means.std(axis=0),
                {level: np.stack(interval_of(by_fold, model.residuals, level)) for level in LEVELS},
                {level: cv_plus(by_fold, model.residuals, level) for level in LEVELS},
                ridge_intervals(table, configuration, found.training, found.test),
            )
        )
    return join(parts)


def join(parts: Sequence[Tested]) -> Tested:
    def ends(name: str) -> dict[float, Values]:
        return {level: np.concatenate([getattr(part, name)[level] for part in parts], axis=1) for level in LEVELS}

    rows = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("fold", "truth", "predicted", "spread")
    }
    return Tested(**rows, ends=ends("ends"), cv_plus_ends=ends("cv_plus_ends"), ridge_ends=ends("ridge_ends"))


def is_within(tested: Tested, ends: Values) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = (ends[0] <= tested.truth) & (tested.truth <= ends[1])
    return within


def level_table(tested: Tested) -> Iterator[str]:
    yield "| asked for | held | mean width | CV+: held | mean width | ridge: held | mean width | narrower than ridge |"
    yield f"| ---: |{' ---: |' * 7}"
    for level in LEVELS:
        contestants = [ends[level] for ends in (tested.ends, tested.cv_plus_ends, tested.ridge_ends)]
        widths = [np.mean(upper - lower) for lower, upper in contestants]
        cells = [
            f"{is_within(tested, ends).mean():.1%} | {width:.3f}"
            for ends, width in zip(contestants, widths, strict=True)
        ]
        yield f"| {level:.0%} | {' | '.join(cells)} | {1 - widths[0] / widths[-1]:.1%} |"


def fold_sentence(tested: Tested) -> str:
    within = is_within(tested, tested.ends[0.9])
    shares = ", ".join(f"{within[tested.fold == fold].mean():.1%}" for fold in range(N_OUTER))
    return f"The 90 % intervals, outer fold by outer fold: {shares}."


def thirds_row(name: str, tested: Tested) -> str:
    within = is_within(tested, tested.ends[0.9])

    def shares(values: Values) -> list[str]:
        order = pd.Series(values).rank(method="first", pct=True).to_numpy()
        return [f"{within[(low < order) & (order <= low + 1 / 3)].mean():.1%}" for low in (0.0, 1 / 3, 2 / 3)]

    return f"| {name} | {' | '.join([*shares(tested.predicted), *shares(tested.spread)])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--out", type=Path, required=True, help="directory of the comparisons, one a configuration")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    found: dict[str, Tested] = {}
    for config in asked.configs:
        name = Path(config).stem
        found[name] = measure(parse("compare", ["--config", str(config)]), asked.out / name)
    paths = "" if tuple(asked.configs) == CONFIGS else "".join(f" {config}" for config in asked.configs)
    errors = ", ".join(f"{np.sqrt(0.09 / len(t.truth)):.1%} for {name}" for name, t in found.items())
    sections = [
        INTRODUCTION.format(command=f"python scripts/interval_coverage.py --out runs/intervals{paths}", errors=errors)
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
