"""One configuration for all commands: typed groups, YAML files, dotted overrides, and the resolved copy of a run."""

import argparse
import re
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actlab.errors import InputError
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings
from actlab.yaml_files import data_section, find_data_list, one_line

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Group = TypeVar("Group")

MAX_EPOCHS = 200
HOUSE_PRICES = Path("configs/house_prices.yaml")
CKPT_COMMANDS = ("validate", "test")
# what a run's results do not depend on, or depends on the machine only
NOT_COMPARED = ("out", "workers", "storage", "fresh", "json", "ckpt_path")


@dataclass(frozen=True)
class Configuration:
    """Everything a command was asked for, after YAML and flags.

    `trainer` holds the arguments of Lightning's Trainer that differ from its defaults; `name` is what the run is called
    where `out` does not say, `study` its name in a database, the run directory's where it is None.
    """

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    compare: CompareSettings = field(default_factory=CompareSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    trainer: dict[str, Any] = field(default_factory=lambda: {"max_epochs": MAX_EPOCHS})
    seed: int = 0
    out: str | None = None
    workers: int = 1
    storage: str | None = None
    fresh: bool = False
    json: bool = False
    ckpt_path: str | None = None
    name: str = "run"
    study: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as config.yaml holds them and `--config` reads them."""
        return {key: value for key, value in asdict(self).items() if key not in ("name", "study")}

    def compared(self) -> dict[str, Any]:
        """What two starts of one run must agree on."""
        return {key: value for key, value in self.to_dict().items() if key not in NOT_COMPARED}


def add_options(parser: "ArgumentParser") -> None:
    """The keys that all training commands share."""
    from lightning.pytorch import Trainer

    parser.add_argument("--config", action="config", help="A YAML file with any of these keys.")
    for group, settings in (
        ("data", DataSettings),
        ("model", ModelSettings),
        ("optimizer", OptimizerSettings),
        ("compare", CompareSettings),
        ("search", SearchSettings),
    ):
        parser.add_class_arguments(settings, group)
    # set by a population itself: one device, no per-network loggers, checkpoints and bars
    skip = {"logger", "callbacks", "profiler", "plugins", "strategy", "barebones", "model_registry"}
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip=skip)
    parser.set_defaults({"trainer.max_epochs": MAX_EPOCHS})
    parser.add_argument("--seed", type=int, default=0, help="Seed of splits, initial weights and batch orders.")
    parser.add_argument("--out", type=str | None, default=None, help="The run directory (default: runs/NAME).")
    parser.add_argument("--workers", type=int, default=1, help="Processes on this machine.")
    parser.add_argument("--storage", type=str | None, default=None, help="Database URL shared by several machines.")
    parser.add_argument("--fresh", action="store_true", help="Start a new run directory beside an existing one.")
    parser.add_argument("--json", action="store_true", help="Print summary.json instead of the table.")
    parser.add_argument("--ckpt_path", type=str | None, default=None, help="A checkpoint, for validate and test.")


def parse(command: str, description: str, arguments: list[str]) -> Configuration:
    """YAML files and flags to a `Configuration`; without a config and a CSV, House Prices where its config is.

    Raises:
        InputError: an unknown key, a value of a wrong type or out of range.
    """
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=f"actlab {command}", description=description, exit_on_error=False, allow_abbrev=False
    )
    add_options(parser)
    if command == "compare":
        parser.epilog = "--data a.yaml b.yaml (in YAML data: [a.yaml, b.yaml]) compares on several data sets."
        # no default of its own: the configuration has one already
        confirm_help = "Train winner and close rivals again: short for --compare.confirm true."
        parser.add_argument("--confirm", action="store_true", default=argparse.SUPPRESS, help=confirm_help)
    if find_data_list(arguments) is not None:
        raise InputError(
            "several data sets (data: [a.yaml, b.yaml]) are compared by the command line's actlab compare only; "
            "name one with a --config that has its data.csv"
        )
    names_data = any(a.split("=")[0] in ("--config", "--data.csv", "--data", "--ckpt_path") for a in arguments)
    if not names_data and not asks_only(arguments) and HOUSE_PRICES.exists():
        print(f"no --data.csv given: using {HOUSE_PRICES}", file=sys.stderr)
        arguments = ["--config", str(HOUSE_PRICES), *arguments]
    try:
        parsed = parser.parse_args(arguments)
        trainer_defaults = parser.get_defaults().trainer
        _refuse_flat_groups(parsed)
        groups = parser.instantiate(parsed)
    except (jsonargparse.ArgumentError, OSError) as error:
        raise InputError(f"{_complaint(error)} (actlab {command} --print_config shows all keys)") from error
    if parsed.ckpt_path is not None and command not in CKPT_COMMANDS:
        raise InputError(f"actlab {command} starts from drawn weights; --ckpt_path is for validate, test and predict")
    if parsed.trainer.precision in ("16-mixed", "16", 16):
        raise InputError("trainer.precision must not be 16-mixed, which scales losses: take bf16-mixed or 32-true")
    trainer = {key: value for key, value in parsed.trainer.as_dict().items() if value != trainer_defaults[key]}
    return Configuration(
        data=groups.data,
        model=groups.model,
        optimizer=groups.optimizer,
        compare=replace(groups.compare, confirm=True) if parsed.get("confirm") else groups.compare,
        search=groups.search,
        trainer={"max_epochs": parsed.trainer.max_epochs, **trainer},
        **{key: parsed[key] for key in ("seed", "out", "workers", "storage", "fresh", "json", "ckpt_path")},
        name=_name(parsed),
    )


def asks_only(arguments: list[str]) -> bool:
    """Whether the command is to explain itself rather than run."""
    return any(a in ("-h", "--help") or a.startswith("--print_config") for a in arguments)


def parse_group(settings: type[Group], content: dict[str, Any]) -> Group:
    """One group of keys on its own, as `parse` would take it.

    Raises:
        InputError: a value of a wrong type or out of range.
    """
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(settings, "data")
    try:
        group: Group = parser.instantiate(parser.parse_object({"data": content})).data
    except jsonargparse.ArgumentError as error:
        raise InputError(f"{_complaint(error)} (actlab compare --print_config shows all keys)") from error
    return group


def _complaint(error: Exception) -> str:
    """What the parser says, without names of Python's classes."""
    text = one_line(str(error))
    return re.sub(r"Parser key \"(.+?)\": Expected a <class '(\w+)'>\. Got value: (.+)", r"\1 must be \2, got \3", text)


def _refuse_flat_groups(parsed: Any) -> None:
    """Such as `data: 3`, which the parser lets pass."""
    for group in ("data", "model", "optimizer", "compare", "search", "trainer"):
        if not hasattr(parsed[group], "as_dict"):
            raise InputError(f"{group} must hold keys with values, got {group}={parsed[group]!r}")


def parse_data(config: str | None, csv: str | None, target: str | None) -> dict[str, Any]:
    """CSV, target and id of the data section of a YAML file and two overrides, without the training libraries.

    Raises:
        InputError: no such file, no CSV or no target named.
    """
    if config is None and csv is None and HOUSE_PRICES.exists():
        config = str(HOUSE_PRICES)
    content = data_section(config) if config is not None else {}
    content |= {key: value for key, value in (("csv", csv), ("target", target)) if value is not None}
    for key in ("csv", "target"):
        if content.get(key) is None:
            raise InputError(f"data.{key} is needed: --data.{key} ..., or a --config that has it")
    return content


def _name(parsed: Any) -> str:
    """What a run is called when `--out` does not say: the configuration file's name, or the CSV's."""
    if parsed.config:
        return Path(str(parsed.config[-1])).stem
    return Path(parsed.data.csv).stem if parsed.data.csv else "run"


def to_yaml(content: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def differences(stored: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each key whose value differs: `key: stored -> asked`."""
    lines = []
    for key in sorted(stored.keys() | asked.keys()):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old!r} -> {new!r}")
    return lines
