"""Bad input ends in the right result or in one sentence, as docs/bad_inputs.md says it, and leaves nothing behind."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
try:
    import bad_input_cases
    import bad_inputs
finally:
    sys.path.remove(str(SCRIPTS))

Bench, Case, Ended = bad_inputs.Bench, bad_input_cases.Case, bad_inputs.Ended
RUNS = [(case, command) for case in bad_input_cases.CASES for command in case.codes]
# refused by whom: `compare` and `search` read, parse and refuse as `fit` does, so the quick part leaves `search` out
QUICK = [(case, command) for case, command in RUNS if case.codes[command] == 2 and command != "search"]
QUICK += [(case, command) for case, command in RUNS if case.codes[command] == 0 and command in ("check", "predict")]
SLOW = [run for run in RUNS if run not in QUICK]


def name(value: object) -> str:
    return value.title if isinstance(value, Case) else str(value)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    # not pytest's folder, which only its owner may enter: some runs give root's privileges up
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(Path(folder))


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], str]:
    """(input, command) to its line of the document, as if the command stood alone in it."""
    return dict(table_rows(bad_inputs.OUTPUT.read_text(encoding="utf-8")))


def table_rows(document: str) -> Iterator[tuple[tuple[str, str], str]]:
    for title, commands, rest in re.findall(r"^\| (.+?) \| ([a-z, ]+) \| (\d \| .*)$", document, re.MULTILINE):
        for command in commands.split(", "):
            yield (title, command), f"| {title} | {command} | {rest}"


def check(case: Case, command: str, ended: Ended, table: dict[tuple[str, str], str]) -> None:
    assert ended.code == case.codes[command], ended.stderr
    assert "Traceback" not in ended.stderr
    assert "ran" not in ended.left, "the payload of a checkpoint ran"
    assert not [path for path in ended.left if Path(path).name.startswith(".")], "a temporary file stays"
    if ended.code == 2:
        assert set(ended.left) <= set(case.leaves)
        *before, sentence = ended.stderr.splitlines()
        assert all(line.startswith("warning: ") for line in before)
        assert sentence.startswith("actlab: ")
        for word in case.words.get(command, case.words.get("*", ())):
            assert word in sentence
    assert bad_inputs.row(case.title, [command], ended.code, ended.message) == table[case.title, command]


@pytest.mark.parametrize(("case", "command"), QUICK, ids=name)
def test_it_ends_as_the_document_says(
    case: Case, command: str, bench: Bench, table: dict[tuple[str, str], str]
) -> None:
    check(case, command, bench.end(case, command), table)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "command"), SLOW, ids=name)
def test_it_ends_as_the_document_says_where_networks_train(
    case: Case, command: str, bench: Bench, table: dict[tuple[str, str], str]
) -> None:
    check(case, command, bench.end(case, command), table)


def test_the_document_holds_every_run_and_no_other(table: dict[tuple[str, str], str]) -> None:
    assert set(table) == {(case.title, command) for case, command in RUNS}
    assert bad_inputs.OUTPUT.read_text(encoding="utf-8").startswith(bad_inputs.HEAD)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "bad.csv", "--target", "price"], "bad.csv does not exist"),
        (["predict", "--ckpt_path", "bad.ckpt", "--input", "a.csv", "--output", "b.csv"], "bad.ckpt does not exist"),
    ],
)
def test_a_process_of_its_own_ends_the_same(arguments: list[str], words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "actlab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"actlab: {words}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_bug_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(bad_inputs.cli.COMMANDS, "check", bad_inputs.cli.COMMANDS["check"].__class__("", broken))
    ended = bad_inputs.run(tmp_path, "check", [])
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.stderr


def test_what_a_command_leaves_is_seen(tmp_path: Path) -> None:
    before = bad_inputs.listing(tmp_path)
    (tmp_path / "half.csv").write_text("half")
    assert bad_inputs.listing(tmp_path) != before
