"""Many races' networks as one population: thousands of tiny networks cost little where they train together.

Shapes here: `R` repeats, `n` rows.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from actlab.data.datamodule import TabularDataModule, prepare
from actlab.data.layout import RowLayout
from actlab.data.splits import SplitRows, make_splits, splits_of
from actlab.data.table import Table, read_table
from actlab.members import Member, Split, derive_seed
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.runs.evaluate import make_trainer
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

FloatArray = npt.NDArray[np.float64]

# so many repeats of a race have numbers of their own before those of the next begin
MOST_REPEATS = 1000


@dataclass(frozen=True)
class Training:
    """How networks train: by default so small and short that a race of 200 takes less than a second."""

    data: DataSettings = field(
        default_factory=lambda: DataSettings("generated", "y", target_transform="none", batch_size=32)
    )
    folds: int = 3
    hidden: tuple[int, ...] = (8,)
    learning_rate: float = 0.03
    weight_decay: float = 0.01
    dropout: float = 0.0
    init: str = "auto"
    max_epochs: int = 8
    patience: int = 8


@dataclass(frozen=True)
class Arm:
    """What takes part in a race, under a name of its own.

    Args:
        seed: Of its initial weights and batch orders; arms of equal seed and activation are equal to the bit.
        learning_rate: Its own; that of the training where None.
        variant: Which of the variants of a race's table it sees.
        broken_share: Share of repeats in which its learning rate is `BROKEN_RATE`.
    """

    name: str
    activation: str
    seed: int
    learning_rate: float | None = None
    variant: int = 0
    broken_share: float = 0.0

    def rate_in(self, run: int, repeat: int, usual: float) -> float:
        is_broken = np.random.default_rng(derive_seed(self.seed, "broken", run, repeat)).random() < self.broken_share
        return BROKEN_RATE if is_broken else self.learning_rate or usual


# networks of a few units still learn at this rate, but badly
BROKEN_RATE = 3.0


def trained(
    tables: Mapping[int, Sequence[Table]], arms: Sequence[Arm], repeats: Sequence[int], how: Training
) -> dict[int, dict[str, FloatArray]]:
    """Squared out-of-fold errors of every race, by its number, and arm: (R, n) on the scale trained on, nan where a
    network diverged.

    Every race has a table of its own, in variants, all of equally many rows and columns, and splits of its own, which
    its arms share. What comes of a race does not depend on the others that train beside it.
    """
    prepared = _Tables(tables, repeats, how)
    module = PopulationModule(list(_members(tables, arms, repeats, how)), OptimizerSettings(patience=how.patience))
    trainer = make_trainer({"max_epochs": how.max_epochs, "accelerator": "cpu"}, [])
    trainer.fit(module, datamodule=prepared)
    trainer.test(module, datamodule=prepared, verbose=False)
    n_rows = next(iter(tables.values()))[0].n_rows
    errors = {run: {arm.name: np.full((len(repeats), n_rows), np.nan) for arm in arms} for run in tables}
    for outcome in module.outcomes:
        run, repeat = divmod(outcome.member.split.repeat, MOST_REPEATS)
        own = errors[run][arms[outcome.member.trial].name][repeats.index(repeat)]
        own[prepared.rows[outcome.member.split].test] = _squared_errors(outcome, prepared)
    return errors


def _members(runs: Iterable[int], arms: Sequence[Arm], repeats: Sequence[int], how: Training) -> Iterator[Member]:
    for run, (place, arm), repeat, fold in product(runs, enumerate(arms), repeats, range(how.folds)):
        rate = arm.rate_in(run, repeat, how.learning_rate)
        split = Split(run * MOST_REPEATS + repeat, fold, arm.variant)
        network = (how.hidden, how.dropout, how.init, how.weight_decay)
        yield Member(place, arm.activation, rate, split, arm.seed, *network)


def _squared_errors(outcome: Outcome, prepared: "_Tables") -> FloatArray:
    """(n_test,)."""
    split = outcome.member.split
    data, rows = prepared.data[split], prepared.rows[split].test
    if outcome.network is None or outcome.network.test_predictions is None:
        return np.full(len(rows), np.nan)
    actual = data.targets[rows] * data.scaler.sd + data.scaler.mean
    return np.asarray((outcome.network.test_predictions - actual).numpy() ** 2, dtype=np.float64)


class _Tables(TabularDataModule):
    """The splits of several tables; `inner` of a split counts the variants of its table."""

    def __init__(self, tables: Mapping[int, Sequence[Table]], repeats: Sequence[int], how: Training) -> None:
        super().__init__(how.data, ProtocolSettings())
        self.tables = tables
        self.rows = {
            Split(run * MOST_REPEATS + split.repeat, split.fold, variant): rows
            for run, variants in tables.items()
            for split, rows in race_splits(run, variants[0].layout, repeats, how.folds).items()
            for variant in range(len(variants))
        }

    def setup(self, stage: str | None = None) -> None:
        if not self.data:
            for split, rows in self.rows.items():
                self.data[split] = prepare(self.tables[split.repeat // MOST_REPEATS][split.inner], rows, self.settings)


def race_splits(run: int, layout: RowLayout, repeats: Sequence[int], folds: int) -> dict[Split, SplitRows]:
    """Those of a race, one network a fold."""
    protocol = ProtocolSettings(folds, inner=1)
    splits = make_splits(layout, protocol, derive_seed("calibration", run))
    return {split: splits[split] for split in splits_of(repeats, protocol)}


def read(frame: pd.DataFrame) -> Table:
    """A frame as a comparison would read it, with the target `y`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        frame.to_csv(path, index=False)
        return read_table(DataSettings(str(path), "y", target_transform="none"))


def generated_table(n_rows: int, seed: int, is_noise: bool = False) -> pd.DataFrame:
    """Four columns that act alike on the target `y`, which has noise of its own; or that have nothing to do with it."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n_rows, 4))
    signal = np.zeros(n_rows) if is_noise else np.tanh(2 * x).sum(1) + 0.5 * np.abs(x).sum(1)
    frame = pd.DataFrame(x, columns=list(COLUMNS))
    frame["y"] = signal + generator.normal(size=n_rows) * (1.0 if is_noise else 0.5)
    return frame


COLUMNS = ("a", "b", "c", "d")
