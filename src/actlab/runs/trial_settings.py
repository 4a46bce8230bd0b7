"""The arms of a comparison, and the setting that a trial's parameters stand for.

The arms of a comparison: activations, crossed with the levels of any other setting of the network, at equal terms.

A level becomes part of the arm's name (`relu [init=torch]`), so that arms are paired, ranked and compared like
activations. With matched parameters an activation that learns more numbers per unit gets narrower layers.

From the parameters of a trial to the setting it is evaluated with: its arm, and widths at equal parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from actlab.config import Configuration
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.splits import SplitRows
from actlab.data.table import Table
from actlab.data.target import Target
from actlab.errors import InputError
from actlab.networks import activations
from actlab.networks.network import layer_shapes
from actlab.runs.evaluate import Setting
from actlab.settings import DataSettings, ModelSettings, OptimizerSettings

# settings of the network that can be factors, and the section of the configuration each comes from
FACTORS = {"init": "model", "dropout": "model", "hidden": "model", "weight_decay": "optimizer"}


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Args:
        name: As it appears in every result; the activation's own where there are no factors.
        activation: What it is built with.
        model: The network's settings with this arm's levels.
        optimizer: The optimiser's settings with this arm's levels.
    """

    name: str
    activation: str
    model: ModelSettings
    optimizer: OptimizerSettings


def arms(
    names: Sequence[str], factors: Mapping[str, Sequence[Any]], model: ModelSettings, optimizer: OptimizerSettings
) -> list[Arm]:
    """Every activation with every combination of levels, activations outermost, levels in the order given.

    Raises:
        InputError: a factor that does not exist, without levels or with a level twice, or a level that its setting
            does not take.
    """
    for key, levels in factors.items():
        check_factor(key, levels)
    return [
        _arm(name, dict(zip(factors, levels, strict=True)), model, optimizer)
        for name in names
        for levels in product(*factors.values())
    ]


def check_factor(key: str, levels: Sequence[Any]) -> None:
    """Raise an `InputError` unless it is a factor with distinct levels."""
    if key not in FACTORS:
        raise InputError(f"compare.factors must be among {', '.join(FACTORS)}, got {key!r}")
    if not isinstance(levels, list | tuple) or not levels:
        raise InputError(f"compare.factors.{key} must be a list of levels, got {levels!r}")
    texts = [level_text(level) for level in levels]
    if len(set(texts)) < len(texts):
        raise InputError(f"compare.factors.{key} must not name a level twice, got {list(levels)!r}")


def level_text(level: Any) -> str:
    """A level as part of a name: `torch`, `0.1`, `64-32`."""
    return "-".join(map(str, level)) if isinstance(level, list | tuple) else str(level)


def _arm(name: str, levels: Mapping[str, Any], model: ModelSettings, optimizer: OptimizerSettings) -> Arm:
    sections: dict[str, Any] = {"model": model, "optimizer": optimizer}
    for key, level in levels.items():
        if key == "init" and level not in ("auto", "torch"):
            raise InputError(f"compare.factors.init must be auto or torch, got {level!r}")
        try:
            sections[FACTORS[key]] = replace(sections[FACTORS[key]], **{key: level})
        except TypeError as error:
            raise InputError(f"compare.factors.{key} cannot be {level!r}") from error
    label = ", ".join(f"{key}={level_text(level)}" for key, level in levels.items())
    return Arm(f"{name} [{label}]" if label else name, name, sections["model"], sections["optimizer"])


def baseline_arm(baseline: str, found: Sequence[Arm]) -> str:
    """The name of the first arm of the baseline activation; the baseline itself where it has none, or is an arm."""
    own = [arm.name for arm in found if baseline in (arm.name, arm.activation)]
    return own[0] if own else baseline


def n_parameters(activation: str, hidden: Sequence[int], n_features: int) -> int:
    """Learned numbers of one network: weights, biases, and what its activations learn."""
    row = activations.get(activation)
    own = sum(parameter.numel() for parameter in row.build().parameters())
    shapes = layer_shapes(n_features, tuple(hidden), row.width_factor)
    return sum(n_out * (n_in + 1) for n_out, n_in in shapes) + own * len(hidden)


def widths_for(activation: str, hidden: Sequence[int], n_features: int) -> tuple[int, ...]:
    """Hidden widths at which the activation has as many parameters as a plain one has at `hidden`, or nearly so.

    All layers are narrowed in proportion, each to whole units, to the number of parameters that is nearest; of equally
    near ones, the wider. An activation that learns next to nothing of its own (prelu: one number a layer) keeps its
    widths, because no unit is worth so little.
    """
    target = n_parameters("identity", hidden, n_features)
    n_steps = 8 * max(hidden)
    candidates = dict.fromkeys(
        tuple(max(1, round(width * step / n_steps)) for width in hidden) for step in range(n_steps, 0, -1)
    )
    return min(candidates, key=lambda widths: abs(n_parameters(activation, widths, n_features) - target))


def arms_of(configuration: Configuration) -> list[Arm]:
    """What `compare` compares: activations, crossed with factors."""
    grid = configuration.compare
    return arms(grid.activations, grid.factors, configuration.model, configuration.optimizer)


def baseline_of(configuration: Configuration) -> str:
    """The arm that stands for the baseline."""
    return baseline_arm(configuration.compare.baseline, arms_of(configuration))


def setting_of(params: Mapping[str, Any], configuration: Configuration, n_features: int) -> Setting:
    """A trial's parameters, with its arm's own values for what is not searched.

    Args:
        params: `activation` (the name of an arm, or an activation in a search) and `learning_rate`, and what is
            searched besides.
        configuration: The values of everything else.
        n_features: Input columns, for widths at equal parameters.
    """
    name = params["activation"]
    plain_arm = Arm(name, name, configuration.model, configuration.optimizer)
    arm = next((arm for arm in arms_of(configuration) if arm.name == name), plain_arm)
    text = params.get("hidden")
    hidden = tuple(map(int, text.split("-"))) if text else tuple(arm.model.hidden)
    if configuration.compare.match_parameters:
        hidden = widths_for(arm.activation, hidden, n_features)
    return Setting(
        activation=arm.activation,
        learning_rate=params["learning_rate"],
        weight_decay=params.get("weight_decay", arm.optimizer.weight_decay),
        hidden=hidden,
        dropout=params.get("dropout", arm.model.dropout),
        init=arm.model.init,
        name=arm.name,
    )


def count_features(table: Table, rows: SplitRows, data: DataSettings) -> int:
    """Input columns of the networks of one split, after preprocessing."""
    fitted = fit_preprocessor(table.features, table.schema, rows.training, data)
    return int(fitted.transform(table.features.iloc[:1]).shape[1])


def target_sd(table: Table, data: DataSettings) -> float:
    """Standard deviation of what the networks learn: the target, or its logarithm."""
    if table.target is None:
        raise ValueError("a table without a target has no standard deviation of it")
    return float(np.std(Target.of(data.target_transform).forward(table.target)))
