"""The model people take home: an ensemble of members, each with its own preprocessing and target scale, in one file.

Networks run in the precision they were trained in (float32 as a rule); target scales, means over members and the way
back to the unit of the target are float64. The file holds tensors and plain types only and loads with
`weights_only=True`: nothing in it can run code. It is also a checkpoint that Lightning takes as `ckpt_path`.
"""

import hashlib
import json
import math
import pickle
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actlab import __version__
from actlab.activations import ACTIVATIONS
from actlab.errors import InputError
from actlab.members import Member, Split
from actlab.preprocessing import Preprocessor, TargetScaler
from actlab.records import write_atomically
from actlab.regressor import Regressor, stack_states
from actlab.table import Kind, Schema

FORMAT = 1
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
    """Errors y - mu on the test rows of one fold, mu from the ensemble's members of that fold alone.

    Args:
        repeat: Of the cross-validation.
        fold: In the repeat.
        residuals: (n_test,) float64, signed, on the scale trained on (the natural logarithm, or the plain target).
    """

    repeat: int
    fold: int
    residuals: Tensor


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks whose weighted mean is the prediction.

    Args:
        members: At least one, each of positive weight.
        schema: How files to predict on are read.
        metric: Of all scores, `log_rmse` or `rmse`.
        config: The resolved configuration of the run, plain types.
        residuals: For CV+ intervals; empty where there are none.
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

    def predict_by_fold(self, features: pd.DataFrame) -> dict[FoldKey, NDArray[np.float64]]:
        """For each (repeat, fold) the weighted mean of its members, (N,), on the scale trained on."""
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
            key: weights[list(positions)] @ outputs[list(positions)] / weights[list(positions)].sum()
            for key, positions in self.folds.items()
        }

    def combine(self, by_fold: Mapping[FoldKey, NDArray[np.float64]]) -> NDArray[np.float64]:
        """From what `predict_by_fold` returns to (N,) predictions in the unit of the target.

        The mean over members is taken on the scale trained on, so that under a log it is a geometric mean of prices.
        """
        weights = [sum(self.members[i].weight for i in positions) for positions in self.folds.values()]
        folds = np.stack([by_fold[key] for key in self.folds])
        return self.transform.inverse(np.asarray(weights) @ folds / sum(weights))

    @torch.inference_mode()
    def _write_outputs(self, features: pd.DataFrame, out: NDArray[np.float64]) -> None:
        """Fill `out` (members, B) with each member's own prediction on the scale trained on."""
        for preprocessor, stacks in self._stacks.items():
            inputs = torch.from_numpy(preprocessor.transform(features))
            for positions, network in stacks:
                standardised = network(inputs.to(network.weight_0.dtype)).double().numpy()
                for position, values in zip(positions, standardised, strict=True):
                    scaler = self.members[position].scaler
                    out[position] = values * scaler.sd + scaler.mean


def _network(members: Sequence[EnsembleMember]) -> Regressor:
    """Members of one preprocessing and architecture as one stack, on the CPU, in no less than float32."""
    states = [{name: value.detach().cpu() for name, value in one.state.items()} for one in members]
    widths = [one.preprocessor.n_features for one in members]
    network = Regressor([one.member for one in members], widths, stack_states(states))
    return network.to(torch.promote_types(network.weight_0.dtype, torch.float32)).eval()


def measure_residuals(
    ensemble: Ensemble,
    features: pd.DataFrame,
    target: NDArray[np.float64],
    test_rows: Mapping[FoldKey, NDArray[np.int64]],
) -> tuple[FoldResiduals, ...]:
    """Out-of-fold errors of each fold's members, for CV+.

    Args:
        ensemble: The members; its own residuals are not looked at.
        features: All rows of the table trained on.
        target: (n_rows,) in its own unit.
        test_rows: Positions of the test rows of each (repeat, fold); folds without members are passed over.
    """
    parts = []
    for key in ensemble.folds:
        rows = test_rows[key]
        predicted = ensemble.predict_by_fold(features.iloc[rows])[key]
        errors = ensemble.transform.forward(np.asarray(target)[rows]) - predicted
        parts.append(FoldResiduals(*key, torch.from_numpy(errors)))
    return tuple(parts)


def to_checkpoint(ensemble: Ensemble) -> dict[str, Any]:
    """Tensors and plain types only, with the keys that Lightning asks of a checkpoint.

    Raises:
        TypeError: the configuration or the scores hold something that is neither.
    """
    import lightning.pytorch as pl

    place = {preprocessor: i for i, preprocessor in enumerate(ensemble.preprocessors)}
    config = _plain(ensemble.config)
    content = {
        "format": FORMAT,
        "config": config,
        "config_hash": config_hash(config),
        "metric": ensemble.metric,
        "schema": ensemble.schema.to_dict(),
        "preprocessors": [preprocessor.to_dict() for preprocessor in place],
        "members": [
            {
                "member": asdict(one.member),
                # a copy: torch.save would write the whole storage of a view
                "state": {name: value.detach().cpu().clone() for name, value in one.state.items()},
                "preprocessor": place[one.preprocessor],
                "scaler": one.scaler.to_dict(),
                "val_score": one.val_score,
                "test_score": one.test_score,
                "weight": one.weight,
            }
            for one in ensemble.members
        ],
        "residuals": [
            {"repeat": part.repeat, "fold": part.fold, "residuals": part.residuals.detach().cpu().double().clone()}
            for part in ensemble.residuals
        ],
        "scores": ensemble.scores,
        "versions": ensemble.versions,
    }
    return {
        "actlab": _plain(content),
        "state_dict": {},
        "pytorch-lightning_version": pl.__version__,
        "epoch": 0,
        "global_step": 0,
        "loops": {},
    }


def from_checkpoint(
    checkpoint: Mapping[str, Any], source: str = "the checkpoint", allow_code: bool = False
) -> Ensemble:
    """The ensemble that `to_checkpoint` described.

    Args:
        checkpoint: As `torch.load` returns it.
        source: What to call it in messages.
        allow_code: Whether an activation given by `class_path` may be imported, which runs the code of its module.

    Raises:
        InputError: it was not written by actlab, is of a newer format, or is damaged.
    """
    content = checkpoint.get("actlab") if isinstance(checkpoint, Mapping) else None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputError(f"{source} was not written by actlab; name the best.ckpt of a run of actlab")
    if content["format"] > FORMAT:
        raise InputError(
            f"{source} has format {content['format']}, and actlab {__version__} reads up to {FORMAT}; upgrade actlab"
        )
    try:
        _refuse_foreign_code(content, source, allow_code)
        return _read(content)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged ({error}); make it again, or copy it again") from error


def _refuse_foreign_code(content: dict[str, Any], source: str, allow_code: bool) -> None:
    """An activation by `class_path` runs the code of its module on import: not because a file says so."""
    known = {row.name for row in ACTIVATIONS}
    for name in dict.fromkeys(str(entry["member"]["activation"]) for entry in content["members"]):
        is_loaded = name.rpartition(".")[0] in sys.modules
        if name not in known and not is_loaded and not allow_code:
            raise InputError(
                f"{source} uses the activation {name!r}, whose module would be imported and run; if you trust the "
                "file and that module, allow it with --allow_code true"
            )


def _read(content: dict[str, Any]) -> Ensemble:
    if content["config_hash"] != config_hash(content["config"]):
        raise ValueError("its configuration does not have the hash written beside it")
    preprocessors = [Preprocessor.from_dict(state) for state in content["preprocessors"]]
    members = tuple(_read_member(entry, preprocessors) for entry in content["members"])
    residuals = tuple(FoldResiduals(**part) for part in content["residuals"])
    rest = {key: content[key] for key in ("metric", "config", "scores", "versions")}
    return Ensemble(members, Schema.from_dict(content["schema"]), residuals=residuals, **rest)


def _read_member(entry: dict[str, Any], preprocessors: Sequence[Preprocessor]) -> EnsembleMember:
    values = entry["member"]
    member = Member(**{**values, "split": Split(**values["split"]), "hidden": tuple(values["hidden"])})
    preprocessor = preprocessors[entry["preprocessor"]]
    expected = Regressor([member], [preprocessor.n_features]).member_state(0)
    shapes = {name: value.shape for name, value in expected.items()}
    if {name: value.shape for name, value in entry["state"].items()} != shapes:
        raise ValueError(f"the tensors of a {member.activation} network do not fit its description")
    if not all(bool(value.isfinite().all()) for value in entry["state"].values()):
        raise ValueError(f"a {member.activation} network has weights that are not finite")
    return EnsembleMember(
        member,
        entry["state"],
        preprocessor,
        TargetScaler.from_dict(entry["scaler"]),
        entry["val_score"],
        entry["test_score"],
        entry["weight"],
    )


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration of plain types, in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Nested plain types as they are, tuples as lists, numbers of NumPy as Python's."""
    if value is None or isinstance(value, str | bool | int | float | Tensor):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a checkpoint holds tensors and plain types only, got {type(value).__name__}: {value!r}")


def save(ensemble: Ensemble, path: Path) -> None:
    """Write the checkpoint, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    checkpoint = to_checkpoint(ensemble)
    write_atomically(path, lambda temporary: torch.save(checkpoint, temporary))


def load(path: str | Path, allow_code: bool = False) -> Ensemble:
    """Read a checkpoint onto the CPU, whatever it was trained on.

    Args:
        path: Of the file.
        allow_code: As in `from_checkpoint`.

    Raises:
        InputError: no such file, or not one that actlab can read; never is code from it run.
    """
    path = Path(path)
    if path.is_dir():
        inside = path / "best.ckpt"
        raise InputError(f"{path} is a directory; name a checkpoint" + (f", {inside}" if inside.exists() else ""))
    try:
        with path.open("rb") as file:
            start = file.read(4)
        is_archive = zipfile.is_zipfile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; name a checkpoint, the best.ckpt of a run") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not is_archive:
        what = "is cut short; copy it again" if start == b"PK\x03\x04" else "is not a checkpoint of actlab"
        raise InputError(f"{path} {what}")
    return from_checkpoint(_load_archive(path), str(path), allow_code)


def _load_archive(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds Python objects, which could run code, and was not loaded; name a checkpoint of actlab"
        ) from None
    except Exception as error:
        raise InputError(f"{path} is damaged or not a checkpoint of actlab; make it again, or copy it again") from error
    return checkpoint


def describe(ensemble: Ensemble) -> str:
    """What a checkpoint is, for people: data, columns, settings, scores, versions."""
    import yaml

    schema = ensemble.schema
    kinds = {kind: [c.name for c in schema.columns if c.kind == kind] for kind in get_args(Kind)}
    networks = Counter(f"{one.member.activation} {list(one.member.hidden)}" for one in ensemble.members)
    n_residuals = sum(len(part.residuals) for part in ensemble.residuals)
    config = _plain(ensemble.config)
    content = {
        "target": schema.target,
        "target transform": ensemble.transform.transform,
        "id": schema.id,
        "columns": {kind: names for kind, names in kinds.items() if names},
        "dropped columns": list(schema.dropped),
        "missing": list(schema.na_values),
        "networks": dict(networks),
        "folds": len(ensemble.folds),
        "inputs of a network": sorted({one.preprocessor.n_features for one in ensemble.members}),
        "out-of-fold residuals": n_residuals,
        "metric": ensemble.metric,
        "scores": _plain(ensemble.scores),
        "settings": config,
        "configuration hash": config_hash(config),
        "format": FORMAT,
        "versions": dict(ensemble.versions),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
