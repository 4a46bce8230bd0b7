"""Derivatives of the activations of the table, as functions of tensors that TorchScript compiles.

Each maps the gradient of the loss by the outputs h (..., H) and the pre-activations z (..., k H) to the gradient by z,
to the bits of autograd, except where that takes much longer (`ROUNDED`). Memory that is written is what a step of small
networks waits for, so a result may take the place of the gradient, and outputs that of the pre-activations (`OUTPUTS`).
Some kernels of torch are slow on a CPU (`where`, products with booleans, `mish` and its derivative), so what needs them
is put together from fast ones. Those with a learned number per layer, `own` (P, 1, 1), are written out both ways. What
is not listed here (random slopes, classes of one's own) trains by autograd.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

aten = torch.ops.aten


def identity(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient


def sigmoid(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.sigmoid_backward(gradient, h, grad_input=gradient)


def tanh(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.tanh_backward(gradient, h, grad_input=gradient)


def relu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.threshold_backward(gradient, h, 0, grad_input=gradient)


def leaky_relu_output(z: Tensor) -> Tensor:
    return aten.leaky_relu_(z, 0.01)


def leaky_relu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.leaky_relu_backward(gradient, h, 0.01, True, grad_input=gradient)


def elu_output(z: Tensor) -> Tensor:
    return aten.elu_(z)


def elu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """From the outputs, which saves the exponential."""
    return aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, h, grad_input=gradient)


def selu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """From the outputs, which saves the exponential."""
    return aten.elu_backward(
        gradient,
        1.6732632423543772848170429916717,
        1.0507009873554804934193349852946,
        1.0,
        True,
        h,
        grad_input=gradient,
    )


def gelu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.gelu_backward(gradient, z, grad_input=gradient)


def silu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.silu_backward(gradient, z, grad_input=gradient)


def mish_output(z: Tensor) -> Tensor:
    """z n / (n + 2) with n = e (e + 2), e = exp(z): tanh(ln(1 + e)) with one exponential, and no cancellation.

    From z = 20 on tanh is 1 to the last bit of a double.
    """
    e = torch.exp(torch.clamp_max(z, 20.0))
    n = (e + 2).mul_(e)
    above = n + 2
    return n.mul_(z).div_(above)


def mish(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """With n as above and r = 1 / (n + 2): r (n + 4 z (n - e) r)."""
    e = torch.exp(torch.clamp_max(z, 20.0))
    n = (e + 2).mul_(e)
    r = (n + 2).reciprocal_()
    slope = torch.sub(n, e).mul_(z).mul_(r)
    return n.add_(slope, alpha=4.0).mul_(r).mul_(gradient)


def softplus(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.softplus_backward(gradient, z, 1, 20, grad_input=gradient)


def hardswish(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardswish_backward(gradient, z, out=gradient)


def hardtanh_output(z: Tensor) -> Tensor:
    return aten.hardtanh_(z, -1.0, 1.0)


def hardtanh(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardtanh_backward(gradient, h, -1.0, 1.0, grad_input=gradient)


def relu6_output(z: Tensor) -> Tensor:
    return aten.hardtanh_(z, 0.0, 6.0)


def relu6(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardtanh_backward(gradient, h, 0.0, 6.0, grad_input=gradient)


def relu_squared(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient * (2 * torch.clamp_min(z, 0))


def softsign(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient / (1 + z.abs()).square()


def maxout(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """The larger piece has it all; equal ones share it."""
    first, second = z.chunk(2, -1)
    to_first = torch.sub(first, second).sign_().add_(1).mul_(0.5).mul_(gradient)
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
    return aten._prelu_kernel(z, own)


def by_prelu(gradient: Tensor, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    above = aten.threshold_backward(gradient, z, 0)
    below = gradient - above
    return torch.addcmul(above, below, own), below.mul_(z).sum([1, 2])


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

# Outputs in the place of pre-activations that no derivative needs, and those quicker than by the module itself.
OUTPUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid_,
    "tanh": torch.tanh_,
    "relu": torch.relu_,
    "leaky_relu": leaky_relu_output,
    "elu": elu_output,
    "celu": torch.celu_,
    "selu": torch.selu_,
    "hardtanh": hardtanh_output,
    "relu6": relu6_output,
    "mish": mish_output,
}
# Derivatives (and outputs) that differ from autograd's in the last bits.
ROUNDED = frozenset({"celu", "elu", "mish", "selu", "softsign"})

# the function of z and `own`, and the gradients (by z and by each member's own number)
Learned = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]]
LEARNED: Mapping[str, Learned] = {"prelu": (prelu, by_prelu), "snake": (snake, by_snake)}
