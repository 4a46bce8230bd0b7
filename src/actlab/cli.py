"""The command line: a table of commands, what they print, and the exit code.

Exit codes: 0 done, 2 bad input or usage (one line on stderr), 130 interrupted, 143 terminated, 1 our own bug.
A command imports what it needs when it runs: `actlab --help` takes no longer than Python itself.
"""

import gc
import json
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from actlab import __version__
from actlab.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from actlab.config import Configuration, DataSets
    from actlab.runs.fit import Part

# Objects more, after which Python looks for cycles among them. Imports make a million that stay: with Python's own 700
# it looks through them so often that this takes 0.7 of their 4.6 seconds.
GC_THRESHOLD = 100_000


@dataclass(frozen=True)
class Command:
    """One subcommand: what it does in a line, and the function that takes what was asked for."""

    summary: str
    run: Callable[[Any], None]


def _check(asked: "Namespace") -> None:
    from actlab.data.check import check
    from actlab.printed_tables import WIDTH
    from actlab.report.check_text import render_check

    if asked.data.csv is None:
        raise InputError("needed and not given: CSV (actlab check --help lists the options)")
    report = check(asked.data)
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    print(
        json.dumps(report.to_dict(), indent=2) if asked.json else render_check(report, width, wraps=sys.stdout.isatty())
    )


def _activations(asked: None) -> None:
    from actlab.activations import ACTIVATIONS

    rows = [("name", "formula", "pre-activations a unit", "learns", "source")]
    rows += [(r.name, r.formula, str(r.width_factor), r.parameters or "-", r.source) for r in ACTIVATIONS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print("\nAny other torch.nn.Module by the dotted path of its class, for example torch.nn.LogSigmoid.")


def _article(asked: "Namespace") -> None:
    from actlab.config import HOUSE_PRICES, parse_data

    if asked.config is None and asked.csv is None and HOUSE_PRICES.exists():
        asked.config = str(HOUSE_PRICES)
    data = parse_data(asked.config, csv=asked.csv, target=asked.target)
    if data.csv is None or data.target is None:
        key = "csv" if data.csv is None else "target"
        raise InputError(f"data.{key} is needed: --data.{key} ..., or a --config that has it")
    from actlab.runs.article import article

    article(data.csv, data.target, asked.seed, asked.seeds, id_column=data.id or "Id")


def _fit(configuration: "Configuration") -> None:
    from actlab.runs.fit import fit

    fit(configuration)


def _score(part: "Part", configuration: "Configuration") -> None:
    from actlab.runs.fit import score

    score(configuration, part)


def _predict(asked: "Namespace") -> None:
    from actlab.model.prediction import predict_file
    from actlab.runs.progress_bar import RowProgress

    with RowProgress() as progress:
        done = predict_file(
            asked.ckpt_path,
            asked.input,
            asked.output,
            asked.interval,
            progress=progress.show,
            overwrite=asked.overwrite,
            allow_code=asked.allow_code,
            mean=asked.mean,
            bad_cells=asked.bad_cells,
        )
    print(f"{done.n_rows:,} rows predicted: {asked.output}")


def _rank(command: str, asked: "Configuration | DataSets") -> None:
    from actlab.config import DataSets

    print_summary: Callable[[Mapping[str, Any]], None]
    if isinstance(asked, DataSets):
        from actlab.report.several import print_several as print_summary
        from actlab.runs.several import compare_several

        (run, summary), as_json = compare_several(asked), asked.whole.json
    else:
        from actlab.report.tables import print_answer as print_summary
        from actlab.runs.compare_search import compare, search

        (run, summary), as_json = (compare if command == "compare" else search)(asked), asked.json
    # where another process writes the results, it was said so
    if summary is not None and as_json:
        print(json.dumps(summary, indent=2))
    elif summary is not None:
        print_summary(summary)
        print(f"results: {run.path}")


def _export(asked: "Namespace") -> None:
    from actlab.model.onnx_export import export_file

    export_file(asked.ckpt_path, asked.output, overwrite=asked.overwrite, allow_code=asked.allow_code)
    print(f"written: {asked.output}")


def _report(asked: "Namespace") -> None:
    from actlab.report.several import is_several, refuse_several

    if asked.other is not None:
        for run in (asked.run, asked.other):
            refuse_several(run)
        from actlab.report.page import write_side_by_side

        page = write_side_by_side(asked.run, asked.other)
    else:
        from actlab.report.page import write_report
        from actlab.report.several_page import write_several

        page = (write_several if is_several(asked.run) else write_report)(asked.run)
    print(f"report: {page}")


def _describe(asked: "Namespace") -> None:
    from actlab.model.ensemble import describe, load

    print(describe(load(asked.ckpt_path, asked.allow_code)))


CONFIG = {"action": "config", "help": "A YAML file with any of these keys."}
CKPT_PATH = {"required": True, "help": "a best.ckpt"}
OVERWRITE = {"type": bool, "help": "replace an output file that is there"}
ALLOW_CODE = {"type": bool, "help": "import activation classes that the checkpoint names"}

# Keywords of `Options.add` by the option's name. Commands that are not here take the options of training, and what they
# are asked for is a `Configuration`; what the others are asked for are their options' values.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "check": {
        "csv": {"nargs": "?", "help": "the table: CSV, Parquet, Excel, ...; - is standard input"},
        "--target": {"help": "short for --data.target, as --id for --data.id, and so on"},
        "--config": {
            "action": "append",
            "help": "a YAML file whose data section is taken where no option says otherwise",
        },
        "--json": {"type": bool, "help": "print the report as JSON"},
    },
    "activations": {},
    "article": {
        "--seed": {"type": int, "default": 0, "help": "torch seed set before each network"},
        "--seeds": {"type": int, "help": "run that many seeds and count the failures"},
        "--config": {"help": "a YAML file whose data section names CSV and target"},
        "--data.csv": {"dest": "csv", "help": "the CSV file"},
        "--data.target": {"dest": "target", "help": "the column to predict"},
    },
    "predict": {
        "--config": CONFIG,
        "--ckpt_path": CKPT_PATH,
        "--input": {"required": True, "help": "the rows to predict, in any file that check reads; - is standard input"},
        "--output": {"required": True, "help": "the CSV to write: id (if any), prediction, interval"},
        "--interval": {"type": float, "help": "add lower and upper of this coverage, for example 0.9"},
        "--bad_cells": {
            "choices": ["refuse", "missing"],
            "default": "refuse",
            "help": "what to do with a cell of a numeric column that is no number (default: refuse the file)",
        },
        "--mean": {
            "type": bool,
            "help": "predict means, to add up, not medians, where the target's logarithm is learned",
        },
        "--overwrite": OVERWRITE,
        "--allow_code": ALLOW_CODE,
    },
    "export": {
        "--config": CONFIG,
        "--ckpt_path": CKPT_PATH,
        "--output": {"required": True, "help": "the ONNX file to write"},
        "--overwrite": OVERWRITE,
        "--allow_code": ALLOW_CODE,
    },
    "report": {
        "run": {"help": "a run directory; report.html and figures/ in it are made again"},
        "other": {"nargs": "?", "help": "a second run, set beside the first on one page"},
    },
    "describe": {"ckpt_path": {"help": "a best.ckpt"}, "--allow_code": ALLOW_CODE},
}

COMMANDS: dict[str, Command] = {
    "check": Command("Read a CSV as training would and say what is in it.", _check),
    "activations": Command("List the activation functions with formula and source.", _activations),
    "article": Command("Run the teaching experiment to the letter, and say why it misleads.", _article),
    "fit": Command("Train several seeds of one activation.", _fit),
    "validate": Command("Score a checkpoint on its validation rows.", partial(_score, "validation")),
    "test": Command("Score a checkpoint on its test rows.", partial(_score, "test")),
    "predict": Command("Predict a CSV with a checkpoint.", _predict),
    "compare": Command(
        "Compare activations fairly: nested, paired, repeated until settled.", partial(_rank, "compare")
    ),
    "search": Command("Search activation and learning rate together with Optuna.", partial(_rank, "search")),
    "export": Command("Write a checkpoint as one ONNX graph, from raw columns to prediction.", _export),
    "report": Command("Make report.html and figures of a run again, or set two runs side by side.", _report),
    "describe": Command("Say what a checkpoint is: data, columns, settings, scores.", _describe),
}

USAGE = """usage: actlab COMMAND [options]

Which activation function, at which learning rate, should my regressor use,
and is the difference real or luck?

{commands}

actlab COMMAND --help explains one of them; actlab --version prints the version."""


def _asked(name: str, arguments: list[str]) -> Any:
    """What a command is asked for: its options' values, or the configuration of one that trains."""
    own, summary = OPTIONS.get(name), COMMANDS[name].summary
    # without options, the parser would take a tenth of the command's time
    if own == {} and not arguments:
        return None
    from actlab.config import Options, parse, parse_data_sets, parse_table

    if own is None:
        data_sets = parse_data_sets(arguments, summary) if name == "compare" else None
        return data_sets or parse(name, arguments, summary)
    options = Options(name, summary)
    for option, keywords in own.items():
        options.add(option, **keywords)
    return parse_table(options, arguments) if name == "check" else options.parse(arguments)


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)))
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"actlab {__version__}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; there are {', '.join(COMMANDS)}")
    COMMANDS[name].run(_asked(name, rest))
    return 0


def main() -> NoReturn:
    """Entry point of the `actlab` command."""
    gc.set_threshold(GC_THRESHOLD)
    # in place of KeyboardInterrupt, which Lightning turns into exit code 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, frame: sys.exit(128 + signum))
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
