"""Who may import whom: one table of levels, and what must stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "actlab"

# From the ground up: a module imports only from levels below its own; siblings do not import each other.
LEVELS = (
    {"__init__"},
    {"answer", "cells", "claims_table", "colours", "column_rules", "errors", "event_files", "members", "metrics"},
    {
        "activations",
        "csv_reading",
        "database",
        "drawing",
        "locks",
        "multi_data",
        "paired_tests",
        "ranking_table",
        "records",
        "settings",
        "workers",
    },
    {
        "article",
        "checkpoint",
        "columns",
        "configuration",
        "evidence",
        "initialisation",
        "inline_svg",
        "journal",
        "onnx_graph",
        "outputs",
        "significance",
        "splits",
        "study_figures",
        "tensorboard_log",
    },
    {"arms", "inference", "liveness", "regressor", "summary"},
    {"finished", "health", "measurements", "representation", "studies", "table"},
    {"claims", "preprocessing", "report_words", "score_figures", "training_figures"},
    {"averaging", "check", "datamodule", "figures", "references", "report_tables"},
    {"ensemble", "intervals", "population", "report"},
    {"convergence", "costs", "export", "module", "prediction", "side_by_side"},
    {"health_callback", "live_curves", "progress", "pruning", "trials"},
    {"assembly", "confirm", "trial_settings"},
    {"investigation"},
    {"results"},
    {"experiment"},
    {"compare", "fit", "search"},
    {"api", "cli"},
    {"__main__"},
)

# The results on disk and everything that reads them: no training library, whoever imports them.
LIGHT = (
    "answer",
    "ranking_table",
    "event_files",
    "tensorboard_log",
    "summary",
    "records",
    "paired_tests",
    "significance",
    "multi_data",
    "report",
    "table",
)


def imported_modules(source: str, siblings: set[str]) -> Iterator[str]:
    """Names of the package's modules that a module of it imports, wherever in its text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(filter(None, ["actlab" if node.level else "", node.module]))
            paths = [f"{package}.{alias.name}" for alias in node.names]
        else:
            continue
        for path in paths:
            top, _, rest = path.partition(".")
            name = rest.partition(".")[0]
            if top == "actlab":
                yield name if name in siblings else "__init__"


def violations(package: Path, levels: Sequence[set[str]]) -> list[str]:
    """One sentence for each module without a level and for each import that does not go down."""
    level = {name: height for height, names in enumerate(levels) for name in names}
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    found = [f"{name} has no level: give it one in the table" for name in sorted(files.keys() - level.keys())]
    # the package itself hands out the functions of `api`, when they are asked for
    for name in sorted((files.keys() & level.keys()) - {"__init__"}):
        imported = imported_modules(files[name].read_text(encoding="utf-8"), set(files))
        found += [f"{name} imports {other}" for other in imported if other in level and level[other] >= level[name]]
    return found


def test_imports_go_down_only() -> None:
    assert violations(PACKAGE, LEVELS) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import actlab.high",
        "from actlab.high import f",
        "from actlab import high",
        "from . import high",
        "from .high import f",
        "def f():\n    from actlab.high import f",
        "import actlab.low",
    ],
)
def test_an_import_upwards_or_sideways_is_found_in_every_spelling(tmp_path: Path, statement: str) -> None:
    (tmp_path / "low.py").write_text(statement)
    (tmp_path / "high.py").write_text("import os, torch\nfrom actlab.low import x\nfrom actlab import low")
    assert len(violations(tmp_path, [{"low"}, {"high"}])) == 1


def test_a_module_without_a_level_is_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("known", "unknown", "folder/unknown"):
        (tmp_path / f"{name}.py").touch()
    found = violations(tmp_path, [{"known"}])
    assert [line.split()[0] for line in found] == ["folder.unknown", "unknown"]


def heavy_imports(module: str) -> set[str]:
    """Training libraries that a fresh interpreter has loaded after importing `module`."""
    code = f"import sys, {module}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"torch", "lightning", "pytorch_lightning", "torchmetrics"} & set(done.stdout.split())


@pytest.mark.parametrize("module", [name for name in LIGHT if (PACKAGE / f"{name}.py").exists()])
def test_importing_a_light_module_imports_no_training_library(module: str) -> None:
    assert heavy_imports(f"actlab.{module}") == set()


def test_a_heavy_module_is_found() -> None:
    assert "torch" in heavy_imports("actlab.activations")
