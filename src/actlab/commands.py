"""The commands: their arguments, and what each calls. Heavy imports happen inside them."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from actlab.option_parser import Arguments, OptionParser
from actlab.terminal import show, show_several

if TYPE_CHECKING:
    from actlab.yaml_files import DataList


@dataclass(frozen=True)
class Command:
    """One subcommand: what it does in a line, and the function that takes its arguments."""

    summary: str
    run: Callable[[Arguments], None]


def _parser(name: str) -> OptionParser:
    return OptionParser(name, COMMANDS[name].summary)


def _check(arguments: Arguments) -> None:
    from actlab.configuration import parse_group
    from actlab.data.check import check, render
    from actlab.settings import DataSettings
    from actlab.yaml_files import data_section

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
    print(render(check(parse_group(DataSettings, content))))


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
    from actlab.yaml_files import find_data_list

    if (listed := find_data_list(arguments)) is not None:
        _compare_several(listed, COMMANDS["compare"].summary)
        return
    configuration = parse("compare", COMMANDS["compare"].summary, arguments)
    from actlab.runs.compare import compare

    show(*compare(configuration), configuration.json)


def _compare_several(listed: "DataList", description: str) -> None:
    from actlab.configuration import asks_only
    from actlab.listing import explain, read_listing

    if asks_only(listed.flags):
        explain(listed, description)
    listing = read_listing(listed, description)
    from actlab.runs.several import compare_several

    show_several(*compare_several(listing), listing.whole.json)


def _search(arguments: Arguments) -> None:
    from actlab.configuration import parse

    configuration = parse("search", COMMANDS["search"].summary, arguments)
    from actlab.runs.search import search

    show(*search(configuration), configuration.json)


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
    parser.add_allow_code()
    asked = parser.parse(arguments, needed=("ckpt_path", "input", "output"))
    from actlab.model.prediction import predict_file
    from actlab.runs.display import RowProgress

    with closing(RowProgress()) as progress:
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
    from actlab.model.export import export_file

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
