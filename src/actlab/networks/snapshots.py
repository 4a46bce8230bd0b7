"""Snapshots of a population in training, from which an interrupted one goes on at the end of an epoch.

Lightning saves and restores; what members go on from is `PopulationModule`'s to say. A snapshot may hold more members
than are trained again: other workers may have taken some, and a study may be done.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from actlab.errors import InputError
from actlab.members import Member

# Seconds of training that an interruption may cost; more where writing would take a larger share of the time.
INTERVAL_S, LARGEST_SHARE = 20.0, 0.04
# the key of a snapshot beside what Lightning and the module put in
KEY = "actlab_key"


class Snapshots:
    """The snapshots of one process in a directory: found before training, deleted once results are stored.

    `key` names all that training depends on besides the members; `keeps_results` lets trained ones wait for other work.
    """

    def __init__(self, directory: Path, key: str, keeps_results: bool) -> None:
        self.directory, self.key, self.keeps_results = directory, key, keeps_results
        self.used: set[Path] = set()

    def groups(self, members: Sequence[Member]) -> list[tuple[list[Member], Path | None]]:
        """Members that can go on from one snapshot, with its path; then all others, as one population."""
        left, groups = list(members), []
        for path in sorted(self.directory.glob("population-*.ckpt")):
            try:
                # its tensors stay on the disk
                content = torch.load(path, mmap=True, weights_only=True)
                known = set(content["population"]["members"]) if content[KEY] == self.key else set()
            except Exception:
                # cut short, or no snapshot: torch raises about anything, and training from the start is always right
                continue
            if own := [member for member in left if repr(member) in known]:
                groups.append((own, path))
                self.used.add(path)
                left = [member for member in left if repr(member) not in known]
        return [*groups, *([(left, None)] if left else [])]

    def callback(self, members: Sequence[Member], is_last: bool) -> "SnapshotCallback":
        """What writes the snapshots of a population; where another one follows, its results as well."""
        digest = hashlib.sha256("\n".join(map(repr, members)).encode()).hexdigest()[:16]
        path = self.directory / f"population-{digest}.ckpt"
        self.used.add(path)
        return SnapshotCallback(path, self.key, is_last and not self.keeps_results)

    def clear(self) -> None:
        """Delete what was used, once the results are stored elsewhere."""
        for path in self.used:
            path.unlink(missing_ok=True)
        self.used.clear()


class SnapshotCallback(Checkpoint):
    """Writes a snapshot at the end of an epoch, when the last one lies `INTERVAL_S` back.

    Lightning calls callbacks of this kind after the module's own hook: members that are done have left by then.
    """

    def __init__(self, path: Path, key: str, is_last: bool) -> None:
        self.path, self.key, self.is_last = path, key, is_last
        self.wait_s, self.since = INTERVAL_S, time.monotonic()

    def on_save_checkpoint(self, trainer: object, pl_module: object, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.key

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        started = time.monotonic()
        if self.is_last if trainer.should_stop else started - self.since < self.wait_s:
            return
        try:
            trainer.save_checkpoint(self.path)
        except InputError:
            # no room: training goes on, and an interruption costs more
            self.wait_s = float("inf")
        self.since = time.monotonic()
        self.wait_s = max(self.wait_s, (self.since - started) / LARGEST_SHARE)


class SnapshotFiles(TorchCheckpointIO):
    """Files that are whole or not there; Lightning's own writer holds a second copy of everything in memory."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        temporary = Path(path).with_suffix(".part")
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            # torch's zip writer says a full disk in a RuntimeError
            temporary.unlink(missing_ok=True)
            raise InputError(f"{path} cannot be written: {error}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return dict(torch.load(path, mmap=True, weights_only=True))
