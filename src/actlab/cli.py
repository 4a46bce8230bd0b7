"""The command line: commands, their options, what they print, and the exit code.

What a comparison or a search leaves on the terminal.

Options of the commands that need no typed configuration: argparse, with complaints in one sentence.

The commands: their arguments, and what each calls. Heavy imports happen inside them.

The command line: which command, and the exit code.

Exit codes: 0 done, 2 bad input or usage (one line on stderr), 130 interrupted, 143 terminated, 1 our own bug.
"""

import argparse
import gc
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from actlab import __version__
from actlab.errors import InputError

if TYPE_CHECKING:
    from actlab.config import DataList
    from actlab.run_files import RunDirectory


def show(run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Ranking, answer and claims, or summary.json; nothing where another process writes the results and said so."""
    from actlab.report.tables import print_answer

    _show(run, summary, as_json, print_answer)


def show_several(run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Mean ranks over several data sets, the answer across them, and that of each; or summary.json."""
    from actlab.report.several import print_several

    _show(run, summary, as_json, print_several)


def _show(
    run: "RunDirectory", summary: Mapping[str, Any] | None, as_json: bool, print_words: Callable[[Any], None]
) -> None:
    if summary is None:
        return
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    print_words(summary)
    print(f"results: {run.path}")


Arguments = list[str]


def _fits(action: argparse.Action, value: object) -> bool:
    """Whether a value from a YAML file is of the type that the flag takes."""
    if action.const is True:
        return isinstance(value, bool)
    return value is None or isinstance(value, int | float if action.type is float else str | int | float)


class OptionParser(argparse.ArgumentParser):
    """argparse with its complaints as an `InputError`, and options that a YAML file may give too (`--config`)."""

    def __init__(self, command: str, summary: str) -> None:
        super().__init__(prog=f"actlab {command}", description=summary)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (actlab {self.prog.split()[-1]} --help lists the options)")

    def parse(self, arguments: Arguments, needed: Sequence[str] = ()) -> argparse.Namespace:
        """Flags over the file of `--config` over defaults; `needed` options must come from one of the first two."""
        self.add_argument("--config", help="a YAML file with any of these options")
        file = self.parse_args(arguments).config
        if file is not None:
            from actlab.run_files import read_yaml

            content = read_yaml(file)
            known = {action.dest for action in self._actions}
            if unknown := sorted(content.keys() - known):
                self.error(f"{file} has unknown keys: {', '.join(map(str, unknown))}")
            for action in self._actions:
                if action.dest in content and not _fits(action, content[action.dest]):
                    self.error(f"{file} gives {action.dest} a value of a wrong type: {content[action.dest]!r}")
            self.set_defaults(**content)
        asked = self.parse_args(arguments)
        if missing := [name for name in needed if getattr(asked, name) is None]:
            self.error(f"needed and not given: {', '.join(f'--{name}' for name in missing)}")
        return asked

    def add_allow_code(self) -> None:
        self.add_argument(
            "--allow_code", action="store_true", help="import activation classes that the checkpoint names"
        )


@dataclass(frozen=True)
class Command:
    """One subcommand: what it does in a line, and the function that takes its arguments."""

    summary: str
    run: Callable[[Arguments], None]


def _parser(name: str) -> OptionParser:
    return OptionParser(name, COMMANDS[name].summary)


def _check(arguments: Arguments) -> None:
    from actlab.config import data_section, parse_group
    from actlab.data.check import check
    from actlab.report.check_text import render_check
    from actlab.settings import DataSettings

    parser = _parser("check")
    parser.add_argument("csv", nargs="?", help="the CSV file")
    parser.add_argument("--target", help="the column to predict")
    parser.add_argument("--id", help="the column that identifies rows")
    parser.add_argument("--target_transform", choices=["log", "none"], help="as training would (default: log)")
    parser.add_argument("--config", help="a YAML file whose data section is taken where no option says otherwise")
    asked = vars(parser.parse_args(arguments))
    file = asked.pop("config")
    content = data_section(file) if file is not None else {}
    content |= {key: value for key, value in asked.items() if value is not None}
    if content.get("csv") is None:
        parser.error("needed and not given: CSV")
    if unknown := sorted(content.keys() - {option.name for option in fields(DataSettings)}):
        parser.error(f"{file} has unknown keys in its data section: {', '.join(map(str, unknown))}")
    print(render_check(check(parse_group(DataSettings, content))))


def _activations(arguments: Arguments) -> None:
    _parser("activations").parse_args(arguments)
    from actlab.activations import ACTIVATIONS
    from actlab.printed_tables import Table, TableColumn, print_table, text_column

    columns = (
        *(text_column(title) for title in ("name", "formula")),
        TableColumn("pre-activations a unit", can_fold=True),
        *(text_column(title) for title in ("learns", "source")),
    )
    rows = ((r.name, r.formula, r.width_factor, r.parameters or "-", r.source) for r in ACTIVATIONS)
    print_table(Table.of(columns, rows))
    print("\nAny other torch.nn.Module by the dotted path of its class, for example torch.nn.LogSigmoid.")


def _article(arguments: Arguments) -> None:
    from actlab.config import parse_data

    parser = _parser("article")
    parser.add_argument("--seed", type=int, default=0, help="torch seed set before each network")
    parser.add_argument("--seeds", type=int, help="run that many seeds and count the failures")
    parser.add_argument("--config", help="a YAML file whose data section names CSV and target")
    parser.add_argument("--data.csv", dest="csv", help="the CSV file")
    parser.add_argument("--data.target", dest="target", help="the column to predict")
    asked = parser.parse_args(arguments)
    data = parse_data(asked.config, asked.csv, asked.target)
    from actlab.runs.article import article

    article(data["csv"], data["target"], asked.seed, asked.seeds, id_column=data.get("id") or "Id")


def _compare(arguments: Arguments) -> None:
    from actlab.config import find_data_list, parse

    if (listed := find_data_list(arguments)) is not None:
        _compare_several(listed, COMMANDS["compare"].summary)
        return
    configuration = parse("compare", COMMANDS["compare"].summary, arguments)
    from actlab.runs.compare_search import compare

    show(*compare(configuration), configuration.json)


def _compare_several(listed: "DataList", description: str) -> None:
    from actlab.config import asks_only, explain, read_listing

    if asks_only(listed.flags):
        explain(listed, description)
    listing = read_listing(listed, description)
    from actlab.runs.several import compare_several

    show_several(*compare_several(listing), listing.whole.json)


def _search(arguments: Arguments) -> None:
    from actlab.config import parse

    configuration = parse("search", COMMANDS["search"].summary, arguments)
    from actlab.runs.compare_search import search

    show(*search(configuration), configuration.json)


def _fit(arguments: Arguments) -> None:
    from actlab.config import parse

    configuration = parse("fit", COMMANDS["fit"].summary, arguments)
    from actlab.runs.fit import fit

    fit(configuration)


def _score(part: str) -> Callable[[Arguments], None]:
    def run(arguments: Arguments) -> None:
        from actlab.config import parse

        configuration = parse(part, COMMANDS[part].summary, arguments)
        from actlab.runs.fit import score

        score(configuration, "validation" if part == "validate" else "test")

    return run


def _predict(arguments: Arguments) -> None:
    parser = _parser("predict")
    parser.add_argument("--ckpt_path", help="a best.ckpt")
    parser.add_argument("--input", help="the CSV to predict; the target column is not needed")
    parser.add_argument("--output", help="the CSV to write: id (if any), prediction, interval")
    parser.add_argument("--interval", type=float, help="add lower and upper of this coverage, for example 0.9")
    parser.add_argument("--overwrite", action="store_true", help="replace an output file that is there")
    parser.add_allow_code()
    asked = parser.parse(arguments, needed=("ckpt_path", "input", "output"))
    from actlab.model.prediction import predict_file
    from actlab.runs.progress import RowProgress

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


def _export(arguments: Arguments) -> None:
    parser = _parser("export")
    parser.add_argument("--ckpt_path", help="a best.ckpt")
    parser.add_argument("--output", help="the ONNX file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an output file that is there")
    parser.add_allow_code()
    asked = parser.parse(arguments, needed=("ckpt_path", "output"))
    from actlab.model.onnx_export import export_file

    export_file(asked.ckpt_path, asked.output, overwrite=asked.overwrite, allow_code=asked.allow_code)
    print(f"written: {asked.output}")


def _describe(arguments: Arguments) -> None:
    parser = _parser("describe")
    parser.add_argument("ckpt_path", help="a best.ckpt")
    parser.add_allow_code()
    asked = parser.parse_args(arguments)
    from actlab.model.ensemble import describe, load

    print(describe(load(asked.ckpt_path, asked.allow_code)))


def _report(arguments: Arguments) -> None:
    parser = _parser("report")
    parser.add_argument("run", help="a run directory; report.html and figures/ in it are made again")
    parser.add_argument("other", nargs="?", help="a second run, set beside the first on one page")
    asked = parser.parse_args(arguments)
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


# Objects more, after which Python looks for cycles among them. Imports make a million that stay: with Python's own 700
# it looks through them so often that this takes 0.7 of their 4.6 seconds.
GC_THRESHOLD = 100_000


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
