"""A file that the user asks for by name: where it may be written, decided before any work is done."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from actlab.errors import InputError
from actlab.records import not_written, write_atomically


def check_output(output: Path, sources: Sequence[Path], overwrite: bool) -> Path:
    """Where to write, links followed.

    Args:
        output: As the user named it.
        sources: Files that are read; never written over.
        overwrite: Whether a file that is there and not empty may be replaced.

    Raises:
        InputError: nothing can or should be written there.
    """
    if output.is_dir():
        raise InputError(f"{output} is a directory; name a file to write")
    folder = output.resolve().parent
    if not folder.is_dir():
        raise InputError(f"{output} cannot be written: {folder} is not a directory; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{output} cannot be written: permission denied; choose another --output")
    if output.exists():
        for source in sources:
            if source.exists() and output.samefile(source):
                raise InputError(f"{output} is both read and written; choose another --output")
        if not output.is_file():
            raise InputError(f"{output} is not a regular file; choose another --output")
        if output.stat().st_size > 0 and not overwrite:
            raise InputError(f"{output} exists; choose another --output, or replace it with --overwrite")
    return output.resolve()


def write_output(path: Path, write: Callable[[Path], object]) -> None:
    """`write_atomically`, with all that the operating system may say as an `InputError`."""
    try:
        write_atomically(path, write)
    except OSError as error:
        raise InputError(not_written(path, error)) from error
