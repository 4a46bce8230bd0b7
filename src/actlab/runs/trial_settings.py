"""From the parameters of a trial to the setting it is evaluated with: its arm, and widths at equal parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from actlab.configuration import Configuration
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.splits import SplitRows
from actlab.data.table import Table
from actlab.runs.arms import Arm, arms, baseline_arm, widths_for
from actlab.runs.trials import Setting
from actlab.settings import DataSettings


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
    return float(np.std(np.log(table.target) if data.target_transform == "log" else table.target))
