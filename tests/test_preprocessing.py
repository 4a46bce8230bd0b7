"""Preprocessing against scikit-learn's own pipelines, by value; nothing outside the training rows is looked at."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from actlab.data.columns import Column, Schema
from actlab.data.preprocessing import (
    FAR_OUT,
    CategoryRule,
    DateRule,
    NumberRule,
    Preprocessor,
    TargetRule,
    fit_and_transform,
    fit_preprocessor,
)
from actlab.data.table import read_table
from actlab.errors import InputError
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


def unit(positive: np.ndarray) -> float:
    """Of the logarithm of a skewed column, from its positive training values."""
    return float(np.quantile(positive, 0.01))


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
        scale = unit(x[rows][x[rows] > 0])
        log = FunctionTransformer((lambda v, s=scale: np.log1p(v / s)) if is_skewed else None)
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


def test_as_many_categories_as_the_limit_have_an_input_each() -> None:
    assert fitted(texts([f"c{i}" for i in range(100)])).n_features == 100
    few = DataSettings(max_categories=3)
    frame, schema = texts(["a", "a", "b", "b", "c", None])
    (rule,) = fit_preprocessor(frame, schema, np.arange(6), few).rules
    assert isinstance(rule, CategoryRule)
    frame, schema = texts(["a", "a", "b", "b", "c", "d", "d", None, None])
    (rule,) = fit_preprocessor(frame, schema, np.arange(9), few, np.arange(1.0, 10.0)).rules
    assert isinstance(rule, TargetRule)


def test_a_file_of_before_has_the_most_frequent_categories_and_one_input_for_all_others() -> None:
    old = {"name": "x", "categories": ["a", "b"], "has_missing": True, "has_other": True}
    preprocessor = Preprocessor.from_dict({"rules": [old]})
    x = preprocessor.transform(texts(["b", "new", None, "a"])[0])
    np.testing.assert_array_equal(x, [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]])
    assert preprocessor.rules[0].known is None


def test_a_file_of_before_takes_the_logarithm_of_one_plus_the_cell() -> None:
    old = {
        **{"name": "x", "ranks": [], "is_log": True, "centre": 1.5, "factor": 2.0, "fill": 0.25},
        **{"low": -FAR_OUT, "high": FAR_OUT, "is_smooth": False, "has_indicator": False},
    }
    x = Preprocessor.from_dict({"rules": [old]}).transform(numeric(x=[0.0, -3.0, 7.0, np.nan])[0])
    np.testing.assert_allclose(x[:, 0], [-3, -3, (np.log(8) - 1.5) * 2, 0.25], rtol=1e-6)


def test_what_was_never_seen_is_zeros() -> None:
    preprocessor = fitted(texts(["a", "b", "a"]))
    new = texts(["b", "z", None, "y", "z"])[0]
    np.testing.assert_array_equal(preprocessor.transform(new), [[0, 1], [0, 0], [0, 0], [0, 0], [0, 0]])
    assert preprocessor.rules[0].known == ("a", "b")


def test_an_unknown_rank_is_missing() -> None:
    order = {"kind": "ordinal", "categories": ("lo", "mid", "hi")}
    preprocessor = fitted(texts(["lo", "mid", "hi", "mid", None], **order))
    x = preprocessor.transform(texts(["mid", "??", None, "hi"], **order)[0])
    np.testing.assert_array_equal(x[:, 1], [0, 1, 1, 0])
    assert x[0, 0] == x[1, 0] == x[2, 0] == 0 < x[3, 0]
    assert preprocessor.rules[0].known == ("lo", "mid", "hi")


def test_a_column_wholly_missing_in_the_training_rows_has_one_input() -> None:
    table = texts([None, None, "a"])
    preprocessor = fitted(table, n_rows=2)
    np.testing.assert_array_equal(preprocessor.transform(table[0]), [[1], [1], [0]])


def test_no_training_row_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="at least one training row"):
        fitted(numeric(x=[1.0, 2.0]), n_rows=0)


def coded(n_rows: int, n_categories: int, seed: int = 0) -> tuple[tuple[pd.DataFrame, Schema], np.ndarray]:
    """A column of codes, some of them missing, and a target to which each adds something."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_categories, n_rows)
    y = rng.normal(size=n_categories)[codes] + rng.normal(size=n_rows)
    cells = [None if rng.random() < 0.05 else f"c{code}" for code in codes]
    return texts(cells), np.exp(y)


def variance_ratio(codes: np.ndarray, y: np.ndarray) -> float:
    """Variance within over variance between groups, by the analysis of variance."""
    groups = [y[codes == code] for code in np.unique(codes)]
    n, k = len(y), len(groups)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (n - k)
    among = sum(len(group) * (group.mean() - y.mean()) ** 2 for group in groups) / (k - 1)
    size = (n - sum(len(group) ** 2 for group in groups) / n) / (k - 1)
    return float(within / ((among - within) / size))


def test_mean_targets_equal_scikit_learns_encoder() -> None:
    (frame, schema), y = coded(1200, 300)
    rows = np.random.default_rng(1).permutation(1200)[:900]
    preprocessor, inputs = fit_and_transform(frame, schema, rows, PLAIN, y)
    assert preprocessor.feature_names == ("x (mean target)",)
    training = frame["x"].iloc[rows]
    counts = training.value_counts()
    alone = set(counts.index[counts == 1])
    assert alone
    z = np.log(y[rows])
    z = (z - z.mean()) / z.std()
    # categories of one row share a value, with those never seen
    known = frame["x"].where(frame["x"].isna() | (frame["x"].map(counts).fillna(0) > 1), "other")
    cells = known.fillna("missing").to_numpy()[:, None]
    encoder = TargetEncoder(target_type="continuous", smooth=variance_ratio(cells[rows, 0], z)).fit(cells[rows], z)
    np.testing.assert_allclose(preprocessor.transform(frame), encoder.transform(cells), atol=1e-6)
    others = np.setdiff1d(np.arange(1200), rows)
    np.testing.assert_array_equal(inputs[others], preprocessor.transform(frame)[others])
    new = preprocessor.transform(texts(["never seen", min(alone)])[0])
    assert new[0] == new[1]
    assert preprocessor.rules[0].known is None
    assert Preprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict()))) == preprocessor


def test_training_rows_are_encoded_by_the_rows_of_other_parts() -> None:
    (frame, schema), y = coded(1200, 300)
    rows = np.arange(100, 1000)
    _, inputs = fit_and_transform(frame, schema, rows, PLAIN, y)
    z = np.log(y[rows])
    z = (z - z.mean()) / z.std()
    counts = frame["x"].iloc[rows].value_counts()
    known = frame["x"].iloc[rows].where(lambda cell: cell.isna() | (cell.map(counts) > 1), "other")
    cells = known.fillna("missing").to_numpy()
    parts = np.random.default_rng(0).permutation(len(rows)) % 5
    for part in range(5):
        own, rest = parts == part, parts != part
        encoder = TargetEncoder(target_type="continuous", smooth=variance_ratio(cells[rest], z[rest]))
        encoder.fit(cells[rest, None], z[rest])
        np.testing.assert_allclose(inputs[rows[own], 0], encoder.transform(cells[own, None])[:, 0], atol=1e-6)


def test_the_inputs_of_a_training_row_do_not_know_its_target() -> None:
    (frame, schema), y = coded(600, 150)
    rows = np.arange(500)
    _, inputs = fit_and_transform(frame, schema, rows, PLAIN, y)
    for row in (0, 17, 499):
        altered = y.copy()
        altered[row] *= 100
        _, others = fit_and_transform(frame, schema, rows, PLAIN, altered)
        # standardising knows it, as it does in every scaled target: undone here
        logs = [np.log(target[:500]) for target in (y, altered)]
        one, other = (x[row, 0] * z.std() + z.mean() for x, z in zip((inputs, others), logs, strict=True))
        assert one == pytest.approx(other, abs=1e-5)


def test_noise_in_many_categories_is_no_signal_in_training() -> None:
    rng = np.random.default_rng(0)
    frame, schema = texts([f"c{code}" for code in rng.integers(0, 250, 1000)])
    y = np.exp(rng.normal(size=1000))
    rows = np.arange(800)
    preprocessor, inputs = fit_and_transform(frame, schema, rows, PLAIN, y)
    z = np.log(y[rows])
    for x in (inputs, preprocessor.transform(frame)):
        # next to nothing is left of an effect that is not there
        assert np.std(x) < 0.2
    assert np.std(inputs[rows, 0]) == 0 or abs(np.corrcoef(inputs[rows, 0], z)[0, 1]) < 0.15


def test_targets_of_other_rows_change_no_encoding() -> None:
    (frame, schema), y = coded(600, 150)
    rows, altered = np.arange(0, 600, 2), y.copy()
    altered[1::2] = 1e6
    one, other = (fit_and_transform(frame, schema, rows, PLAIN, target) for target in (y, altered))
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])


def test_without_a_target_there_is_no_mean_of_it() -> None:
    with pytest.raises(ValueError, match="encoded by the target"):
        fitted(texts([f"c{i}" for i in range(101)]))


def dated(moments: pd.DatetimeIndex | list[str], **keys: Any) -> tuple[pd.DataFrame, Schema]:
    days = pd.to_datetime(pd.Series(moments), format="ISO8601").astype("datetime64[ns]").astype(np.int64)
    frame = pd.DataFrame({"when": days.where(days > -(2**62), np.nan) / (86_400 * 10**9)})
    return frame, Schema((Column("when", "numeric", format="date"),), None, None, ("",))


PARTS = {
    "business days": (pd.bdate_range("2015-01-01", periods=900), ["weekday", "yearday"]),
    "hours of two years": (pd.date_range("2020-01-01", periods=17_544, freq="h"), ["hour", "weekday", "yearday"]),
    "hours of a week": (pd.date_range("2020-01-01", periods=168, freq="h"), ["hour"]),
    "a year": (pd.date_range("2021-01-01", "2021-12-31"), ["weekday", "yearday"]),
    "three months": (pd.date_range("2021-01-01", "2021-03-31"), ["weekday"]),
    "a fortnight": (pd.date_range("2021-01-01", periods=14), []),
    "Mondays": (pd.date_range("2018-01-01", periods=200, freq="7D"), ["yearday"]),
    "first days of months": (pd.date_range("2000-01-01", periods=240, freq="MS"), ["yearday"]),
    "last days of months": (pd.date_range("2000-01-31", periods=240, freq="ME"), ["yearday"]),
    "ends of quarters": (pd.date_range("1990-03-31", periods=80, freq="QE"), ["yearday"]),
    "first days of years": (pd.date_range("1950-01-01", periods=70, freq="YS"), []),
    "last days of years": (pd.date_range("1950-12-31", periods=70, freq="YE"), []),
    "one day": (pd.DatetimeIndex(["2020-02-02"] * 3), []),
    "before 1970": (pd.date_range("1890-01-01", periods=4000, freq="31h"), ["hour", "weekday", "yearday"]),
}


@pytest.mark.parametrize("title", PARTS)
def test_dates_give_the_parts_of_the_calendar_in_which_they_differ(title: str) -> None:
    moments, expected = PARTS[title]
    preprocessor = fitted(dated(moments))
    (rule,) = preprocessor.rules
    assert isinstance(rule, DateRule)
    assert rule.has_days
    assert list(rule.parts) == expected
    x = preprocessor.transform(dated(moments)[0])
    assert list(preprocessor.feature_names) == [
        "when",
        *(f"when ({part}, {side})" for part in expected for side in ("sin", "cos")),
    ]
    parts = {
        "hour": (moments.hour + moments.minute / 60) / 24,
        # Thursday, 1 January 1970, is where the cycle starts
        "weekday": (moments.day_of_week - 3) / 7,
        "yearday": (moments - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=365.2425),
    }
    for place, part in enumerate(expected):
        angle = 2 * np.pi * np.asarray(parts[part], dtype=np.float64)
        np.testing.assert_allclose(x[:, 1 + 2 * place], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(x[:, 2 + 2 * place], np.cos(angle), atol=1e-6)


def test_a_temperature_of_each_hour_is_linear_in_the_parts_of_the_calendar() -> None:
    moments = pd.date_range("2022-01-01", periods=17_520, freq="h")
    season = 2 * np.pi * np.asarray(moments.day_of_year) / 365
    y = 20 - 12 * np.cos(season - 0.3) - 5 * np.cos(2 * np.pi * np.asarray(moments.hour) / 24 - 0.6)
    rows = np.random.default_rng(0).permutation(len(y))[:1500]
    left = []
    for keys in (DataSettings(dates={"when": ["days"]}), DataSettings()):
        x = fitted(dated(moments), keys).transform(dated(moments)[0]).astype(np.float64)
        x = np.column_stack([np.ones(len(y)), x])
        error = y - x @ np.linalg.lstsq(x[rows], y[rows])[0]
        left.append(np.std(error) / np.std(y))
    assert left[0] > 0.9
    assert left[1] < 0.02


def test_days_are_scaled_like_any_other_number_and_never_logged() -> None:
    rng = np.random.default_rng(0)
    moments = pd.Timestamp("1980-01-01") + pd.to_timedelta(np.floor(rng.lognormal(5, 1.5, 500)), unit="D")
    table = dated(pd.DatetimeIndex(moments))
    x = fitted(table, DataSettings()).transform(table[0])[:, 0]
    np.testing.assert_allclose(x, smooth(RobustScaler().fit_transform(table[0])[:, 0]), rtol=1e-5, atol=1e-6)


def test_the_calendar_goes_round_as_the_year_does() -> None:
    moments = pd.date_range("2001-01-01", "2024-12-31")
    x = fitted(dated(moments)).transform(dated(moments)[0])
    angle = 2 * np.pi * (moments.day_of_year - 1) / (365 + moments.is_leap_year)
    start = np.angle(np.mean(np.exp(1j * (np.arctan2(x[:, 3], x[:, 4]) - angle))))
    off = np.abs(np.exp(1j * (np.arctan2(x[:, 3], x[:, 4]) - angle - start)) - 1)
    assert off.max() < 2 * np.pi * 1.5 / 365


def test_a_missing_date_has_an_indicator_and_no_place_in_the_calendar() -> None:
    moments = [str(day) for day in pd.date_range("2020-01-01", periods=800)]
    moments[3] = "NaT"
    x = fitted(dated(moments)).transform(dated(moments)[0])
    np.testing.assert_array_equal(x[3], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(np.delete(x[:, 1], 3), 0)


@pytest.mark.parametrize("key", ["when", "*"])
def test_parts_are_those_that_are_asked_for(key: str) -> None:
    table = dated(pd.date_range("2020-01-01", periods=800))
    whole = fitted(table).transform(table[0])
    for parts, places in ((["days"], [0]), (["yearday", "days"], [0, 3, 4]), (["weekday"], [1, 2])):
        preprocessor = fitted(table, DataSettings(log_skewed=False, smooth_clip=False, dates={key: parts}))
        np.testing.assert_array_equal(preprocessor.transform(table[0]), whole[:, places])
        assert Preprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict()))) == preprocessor


def test_parts_of_what_is_no_date_are_refused() -> None:
    frame, schema = numeric(x=[1.0, 2.0])
    with pytest.raises(InputError, match="'x', which is no feature read as dates; there is none"):
        fit_preprocessor(frame, schema, np.arange(2), DataSettings(dates={"x": ["days"]}))
    frame, schema = dated(["2020-01-01", "2020-01-02"])
    with pytest.raises(InputError, match=r"'y', which .* the columns of dates are 'when'"):
        fit_preprocessor(frame, schema, np.arange(2), DataSettings(dates={"y": ["days"]}))
    for wrong in ([], ["month"]):
        with pytest.raises(InputError, match=r"data.dates.when must be a list of some of days, hour, weekday, yearday"):
            DataSettings(dates={"when": wrong})  # type: ignore[dict-item]


cells = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)) | st.just(np.nan), min_size=3, max_size=20)


@settings(deadline=None, max_examples=200)
@given(cells, st.integers(-900, 900), st.sampled_from(["robust", "standard", "minmax"]), st.booleans(), st.booleans())
def test_a_power_of_two_changes_no_bit(
    x: list[float], power: int, scaling: Scaling, is_smooth: bool, is_positive: bool
) -> None:
    keys = DataSettings(scaling=scaling, smooth_clip=is_smooth)
    column = np.abs(x) if is_positive else np.array(x)
    one, other = numeric(x=column), numeric(x=np.ldexp(column, power))
    n_rows = len(column) - 1
    expected = fitted(one, keys, n_rows).transform(one[0])
    np.testing.assert_array_equal(fitted(other, keys, n_rows).transform(other[0]), expected)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.integers(-250, 250), st.sampled_from(["robust", "standard", "minmax"]))
def test_a_power_of_ten_changes_next_to_nothing(seed: int, power: int, scaling: Scaling) -> None:
    rng = np.random.default_rng(seed)
    kinds = (rng.lognormal(0, 1.5, 60), rng.normal(5, 2, 60), rng.gamma(0.5, 1, 60) * (rng.random(60) < 0.5))
    x = np.stack([np.where(rng.random(60) < 0.1, np.nan, kind) for kind in kinds], axis=1)
    keys = DataSettings(scaling=scaling)
    one, other = (numeric(a=y[:, 0], b=y[:, 1], c=y[:, 2]) for y in (x, x * 10.0**power))
    got = fitted(other, keys, 50).transform(other[0])
    np.testing.assert_allclose(got, fitted(one, keys, 50).transform(one[0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaling", ["robust", "standard", "minmax"])
@pytest.mark.parametrize("offset", [-1.7e9, 2.0**40, 1e12])
def test_values_far_from_zero_are_told_apart(scaling: Scaling, offset: float) -> None:
    rng = np.random.default_rng(0)
    for x in (rng.integers(-(2**11), 2**11, 80) / 2**10, rng.integers(0, 2**6, 80) ** 2 / 2**10):
        one, other = numeric(x=x), numeric(x=x + offset)
        keys = DataSettings(scaling=scaling, smooth_clip=False)
        expected = fitted(one, replace(keys, log_skewed=False)).transform(one[0])
        got = fitted(other, keys).transform(other[0])
        # a mean or a median is rounded as all numbers of its size are: the same for all rows
        np.testing.assert_allclose(got - got[0], expected - expected[0], atol=2e-6)
        np.testing.assert_allclose(got, expected, atol=abs(offset) * 1e-15)


def test_quartiles_that_differ_by_rounding_coincide() -> None:
    x = [0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 1.0, -1.0]
    np.testing.assert_allclose(fitted(numeric(x=x)).transform(numeric(x=x)[0])[-2:, 0], [0.7, -1.3], rtol=1e-6)


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
    assert set(preprocessor.rules[0].known or ()) == {c for c in train if c is not None}
