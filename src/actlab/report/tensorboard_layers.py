"""What TensorBoard shows of the hidden layers: their health at three moments, and the winner's pre-activations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from actlab.verdict.summary import choose

# Layers that are shown, from the inputs on: bounds the number of charts.
MAX_LAYERS = 12
MEASURES = ("dead", "saturated", "mean_output", "gradient_ratio")
MOMENTS = ("start", "best", "end")

# what names the trial that validation chose for an activation and test fold
KEYS = ["activation", "repeat", "fold", "trial"]

# step to tag to value
Points = dict[int, dict[str, float]]
# step, tag, edges and counts
Histogram = tuple[int, str, list[float], list[int]]


def health_points(health: pd.DataFrame | None, members: pd.DataFrame, is_ranked: bool) -> dict[str, Points]:
    """Activation to step to tag to value: means over the networks that the ranking rests on.

    Steps are epochs: 0 for the initial weights, the mean best epoch, and the mean epoch of the end, which is left out
    where it is the best. Gradients are averaged as ratios (geometric mean), as in the report.

    Args:
        health: Rows of `HealthRecord`; None or empty gives nothing.
        members: Rows of `MemberRecord`.
        is_ranked: Whether validation chose a trial for each fold; otherwise all members count.
    """
    if health is None or health.empty:
        return {}
    if is_ranked:
        chosen = choose(members)[KEYS]
        health, members = health.merge(chosen, on=KEYS), members.merge(chosen, on=KEYS)
    found: dict[str, Points] = {}
    for activation, rows in health[health.layer <= MAX_LAYERS].groupby("activation"):
        steps = _steps(members[members.activation == activation])
        points = found.setdefault(str(activation), {})
        for (moment, layer), own in rows.groupby(["moment", "layer"]):
            values = {f"health_{name}/layer_{layer}": _mean(own[name], name) for name in MEASURES}
            if moment != "end" or steps["end"] > steps["best"]:
                points.setdefault(steps[str(moment)], {}).update(values)
    return found


def _steps(members: pd.DataFrame) -> dict[str, int]:
    best = max(1, round(float(members.best_epoch.mean())))
    return {"start": 0, "best": best, "end": round(float(members.epochs.mean()))}


def _mean(values: "pd.Series[float]", name: str) -> float:
    """nan, which is not written, where there is no finite value."""
    array = values.to_numpy(dtype=float)
    is_ratio = name == "gradient_ratio"
    array = array[np.isfinite(array) & (array > 0)] if is_ratio else array[np.isfinite(array)]
    if not len(array):
        return float("nan")
    return float(np.exp(np.log(array).mean()) if is_ratio else array.mean())


def histograms(bins: pd.DataFrame | None, members: pd.DataFrame, summary: Mapping[str, Any]) -> list[Histogram]:
    """The winner's pre-activations, a tag a hidden layer, at the steps of its health.

    Args:
        bins: Rows of `BinRecord`.
        members: Rows of `MemberRecord`; those of the winner's networks say which epoch was the best.
        summary: Names the winner; a fit has none, and all its networks count.
    """
    if bins is None or bins.empty:
        return []
    steps = _steps(of_winner(members, summary))
    shown = bins[bins.layer <= MAX_LAYERS].sort_values(["layer", "low"])
    return [
        (
            steps[moment],
            f"pre_activations/layer_{layer}",
            [*own.low.tolist(), float(own.high.iloc[-1])],
            own["count"].tolist(),
        )
        for moment in MOMENTS
        for layer, own in shown[shown.moment == moment].groupby("layer")
    ]


def of_winner(members: pd.DataFrame, summary: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of the winner's networks: those that were chosen, or all of a fit."""
    if not summary.get("ranking"):
        return members
    chosen = choose(members)
    return members.merge(chosen.loc[chosen.activation == summary.get("winner"), KEYS], on=KEYS)
