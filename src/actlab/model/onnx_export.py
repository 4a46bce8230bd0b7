"""An ensemble as one ONNX graph, from raw columns to the prediction in the unit of the target.

Written with the operators' own definitions rather than traced, so that strings and float64 come out as they should;
torch's exporter writes only an activation whose record has no ONNX form, or a class of one's own.

Every feature column is an input of its own name, shape (N, 1): numbers as float64 with NaN for missing (dates as days
since 1970-01-01), categories as text, with an empty one or a text of `data.na_values` for missing. Texts are read as
those of a file are: blanks around them do not count, and `1.00` is `1`. The only output, `prediction`, is (N,) float64;
a column of that name is the input `prediction (column)`. Target, id and other facts stand in the model's metadata.

Preprocessing differs from member to member, yet is linear in one set of inputs but for the scaling of numbers: the
one-hot columns of all categories that any member knows. A member's own encoding is folded into its first layer.
"""

import importlib
import json
import logging
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from actlab import __version__, activations
from actlab.activations import Activation
from actlab.data.columns import Column
from actlab.data.formats import PLAIN, Format
from actlab.data.preprocessing import (
    CYCLES,
    HUGE,
    SMOOTH_BOUND,
    CategoryRule,
    DateRule,
    NumberRule,
    Preprocessor,
    TargetRule,
)
from actlab.data.target import MAX_LOG
from actlab.errors import InputError
from actlab.model.checkpoint import config_hash, plain
from actlab.model.ensemble import Ensemble, load
from actlab.networks.network import forward_pass
from actlab.networks.trained import TrainedNetwork
from actlab.run_files import check_output, write_atomically

Parameters = Mapping[str, NDArray[np.float32]]

# of the operators; newer ones are read by fewer runtimes. RegexFullMatch came with it.
OPSET = 20
OUTPUT = "prediction"
# what `str.strip` takes off, in the syntax of RE2
BLANKS = r"[\t-\r\x1c- \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]*"
# Characters of a pattern at most: with twice as many RE2 runs out of memory and becomes slow.
PATTERN_LENGTH = 8_000


def import_onnx(name: str = "onnx") -> ModuleType:
    """A package of the extra `onnx`, or an `InputError` that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        rule = f"export needs the package {name}, which is not installed"
        raise InputError(f"{rule}: pip install 'actlab[onnx]'") from None


class Graph:
    """A graph in the making. Values are known by name; each `add` returns the name of what it computes."""

    def __init__(self) -> None:
        # what torch's exporter made of an activation at a width, to be written once
        self.traced: dict[tuple[str, int], Any] = {}
        self._onnx = import_onnx()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def _name(self, kind: str) -> str:
        # no column is called so: names of columns are stripped
        return f" {kind} {len(self._nodes) + len(self._constants)}"

    def type(self, name: str) -> int:
        """The number of an element type, such as FLOAT."""
        return int(getattr(self._onnx.TensorProto, name))

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

    def double(self, value: float | Sequence[float]) -> str:
        """A float64 tensor, mostly a scalar."""
        return self.constant(np.array(value, dtype=np.float64))

    def single(self, value: float | NDArray[np.float32]) -> str:
        """A float32 tensor, mostly a scalar."""
        return self.constant(np.array(value, dtype=np.float32))

    def halves(self, z: str) -> tuple[str, str]:
        """The first and the second half of the columns."""
        halves = self._name("first half"), self._name("second half")
        self._nodes.append(self._onnx.helper.make_node("Split", [z], halves, axis=1, num_outputs=2))
        return halves

    def merge(self, model: Any, inputs: Sequence[str]) -> str:
        """The nodes of a model with one output, whose inputs are values of this graph."""
        added = self._onnx.compose.add_prefix(model, self._name("merged") + " ").graph
        for own, given in zip(inputs, added.input, strict=True):
            self.add("Identity", own, output=given.name)
        self._nodes += added.node
        self._constants += added.initializer
        return str(added.output[0].name)

    def model(self, inputs: Mapping[str, str], output: str) -> Any:
        """The model: inputs (N, 1) with their element types, one float64 output (N,)."""
        helper = self._onnx.helper
        infos = [helper.make_tensor_value_info(name, self.type(kind), ["N", 1]) for name, kind in inputs.items()]
        result = helper.make_tensor_value_info(output, self.type("DOUBLE"), ["N"])
        graph = helper.make_graph(self._nodes, "actlab", infos, [result], self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def activate(graph: Graph, name: str, z: str, learned: Parameters, width: int) -> str:
    """(N, H) outputs of an activation for pre-activations z (N, width = k H) and what the layer learned, in float32.

    Raises:
        InputError: there is no ONNX form, and torch's exporter cannot write one.
    """
    row = activations.get(name)
    if row.onnx is not None:
        return row.onnx(graph, z, learned)
    if (name, width) not in graph.traced:
        graph.traced[name, width] = _traced(row, learned, width)
    return graph.merge(graph.traced[name, width], [z, *(graph.single(value) for value in learned.values())])


class _Functional(nn.Module):
    """A module as a function of its input and of what it learns, each an input of the graph."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        # a list hides the module: its own values would become constants
        self.hidden, self.names = [module], names

    def forward(self, z: Tensor, *learned: Tensor) -> Tensor:
        given = dict(zip(self.names, learned, strict=True))
        outputs: Tensor = torch.func.functional_call(self.hidden[0], given, (z,))
        return outputs


def _traced(row: Activation, learned: Parameters, width: int) -> Any:
    """An activation's module as an `onnx.ModelProto` of z (N, width) and what it learned, by torch's exporter."""
    import_onnx("onnxscript")
    inputs = [torch.zeros(3, width), *(torch.from_numpy(np.asarray(value)) for value in learned.values())]
    # the number of rows stays open
    shapes: dict[str, Any] = {"z": {0: torch.export.Dim("N")}} | ({"learned": ({},) * len(learned)} if learned else {})
    module = _Functional(row.build().eval(), list(learned)).eval()
    # without what the exporter says of torchvision and of itself
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                module, tuple(inputs), dynamo=True, dynamic_shapes=shapes, opset_version=OPSET, verbose=False
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise InputError(
            f"the activation {row.name!r} cannot be exported: it has no ONNX form of its own, and torch.onnx cannot "
            f"write one ({reason}); docs/add_an_activation.md says what a class needs"
        ) from error
    finally:
        logger.setLevel(level)
    model = program.model_proto  # type: ignore[union-attr]  # a program, since dynamo is asked for
    return import_onnx("onnx.inliner").inline_local_functions(model)


def export_file(
    ckpt_path: str | Path, output_path: str | Path, overwrite: bool = False, allow_code: bool = False
) -> None:
    """`actlab export`: write the model of a checkpoint as ONNX, whole or not at all.

    Raises:
        InputError: a path or the model cannot be used, the extra `onnx` is not installed, an activation has no ONNX
            form, or the file cannot be written.
    """
    output = check_output(Path(output_path), [Path(ckpt_path)], overwrite)
    model = to_onnx(load(ckpt_path, allow_code))
    write_atomically(output, lambda temporary: temporary.write_bytes(model.SerializeToString()))


def to_onnx(ensemble: Ensemble) -> Any:
    """The model as an `onnx.ModelProto`.

    Raises:
        InputError: the extra is not installed, or an activation has no ONNX form.
    """
    onnx, graph = import_onnx(), Graph()
    columns = Columns(graph, ensemble)
    blocks = {preprocessor: columns.features(preprocessor) for preprocessor in ensemble.preprocessors}
    outputs = [
        _network(graph, one, blocks[one.preprocessor], columns.encoding(one.preprocessor)) for one in ensemble.members
    ]
    schema = ensemble.schema
    kinds = {columns.inputs[c.name]: "DOUBLE" if c.kind == "numeric" else "STRING" for c in schema.columns}
    _mean(graph, ensemble, outputs, OUTPUT)
    model = graph.model(kinds, OUTPUT)
    model.producer_name, model.producer_version = "actlab", __version__
    # what the graph does not say by itself
    facts = {
        "target": schema.target or "",
        "id": schema.id or "",
        "metric": ensemble.target.metric,
        "missing": json.dumps(["", *schema.na_values]),
        "columns": json.dumps({given: name for name, given in columns.inputs.items()}),
        "dates": json.dumps([column.name for column in schema.columns if column.format == "date"]),
        "config_hash": config_hash(plain(ensemble.config)),
        "versions": json.dumps(dict(ensemble.versions)),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model


class Columns:
    """What all members share of the raw columns, as nodes of a graph: n numbers, and S float32 columns beside them.

    These are n missing indicators, sine and cosine of the parts of dates, then U + 2 one-hot columns of each
    categorical column: the U categories that any member knows, missing, and unknown.
    """

    def __init__(self, graph: Graph, ensemble: Ensemble) -> None:
        self.graph = graph
        names = [column.name for column in ensemble.schema.columns]
        # by the column's name; an input cannot be called as the output
        self.inputs = {name: name for name in names}
        if OUTPUT in names:
            self.inputs[OUTPUT] = next(
                n for i in range(len(names)) if (n := f"{OUTPUT} (column)" + "'" * i) not in names
            )
        self._take_rules(ensemble)
        numbers, schema = [], ensemble.schema
        for column in schema.columns:
            given, missing = self.inputs[column.name], schema.missing(column)
            if column.kind == "numeric":
                numbers.append(_present(graph, given, missing))
            elif column.kind == "ordinal":
                # NaN for what is none of its categories
                ranks = graph.constant(np.array([*range(len(column.categories)), np.nan, np.nan]))
                numbers.append(graph.add("Gather", ranks, _code(graph, given, column, column.categories, missing)))
        self.shared = []
        if numbers:
            # (N, n) float64, NaN where missing; booleans
            self.x = graph.add("Clip", graph.add("Concat", *numbers, axis=1), graph.double(-HUGE), graph.double(HUGE))
            self.is_missing = graph.add("IsNaN", self.x)
            self.shared.append(graph.add("Cast", self.is_missing, to=graph.type("FLOAT")))
            places = [column.name for column in schema.columns if column.kind != "categorical"]
            for name, own_parts in self.parts.items():
                self.shared += [side for part in own_parts for side in self._cycle(places.index(name), part)]
        self.codes: dict[str, str] = {}
        columns_by_name = {column.name: column for column in schema.columns}
        for name, texts in self.categories.items():
            column = columns_by_name[name]
            code = _code(graph, self.inputs[name], column, texts, schema.missing(column))
            self.codes[name] = graph.add("Reshape", code, graph.constant(np.array([-1])))
            if name in self.one_hot:
                identity = graph.constant(np.eye(len(texts) + 2, dtype=np.float32))
                self.shared.append(graph.add("Gather", identity, self.codes[name]))

    def _take_rules(self, ensemble: Ensemble) -> None:
        """The categories and the parts of dates that any member knows, and which categories are inputs of their own."""
        known: dict[str, set[str]] = {}
        parts: dict[str, set[str]] = {}
        self.one_hot: set[str] = set()
        for rule in (rule for preprocessor in ensemble.preprocessors for rule in preprocessor.rules):
            if isinstance(rule, DateRule):
                parts.setdefault(rule.name, set()).update(rule.parts)
            elif not isinstance(rule, NumberRule):
                known.setdefault(rule.name, set()).update(rule.categories)
                self.one_hot |= {rule.name} if isinstance(rule, CategoryRule) else set()
        self.parts = {name: tuple(part for part in CYCLES if part in own) for name, own in parts.items()}
        self.categories = {name: tuple(sorted(texts)) for name, texts in known.items()}

    def _cycle(self, place: int, part: str) -> list[str]:
        """Sine and cosine (N, 1) float32 of a part of the calendar of the number at `place`, as `DateRule` has them."""
        add, double, where = self.graph.add, self.graph.double, self.graph.constant(np.array([place]))
        days, is_missing = (add("Gather", one, where, axis=1) for one in (self.x, self.is_missing))
        whole, cycle = add("Floor", days) if part == "weekday" else days, double(CYCLES[part])
        rest = add("Sub", whole, add("Mul", add("Floor", add("Div", whole, cycle)), cycle))
        angle = add("Mul", rest, double(2 * np.pi / CYCLES[part]))
        sides = (add("Sin", add("Add", angle, double(turn))) for turn in (0.0, np.pi / 2))
        known = (add("Where", is_missing, double(0.0), side) for side in sides)
        return [add("Cast", side, to=self.graph.type("FLOAT")) for side in known]

    def _cells(self, name: str) -> NDArray[np.object_]:
        """(U + 2,) the categories, and two texts more: missing, and one that nobody knows."""
        known = self.categories[name]
        return np.array([*known, None, max((*known, ""), key=len) + "?"], dtype=object)

    def _values(self, rule: TargetRule) -> str:
        """(N, 1) float32: the number that stands for each row's category."""
        values = np.zeros((len(self.categories[rule.name]) + 2, 1), dtype=np.float32)
        rule.write(self._cells(rule.name), values)
        return self.graph.add("Gather", self.graph.constant(values), self.codes[rule.name])

    def features(self, preprocessor: Preprocessor) -> str:
        """Add the nodes that scale numbers as this preprocessor does; (N, n + v + S) float32, with v mean targets."""
        rules = [rule for rule in preprocessor.rules if isinstance(rule, NumberRule)]
        shared = [*(self._values(rule) for rule in preprocessor.rules if isinstance(rule, TargetRule)), *self.shared]
        if not rules:
            return self.graph.add("Concat", *shared, axis=1)
        add, double = self.graph.add, self.graph.double

        # a quotient beyond float64 would be no number any more further on
        in_units = add("Min", add("Div", self.x, double([rule.unit for rule in rules])), double(HUGE))
        is_log = self.graph.constant(np.array([rule.is_log for rule in rules]))
        value = add("Where", is_log, _log1p(self.graph, in_units), self.x)
        value = add("Sub", value, double([rule.centre for rule in rules]))
        value = add("Mul", value, double([rule.factor for rule in rules]))
        value = add("Where", self.is_missing, double([rule.fill for rule in rules]), value)
        value = add("Max", value, double([rule.low for rule in rules]))
        value = add("Min", value, double([rule.high for rule in rules]))
        third = add("Div", value, double(SMOOTH_BOUND))
        root = add("Sqrt", add("Add", add("Mul", third, third), double(1.0)))
        is_smooth = self.graph.constant(np.array([rule.is_smooth for rule in rules]))
        smooth = add("Where", is_smooth, add("Div", value, root), value)
        return add("Concat", add("Cast", smooth, to=self.graph.type("FLOAT")), *shared, axis=1)

    def encoding(self, preprocessor: Preprocessor) -> NDArray[np.float64]:
        """(n + v + S, F): the preprocessor's F inputs are the features times this matrix of zeros and ones."""
        n, width = sum(isinstance(rule, NumberRule) for rule in preprocessor.rules), preprocessor.n_features
        scaled, missing = np.zeros((2, n, width))
        valued, cycles, one_hot = [], [], []
        start = place = 0
        for rule in preprocessor.rules:
            end = start + len(rule.feature_names)
            if isinstance(rule, NumberRule):
                own = rule.parts if isinstance(rule, DateRule) else ()
                # the number, where it is an input, and its indicator, where it has one; then the parts
                inputs = iter(range(start, end))
                if not isinstance(rule, DateRule) or rule.has_days:
                    scaled[place, next(inputs)] = 1
                if rule.has_indicator:
                    missing[place, next(inputs)] = 1
                of_part = {part: [next(inputs), next(inputs)] for part in own}
                for part in self.parts.get(rule.name, ()):
                    cycles.append(np.zeros((2, width)))
                    if part in of_part:
                        cycles[-1][[0, 1], of_part[part]] = 1
                place += 1
            else:
                block = np.zeros((len(self.categories[rule.name]) + 2, width))
                if isinstance(rule, TargetRule):
                    valued.append(np.eye(width)[start : start + 1])
                else:
                    rule.write(self._cells(rule.name), block[:, start:end])
                one_hot += [block] if rule.name in self.one_hot else []
            start = end
        return np.concatenate([scaled, *valued, missing, *cycles, *one_hot])


def _present(graph: Graph, name: str, missing: Sequence[str]) -> str:
    """The numbers, NaN in place of those that mean "missing", such as -999."""
    for number in sorted({float(text) for text in missing if PLAIN.fullmatch(text)}):
        is_missing = graph.add("Equal", name, graph.double(number))
        name = graph.add("Where", is_missing, graph.double(np.nan), name)
    return name


def _code(graph: Graph, name: str, column: Column, known: Sequence[str], missing: Sequence[str]) -> str:
    """(N, 1) int64: the position in `known`, then one number for missing texts, then one for all others.

    A cell that is none of the texts as it stands may be one of them written otherwise. Then bit b of its number, from
    1, is whether a pattern matches it: that of all texts whose number has this bit.
    """
    unknown = graph.constant(np.array(len(known) + 1))
    codes = dict.fromkeys(["", *(text.strip() for text in missing)], len(known))
    codes |= {text: i for i, text in enumerate(known)}
    facts: dict[str, Any] = {"keys_strings": list(codes), "values_int64s": list(codes.values())}
    exact = graph.add("LabelEncoder", name, domain="ai.onnx.ml", default_int64=len(known) + 1, **facts)
    is_other = graph.add("Equal", exact, unknown)
    cell = graph.add("Where", is_other, name, graph.constant(np.array("", dtype=object)))
    number = graph.constant(np.array(0))
    for bit in range((len(known) + 1).bit_length()):
        own = [_written(text, column.format) for text, code in codes.items() if (code + 1) >> bit & 1]
        while own:
            lengths = np.cumsum([len(pattern) + 1 for pattern in own])
            n = max(1, int(np.searchsorted(lengths, PATTERN_LENGTH)))
            found = graph.add("RegexFullMatch", cell, pattern=f"{BLANKS}(?:{'|'.join(own[:n])}){BLANKS}")
            value = graph.add(
                "Mul", graph.add("Cast", found, to=graph.type("INT64")), graph.constant(np.array(1 << bit))
            )
            # a cell is one text at most
            number, own = graph.add("Add", number, value), own[n:]
    is_none = graph.add("Equal", number, graph.constant(np.array(0)))
    other = graph.add("Where", is_none, unknown, graph.add("Sub", number, graph.constant(np.array(1))))
    return graph.add("Where", is_other, other, exact)


def _written(text: str, format: Format) -> str:
    """A pattern of the texts that `category_name` takes for this one, but for powers of ten in numbers."""
    if format == "number":
        return re.escape(text) + (r"(?:\.0+)?" if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else "")
    if text in ("True", "False"):
        return f"(?i:{text})"
    if format == "code" and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", text, re.ASCII):
        sign = "" if text.startswith("-") else r"\+?"
        return sign + re.escape(text) + ("0*" if "." in text else r"(?:\.0*)?") + "(?:[eE][+-]?0+)?"
    whole = r"(?:\.0+)?" if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else ""
    return "|".join({re.escape(unicodedata.normalize(form, text)) + whole: None for form in ("NFC", "NFD")})


def _log1p(graph: Graph, x: str) -> str:
    """log(1 + max(x, 0)) to full precision for small x, where 1 + x loses it (Goldberg 1991, theorem 4)."""
    positive = graph.add("Max", x, graph.double(0.0))
    total = graph.add("Add", positive, graph.double(1.0))
    difference = graph.add("Sub", total, graph.double(1.0))
    is_zero = graph.add("Equal", difference, graph.double(0.0))
    ratio = graph.add("Div", positive, graph.add("Where", is_zero, graph.double(1.0), difference))
    return graph.add("Where", is_zero, positive, graph.add("Mul", graph.add("Log", total), ratio))


def _expm1(graph: Graph, x: str) -> str:
    """exp(x) - 1 to full precision for small x >= 0, by Kahan's formula (Higham 2002, section 1.14.1)."""
    power, one = graph.add("Exp", x), graph.double(1.0)
    is_one = graph.add("Equal", power, one)
    logarithm = graph.add("Where", is_one, one, graph.add("Log", power))
    ratio = graph.add("Div", graph.add("Sub", power, one), logarithm)
    return graph.add("Where", is_one, x, graph.add("Mul", ratio, x))


def _network(graph: Graph, one: TrainedNetwork, features: str, encoding: NDArray[np.float64]) -> str:
    """(N, 1) float32: one member's standardised prediction."""
    state = {name: value.detach().cpu().to(torch.float32).numpy() for name, value in one.state.items()}
    # in one order for all networks, as what torch's exporter wrote once takes them
    learned = sorted(name for name in state if not name.startswith(("weight_", "bias_")))

    def linear(depth: int, signal: str) -> str:
        weight = state[f"weight_{depth}"].T
        if depth == 0:
            weight = (encoding @ weight.astype(np.float64)).astype(np.float32)
        parameters = np.ascontiguousarray(weight), state[f"bias_{depth}"]
        return graph.add("Gemm", signal, *map(graph.constant, parameters))

    def activation(depth: int, z: str) -> str:
        own = {name.removesuffix(f"_{depth}"): state[name] for name in learned if name.endswith(f"_{depth}")}
        return activate(graph, one.member.activation, z, own, len(state[f"weight_{depth}"]))

    return forward_pass(len(one.member.hidden), features, linear, activation)


def _mean(graph: Graph, ensemble: Ensemble, outputs: Sequence[str], name: str) -> None:
    """The weighted mean of the members on the scale trained on, and back to the unit of the target; (N,) float64."""
    weights = np.array([one.weight for one in ensemble.members])
    weights = weights / weights.sum()
    sd = np.array([one.scaler.sd for one in ensemble.members])
    mean = np.array([one.scaler.mean for one in ensemble.members])
    standardised = graph.add("Cast", graph.add("Concat", *outputs, axis=1), to=graph.type("DOUBLE"))
    if ensemble.target.shift == 1:
        own = graph.add("Add", graph.add("Mul", standardised, graph.constant(sd)), graph.constant(mean))
        value = graph.add("MatMul", graph.add("Max", own, graph.double(0.0)), graph.constant(weights))
        value = _expm1(graph, graph.add("Min", value, graph.double(MAX_LOG)))
    else:
        value = graph.add("MatMul", standardised, graph.constant(weights * sd))
        value = graph.add("Add", value, graph.double(float(weights @ mean)))
    if ensemble.target.is_log:
        value = graph.add("Exp", graph.add("Clip", value, graph.double(-MAX_LOG), graph.double(MAX_LOG)))
    graph.add("Identity", value, output=name)
