"""YAML files and flags to one typed `Configuration`; several data sets to one for each.

YAML files as the commands take them, and the list of data sets that one may hold.

One configuration for all commands: typed groups, YAML files, dotted overrides, and the resolved copy of a run.

Several data sets in one comparison: from a list of configuration files to one configuration for each.

A listed file brings its own groups; what stands beside the list (trainer, compare, seed, ...) wins over all of them,
and a flag wins over that. Where a run writes and who works on it belong to the whole: a listed file's own `out`,
`workers` and the like are not read, so that the config.yaml of a finished run can be listed too.
"""

import argparse
import os.path
import re
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actlab.errors import InputError
from actlab.run_files import one_line, read_yaml, to_yaml
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


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


Group = TypeVar("Group")

MAX_EPOCHS = 200
HOUSE_PRICES = Path("configs/house_prices.yaml")
CKPT_COMMANDS = ("validate", "test")
# what a run's results do not depend on, or depends on the machine only
NOT_COMPARED = ("out", "workers", "storage", "fresh", "json", "ckpt_path")
# what config.yaml leaves out: no key of every command
NOT_WRITTEN = ("allow_code", "name", "study")


@dataclass(frozen=True)
class Configuration:
    """Everything a command was asked for, after YAML and flags.

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
    name: str = "run"
    study: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as config.yaml holds them and `--config` reads them."""
        return {key: value for key, value in asdict(self).items() if key not in NOT_WRITTEN}

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
    if command in CKPT_COMMANDS:
        parser.add_argument("--allow_code", action="store_true", help="Import activation classes the checkpoint names.")
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
        allow_code=bool(parsed.get("allow_code")),
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


MIN_DATA_SETS = 2
# what the comparison's own directory holds beside those of the data sets
TAKEN = ("config.yaml", "summary.json", "ranks.csv", "figures", "report.html")
# keys that belong to one table
ONE_TABLE = ("csv", "target", "id")


@dataclass(frozen=True)
class Listing:
    """Data sets to compare on: what the comparison is called where `--out` does not say, and each one's configuration.

    All configurations have the same `out`, `workers`, `storage` and `fresh`: those of the whole.
    """

    name: str
    data_sets: dict[str, Configuration]

    @property
    def whole(self) -> Configuration:
        """Any of them, for what they share."""
        return next(iter(self.data_sets.values()))


def read_listing(listed: DataList, description: str) -> Listing:
    """The configuration of each listed data set, in the order of the list.

    Raises:
        InputError: fewer than two files, one that is listed twice, is missing or names no CSV, two of the same name, a
            key of a single table beside the list, or a bad key or value.
    """
    _refuse_one_table(listed)
    beside = _beside(listed)
    data_sets = {name: _parse(file, name, beside, description) for name, file in _files(listed).items()}
    return Listing(listed.file.stem if listed.file is not None else _joined(list(data_sets)), data_sets)


def explain(listed: DataList, description: str) -> None:
    """For `--help` and `--print_config`, which end the process: the keys as they are beside the list."""
    parse("compare", description, _beside(listed))


def _beside(listed: DataList) -> list[str]:
    """What stands beside the list, as arguments; flags come last, so they win."""
    configs = [argument for _, content in listed.configs for argument in ("--config", to_yaml(content))]
    return [*configs, *listed.flags]


def _refuse_one_table(listed: DataList) -> None:
    options = {f"--data.{key}" for key in ONE_TABLE}
    named = [flag.partition("=")[0] for flag in listed.flags if flag.partition("=")[0] in options]
    for file, content in listed.configs:
        data = content.get("data") or {}
        named += [f"data.{key} in {file}" for key in ONE_TABLE if isinstance(data, dict) and key in data]
    if named:
        raise InputError(f"{named[0]} is about one table, but several are listed; say it in the listed file it is for")


def _files(listed: DataList) -> dict[str, Path]:
    """Name of each data set to its configuration file."""
    where = f" in {listed.file}" if listed.file is not None else ""
    if len(listed.entries) < MIN_DATA_SETS:
        raise InputError(
            f"data{where} lists {'one' if listed.entries else 'no'} data set: the Friedman "
            f"test and the critical difference rank activations across data sets and need at least {MIN_DATA_SETS}; "
            "compare on one with --config FILE"
        )
    found: dict[str, Path] = {}
    for entry in listed.entries:
        file = _find(entry, listed.file)
        if any(file.resolve() == other.resolve() for other in found.values()):
            raise InputError(f"data{where} lists {entry} twice; a data set counts once")
        name = _name_of(file)
        if name in found:
            raise InputError(
                f"{found[name]} and {file} would both be called {name}, and each data set has a directory of its name; "
                "rename one of the files"
            )
        if name in TAKEN:
            raise InputError(f"{file} would be called {name}, which the comparison writes itself; rename the file")
        found[name] = file
    return found


def _find(entry: Any, listing: Path | None) -> Path:
    """A listed file, beside the file that lists it or else in the current directory."""
    if not isinstance(entry, str):
        raise InputError(f"data must list paths of configuration files, got {entry!r}")
    if entry.lower().endswith((".csv", ".csv.gz", ".tsv")):
        raise InputError(
            f"{entry} is a table; data lists configuration files, each with the data.csv and data.target of one"
        )
    places = [Path(entry)] if listing is None else [listing.parent / entry, Path(entry)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        looked = " and ".join(dict.fromkeys(str(place) for place in places))
        raise InputError(f"data lists {entry}, which is not there (looked for {looked})")
    if not isinstance(data := read_yaml(str(file)).get("data"), dict) or data.get("csv") is None:
        raise InputError(f"{file} names no data.csv; each listed file describes one data set")
    return file


def _name_of(file: Path) -> str:
    """The file's name; for the config.yaml of a run the run's."""
    return file.resolve().parent.name if file.name == "config.yaml" else file.stem


def _joined(names: list[str]) -> str:
    name = "-".join(names)
    return name if len(name) <= 60 else f"{names[0]}-and-{len(names) - 1}-others"


def _parse(file: Path, name: str, common: list[str], description: str) -> Configuration:
    own = ["--config", str(file)]
    defaults = Configuration()
    of_the_whole = to_yaml({key: getattr(defaults, key) for key in NOT_COMPARED})
    try:
        parsed = parse("compare", description, [*own, "--config", of_the_whole, *common])
    except InputError as error:
        try:
            parse("compare", description, own)
        except InputError:
            raise InputError(f"{file}: {error}") from error
        # the file is fine by itself
        raise
    return replace(parsed, name=name)
