"""The file a model is kept in: tensors and plain types inside an envelope that Lightning takes as `ckpt_path`.

It loads with `weights_only=True`, so nothing in it can run code, and says what is wrong with a file that is not one.
"""

import hashlib
import importlib.metadata
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actlab import __version__
from actlab.activations import BY_NAME
from actlab.errors import InputError
from actlab.run_files import write_atomically

# 2: intervals are made from the means and spreads of the folds too
FORMAT = 2
ZIP_MAGIC = b"PK\x03\x04"


def pack(content: Mapping[str, Any]) -> dict[str, Any]:
    """The model, made `plain`, under the key `actlab` of what Lightning accepts as a checkpoint."""
    return {
        "actlab": {"format": FORMAT, **plain(content)},
        "state_dict": {},
        "pytorch-lightning_version": importlib.metadata.version("lightning"),
        "epoch": 0,
        "global_step": 0,
    }


def unpack(checkpoint: object, source: str) -> dict[str, Any]:
    """The content that `pack` was given, and its format.

    Raises:
        InputError: another program wrote the checkpoint, or an actlab of another format.
    """
    content = checkpoint.get("actlab") if isinstance(checkpoint, Mapping) else None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputError(f"{source} was not written by actlab; name the best.ckpt of a run of actlab")
    stated, reads = f"{source} has format {content['format']}", f"actlab {__version__} reads format {FORMAT}"
    if content["format"] > FORMAT:
        raise InputError(f"{stated}, and {reads}; upgrade actlab")
    if content["format"] < FORMAT:
        repair = "start the run's command again with --fresh, or predict with the earlier actlab"
        raise InputError(f"{stated} of an earlier actlab, and {reads}; {repair}")
    return content


def refuse_foreign_code(activations: Iterable[str], source: str) -> None:
    """An activation given by `class_path` runs the code of its module on import: not because a file says so.

    Raises:
        InputError: an activation is neither in the table nor of a module that is loaded already.
    """
    for name in dict.fromkeys(activations):
        if name not in BY_NAME and name.rpartition(".")[0] not in sys.modules:
            raise InputError(
                f"{source} uses the activation {name!r}, whose module would be imported and run; if you trust the "
                "file and that module, allow it with --allow_code"
            )


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration of plain types, in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Nested plain types: mappings as dicts with text keys, tuples as lists, NumPy's numbers as Python's.

    A tensor becomes a copy on the CPU, since torch.save writes the whole storage of a view.

    Raises:
        TypeError: there is something else among them.
    """
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a checkpoint holds tensors and plain types only, got {type(value).__name__}: {value!r}")


def write_checkpoint(path: Path, checkpoint: object) -> None:
    """Write the file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """

    def write(temporary: Path) -> None:
        try:
            torch.save(checkpoint, temporary)
        except RuntimeError as error:  # torch's zip writer says so when the disk is full
            raise OSError(str(error)) from error

    write_atomically(path, write)


def read_checkpoint(path: Path) -> object:
    """What the file holds, on the CPU, whatever it was trained on.

    Raises:
        InputError: no such file, or none that can be loaded without running code from it.
    """
    _check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not look at the checksums it writes
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds Python objects, which could run code, and was not loaded; name a checkpoint of actlab"
        ) from None
    except Exception as error:
        # a hostile archive makes zipfile and torch raise about anything
        raise InputError(f"{path} is damaged or not a checkpoint of actlab; make it again, or copy it again") from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        inside = path / "best.ckpt"
        raise InputError(f"{path} is a directory; name a checkpoint" + (f", {inside}" if inside.exists() else ""))
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP_MAGIC))
        is_archive = zipfile.is_zipfile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; name a checkpoint, the best.ckpt of a run") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not is_archive:
        what = "is cut short; copy it again" if start == ZIP_MAGIC else "is not a checkpoint of actlab"
        raise InputError(f"{path} {what}")
