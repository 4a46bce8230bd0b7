"""Building an ONNX graph node by node, and every activation of the table in ONNX operators.

Written with the operators' own definitions rather than traced: strings and float64 come out as they should, and the
extra `onnx` is all it takes.
"""

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.networks.activations import RReLU

Parameters = Mapping[str, NDArray[np.float32]]


def import_onnx() -> ModuleType:
    """The package `onnx`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("export needs the package onnx, which is not installed: pip install 'actlab[onnx]'") from None
    module: ModuleType = onnx
    return module


class Graph:
    """A graph in the making. Values are known by name; each `add` returns the name of what it computes."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def _name(self, kind: str) -> str:
        # no column is called so: names of columns are stripped
        return f" {kind} {len(self._nodes) + len(self._constants)}"

    def type(self, name: str) -> int:
        """The number of an element type, such as FLOAT."""
        number: int = getattr(self._onnx.TensorProto, name)
        return number

    def add(self, operator: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        output = output or self._name(operator)
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        """A tensor of the array's own type."""
        name = self._name("constant")
        self._constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def double(self, value: float) -> str:
        """A float64 scalar."""
        return self.constant(np.array(value, dtype=np.float64))

    def single(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.array(value, dtype=np.float32))

    def label_encoder(self, texts: str, codes: Mapping[str, int], default: int) -> str:
        """int64 codes of texts, in their shape."""
        keys, values = list(codes), list(codes.values())
        return self.add(
            "LabelEncoder",
            texts,
            domain="ai.onnx.ml",
            keys_strings=keys,
            values_int64s=values,
            default_int64=default,
        )

    def model(self, inputs: Mapping[str, str], output: str, opset: int) -> Any:
        """The model: inputs (N, 1) with their element types, one float64 output (N,)."""
        helper = self._onnx.helper
        infos = [helper.make_tensor_value_info(name, self.type(kind), ["N", 1]) for name, kind in inputs.items()]
        result = helper.make_tensor_value_info(output, self.type("DOUBLE"), ["N"])
        graph = helper.make_graph(self._nodes, "actlab", infos, [result], self._constants)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def activate(graph: Graph, name: str, z: str, learned: Parameters) -> str:
    """(N, H) outputs of the activation `name` for pre-activations z (N, k H).

    Args:
        graph: To add nodes to.
        name: From the table.
        z: Float32.
        learned: What the layer learned besides its weights.

    Raises:
        InputError: an activation by `class_path`, which has no ONNX form.
    """
    if name not in FORMS:
        raise InputError(f"the activation {name!r} cannot be exported; those of `actlab activations` can")
    return FORMS[name](graph, z, learned)


def _one(operator: str, **attributes: Any) -> Callable[[Graph, str, Parameters], str]:
    return lambda graph, z, learned: graph.add(operator, z, **attributes)


def _clip(low: float, high: float) -> Callable[[Graph, str, Parameters], str]:
    return lambda graph, z, learned: graph.add("Clip", z, graph.single(low), graph.single(high))


def _gelu(graph: Graph, z: str, learned: Parameters) -> str:
    erf = graph.add("Erf", graph.add("Mul", z, graph.single(math.sqrt(0.5))))
    return graph.add("Mul", graph.add("Mul", z, graph.single(0.5)), graph.add("Add", erf, graph.single(1.0)))


def _sigmoid(graph: Graph, z: str, learned: Parameters) -> str:
    # onnxruntime's own Sigmoid is 0 below -18, which a gate multiplies
    return graph.add("Reciprocal", _one_plus_exp_minus(graph, z))


def _silu(graph: Graph, z: str, learned: Parameters) -> str:
    return graph.add("Div", z, _one_plus_exp_minus(graph, z))


def _one_plus_exp_minus(graph: Graph, z: str) -> str:
    return graph.add("Add", graph.add("Exp", graph.add("Neg", z)), graph.single(1.0))


def _mish(graph: Graph, z: str, learned: Parameters) -> str:
    return graph.add("Mul", z, graph.add("Tanh", graph.add("Softplus", z)))


def _relu_squared(graph: Graph, z: str, learned: Parameters) -> str:
    positive = graph.add("Relu", z)
    return graph.add("Mul", positive, positive)


def _prelu(graph: Graph, z: str, learned: Parameters) -> str:
    slope = graph.add("Mul", z, graph.constant(learned["slope"]))
    return graph.add("Where", graph.add("GreaterOrEqual", z, graph.single(0.0)), z, slope)


def _snake(graph: Graph, z: str, learned: Parameters) -> str:
    frequency = learned["frequency"]
    sine = graph.add("Sin", graph.add("Mul", z, graph.constant(frequency)))
    wave = graph.add("Div", graph.add("Mul", sine, sine), graph.constant(np.asarray(frequency + np.float32(1e-9))))
    return graph.add("Add", z, wave)


def _halves(graph: Graph, z: str) -> tuple[str, str]:
    """The first and the second half of the columns; `Split` has two outputs, so the halves are sliced."""
    half = graph.add("Div", graph.add("Shape", z, start=1), graph.constant(np.array([2])))
    axis = graph.constant(np.array([1]))
    end = graph.constant(np.array([np.iinfo(np.int64).max]))
    first = graph.add("Slice", z, graph.constant(np.array([0])), half, axis)
    return first, graph.add("Slice", z, half, end, axis)


def _maxout(graph: Graph, z: str, learned: Parameters) -> str:
    return graph.add("Max", *_halves(graph, z))


def _gated(gate: Callable[[Graph, str, Parameters], str]) -> Callable[[Graph, str, Parameters], str]:
    def form(graph: Graph, z: str, learned: Parameters) -> str:
        first, second = _halves(graph, z)
        return graph.add("Mul", gate(graph, first, learned), second)

    return form


FORMS: dict[str, Callable[[Graph, str, Parameters], str]] = {
    "identity": _one("Identity"),
    "sigmoid": _sigmoid,
    "tanh": _one("Tanh"),
    "relu": _one("Relu"),
    "leaky_relu": _one("LeakyRelu", alpha=0.01),
    "maxout": _maxout,
    "prelu": _prelu,
    "rrelu": _one("LeakyRelu", alpha=(RReLU.lower + RReLU.upper) / 2),
    "elu": _one("Elu", alpha=1.0),
    "celu": _one("Celu", alpha=1.0),
    "selu": _one("Selu"),
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "softplus": _one("Softplus"),
    "softsign": _one("Softsign"),
    "hardswish": _one("HardSwish"),
    "hardtanh": _clip(-1.0, 1.0),
    "relu6": _clip(0.0, 6.0),
    "relu_squared": _relu_squared,
    "snake": _snake,
    "geglu": _gated(_gelu),
    "reglu": _gated(_one("Relu")),
    "swiglu": _gated(_silu),
}
