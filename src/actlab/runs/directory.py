"""Which directory a run writes into, and whether what is in it is the same run: command, data, configuration."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from actlab.configuration import Configuration, differences, to_yaml
from actlab.errors import InputError
from actlab.records import RunDirectory, plain, write_text
from actlab.report.several import is_several

FINGERPRINT = "actlab"


def show_warnings(texts: Iterable[str]) -> None:
    """What was unusual about the CSV, a line each on stderr, as `check` says it."""
    for text in texts:
        print(f"warning: {text}", file=sys.stderr)


def choose_directory(command: str, configuration: Configuration) -> RunDirectory:
    """The run directory: `--out`, else runs/COMMAND-NAME; with `--fresh` the first of it, it-2, it-3, ... not there.

    Raises:
        InputError: the path is a file, or a directory of something else.
    """
    path = Path(configuration.out or f"runs/{command}-{configuration.name}")
    if configuration.fresh:
        base, number = path, 2
        while path.exists():
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; name a directory")
    run = RunDirectory(path)
    if is_several(path):
        raise InputError(f"{path} holds a comparison on several data sets; choose another --out, or add --fresh")
    # another worker's first files, half written or left by one that was killed, are hidden or the journal's
    foreign = path.is_dir() and any(not entry.name.startswith((".", run.journal.name)) for entry in path.iterdir())
    if foreign and not (run.journal.exists() or run.config.exists()):
        raise InputError(f"--out {path} is a directory with other files in it; name a new one")
    return run


@dataclass(frozen=True)
class Fingerprint:
    """What two starts of one run must agree on.

    Args:
        command: The command.
        data: Hash of the table's content.
        config: The part of the configuration that the command reads.
        versions: Of the code and its libraries; another one is a warning only.
    """

    command: str
    data: str
    config: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as the study keeps them."""
        return {"command": self.command, "data": self.data, "config": plain(self.config), "versions": self.versions}


def check_same_run(run: RunDirectory, study: optuna.Study, own: Fingerprint, is_quiet: bool) -> None:
    """Compare with the start that made the study, or leave our fingerprint there if we make it.

    To be called under the study's lock.

    Args:
        run: Its `config.yaml` speaks where the study is gone, or in a database.
        study: Keeps the fingerprint.
        own: Of this start.
        is_quiet: Do not warn of other versions.

    Raises:
        InputError: the directory holds another run; says what differs.
    """
    asked, stored = own.to_dict(), study.user_attrs.get(FINGERPRINT)
    if stored is None:
        _refuse(run, _differences_of_file(run, asked["config"]))
        study.set_user_attr(FINGERPRINT, asked)
        return
    changed = differences(stored["versions"], asked["versions"])
    if changed and not is_quiet:
        print(f"warning: this run was started with other versions: {'; '.join(changed)}", file=sys.stderr)
    _refuse(run, fingerprint_differences(stored, asked))


def keep_configuration(run: RunDirectory, configuration: Configuration) -> None:
    """Write config.yaml, unless it is there."""
    if not run.config.exists():
        write_text(run.config, to_yaml(configuration.to_dict()))


def _differences_of_file(run: RunDirectory, asked: dict[str, Any]) -> list[str]:
    if not run.config.exists():
        return []
    import yaml

    content = yaml.safe_load(run.config.read_text()) or {}
    stored = {key: value for key, value in content.items() if key in asked}
    return differences(_without_place(stored), _without_place(asked))


def _refuse(run: RunDirectory, lines: list[str]) -> None:
    if lines:
        raise InputError(
            f"{run.path} holds another run, which differs in {'; '.join(lines)} (there -> here); "
            "go on with that one, choose another --out, or add --fresh"
        )


def fingerprint_differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """What makes two starts different runs, a line each: command, data, configuration."""
    lines = differences({"command": stored["command"]}, {"command": asked["command"]})
    if stored["data"] != asked["data"]:
        csv = asked["config"]["data"]["csv"]
        lines.append(f"the content of {csv} (sha256 {stored['data'][:12]} -> {asked['data'][:12]})")
    return lines + differences(_without_place(stored["config"]), _without_place(asked["config"]))


def _without_place(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what differs from machine to machine: the data are known by their content."""
    data = {key: value for key, value in config.get("data", {}).items() if key != "csv"}
    trainer = {key: value for key, value in config.get("trainer", {}).items() if key != "devices"}
    # a total: asking for more goes on
    search = {key: value for key, value in config.get("search", {}).items() if key != "n_trials"}
    return {**config, "data": data, "trainer": trainer, "search": search}
