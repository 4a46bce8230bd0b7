"""The command line: which command, and the exit code.

Exit codes: 0 done, 2 bad input or usage (one line on stderr), 130 interrupted, 143 terminated, 1 our own bug.
"""

import gc
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from actlab import __version__
from actlab.commands import COMMANDS
from actlab.errors import InputError

__all__ = ["COMMANDS", "dispatch", "main"]

# Objects more, after which Python looks for cycles among them. Imports make a million that stay: with Python's own 700
# it looks through them so often that this takes 0.7 of their 4.6 seconds.
GC_THRESHOLD = 100_000


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: actlab COMMAND [options]",
            "",
            "Which activation function, at which learning rate, should my regressor use,",
            "and is the difference real or luck?",
            "",
            *lines,
            "",
            "actlab COMMAND --help explains one of them; actlab --version prints the version.",
        ]
    )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"actlab {__version__}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; there are {', '.join(COMMANDS)}")
    COMMANDS[name].run(list(rest))
    return 0


def main() -> NoReturn:
    """Entry point of the `actlab` command."""
    gc.set_threshold(GC_THRESHOLD)
    # in place of KeyboardInterrupt, which Lightning turns into exit code 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _terminate)
    try:
        code = dispatch(sys.argv[1:])
    except InputError as error:
        print(f"actlab: {error}", file=sys.stderr)
        code = 2
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            print("actlab: interrupted; the same command again goes on where it stopped", file=sys.stderr)
    except BrokenPipeError:
        code = 0
    # what is left goes with the process; to look through it for cycles once more takes a second and a half
    gc.freeze()
    sys.exit(code)
