"""log-RMSE by value: against numpy, against torchmetrics on logs, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, MeanSquaredLogError

from actlab.networks.metrics import LogRMSE, log_rmse, rmse


@pytest.fixture
def prices() -> tuple[Tensor, Tensor]:
    """Predictions (3, 50) and targets (50,), in float64."""
    generator = torch.Generator().manual_seed(0)
    targets = 12 + 0.4 * torch.randn(50, generator=generator, dtype=torch.float64)
    errors = torch.tensor([[0.1], [0.2], [0.5]]) * torch.randn(3, 50, generator=generator, dtype=torch.float64)
    return (targets + errors).exp(), targets.exp()


def test_log_rmse_is_the_formula(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    expected = np.sqrt(((np.log(predictions.numpy()) - np.log(targets.numpy())) ** 2).mean(axis=1))
    np.testing.assert_allclose(log_rmse(predictions, targets).numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(rmse(predictions.log(), targets.log()).numpy(), expected, rtol=1e-14)
    assert log_rmse(predictions[1], targets).item() == pytest.approx(expected[1], rel=1e-14)


def test_log_rmse_of_a_known_ratio() -> None:
    assert log_rmse(torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0])).item() == pytest.approx(math.log(2))


def test_log_rmse_is_no_log1p() -> None:
    """torchmetrics' MSLE takes ln(1 + y): close for prices, another number for small targets."""
    predictions, targets = torch.tensor([0.2, 3.0]), torch.tensor([0.1, 4.0])
    with_log1p = MeanSquaredLogError()(predictions, targets).sqrt().item()
    on_logs = MeanSquaredError(squared=False)(predictions.log(), targets.log()).item()
    ours = log_rmse(predictions, targets).item()
    assert ours == pytest.approx(on_logs, rel=1e-6)
    assert abs(ours - with_log1p) > 0.3


def test_metric_equals_function_however_rows_are_batched(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    metric = LogRMSE(3)
    for rows in torch.arange(50).split(7):
        metric.update(predictions[:, rows].log(), targets[rows].log())
    assert metric.compute().dtype == torch.float64
    torch.testing.assert_close(metric.compute(), log_rmse(predictions, targets), rtol=1e-13, atol=0)


def test_metric_takes_targets_of_each_member(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    own = targets * torch.tensor([[1.0], [2.0], [3.0]])
    metric = LogRMSE(3)
    metric.update(predictions.log(), own.log())
    for i in range(3):
        single = MeanSquaredError(squared=False).set_dtype(torch.float64)
        assert metric.compute()[i].item() == pytest.approx(single(predictions[i].log(), own[i].log()).item(), rel=1e-12)


def test_metric_of_plain_values_is_the_rmse_of_torchmetrics(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    metric = LogRMSE(3)
    metric.update(predictions, targets)
    reference = MeanSquaredError(squared=False, num_outputs=3).set_dtype(torch.float64)
    expected = reference(predictions.T.contiguous(), targets.expand(3, -1).T.contiguous())
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-12, atol=0)


def test_a_weight_counts_as_so_many_rows(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices[0].log(), prices[1].log()
    counts = torch.arange(50) % 4 + 1
    metric, repeated, own = LogRMSE(3), LogRMSE(3), LogRMSE(3)
    for rows in torch.arange(50).split(7):
        metric.update(predictions[:, rows], targets[rows], counts[rows])
        # members of different splits have different rows
        own.update(
            predictions[:, rows], targets[rows].expand(3, -1), counts[rows] * torch.tensor([[1.0], [2.0], [0.25]])
        )
    repeated.update(predictions.repeat_interleave(counts, 1), targets.repeat_interleave(counts))
    torch.testing.assert_close(metric.compute(), repeated.compute(), rtol=1e-13, atol=0)
    torch.testing.assert_close(own.compute(), repeated.compute(), rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match=r"weights must have the shape of the targets, got weights \(1, 50\)"):
        metric.update(predictions, targets, counts[None])


def test_float32_input_is_summed_in_float64() -> None:
    """In float32 the sum of 0.1^2 over 200,000 rows stops growing accurately."""
    metric = LogRMSE(1)
    for _ in range(200):
        metric.update(torch.full((1, 1000), 0.1), torch.zeros(1000))
    assert metric.compute().item() == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_reset_forgets(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    metric = LogRMSE(3)
    metric.update(predictions.log() * 100, targets.log())
    metric.reset()
    metric.update(predictions.log(), targets.log())
    torch.testing.assert_close(metric.compute(), log_rmse(predictions, targets), rtol=1e-13, atol=0)


def test_non_positive_prediction_marks_its_member_only(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    expected = log_rmse(predictions, targets)
    predictions = predictions.clone()
    predictions[0, 5] = -1.0
    predictions[2, 5] = 0.0
    metric = LogRMSE(3)
    metric.update(predictions.log(), targets.log())
    for scores in (metric.compute(), log_rmse(predictions, targets)):
        assert math.isnan(scores[0].item())
        assert scores[1].item() == pytest.approx(expected[1].item(), rel=1e-12)
        assert scores[2].item() == math.inf


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [((3, 5, 1), (5,)), ((3, 5), (3, 1)), ((5, 1), (5,)), ((5,), (5, 1)), ((3, 5), (3,)), ((3, 5), ()), ((), ())],
)
def test_shapes_that_would_broadcast_are_refused(predictions: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must have shape"):
        log_rmse(torch.ones(predictions), torch.ones(targets))
    with pytest.raises(ValueError, match="must have shape"):
        LogRMSE(3).update(torch.ones(predictions), torch.ones(targets))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (5, 3)])
def test_metric_refuses_another_number_of_members(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="n_members=3"):
        LogRMSE(3).update(torch.ones(shape), torch.ones(shape))


def test_metric_needs_a_member() -> None:
    with pytest.raises(ValueError, match="n_members must be at least 1, got n_members=0"):
        LogRMSE(0)


def test_gradient_of_a_member_does_not_depend_on_the_others(prices: tuple[Tensor, Tensor]) -> None:
    predictions, targets = prices
    together = predictions.clone().requires_grad_()
    log_rmse(together, targets).sum().backward()
    alone = predictions[1].clone().requires_grad_()
    log_rmse(alone, targets).backward()
    torch.testing.assert_close(together.grad[1], alone.grad, rtol=1e-14, atol=0)
