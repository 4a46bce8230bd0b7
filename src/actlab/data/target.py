"""What the networks learn of the target, a logarithm of it or itself, and what that makes of scores and residuals."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actlab.settings import TargetTransform

Floats = NDArray[np.float64]

# exp() of more than this overflows float64, of less than its negative comes to (nearly) zero.
MAX_LOG = 709.0


@dataclass(frozen=True)
class Target:
    """The scale that a target is learned on; one of `TARGETS`.

    Args:
        transform: How the settings and checkpoints name it.
        metric: How files name the score, the root mean squared error on the scale trained on; people read
            `metric_name`, and `unit` at an axis.
        description: What training uses.
        shift: What is added before the logarithm is taken; None where none is.
        least, at_most: Values must not be less than the one (under `log` greater), absolute values not greater than the
            other.
        rule: What is said of a target that breaks this, before the lines where it does, and `repair` after them.
        difference: A residual, in words.
    """

    transform: TargetTransform
    metric: str
    metric_name: str
    unit: str
    description: str
    shift: float | None
    least: float
    at_most: float
    rule: str
    repair: str
    difference: str

    @classmethod
    def of(cls, transform: TargetTransform) -> "Target":
        return {target.transform: target for target in TARGETS}[transform]

    @classmethod
    def of_metric(cls, metric: str) -> "Target":
        """The target of a summary's metric; one that is not known is called what it is called there."""
        unknown = replace(PLAIN, metric=metric, metric_name=metric, unit=metric)
        return {target.metric: target for target in TARGETS}.get(metric, unknown)

    @property
    def is_log(self) -> bool:
        """Whether values are positive and compare by their ratio."""
        return self.shift == 0

    @property
    def floor(self) -> float:
        """The least value on the scale trained on that a target can have; no prediction is below."""
        return 0.0 if self.shift == 1 else -np.inf

    def forward(self, y: ArrayLike) -> Floats:
        """Return float64 values on the scale trained on, of the shape of y, whose values `is_usable`."""
        y = np.asarray(y, dtype=np.float64)
        if self.shift is None:
            return y
        return np.asarray(np.log(y) if self.is_log else np.log1p(y))

    def inverse(self, value: ArrayLike) -> Floats:
        """Return float64 values in the unit of the target, of the shape of `value`, on the scale trained on.

        Under a logarithm a finite value gives a finite one that the target could have: what would leave float64's range
        is exp(+-709), and under log(1 + y) what is below zero is zero. NaN and infinite values stay NaN, infinite or 0,
        to be counted as diverged.
        """
        value = np.asarray(value, dtype=np.float64)
        if self.shift is None:
            return value
        bounded = np.where(np.isfinite(value), np.clip(value, max(-MAX_LOG, self.floor), MAX_LOG), value)
        return np.exp(bounded) if self.is_log else np.expm1(np.maximum(bounded, self.floor))

    def residual(self, actual: Any, predicted: Any) -> Any:
        """Actual minus predicted value on the scale trained on, from arrays or series in the unit of the target."""
        if self.shift is None:
            return actual - predicted
        return np.log(actual / predicted) if self.is_log else np.log1p(actual) - np.log1p(predicted)

    def predicted(self, actual: Any, residual: Any) -> Any:
        """The prediction, in the unit of the target, that is off by `residual`."""
        if self.shift is None:
            return actual - residual
        # by the ratio, in which no digit of a large value is lost
        return actual * np.exp(-residual) if self.is_log else self.inverse(np.log1p(actual) - residual)

    def is_usable(self, y: Floats) -> NDArray[np.bool_]:
        """Whether each value can be learned, of the shape of y."""
        return (y > self.least if self.is_log else y >= self.least) & (np.abs(y) <= self.at_most)


# Squares of a plain target, and of its spread, must stay far from both ends of float64, in which scores are computed.
MAX_PLAIN_TARGET, MIN_RANGE = 1e150, 1e-150
LOG = Target(
    transform="log",
    metric="log_rmse",
    metric_name="log-RMSE",
    unit="log-RMSE (natural logarithm)",
    description="its natural logarithm",
    shift=0.0,
    least=0.0,
    at_most=np.inf,
    rule="must be > 0 to take its logarithm, but is not in",
    repair="correct these rows, or train on the logarithm of 1 + the target, as for counts, with "
    "--data.target_transform log1p (no value below 0; the score is RMSLE), or on the plain target with "
    "--data.target_transform none (RMSE)",
    difference="ln(actual / predicted)",
)
LOG1P = Target(
    transform="log1p",
    metric="rmsle",
    metric_name="RMSLE",
    unit="RMSLE (natural logarithm of 1 + value)",
    description="the natural logarithm of 1 + its value",
    shift=1.0,
    least=0.0,
    at_most=np.inf,
    rule="must be >= 0 to take the logarithm of 1 + its value, but is not in",
    repair="correct these rows, or train on the plain target with --data.target_transform none",
    difference="ln((1 + actual) / (1 + predicted))",
)
PLAIN = Target(
    transform="none",
    metric="rmse",
    metric_name="RMSE",
    unit="RMSE (units of the target)",
    description="the plain value",
    shift=None,
    least=-np.inf,
    at_most=MAX_PLAIN_TARGET,
    rule=f"exceeds {MAX_PLAIN_TARGET:g} in",
    repair="state it in a larger unit",
    difference="actual - predicted",
)
TARGETS = (LOG, LOG1P, PLAIN)


@dataclass(frozen=True)
class TargetScaler:
    """Standardises the (log) target by its mean and standard deviation in the training rows (1 if that is zero)."""

    mean: float
    sd: float
    target: Target

    @property
    def least(self) -> float:
        """The least standardised value that a target can have; infinite where there is no bound."""
        return (self.target.floor - self.mean) / self.sd

    def forward(self, y: ArrayLike) -> Floats:
        """Return the float64 standardised (log) target, of the shape of y."""
        return (self.target.forward(y) - self.mean) / self.sd

    def value(self, z: ArrayLike) -> Floats:
        """Return float64 predictions on the scale trained on, of the shape of z: one that is finite stays finite, and
        none is below what the target can be."""
        z = np.asarray(z, dtype=np.float64)
        with np.errstate(over="ignore"):
            value = z * self.sd + self.mean
        largest = np.finfo(np.float64).max
        return np.where(np.isfinite(z), np.clip(value, max(-largest, self.target.floor), largest), value)

    def inverse(self, z: ArrayLike) -> Floats:
        """Return float64 predictions in the unit of the target, of the shape of z; see `Target.inverse`."""
        return self.target.inverse(self.value(z))

    def to_dict(self) -> dict[str, Any]:
        """Plain types only: `from_dict` restores an equal scaler."""
        return {"mean": self.mean, "sd": self.sd, "transform": self.target.transform}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "TargetScaler":
        return cls(state["mean"], state["sd"], Target.of(state["transform"]))


def fit_target(
    y: ArrayLike, rows: NDArray[np.int64], transform: TargetTransform, weights: Floats | None = None
) -> TargetScaler:
    """Learn mean and standard deviation of the (log) target from the rows at positions `rows` of y (n_rows,), each as
    often as its weight in `weights` (n_rows,) says."""
    target, own = Target.of(transform), np.asarray(y, dtype=np.float64)[rows]
    training = target.forward(own)
    if weights is None:
        mean, sd = float(np.mean(training)), float(np.std(training))
    else:
        mean = float(np.average(training, weights=weights[rows]))
        sd = float(np.sqrt(np.average(np.square(training - mean), weights=weights[rows])))
    # equal values have a standard deviation of about eps * mean by rounding alone
    return TargetScaler(mean, 1.0 if np.ptp(own) == 0 or sd == 0 else sd, target)
