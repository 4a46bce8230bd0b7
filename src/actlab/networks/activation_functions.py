"""What the records of activations name: modules of their own, and functions for compiled steps.

A derivative maps the gradient of the loss by the outputs h (..., H), the pre-activations z (..., k H) and h to the
gradient by z, to the bits of autograd except where that takes much longer (`is_rounded`). Memory that is written is
what a step of small networks waits for, so a result may take the place of the gradient. Some kernels of torch are slow
on a CPU (`where`, products with booleans, `mish` and its derivative), so what needs them is put together from fast
ones. Functions of activations that learn a number take it as `own` (P, 1, 1). All are compiled by TorchScript.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

aten = torch.ops.aten


def identity(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return gradient


def sigmoid(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.sigmoid_backward(gradient, h, grad_input=gradient)


def tanh(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.tanh_backward(gradient, h, grad_input=gradient)


def relu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.threshold_backward(gradient, h, 0, grad_input=gradient)


def leaky_relu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.leaky_relu_backward(gradient, h, 0.01, True, grad_input=gradient)


def elu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """From the outputs, which saves the exponential."""
    return aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, h, grad_input=gradient)


def selu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """From the outputs, which saves the exponential."""
    return aten.elu_backward(gradient, 1.6732632423543772, 1.0507009873554805, 1.0, True, h, grad_input=gradient)


def gelu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.gelu_backward(gradient, z, grad_input=gradient)


def silu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.silu_backward(gradient, z, grad_input=gradient)


def mish_outputs(z: Tensor) -> Tensor:
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


def hardtanh(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return aten.hardtanh_backward(gradient, h, -1.0, 1.0, grad_input=gradient)


def relu6_outputs(z: Tensor) -> Tensor:
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


def by_gate_and_value(gradient: Tensor, by_gate: Tensor, gate_output: Tensor) -> Tensor:
    return torch.cat([by_gate, gradient * gate_output], -1)


def geglu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate, value = z.chunk(2, -1)
    return by_gate_and_value(gradient, aten.gelu_backward(gradient * value, gate), aten.gelu(gate))


def reglu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate, value = z.chunk(2, -1)
    return by_gate_and_value(gradient, aten.threshold_backward(gradient * value, gate, 0), aten.relu(gate))


def swiglu(gradient: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate, value = z.chunk(2, -1)
    return by_gate_and_value(gradient, aten.silu_backward(gradient * value, gate), aten.silu(gate))


def prelu(z: Tensor, own: Tensor) -> Tensor:
    return aten._prelu_kernel(z, own)


def by_prelu(gradient: Tensor, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    above = aten.threshold_backward(gradient, z, 0)
    below = gradient - above
    return torch.addcmul(above, below, own), below.mul_(z).sum([1, 2])


def snake(z: Tensor, own: Tensor) -> Tensor:
    # 1e-9 as in BigVGAN's implementation: the frequency may cross zero
    return z + torch.sin(own * z).square() / (own + 1e-9)


def by_snake(gradient: Tensor, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    sine, above = torch.sin(own * z), own + 1e-9
    slope = 2 * sine * torch.cos(own * z) / above
    by_own = gradient * (slope * z - (sine / above).square())
    return gradient * (1 + slope * own), by_own.sum([1, 2])


class Maxout(nn.Module):
    """The larger of two linear pieces."""

    def forward(self, z: Tensor) -> Tensor:
        first, second = z.chunk(2, dim=-1)
        return torch.maximum(first, second)


class Gated(nn.Module):
    """One half of the pre-activations, through a nonlinearity, gates the other half."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, z: Tensor) -> Tensor:
        gate, value = z.chunk(2, dim=-1)
        return self.gate(gate) * value


GEGLU, ReGLU, SwiGLU = (partial(Gated, gate) for gate in (functional.gelu, functional.relu, functional.silu))


class RReLU(nn.Module):
    """Leaky ReLU whose negative slope is drawn anew for every value in training, and is its mean otherwise.

    `uniform` draws numbers in [0, 1) of a given shape; a population puts its members' own streams there, because
    torch's RReLU takes no generator.
    """

    lower, upper = 1 / 8, 1 / 3

    def __init__(self) -> None:
        super().__init__()
        self.uniform: Callable[[torch.Size], Tensor] = torch.rand

    def forward(self, z: Tensor) -> Tensor:
        if not self.training:
            return functional.leaky_relu(z, (self.lower + self.upper) / 2)
        slope = self.lower + (self.upper - self.lower) * self.uniform(z.shape).to(z)
        return torch.where(z >= 0, z, slope * z)


class Snake(nn.Module):
    """A line with a periodic part whose frequency is learned, one a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        return snake(z, self.frequency)


class PReLU(nn.Module):
    """Leaky ReLU whose slope is learned, one a layer: torch's own, with a slope that has no axis."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.25))

    def forward(self, z: Tensor) -> Tensor:
        return torch.prelu(z, self.slope.to(z.dtype))


class ReLUSquared(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return functional.relu(z).square()
