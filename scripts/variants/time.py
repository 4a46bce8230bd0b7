"""Rows in order of time: what is later reaches nothing that is earlier."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from actlab.data.datamodule import TabularDataModule
from actlab.data.splits import SplitRows, Splits, make_splits
from actlab.data.table import Table, read_table
from actlab.errors import InputError
from actlab.members import Split
from actlab.runs.references import read_test_file
from actlab.settings import DataSettings, ProtocolSettings
from variants import kind

# time stamps as people write them, from days since 1970
STYLES = (
    lambda days: pd.to_datetime(days, unit="D").strftime("%Y-%m-%d"),
    lambda days: pd.to_datetime(days, unit="D").strftime("%Y-%m-%dT%H:%M:%S"),
    lambda days: pd.Index([f"{day:.2f}" for day in days]),
    lambda days: pd.Index([str(round(day)) for day in days]),
)


def timed_frame(generator: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows in any order with the column `when`, and the days (n,) that it stands for: some with several rows a day."""
    n_rows, n_days = int(generator.integers(80, 200)), int(generator.integers(25, 300))
    days = 18_000.0 + generator.integers(0, n_days, n_rows)
    x = generator.normal(size=(n_rows, 2))
    frame = pd.DataFrame({"when": STYLES[generator.integers(len(STYLES))](days), "x": x[:, 0], "z": x[:, 1]})
    frame["kind"] = generator.choice(["a", "b", "c"], n_rows)
    frame["y"] = np.exp(x[:, 0] + generator.normal(size=n_rows) / 5)
    return frame, days


def settings_of(path: Path, **keys: object) -> DataSettings:
    return DataSettings(str(path), "y", time="when", **keys)  # type: ignore[arg-type]


def write(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def protocol_of(generator: np.random.Generator) -> ProtocolSettings:
    return ProtocolSettings(int(generator.integers(2, 6)), 2, 3, float(generator.uniform(0.1, 0.4)))


def all_splits(splits: Splits) -> Iterator[tuple[Split, SplitRows]]:
    """Those of the protocol, and the window that trains on all rows."""
    yield from splits.items()
    last = Split(1, splits.protocol.folds, 0)
    yield last, splits[last]


@kind(
    "rows in order of time", "every network trains on rows before its validation rows, and these before its test rows"
)
def _(generator: np.random.Generator, folder: Path) -> None:
    frame, days = timed_frame(generator)
    table = read_table(settings_of(write(frame, folder / "timed.csv")))
    protocol = protocol_of(generator)
    splits = make_splits(table.layout, protocol, int(generator.integers(100)))
    tested = np.concatenate([splits[Split(1, fold, 0)].test for fold in range(protocol.folds)])
    first = days[tested].min()
    assert np.array_equal(np.sort(tested), splits.tested)
    for split, rows in all_splits(splits):
        assert days[rows.training].max() < days[rows.validation].min()
        if split.fold < protocol.folds:
            assert days[rows.validation].max() < days[rows.test].min()
            # rows of one day are never divided
            others = np.setdiff1d(tested, rows.test)
            assert set(days[rows.test]).isdisjoint(days[others])
        if split.repeat == 0:
            assert days[rows.validation].max() < first
        elif split.fold < protocol.folds:
            known = np.concatenate([rows.training, rows.validation])
            assert sorted(known) == [row for row in range(len(days)) if days[row] < days[rows.test].min()]
        else:
            assert len(rows.training) + len(rows.validation) == len(days)
            assert len(rows.test) == 0


@kind("later rows changed", "preprocessing, target scale and batches of earlier windows stay as they were, to the bit")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame, days = timed_frame(generator)
    protocol = protocol_of(generator)
    fold, repeat = int(generator.integers(protocol.folds)), int(generator.integers(1, 3))
    earlier = [Split(0, 0, 0), Split(repeat, fold, 1), Split(repeat, 0, 0)]
    before = prepared(settings_of(write(frame, folder / "before.csv")), protocol, earlier)
    test = before.data[Split(repeat, fold, 1)].rows.test
    is_later = days >= days[test].min()
    frame.loc[is_later, "x"] = generator.normal(size=is_later.sum()) * 1e6
    frame.loc[is_later, "z"] = np.nan
    frame.loc[is_later, "kind"] = "new"
    frame.loc[is_later, "y"] = generator.uniform(1e6, 1e9, is_later.sum())
    after = prepared(settings_of(write(frame, folder / "after.csv")), protocol, earlier)
    for one in earlier:
        a, b = before.data[one], after.data[one]
        assert np.array_equal(a.rows.training, b.rows.training)
        assert a.preprocessor == b.preprocessor
        assert a.scaler == b.scaler
        known = np.concatenate([a.rows.training, a.rows.validation])
        assert np.array_equal(a.features[known].numpy(), b.features[known].numpy())
        assert np.array_equal(a.targets[known].numpy(), b.targets[known].numpy())


def prepared(settings: DataSettings, protocol: ProtocolSettings, splits: list[Split]) -> TabularDataModule:
    data = TabularDataModule(settings, protocol, splits=splits)
    data.setup()
    return data


@kind("times that are missing or none", "one sentence that names column and line")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame, _ = timed_frame(generator)
    row = int(generator.integers(len(frame)))
    bad = str(generator.choice(["", "NA", "nan", "soon", "2024-13-45", "Q3"]))
    frame.loc[row, "when"] = bad
    path = write(frame, folder / "bad.csv")
    try:
        read_table(settings_of(path))
    except InputError as error:
        text = str(error)
        assert all(part in text for part in (f"line {row + 2}", "'when'", "data.time")), text
    else:
        raise AssertionError(f"{bad!r} was taken for a time")


@kind("a test file", "its rows are read as those of the training file, whatever columns it has in whatever order")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame, _ = timed_frame(generator)
    keys = {} if generator.random() < 0.5 else {"categorical": ["kind"]}
    whole = read_table(settings_of(write(frame, folder / "all.csv"), **keys))
    rows = np.sort(generator.choice(len(frame), int(generator.integers(1, 30)), replace=False))
    own = frame.iloc[rows][list(generator.permutation(frame.columns))]
    if generator.random() < 0.3:
        own = own.assign(other=generator.normal(size=len(own)))
    path = write(own, folder / "test.csv")
    test = read_test_file(settings_of(folder / "all.csv", test_csv=str(path), **keys), whole)
    assert isinstance(test, Table)
    assert test.target is not None
    assert whole.target is not None
    assert np.array_equal(test.target, whole.target[rows])
    pd.testing.assert_frame_equal(test.features, whole.features.iloc[rows].reset_index(drop=True))
