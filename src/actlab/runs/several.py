"""`actlab compare` on several data sets: a run of its own for each, and the comparison across them."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from actlab import activations
from actlab.config import DataSets
from actlab.data.table import read_table
from actlab.errors import InputError
from actlab.report.finished import read_finished
from actlab.report.several import listed_runs
from actlab.report.several_page import write_several
from actlab.report.words import answer
from actlab.run_files import RunDirectory, jsonable, write_frame, write_json
from actlab.runs.compare_search import Compare, check_budget
from actlab.runs.evaluate import variants
from actlab.runs.experiment import named_directory
from actlab.runs.results import versions
from actlab.verdict.across_data_sets import check_size, ranks_frame, summarise_data_sets


def compare_several(data_sets: DataSets) -> tuple[RunDirectory, dict[str, Any] | None]:
    """Run or resume the comparison on every data set, then compare across them.

    Everything is looked at before anything is trained: tables, activations, and what the directories hold. The summary
    is None where another machine has the results of a data set.

    Raises:
        InputError: activations differ between data sets, a table counts twice or cannot be read, or a directory holds
            another run.
    """
    _check_activations(data_sets)
    _check_tables(data_sets)
    run = choose_directory(data_sets)
    run.create()
    comparisons: dict[str, Compare] = {}
    with ExitStack() as opened:
        for name, configuration in data_sets.configurations.items():
            # in a database, studies of all comparisons lie side by side
            out, study = str(run.path / name), f"{run.path.name}/{name}"
            comparisons[name] = Compare(replace(configuration, out=out, study=study, fresh=False, json=False))
            opened.callback(comparisons[name].close)
        # only now: a list that is refused leaves the directory as it was
        whole, data = data_sets.whole, [f"{name}/config.yaml" for name in comparisons]
        run.write_config({"data": data, "out": str(run.path), "workers": whole.workers, "storage": whole.storage})
        for number, (name, comparison) in enumerate(comparisons.items(), 1):
            print(f"{name}: data set {number} of {len(comparisons)}", file=sys.stderr)
            comparison.execute()
    if missing := [name for name in comparisons if not RunDirectory(run.path / name).report.exists()]:
        print(
            f"the results of {', '.join(missing)} are on another machine; data sets are compared where all results are",
            file=sys.stderr,
        )
        return run, None
    return run, write(run, list(comparisons))


def write(run: RunDirectory, names: list[str]) -> dict[str, Any]:
    """Everything that the directory of the whole holds beside the runs, made from their files; the page comes last."""
    summaries = {name: read_finished(run.path / name).summary for name in names}
    summary = summarise_data_sets(summaries)
    for entry in summary["data_sets"]:
        entry["answer"] = answer(summaries[entry["name"]])
    summary["versions"] = versions()
    write_frame(run.path / "ranks.csv", ranks_frame(summary))
    write_json(run.summary, summary)
    write_several(run.path)
    return dict(jsonable(summary))


def choose_directory(data_sets: DataSets) -> RunDirectory:
    """The directory of the whole, as `named_directory` gives it, or an `InputError` where it holds another run.

    Runs of the listed data sets that are there already are gone on with. A list may grow, but not lose a data set.
    """
    run = named_directory("compare", data_sets.name, data_sets.whole, data_sets.configurations)
    if run.journal.exists() or run.config.exists():
        if (stored := listed_runs(run.path)) is None:
            raise InputError(f"{run.path} holds a run on one data set; choose another --out, or add --fresh")
        if gone := [name for name in stored if name not in data_sets.configurations]:
            raise InputError(
                f"{run.path} holds a comparison on other data sets: {', '.join(gone)} would be left out; "
                "choose another --out, or add --fresh"
            )
    return run


def _check_activations(data_sets: DataSets) -> None:
    compared: dict[str, list[str]] = {}
    for name, configuration in data_sets.configurations.items():
        for activation in configuration.compare.activations:
            activations.get(activation)
        check_budget(configuration)
        compared[name] = [variant.label for variant in variants(configuration)]
    first, names = next(iter(compared.items()))
    check_size(len(compared), len(names))
    for other, own in compared.items():
        if differing := sorted(set(names) ^ set(own)):
            raise InputError(
                f"{first} and {other} compare different activations ({', '.join(differing)} on one of them only), and "
                "ranks need the same on every data set; name them beside the list: compare.activations"
            )


def _check_tables(data_sets: DataSets) -> None:
    """The same rows with the same target, however they are read, are not a second data set."""
    known: dict[tuple[str, str | None], str] = {}
    for name, configuration in data_sets.configurations.items():
        table = read_table(configuration.data)
        key = (table.content_hash, table.schema.target)
        if key in known:
            raise InputError(f"{known[key]} and {name} are the same table with the same target; a data set counts once")
        known[key] = name
