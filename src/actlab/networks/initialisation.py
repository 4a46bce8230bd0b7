"""Initial weights of one member, drawn from its own generator.

`torch` is the stream of `nn.Linear`: equal bits to layers built one after the other under `torch.manual_seed`.
`auto` keeps the second moment of the signal through the layers for any activation (He et al. 2015, with the gain
found numerically), so that no activation is handicapped by a scale made for another one.
"""

import math
from functools import cache

import torch
from torch import Tensor

from actlab.networks import activations

N_QUANTILES = 4096


@cache
def gain(activation: str) -> float:
    """1 / sqrt(E[f(z)^2]) for z ~ N(0, 1), by the mean over normal quantiles.

    SELU's fixed point asks for LeCun normal (Klambauer et al. 2017), which this gives by itself: E[f(z)^2] = 1. It is
    set to 1 exactly. An activation whose second moment is zero or not finite (a constant one) keeps 1.
    """
    row = activations.get(activation)
    if row.name == "selu":
        return 1.0
    per_axis = round(N_QUANTILES ** (1 / row.width_factor)) * (4 if row.width_factor > 1 else 1)
    axis = torch.special.ndtri((torch.arange(per_axis, dtype=torch.float64) + 0.5) / per_axis)
    axis = axis / axis.square().mean().sqrt()
    grid = torch.cartesian_prod(*[axis] * row.width_factor).reshape(-1, row.width_factor)
    with torch.no_grad():
        moment = row.build().double().eval()(grid).square().mean().item()
    return 1 / math.sqrt(moment) if math.isfinite(moment) and moment > 0 else 1.0


def layer_shapes(n_features: int, hidden: tuple[int, ...], width_factor: int) -> list[tuple[int, int]]:
    """(outputs, inputs) of each linear layer, the output layer last: [(k H1, F), (k H2, H1), ..., (1, Hn)]."""
    inputs = (n_features, *hidden)
    outputs = (*(width_factor * units for units in hidden), 1)
    return list(zip(outputs, inputs, strict=True))


def draw(
    n_features: int, hidden: tuple[int, ...], activation: str, init: str, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Weights (out, in) and biases (out,) of each layer of one member, in float32, in the order of construction."""
    row = activations.get(activation)
    layers = []
    for depth, (n_out, n_in) in enumerate(layer_shapes(n_features, hidden, row.width_factor)):
        # float32 whatever the default: one stream for every precision
        weight, bias = torch.empty(n_out, n_in, dtype=torch.float32), torch.zeros(n_out, dtype=torch.float32)
        if init == "torch":
            bound = 1 / math.sqrt(n_in) if n_in else 0.0
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        else:
            # the first layer sees scaled inputs, not an activation's output
            scale = gain(activation) if depth else 1.0
            weight.normal_(0.0, scale / math.sqrt(max(n_in, 1)), generator=generator)
        layers.append((weight, bias))
    return layers
