"""Who may import whom: one table of levels, and what must stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "actlab"

# From the ground up: a module imports only from packages above its own in this table, and inside its own only from the
# rows above it; siblings do not import each other. The names without a package are split: `FOUNDATION` lies under all
# packages, `SURFACE` on top of them.
FOUNDATION, SURFACE = "", "on top"
LEVELS: dict[str, tuple[set[str], ...]] = {
    FOUNDATION: (
        {"errors", "members", "printed_tables"},
        {"activations", "run_files"},
        {"settings"},
        {"config"},
    ),
    "data": (
        {"csv_file", "formats", "layout", "target", "windows"},
        {"columns", "sources", "splits"},
        {"roles"},
        {"table"},
        {"preprocessing"},
        {"check", "datamodule"},
    ),
    "networks": (
        {"activation_functions", "machine", "metrics", "snapshots", "streams"},
        {"network"},
        {"adamw", "trained"},
        {"autograd"},
        {"compiled"},
        {"population"},
        {"module"},
    ),
    "diagnostics": ({"health", "measures"},),
    "engine": (
        {"optuna_private", "workers"},
        {"storage"},
        {"study"},
        {"pruning"},
    ),
    "verdict": (
        {"paired_tests", "rates", "simultaneous"},
        {"race"},
        {"comparisons"},
        {"summary"},
        {"across_data_sets", "claims", "what_matters"},
    ),
    "model": (
        {"checkpoint"},
        {"ensemble"},
        {"intervals", "onnx_export"},
        {"prediction"},
    ),
    "report": (
        {"finished"},
        {"words"},
        {"check_text", "drawing", "tensorboard"},
        {"optuna_figures", "score_figures", "training_figures"},
        {"tables"},
        {"page", "several"},
        {"several_page"},
    ),
    "runs": (
        {"progress_bar"},
        {"article", "evaluate", "references"},
        {"model_building"},
        {"progress"},
        {"results"},
        {"experiment"},
        {"compare_search", "fit"},
        {"several"},
    ),
    SURFACE: (
        {"api", "cli"},
        {"__main__"},
    ),
}

# The results on disk and everything that reads them: no training library, whoever imports them.
LIGHT = (
    "runs.progress_bar",
    "printed_tables",
    "run_files",
    "data.table",
    "data.target",
    "verdict.across_data_sets",
    "verdict.paired_tests",
    "verdict.race",
    "verdict.simultaneous",
    "verdict.summary",
    "verdict.what_matters",
    "report.page",
    "report.several",
    "report.several_page",
    "report.tables",
    "report.tensorboard",
    "report.words",
)


def imported_modules(name: str, source: str, known: set[str]) -> Iterator[str]:
    """Names, without `actlab`, of the known modules that module `name` imports, wherever in its text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["actlab", *name.split(".")][: -node.level] if node.level else []
            paths = [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        else:
            continue
        for path in paths:
            parts = path.split(".")
            if parts[0] == "actlab":
                # the longest beginning that is a module: the rest are names in it
                ends = range(len(parts), 1, -1)
                yield next((found for end in ends if (found := ".".join(parts[1:end])) in known), "__init__")


def heights(levels: Mapping[str, Sequence[set[str]]]) -> dict[str, int]:
    """Dotted module to its height; the packages themselves and what hands out `api` lie at the bottom."""
    rows = [(package, row) for package, own in levels.items() for row in own]
    prefix = {package: "" if package in (FOUNDATION, SURFACE) else f"{package}." for package in levels}
    return {f"{prefix[package]}{name}": height for height, (package, row) in enumerate(rows, 1) for name in row}


def violations(package: Path, levels: Mapping[str, Sequence[set[str]]]) -> list[str]:
    """One sentence for each module without a level and for each import that does not go down."""
    level = heights(levels)
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {name for name in files if not name.endswith("__init__")}
    found = [f"{name} has no level: give it one in the table" for name in sorted(modules - level.keys())]
    for name in sorted(modules & level.keys()):
        imported = imported_modules(name, files[name].read_text(encoding="utf-8"), modules)
        found += [f"{name} imports {other}" for other in imported if level.get(other, 0) >= level[name]]
    return found


def test_imports_go_down_only() -> None:
    assert violations(PACKAGE, LEVELS) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import actlab.b.high",
        "from actlab.b.high import f",
        "from actlab.b import high",
        "from ..b import high",
        "from ..b.high import f",
        "def f():\n    from actlab.b.high import f",
        "import actlab.a.low",
        "from . import low",
        "from .low import f",
    ],
)
def test_an_import_upwards_or_sideways_is_found_in_every_spelling(tmp_path: Path, statement: str) -> None:
    for package in ("a", "b"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "a" / "low.py").write_text(statement)
    (tmp_path / "b" / "high.py").write_text("import os, torch\nfrom actlab.a.low import x\nfrom actlab.a import low")
    assert len(violations(tmp_path, {"a": ({"low"},), "b": ({"high"},)})) == 1


def test_a_module_without_a_level_is_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("known", "unknown", "folder/unknown"):
        (tmp_path / f"{name}.py").touch()
    found = violations(tmp_path, {FOUNDATION: ({"known"},)})
    assert [line.split()[0] for line in found] == ["folder.unknown", "unknown"]


def heavy_imports(module: str) -> set[str]:
    """Training libraries that a fresh interpreter has loaded after importing `module`."""
    code = f"import sys, {module}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"torch", "lightning", "pytorch_lightning", "torchmetrics"} & set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_light_module_imports_no_training_library(module: str) -> None:
    assert heavy_imports(f"actlab.{module}") == set()


def test_a_heavy_module_is_found() -> None:
    assert "torch" in heavy_imports("actlab.networks.activation_functions")
