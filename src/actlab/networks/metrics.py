"""The score: root mean squared error, and log-RMSE, with one value per member.

log-RMSE is sqrt(mean((ln y_hat - ln y)^2)) with the natural logarithm; libraries that say MSLE (scikit-learn,
torchmetrics) use ln(1 + y) instead, so their figures differ for small targets. Shapes: P members, B rows of a batch.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def rmse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Root mean squared error over the last axis; given logarithms of both it is log-RMSE.

    (P,) for predictions (P, B), a scalar for (B,); differentiable, nan where a prediction is nan. Targets are (B,), the
    same rows for every member, or of the shape of `predictions`.
    """
    _check_shapes(predictions, targets)
    return (predictions - targets).square().mean(dim=-1).sqrt()


def log_rmse(predictions: Tensor, targets: Tensor) -> Tensor:
    """`rmse` of the logarithms of raw values > 0 (prices in, not their logarithms).

    A negative prediction makes its member's score nan and a prediction of exactly 0 makes it inf; neither raises,
    because a member that diverges has to be recorded, not to end the run of its neighbours.
    """
    return rmse(predictions.log(), targets.log())


class LogRMSE(Metric):
    """The score, one per member, over any number of batches: log-RMSE of networks that predict the log target.

    Values are on the scale that networks are trained on, so of a target that is learned as it is this is its RMSE.
    Sums are kept in float64: the score does not depend on how the rows were cut into batches. With weights of rows it
    is the root of the weighted mean.
    """

    is_differentiable, higher_is_better, full_state_update = True, False, False

    sum_squared_error: Tensor
    weight: Tensor

    def __init__(self, n_members: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n_members < 1:
            raise ValueError(f"n_members must be at least 1, got n_members={n_members}")
        self.n_members = n_members
        self.add_state("sum_squared_error", torch.zeros(n_members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(n_members, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add a batch: predictions (P, B), targets (B,) or (P, B), and, where rows count differently, weights of the
        shape of the targets."""
        if predictions.ndim != 2 or predictions.shape[0] != self.n_members:
            shape = tuple(predictions.shape)
            raise ValueError(f"predictions must have shape (n_members={self.n_members}, B), got shape {shape}")
        _check_shapes(predictions, targets)
        squares = (predictions.double() - targets.double()).square()
        if weights is not None:
            if weights.shape != targets.shape:
                shapes = f"got weights {tuple(weights.shape)} and targets {tuple(targets.shape)}"
                raise ValueError(f"weights must have the shape of the targets, {shapes}")
            squares = squares * weights.double()
        self.sum_squared_error += squares.sum(dim=-1)
        self.weight += predictions.shape[-1] if weights is None else weights.double().sum(dim=-1)

    def compute(self) -> Tensor:
        """(P,) in float64; nan before the first batch and for a member with a nan prediction."""
        return (self.sum_squared_error / self.weight).sqrt()


def _check_shapes(predictions: Tensor, targets: Tensor) -> None:
    """Refuse what would broadcast: (P, B, 1) - (B,) is (P, B, B), and its mean still falls during training."""
    if predictions.ndim not in (1, 2) or targets.shape not in (predictions.shape, predictions.shape[-1:]):
        raise ValueError(
            "predictions must have shape (P, B) or (B,) and targets (B,) or the same shape, "
            f"got predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)}"
        )
