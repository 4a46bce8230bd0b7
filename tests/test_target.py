"""The scale trained on: standardised and back, finite, and what it is called."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from actlab.data.target import LOG, LOG1P, PLAIN, TARGETS, Target, TargetScaler, fit_target


@pytest.mark.parametrize("transform", ["log", "log1p", "none"])
def test_the_target_is_standardised_on_training_rows_and_comes_back(transform: Any) -> None:
    y = np.random.default_rng(0).lognormal(12, 0.4, 300)
    rows = np.arange(0, 300, 2)
    scaler = fit_target(y, rows, transform)
    plain = {"log": np.log, "log1p": np.log1p, "none": np.asarray}[transform](y)
    expected = StandardScaler().fit(plain[rows, None]).transform(plain[:, None])[:, 0]
    np.testing.assert_allclose(scaler.forward(y), expected, rtol=1e-12)
    np.testing.assert_allclose(scaler.inverse(scaler.forward(y)), y, rtol=1e-12)
    np.testing.assert_allclose(scaler.inverse(scaler.forward(y).reshape(3, 100)), y.reshape(3, 100), rtol=1e-12)
    assert fit_target(np.where(np.isin(np.arange(300), rows), y, 1e9), rows, transform) == scaler
    assert TargetScaler.from_dict(json.loads(json.dumps(scaler.to_dict()))) == scaler


@pytest.mark.parametrize("value", [1.0, 180_921.19589, 1e-30, 1e15])
@pytest.mark.parametrize("transform", ["log", "log1p", "none"])
def test_a_constant_target_is_not_divided_by_zero(value: float, transform: Any) -> None:
    y = np.full(7, value)
    scaler = fit_target(y, np.arange(7), transform)
    assert scaler.sd == 1
    np.testing.assert_allclose(scaler.inverse(scaler.forward(y)), y, rtol=1e-12)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_finite_output_is_a_finite_positive_price(z: float) -> None:
    price = TargetScaler(12.0, 0.4, LOG).inverse(np.array([z]))
    assert np.isfinite(price).all()
    assert (price > 0).all()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_finite_output_is_a_negative_count(z: float) -> None:
    scaler = TargetScaler(1.5, 0.7, LOG1P)
    count = scaler.inverse(np.array([z]))
    assert np.isfinite(count).all()
    assert (count >= 0).all()
    # bounded where it is averaged and scored, too
    assert scaler.value([z, scaler.least - 1.0]).min() == 0
    assert scaler.value([z])[0] == pytest.approx(max(z * 0.7 + 1.5, 0), rel=1e-12)


def test_a_diverged_output_stays_visible() -> None:
    for transform in ("log", "log1p", "none"):
        out = TargetScaler.from_dict({"mean": 12.0, "sd": 0.4, "transform": transform}).inverse(
            np.array([np.nan, np.inf])
        )
        assert np.isnan(out[0])
        assert np.isinf(out[1])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.transform)
def test_a_prediction_and_its_residual_belong_together(target: Target) -> None:
    actual, predicted = np.array([2.0, 3.0, 1e6]), np.array([1.0, 4.0, 1e5])
    residual = target.residual(actual, predicted)
    np.testing.assert_allclose(residual, target.forward(actual) - target.forward(predicted), rtol=1e-12)
    np.testing.assert_allclose(target.predicted(actual, residual), predicted, rtol=1e-12)


def test_a_target_is_found_by_the_setting_and_by_the_metric() -> None:
    assert Target.of("log") is LOG
    assert Target.of_metric("rmse") is PLAIN
    assert (Target.of("log1p"), Target.of_metric("rmsle").metric_name) == (LOG1P, "RMSLE")
    unknown = Target.of_metric("mae")
    assert (unknown.metric, unknown.metric_name, unknown.unit, unknown.is_log) == ("mae", "mae", "mae", False)


def test_what_a_target_may_be() -> None:
    y = np.array([-1.0, -1e-300, 0.0, 1e-300, 3.0, 1e200])
    usable = {target.transform: target.is_usable(y).tolist() for target in TARGETS}
    assert usable["log"] == [False, False, False, True, True, True]
    assert usable["log1p"] == [False, False, True, True, True, True]
    assert usable["none"] == [True, True, True, True, True, False]


def test_a_count_of_zero_and_its_prediction() -> None:
    actual, predicted = np.array([0.0, 0.0, 9.0]), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(LOG1P.residual(actual, predicted), [0, -np.log(2), np.log(10)], rtol=1e-12)
    # a mean of networks below zero is no count
    np.testing.assert_allclose(LOG1P.predicted(np.array([1.0, 0.0]), np.array([5.0, -np.log(4)])), [0, 3], rtol=1e-12)
    assert LOG1P.inverse(1e-12) == pytest.approx(1e-12, rel=1e-12)


@given(st.integers(-400, 400), st.integers(0, 2**32 - 1))
def test_a_power_of_two_of_a_plain_target_changes_no_bit(power: int, seed: int) -> None:
    y = np.random.default_rng(seed).normal(3, 2, 40)
    unit, rows = 2.0**power, np.arange(0, 40, 2)
    scaler, scaled = fit_target(y, rows, "none"), fit_target(y * unit, rows, "none")
    assert scaled.forward(y * unit).tobytes() == scaler.forward(y).tobytes()
    assert (scaled.mean, scaled.sd) == (scaler.mean * unit, scaler.sd * unit)


@given(st.integers(-140, 140), st.floats(-1e9, 1e9), st.integers(0, 2**32 - 1))
def test_a_power_of_ten_and_an_offset_leave_the_scaled_plain_target(power: int, offset: float, seed: int) -> None:
    y = np.random.default_rng(seed).normal(3, 2, 40)
    rows = np.arange(0, 40, 2)
    for other in (y * 10.0**power, y + offset):
        scaled = fit_target(other, rows, "none").forward(other)
        np.testing.assert_allclose(scaled, fit_target(y, rows, "none").forward(y), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("transform", ["log", "log1p", "none"])
def test_a_weight_counts_as_so_many_rows(transform: Any) -> None:
    generator = np.random.default_rng(3)
    y, counts = generator.lognormal(0, 1, 30), generator.integers(1, 5, 30)
    rows = np.arange(20)
    weighted = fit_target(y, rows, transform, counts.astype(float))
    repeated = fit_target(np.repeat(y, counts), np.arange(counts[:20].sum()), transform)
    assert (weighted.mean, weighted.sd) == pytest.approx((repeated.mean, repeated.sd), rel=1e-12)
