"""Initial weights: the stream of nn.Linear, and a gain that keeps the signal."""

import math

import pytest
import torch
from torch import nn

from actlab import activations
from actlab.activations import ACTIVATIONS, Activation
from actlab.networks.network import draw, gain, layer_shapes


@pytest.mark.parametrize("width_factor_of", ["relu", "maxout"])
def test_torch_init_is_the_stream_of_linear_layers_built_under_the_same_seed(width_factor_of: str) -> None:
    k = activations.get(width_factor_of).width_factor
    drawn = draw(7, (5, 3), width_factor_of, "torch", torch.Generator().manual_seed(11))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        layers = [nn.Linear(7, 5 * k), nn.Linear(5, 3 * k), nn.Linear(3, 1)]
    for (weight, bias), layer in zip(drawn, layers, strict=True):
        assert torch.equal(weight, layer.weight)
        assert torch.equal(bias, layer.bias)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("identity", 1), ("relu", math.sqrt(2)), ("leaky_relu", math.sqrt(2 / (1 + 0.01**2))), ("reglu", math.sqrt(2))],
)
def test_the_gain_found_numerically_is_the_one_known_in_closed_form(name: str, wanted: float) -> None:
    assert gain(name) == pytest.approx(wanted, rel=2e-3)


def test_selu_has_lecun_normal_weights() -> None:
    assert gain("selu") == 1
    weight, bias = draw(4000, (500,), "selu", "auto", torch.Generator().manual_seed(0))[0]
    assert weight.std().item() == pytest.approx(1 / math.sqrt(4000), rel=1e-2)
    assert not bias.any()


def signal_after(row: Activation, depth: int) -> float:
    """Mean square of the pre-activations of layer `depth` + 1 on Gaussian inputs, under init auto."""
    width = 400
    layers = draw(width, (width,) * (depth + 1), row.name, "auto", torch.Generator().manual_seed(1))
    signal = torch.randn(2000, width, generator=torch.Generator().manual_seed(2))
    for weight, _ in layers[:depth]:
        signal = row.build().eval()(signal @ weight.T).detach()
    return (signal @ layers[depth][0].T).square().mean().item()


@pytest.mark.parametrize("row", ACTIVATIONS, ids=lambda row: row.name)
def test_auto_init_hands_on_the_variance_of_the_signal(row: Activation) -> None:
    assert signal_after(row, 1) == pytest.approx(1, rel=0.1)


def squares(row: Activation) -> bool:
    """Whether outputs grow with the square of the signal: its own scale runs away over layers under any gain."""
    far, farther = (row.build().eval()(torch.full((1, row.width_factor), size)).abs().max() for size in (1e3, 2e3))
    return bool(farther > 3 * far > 0)


def test_relu_squared_and_the_gated_ones_square_the_signal() -> None:
    assert {"relu_squared", "geglu", "reglu", "swiglu"} <= {row.name for row in ACTIVATIONS if squares(row)}
    assert not any(squares(activations.get(name)) for name in ("identity", "relu", "maxout", "snake", "tanh"))


@pytest.mark.parametrize("row", [row for row in ACTIVATIONS if not squares(row)], ids=lambda row: row.name)
def test_auto_init_keeps_the_signal_through_ten_layers(row: Activation) -> None:
    # a gain that is off by 20 % would be off by a factor of 6 to 40 after ten layers
    assert 0.4 < signal_after(row, 10) < 2.5


def test_torch_init_does_not_keep_it() -> None:
    layers = draw(400, (400,) * 10, "relu", "torch", torch.Generator().manual_seed(1))
    signal = torch.randn(200, 400, generator=torch.Generator().manual_seed(2))
    for weight, _ in layers[:-1]:
        signal = torch.relu(signal @ weight.T)
    assert signal.square().mean().item() < 1e-3


def test_shapes_of_layers() -> None:
    assert layer_shapes(288, (144, 72, 18), 1) == [(144, 288), (72, 144), (18, 72), (1, 18)]
    assert layer_shapes(10, (4, 2), 2) == [(8, 10), (4, 4), (1, 2)]
