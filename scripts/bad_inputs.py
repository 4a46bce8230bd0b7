"""Give every command every bad input, and write what each says to docs/bad_inputs.md.

    python scripts/bad_inputs.py             # minutes: usable inputs are trained on, with tiny budgets
    python scripts/bad_inputs.py --show yaml # only inputs whose title holds this, to the terminal

The commands run in this process, through the same `main` as a user's, each in a folder of its own.
"""

import argparse
import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actlab import activations, cli
from actlab.run_files import write_text
from bad_input_cases import CASES, NOBODY, TRAINING, Case, good, text

OUTPUT = Path(__file__).parents[1] / "docs" / "bad_inputs.md"
HEAD = """# What bad input ends in

Every command with every input below: its exit code, and the first thing it says (on stderr; `check` says its warnings
in its report). 0: it went on, with the warning shown, if any. 2: refused with this one sentence, and nothing is left
behind. Written, and compared with what the commands do by tests/test_bad_inputs.py, with

```
python scripts/bad_inputs.py
```

| input | command | exit code | message |
| --- | --- | ---: | --- |
"""
BUDGET = (
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--model.hidden", "[4]", "--model.n_members", "1"),
    *("--compare.activations", "[identity, relu]", "--compare.learning_rates", "[0.01]", "--compare.folds", "2"),
    *("--compare.repeats", "4", "--search.n_trials", "1", "--out", "out"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: Its exit code; 1 with what was raised on stderr for a bug of ours.
        stdout: What it printed.
        stderr: What it complained of.
        left: Paths of the folder that are new or changed, in order.
    """

    code: int
    stdout: str
    stderr: str
    left: tuple[str, ...]

    @property
    def message(self) -> str:
        """The first line of stderr, or the first warning that `check` prints."""
        for line in self.stderr.splitlines():
            if line.startswith(("actlab: ", "warning: ")):
                return line.partition(": ")[2]
        for line in self.stdout.splitlines():
            if line.startswith("- "):
                return line.removeprefix("- ")
        return ""


def arguments_of(case: Case, command: str) -> list[str]:
    """What the user would type after the name of the command."""
    own = list(case.options.get(command, case.options.get("*", ())))
    if command in TRAINING:
        named = [] if "--data.csv" in own or "--config" in own else ["--data.csv", "bad.csv"]
        target = [] if "--data.target" in own or "--config" in own else ["--data.target", "price"]
        # of two values the later one counts, those of a YAML file included
        return [*BUDGET, *named, *target, *own]
    if command == "check" and "--config" not in own:
        without = "--no-target" in own
        target = [] if without or "--target" in own else ["--target", "price"]
        return ["bad.csv", *target, *(option for option in own if option != "--no-target")]
    if command == "predict" and "--output" not in own:
        return ["--ckpt_path", "good.ckpt", "--input", "bad.csv", "--output", "out.csv"]
    return own


class Bench:
    """A folder with a good table and a model trained on it, from which each case gets its own copy.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        root.chmod(0o755)
        self._root, self._good = root, root / "good"
        self._good.mkdir()
        (self._good / "good.csv").write_text(text(good()))
        made = run(self._good, "fit", [*BUDGET, "--data.csv", "good.csv", "--data.target", "price"])
        if made.code != 0:
            raise RuntimeError(f"the good table cannot be trained on: {made.stderr}")
        shutil.move(self._good / "out" / "best.ckpt", self._good / "good.ckpt")
        shutil.rmtree(self._good / "out")

    def end(self, case: Case, command: str) -> Ended:
        """Run one command on one input, in a new folder."""
        folder = self._root / "case"
        shutil.copytree(self._good, folder)
        try:
            case.make(folder)
            # the folder to go back to may be one that only root may enter
            with contextlib.chdir(folder), privileges(case.as_nobody), largest_file(case.file_limit):
                return run(folder, command, arguments_of(case, command))
        finally:
            shutil.rmtree(folder)


def run(folder: Path, command: str, arguments: Sequence[str]) -> Ended:
    """Run a command as a user would, in `folder`."""
    before, stdout, stderr = listing(folder), io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    argv, sys.argv = sys.argv, ["actlab", command, *arguments]
    with contextlib.chdir(folder), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
            if code in (130, 143):  # not the input's doing: somebody stops this script
                raise
        except BaseException:
            code = 1
            traceback.print_exc(file=stderr)
        finally:
            sys.argv = argv
            for number, handler in handlers.items():
                signal.signal(number, handler)
    after = listing(folder)
    left = sorted(path for path in after.keys() | before.keys() if after.get(path) != before.get(path))
    out, err = (stream.getvalue().replace(str(folder), "FOLDER") for stream in (stdout, stderr))
    return Ended(code, out, err, tuple(left))


def listing(folder: Path) -> Mapping[str, object]:
    """Every path below `folder` with what changes when it is written."""
    stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


@contextlib.contextmanager
def privileges(as_nobody: bool) -> Iterator[None]:
    """Permissions do not bind root: give its privileges up for a while."""
    if not as_nobody or os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def largest_file(n_bytes: int | None) -> Iterator[None]:
    """Writing beyond so many bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if n_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def rows(case: Case, ended: Mapping[str, Ended]) -> list[str]:
    """Lines of the table; commands that say the same share one."""
    groups: dict[tuple[int, str], list[str]] = {}
    for command, end in ended.items():
        groups.setdefault((end.code, end.message), []).append(command)
    return [row(case.title, commands, code, message) for (code, message), commands in groups.items()]


def row(title: str, commands: Sequence[str], code: int, message: str) -> str:
    # those of the registry, of which there may be more tomorrow
    message = message.replace(", ".join(activations.BY_NAME), "ACTIVATIONS")
    return f"| {title} | {', '.join(commands)} | {code} | {escaped(message)} |"


def escaped(message: str) -> str:
    """The message inside a cell of a Markdown table, word for word."""
    signs = {"\\": "\\\\", "|": "\\|", "<": "&lt;", "*": "\\*", "_": "\\_", "`": "\\`", "[": "\\["}
    return "".join(signs.get(sign, sign) for sign in message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", help="run only the inputs whose title holds this text, and write no file")
    asked = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        for case in CASES:
            if asked.show is not None and asked.show.lower() not in case.title.lower():
                continue
            ended = {command: bench.end(case, command) for command in case.codes}
            lines += (own := rows(case, ended))
            if asked.show is not None:
                print(*own, sep="\n", flush=True)
            for command, end in ended.items():
                if end.code != case.codes[command]:
                    expected = case.codes[command]
                    print(f"{case.title}, {command}: {end.code} instead of {expected}\n{end.stderr}", file=sys.stderr)
    if asked.show is None:
        write_text(OUTPUT, HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
