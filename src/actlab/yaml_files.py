"""YAML files as the commands take them, and the list of data sets that one may hold."""

import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actlab.errors import InputError


def data_section(file: str) -> dict[str, Any]:
    """The `data` keys of a YAML file, which may be missing.

    Raises:
        InputError: no such file, it lists several data sets, or `data` is no group of keys.
    """
    content = read_yaml(file).get("data") or {}
    if isinstance(content, list):
        raise InputError(f"{file} does not describe one data set, but lists several; name one of the files in its list")
    if not isinstance(content, dict):
        raise InputError(f"data must hold keys with values, got {content!r} in {file}")
    return dict(content)


@dataclass(frozen=True)
class DataList:
    """Several data sets, as `data: [a.yaml, b.yaml]` of a YAML file or of the command line lists them.

    `file` is the YAML file with the list (None: the command line); `configs` are what the files of `--config` say
    besides, and `flags` the other arguments.
    """

    entries: list[Any]
    file: Path | None
    configs: list[tuple[str, dict[str, Any]]]
    flags: list[str]


def find_data_list(arguments: list[str]) -> DataList | None:
    """What lists several data sets among the arguments of a command; None for one data set.

    Raises:
        InputError: a file of `--config` is not YAML, or several things list data sets.
    """
    lists: list[tuple[Path | None, list[Any]]] = []
    configs: list[tuple[str, dict[str, Any]]] = []
    flags: list[str] = []
    rest = list(arguments)
    while rest:
        option, is_joined, joined = rest.pop(0).partition("=")
        if option not in ("--config", "--data"):
            flags.append(f"{option}{is_joined}{joined}")
            continue
        n_values = next((n for n, text in enumerate(rest) if text.startswith("--")), len(rest))
        values = [joined] if is_joined else [rest.pop(0) for _ in range(n_values)]
        if option == "--data" and (listed := _listed(values)) is not None:
            lists.append((None, listed))
        elif option == "--config" and len(values) == 1 and os.path.isfile(values[0]):
            content = read_yaml(values[0])
            if isinstance(content.get("data"), list):
                lists.append((Path(values[0]), content.pop("data")))
            configs.append((values[0], content))
        else:
            flags += [option, *values]
    if len(lists) > 1:
        raise InputError("data sets are listed more than once; put them into one list")
    return DataList(lists[0][1], lists[0][0], configs, flags) if lists else None


def _listed(values: list[str]) -> list[Any] | None:
    """`a.yaml b.yaml` or `[a.yaml, b.yaml]` as a list; None for a single value that is none."""
    import yaml

    if len(values) != 1:
        return list(values) or None
    try:
        content = yaml.safe_load(values[0])
    except yaml.YAMLError:
        return None
    return content if isinstance(content, list) else None


def read_yaml(file: str) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises:
        InputError: no such file, or not a mapping of keys to values.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise InputError(f"{file}{line}: {error.problem}; correct the YAML there") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read as YAML: {one_line(str(error))}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold keys with values, like 'data:'")
    return content


def one_line(message: str) -> str:
    """A parser's message, often of several lines, as one sentence."""
    lines = [line.strip(" -\t") for line in message.splitlines()]
    return " ".join(line for line in lines if line)
