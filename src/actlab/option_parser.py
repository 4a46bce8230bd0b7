"""Options of the commands that need no typed configuration: argparse, with complaints in one sentence."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from actlab.errors import InputError
from actlab.yaml_files import read_yaml

Arguments = list[str]


def _fits(action: argparse.Action, value: object) -> bool:
    """Whether a value from a YAML file is of the type that the flag takes."""
    if action.const is True:
        return isinstance(value, bool)
    return value is None or isinstance(value, int | float if action.type is float else str | int | float)


class OptionParser(argparse.ArgumentParser):
    """argparse with its complaints as an `InputError`, and options that a YAML file may give too (`--config`)."""

    def __init__(self, command: str, summary: str) -> None:
        super().__init__(prog=f"actlab {command}", description=summary)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (actlab {self.prog.split()[-1]} --help lists the options)")

    def parse(self, arguments: Arguments, needed: Sequence[str] = ()) -> argparse.Namespace:
        """Flags over the file of `--config` over defaults; `needed` options must come from one of the first two."""
        self.add_argument("--config", help="a YAML file with any of these options")
        file = self.parse_args(arguments).config
        if file is not None:
            content = read_yaml(file)
            known = {action.dest for action in self._actions}
            if unknown := sorted(content.keys() - known):
                self.error(f"{file} has unknown keys: {', '.join(map(str, unknown))}")
            for action in self._actions:
                if action.dest in content and not _fits(action, content[action.dest]):
                    self.error(f"{file} gives {action.dest} a value of a wrong type: {content[action.dest]!r}")
            self.set_defaults(**content)
        asked = self.parse_args(arguments)
        if missing := [name for name in needed if getattr(asked, name) is None]:
            self.error(f"needed and not given: {', '.join(f'--{name}' for name in missing)}")
        return asked

    def add_allow_code(self) -> None:
        self.add_argument(
            "--allow_code", action="store_true", help="import activation classes that the checkpoint names"
        )
