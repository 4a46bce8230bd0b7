"""The command line: a table of commands, what they print, and the exit code.

Exit codes: 0 done, 2 bad input or usage (one line on stderr), 130 interrupted, 143 terminated, 1 our own bug.
A command imports what it needs when it runs: `actlab --help` takes no longer than Python itself.
"""

import gc
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from actlab import __version__
from actlab.errors import InputError

if TYPE_CHECKING:
    from actlab.config import Configuration, Options
    from actlab.run_files import RunDirectory

# Objects more, after which Python looks for cycles among them. Imports make a million that stay: with Python's own 700
# it looks through them so often that this takes 0.7 of their 4.6 seconds.
GC_THRESHOLD = 100_000

Arguments = list[str]


@dataclass(frozen=True)
class Command:
    """One subcommand: what it does in a line, and the function that takes its arguments."""

    summary: str
    run: Callable[[Arguments], None]


def _options(command: str) -> "Options":
    from actlab.config import Options

    return Options(command, COMMANDS[command].summary)


def _configuration(command: str, arguments: Arguments) -> "Configuration":
    from actlab.config import parse

    return parse(command, arguments, COMMANDS[command].summary)


def _check(arguments: Arguments) -> None:
    options = _options("check")
    options.add("csv", type=str, nargs="?", help="the CSV file")
    options.add("--target", type=str, help="the column to predict")
    options.add("--id", type=str, help="the column that identifies rows")
    options.add("--target_transform", choices=["log", "none"], help="as training would (default: log)")
    options.add("--config", type=str, help="a YAML file whose data section is taken where no option says otherwise")
    from actlab.config import parse_data
    from actlab.data.check import check
    from actlab.report.check_text import render_check

    settings = parse_data(**options.parse(arguments).as_dict())
    if settings.csv is None:
        raise options.refusal("needed and not given: CSV")
    print(render_check(check(settings)))


def _activations(arguments: Arguments) -> None:
    # the parser would take a tenth of the command's time
    if arguments:
        _options("activations").parse(arguments)
    from actlab.activations import ACTIVATIONS

    rows = [("name", "formula", "pre-activations a unit", "learns", "source")]
    rows += [(r.name, r.formula, str(r.width_factor), r.parameters or "-", r.source) for r in ACTIVATIONS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print("\nAny other torch.nn.Module by the dotted path of its class, for example torch.nn.LogSigmoid.")


def _article(arguments: Arguments) -> None:
    options = _options("article")
    options.add("--seed", type=int, default=0, help="torch seed set before each network")
    options.add("--seeds", type=int, help="run that many seeds and count the failures")
    options.add("--config", type=str, help="a YAML file whose data section names CSV and target")
    options.add("--data.csv", dest="csv", type=str, help="the CSV file")
    options.add("--data.target", dest="target", type=str, help="the column to predict")
    asked = options.parse(arguments)
    from actlab.config import HOUSE_PRICES, parse_data

    if asked.config is None and asked.csv is None and HOUSE_PRICES.exists():
        asked.config = str(HOUSE_PRICES)
    data = parse_data(asked.config, csv=asked.csv, target=asked.target)
    if data.csv is None or data.target is None:
        key = "csv" if data.csv is None else "target"
        raise InputError(f"data.{key} is needed: --data.{key} ..., or a --config that has it")
    from actlab.runs.article import article

    article(data.csv, data.target, asked.seed, asked.seeds, id_column=data.id or "Id")


def _fit(arguments: Arguments) -> None:
    configuration = _configuration("fit", arguments)
    from actlab.runs.fit import fit

    fit(configuration)


def _score(command: str) -> Callable[[Arguments], None]:
    def run(arguments: Arguments) -> None:
        configuration = _configuration(command, arguments)
        from actlab.runs.fit import score

        score(configuration, "validation" if command == "validate" else "test")

    return run


def _predict(arguments: Arguments) -> None:
    options = _options("predict")
    options.add_config()
    options.add("--ckpt_path", type=str, required=True, help="a best.ckpt")
    options.add("--input", type=str, required=True, help="the CSV to predict; the target column is not needed")
    options.add("--output", type=str, required=True, help="the CSV to write: id (if any), prediction, interval")
    options.add("--interval", type=float, help="add lower and upper of this coverage, for example 0.9")
    options.add_switch("--overwrite", "replace an output file that is there")
    options.add_switch("--allow_code", ALLOW_CODE)
    asked = options.parse(arguments)
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
        )
    print(f"{done.n_rows:,} rows predicted: {asked.output}")


def _compare(arguments: Arguments) -> None:
    from actlab.config import parse_data_sets

    if (data_sets := parse_data_sets(arguments, COMMANDS["compare"].summary)) is not None:
        from actlab.report.several import print_several
        from actlab.runs.several import compare_several

        _show(*compare_several(data_sets), data_sets.whole.json, print_several)
        return
    configuration = _configuration("compare", arguments)
    from actlab.report.tables import print_answer
    from actlab.runs.compare_search import compare

    _show(*compare(configuration), configuration.json, print_answer)


def _search(arguments: Arguments) -> None:
    configuration = _configuration("search", arguments)
    from actlab.report.tables import print_answer
    from actlab.runs.compare_search import search

    _show(*search(configuration), configuration.json, print_answer)


def _show(
    run: "RunDirectory",
    summary: Mapping[str, Any] | None,
    as_json: bool,
    print_summary: Callable[[Mapping[str, Any]], None],
) -> None:
    """The results on the terminal, or summary.json; nothing where another process writes them, and said so."""
    if summary is None:
        return
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    print_summary(summary)
    print(f"results: {run.path}")


def _export(arguments: Arguments) -> None:
    options = _options("export")
    options.add_config()
    options.add("--ckpt_path", type=str, required=True, help="a best.ckpt")
    options.add("--output", type=str, required=True, help="the ONNX file to write")
    options.add_switch("--overwrite", "replace an output file that is there")
    options.add_switch("--allow_code", ALLOW_CODE)
    asked = options.parse(arguments)
    from actlab.model.onnx_export import export_file

    export_file(asked.ckpt_path, asked.output, overwrite=asked.overwrite, allow_code=asked.allow_code)
    print(f"written: {asked.output}")


def _report(arguments: Arguments) -> None:
    options = _options("report")
    options.add("run", type=str, help="a run directory; report.html and figures/ in it are made again")
    options.add("other", type=str, nargs="?", help="a second run, set beside the first on one page")
    asked = options.parse(arguments)
    from actlab.report.several import is_several, refuse_several

    if asked.other is None and is_several(asked.run):
        from actlab.report.several_page import write_several

        print(f"report: {write_several(asked.run)}")
    elif asked.other is None:
        from actlab.report.page import write_report

        print(f"report: {write_report(asked.run)}")
    else:
        for run in (asked.run, asked.other):
            refuse_several(run)
        from actlab.report.page import write_side_by_side

        print(f"report: {write_side_by_side(asked.run, asked.other)}")


def _describe(arguments: Arguments) -> None:
    options = _options("describe")
    options.add("ckpt_path", type=str, help="a best.ckpt")
    options.add_switch("--allow_code", ALLOW_CODE)
    asked = options.parse(arguments)
    from actlab.model.ensemble import describe, load

    print(describe(load(asked.ckpt_path, asked.allow_code)))


ALLOW_CODE = "import activation classes that the checkpoint names"
COMMANDS: dict[str, Command] = {
    "check": Command("Read a CSV as training would and say what is in it.", _check),
    "activations": Command("List the activation functions with formula and source.", _activations),
    "article": Command("Run the teaching experiment to the letter, and say why it misleads.", _article),
    "fit": Command("Train several seeds of one activation.", _fit),
    "validate": Command("Score a checkpoint on its validation rows.", _score("validate")),
    "test": Command("Score a checkpoint on its test rows.", _score("test")),
    "predict": Command("Predict a CSV with a checkpoint.", _predict),
    "compare": Command("Compare activations fairly: equal budgets, paired, nested.", _compare),
    "search": Command("Search activation and learning rate together with Optuna.", _search),
    "export": Command("Write a checkpoint as one ONNX graph, from raw columns to prediction.", _export),
    "report": Command("Make report.html and figures of a run again, or set two runs side by side.", _report),
    "describe": Command("Say what a checkpoint is: data, columns, settings, scores.", _describe),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: actlab COMMAND [options]",
            "",
            "Which activation function, at which learning rate, should my regressor use,",
            "and is the difference real or luck?",
            "",
            *lines,
            "",
            "actlab COMMAND --help explains one of them; actlab --version prints the version.",
        ]
    )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"actlab {__version__}")
        return 0
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; there are {', '.join(COMMANDS)}")
    COMMANDS[name].run(list(rest))
    return 0


def main() -> NoReturn:
    """Entry point of the `actlab` command."""
    gc.set_threshold(GC_THRESHOLD)
    # in place of KeyboardInterrupt, which Lightning turns into exit code 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _terminate)
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
