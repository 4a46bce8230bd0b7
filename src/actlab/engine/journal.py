"""Optuna's journal file, made safe against processes that die or run out of disk in the middle of a write."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from actlab.engine.locks import FileLock
from actlab.errors import InputError

# Optuna's own locks give a holder that long before they take it for dead
FOREIGN_GRACE_S = 30


def open_journal(path: Path) -> JournalStorage:
    """The study storage in a file.

    Raises:
        InputError: the file is damaged or cannot be written.
    """
    try:
        return JournalStorage(SafeJournal(path))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is damaged ({error}); move it away, or start a new directory with --fresh or --out DIR"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error


class SafeJournal(JournalFileBackend):
    """Optuna's journal file whose every line is whole.

    A process killed in the middle of a write leaves a torn last line; the next write would be glued to it and nobody
    could read the study again. Here every write first cuts such a tail, and takes its own back when it fails.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock, self._is_synced = path, JournalLock(path), True
        # what Optuna calls its lock is given for completeness: `append_logs` uses ours
        super().__init__(str(path), lock_obj=JournalFileOpenLock(str(path)))
        with self.lock.held(), self._opened() as descriptor:
            cut_torn_line(descriptor)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write whole lines, or nothing.

        Raises:
            InputError: the disk is full, or the file cannot be written for another reason.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            with self.lock.held(), self._opened() as descriptor:
                n_whole = cut_torn_line(descriptor)
                try:
                    _write_all(descriptor, lines)
                    if self._is_synced:
                        os.fsync(descriptor)
                except BaseException:
                    os.ftruncate(descriptor, n_whole)
                    raise
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def synced_once(self) -> Iterator[None]:
        """Wait for the disk at the end of a block instead of after each line that it writes.

        A process that dies inside loses nothing, for the kernel has its lines. A machine that dies may lose the last
        ones of them, and a cell whose lines are gone is queued, claimed or trained again.

        Raises:
            InputError: as `append_logs`.
        """
        if not self._is_synced:
            # inside another block, which waits for both
            yield
            return
        self._is_synced = False
        try:
            yield
        finally:
            self._is_synced = True
        try:
            with self._opened() as descriptor:
                os.fsync(descriptor)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path} cannot be written: {error.strerror}; "
            "what is in it is safe, and the same command goes on from there"
        )


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def cut_torn_line(descriptor: int) -> int:
    """Cut what follows the last newline of a file, under its lock; returns the length that is left."""
    n_bytes = os.fstat(descriptor).st_size
    end, block = n_bytes, 1 << 16
    while end > 0:
        start = max(0, end - block)
        os.lseek(descriptor, start, os.SEEK_SET)
        newline = os.read(descriptor, end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < n_bytes:
        os.ftruncate(descriptor, end)
    return end


class JournalLock:
    """The lock of a journal file: the kernel's between our processes, and Optuna's own for everybody else.

    Optuna's lock is a file beside the journal which a killed process leaves behind and which then blocks everybody for
    30 s. Ours is marked, and made only by who has the kernel's lock: whoever has that knows a marked one for stale.

    Args:
        journal: The file to protect.
    """

    def __init__(self, journal: Path) -> None:
        self._kernel = FileLock(journal.with_name(f"{journal.name}.flock"))
        self._file = journal.with_name(f"{journal.name}.lock")
        # a link to the journal itself, as Optuna's link lock is one, in a spelling of our own
        self._mark = f"./././{journal.name}"

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._kernel:
            self._link()
            try:
                yield
            finally:
                self._file.unlink(missing_ok=True)

    def _link(self) -> None:
        seen, since, pause_s = None, time.monotonic(), 0.001
        while True:
            try:
                return self._make()
            except FileExistsError:
                found = self._identity()
            if found != seen:
                seen, since = found, time.monotonic()
            if self._is_ours() or (found and time.monotonic() - since > FOREIGN_GRACE_S):
                self._file.unlink(missing_ok=True)
                continue
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)

    def _make(self) -> None:
        try:
            os.symlink(self._mark, self._file)
        except (FileExistsError, NotImplementedError, PermissionError) as error:
            if isinstance(error, FileExistsError):
                raise
            # no links here (Windows without the privilege): a plain file, as Optuna's other lock
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def _is_ours(self) -> bool:
        try:
            return os.readlink(self._file) == self._mark
        except OSError:
            return False

    def _identity(self) -> tuple[int, int] | None:
        """Tells one foreign lock from the next, taken meanwhile; None when it is gone again."""
        try:
            status = os.lstat(self._file)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
