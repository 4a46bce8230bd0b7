"""One configuration for all commands: typed groups, YAML files, dotted overrides, and the resolved copy of a run."""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actlab.errors import InputError
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

MAX_EPOCHS = 200
HOUSE_PRICES = Path("configs/house_prices.yaml")
CKPT_COMMANDS = ("validate", "test")
# what a run's results do not depend on, or depends on the machine only
NOT_COMPARED = ("out", "workers", "storage", "fresh", "json", "ckpt_path")


@dataclass(frozen=True)
class Configuration:
    """Everything a command was asked for, after YAML and flags.

    `trainer` holds the arguments of Lightning's Trainer that differ from its defaults.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as config.yaml holds them and `--config` reads them."""
        content = asdict(self)
        del content["name"]
        return content

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
    names_data = any(a.split("=")[0] in ("--config", "--data.csv", "--data", "--ckpt_path") for a in arguments)
    asks_only = any(a in ("-h", "--help") or a.startswith("--print_config") for a in arguments)
    if not names_data and not asks_only and HOUSE_PRICES.exists():
        print(f"no --data.csv given: using {HOUSE_PRICES}", file=sys.stderr)
        arguments = ["--config", str(HOUSE_PRICES), *arguments]
    try:
        parsed = parser.parse_args(arguments)
        trainer_defaults = parser.get_defaults().trainer
        groups = parser.instantiate(parsed)
    except (jsonargparse.ArgumentError, OSError) as error:
        raise InputError(one_line(str(error))) from error
    if parsed.ckpt_path is not None and command not in CKPT_COMMANDS:
        raise InputError(f"actlab {command} starts from drawn weights; --ckpt_path is for validate, test and predict")
    if parsed.trainer.precision in ("16-mixed", "16", 16):
        raise InputError("trainer.precision must not be 16-mixed, which scales losses: take bf16-mixed or 32-true")
    trainer = {key: value for key, value in parsed.trainer.as_dict().items() if value != trainer_defaults[key]}
    return Configuration(
        data=groups.data,
        model=groups.model,
        optimizer=groups.optimizer,
        compare=groups.compare,
        search=groups.search,
        trainer={"max_epochs": parsed.trainer.max_epochs, **trainer},
        **{key: parsed[key] for key in ("seed", "out", "workers", "storage", "fresh", "json", "ckpt_path")},
        name=_name(parsed),
    )


def parse_data(config: str | None, csv: str | None, target: str | None) -> dict[str, Any]:
    """CSV, target and id of the data section of a YAML file and two overrides, without the training libraries.

    Raises:
        InputError: no such file, no CSV or no target named.
    """
    if config is None and csv is None and HOUSE_PRICES.exists():
        config = str(HOUSE_PRICES)
    content = dict(read_yaml(config).get("data") or {}) if config is not None else {}
    content |= {key: value for key, value in (("csv", csv), ("target", target)) if value is not None}
    for key in ("csv", "target"):
        if content.get(key) is None:
            raise InputError(f"data.{key} is needed: --data.{key} ..., or a --config that has it")
    return content


def read_yaml(file: str) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises:
        InputError: no such file, or not a mapping of keys to values.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read as YAML: {one_line(str(error))}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold keys with values, like 'data:'")
    return content


def one_line(message: str) -> str:
    """A parser's message, often of several lines, as one sentence."""
    lines = [line.strip(" -\t") for line in message.splitlines()]
    return " ".join(line for line in lines if line)


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
