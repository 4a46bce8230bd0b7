"""Preprocessing against scikit-learn's own pipelines, by value; nothing outside the training rows is looked at."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from actlab.data.columns import Column, Schema
from actlab.data.preprocessing import FAR_OUT, NumberRule, Preprocessor, fit_preprocessor
from actlab.data.table import MAX_CATEGORIES, read_table
from actlab.settings import DataSettings, Scaling

HOUSES = DataSettings(
    csv=str(Path(__file__).parents[1] / "data" / "house_prices" / "train.csv"),
    target="SalePrice",
    ordinal={"ExterQual": ["Po", "Fa", "TA", "Gd", "Ex"], "BsmtQual": ["Po", "Fa", "TA", "Gd", "Ex"]},
)
PLAIN = DataSettings(log_skewed=False, smooth_clip=False)
SCALERS = {"robust": RobustScaler, "standard": StandardScaler, "minmax": MinMaxScaler}


def numeric(**columns: list[float]) -> tuple[pd.DataFrame, Schema]:
    frame = pd.DataFrame(columns, dtype=np.float64)
    return frame, Schema(tuple(Column(name, "numeric") for name in columns), None, None, ("",))


def texts(cells: list[str | None], **keys: Any) -> tuple[pd.DataFrame, Schema]:
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object)})
    return frame, Schema((Column("x", **{"kind": "categorical", **keys}),), None, None, ("",))


def fitted(table: tuple[pd.DataFrame, Schema], keys: DataSettings = PLAIN, n_rows: int | None = None) -> Preprocessor:
    frame, schema = table
    return fit_preprocessor(frame, schema, np.arange(len(frame) if n_rows is None else n_rows), keys)


def smooth(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(1 + (x / 3) ** 2)


@pytest.mark.parametrize("scaling", ["robust", "standard", "minmax"])
@pytest.mark.parametrize("is_smooth", [True, False])
@pytest.mark.parametrize("is_log", [True, False])
def test_numbers_of_house_prices_equal_a_scikit_learn_pipeline(scaling: Scaling, is_smooth: bool, is_log: bool) -> None:
    keys = DataSettings(csv=HOUSES.csv, target="SalePrice", scaling=scaling, smooth_clip=is_smooth, log_skewed=is_log)
    table = read_table(keys)
    rows = np.random.default_rng(0).permutation(table.n_rows)[:1000]
    preprocessor = fit_preprocessor(table.features, table.schema, rows, keys)
    got = pd.DataFrame(preprocessor.transform(table.features), columns=list(preprocessor.feature_names))
    n_logs = 0
    for name in (column.name for column in table.schema.columns if column.kind == "numeric"):
        x = table.features[[name]].to_numpy()
        is_skewed = is_log and table.features[name].iloc[rows].skew() > 1 and np.nanmin(x[rows]) >= 0
        n_logs += is_skewed
        log = FunctionTransformer(np.log1p if is_skewed else None)
        scaler = SCALERS[scaling]()
        if scaling == "robust" and np.ptp(np.nanquantile(x[rows], [0.25, 0.75])) == 0:
            median, low, high = (f(log.fit_transform(x[rows])) for f in (np.nanmedian, np.nanmin, np.nanmax))
            scaler = FunctionTransformer(lambda v, m=median, r=high - low: (v - m) * 2 / r)
        expected = make_pipeline(log, scaler, SimpleImputer(strategy="median")).fit(x[rows]).transform(x)[:, 0]
        if scaling == "minmax":
            expected = np.clip(expected, -0.5, 1.5)
        elif is_smooth:
            expected = smooth(expected)
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
        if np.isnan(x[rows]).any():
            np.testing.assert_array_equal(got[f"{name} (missing)"], np.isnan(x[:, 0]))
        else:
            assert f"{name} (missing)" not in got
    assert n_logs > 5 or not is_log


def test_categories_of_house_prices_equal_scikit_learns_one_hot_encoding() -> None:
    table = read_table(DataSettings(csv=HOUSES.csv, target="SalePrice"))
    rows = np.random.default_rng(1).permutation(table.n_rows)[:700]
    preprocessor = fit_preprocessor(table.features, table.schema, rows, HOUSES)
    got = pd.DataFrame(preprocessor.transform(table.features), columns=list(preprocessor.feature_names))
    n_unseen = 0
    for name in (column.name for column in table.schema.columns if column.kind == "categorical"):
        cells = table.features[[name]].fillna("(missing)")
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(cells.iloc[rows].to_numpy())
        expected = encoder.transform(cells.to_numpy())
        columns = [f"{name}={text}" for text in encoder.categories_[0]]
        np.testing.assert_array_equal(got[columns].to_numpy(), expected, err_msg=name)
        assert columns == sorted(feature for feature in got if feature.startswith(f"{name}="))
        n_unseen += (expected.sum(axis=1) == 0).sum()
    assert n_unseen > 0


def test_ordered_categories_equal_their_ranks_scaled_like_numbers() -> None:
    table = read_table(HOUSES)
    rows = np.arange(500)
    preprocessor = fit_preprocessor(table.features, table.schema, rows, HOUSES)
    got = pd.DataFrame(preprocessor.transform(table.features), columns=list(preprocessor.feature_names))
    for name in ("ExterQual", "BsmtQual"):
        ranks = table.features[name].map({text: i for i, text in enumerate(HOUSES.ordinal[name])})
        x = ranks.to_numpy(np.float64)[:, None]
        pipeline = make_pipeline(RobustScaler(), SimpleImputer(strategy="median")).fit(x[rows])
        np.testing.assert_allclose(got[name], smooth(pipeline.transform(x)[:, 0]), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(got["BsmtQual (missing)"], table.features["BsmtQual"].isna())


def test_rows_outside_the_training_rows_change_no_number() -> None:
    table = read_table(HOUSES)
    rows = np.random.default_rng(2).permutation(table.n_rows)[:800]
    altered = table.features.copy()
    others = np.setdiff1d(np.arange(table.n_rows), rows)
    for column in table.schema.columns:
        altered.loc[others, column.name] = -1e6 if column.kind == "numeric" else "never seen"
        altered.loc[others[:5], column.name] = np.nan if column.kind == "numeric" else None
    before = fit_preprocessor(table.features, table.schema, rows, HOUSES)
    assert fit_preprocessor(altered, table.schema, rows, HOUSES) == before
    np.testing.assert_array_equal(before.transform(altered)[rows], before.transform(table.features)[rows])


def test_the_order_of_the_training_rows_changes_no_number() -> None:
    table = read_table(HOUSES)
    rows = np.arange(400)
    one = fit_preprocessor(table.features, table.schema, rows, HOUSES).transform(table.features)
    two = fit_preprocessor(table.features, table.schema, rows[::-1], HOUSES).transform(table.features)
    np.testing.assert_allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["robust", "standard", "minmax"])
def test_a_preprocessor_survives_json_by_value(scaling: Scaling) -> None:
    keys = DataSettings(csv=HOUSES.csv, target="SalePrice", scaling=scaling, ordinal=HOUSES.ordinal)
    table = read_table(keys)
    preprocessor = fit_preprocessor(table.features, table.schema, np.arange(900), keys)
    again = Preprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict())))
    assert again == preprocessor
    assert again.feature_names == preprocessor.feature_names
    np.testing.assert_array_equal(again.transform(table.features), preprocessor.transform(table.features))


def test_the_inputs_are_a_plain_float32_matrix_of_as_many_columns_as_names() -> None:
    table = read_table(HOUSES)
    preprocessor = fit_preprocessor(table.features, table.schema, np.arange(100), HOUSES)
    x = preprocessor.transform(table.features)
    assert x.dtype == np.float32
    assert x.flags["C_CONTIGUOUS"]
    assert x.shape == (table.n_rows, preprocessor.n_features) == (1460, len(preprocessor.feature_names))


def test_blocks_of_rows_are_transformed_like_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_table(HOUSES)
    preprocessor = fit_preprocessor(table.features, table.schema, np.arange(1000), HOUSES)
    expected = preprocessor.transform(table.features)
    monkeypatch.setattr("actlab.data.preprocessing.BLOCK_ROWS", 7)
    np.testing.assert_array_equal(preprocessor.transform(table.features), expected)


def test_blocks_of_columns_are_fitted_like_all_columns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    columns = rng.lognormal(size=(6, 90)) * np.where(rng.random((6, 90)) < 0.2, np.nan, 1.0)
    table = numeric(**{f"c{i}": column.tolist() for i, column in enumerate(columns)})
    whole = fitted(table, DataSettings())
    monkeypatch.setattr("actlab.data.preprocessing.BLOCK_NUMBERS", 2 * 90)
    assert fitted(table, DataSettings()) == whole


def test_half_the_range_replaces_quartiles_that_coincide() -> None:
    x = [0.0] * 8 + [4.0, -1.0]
    np.testing.assert_allclose(fitted(numeric(x=x)).transform(numeric(x=x)[0])[:, 0], np.array(x) * 2 / 5)


@pytest.mark.parametrize("scaling", ["robust", "standard", "minmax"])
def test_a_column_that_is_constant_in_the_training_rows_is_zero_everywhere(scaling: Scaling) -> None:
    table = numeric(x=[3.0, 3.0, 3.0, 100.0, np.nan], y=[np.nan, np.nan, np.nan, 7.0, np.nan])
    preprocessor = fitted(table, DataSettings(scaling=scaling), n_rows=3)
    assert preprocessor.feature_names == ("x", "y")
    np.testing.assert_array_equal(preprocessor.transform(table[0]), np.zeros((5, 2)))


def test_only_heavily_skewed_non_negative_numbers_are_logged() -> None:
    rng = np.random.default_rng(0)
    skewed = rng.lognormal(0, 1.5, 200)
    table = numeric(skewed=skewed, negative=skewed - 1, even=rng.uniform(0, 1, 200), left=-skewed + skewed.max())
    rules = [rule for rule in fitted(table, DataSettings()).rules if isinstance(rule, NumberRule)]
    assert [rule.is_log for rule in rules] == [True, False, False, False]


def test_a_negative_number_counts_as_zero_under_a_log() -> None:
    table = numeric(x=list(np.random.default_rng(0).lognormal(0, 1.5, 200)))
    preprocessor = fitted(table, DataSettings())
    x = preprocessor.transform(numeric(x=[-5.0, -0.5, 0.0])[0])[:, 0]
    assert x[0] == x[1] == x[2]


def test_too_many_categories_share_one_column_as_in_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    cells = [f"c{i:04d}" for i in range(1000) for _ in range(1 + i % 7)]
    rng.shuffle(cells)
    preprocessor = fitted(texts([*cells, None]))
    assert preprocessor.n_features == MAX_CATEGORIES + 2
    assert preprocessor.feature_names[-2:] == ("x=(missing)", "x=(other)")
    x = preprocessor.transform(texts([*cells, "new", None])[0])
    np.testing.assert_array_equal(x.sum(axis=1), 1)
    assert x[-2, -1] == x[-1, -2] == 1
    encoder = OneHotEncoder(
        max_categories=MAX_CATEGORIES + 1, handle_unknown="infrequent_if_exist", sparse_output=False
    ).fit(np.array(cells)[:, None])
    expected = encoder.transform(np.array([*cells, "new"])[:, None])
    np.testing.assert_array_equal(np.delete(x, MAX_CATEGORIES, axis=1)[:-1], expected)
    assert preprocessor.unseen(texts(["new"])[0]) == {}


def test_as_many_categories_as_the_limit_share_nothing() -> None:
    assert fitted(texts([f"c{i}" for i in range(MAX_CATEGORIES)])).n_features == MAX_CATEGORIES


def test_what_was_never_seen_is_zeros_and_reported() -> None:
    preprocessor = fitted(texts(["a", "b", "a"]))
    new = texts(["b", "z", None, "y", "z"])[0]
    np.testing.assert_array_equal(preprocessor.transform(new), [[0, 1], [0, 0], [0, 0], [0, 0], [0, 0]])
    assert preprocessor.unseen(new) == {"x": ["y", "z"]}
    assert preprocessor.unseen(texts(["a", None])[0]) == {}


def test_an_unknown_rank_is_missing_and_reported() -> None:
    order = {"kind": "ordinal", "categories": ("lo", "mid", "hi")}
    preprocessor = fitted(texts(["lo", "mid", "hi", "mid", None], **order))
    x = preprocessor.transform(texts(["mid", "??", None, "hi"], **order)[0])
    np.testing.assert_array_equal(x[:, 1], [0, 1, 1, 0])
    assert x[0, 0] == x[1, 0] == x[2, 0] == 0 < x[3, 0]
    assert preprocessor.unseen(texts(["??", "lo"], **order)[0]) == {"x": ["??"]}


def test_a_column_wholly_missing_in_the_training_rows_has_one_input() -> None:
    table = texts([None, None, "a"])
    preprocessor = fitted(table, n_rows=2)
    np.testing.assert_array_equal(preprocessor.transform(table[0]), [[1], [1], [0]])


def test_no_training_row_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="at least one training row"):
        fitted(numeric(x=[1.0, 2.0]), n_rows=0)


extreme = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 1e-310, np.nan, np.inf, -np.inf, 1e90, 1e-200]),
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(extreme, min_size=1, max_size=12),
    st.lists(extreme, max_size=5),
    st.sampled_from(["robust", "standard", "minmax"]),
    st.booleans(),
    st.booleans(),
)
def test_inputs_are_finite_and_bounded_whatever_the_cells_hold(
    train: list[float], new: list[float], scaling: Scaling, is_smooth: bool, is_log: bool
) -> None:
    keys = DataSettings(scaling=scaling, smooth_clip=is_smooth, log_skewed=is_log)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocessor = fitted(numeric(x=train), keys)
        x = preprocessor.transform(numeric(x=[*train, *new])[0])
    assert np.isfinite(x).all()
    bound = 1.5 if scaling == "minmax" else 3.0 if is_smooth else FAR_OUT
    assert np.abs(x).max() <= bound


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=12),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=5),
)
def test_every_category_has_one_input_or_none(train: list[str | None], new: list[str | None]) -> None:
    preprocessor = fitted(texts(train))
    x = preprocessor.transform(texts([*train, *new])[0])
    np.testing.assert_array_equal(x[: len(train)].sum(axis=1), 1)
    np.testing.assert_array_equal(x[len(train) :].sum(axis=1), [cell in train for cell in new])
    assert set(preprocessor.unseen(texts(new)[0]).get("x", [])) == {c for c in new if c is not None and c not in train}
