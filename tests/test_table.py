"""What training and prediction see of a file: kinds, values, missing cells, and a sentence for everything wrong."""

import json
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actlab.data.columns import Schema
from actlab.data.layout import RowLayout
from actlab.data.table import Table, read_rows, read_table
from actlab.errors import InputError
from actlab.settings import DataSettings

DATA = Path(__file__).parents[1] / "data"
HOUSES = DataSettings(csv=str(DATA / "house_prices" / "train.csv"), target="SalePrice")


def write(folder: Path, content: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return str(path)


def column(folder: Path, cells: list[str], **keys: Any) -> Table:
    """The table of a file with the given cells as feature `x`, next to a feature that varies and a target."""
    lines = [f'{i % 7},"{cell}",{i * i + 1}' for i, cell in enumerate(cells)]
    return read_table(DataSettings(csv=write(folder, "\n".join(["w,x,price", *lines])), target="price", **keys))


def message(folder: Path, content: str, **keys: Any) -> str:
    """What reading the file for training is refused with."""
    path = write(folder, content)
    with pytest.raises(InputError) as caught:
        read_table(DataSettings(csv=path, **{"target": "price", **keys}))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_house_prices_are_what_pandas_reads() -> None:
    table = read_table(HOUSES)
    frame = pd.read_csv(str(HOUSES.csv), keep_default_na=False, na_values=["", "NA"])
    assert table.warnings == ()
    assert table.schema.id == "Id"
    assert table.ids is not None
    assert table.ids.tolist() == frame["Id"].astype(str).tolist()
    assert table.features.shape == (1460, 79)
    np.testing.assert_array_equal(table.target, frame["SalePrice"].to_numpy(np.float64))
    for known in table.schema.columns:
        expected = frame[known.name]
        if known.kind == "numeric":
            assert table.features[known.name].dtype == np.float64
            np.testing.assert_array_equal(table.features[known.name].to_numpy(), expected.to_numpy(np.float64))
        else:
            assert table.features[known.name].dtype == object
            assert table.features[known.name].tolist() == [None if pd.isna(v) else v for v in expected]
    numeric = {known.name for known in table.schema.columns if known.kind == "numeric"}
    assert numeric == set(frame.select_dtypes("number").columns) - {"Id", "SalePrice"}


def test_none_is_a_value_and_na_is_missing_in_house_prices() -> None:
    masonry = read_table(HOUSES).features["MasVnrType"]
    assert (masonry == "None").sum() == 864
    assert masonry.isna().sum() == 8


def test_concrete_is_read_by_the_bit() -> None:
    path = str(DATA / "concrete" / "concrete.csv")
    table = read_table(DataSettings(csv=path, target="compressive_strength"))
    frame = pd.read_csv(path)
    np.testing.assert_array_equal(table.features.to_numpy(), frame.iloc[:, :-1].to_numpy(np.float64))
    assert table.content_hash == sha256(Path(path).read_bytes()).hexdigest()
    (said,) = table.warnings
    assert "38 rows repeat others in all feature columns" in said


@pytest.mark.parametrize("chunk_rows", [None, 1, 7, 1000, 5000])
def test_rows_to_predict_on_are_the_training_rows_again(tmp_path: Path, chunk_rows: int | None) -> None:
    table = read_table(HOUSES)
    n_rows = 60
    head = Path(str(HOUSES.csv)).read_text(encoding="utf-8").splitlines(keepends=True)[: n_rows + 1]
    chunks = list(read_rows(write(tmp_path, "".join(head)), table.schema, chunk_rows))
    assert sum(chunk.n_rows for chunk in chunks) == n_rows
    assert max(chunk.n_rows for chunk in chunks) <= (chunk_rows or n_rows)
    together = pd.concat([chunk.features for chunk in chunks], ignore_index=True).astype(table.features.dtypes)
    pd.testing.assert_frame_equal(together, table.features[:n_rows])
    assert all(chunk.target is None and chunk.warnings == () for chunk in chunks)
    assert [key for chunk in chunks if chunk.ids is not None for key in chunk.ids] == [
        str(i + 1) for i in range(n_rows)
    ]


def test_ids_of_rows_are_text_as_in_the_file(tmp_path: Path) -> None:
    table = read_table(DataSettings(csv=write(tmp_path, "id,x,price\n007,1,2\n008,3,4\n"), target="price"))
    rows = next(read_rows(write(tmp_path, "x,id\n1,0001\n2,\n", "new.csv"), table.schema))
    assert table.ids is not None
    assert rows.ids is not None
    assert table.ids.tolist() == ["007", "008"]
    assert rows.ids.tolist() == ["0001", ""]


@pytest.mark.parametrize(
    ("header", "first", "found"),
    [
        ("id", ["1", "2", "3"], "id"),
        ("Id", ["a", "b", "c"], "Id"),
        ("", ["0", "1", "2"], "Unnamed: 0"),
        ("customer_id", ["9", "7", "8"], "customer_id"),
        ("PassengerId", ["9", "7", "8"], "PassengerId"),
        ("index", ["0.5", "0.7", "0.9"], None),
        ("index", ["1", "1", "2"], None),
        ("id", ["1", "", "2"], None),
        ("grid", ["1", "2", "3"], None),
        ("Bid", ["1", "2", "3"], None),
    ],
)
def test_an_identifier_is_named_like_one_and_differs_in_every_row(
    tmp_path: Path, header: str, first: list[str], found: str | None
) -> None:
    content = f"{header},x,price\n" + "".join(f"{key},{i},{i + 1}\n" for i, key in enumerate(first))
    assert read_table(DataSettings(csv=write(tmp_path, content), target="price")).schema.id == found


def test_declared_kinds_overrule_what_cells_look_like(tmp_path: Path) -> None:
    content = "id,a,b,c,price\n1,20,1,lo,1\n2,20.0,2,hi,2\n3,30,3,,3\n"
    keys: dict[str, Any] = {"categorical": ["a"], "numeric": ["id"], "ordinal": {"c": ["lo", "mid", "hi"]}}
    table = read_table(DataSettings(csv=write(tmp_path, content), target="price", **keys))
    assert [(known.name, known.kind) for known in table.schema.columns] == [
        ("id", "numeric"),
        ("a", "categorical"),
        ("b", "numeric"),
        ("c", "ordinal"),
    ]
    assert table.ids is None
    assert table.features["a"].tolist() == ["20", "20", "30"]
    assert table.features["c"].tolist() == ["lo", "hi", None]
    assert table.schema.columns[3].categories == ("lo", "mid", "hi")


def test_a_text_in_an_order_is_a_value_even_if_it_means_missing_elsewhere(tmp_path: Path) -> None:
    table = column(tmp_path, ["NA", "Po", "Ex", "NA"], ordinal={"x": ["NA", "Po", "Ex"]})
    assert table.features["x"].tolist() == ["NA", "Po", "Ex", "NA"]
    (rows,) = read_rows(write(tmp_path, "x,w\nNA,1\n", "new.csv"), table.schema)
    assert rows.features["x"].tolist() == ["NA"]


@pytest.mark.parametrize(
    ("cells", "values", "words"),
    [
        (["1,234.5", "12", "NA"], [1234.5, 12.0, np.nan], "'1,234.5' is read as 1234.5"),
        (["$1,200", "$7", "$8"], [1200.0, 7.0, 8.0], "numbers written as text"),
        (["1,5", "2,25", "1.234,5"], [1.5, 2.25, 1234.5], "decimal comma"),
        (["1970-01-02", "2000-01-01", ""], [1.0, 10957.0, np.nan], "days since 1970-01-01"),
    ],
)
def test_numbers_and_days_in_disguise_are_read_with_a_warning(
    tmp_path: Path, cells: list[str], values: list[float], words: str
) -> None:
    table = column(tmp_path, cells)
    np.testing.assert_array_equal(table.features["x"].to_numpy(), values)
    (warning,) = table.warnings
    assert words in warning
    assert "'x'" in warning
    content = "x,w\n" + "".join(f'"{cell}",{i}\n' for i, cell in enumerate(cells))
    chunks = list(read_rows(write(tmp_path, content, "new.csv"), table.schema, 1))
    np.testing.assert_array_equal([chunk.features["x"].iloc[0] for chunk in chunks], values)
    assert sum(len(chunk.warnings) for chunk in chunks) <= 1


def test_a_comma_is_decimal_where_semicolons_separate(tmp_path: Path) -> None:
    path = write(tmp_path, "x;price\n1,234;2,5\n5,678;3\n")
    table = read_table(DataSettings(csv=path, target="price"))
    assert table.features["x"].tolist() == [1.234, 5.678]
    assert table.target is not None
    assert table.target.tolist() == [2.5, 3.0]
    assert len(table.warnings) == 3


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1", "2", "x"], ["mixes 2 numbers with 1 other cells", "'x', line 4"]),
        (["01-02-24", "02-02-24", "02-02-24"], ["looks like dates"]),
        ([f"c{7 * i % 101}" for i in range(202)], ["101 categories", "mean target"]),
    ],
)
def test_a_doubtful_category_is_warned_of(tmp_path: Path, cells: list[str], words: list[str]) -> None:
    table = column(tmp_path, cells)
    assert table.features["x"].tolist() == cells
    (warning,) = table.warnings
    assert all(word in warning for word in words)


@pytest.mark.parametrize(("cells", "words"), [(["", "NA", " "], "missing in every row"), (["7"] * 3, "the same")])
def test_a_column_without_information_is_left_out_with_a_warning(tmp_path: Path, cells: list[str], words: str) -> None:
    table = column(tmp_path, cells)
    assert list(table.features.columns) == ["w"]
    assert table.schema.dropped == ("x",)
    (warning,) = table.warnings
    assert words in warning
    (rows,) = read_rows(write(tmp_path, "w,x\n1,5\n", "new.csv"), table.schema)
    assert rows.warnings == ()


def test_a_column_that_is_constant_where_it_is_not_missing_stays(tmp_path: Path) -> None:
    assert column(tmp_path, ["yes", "", "yes"]).features["x"].tolist() == ["yes", None, "yes"]


@pytest.mark.parametrize(
    ("content", "keys", "words"),
    [
        ("x,price\n", {}, ["header but no data row"]),
        ("x,price\n1,2\n", {}, ["single data row"]),
        ("price\n1\n2\n", {}, ["no feature column"]),
        ("id,price\n1,1\n2,2\n", {}, ["no feature column"]),
        ("x,price\n3,1\n3,2\n", {}, ["no feature column that varies"]),
        ("x,price\n1,1\n2,2\n", {"target": None}, ["--data.target", "'x', 'price'"]),
        ("x,SalePrice\n1,1\n2,2\n", {"target": "saleprice"}, ["did you mean 'SalePrice'?", "data.target"]),
        ("x,y\n1,1\n2,2\n", {}, ["'price'", "its columns are 'x', 'y'"]),
        ("x,price\n1,1\n2,2\n", {"categorical": ["X"]}, ["'X'", "data.categorical", "did you mean 'x'?"]),
        ("x,price\n1,1\n2,2\n", {"numeric": ["zzz"]}, ["'zzz'", "data.numeric"]),
        ("x,price\n1,1\n2,2\n", {"id": "key"}, ["'key'", "data.id"]),
        ("x,price\n1,1\n2,2\n", {"ordinal": {"q": ["a", "b"]}}, ["'q'", "data.ordinal"]),
        ("x,price\n1,1\n2,2\n", {"ordinal": {"x": ["1"]}}, ["at least two", "'x'"]),
        ("x,price\n1,1\n2,2\n", {"ordinal": {"x": ["1", "1.0"]}}, ["none twice", "'x'"]),
        ("x,price\n1,1\n3,2\n", {"ordinal": {"x": ["1", "2"]}}, ["line 3", "'3'", "1, 2"]),
        ("x,price\n1,1\n2,2\n", {"numeric": ["x"], "categorical": ["x"]}, ["data.numeric", "data.categorical"]),
        ("x,price\n1,1\n2,2\n", {"id": "price"}, ["data.target", "data.id"]),
        ("x,price\n1,a\n2,b\n", {}, ["line 2", "'a'", "2 of 2 rows", "--data.target"]),
        ("x,price\n1,1\n2,b\n", {}, ["line 3", "'b'", "1 of 2 rows"]),
        ("x,price\n1,2024-01-01\n2,2024-01-02\n", {}, ["must be a number", "'2024-01-01'"]),
        ("x,price\n1,5\n2,5\n", {}, ["is 5 in every row"]),
        ("x,price\n1,5\n\n2,\n3,NA\n4,7\n", {}, ["missing in lines 4, 5"]),
        ("x,price\n1,5\n2,0\n3,-1\n", {}, ["lines 3, 4", "--data.target_transform none"]),
        ("x,price\n1,5\n2,inf\n", {}, ["line 3", "'inf' is infinite"]),
        ("x,price\n1,5\n2,1e999\n", {}, ["line 3", "'1e999' is infinite"]),
        ("x,price\n1,5\n2,0\n3,-1\n", {}, ["log1p (no value below 0; the score is RMSLE)", "RMSE"]),
        ("x,price\n1,5\n2,0\n3,-1\n", {"target_transform": "log1p"}, ["must be >= 0", "line 4;", "none"]),
        ("x,price\n1,5\n2,1e200\n", {"target_transform": "none"}, ["line 3", "larger unit"]),
        ("x,price\n1,5e-200\n2,1e-200\n", {"target_transform": "none"}, ["1e-150", "smaller unit"]),
        ("x,w,price\n1,1,5\n2,-2,6\n", {"weight": "w"}, ["line 3", "'w'", "a weight must be 0", "'-2'", "1 of 2"]),
        ("x,w,price\n1,,5\n2,2,6\n", {"weight": "w"}, ["line 2", "'w'", "a weight must be 0", "''"]),
        ("x,w,price\n1,many,5\n2,2,6\n", {"weight": "w"}, ["line 2", "'w'", "a weight must be 0", "'many'"]),
        ("x,w,price\n1,1,5\n2,1e300,6\n", {"weight": "w"}, ["line 3", "'w'", "1e+100", "'1e300'"]),
        ("x,w,price\n1,0,5\n2,0,6\n", {"weight": "w"}, ["'w'", "0 in every row"]),
        ("x,w,price\n1,0,5\n2,3,6\n", {"weight": "w"}, ["single data row"]),
        ("x,w,price\n1,1,5\n2,1,6\n", {"weight": "v"}, ["'v'", "data.weight", "'w'"]),
        ("x,w,price\n1,1,5\n2,1,6\n", {"weight": "w", "numeric": ["w"]}, ["'w'", "data.weight", "data.numeric"]),
        ("x,price\n1,5\n-inf,6\n", {}, ["line 3", "column 'x'", "infinite"]),
        ("x,price\n1,5\nabc,6\n2,3\n", {"numeric": ["x"]}, ["line 3", "column 'x'", "'abc' is not a number"]),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_named_with_the_repair(
    tmp_path: Path, content: str, keys: dict[str, Any], words: list[str]
) -> None:
    text = message(tmp_path, content, **keys)
    assert all(word in text for word in words), text


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    text = message(tmp_path, "x,price\n" + "".join(f"{i},{-i}\n" for i in range(1, 21)))
    assert "lines 2, 3, 4, 5, 6 and 15 more" in text


def test_a_negative_target_is_welcome_without_a_logarithm(tmp_path: Path) -> None:
    path = write(tmp_path, "x,price\n1,-5\n2,0\n")
    table = read_table(DataSettings(csv=path, target="price", target_transform="none"))
    assert table.target is not None
    assert table.target.tolist() == [-5.0, 0.0]


def test_no_file_named_is_said() -> None:
    with pytest.raises(InputError, match=r"--data\.csv"):
        read_table(DataSettings(target="price"))


def test_more_columns_than_rows_are_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c,price\n1,3,4,1\n2,4,5,2\n")
    assert "more feature columns (3) than rows (2)" in read_table(DataSettings(csv=path, target="price")).warnings[0]


def test_names_that_are_formulas_or_html_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path, '=1+1,<b>x</b>,"a\nb",price\n1,3,4,1\n2,4,5,2\n')
    table = read_table(DataSettings(csv=path, target="price"))
    assert list(table.features.columns) == ["=1+1", "<b>x</b>", "a\nb"]


def trained(folder: Path) -> Table:
    content = "key,x,c,d,price\n" + "".join(f"{i},{i},{'ab'[i % 2]},2024-01-0{i + 1},{i + 1}\n" for i in range(5))
    return read_table(DataSettings(csv=write(folder, content), target="price", id="key"))


def test_rows_without_some_columns_are_filled_and_further_columns_ignored_with_one_warning_each(
    tmp_path: Path,
) -> None:
    schema = trained(tmp_path).schema
    chunks = list(read_rows(write(tmp_path, "extra,x\n1,2\n1,3\n1,4\n", "new.csv"), schema, 2))
    assert [len(chunk.warnings) for chunk in chunks] == [2, 0]
    assert "'c', 'd'" in chunks[0].warnings[0]
    assert "'extra'" in chunks[0].warnings[1]
    assert chunks[0].ids is None
    assert chunks[0].features["c"].tolist() == [None, None]
    assert chunks[0].features["x"].tolist() == [2.0, 3.0]
    assert np.isnan(chunks[0].features["d"]).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x,c,d\n1,a,\nabc,b,\n", ["line 3", "column 'x'", "'abc' is not a number"]),
        ("x,c,d\n1,a,\n1.5.2,b,\n", ["line 3", "'1.5.2'"]),
        ("x,c,d\n1,a,yesterday\n", ["line 2", "column 'd'", "a date like 2024-12-31"]),
        ("x,c,d\n1,a,\ninf,b,\n", ["line 3", "infinite"]),
        ("x,c,d\n", ["no data row"]),
        ("", ["is empty"]),
        ("x,c,d\n1,2\n", ["line 2", "2 cells"]),
        ("x,x\n1,2\n", ["'x'"]),
        ("q,r\n1,2\n", ["none of the 3 feature columns", "'q', 'r'"]),
    ],
)
def test_rows_that_cannot_be_predicted_on_are_named(tmp_path: Path, content: str, words: list[str]) -> None:
    schema = trained(tmp_path).schema
    with pytest.raises(InputError) as caught:
        list(read_rows(write(tmp_path, content, "new.csv"), schema, 1))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_bad_header_is_refused_before_the_first_row_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_rows(write(tmp_path, "q\n1\n", "new.csv"), trained(tmp_path).schema)
    with pytest.raises(InputError, match="chunk_rows"):
        read_rows(write(tmp_path, "x\n1\n", "new.csv"), trained(tmp_path).schema, 0)


def test_formatted_numbers_to_predict_on_are_read_with_one_warning_per_column(tmp_path: Path) -> None:
    schema = trained(tmp_path).schema
    content = 'x,c,d\n" 12 ",a,\n1e3,a,\n"1,234",a,\n"$1,200",a,\n'
    chunks = list(read_rows(write(tmp_path, content, "new.csv"), schema, 1))
    assert [chunk.features["x"].iloc[0] for chunk in chunks] == [12.0, 1000.0, 1234.0, 1200.0]
    assert [len(chunk.warnings) for chunk in chunks] == [0, 0, 1, 0]


@pytest.mark.parametrize("source", ["houses", "small"])
def test_a_schema_survives_json(tmp_path: Path, source: str) -> None:
    schema = read_table(HOUSES).schema if source == "houses" else trained(tmp_path).schema
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_a_schema_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    state = trained(tmp_path).schema.to_dict()
    state["columns"][0]["kind"] = "colour"
    with pytest.raises(InputError, match="colour"):
        Schema.from_dict(state)


hostile_cells = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["1", "2.5", "-3", "", "NA", "nan", "inf", "1,5", "1.234,5", "$7", "2024-01-01", '"', "a\nb", ";"]),
    st.floats().map(repr),
    st.integers().map(str),
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(hostile_cells, max_size=5), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    st.booleans(),
    st.booleans(),
)
def test_any_table_is_read_or_refused_with_one_sentence(
    tmp_path: Path, rows: list[list[str]], delimiter: str, encoding: str, is_quoted: bool, is_square: bool
) -> None:
    def line(cells: list[str]) -> str:
        shown = ['"' + cell.replace('"', '""') + '"' for cell in cells] if is_quoted else cells
        return delimiter.join(shown)

    if is_square:
        fill = ["1", "x", "2"]
        rows = [["a", "b", "c", "price"], *([*(row + fill)[:3], str(i)] for i, row in enumerate(rows))]
    path = tmp_path / "hostile.csv"
    path.write_bytes("\n".join(map(line, rows)).encode(encoding, errors="replace"))
    keys = DataSettings(csv=str(path), target="price", target_transform="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal, table = None, None
        try:
            table = read_table(keys)
        except InputError as error:
            refusal = str(error)
        if table is None:
            assert "\n" not in (refusal or "\n")
            return
        assert table.target is not None
        assert np.isfinite(table.target).all()
        (again,) = read_rows(str(path), table.schema)
    pd.testing.assert_frame_equal(again.features, table.features)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bytes.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(DataSettings(csv=str(path), target="price"))
    assert "\n" not in str(caught.value)


def test_weights_are_no_feature_and_rows_of_weight_0_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,w,y,k\n1,2,5,a\n2,0,,b\n3,0.5,7,c\n4,1,8,d\n5,0,9,e\n")
    table = read_table(DataSettings(str(path), "y", id="k", weight="w"))
    assert table.features["x"].tolist() == [1, 3, 4]
    assert table.target is not None
    assert table.ids is not None
    assert (table.target.tolist(), table.ids.tolist()) == ([5, 7, 8], ["a", "c", "d"])
    assert table.layout.weights is not None
    assert table.layout.weights.tolist() == [2, 0.5, 1]
    assert "w" in table.schema.dropped
    assert any("from 0.5 to 2; 2 of 5 rows have weight 0 and are left out" in text for text in table.warnings)


@pytest.mark.parametrize("weight", ["1", "0.1", "3"])
def test_equal_weights_are_none(tmp_path: Path, weight: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,w,y\n" + "".join(f"{i},{weight},{i + 1}\n" for i in range(6)))
    table = read_table(DataSettings(str(path), "y", weight="w"))
    assert table.layout.is_plain
    assert list(table.features) == ["x"]


def test_whole_weights_are_numbers_of_copies_unless_they_are_large() -> None:
    assert RowLayout(3, weights=np.array([1.0, 3.0, 2.0])).repeated(np.array([1, 2])).tolist() == [1, 1, 1, 2, 2]
    for weights in ([1.0, 1.5, 2.0], [100.0, 1.0, 2.0]):
        assert RowLayout(3, weights=np.array(weights)).repeated(np.array([1, 2])).tolist() == [1, 2]
