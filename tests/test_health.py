"""Health by value: against autograd one number at a time, by hand, and inside a training."""

import math

import pytest
import torch
from torch import Tensor, nn

from actlab.activations import ACTIVATIONS
from actlab.data.table import read_table
from actlab.diagnostics import health as health_callback
from actlab.diagnostics.health import HealthMonitor, measure
from actlab.members import Member, Split
from actlab.networks.module import PopulationModule
from actlab.networks.network import Regressor, gather
from actlab.runs.evaluate import Evaluation, Setting, evaluate
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings
from short_searches import works

N_MEMBERS, N_ROWS, N_FEATURES = 3, 16, 5
HIDDEN = (6, 4)


class Softmax(nn.Module):
    """Mixes the units of a layer."""

    def forward(self, z: Tensor) -> Tensor:
        return z.softmax(dim=-1)


class Constant(nn.Module):
    """Lets no gradient through at all."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


def build(activation: str, init: str = "auto") -> Regressor:
    members = [
        Member(trial, activation, 0.01, Split(0, trial, 0), trial, HIDDEN, init=init) for trial in range(N_MEMBERS)
    ]
    return Regressor(members, [N_FEATURES] * N_MEMBERS)


def rows(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = scale * torch.randn(N_MEMBERS, N_ROWS, N_FEATURES, generator=generator)
    return features, torch.randn(N_MEMBERS, N_ROWS, generator=generator)


def slow_derivatives(stack: Regressor, features: Tensor, depth: int) -> Tensor:
    """|f'| (P, B, H), one output of one row of one member at a time."""
    signal = features
    for lower in range(depth):
        signal = stack.activate(lower, stack.linear(lower, signal))
    z = stack.linear(depth, signal).detach()
    width, k = HIDDEN[depth], stack.row.width_factor
    found = torch.zeros(N_MEMBERS, N_ROWS, width)
    for member in range(N_MEMBERS):
        for row in range(N_ROWS):
            for unit in range(width):
                own = z[:, row : row + 1].clone().requires_grad_()
                stack.activate(depth, own)[member, 0, unit].backward()
                assert own.grad is not None
                pieces = own.grad[member, 0].view(k, width)[:, unit]
                found[member, row, unit] = pieces.norm()
    return found


def slow_maximum(stack: Regressor, depth: int) -> Tensor:
    """Over a much finer grid than the one that is used, for activations with one pre-activation."""
    z = torch.linspace(-3, 3, 6001).view(1, -1, 1).repeat(N_MEMBERS, 1, 1).requires_grad_()
    stack.activate(depth, z).sum().backward()
    assert z.grad is not None
    return z.grad.abs().amax(dim=(1, 2))


@pytest.mark.parametrize("name", [row.name for row in ACTIVATIONS])
def test_every_activation_agrees_with_autograd_one_number_at_a_time(name: str) -> None:
    stack = build(name)
    features, targets = rows(scale=2.0)
    stack.eval()
    health = measure(stack, features, targets)
    for depth in range(2):
        derivatives = slow_derivatives(stack, features, depth)
        if stack.row.width_factor == 1:
            maximum = slow_maximum(stack, depth)
            saturated = (derivatives < 0.05 * maximum[:, None, None]).double().mean(dim=(1, 2))
            torch.testing.assert_close(health.saturated[:, depth], saturated, atol=0.011, rtol=0)
        dead = (derivatives.amax(dim=1) < 1e-4).double().mean(dim=1)
        torch.testing.assert_close(health.dead[:, depth], dead)
        outputs = stack.activate(0, stack.linear(0, features))
        if depth == 1:
            outputs = stack.activate(1, stack.linear(1, outputs))
        torch.testing.assert_close(health.mean_output[:, depth], outputs.double().mean(dim=(1, 2)).detach())


@pytest.mark.parametrize("name", ["identity", "tanh", "prelu", "maxout", "swiglu"])
def test_gradient_norms_are_those_of_one_member_alone(name: str) -> None:
    stack = build(name)
    features, targets = rows()
    health = measure(stack, features, targets)
    for row in range(N_MEMBERS):
        alone = gather([(stack, torch.tensor([row]))]).eval()
        signal, seen = features[row : row + 1], []
        for depth in range(2):
            z = alone.linear(depth, signal)
            z.retain_grad()
            seen.append(z)
            signal = alone.activate(depth, z)
        (alone.linear(2, signal) - targets[row : row + 1]).square().mean().backward()
        norms = [float(z.grad.norm()) for z in seen if z.grad is not None]
        assert health.gradient_norm[row].tolist() == pytest.approx(norms, rel=1e-5)
        assert health.gradient_ratio[row].tolist() == pytest.approx([norms[0] / norms[1], 1.0], rel=1e-5)


def test_a_relu_layer_with_a_large_negative_bias_is_all_dead() -> None:
    stack = build("relu")
    with torch.no_grad():
        stack.bias_0[0] = -1e3
        stack.bias_1[1, :2] = -1e3
    health = measure(stack, *rows())
    assert health.dead[0, 0] == health.saturated[0, 0] == 1.0
    assert health.mean_output[0, 0] == 0.0
    assert health.dead[1].tolist() == [0.0, 0.5]
    # no gradient comes through a dead layer
    assert health.gradient_norm[0, 0] == 0.0


def test_leaky_relu_under_the_same_bias_is_saturated_and_not_dead() -> None:
    stack = build("leaky_relu")
    with torch.no_grad():
        stack.bias_0[0] = -1e3
    health = measure(stack, *rows())
    assert (health.dead[0, 0], health.saturated[0, 0]) == (0.0, 1.0)


def test_sigmoid_with_large_weights_is_saturated() -> None:
    stack = build("sigmoid")
    with torch.no_grad():
        stack.weight_0[0] *= 1e4
    health = measure(stack, *rows())
    assert health.saturated[0, 0] > 0.95
    assert health.saturated[1, 0] < 0.05
    # |f'| < 5 % of 1/4 where |z| > 4.357, by hand
    assert 1 / (1 + math.exp(-4.357)) * (1 - 1 / (1 + math.exp(-4.357))) == pytest.approx(0.0125, rel=1e-3)
    with torch.no_grad():
        stack.weight_0.zero_()
        stack.bias_0.fill_(4.3)
        stack.bias_0[1] = 4.4
    assert measure(stack, *rows()).saturated[:2, 0].tolist() == [0.0, 1.0]


def test_sigmoid_is_centred_on_one_half_and_tanh_on_zero() -> None:
    for name, mean in (("sigmoid", 0.5), ("tanh", 0.0)):
        stack = build(name)
        with torch.no_grad():
            stack.weight_0.zero_()
        assert measure(stack, *rows()).mean_output[:, 0].tolist() == pytest.approx([mean] * N_MEMBERS)


def test_gradients_shrink_layer_by_layer_under_sigmoid_and_not_without_activation() -> None:
    wide = (200, 200, 200)
    ratios = {}
    for name in ("identity", "sigmoid"):
        members = [Member(t, name, 0.01, Split(0, t, 0), t, wide) for t in range(N_MEMBERS)]
        health = measure(Regressor(members, [N_FEATURES] * N_MEMBERS), *rows())
        ratios[name] = float(health.gradient_ratio[:, 0].mean())
    assert ratios["identity"] == pytest.approx(1.0, abs=0.25)
    assert ratios["sigmoid"] < 0.3


def test_an_activation_that_mixes_units_is_neither_dead_nor_refused() -> None:
    health = measure(build(f"{__name__}.Softmax"), *rows())
    assert health.dead.tolist() == [[0.0, 0.0]] * N_MEMBERS


def test_an_activation_without_a_gradient_is_dead() -> None:
    health = measure(build(f"{__name__}.Constant"), *rows())
    assert health.gradient_norm.tolist() == [[0.0, 0.0]] * N_MEMBERS


def test_a_member_with_weights_that_are_not_finite_has_no_health() -> None:
    stack = build("relu")
    with torch.no_grad():
        stack.weight_1[1] = math.nan
    health = measure(stack, *rows())
    for measured in (health.dead, health.saturated, health.mean_output, health.gradient_norm):
        assert measured.isnan().all(dim=1).tolist() == [False, True, False]


def test_measuring_leaves_the_stack_as_it_was() -> None:
    stack = build("rrelu").train()
    before = {name: value.clone() for name, value in stack.stacked().items()}
    with torch.no_grad():
        measure(stack, *rows())
    assert stack.training
    assert all(torch.equal(before[name], value) for name, value in stack.stacked().items())
    assert all(value.grad is None for value in stack.stacked().values())


def test_a_neighbour_does_not_change_a_members_health() -> None:
    stack = build("mish")
    features, targets = rows()
    together = measure(stack, features, targets)
    alone = measure(gather([(stack, torch.tensor([1]))]), features[1:2], targets[1:2])
    for name in ("dead", "saturated", "mean_output", "gradient_norm"):
        torch.testing.assert_close(getattr(together, name)[1:2], getattr(alone, name))


def test_a_training_is_watched_at_three_moments(small_csv: str) -> None:
    data = DataSettings(small_csv, "price", batch_size=32)
    evaluation = Evaluation(data, ProtocolSettings(2, 1), OptimizerSettings(patience=2), {"max_epochs": 6})
    settings = {n: Setting(name, 0.01, 0.0, (8, 4), 0.1, "auto") for n, name in enumerate(("relu", "swiglu", "snake"))}
    monitor = HealthMonitor()
    watched = evaluate(works(settings), evaluation, read_table(data), [monitor])
    plain = evaluate(works(settings), evaluation, read_table(data))
    assert [o.test_score for r in watched for o in r.outcomes] == [o.test_score for r in plain for o in r.outcomes]
    assert len(monitor.records) == 3 * 2 * 2 * 3
    own = monitor.of(1)
    assert [(r.fold, r.layer, r.moment) for r in own[:6]] == [
        (0, layer, moment) for layer in (1, 2) for moment in ("start", "best", "end")
    ]
    assert {r.activation for r in own} == {"swiglu"}
    assert all(0 <= r.dead <= 1 and 0 <= r.saturated <= 1 and math.isfinite(r.mean_output) for r in own)
    assert all(r.gradient_ratio == 1.0 for r in own if r.layer == 2)


def test_what_waits_is_measured_once_there_is_work_for_every_thread(
    small_csv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataSettings(small_csv, "price", batch_size=32)
    evaluation = Evaluation(data, ProtocolSettings(2, 1), OptimizerSettings(patience=1), {"max_epochs": 40})
    settings = {n: Setting("relu", 0.01 * (n + 1), 0.0, (8, 4), 0.0, "auto") for n in range(6)}
    monkeypatch.setattr(health_callback, "CHUNK", 4)
    found, measured = {}, []
    original = HealthMonitor._measure

    def watched(self: HealthMonitor, module: PopulationModule) -> None:
        measured.append((len(self._enough), module.n_alive))
        original(self, module)

    monkeypatch.setattr(HealthMonitor, "_measure", watched)
    for n_threads in (1, 3):
        monkeypatch.setattr(PopulationModule, "n_side_by_side", n_threads)
        measured.clear()
        monitor = HealthMonitor()
        evaluate(works(settings), evaluation, read_table(data), [monitor])
        found[n_threads] = [monitor.of(trial) for trial in settings]
        # between the initial weights and the last members' last ones
        assert measured[1:-1]
        assert all(count >= n_threads for count, _ in measured[1:-1])
    assert found[1] == found[3]
    assert sum(len(records) for records in found[1]) == 6 * 2 * 2 * 3


def test_best_and_end_are_measured_with_the_weights_of_these_epochs(small_csv: str) -> None:
    """After one epoch they are the same, after an epoch that made it worse they are not."""
    data = DataSettings(small_csv, "price", batch_size=32)
    setting = {0: Setting("tanh", 0.01, 0.0, (8, 4), 0.0, "auto"), 1: Setting("tanh", 3.0, 0.0, (8, 4), 0.0, "auto")}
    for epochs in (1, 8):
        evaluation = Evaluation(data, ProtocolSettings(2, 1), OptimizerSettings(), {"max_epochs": epochs})
        monitor = HealthMonitor()
        results = evaluate(works(setting), evaluation, read_table(data), [monitor])
        for result in results:
            for outcome in result.outcomes:
                split = outcome.member.split
                own = {r.moment: r for r in monitor.of(result.number) if (r.fold, r.layer) == (split.fold, 1)}
                is_same = own["best"].mean_output == own["end"].mean_output
                assert is_same == (outcome.best_epoch == outcome.epochs)
