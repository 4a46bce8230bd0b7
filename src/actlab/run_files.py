"""What a run directory holds, and how files are read and written.

Everything that trains writes these files, and everything that explains a run reads them and nothing else. A file is
written whole or not at all (a temporary file beside the target, then a rename), so a reader never sees half of one.
Reading needs the standard library, PyYAML and pandas only.
"""

import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd

from actlab.errors import InputError
from actlab.members import MemberKey


@dataclass(frozen=True)
class MemberRecord(MemberKey):
    """One row of members.csv. Scores are on the scale trained on (log-RMSE, say), nan where there is none."""

    seed: int
    best_epoch: int
    epochs: int
    val_score: float
    test_score: float
    diverged: bool
    pruned: bool
    n_parameters: int
    seconds: float


@dataclass(frozen=True)
class CurveRecord:
    """One row of curves.csv: mean and standard deviation over the members of a trial that were in training."""

    trial: int
    activation: str
    learning_rate: float
    epoch: int
    members: int
    train_mean: float
    train_sd: float
    val_mean: float
    val_sd: float


class RunDirectory:
    """Names of the files of a run, and their content."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.journal = self.path / "study.journal"
        self.members = self.path / "members.csv"
        self.curves = self.path / "curves.csv"
        self.health = self.path / "health.csv"
        self.convergence = self.path / "convergence.csv"
        self.pre_activations = self.path / "pre_activations.csv"
        self.summary = self.path / "summary.json"
        self.checkpoint = self.path / "best.ckpt"
        self.predictions = self.path / "predictions.csv"
        self.out_of_fold = self.path / "out_of_fold.npz"
        self.tensorboard = self.path / "tensorboard"
        self.weights = self.path / "weights"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    def create(self) -> None:
        """Make the directory; an `InputError` says why it cannot be made or written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the run directory {self.path} cannot be made: {error.strerror}") from error
        if not os.access(self.path, os.W_OK):
            raise InputError(f"the run directory {self.path} cannot be written; choose another with --out DIR")

    def sweep(self) -> None:
        """Remove the half-written files of a process that was killed while it wrote results.

        Only for who alone writes them: a temporary file may else belong to somebody who is at work.
        """
        for place in (self.figures, self.tensorboard):
            for leftover in place.rglob(".*"):
                leftover.unlink(missing_ok=True)

    def read_config(self) -> dict[str, Any]:
        """config.yaml; empty where there is none. Raises as `read_yaml`."""
        return read_yaml(self.config) if self.config.exists() else {}

    def write_config(self, content: Mapping[str, Any]) -> None:
        write_text(self.config, to_yaml(content))

    def read_members(self) -> pd.DataFrame:
        """members.csv, a row a member; an `InputError` where it is not there."""
        try:
            return pd.read_csv(self.members)
        except OSError as error:
            raise _not_a_run(self.members) from error

    def read_summary(self) -> dict[str, Any]:
        """summary.json; null stays None. An `InputError` where it is not there, or damaged."""
        try:
            summary = json.loads(self.summary.read_text(encoding="utf-8"))
        except OSError as error:
            raise _not_a_run(self.summary) from error
        except ValueError as error:
            raise InputError(f"{self.summary} is not JSON ({error}); the run's command writes it again") from error
        if not isinstance(summary, dict):
            raise InputError(f"{self.summary} is not the summary of a run")
        return summary


def _not_a_run(path: Path) -> InputError:
    return InputError(f"{path} is not there: {path.parent} is not the directory of a finished run")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an `InputError` for no such file, no YAML, or no keys with values."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise InputError(f"{path}{line}: {error.problem}; correct the YAML there") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {one_line(str(error))}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold keys with values, like 'data:'")
    return content


def to_yaml(content: Mapping[str, Any]) -> str:
    """A mapping as YAML, its keys in their own order."""
    import yaml

    return str(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def one_line(message: str) -> str:
    """A parser's message, often of several lines, as one sentence."""
    return " ".join(filter(None, (line.strip(" -\t") for line in message.splitlines())))


def to_frame(records: Iterable[Any], record_type: type[Any]) -> pd.DataFrame:
    """Records of one dataclass as a frame with its fields as columns, also when there are none."""
    return pd.DataFrame([vars(record) for record in records], columns=[field.name for field in fields(record_type)])


# what to do about a file that cannot be written
REPAIRS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room on the disk, or write to another one"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "change the permissions of its folder, or write somewhere else"
    ),
}


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Where that fails (the disk is full, ...) an `InputError` says why, and `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # mkstemp makes a private file; a result is as readable as any other file of the user
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        repair = REPAIRS.get(error.errno or 0, "write somewhere else")
        raise InputError(f"{path} cannot be written: {error.strerror or error}; {repair}") from error


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """A CSV with every digit of its numbers."""
    write_atomically(path, lambda temporary: frame.to_csv(temporary, index=False))


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What one activation's networks that count predict for rows that they never saw, on the scale trained on.

    Args:
        repeats: (R,) those in which no network diverged.
        predictions: (R, inner, n); None for a table of very many rows.
        squared_errors: (n,) of each row, averaged over inner splits and summed over the repeats; only for such a table.
    """

    learning_rate: float
    repeats: tuple[int, ...]
    predictions: npt.NDArray[Any] | None
    squared_errors: npt.NDArray[np.float64] | None = None


def write_out_of_fold(run: RunDirectory, actual: npt.NDArray[Any], content: Mapping[str, OutOfFold]) -> None:
    """out_of_fold.npz; `actual` is the target (n,) on the scale trained on, names are those of activations."""
    arrays: dict[str, Any] = {"actual": actual, "activations": np.array(list(content), dtype=str)}
    for place, own in enumerate(content.values()):
        arrays |= {f"{key}_{place}": np.asarray(value) for key, value in vars(own).items() if value is not None}
    write_atomically(run.out_of_fold, lambda temporary: np.savez_compressed(temporary, **arrays))


def read_out_of_fold(run: RunDirectory) -> tuple[npt.NDArray[Any], dict[str, OutOfFold]]:
    """What `write_out_of_fold` wrote; an `InputError` where it is not there, or damaged."""
    try:
        with run.out_of_fold.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names, actual = arrays["activations"].tolist(), arrays["actual"]
            found = {
                name: OutOfFold(
                    float(arrays[f"learning_rate_{place}"]),
                    tuple(arrays[f"repeats_{place}"].tolist()),
                    *(arrays.get(f"{key}_{place}") for key in ("predictions", "squared_errors")),
                )
                for place, name in enumerate(names)
            }
    except OSError as error:
        raise _not_a_run(run.out_of_fold) from error
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{run.out_of_fold} is damaged ({error}); the run's command writes it again") from error
    return actual, found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON that every reader takes: NaN and infinities are written as null."""
    write_text(path, json.dumps(jsonable(content), indent=2, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """Nested dicts, lists and numbers as JSON knows them; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") and not isinstance(value, str) else value


def check_output(output: Path, sources: Sequence[Path], overwrite: bool) -> Path:
    """Where to write, links followed.

    Raises:
        InputError: nothing can be written there, it is one of the `sources`, or, without `overwrite`, a file that is
            there and not empty.
    """
    if output.is_dir():
        raise InputError(f"{output} is a directory; name a file to write")
    folder = output.resolve().parent
    if not folder.is_dir():
        raise InputError(f"{output} cannot be written: {folder} is not a directory; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{output} cannot be written: permission denied; choose another --output")
    if output.exists():
        if any(source.exists() and output.samefile(source) for source in sources):
            raise InputError(f"{output} is both read and written; choose another --output")
        if not output.is_file():
            raise InputError(f"{output} is not a regular file; choose another --output")
        if output.stat().st_size > 0 and not overwrite:
            raise InputError(f"{output} exists; choose another --output, or replace it with --overwrite")
    return output.resolve()
