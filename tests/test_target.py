"""The scale trained on: standardised and back, finite, and what it is called."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from actlab.data.target import LOG, PLAIN, TARGETS, Target, TargetScaler, fit_target


@pytest.mark.parametrize("transform", ["log", "none"])
def test_the_target_is_standardised_on_training_rows_and_comes_back(transform: Any) -> None:
    y = np.random.default_rng(0).lognormal(12, 0.4, 300)
    rows = np.arange(0, 300, 2)
    scaler = fit_target(y, rows, transform)
    plain = np.log(y) if transform == "log" else y
    expected = StandardScaler().fit(plain[rows, None]).transform(plain[:, None])[:, 0]
    np.testing.assert_allclose(scaler.forward(y), expected, rtol=1e-12)
    np.testing.assert_allclose(scaler.inverse(scaler.forward(y)), y, rtol=1e-12)
    np.testing.assert_allclose(scaler.inverse(scaler.forward(y).reshape(3, 100)), y.reshape(3, 100), rtol=1e-12)
    assert fit_target(np.where(np.isin(np.arange(300), rows), y, 1e9), rows, transform) == scaler
    assert TargetScaler.from_dict(json.loads(json.dumps(scaler.to_dict()))) == scaler


@pytest.mark.parametrize("value", [1.0, 180_921.19589, 1e-30, 1e15])
@pytest.mark.parametrize("transform", ["log", "none"])
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


def test_a_diverged_output_stays_visible() -> None:
    for transform in ("log", "none"):
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
    unknown = Target.of_metric("mae")
    assert (unknown.metric, unknown.metric_name, unknown.unit, unknown.is_log) == ("mae", "mae", "mae", False)
