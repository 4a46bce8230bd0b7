"""Derivatives of the activations of the table, as functions of tensors that TorchScript compiles.

Each maps the gradient of the loss by the outputs h (..., H) and the pre-activations z (..., k H) to the gradient by z,
with the kernel that autograd would call. Those with a learned number per layer, `own` (P, 1, 1), are written out both
ways. What is not listed here (random slopes, classes of one's own) trains by autograd.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

aten = torch.ops.aten


def identity(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient


def sigmoid(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.sigmoid_backward(gradient, h)


def tanh(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.tanh_backward(gradient, h)


def relu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.threshold_backward(gradient, h, 0)


def leaky_relu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.leaky_relu_backward(gradient, z, 0.01, False)


def elu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.elu_backward(gradient, 1.0, 1.0, 1.0, False, z)


def selu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.elu_backward(
        gradient, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0, False, z
    )


def gelu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.gelu_backward(gradient, z)


def silu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.silu_backward(gradient, z)


def mish(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.mish_backward(gradient, z)


def softplus(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.softplus_backward(gradient, z, 1, 20)


def hardswish(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardswish_backward(gradient, z)


def hardtanh(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardtanh_backward(gradient, z, -1.0, 1.0)


def relu6(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardtanh_backward(gradient, z, 0.0, 6.0)


def relu_squared(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient * (2 * torch.clamp_min(z, 0))


def softsign(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient / (1 + z.abs()).square()


def maxout(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """The larger piece has it all; equal ones share it."""
    first, second = z.chunk(2, -1)
    to_first = gradient * (first > second) + gradient * (first == second) / 2
    return torch.cat([to_first, gradient - to_first], -1)


def _gated(gradient: Tensor, by_gate: Tensor, gate_output: Tensor) -> Tensor:
    return torch.cat([by_gate, gradient * gate_output], -1)


def geglu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate, value = z.chunk(2, -1)
    return _gated(gradient, aten.gelu_backward(gradient * value, gate), aten.gelu(gate))


def reglu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate, value = z.chunk(2, -1)
    return _gated(gradient, aten.threshold_backward(gradient * value, gate, 0), aten.relu(gate))


def swiglu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate, value = z.chunk(2, -1)
    return _gated(gradient, aten.silu_backward(gradient * value, gate), aten.silu(gate))


def prelu(z: Tensor, own: Tensor) -> Tensor:
    return torch.where(z >= 0, z, own * z)


def by_prelu(gradient: Tensor, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    below = torch.where(z >= 0, 0.0, gradient)
    return torch.where(z >= 0, gradient, 0.0) + below * own, (below * z).sum([1, 2])


def snake(z: Tensor, own: Tensor) -> Tensor:
    return z + torch.sin(own * z).square() / (own + 1e-9)


def by_snake(gradient: Tensor, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    sine, above = torch.sin(own * z), own + 1e-9
    slope = 2 * sine * torch.cos(own * z) / above
    by_own = gradient * (slope * z - (sine / above).square())
    return gradient * (1 + slope * own), by_own.sum([1, 2])


Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]
DERIVATIVES: Mapping[str, Derivative] = {
    function.__name__: function
    for function in (
        *(identity, sigmoid, tanh, relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, hardswish, hardtanh, relu6),
        *(relu_squared, softsign, maxout, geglu, reglu, swiglu),
    )
} | {"celu": elu}

# the function of z and `own`, and the gradients (by z and by each member's own number)
Learned = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]]
LEARNED: Mapping[str, Learned] = {"prelu": (prelu, by_prelu), "snake": (snake, by_snake)}
