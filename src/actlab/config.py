"""From YAML files, flags and Python's keys to one typed `Configuration`, or to one for each of several data sets.

What is asked for comes in layers: files of `--config` and flags in the order they were typed, or nested keys from
Python. A later layer wins, an unknown key is an error, and the defaults of all groups are in `settings`.

Several data sets are a list of configuration files, a table each. What stands beside the list (trainer, seed, ...) wins
over the listed files, a flag over both. Where a run writes and who works on it belong to the whole: a listed file's own
`out`, `workers` and the like are not read, so that the config.yaml of a finished run can be listed too.
"""

import argparse
import os.path
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from actlab.errors import InputError
from actlab.run_files import one_line, read_yaml
from actlab.settings import YAML_WORDS, CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings

if TYPE_CHECKING:
    from jsonargparse import Namespace

# arguments as typed, or nested keys as a YAML file or Python holds them
Layer = list[str] | Mapping[str, Any]

MAX_EPOCHS = 200
HOUSE_PRICES = Path("configs/house_prices.yaml")
CKPT_COMMANDS = ("validate", "test")
LISTED = (
    "several data sets (data: [a.yaml, b.yaml]) are compared by the command line's actlab compare only; "
    "name one with a --config that has its data.csv"
)
# groups of keys with their class, beside `trainer`, whose class is Lightning's
GROUPS: dict[str, type[Any]] = {
    "data": DataSettings,
    "model": ModelSettings,
    "optimizer": OptimizerSettings,
    "compare": CompareSettings,
    "search": SearchSettings,
}
# what a run's results do not depend on, or depends on the machine only
NOT_COMPARED = ("out", "workers", "storage", "fresh", "json", "ckpt_path")
# what config.yaml leaves out: no key of every command
NOT_WRITTEN = ("allow_code", "bad_cells", "name", "study")


@dataclass(frozen=True)
class Configuration:
    """Everything a command was asked for.

    `trainer` holds the arguments of Lightning's Trainer that differ from its defaults; `allow_code` lets `validate` and
    `test` import an activation class that the checkpoint names; `name` is what the run is called where `out` does not
    say, `study` its name in a database, the run directory's where it is None.
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
    allow_code: bool = False
    bad_cells: str = "refuse"
    name: str = "run"
    study: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as config.yaml holds them and `--config` reads them."""
        return {key: value for key, value in asdict(self).items() if key not in NOT_WRITTEN}

    def compared(self) -> dict[str, Any]:
        """What two starts of one run must agree on."""
        return {key: value for key, value in self.to_dict().items() if key not in NOT_COMPARED}


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


class Options:
    """The options of one command: jsonargparse, with every complaint as an `InputError` that ends with the `hint`."""

    def __init__(self, command: str, description: str, hint: str = "--help lists the options") -> None:
        import jsonargparse

        self.parser = jsonargparse.ArgumentParser(
            prog=f"actlab {command}", description=description, exit_on_error=False, allow_abbrev=False
        )
        self.hint = hint

    def add(self, name: str, **keywords: Any) -> None:
        """One option, of text if not said otherwise; `type=bool` is a flag without a value, true or false in YAML."""
        if keywords.get("type") is bool:
            from jsonargparse import ActionYesNo

            # no `--no_NAME` beside it, which the class's annotation does not know of
            yes_only = ActionYesNo(yes_prefix="", no_prefix=None)  # type: ignore[arg-type]
            keywords.update(type=None, action=yes_only, default=False)
        elif not {"action", "choices"} & keywords.keys():
            keywords.setdefault("type", str)
        self.parser.add_argument(name, **keywords)

    def parse(self, *layers: Layer) -> "Namespace":
        """Every option's value, groups of keys as their dataclass. An `InputError` names an unknown key, a value of a
        wrong type or out of range, or what is needed and not given."""
        from jsonargparse import ArgumentError

        parsed: Namespace | None = None
        try:
            for layer in layers:
                if isinstance(layer, list):
                    # reads the files, too: the parser would not name one that is not YAML
                    if _find_list(layer) is not None:
                        raise InputError(LISTED)
                    parsed = self.parser.parse_args(layer, parsed)
                else:
                    parsed = self.parser.parse_object(dict(layer), parsed)
                for group in (*GROUPS, "trainer"):
                    # such as `data: 3`, which the parser lets pass
                    if group in parsed and not hasattr(parsed[group], "as_dict"):
                        raise InputError(f"{group} must hold keys with values, got {group}={parsed[group]!r}")
            return cast("Namespace", self.parser.instantiate(parsed))
        except (ArgumentError, OSError) as error:
            raise InputError(f"{self._complaint(error)} ({self.parser.prog} {self.hint})") from error

    def _complaint(self, error: Exception) -> str:
        """What the parser says, without names of Python's classes."""
        text = one_line(str(error))
        if needed := re.fullmatch("the following arguments are required: (.+)", text):
            shown = {action.dest: (action.option_strings or [action.dest])[-1] for action in self.parser._actions}
            return f"needed and not given: {', '.join(shown.get(name, name) for name in needed[1].split(', '))}"
        wrong_type = r"Parser key \"(.+?)\": Expected a <class '(\w+)'>\. Got value: (.+)"
        one_of = r"Parser key \"(.+?)\": Expected a typing\.Literal\[(.+?)\]\. Got value: (.+)"
        text = re.sub(one_of, r"\1 must be one of \2, got \3", re.sub(wrong_type, r"\1 must be \2, got \3", text))
        return f"{text}; {YAML_WORDS}" if re.search(r"must be str, got (True|False|None)$", text) else text


def _training_options(command: str, description: str) -> Options:
    """The keys that all training commands share, and the switches of this one."""
    from lightning.pytorch import Trainer

    options = Options(command, description, "--print_config shows all keys")
    options.add("--config", action="config", help="A YAML file with any of these keys.")
    for group, settings in GROUPS.items():
        options.parser.add_class_arguments(settings, group)
    # set by a population itself: one device, no per-network loggers, checkpoints and bars
    skip = {"logger", "callbacks", "profiler", "plugins", "strategy", "barebones", "model_registry"}
    options.parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip=skip)
    options.parser.set_defaults({"trainer.max_epochs": MAX_EPOCHS})
    options.add("--seed", type=int, default=0, help="Seed of splits, initial weights and batch orders.")
    options.add("--out", type=str | None, default=None, help="The run directory (default: runs/NAME).")
    options.add("--workers", type=int, default=1, help="Processes on this machine.")
    options.add("--storage", type=str | None, default=None, help="Database URL shared by several machines.")
    options.add("--fresh", type=bool, help="Start a new run directory beside an existing one.")
    options.add("--json", type=bool, help="Print summary.json instead of the table.")
    options.add("--ckpt_path", type=str | None, default=None, help="A checkpoint, for validate and test.")
    if command == "compare":
        options.parser.epilog = "--data a.yaml b.yaml (in YAML data: [a.yaml, b.yaml]) compares on several data sets."
        text = "Take one look more: short for --compare.confirm true."
        options.add("--confirm", type=bool, help=text)
    if command in CKPT_COMMANDS:
        options.add("--allow_code", type=bool, help="Import activation classes that the checkpoint names.")
        text = "What to do with a cell of a numeric column that is no number."
        options.add("--bad_cells", choices=["refuse", "missing"], default="refuse", help=text)
    return options


def configure(command: str, *layers: Layer, description: str = "") -> Configuration:
    """Layers of arguments and nested keys, later ones winning, to a `Configuration`; raises as `Options.parse`."""
    options = _training_options(command, description)
    trainer_defaults = options.parser.get_defaults().trainer
    parsed = options.parse(*layers)
    if parsed.ckpt_path is not None and command not in CKPT_COMMANDS:
        raise InputError(f"actlab {command} starts from drawn weights; --ckpt_path is for validate, test and predict")
    if parsed.trainer.precision in ("16-mixed", "16", 16):
        raise InputError("trainer.precision must not be 16-mixed, which scales losses: take bf16-mixed or 32-true")
    trainer = {key: value for key, value in parsed.trainer.as_dict().items() if value != trainer_defaults[key]}
    asked = {key: parsed[key] for key in (*GROUPS, "seed", *NOT_COMPARED)}
    if parsed.get("confirm"):
        asked["compare"] = replace(parsed.compare, confirm=True)
    source = parsed.config[-1] if parsed.config else parsed.data.csv
    return Configuration(
        **asked,
        trainer={"max_epochs": parsed.trainer.max_epochs, **trainer},
        allow_code=bool(parsed.get("allow_code")),
        bad_cells=parsed.get("bad_cells") or "refuse",
        # a frame is called such, whatever its content
        name=Path(source).stem.partition(" sha256:")[0] if source not in (None, "-") else "run",
    )


def parse(command: str, arguments: list[str], description: str = "") -> Configuration:
    """The arguments of a training command to a `Configuration`; without a config and a CSV, House Prices if it is here.
    Raises as `Options.parse`."""
    names_data = any(a.split("=")[0] in ("--config", "--data.csv", "--data", "--ckpt_path") for a in arguments)
    if not names_data and not _asks_only(arguments) and HOUSE_PRICES.exists():
        print(f"no --data.csv given: using {HOUSE_PRICES}", file=sys.stderr)
        arguments = ["--config", str(HOUSE_PRICES), *arguments]
    return configure(command, arguments, description=description)


def _asks_only(arguments: list[str]) -> bool:
    """Whether the command is to explain itself rather than run."""
    return any(a in ("-h", "--help") or a.startswith("--print_config") for a in arguments)


def parse_data(config: str | None, **given: str | None) -> DataSettings:
    """The data section of a YAML file, whose other keys are not looked at, under what is given beside it. Raises as
    `Options.parse`, and an `InputError` for a file that is not there or lists several data sets."""
    options = Options("compare", "", "--print_config shows all keys")
    options.parser.add_class_arguments(DataSettings, "data")
    beside = {key: value for key, value in given.items() if value is not None}
    return cast(DataSettings, options.parse(_data_section(config), {"data": beside}).data)


def _data_section(config: str | None) -> dict[str, Any]:
    section = read_yaml(config).get("data") or {} if config is not None else {}
    if isinstance(section, list):
        raise InputError(
            f"{config} does not describe one data set, but lists several; name one of the files in its list"
        )
    return {"data": section}


def parse_table(options: Options, arguments: list[str]) -> "Namespace":
    """The arguments of a command that reads a table, into its options and `data`: keys of `--data`, also short as
    `--target`, over the data sections of the files of `--config`, the last first. Raises as `parse_data`."""
    options.parser.add_class_arguments(DataSettings, "data")
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", action="append", default=[])
    try:
        found = files.parse_known_args(arguments)[0].config
    except argparse.ArgumentError:
        # without a value: the options' own complaint
        found = []
    keys = {f"--{key.name}" for key in fields(DataSettings)}
    whole = [f"--data.{one[2:]}" if one.partition("=")[0] in keys else one for one in arguments]
    asked = options.parse(*map(_data_section, found), whole)
    if asked.csv is not None:
        asked.data = replace(asked.data, csv=asked.csv)
    return asked


MIN_DATA_SETS = 2
# what the comparison's own directory holds beside those of the data sets
TAKEN = ("config.yaml", "summary.json", "ranks.csv", "figures", "report.html")
# keys that belong to one table
ONE_TABLE = ("csv", "target", "id")


@dataclass(frozen=True)
class DataSets:
    """Several data sets to compare on.

    `name` is what the comparison is called where `--out` does not say. `configurations`, by the data set's name, all
    have the same `out`, `workers`, `storage` and `fresh`: those of the whole.
    """

    name: str
    configurations: dict[str, Configuration]

    @property
    def whole(self) -> Configuration:
        """Any of them, for what they share."""
        return next(iter(self.configurations.values()))


def parse_data_sets(arguments: list[str], description: str = "") -> DataSets | None:
    """The configuration of each data set that the arguments of `compare` list, in that order; None for one data set.

    Raises:
        InputError: fewer than two files, one that is listed twice, is missing or names no CSV, two of the same name, a
            key of a single table beside the list, several lists, or a bad key or value.
    """
    data_list = _find_list(arguments)
    if data_list is None:
        return None
    beside: list[Layer] = [*(content for _, content in data_list.configs), data_list.flags]
    if _asks_only(data_list.flags):
        # ends the process: the keys as they are beside the list
        configure("compare", *beside, description=description)
    _refuse_one_table(data_list)
    configurations = {name: _one_of_several(file, name, beside) for name, file in _files(data_list).items()}
    if data_list.file is not None:
        return DataSets(data_list.file.stem, configurations)
    name, *others = configurations
    joined = "-".join(configurations)
    return DataSets(joined if len(joined) <= 60 else f"{name}-and-{len(others)}-others", configurations)


@dataclass(frozen=True)
class _DataList:
    """The list `data: [a.yaml, b.yaml]` of a YAML file or of the command line, and what stands beside it. `file` is the
    YAML file with the list (None: the command line); `configs` are what the files of `--config` say besides, and
    `flags` the other arguments."""

    entries: list[Any]
    file: Path | None
    configs: list[tuple[str, dict[str, Any]]]
    flags: list[str]


def _find_list(arguments: list[str]) -> _DataList | None:
    """What lists several data sets among the arguments of a command; None for one data set."""
    import yaml

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--config", "--data"):
        parser.add_argument(option, action="append", nargs="*", default=[])
    named, flags = parser.parse_known_args(arguments)
    lists: list[tuple[list[Any], Path | None]] = []
    configs: list[tuple[str, dict[str, Any]]] = []
    for values in named.data:
        try:
            entries = values if len(values) > 1 else yaml.safe_load(values[0])
        except (IndexError, yaml.YAMLError):
            entries = None
        if isinstance(entries, list):
            lists.append((entries, None))
        else:
            flags = ["--data", *values, *flags]
    for values in named.config:
        if len(values) != 1 or not os.path.isfile(values[0]):
            flags = ["--config", *values, *flags]
            continue
        content = read_yaml(values[0])
        if isinstance(content.get("data"), list):
            lists.append((content.pop("data"), Path(values[0])))
        configs.append((values[0], content))
    if len(lists) > 1:
        raise InputError("data sets are listed more than once; put them into one list")
    return _DataList(*lists[0], configs, flags) if lists else None


def _refuse_one_table(data_list: _DataList) -> None:
    flags = [flag.partition("=")[0] for flag in data_list.flags]
    named = [flag for flag in flags if flag in {f"--data.{key}" for key in ONE_TABLE}]
    for file, content in data_list.configs:
        data = content.get("data") or {}
        named += [f"data.{key} in {file}" for key in ONE_TABLE if isinstance(data, dict) and key in data]
    if named:
        raise InputError(f"{named[0]} is about one table, but several are listed; say it in the listed file it is for")


def _files(data_list: _DataList) -> dict[str, Path]:
    """Name of each data set to its configuration file."""
    where = f" in {data_list.file}" if data_list.file is not None else ""
    if len(data_list.entries) < MIN_DATA_SETS:
        raise InputError(
            f"data{where} lists {'one' if data_list.entries else 'no'} data set: the Friedman "
            f"test and the critical difference rank activations across data sets and need at least {MIN_DATA_SETS}; "
            "compare on one with --config FILE"
        )
    found: dict[str, Path] = {}
    for entry in data_list.entries:
        file = _find_file(entry, data_list.file)
        if any(file.resolve() == other.resolve() for other in found.values()):
            raise InputError(f"data{where} lists {entry} twice; a data set counts once")
        # the config.yaml of a run is called as the run
        name = file.resolve().parent.name if file.name == "config.yaml" else file.stem
        if name in found:
            raise InputError(
                f"{found[name]} and {file} would both be called {name}, and each data set has a directory of its name; "
                "rename one of the files"
            )
        if name in TAKEN:
            raise InputError(f"{file} would be called {name}, which the comparison writes itself; rename the file")
        found[name] = file
    return found


def _find_file(entry: Any, list_file: Path | None) -> Path:
    """A listed file, beside the file that lists it or else in the current directory."""
    if not isinstance(entry, str):
        raise InputError(f"data must list paths of configuration files, got {entry!r}")
    if entry.lower().endswith((".csv", ".csv.gz", ".tsv")):
        raise InputError(
            f"{entry} is a table; data lists configuration files, each with the data.csv and data.target of one"
        )
    places = dict.fromkeys([Path(entry)] if list_file is None else [list_file.parent / entry, Path(entry)])
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"data lists {entry}, which is not there (looked for {' and '.join(map(str, places))})")
    if not isinstance(data := read_yaml(file).get("data"), dict) or data.get("csv") is None:
        raise InputError(f"{file} names no data.csv; each listed file describes one data set")
    return file


def _one_of_several(file: Path, name: str, beside: list[Layer]) -> Configuration:
    own = ["--config", str(file)]
    of_the_whole = {key: getattr(Configuration, key) for key in NOT_COMPARED}
    try:
        return replace(configure("compare", own, of_the_whole, *beside), name=name)
    except InputError as error:
        try:
            configure("compare", own)
        except InputError:
            raise InputError(f"{file}: {error}") from error
        # the file is fine by itself
        raise
