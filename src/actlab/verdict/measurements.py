"""Everything that claims about activations are judged by: the frames of a run, read by activation and pair."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from actlab.verdict.summary import PAIR, choose

MEMBER = [*PAIR, "inner"]


@dataclass(frozen=True)
class Measurements:
    """What a run measured; a claim whose measurements are missing says `cannot tell`.

    Values come by pair, (repeat, fold), with inner splits averaged by a plain mean: a member without a value makes its
    pair nan. An activation stands with the trial chosen for it in each pair by inner validation.

    Args:
        members: Rows of `MemberRecord`.
        test_train_ratio: Rows in the test fold over rows outside it.
        rope: Differences of scores smaller than this are of no practical use.
        health: Rows of `HealthRecord`.
        convergence: Rows of `ConvergenceRecord`.
        costs: Activation to (microseconds of the activation alone, of a whole step), one entry a round each.
        deviation_from_affine: Of the trained identity networks, as `representation.deviation_from_affine`.
        maxout_error: `relu` and `leaky_relu` to `representation.maxout_error`.
        ridge: (repeat, fold) to ridge's score on the same test rows.
    """

    members: pd.DataFrame
    test_train_ratio: float
    rope: float
    health: pd.DataFrame | None = None
    convergence: pd.DataFrame | None = None
    costs: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    deviation_from_affine: float = math.nan
    maxout_error: Mapping[str, float] = field(default_factory=dict)
    ridge: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @property
    def activations(self) -> list[str]:
        """Those of the run, in its order."""
        return [str(name) for name in dict.fromkeys(self.members.activation)]

    @property
    def rates(self) -> list[float]:
        """Learning rates of the run, lowest first."""
        return sorted(set(self.members.learning_rate.tolist()))

    def missing(self, *activations: str) -> str:
        """Why activations cannot be compared: those that are not in the run; empty where all are."""
        absent = [name for name in activations if name not in self.activations]
        return f"not in this run: {', '.join(absent)}" if absent else ""

    def scores(self, activation: str) -> "pd.Series[float]":
        """Test scores by pair."""
        return self._chosen_for(activation).set_index(PAIR).score

    def of_chosen(self, frame: pd.DataFrame, activation: str) -> pd.DataFrame:
        """Rows of `frame` that belong to the trial chosen for the activation in their pair."""
        return frame.merge(self._chosen_for(activation)[[*PAIR, "trial"]], on=[*PAIR, "trial"])

    def _chosen_for(self, activation: str) -> pd.DataFrame:
        return self._chosen[self._chosen.activation == activation]

    @cached_property
    def _chosen(self) -> pd.DataFrame:
        # once for all activations: every measure of every claim asks for it
        return choose(self.members)

    def by_pair(self, rows: pd.DataFrame, column: str) -> "pd.Series[float]":
        """Means by pair of rows that have one a member, or several (layers, say) that are averaged first."""
        per_member = rows.groupby(MEMBER)[column].agg(_plain_mean)
        everyone = pd.MultiIndex.from_frame(self.members[MEMBER].drop_duplicates().sort_values(MEMBER))
        found: pd.Series[float] = per_member.reindex(everyone).groupby(level=PAIR).agg(_plain_mean)
        return found

    def health_of(self, activation: str, column: str, moment: str, layer: int | None = None) -> "pd.Series[float]":
        """A measure of the activation's chosen trials by pair, of one layer or the mean of all."""
        assert self.health is not None
        rows = self.of_chosen(self.health[self.health.moment == moment], activation)
        return self.by_pair(rows if layer is None else rows[rows.layer == layer], column)

    def dead(self, activation: str, rate: float) -> "pd.Series[float]":
        """Share of dead units by pair at the end of training at one learning rate, chosen or not."""
        assert self.health is not None
        own = self.health[(self.health.activation == activation) & (self.health.moment == "end")]
        return self.by_pair(own[own.learning_rate == rate], "dead")

    def layer_factor(self, activation: str, moment: str) -> "pd.Series[float]":
        """Share of the gradient that one hidden layer hands back to the one below: the geometric mean of all layers."""
        assert self.health is not None
        rows = self.health.assign(factor=self.health.gradient_ratio ** (1 / max(self.n_layers - 1, 1)))
        first = self.of_chosen(rows[(rows.moment == moment) & (rows.layer == 1)], activation)
        return self.by_pair(first, "factor")

    @property
    def n_layers(self) -> int:
        """Hidden layers; 0 where health was not measured."""
        return 0 if self.health is None or self.health.empty else int(self.health.layer.max())

    def context(self) -> dict[str, Any]:
        """Mean measures of every activation, for the reader of a claim to compare with."""
        found: dict[str, Any] = {}
        if self.n_layers:
            for key, column in (("mean_output", "mean_output"), ("saturated", "saturated"), ("dead", "dead")):
                found[key] = {name: _mean(self.health_of(name, column, "best")) for name in self.activations}
            for moment in ("start", "best"):
                key = f"gradient_per_layer_{moment}"
                found[key] = {name: _mean(self.layer_factor(name, moment)) for name in self.activations}
            found["dead_at_the_end_by_rate"] = {
                name: {f"{rate:g}": _mean(self.dead(name, rate)) for rate in self.rates} for name in self.activations
            }
        if self.ridge and "identity" in self.activations:
            found["identity_minus_ridge"] = _mean(self.scores("identity") - self.ridge_scores())
        return found

    def ridge_scores(self) -> "pd.Series[float]":
        """Ridge's test scores by pair."""
        keys = sorted(self.ridge)
        return pd.Series([self.ridge[key] for key in keys], pd.MultiIndex.from_tuples(keys, names=PAIR), dtype=float)


def _plain_mean(values: "pd.Series[float]") -> float:
    return float(values.mean(skipna=False))


def _mean(values: "pd.Series[float]") -> float:
    """The mean of what is finite: context, not a test."""
    return float(values.mean())
