"""Locks that the kernel gives back when their process ends, however it ends."""

import os
import sys
from pathlib import Path
from typing import Self

from actlab.errors import InputError


class FileLock:
    """An exclusive lock on a file, between processes and between threads; the file is made when it is not there.

    Args:
        path: The file. It stays behind: removing it while others wait would let two in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, is_blocking: bool = True) -> bool:
        """Take the lock; False if somebody has it and `is_blocking` is not set.

        Raises:
            InputError: the file cannot be made, or its file system has no locks.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            is_taken = _lock(descriptor, is_blocking)
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"{self.path.parent} lies on a file system without file locks ({error.strerror}); "
                "choose another directory with --out"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        if not is_taken:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            # closing the only descriptor of this opening ends the lock
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt
    import time

    def _lock(descriptor: int, is_blocking: bool) -> bool:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return True
            except PermissionError:
                if not is_blocking:
                    return False
                time.sleep(0.01)

else:
    import fcntl

    def _lock(descriptor: int, is_blocking: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if is_blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
