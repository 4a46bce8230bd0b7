"""Which rows belong together: groups, copies and given folds, against plain loops; and what is said of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.data.layout import RowLayout, equal_rows, united, without_gaps
from actlab.data.table import Table, read_table
from actlab.errors import InputError
from actlab.settings import DataSettings


def read(folder: Path, frame: pd.DataFrame, **keys: Any) -> Table:
    path = folder / "t.csv"
    frame.to_csv(path, index=False)
    return read_table(DataSettings(csv=str(path), target="y", **keys))


def persons(n: int = 60, n_persons: int = 12) -> pd.DataFrame:
    """No two rows are equal; the persons are in no order."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"person": rng.permutation(np.arange(n) % n_persons) + 500, "x": rng.normal(size=n), "y": rng.uniform(1, 2, n)}
    )


def is_same_partition(codes: np.ndarray, labels: object) -> bool:
    pairs = set(zip(codes.tolist(), list(labels), strict=True))  # type: ignore[call-overload]
    return len(pairs) == len({code for code, _ in pairs}) == len({label for _, label in pairs})


@pytest.mark.parametrize("seed", range(20))
def test_equal_rows_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    frame = pd.DataFrame(
        {
            "a": rng.choice([0.0, -0.0, 1.5, np.nan], n),
            "b": rng.choice(np.array(["u", "v", None], dtype=object), n),
            "c": rng.choice([7.0, 8.0], n),
        }
    )
    codes = equal_rows(frame)
    keys = [tuple("-" if pd.isna(v) else v for v in row) for row in frame.itertuples(index=False, name=None)]
    # 0.0 and -0.0 are equal, and equal as dictionary keys
    expected = [list(dict.fromkeys(keys)).index(key) for key in keys]
    assert codes.tolist() == expected
    assert equal_rows(frame[["b"]]).tolist() == without_gaps(frame.b.fillna("-").to_numpy()).tolist()


@pytest.mark.parametrize("seed", range(10))
def test_rows_that_chains_link_are_one_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    a, b = (without_gaps(rng.integers(0, 25, n)) for _ in range(2))
    labels = list(range(n))
    for _ in range(n):
        for i in range(n):
            for j in range(n):
                if a[i] == a[j] or b[i] == b[j]:
                    labels[i] = labels[j] = min(labels[i], labels[j])
    assert is_same_partition(united(a, b), labels)


def test_a_single_group_column_is_no_feature_and_says_so(tmp_path: Path) -> None:
    frame = persons()
    table = read(tmp_path, frame, groups="person")
    assert [column.name for column in table.schema.columns] == ["x"]
    # a file to predict on may have it
    assert "person" in table.schema.dropped
    assert table.layout.unit == "groups"
    assert table.layout.groups is not None
    assert is_same_partition(table.layout.groups, frame.person)
    (said,) = [text for text in table.warnings if "data.groups" in text]
    assert "12 groups of up to 5 rows" in said
    assert "no feature" in said


@pytest.mark.parametrize("key", ["categorical", "numeric"])
def test_a_group_column_that_is_declared_a_feature_stays_one(tmp_path: Path, key: str) -> None:
    table = read(tmp_path, persons(), groups=["person"], **{key: ["person"]})
    assert [column.name for column in table.schema.columns] == ["person", "x"]
    assert table.layout.n_groups == 12


def test_several_group_columns_stay_features_and_rows_equal_in_all_of_them_are_one_group(tmp_path: Path) -> None:
    frame = persons().assign(site=lambda f: np.where(f.x > 0, "north", "south"))
    table = read(tmp_path, frame, groups=["person", "site"])
    assert [column.name for column in table.schema.columns] == ["person", "x", "site"]
    assert table.layout.groups is not None
    assert is_same_partition(table.layout.groups, zip(frame.person, frame.site, strict=True))


def test_numbers_are_compared_as_numbers_and_an_unknown_group_is_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("who,x,y\n1,1,2\n1.0,2,3\n,3,4\n2,4,5\nNA,5,6\n 2 ,6,7\n")
    layout = read_table(DataSettings(csv=str(path), target="y", groups=["who"])).layout
    assert layout.groups is not None
    assert layout.groups.tolist() == [0, 0, 1, 2, 3, 2]


def test_groups_that_are_different_in_every_row_change_nothing(tmp_path: Path) -> None:
    table = read(tmp_path, persons().assign(person=range(60)), groups="person")
    assert table.layout.is_plain
    assert table.layout.unit == "rows"


def test_copies_are_kept_together_and_said_with_their_lines(tmp_path: Path) -> None:
    frame = pd.concat([persons(), persons().iloc[[3, 3, 7]]], ignore_index=True)
    table = read(tmp_path, frame)
    groups = table.layout.groups
    assert groups is not None
    assert table.layout.unit == "distinct rows"
    assert table.layout.n_groups == 60
    assert groups[60] == groups[61] == groups[3]
    assert groups[62] == groups[7]
    (said,) = [text for text in table.warnings if "repeat" in text]
    assert "3 rows repeat others in all feature columns (first: lines 5 and 62)" in said
    assert "data.duplicates apart" in said
    assert read(tmp_path, frame, duplicates="apart").layout.is_plain


def test_copies_with_another_target_are_copies_too(tmp_path: Path) -> None:
    again = persons().iloc[:20].assign(y=lambda f: f.y + 1)
    assert read(tmp_path, pd.concat([persons(), again])).layout.n_groups == 60


def test_copies_link_groups(tmp_path: Path) -> None:
    frame = persons().assign(person=[f"p{i // 5}" for i in range(60)])
    # the first person's row once more, under another name
    frame.loc[59, "x"] = frame.loc[0, "x"]
    table = read(tmp_path, frame, groups=["person"])
    assert table.layout.unit == "groups"
    assert table.layout.n_groups == 11


def test_repeated_measurements_of_a_few_settings_are_split_like_any_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"dose": rng.choice([0.5, 1.0, 2.0], 60), "drug": rng.choice(["a", "b"], 60)})
    frame["y"] = rng.uniform(1, 2, 60)
    table = read(tmp_path, frame)
    assert table.layout.is_plain
    assert any("repeated measurements" in text for text in table.warnings)
    assert read(tmp_path, frame, duplicates="together").layout.n_groups == 6
    # copies of single measurements: the same targets, too
    once = frame.drop_duplicates(["dose", "drug"])
    assert read(tmp_path, pd.concat([once] * 3)).layout.n_groups == 6


def test_given_folds_are_the_values_of_their_column_in_order(tmp_path: Path) -> None:
    frame = persons().assign(part=[["test", "a", "b"][i % 3] for i in range(60)])
    table = read(tmp_path, frame, fold="part")
    assert table.layout.fold is not None
    assert table.layout.fold.tolist() == [[2, 0, 1][i % 3] for i in range(60)]
    assert table.layout.has_given_splits
    assert "part" in table.schema.dropped
    assert any("3 values are the test folds" in text for text in table.warnings)


def test_folds_that_cannot_be_are_refused_in_a_sentence(tmp_path: Path) -> None:
    frame = persons().assign(part=[float(i % 3) for i in range(60)])
    with pytest.raises(InputError, match=r"data.fold is missing in line 6 \(so in 2 rows\)"):
        read(tmp_path, frame.assign(part=frame.part.where(~frame.index.isin([4, 9]))), fold="part")
    with pytest.raises(InputError, match="the same in every row"):
        read(tmp_path, frame.assign(part=1), fold="part")
    with pytest.raises(InputError, match=r"no column 'parts' .data.fold.; did you mean 'part'"):
        read(tmp_path, frame, fold="parts")
    with pytest.raises(InputError, match=r"several folds: lines 2 and \d+ \(so in 12 groups\)"):
        read(tmp_path, frame, fold="part", groups="person")
    with pytest.raises(InputError, match=r"'person' stands in data.fold and in data.groups"):
        read(tmp_path, frame, fold="person", groups="person")


def test_copies_in_several_given_folds_are_said_and_refused_where_they_were_to_be_together(tmp_path: Path) -> None:
    frame = pd.concat([persons().iloc[:30]] * 2, ignore_index=True).assign(part=np.arange(60) // 30)
    table = read(tmp_path, frame, fold="part")
    assert any("30 of them in several folds" in text for text in table.warnings)
    with pytest.raises(InputError, match=r"belong together by data.duplicates into several folds: lines 2 and 32"):
        read(tmp_path, frame, fold="part", duplicates="together")


def test_a_part_of_a_layout_is_that_of_its_rows_and_equal_layouts_have_equal_digests() -> None:
    layout = RowLayout(6, np.array([0, 1, 0, 2, 3, 3]), weights=np.arange(6.0))
    part = layout.of(np.array([1, 3, 5]))
    assert part.groups is not None
    assert part.groups.tolist() == [0, 1, 2]
    assert layout.weight_of(np.array([1, 3])) == 4
    assert part.weight_of(np.array([0])) == 1
    assert layout.digest == RowLayout(6, np.array([0, 1, 0, 2, 3, 3]), weights=np.arange(6.0)).digest
    assert layout.digest != RowLayout(6, np.array([0, 1, 0, 2, 3, 3])).digest


def test_rows_of_few_values_that_are_equal_by_chance_do_not_make_one_group_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"person": np.arange(240) % 40, "y": rng.uniform(1, 2, 240)})
    for name in "abcd":
        frame[name] = rng.integers(0, 5, 240)
    table = read(tmp_path, frame, groups="person")
    assert table.layout.n_groups == 40
    assert any("link most groups" in text for text in table.warnings)
    assert read(tmp_path, frame, groups="person", duplicates="together").layout.n_groups < 20


def test_rows_in_order_of_time_keep_their_weights(tmp_path: Path) -> None:
    frame = persons().assign(when=np.arange(60), w=1.0 + np.arange(60) % 3)
    layout = read(tmp_path, frame, time="when", weight="w").layout
    assert layout.weights is not None
    np.testing.assert_array_equal(layout.weights, frame.w)
    assert read(tmp_path, frame.assign(w=2), time="when", weight="w").layout.weights is None
