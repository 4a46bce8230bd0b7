"""What the networks learn of the target, its logarithm or itself, and what that makes of scores and residuals."""

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
        is_log: Whether the logarithm is learned. Values are positive then, and compare by their ratio.
        above, at_most: Values must be greater than the one, absolute values not greater than the other.
        rule: What is said of a target that breaks this, before the lines where it does, and `repair` after them.
    """

    transform: TargetTransform
    metric: str
    metric_name: str
    unit: str
    description: str
    is_log: bool
    above: float
    at_most: float
    rule: str
    repair: str

    @classmethod
    def of(cls, transform: TargetTransform) -> "Target":
        return {target.transform: target for target in TARGETS}[transform]

    @classmethod
    def of_metric(cls, metric: str) -> "Target":
        """The target of a summary's metric; one that is not known is called what it is called there."""
        unknown = replace(PLAIN, metric=metric, metric_name=metric, unit=metric)
        return {target.metric: target for target in TARGETS}.get(metric, unknown)

    def forward(self, y: ArrayLike) -> Floats:
        """Return float64 values on the scale trained on, of the shape of y, whose values `is_usable`."""
        y = np.asarray(y, dtype=np.float64)
        return np.log(y) if self.is_log else y

    def inverse(self, value: ArrayLike) -> Floats:
        """Return float64 values in the unit of the target, of the shape of `value`, on the scale trained on.

        Under a logarithm a finite value gives a finite positive one: what would leave float64's range is exp(+-709).
        NaN and infinite values stay NaN, infinite or 0, to be counted as diverged.
        """
        value = np.asarray(value, dtype=np.float64)
        if not self.is_log:
            return value
        return np.exp(np.where(np.isfinite(value), np.clip(value, -MAX_LOG, MAX_LOG), value))

    def residual(self, actual: Any, predicted: Any) -> Any:
        """Actual minus predicted value on the scale trained on, from arrays or series in the unit of the target."""
        return np.log(actual / predicted) if self.is_log else actual - predicted

    def predicted(self, actual: Any, residual: Any) -> Any:
        """The prediction, in the unit of the target, that is off by `residual`."""
        return actual * np.exp(-residual) if self.is_log else actual - residual

    def is_usable(self, y: Floats) -> NDArray[np.bool_]:
        """Whether each value can be learned, of the shape of y."""
        return (y > self.above) & (np.abs(y) <= self.at_most)


# Squares of a plain target must stay far from the end of float32, in which networks and metrics compute.
MAX_PLAIN_TARGET = 1e15
LOG = Target(
    transform="log",
    metric="log_rmse",
    metric_name="log-RMSE",
    unit="log-RMSE (natural logarithm)",
    description="its natural logarithm",
    is_log=True,
    above=0.0,
    at_most=np.inf,
    rule="must be > 0 to take its logarithm, but is not in",
    repair="correct these rows, or train on the plain target with --data.target_transform none",
)
PLAIN = Target(
    transform="none",
    metric="rmse",
    metric_name="RMSE",
    unit="RMSE (units of the target)",
    description="the plain value",
    is_log=False,
    above=-np.inf,
    at_most=MAX_PLAIN_TARGET,
    rule=f"exceeds {MAX_PLAIN_TARGET:g} in",
    repair="state it in a larger unit",
)
TARGETS = (LOG, PLAIN)


@dataclass(frozen=True)
class TargetScaler:
    """Standardises the (log) target by its mean and standard deviation in the training rows (1 if that is zero)."""

    mean: float
    sd: float
    target: Target

    def forward(self, y: ArrayLike) -> Floats:
        """Return the float64 standardised (log) target, of the shape of y."""
        return (self.target.forward(y) - self.mean) / self.sd

    def inverse(self, z: ArrayLike) -> Floats:
        """Return float64 predictions in the unit of the target, of the shape of z; see `Target.inverse`."""
        z = np.asarray(z, dtype=np.float64)
        with np.errstate(over="ignore"):
            value = z * self.sd + self.mean
        # a finite output stays finite
        largest = np.finfo(np.float64).max
        return self.target.inverse(np.where(np.isfinite(z), np.clip(value, -largest, largest), value))

    def to_dict(self) -> dict[str, Any]:
        """Plain types only: `from_dict` restores an equal scaler."""
        return {"mean": self.mean, "sd": self.sd, "transform": self.target.transform}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "TargetScaler":
        return cls(state["mean"], state["sd"], Target.of(state["transform"]))


def fit_target(y: ArrayLike, rows: NDArray[np.int64], transform: TargetTransform) -> TargetScaler:
    """Learn mean and standard deviation of the (log) target from the rows at positions `rows` of y (n_rows,)."""
    target = Target.of(transform)
    training = target.forward(np.asarray(y, dtype=np.float64)[rows])
    mean, sd = float(np.mean(training)), float(np.std(training))
    # rounding alone gives equal values a standard deviation of about eps * mean
    is_constant = sd <= 1e-12 * max(1.0, abs(mean))
    return TargetScaler(mean, 1.0 if is_constant else sd, target)
