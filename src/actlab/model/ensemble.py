"""The model people take home: an `Ensemble` of networks whose weighted mean is the prediction, in one file.

Networks run in the precision they were trained in (float32 as a rule); target scales, means over members and the way
back to the unit of the target are float64.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actlab.data.columns import Kind, Schema
from actlab.data.preprocessing import Preprocessor
from actlab.data.target import Target, TargetScaler
from actlab.errors import InputError
from actlab.members import FoldKey
from actlab.model.checkpoint import (
    FORMAT,
    config_hash,
    pack,
    plain,
    read_checkpoint,
    refuse_foreign_code,
    unpack,
    write_checkpoint,
)
from actlab.networks.network import Regressor
from actlab.networks.trained import TrainedNetwork, stack_of

# Rows that pass through all networks at a time: inputs and signals of a block stay small next to a chunk of CSV.
BLOCK_ROWS = 1 << 13


@dataclass(frozen=True, eq=False)
class FoldResiduals:
    """What the ensemble's members of one fold, and they alone, said of the fold's test rows, and how far off it was.

    All tensors are (n_test,) float64, on the scale trained on (the natural logarithm, or the plain target).

    Args:
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
    """Networks whose weighted mean is the prediction: at least one, each of positive weight.

    Args:
        config: The resolved configuration of the run, plain types.
        residuals: For prediction intervals; empty where there are none. Where rows have a time they are those of the
            windows that the score is from; the members are of one more, and have seen all rows.
        scores: Of the ensemble and its references, plain types.
        versions: Of actlab and its libraries.
    """

    members: tuple[TrainedNetwork, ...]
    schema: Schema
    config: dict[str, Any]
    residuals: tuple[FoldResiduals, ...]
    scores: dict[str, Any]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("an ensemble needs at least one member")
        if not all(math.isfinite(one.weight) and one.weight > 0 for one in self.members):
            raise ValueError("weights must be finite and > 0; leave a member out instead of weighting it 0")
        if len({one.scaler.target for one in self.members}) > 1:
            raise ValueError("the members of an ensemble must share one target transform")
        if not self.has_seen_all and not {(part.repeat, part.fold) for part in self.residuals} <= set(self.folds):
            raise ValueError("there are residuals of a fold without members")
        for part in self.residuals:
            tensors = (part.residuals, part.means, part.spreads)
            if not all(len(tensor) == len(part.residuals) and bool(tensor.isfinite().all()) for tensor in tensors):
                raise ValueError("residuals, means and spreads of a fold must be finite and as many as its rows")

    @property
    def target(self) -> Target:
        """The scale trained on, and the name of all scores."""
        return self.members[0].scaler.target

    @cached_property
    def folds(self) -> dict[FoldKey, list[int]]:
        """Each (repeat, fold) with the positions of its members, in order."""
        keys = sorted({one.fold for one in self.members})
        return {key: [i for i, one in enumerate(self.members) if one.fold == key] for key in keys}

    @property
    def has_seen_all(self) -> bool:
        """Whether no row of the table is new to the members: they are of a window after those of the residuals."""
        later = [(one.repeat, one.fold) < min(self.folds) for one in self.residuals]
        return len(self.folds) == 1 and bool(later) and all(later)

    @cached_property
    def fold_weights(self) -> dict[FoldKey, float]:
        """Each (repeat, fold) with the sum of its members' weights, in order."""
        return {key: sum(self.members[i].weight for i in positions) for key, positions in self.folds.items()}

    @cached_property
    def _stacks(self) -> dict[Preprocessor, list[tuple[list[int], Regressor]]]:
        """Every distinct preprocessing once, with the stacks that it feeds and their members' positions."""
        groups: dict[Preprocessor, dict[object, list[int]]] = {}
        for position, one in enumerate(self.members):
            shapes = tuple((name, value.shape, value.dtype) for name, value in one.state.items())
            alike = groups.setdefault(one.preprocessor, {})
            alike.setdefault((one.member.activation, shapes), []).append(position)
        return {
            preprocessor: [(places, stack_of([self.members[place] for place in places])) for places in alike.values()]
            for preprocessor, alike in groups.items()
        }

    @property
    def preprocessors(self) -> tuple[Preprocessor, ...]:
        """The distinct preprocessings of the members."""
        return tuple(self._stacks)

    def predict(self, features: pd.DataFrame) -> NDArray[np.float64]:
        """Return (N,) predictions in the unit of the target for N rows as `table.read_rows` gives them.

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
        return {key: fold_prediction(outputs[rows], weights[rows]) for key, rows in self.folds.items()}

    def combine(self, by_fold: Mapping[FoldKey, FoldPrediction], shift: float = 0.0) -> NDArray[np.float64]:
        """From what `predict_by_fold` returns to (N,) predictions in the unit of the target.

        The mean over members is taken on the scale trained on, so that under a log it is a geometric mean of prices. A
        `shift` is added on that scale.
        """
        folds = np.stack([by_fold[key].mean for key in self.fold_weights])
        weights = np.array(list(self.fold_weights.values()))
        return self.target.inverse(weights @ folds / weights.sum() + shift)

    @torch.inference_mode()
    def _write_outputs(self, features: pd.DataFrame, out: NDArray[np.float64]) -> None:
        """Fill `out` (members, B) with each member's own prediction on the scale trained on."""
        for preprocessor, stacks in self._stacks.items():
            inputs = torch.from_numpy(preprocessor.transform(features))
            for positions, network in stacks:
                standardised = network(inputs.to(network.first_weight.dtype)).double().numpy()
                for position, values in zip(positions, standardised, strict=True):
                    out[position] = self.members[position].scaler.value(values)


def to_checkpoint(ensemble: Ensemble) -> dict[str, Any]:
    """Tensors and plain types only, with the keys that Lightning asks of a checkpoint. A `TypeError` where the
    configuration or the scores hold something that is neither."""
    place = {preprocessor: i for i, preprocessor in enumerate(ensemble.preprocessors)}
    config = plain(ensemble.config)
    members = [
        {**one.to_dict(), "preprocessor": place[one.preprocessor], "scaler": one.scaler.to_dict()}
        for one in ensemble.members
    ]
    return pack(
        {
            "config": config,
            "config_hash": config_hash(config),
            "metric": ensemble.target.metric,
            "schema": ensemble.schema.to_dict(),
            "preprocessors": [preprocessor.to_dict() for preprocessor in place],
            "members": members,
            "residuals": [vars(part) for part in ensemble.residuals],
            "scores": ensemble.scores,
            "versions": ensemble.versions,
        }
    )


def from_checkpoint(checkpoint: object, source: str = "the checkpoint", allow_code: bool = False) -> Ensemble:
    """The ensemble that `to_checkpoint` described, from what `torch.load` returns; messages call it `source`.

    An activation given by `class_path` is imported, which runs the code of its module, only if `allow_code` says so.

    Raises:
        InputError: it was not written by actlab, is of a newer format, or is damaged.
    """
    content = unpack(checkpoint, source)
    try:
        if not allow_code:
            refuse_foreign_code([str(entry["member"]["activation"]) for entry in content["members"]], source)
        return _read(content)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged ({error}); make it again, or copy it again") from error


def _read(content: dict[str, Any]) -> Ensemble:
    if content["config_hash"] != config_hash(content["config"]):
        raise ValueError("its configuration does not have the hash written beside it")
    schema = Schema.from_dict(content["schema"])
    preprocessors = [Preprocessor.from_dict(state) for state in content["preprocessors"]]
    names = [column.name for column in schema.columns]
    if any([rule.name for rule in preprocessor.rules] != names for preprocessor in preprocessors):
        raise ValueError("its preprocessing does not fit its columns")
    members = tuple(_read_member(entry, preprocessors) for entry in content["members"])
    residuals = tuple(FoldResiduals(**part) for part in content["residuals"])
    return Ensemble(members, schema, content["config"], residuals, content["scores"], content["versions"])


def _read_member(entry: dict[str, Any], preprocessors: Sequence[Preprocessor]) -> TrainedNetwork:
    preprocessor, scaler = preprocessors[entry["preprocessor"]], TargetScaler.from_dict(entry["scaler"])
    network = TrainedNetwork.from_dict(entry, preprocessor, scaler)
    # `torch` draws without asking what the activation does to a signal, which takes longer
    member = replace(network.member, init="torch")
    expected = Regressor([member], [preprocessor.n_features]).member_state(0)
    shapes = {name: value.shape for name, value in expected.items()}
    if {name: value.shape for name, value in network.state.items()} != shapes:
        raise ValueError(f"the tensors of a {member.activation} network do not fit its description")
    if not all(bool(value.isfinite().all()) for value in network.state.values()):
        raise ValueError(f"a {member.activation} network has weights that are not finite")
    return network


def save(ensemble: Ensemble, path: str | Path) -> None:
    """Write the checkpoint, whole or not at all; an `InputError` says why not."""
    write_checkpoint(Path(path), to_checkpoint(ensemble))


def load(path: str | Path, allow_code: bool = False) -> Ensemble:
    """Read a checkpoint onto the CPU, whatever it was trained on; `allow_code`, and what raises, as `from_checkpoint`.
    Never is code from the file itself run."""
    return from_checkpoint(read_checkpoint(Path(path)), str(path), allow_code)


def describe(ensemble: Ensemble) -> str:
    """What a checkpoint is, for people: data, columns, settings, scores, versions."""
    import yaml

    schema, config = ensemble.schema, plain(ensemble.config)
    kinds = {kind: [c.name for c in schema.columns if c.kind == kind] for kind in get_args(Kind)}
    members = [one.member for one in ensemble.members]
    networks = Counter(f"{one.activation} {list(one.hidden)} at {one.learning_rate:g}" for one in members)
    content = {
        "target": schema.target,
        "target transform": ensemble.target.transform,
        "id": schema.id,
        "columns": {kind: names for kind, names in kinds.items() if names},
        "dropped columns": list(schema.dropped),
        "missing": list(schema.na_values),
        "networks": dict(networks),
        "folds": len(ensemble.folds),
        "inputs of a network": sorted({preprocessor.n_features for preprocessor in ensemble.preprocessors}),
        "out-of-fold residuals": sum(len(part.residuals) for part in ensemble.residuals),
        "metric": ensemble.target.metric,
        "scores": plain(ensemble.scores),
        "settings": config,
        "configuration hash": config_hash(config),
        "format": FORMAT,
        "versions": dict(ensemble.versions),
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return text
