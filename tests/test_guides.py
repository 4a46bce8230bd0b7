"""The guides and the README run: their blocks, in order, in one folder a guide, on a small table with tiny budgets."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
GUIDES = ("your_csv", "add_an_activation", "read_the_report", "change_the_network", "several_data_sets")
# Added after a guide's own flags, so they win. What a reader waits minutes for takes seconds here.
TINY = {
    "compare": [
        "--trainer.max_epochs=2",
        "--compare.folds=2",
        "--compare.repeats=4",
        "--compare.learning_rates=[0.01]",
    ],
    "search": ["--trainer.max_epochs=2", "--compare.folds=2", "--compare.inner=1", "--search.n_trials=2"],
    "fit": ["--trainer.max_epochs=2", "--model.n_members=2"],
}
WRAPPER = """#!{python}
import sys
from actlab import cli
tiny = {tiny}
asks_only = any(argument.startswith(("-h", "--help", "--print_config")) for argument in sys.argv)
sys.argv[1:] += [] if asks_only else tiny.get(sys.argv[1], [])
cli.main()
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands after the fence, and its text."""

    info: str
    text: str


def blocks(path: Path) -> list[Block]:
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [Block(info.strip(), text) for info, text in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder: a table of 90 houses, and an `actlab` with tiny budgets in bin/."""
    generator = np.random.default_rng(0)
    area = generator.uniform(50, 200, 90)
    frame = pd.DataFrame({"area": area.round(), "rooms": generator.integers(1, 7, 90)})
    frame["district"] = generator.choice([1, 2, 3], 90)
    frame["quality"] = generator.choice(["poor", "fair", "good"], 90)
    frame["price"] = (1000 * area * generator.lognormal(0, 0.1, 90)).round()
    frame.to_csv(tmp_path / "houses.csv", index=False)
    flats = frame.assign(rent=(frame.price / 200 + 50 * frame.rooms).round())
    flats.drop(columns="price").to_csv(tmp_path / "flats.csv", index=False)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/actlab"
    script.write_text(WRAPPER.format(python=sys.executable, tiny=TINY))
    script.chmod(0o755)
    return tmp_path


def run(block: Block, folder: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    if block.info == "python":
        command = [sys.executable, "-c", block.text]
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guides_blocks_run_in_order(folder: Path, guide: str) -> None:
    runnable = [block for block in blocks(ROOT / f"docs/{guide}.md") if block.info in ("sh", "python")]
    assert runnable
    for block in runnable:
        run(block, folder)
    if guide == "read_the_report":
        assert (folder / "runs/a/report-with-b.html").exists()


@pytest.mark.slow
def test_the_readmes_python_runs(folder: Path) -> None:
    for block in blocks(ROOT / "README.md"):
        if block.info == "python":
            run(block, folder)


@pytest.mark.slow
def test_the_readmes_commands_run(folder: Path) -> None:
    """Those of actlab in a reader's folder; of make, that it knows the target and what to do for it."""
    (folder / ".venv").symlink_to(folder, target_is_directory=True)
    for name in ("my.csv", "new.csv"):
        shutil.copy(folder / "houses.csv", folder / name)
    ready = "actlab fit --data.csv houses.csv --data.target price --out runs/compare-house_prices"
    run(Block("sh", ready), folder)
    shell = [block for block in blocks(ROOT / "README.md") if not block.info]
    commands = [line.partition("  #")[0].strip() for block in shell for line in block.text.splitlines()]
    assert {command.split()[0] for command in commands if command} >= {"make", ".venv/bin/actlab"}
    for command in commands:
        if command.startswith("make "):
            run(Block("sh", f"make --dry-run -C '{ROOT}' {command.removeprefix('make ')}"), folder)
        elif command.startswith(".venv/bin/actlab "):
            run(Block("sh", command), folder)
    assert (folder / "predicted.csv").exists()


# what holds for every activation and takes little time
QUICK = ("tests/test_activations.py", "tests/test_network.py")
# Reasons to skip a test that a machine gives, and a new activation does not: they skip the same tests of this checkout.
OF_THE_MACHINE = (
    r"could not import|not installed|needs Chromium|root may write|glibc's allocator|there is no accelerator"
)
THIS_TEST = "tests/test_guides.py::test_a_record_is_all_that_a_new_activation_needs"


def with_bump(folder: Path) -> Path:
    """A clone of the project with the record of the guide, and what is not committed yet."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (clone / name).unlink(missing_ok=True)
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    titled = {block.info: block.text for block in blocks(ROOT / "docs/add_an_activation.md")}
    functions, records = (
        clone / "src/actlab" / name for name in ("networks/activation_functions.py", "activations.py")
    )
    code, row = titled[f"python {functions.relative_to(clone)}"], titled[f"text {records.relative_to(clone)} record"]
    text, table = records.read_text(), "ACTIVATIONS: tuple[Activation, ...] = (\n"
    assert text.count(table) == 1
    # a clone's own tests make a clone of the clone, which has the record already
    if row not in text:
        functions.write_text(f"{functions.read_text()}\n\n{code}")
        records.write_text(text.replace(table, table + row))
    return clone


def run_there(clone: Path, *command: str) -> str:
    """What a command prints that finds the clone's actlab first."""
    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_record_is_all_that_commands_and_quick_tests_need(tmp_path: Path) -> None:
    clone = with_bump(tmp_path)
    assert "bump  " in run_there(clone, sys.executable, "-m", "actlab", "activations")
    code = "from actlab.settings import CompareSettings; print(CompareSettings(activations='all').activations)"
    assert "'bump'" in run_there(clone, sys.executable, "-c", code)
    assert "[bump]" in run_there(clone, sys.executable, "-m", "pytest", "-n", "0", "-vv", *QUICK)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not pytest's, which only its owner may enter: some tests give root's privileges up, and import what is there."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.slow
def test_a_record_is_all_that_a_new_activation_needs(open_folder: Path) -> None:
    """All tests pass, and none is skipped for a reason that this checkout has not."""
    clone = with_bump(open_folder)
    command = (sys.executable, "-m", "pytest", "-m", "slow or not slow", "-rs", "--deselect", THIS_TEST)
    printed = run_there(clone, *command)
    assert " passed" in printed
    reasons = re.findall(r"^SKIPPED \[\d+\] (.+)$", printed, flags=re.MULTILINE)
    assert [reason for reason in reasons if not re.search(OF_THE_MACHINE, reason)] == []


@pytest.mark.parametrize("path", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda path: path.name)
def test_pictures_are_there_and_small(path: Path) -> None:
    if not path.exists():
        pytest.skip("not written yet")
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / picture).stat().st_size < 300_000


def test_every_shell_block_of_a_guide_is_marked_to_run() -> None:
    for guide in GUIDES:
        for block in blocks(ROOT / f"docs/{guide}.md"):
            assert block.info or "tensorboard" in block.text
