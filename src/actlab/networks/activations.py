"""The table of activation functions: one row each, and any other by the dotted path of its class.

An activation is a module that maps pre-activations (..., k * H) to outputs (..., H), where k is its number of
pre-activations per unit (1 for the pointwise ones, 2 for maxout and the gated ones).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn import functional

from actlab.errors import InputError


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
