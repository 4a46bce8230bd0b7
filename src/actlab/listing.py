"""Several data sets in one comparison: from a list of configuration files to one configuration for each.

A listed file brings its own groups; what stands beside the list (trainer, compare, seed, ...) wins over all of them,
and a flag wins over that. Where a run writes and who works on it belong to the whole: a listed file's own `out`,
`workers` and the like are not read, so that the config.yaml of a finished run can be listed too.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actlab.configuration import NOT_COMPARED, Configuration, parse, to_yaml
from actlab.errors import InputError
from actlab.yaml_files import DataList, read_yaml

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
