"""The model people take home, in one file: an `Ensemble` written, read and described."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from actlab.data.preprocessing import Preprocessor, TargetScaler
from actlab.data.table import Kind, Schema
from actlab.errors import InputError
from actlab.members import Member, Split
from actlab.model.averaging import Ensemble, EnsembleMember, FoldKey, FoldResiduals
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
from actlab.networks.regressor import Regressor

__all__ = [
    "Ensemble",
    "EnsembleMember",
    "FoldKey",
    "FoldResiduals",
    "describe",
    "from_checkpoint",
    "load",
    "save",
    "to_checkpoint",
]


def to_checkpoint(ensemble: Ensemble) -> dict[str, Any]:
    """Tensors and plain types only, with the keys that Lightning asks of a checkpoint.

    Raises:
        TypeError: the configuration or the scores hold something that is neither.
    """
    place = {preprocessor: i for i, preprocessor in enumerate(ensemble.preprocessors)}
    config = plain(ensemble.config)
    members = [
        {
            "member": asdict(one.member),
            "state": one.state,
            "preprocessor": place[one.preprocessor],
            "scaler": one.scaler.to_dict(),
            "val_score": one.val_score,
            "test_score": one.test_score,
            "weight": one.weight,
        }
        for one in ensemble.members
    ]
    return pack(
        {
            "config": config,
            "config_hash": config_hash(config),
            "metric": ensemble.metric,
            "schema": ensemble.schema.to_dict(),
            "preprocessors": [preprocessor.to_dict() for preprocessor in place],
            "members": members,
            "residuals": [vars(part) for part in ensemble.residuals],
            "scores": ensemble.scores,
            "versions": ensemble.versions,
        }
    )


def from_checkpoint(checkpoint: object, source: str = "the checkpoint", allow_code: bool = False) -> Ensemble:
    """The ensemble that `to_checkpoint` described.

    Args:
        checkpoint: As `torch.load` returns it.
        source: What to call it in messages.
        allow_code: Whether an activation given by `class_path` may be imported, which runs the code of its module.

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
    rest = {key: content[key] for key in ("metric", "config", "scores", "versions")}
    return Ensemble(members, schema, residuals=residuals, **rest)


def _read_member(entry: dict[str, Any], preprocessors: Sequence[Preprocessor]) -> EnsembleMember:
    values = entry["member"]
    member = Member(**{**values, "split": Split(**values["split"]), "hidden": tuple(values["hidden"])})
    preprocessor = preprocessors[entry["preprocessor"]]
    # `torch` draws without asking what the activation does to a signal, which takes longer
    expected = Regressor([replace(member, init="torch")], [preprocessor.n_features]).member_state(0)
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


def save(ensemble: Ensemble, path: str | Path) -> None:
    """Write the checkpoint, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    write_checkpoint(Path(path), to_checkpoint(ensemble))


def load(path: str | Path, allow_code: bool = False) -> Ensemble:
    """Read a checkpoint onto the CPU, whatever it was trained on.

    Args:
        path: Of the file.
        allow_code: As in `from_checkpoint`.

    Raises:
        InputError: no such file, or not one that actlab can read; never is code from it run.
    """
    return from_checkpoint(read_checkpoint(Path(path)), str(path), allow_code)


def describe(ensemble: Ensemble) -> str:
    """What a checkpoint is, for people: data, columns, settings, scores, versions."""
    import yaml

    schema = ensemble.schema
    kinds = {kind: [c.name for c in schema.columns if c.kind == kind] for kind in get_args(Kind)}
    networks = Counter(
        f"{one.member.activation} {list(one.member.hidden)} at {one.member.learning_rate:g}" for one in ensemble.members
    )
    n_residuals = sum(len(part.residuals) for part in ensemble.residuals)
    config = plain(ensemble.config)
    content = {
        "target": schema.target,
        "target transform": ensemble.transform.transform,
        "id": schema.id,
        "columns": {kind: names for kind, names in kinds.items() if names},
        "dropped columns": list(schema.dropped),
        "missing": list(schema.na_values),
        "networks": dict(networks),
        "folds": len(ensemble.folds),
        "inputs of a network": sorted({preprocessor.n_features for preprocessor in ensemble.preprocessors}),
        "out-of-fold residuals": n_residuals,
        "metric": ensemble.metric,
        "scores": plain(ensemble.scores),
        "settings": config,
        "configuration hash": config_hash(config),
        "format": FORMAT,
        "versions": dict(ensemble.versions),
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return text
