"""The command line: which command, its arguments, and the exit code. Heavy imports happen inside the commands.

Exit codes: 0 done, 2 bad input or usage (one line on stderr), 130 interrupted, 143 terminated, 1 our own bug.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any, NoReturn

from actlab import __version__
from actlab.errors import InputError

Arguments = list[str]


@dataclass(frozen=True)
class Command:
    """One subcommand: what it does in a line, and the function that takes its arguments."""

    summary: str
    run: Callable[[Arguments], None]


class _Parser(argparse.ArgumentParser):
    """argparse with its complaints as an `InputError`, and options that a YAML file may give too (`--config`)."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (actlab {self.prog.split()[-1]} --help lists the options)")

    def parse(self, arguments: Arguments, needed: Sequence[str] = ()) -> argparse.Namespace:
        """Flags over the file of `--config` over defaults; `needed` options must come from one of the first two."""
        self.add_argument("--config", help="a YAML file with any of these options")
        file = self.parse_args(arguments).config
        if file is not None:
            from actlab.configuration import read_yaml

            content = read_yaml(file)
            known = {action.dest for action in self._actions}
            if unknown := sorted(content.keys() - known):
                self.error(f"{file} has unknown keys: {', '.join(map(str, unknown))}")
            self.set_defaults(**content)
        asked = self.parse_args(arguments)
        if missing := [name for name in needed if getattr(asked, name) is None]:
            self.error(f"needed and not given: {', '.join(f'--{name}' for name in missing)}")
        return asked


def _parser(name: str) -> _Parser:
    return _Parser(prog=f"actlab {name}", description=COMMANDS[name].summary)


def _check(arguments: Arguments) -> None:
    from actlab.configuration import read_yaml
    from actlab.data.check import check, render
    from actlab.settings import DataSettings

    parser = _parser("check")
    parser.add_argument("csv", nargs="?", help="the CSV file")
    parser.add_argument("--target", help="the column to predict")
    parser.add_argument("--id", help="the column that identifies rows")
    parser.add_argument("--target_transform", choices=["log", "none"], help="as training would (default: log)")
    parser.add_argument("--config", help="a YAML file whose data section is taken where no option says otherwise")
    asked = vars(parser.parse_args(arguments))
    file = asked.pop("config")
    content = dict(read_yaml(file).get("data") or {}) if file is not None else {}
    content |= {key: value for key, value in asked.items() if value is not None}
    if content.get("csv") is None:
        parser.error("needed and not given: CSV")
    if unknown := sorted(content.keys() - {option.name for option in fields(DataSettings)}):
        parser.error(f"{file} has unknown keys in its data section: {', '.join(unknown)}")
    print(render(check(DataSettings(**content))))


def _activations(arguments: Arguments) -> None:
    _parser("activations").parse_args(arguments)
    from actlab.networks.activations import ACTIVATIONS

    rows = [("name", "formula", "pre-activations a unit", "learns", "source")]
    rows += [(r.name, r.formula, str(r.width_factor), r.parameters or "-", r.source) for r in ACTIVATIONS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nAny other torch.nn.Module by the dotted path of its class, for example torch.nn.LogSigmoid.")


def _article(arguments: Arguments) -> None:
    from actlab.configuration import parse_data

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
    from actlab.configuration import parse

    configuration = parse("compare", COMMANDS["compare"].summary, arguments)
    from actlab.runs.compare import compare

    _show(*compare(configuration), configuration.json)


def _search(arguments: Arguments) -> None:
    from actlab.configuration import parse

    configuration = parse("search", COMMANDS["search"].summary, arguments)
    from actlab.runs.search import search

    _show(*search(configuration), configuration.json)


def _show(run: object, summary: dict[str, Any] | None, as_json: bool) -> None:
    if summary is None:
        # another machine writes the results, and the reader was told where
        return
    from rich.console import Console

    from actlab.records import RunDirectory
    from actlab.report.claims_table import render_claims
    from actlab.report.ranking_table import print_answer

    assert isinstance(run, RunDirectory)
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    # a file or a pipe has no width of its own
    console = Console() if sys.stdout.isatty() else Console(width=110)
    print_answer(summary, console)
    if claims := summary.get("claims"):
        console.print(render_claims(claims))
    console.print(f"results: {run.path}", highlight=False, markup=False)


def _fit(arguments: Arguments) -> None:
    from actlab.configuration import parse

    configuration = parse("fit", COMMANDS["fit"].summary, arguments)
    from actlab.runs.fit import fit

    fit(configuration)


def _score(part: str) -> Callable[[Arguments], None]:
    def run(arguments: Arguments) -> None:
        from actlab.configuration import parse

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
    _allow_code(parser)
    asked = parser.parse(arguments, needed=("ckpt_path", "input", "output"))
    from actlab.model.prediction import predict_file

    def show(n_rows: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{n_rows:,} rows", end="", file=sys.stderr, flush=True)

    done = predict_file(
        asked.ckpt_path,
        asked.input,
        asked.output,
        asked.interval,
        progress=show,
        overwrite=asked.overwrite,
        allow_code=asked.allow_code,
    )
    print(f"{done.n_rows:,} rows predicted: {asked.output}")


def _export(arguments: Arguments) -> None:
    parser = _parser("export")
    parser.add_argument("--ckpt_path", help="a best.ckpt")
    parser.add_argument("--output", help="the ONNX file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an output file that is there")
    _allow_code(parser)
    asked = parser.parse(arguments, needed=("ckpt_path", "output"))
    from actlab.model.export import export_file

    export_file(asked.ckpt_path, asked.output, overwrite=asked.overwrite, allow_code=asked.allow_code)
    print(f"written: {asked.output}")


def _allow_code(parser: _Parser) -> None:
    parser.add_argument("--allow_code", action="store_true", help="import activation classes that the checkpoint names")


def _describe(arguments: Arguments) -> None:
    parser = _parser("describe")
    parser.add_argument("ckpt_path", help="a best.ckpt")
    _allow_code(parser)
    asked = parser.parse_args(arguments)
    from actlab.model.ensemble import describe, load

    print(describe(load(asked.ckpt_path, asked.allow_code)))


def _report(arguments: Arguments) -> None:
    parser = _parser("report")
    parser.add_argument("run", help="a run directory; report.html and figures/ in it are made again")
    parser.add_argument("other", nargs="?", help="a second run, set beside the first on one page")
    asked = parser.parse_args(arguments)
    if asked.other is None:
        from actlab.report.page import write_report

        print(f"report: {write_report(asked.run)}")
    else:
        from actlab.report.side_by_side import write_side_by_side

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
    sys.exit(code)
