"""Rows that belong together: groups, copies, folds that are given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actlab.data.splits import SplitRows, make_splits
from actlab.data.table import Table, read_table
from actlab.errors import InputError
from actlab.runs.references import mean_scores, reference_predictions
from actlab.settings import DataSettings, ProtocolSettings
from variants import kind


def read(folder: Path, frame: pd.DataFrame, **keys: Any) -> Table:
    path = folder / "table.csv"
    frame.to_csv(path, index=False)
    return read_table(DataSettings(csv=str(path), target="y", target_transform="none", **keys))


def measured(generator: np.random.Generator, n: int) -> pd.DataFrame:
    """Rows of which no two are equal."""
    names = generator.permutation(["height", "dose", "hour", "load", "speed"])[: int(generator.integers(2, 6))]
    frame = pd.DataFrame(generator.normal(size=(n, len(names))), columns=names)
    return frame.assign(kind=generator.choice(["red", "green", "blue"], n), y=generator.normal(size=n))


def keys_of(generator: np.random.Generator, n_groups: int) -> list[str]:
    """Names of groups as files have them."""
    number = generator.permutation(5 * n_groups)[:n_groups]
    ways = [
        [str(one) for one in number],
        [f"P{one:04}" for one in number],
        [f"site {one}, ward {one % 3}" for one in number],
        [f"{one}-{one % 7}" for one in number],
    ]
    return ways[int(generator.integers(len(ways)))]


def sizes_of(generator: np.random.Generator, n_groups: int) -> np.ndarray:
    """The group of each row, in no order: even, or a few large ones."""
    share = generator.lognormal(0, float(generator.uniform(0, 1)), n_groups)
    more = generator.choice(n_groups, int(generator.integers(2, 9)) * n_groups, p=share / share.sum())
    return generator.permutation(np.concatenate([np.arange(n_groups), more]))


def protocol_of(generator: np.random.Generator, folds: int | None = None) -> ProtocolSettings:
    n_folds = int(generator.integers(2, 7)) if folds is None else folds
    return ProtocolSettings(n_folds, int(generator.integers(1, 4)), 2, float(generator.uniform(0.1, 0.25)))


def assert_apart(rows: SplitRows, labels: Sequence[object]) -> None:
    """No label is in two parts, and every part has some."""
    parts = [{labels[row] for row in part} for part in (rows.training, rows.validation, rows.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set(labels)), "a group is in two parts"


def refusal(tried: Callable[[], object]) -> str:
    """The sentence that it is refused with."""
    try:
        tried()
    except InputError as error:
        return str(error)
    raise AssertionError("not refused")


@kind("groups named by a column", "no group in two parts of any split, even folds, the column is no feature")
def _(generator: np.random.Generator, folder: Path) -> None:
    codes = sizes_of(generator, n_groups := int(generator.integers(12, 60)))
    names = keys_of(generator, n_groups)
    cells = [names[code] for code in codes]
    column = str(generator.choice(["person", "user_id", "Patient", "household", "batch"]))
    frame = measured(generator, len(codes))
    frame.insert(int(generator.integers(frame.shape[1])), column, cells)
    # spaces around a name do not make another
    padded = frame.assign(**{column: [f" {cell} " if i % 5 == 0 else cell for i, cell in enumerate(cells)]})
    table = read(folder, padded, groups=column if generator.random() < 0.5 else [column])
    assert column not in table.features.columns
    assert table.layout.n_groups == n_groups
    assert any(f"data.groups {column!r}: {n_groups} groups" in text for text in table.warnings)
    protocol = protocol_of(generator)
    splits = make_splits(table.layout, protocol, int(generator.integers(100)))
    for rows in splits.values():
        assert_apart(rows, cells)
    sizes, largest = splits.test_sizes(1), np.bincount(codes).max()
    assert sum(sizes) == len(codes)
    assert max(sizes) - min(sizes) <= largest


@kind("groups by several columns", "rows equal in all of them are one group, and the columns stay features")
def _(generator: np.random.Generator, folder: Path) -> None:
    n_mixes, n_parts = int(generator.integers(12, 50)), int(generator.integers(2, 5))
    mixes = generator.integers(0, 4, (n_mixes, n_parts)) * 2.5 + 100 * np.arange(n_parts)
    codes = sizes_of(generator, n_mixes)
    names = [f"part {place}" for place in range(n_parts)]
    cells = pd.DataFrame(mixes[codes], columns=names)
    # the same number, written in another way
    texts = cells.map(lambda value: f"{value:.2f}" if generator.random() < 0.5 else f"{value:g}")
    table = read(folder, pd.concat([texts, measured(generator, len(codes))], axis=1), groups=names)
    assert set(names) <= set(table.features.columns) | set(table.schema.dropped)
    labels = [tuple(row) for row in cells.itertuples(index=False)]
    assert table.layout.n_groups == len(set(labels))
    for rows in make_splits(table.layout, protocol_of(generator, 3), 0).values():
        assert_apart(rows, labels)


@kind("rows without a group", "each is a group of its own, and that is said")
def _(generator: np.random.Generator, folder: Path) -> None:
    codes = sizes_of(generator, n_groups := int(generator.integers(12, 40)))
    names = keys_of(generator, n_groups)
    is_missing = generator.random(len(codes)) < 0.15
    is_missing[0] = True
    labels = [i if missing else names[code] for i, (code, missing) in enumerate(zip(codes, is_missing, strict=True))]
    cells = ["" if missing else names[code] for code, missing in zip(codes, is_missing, strict=True)]
    table = read(folder, measured(generator, len(codes)).assign(who=cells), groups="who")
    assert table.layout.n_groups == len(set(labels))
    assert any(f"missing in {is_missing.sum()} rows, each a group of its own" in text for text in table.warnings)
    for rows in make_splits(table.layout, protocol_of(generator, 4), 0).values():
        assert_apart(rows, labels)


@kind("copies of rows", "kept in one part of every split without being asked, whatever their targets")
def _(generator: np.random.Generator, folder: Path) -> None:
    once = measured(generator, int(generator.integers(30, 90)))
    once.loc[generator.random(len(once)) < 0.1, once.columns[0]] = np.nan
    once["kind"] = [f"{kind}{i}" if i % 2 else kind for i, kind in enumerate(once.kind)]
    again = once.sample(
        int(generator.integers(1, 3 * len(once))), replace=True, random_state=int(generator.integers(99))
    )
    if generator.random() < 0.5:
        again = again.assign(y=generator.normal(size=len(again)))
    order = generator.permutation(len(once) + len(again))
    frame = pd.concat([once, again]).iloc[order].reset_index(drop=True)
    labels = np.concatenate([once.index, again.index])[order].tolist()
    table = read(folder, frame)
    assert table.layout.n_groups == len(once)
    assert any(f"{len(again)} rows repeat others in all feature columns" in text for text in table.warnings)
    for rows in make_splits(table.layout, protocol_of(generator), 0).values():
        assert_apart(rows, labels)
    assert read(folder, frame, duplicates="apart").layout.is_plain


@kind("a table without copies", "is split as if there were none to look for, with no word")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame = measured(generator, n := int(generator.integers(30, 300)))
    table = read(folder, frame)
    assert table.layout.is_plain
    assert table.warnings == (), table.warnings
    seed, protocol = int(generator.integers(100)), protocol_of(generator)
    one, other = (make_splits(layout, protocol, seed) for layout in (table.layout, type(table.layout)(n)))
    for split, rows in one.items():
        assert all(np.array_equal(a, b) for a, b in zip(vars(rows).values(), vars(other[split]).values(), strict=True))


@kind("measurements at a few settings", "equal settings are repeated measurements and split like any rows; said")
def _(generator: np.random.Generator, folder: Path) -> None:
    levels = [int(generator.integers(2, 5)) for _ in range(int(generator.integers(1, 4)))]
    n = int(generator.integers(5, 12)) * int(np.prod(levels))
    frame = pd.DataFrame({f"f{i}": generator.integers(0, k, n) for i, k in enumerate(levels)})
    # every level is there, and so are most combinations
    frame[:] = np.where(np.arange(n)[:, None] < max(levels), np.arange(n)[:, None] % levels, frame)
    frame["y"] = generator.normal(size=n)
    table = read(folder, frame)
    assert table.layout.is_plain
    assert any("repeated measurements" in text for text in table.warnings)
    n_settings = len(frame.drop(columns="y").drop_duplicates())
    assert read(folder, frame, duplicates="together").layout.n_groups == n_settings


@kind("folds that are given", "each value of the column is tested once a repeat, and nothing else")
def _(generator: np.random.Generator, folder: Path) -> None:
    n_folds = int(generator.integers(2, 7))
    names = [
        [str(i + 1) for i in range(n_folds)],
        [f"fold {chr(97 + i)}" for i in range(n_folds)],
        [f"20{10 + i}-01-01" for i in range(n_folds)],
        [f"{i / 4}" for i in range(n_folds)],
    ][int(generator.integers(4))]
    n = int(generator.integers(12, 40)) * n_folds
    codes = generator.permutation(np.arange(n) % n_folds)
    table = read(folder, measured(generator, n).assign(part=[names[code] for code in codes]), fold="part")
    assert "part" not in table.features.columns
    splits = make_splits(table.layout, protocol_of(generator, n_folds), int(generator.integers(9)))
    for split, rows in splits.items():
        assert np.array_equal(rows.test, np.flatnonzero(codes == split.fold))
        assert set(codes[rows.training]) | {split.fold} == set(range(n_folds))


@kind("folds that cannot be", "refused in one sentence that names what to do")
def _(generator: np.random.Generator, folder: Path) -> None:
    n = int(generator.integers(40, 90))
    frame = measured(generator, n).assign(person=generator.permutation(np.arange(n) % 10), part=np.arange(n) % 3)
    bad = int(generator.integers(n))
    part = [None if i == bad else fold for i, fold in enumerate(frame.part.tolist())]
    cases: list[tuple[pd.DataFrame, dict[str, Any], str]] = [
        (frame.assign(part=pd.array(part, dtype="Int64")), {"fold": "part"}, f"data.fold is missing in line {bad + 2}"),
        (frame.assign(part=7), {"fold": "part"}, "the same in every row"),
        (frame, {"fold": "Part"}, "did you mean 'part'"),
        (frame, {"fold": "part", "groups": ["person"]}, "belong together by data.groups into several folds"),
        (frame, {"groups": ["persons"]}, "no column 'persons' (data.groups); did you mean 'person'"),
        (frame, {"groups": ["y"]}, "stands in data.target and in data.groups"),
    ]
    table, keys, expected = cases[int(generator.integers(len(cases)))]
    assert expected in refusal(lambda: read(folder, table, **keys))


@kind("too few groups", "refused in one sentence with their number")
def _(generator: np.random.Generator, folder: Path) -> None:
    folds = int(generator.integers(3, 9))
    n_groups = int(generator.integers(2, folds))
    codes = generator.permutation(np.concatenate([np.arange(n_groups)] * int(generator.integers(6, 20))))
    layout = read(folder, measured(generator, len(codes)).assign(who=codes), groups="who").layout
    said = refusal(lambda: make_splits(layout, ProtocolSettings(folds), 0))
    assert f"{n_groups} groups are too few for {folds} folds" in said


@kind("a model of new groups", "claims the score that it has on groups never seen, within chance", is_slow=True)
def _(generator: np.random.Generator, folder: Path) -> None:
    slopes = generator.normal(size=3)

    def persons(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        who = np.repeat(np.arange(n), generator.integers(2, 9, n))
        x = np.column_stack([generator.normal(size=(n, 2))[who], generator.normal(size=len(who)), np.ones(len(who))])
        return who, x, x[:, :3] @ slopes + generator.normal(size=n)[who] + 0.2 * generator.normal(size=len(who))

    (who, x, y), (_, new, actual) = persons(150), persons(2000)
    table = read(folder, pd.DataFrame(x[:, :3], columns=["a", "b", "c"]).assign(who=who, y=y), groups="who")
    splits = make_splits(table.layout, ProtocolSettings(inner=1), 0)
    claimed = mean_scores(reference_predictions(table, splits, DataSettings(target_transform="none")))["ridge"]
    true = np.sqrt(np.mean((new @ np.linalg.lstsq(x, y)[0] - actual) ** 2))
    assert claimed is not None
    # the level of 150 persons has a standard error of 6 %
    assert abs(claimed / true - 1) < 0.25, (claimed, true)
