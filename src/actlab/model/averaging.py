"""Networks whose weighted mean is the prediction, each with its own preprocessing and target scale.

Networks run in the precision they were trained in (float32 as a rule); target scales, means over members and the way
back to the unit of the target are float64.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actlab.data.preprocessing import Preprocessor, TargetScaler
from actlab.data.table import Schema
from actlab.errors import InputError
from actlab.members import Member
from actlab.networks.regressor import Regressor, stack_states

# Rows that pass through all networks at a time: inputs and signals of a block stay small next to a chunk of CSV.
BLOCK_ROWS = 1 << 13

FoldKey = tuple[int, int]  # (repeat, fold)


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """One trained network.

    Args:
        member: What it is and which rows it saw.
        state: Its tensors, as `Regressor.member_state` gives them.
        preprocessor: Fitted on its training rows; members of one split share it.
        scaler: Target scale of its training rows.
        val_score: On its inner-validation rows.
        test_score: On the test rows of its fold.
        weight: In the mean over members, relative to the others' weights.
    """

    member: Member
    state: dict[str, Tensor]
    preprocessor: Preprocessor
    scaler: TargetScaler
    val_score: float
    test_score: float
    weight: float = 1.0

    @property
    def fold(self) -> FoldKey:
        """(repeat, fold) whose test rows the network never saw."""
        return (self.member.split.repeat, self.member.split.fold)


@dataclass(frozen=True, eq=False)
class FoldResiduals:
    """What the ensemble's members of one fold, and they alone, said of the fold's test rows, and how far off it was.

    All tensors are (n_test,) float64, on the scale trained on (the natural logarithm, or the plain target).

    Args:
        repeat: Of the cross-validation.
        fold: In the repeat.
        residuals: Errors y - mu, signed.
        means: mu, the mean over the members.
        spreads: Standard deviation between the members; 0 of a single one.
    """

    repeat: int
    fold: int
    residuals: Tensor
    means: Tensor
    spreads: Tensor


class FoldPrediction(NamedTuple):
    """Mean over the members of one fold and standard deviation between them, (N,) each, on the scale trained on."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


def fold_prediction(outputs: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> FoldPrediction:
    """From the outputs (P, N) of a fold's members, equally weighted unless weights (P,) are given."""
    spread = outputs.std(axis=0, ddof=1) if len(outputs) > 1 else np.zeros(outputs.shape[1])
    return FoldPrediction(np.average(outputs, axis=0, weights=weights), spread)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks whose weighted mean is the prediction.

    Args:
        members: At least one, each of positive weight.
        schema: How files to predict on are read.
        metric: Of all scores, `log_rmse` or `rmse`.
        config: The resolved configuration of the run, plain types.
        residuals: For prediction intervals; empty where there are none.
        scores: Of the ensemble and its references, plain types.
        versions: Of actlab and its libraries.
    """

    members: tuple[EnsembleMember, ...]
    schema: Schema
    metric: str
    config: dict[str, Any]
    residuals: tuple[FoldResiduals, ...]
    scores: dict[str, Any]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("an ensemble needs at least one member")
        if not all(math.isfinite(one.weight) and one.weight > 0 for one in self.members):
            raise ValueError("weights must be finite and > 0; leave a member out instead of weighting it 0")
        if len({one.scaler.transform for one in self.members}) > 1:
            raise ValueError("the members of an ensemble must share one target transform")
        if not {(part.repeat, part.fold) for part in self.residuals} <= set(self.folds):
            raise ValueError("there are residuals of a fold without members")
        for part in self.residuals:
            tensors = (part.residuals, part.means, part.spreads)
            if not all(len(tensor) == len(part.residuals) and bool(tensor.isfinite().all()) for tensor in tensors):
                raise ValueError("residuals, means and spreads of a fold must be finite and as many as its rows")

    @property
    def transform(self) -> TargetScaler:
        """From the target to the scale trained on (`forward`) and back (`inverse`), not standardised."""
        return TargetScaler(0.0, 1.0, self.members[0].scaler.transform)

    @cached_property
    def folds(self) -> dict[FoldKey, tuple[int, ...]]:
        """Each (repeat, fold) with the positions of its members, in order."""
        keys = sorted({one.fold for one in self.members})
        return {key: tuple(i for i, one in enumerate(self.members) if one.fold == key) for key in keys}

    @cached_property
    def fold_weights(self) -> dict[FoldKey, float]:
        """Each (repeat, fold) with the sum of its members' weights, in order."""
        return {key: sum(self.members[i].weight for i in positions) for key, positions in self.folds.items()}

    @cached_property
    def _stacks(self) -> dict[Preprocessor, list[tuple[tuple[int, ...], Regressor]]]:
        """Every distinct preprocessing once, with the stacks that it feeds and their members' positions."""
        groups: dict[tuple[Preprocessor, object], list[int]] = {}
        for position, one in enumerate(self.members):
            shapes = tuple((name, value.shape, value.dtype) for name, value in one.state.items())
            groups.setdefault((one.preprocessor, (one.member.activation, shapes)), []).append(position)
        stacks: dict[Preprocessor, list[tuple[tuple[int, ...], Regressor]]] = {}
        for (preprocessor, _), positions in groups.items():
            chosen = [self.members[position] for position in positions]
            stacks.setdefault(preprocessor, []).append((tuple(positions), _network(chosen)))
        return stacks

    @property
    def preprocessors(self) -> tuple[Preprocessor, ...]:
        """The distinct preprocessings of the members."""
        return tuple(self._stacks)

    def predict(self, features: pd.DataFrame) -> NDArray[np.float64]:
        """Return (N,) predictions in the unit of the target.

        Args:
            features: N rows with the columns of the schema, as `table.read_rows` gives them.

        Raises:
            InputError: a column of the schema is not there.
        """
        return self.combine(self.predict_by_fold(features))

    def predict_by_fold(self, features: pd.DataFrame) -> dict[FoldKey, FoldPrediction]:
        """For each (repeat, fold) the weighted mean of its members, and how far they are apart."""
        absent = [column.name for column in self.schema.columns if column.name not in features.columns]
        if absent:
            raise InputError(
                f"the rows to predict lack the column {absent[0]!r} ({len(absent)} columns in all); add it"
            )
        outputs = np.empty((len(self.members), len(features)))
        for start in range(0, len(features), BLOCK_ROWS):
            self._write_outputs(features.iloc[start : start + BLOCK_ROWS], outputs[:, start : start + BLOCK_ROWS])
        weights = np.array([one.weight for one in self.members])
        return {
            key: fold_prediction(outputs[list(positions)], weights[list(positions)])
            for key, positions in self.folds.items()
        }

    def combine(self, by_fold: Mapping[FoldKey, FoldPrediction]) -> NDArray[np.float64]:
        """From what `predict_by_fold` returns to (N,) predictions in the unit of the target.

        The mean over members is taken on the scale trained on, so that under a log it is a geometric mean of prices.
        """
        folds = np.stack([by_fold[key].mean for key in self.fold_weights])
        weights = np.array(list(self.fold_weights.values()))
        return self.transform.inverse(weights @ folds / weights.sum())

    @torch.inference_mode()
    def _write_outputs(self, features: pd.DataFrame, out: NDArray[np.float64]) -> None:
        """Fill `out` (members, B) with each member's own prediction on the scale trained on."""
        for preprocessor, stacks in self._stacks.items():
            inputs = torch.from_numpy(preprocessor.transform(features))
            for positions, network in stacks:
                standardised = network(inputs.to(_dtype(network))).double().numpy()
                for position, values in zip(positions, standardised, strict=True):
                    scaler = self.members[position].scaler
                    out[position] = values * scaler.sd + scaler.mean


def _network(members: Sequence[EnsembleMember]) -> Regressor:
    """Members of one preprocessing and architecture as one stack, on the CPU, in no less than float32."""
    states = [{name: value.detach().cpu() for name, value in one.state.items()} for one in members]
    widths = [one.preprocessor.n_features for one in members]
    network = Regressor([one.member for one in members], widths, stack_states(states))
    return network.to(torch.promote_types(_dtype(network), torch.float32)).eval()


def _dtype(network: Regressor) -> torch.dtype:
    return next(network.parameters()).dtype
