"""The activation functions, one record each, and any other by the dotted path of its class.

An activation maps pre-activations (..., k H) to outputs (..., H), where k is its number of pre-activations per unit
(1 for the pointwise ones, 2 for maxout and the gated ones).

What needs torch stands in a record as a path that is imported when somebody trains, so that settings, reports and the
command line read the table without torch.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol

from actlab.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# what has no module in its path
FUNCTIONS = "actlab.networks.activation_functions"


class OnnxGraph(Protocol):
    """What an ONNX form adds its nodes to. Values are known by name; every method returns that of what it computes."""

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""

    def single(self, value: Any) -> str:
        """A float32 constant."""

    def halves(self, z: str) -> tuple[str, str]:
        """The first and the second half of the columns."""


# Of the graph, pre-activations z (N, k H) and what the layer learned, by name: outputs (N, H), all of them float32.
OnnxForm = Callable[[OnnxGraph, str, Mapping[str, Any]], str]


@dataclass(frozen=True)
class Activation:
    """One record: what an activation is, then fields that may be left out.

    Paths are dotted, or names in `actlab.networks.activation_functions`.

    Args:
        name: The name used in configurations and results.
        module: Path of its `nn.Module` class, or of another callable without arguments that builds it.
        formula: What it computes from a pre-activation z (or two, a and b).
        source: Where it was proposed.
        width_factor: Pre-activations per unit, k.
        parameters: What it learns besides the weights, per layer; empty for most.
        derivative: Path of a function for compiled steps: the gradient by z from the gradient by the outputs h, from z
            and from h. Without it, autograd trains.
        outputs: Path of a function of z that compiled steps take for the module: quicker, or in the place of z where
            the derivative needs h alone.
        is_rounded: Whether compiled steps differ from autograd in the last bits.
        learned: For compiled steps of an activation that learns one number a layer: paths of its function of z and that
            number, and of both gradients, from the gradient by the outputs, z and the number.
        onnx: Adds it to an ONNX graph. Without it, torch's exporter writes the module.
        gain: Of initial weights; without it, found from the second moment of the outputs.
        look: Its number among the colours and markers of figures; without it, a hash of the name.
    """

    name: str
    module: str
    formula: str
    source: str
    width_factor: int = 1
    parameters: str = ""
    derivative: str = ""
    outputs: str = ""
    is_rounded: bool = False
    learned: tuple[str, str] | None = None
    onnx: OnnxForm | None = None
    gain: float | None = None
    look: int | None = None

    def build(self) -> "nn.Module":
        """A new module of this activation; never shared between layers, so that learned slopes are not."""
        module: nn.Module = load(self.module)()
        return module


def load(path: str) -> Any:
    """What a path of a record names, imported now."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module or FUNCTIONS), name)


def operator(name: str, **attributes: Any) -> OnnxForm:
    """The form of what is one operator of ONNX."""
    return lambda graph, z, learned: graph.add(name, z, **attributes)


def clip(low: float, high: float) -> OnnxForm:
    return lambda graph, z, learned: graph.add("Clip", z, graph.single(low), graph.single(high))


def gated(gate: OnnxForm) -> OnnxForm:
    """One half of the pre-activations, through `gate`, times the other half."""

    def form(graph: OnnxGraph, z: str, learned: Mapping[str, Any]) -> str:
        first, second = graph.halves(z)
        return graph.add("Mul", gate(graph, first, learned), second)

    return form


def gelu(graph: OnnxGraph, z: str, learned: Mapping[str, Any]) -> str:
    erf = graph.add("Erf", graph.add("Mul", z, graph.single(0.5**0.5)))
    return graph.add("Mul", graph.add("Mul", z, graph.single(0.5)), graph.add("Add", erf, graph.single(1.0)))


def one_plus_exp_minus(graph: OnnxGraph, z: str) -> str:
    """The reciprocal of the sigmoid, because onnxruntime's own Sigmoid is 0 below -18, which a gate multiplies."""
    return graph.add("Add", graph.add("Exp", graph.add("Neg", z)), graph.single(1.0))


def silu(graph: OnnxGraph, z: str, learned: Mapping[str, Any]) -> str:
    return graph.add("Div", z, one_plus_exp_minus(graph, z))


def prelu(graph: OnnxGraph, z: str, learned: Mapping[str, Any]) -> str:
    slope = graph.add("Mul", z, graph.single(learned["slope"]))
    return graph.add("Where", graph.add("GreaterOrEqual", z, graph.single(0.0)), z, slope)


def snake(graph: OnnxGraph, z: str, learned: Mapping[str, Any]) -> str:
    frequency = learned["frequency"]
    sine = graph.add("Sin", graph.add("Mul", z, graph.single(frequency)))
    return graph.add("Add", z, graph.add("Div", graph.add("Mul", sine, sine), graph.single(frequency + 1e-9)))


# Looks are given out so that the first eight, a colour each, are those that readers know best.
# fmt: off
ACTIVATIONS: tuple[Activation, ...] = (
    Activation("identity", "torch.nn.Identity", "z", "no activation: the network is a linear model",
        derivative="identity", onnx=operator("Identity"), look=7),
    Activation("sigmoid", "torch.nn.Sigmoid", "1 / (1 + exp(-z))", "Rumelhart, Hinton & Williams 1986",
        derivative="sigmoid", outputs="torch.sigmoid_", look=1,
        onnx=lambda graph, z, learned: graph.add("Reciprocal", one_plus_exp_minus(graph, z))),
    Activation("tanh", "torch.nn.Tanh", "tanh(z)", "LeCun, Bottou, Orr & Mueller 1998",
        derivative="tanh", outputs="torch.tanh_", onnx=operator("Tanh"), look=2),
    Activation("relu", "torch.nn.ReLU", "max(0, z)", "Nair & Hinton 2010",
        derivative="relu", outputs="torch.relu_", onnx=operator("Relu"), look=0),
    Activation("leaky_relu", "torch.nn.LeakyReLU", "z if z >= 0 else 0.01 z", "Maas, Hannun & Ng 2013",
        derivative="leaky_relu", outputs="torch.nn.functional.leaky_relu_", onnx=operator("LeakyRelu", alpha=0.01),
        look=3),
    Activation("maxout", "Maxout", "max(a, b)", "Goodfellow et al. 2013", width_factor=2, derivative="maxout",
        onnx=lambda graph, z, learned: graph.add("Max", *graph.halves(z)), look=4),
    Activation("prelu", "PReLU", "z if z >= 0 else s z", "He, Zhang, Ren & Sun 2015", parameters="slope s, from 0.25",
        learned=("prelu", "by_prelu"), onnx=prelu, look=8),
    Activation("rrelu", "RReLU", "z if z >= 0 else r z, r ~ U(1/8, 1/3) in training", "Xu, Wang, Chen & Li 2015",
        onnx=operator("LeakyRelu", alpha=(1 / 8 + 1 / 3) / 2), look=13),
    Activation("elu", "torch.nn.ELU", "z if z >= 0 else exp(z) - 1", "Clevert, Unterthiner & Hochreiter 2016",
        derivative="elu", outputs="torch.nn.functional.elu_", is_rounded=True, onnx=operator("Elu"), look=9),
    Activation("celu", "torch.nn.CELU", "max(0, z) + min(0, a (exp(z / a) - 1)), a = 1", "Barron 2017",
        derivative="elu", outputs="torch.celu_", is_rounded=True, onnx=operator("Celu"), look=14),
    Activation("selu", "torch.nn.SELU", "1.0507 (z if z >= 0 else 1.6733 (exp(z) - 1))", "Klambauer et al. 2017",
        # its fixed point asks for LeCun normal weights
        derivative="selu", outputs="torch.selu_", is_rounded=True, onnx=operator("Selu"), gain=1.0, look=10),
    Activation("gelu", "torch.nn.GELU", "z Phi(z)", "Hendrycks & Gimpel 2016",
        derivative="gelu", onnx=gelu, look=6),
    Activation("silu", "torch.nn.SiLU", "z sigmoid(z)",
        "Elfwing, Uchibe & Doya 2018; Ramachandran et al. 2017 (Swish)",
        derivative="silu", onnx=silu, look=5),
    Activation("mish", "torch.nn.Mish", "z tanh(ln(1 + exp(z)))", "Misra 2019",
        derivative="mish", outputs="mish_outputs", is_rounded=True, look=11,
        onnx=lambda graph, z, learned: graph.add("Mul", z, graph.add("Tanh", graph.add("Softplus", z)))),
    Activation("softplus", "torch.nn.Softplus", "ln(1 + exp(z))", "Dugas et al. 2001",
        derivative="softplus", onnx=operator("Softplus"), look=12),
    Activation("softsign", "torch.nn.Softsign", "z / (1 + |z|)", "Bergstra et al. 2009",
        derivative="softsign", is_rounded=True, onnx=operator("Softsign"), look=15),
    Activation("hardswish", "torch.nn.Hardswish", "z min(max(z + 3, 0), 6) / 6", "Howard et al. 2019",
        derivative="hardswish", onnx=operator("HardSwish"), look=16),
    Activation("hardtanh", "torch.nn.Hardtanh", "min(max(z, -1), 1)", "Collobert 2004",
        derivative="hardtanh", outputs="torch.nn.functional.hardtanh_", onnx=clip(-1.0, 1.0), look=17),
    Activation("relu6", "torch.nn.ReLU6", "min(max(0, z), 6)", "Krizhevsky 2010",
        derivative="relu6", outputs="relu6_outputs", onnx=clip(0.0, 6.0), look=18),
    Activation("relu_squared", "ReLUSquared", "max(0, z)^2", "So et al. 2021 (Primer)",
        derivative="relu_squared", look=19,
        onnx=lambda graph, z, learned: graph.add("Pow", graph.add("Relu", z), graph.single(2.0))),
    Activation("snake", "Snake", "z + sin(a z)^2 / a", "Ziyin, Hartwig & Ueda 2020", parameters="frequency a, from 1",
        learned=("snake", "by_snake"), onnx=snake, look=20),
    Activation("geglu", "GEGLU", "gelu(a) b", "Shazeer 2020", width_factor=2,
        derivative="geglu", onnx=gated(gelu), look=21),
    Activation("reglu", "ReGLU", "relu(a) b", "Shazeer 2020", width_factor=2,
        derivative="reglu", onnx=gated(operator("Relu")), look=22),
    Activation("swiglu", "SwiGLU", "silu(a) b", "Shazeer 2020", width_factor=2,
        derivative="swiglu", onnx=gated(silu), look=23),
)
# fmt: on

BY_NAME = {row.name: row for row in ACTIVATIONS}


def get(name: str) -> Activation:
    """The record of that name, or one made from the dotted path of an `nn.Module` class (`package.module.Class`).

    A class of one's own may have a class attribute `width_factor` (pre-activations per unit; 1 if absent).

    Raises:
        InputError: no such name, and no such class.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    module, _, class_name = name.rpartition(".")
    if "." not in name:
        close = get_close_matches(name, BY_NAME, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(f"unknown activation {name!r}{hint}; known are {', '.join(BY_NAME)}, or package.module.Class")
    from torch import nn

    try:
        found = load(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"activation {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"activation {name!r} must be a subclass of torch.nn.Module that is built without arguments")
    doc = (found.__doc__ or "").strip().splitlines()
    return Activation(name, name, doc[0] if doc else class_name, module, int(getattr(found, "width_factor", 1)))
