"""The activation functions: formula, source and module of each, and its derivative for compiled steps.

Derivatives of the activations of the table, as functions of tensors that TorchScript compiles.

Each maps the gradient of the loss by the outputs h (..., H) and the pre-activations z (..., k H) to the gradient by z,
to the bits of autograd, except where that takes much longer (`ROUNDED`). Memory that is written is what a step of small
networks waits for, so a result may take the place of the gradient, and outputs that of the pre-activations (`OUTPUTS`).
Some kernels of torch are slow on a CPU (`where`, products with booleans, `mish` and its derivative), so what needs them
is put together from fast ones. Those with a learned number per layer, `own` (P, 1, 1), are written out both ways. What
is not listed here (random slopes, classes of one's own) trains by autograd.

The table of activation functions: one row each, and any other by the dotted path of its class.

An activation is a module that maps pre-activations (..., k * H) to outputs (..., H), where k is its number of
pre-activations per unit (1 for the pointwise ones, 2 for maxout and the gated ones).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn import functional

from actlab.errors import InputError

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
        # 1e-9 as in BigVGAN's implementation: the frequency may cross zero
        return z + torch.sin(self.frequency * z).square() / (self.frequency + 1e-9)


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


@dataclass(frozen=True)
class Activation:
    """One row of the table.

    Args:
        name: The name used in configurations and results.
        factory: Builds a fresh module; never shared between layers, so that learned slopes are not.
        formula: What it computes from a pre-activation z (or two, a and b).
        source: Where it was proposed.
        width_factor: Pre-activations per unit, k.
        parameters: What it learns besides the weights, per layer; empty for most.
    """

    name: str
    factory: Callable[[], nn.Module]
    formula: str
    source: str
    width_factor: int = 1
    parameters: str = ""

    def build(self) -> nn.Module:
        """A new module of this activation."""
        return self.factory()


ACTIVATIONS: tuple[Activation, ...] = (
    Activation("identity", nn.Identity, "z", "no activation: the network is a linear model"),
    Activation("sigmoid", nn.Sigmoid, "1 / (1 + exp(-z))", "Rumelhart, Hinton & Williams 1986"),
    Activation("tanh", nn.Tanh, "tanh(z)", "LeCun, Bottou, Orr & Mueller 1998"),
    Activation("relu", nn.ReLU, "max(0, z)", "Nair & Hinton 2010"),
    Activation("leaky_relu", nn.LeakyReLU, "z if z >= 0 else 0.01 z", "Maas, Hannun & Ng 2013"),
    Activation("maxout", Maxout, "max(a, b)", "Goodfellow et al. 2013", width_factor=2),
    Activation("prelu", PReLU, "z if z >= 0 else s z", "He, Zhang, Ren & Sun 2015", parameters="slope s, from 0.25"),
    Activation("rrelu", RReLU, "z if z >= 0 else r z, r ~ U(1/8, 1/3) in training", "Xu, Wang, Chen & Li 2015"),
    Activation("elu", nn.ELU, "z if z >= 0 else exp(z) - 1", "Clevert, Unterthiner & Hochreiter 2016"),
    Activation("celu", nn.CELU, "max(0, z) + min(0, a (exp(z / a) - 1)), a = 1", "Barron 2017"),
    Activation("selu", nn.SELU, "1.0507 (z if z >= 0 else 1.6733 (exp(z) - 1))", "Klambauer et al. 2017"),
    Activation("gelu", nn.GELU, "z Phi(z)", "Hendrycks & Gimpel 2016"),
    Activation("silu", nn.SiLU, "z sigmoid(z)", "Elfwing, Uchibe & Doya 2018; Ramachandran et al. 2017 (Swish)"),
    Activation("mish", nn.Mish, "z tanh(ln(1 + exp(z)))", "Misra 2019"),
    Activation("softplus", nn.Softplus, "ln(1 + exp(z))", "Dugas et al. 2001"),
    Activation("softsign", nn.Softsign, "z / (1 + |z|)", "Bergstra et al. 2009"),
    Activation("hardswish", nn.Hardswish, "z min(max(z + 3, 0), 6) / 6", "Howard et al. 2019"),
    Activation("hardtanh", nn.Hardtanh, "min(max(z, -1), 1)", "Collobert 2004"),
    Activation("relu6", nn.ReLU6, "min(max(0, z), 6)", "Krizhevsky 2010"),
    Activation("relu_squared", ReLUSquared, "max(0, z)^2", "So et al. 2021 (Primer)"),
    Activation("snake", Snake, "z + sin(a z)^2 / a", "Ziyin, Hartwig & Ueda 2020", parameters="frequency a, from 1"),
    Activation("geglu", lambda: Gated(functional.gelu), "gelu(a) b", "Shazeer 2020", width_factor=2),
    Activation("reglu", lambda: Gated(functional.relu), "relu(a) b", "Shazeer 2020", width_factor=2),
    Activation("swiglu", lambda: Gated(functional.silu), "silu(a) b", "Shazeer 2020", width_factor=2),
)

_BY_NAME = {row.name: row for row in ACTIVATIONS}


def is_known(name: str) -> bool:
    """Whether it is a row of the table, and not a class of one's own."""
    return name in _BY_NAME


def get(name: str) -> Activation:
    """The row of that name, or one made from the dotted path of an `nn.Module` class (`package.module.Class`).

    A class of one's own may have a class attribute `width_factor` (pre-activations per unit; 1 if absent).

    Raises:
        InputError: no such name, and no such class.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    if "." in name:
        return _from_class_path(name)
    close = get_close_matches(name, _BY_NAME, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(f"unknown activation {name!r}{hint}; known are {', '.join(_BY_NAME)}, or package.module.Class")


def _from_class_path(path: str) -> Activation:
    module_name, _, class_name = path.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"activation {path!r} cannot be imported: {error}") from error
    if not (isinstance(factory, type) and issubclass(factory, nn.Module)):
        raise InputError(f"activation {path!r} must be a subclass of torch.nn.Module that is built without arguments")
    doc = (factory.__doc__ or "").strip().splitlines()
    formula = doc[0] if doc else class_name
    return Activation(path, factory, formula, module_name, width_factor=int(getattr(factory, "width_factor", 1)))
