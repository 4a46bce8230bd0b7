"""The script that turns run directories into docs/findings.md."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from actlab.run_files import RunDirectory, write_json
from synthetic_runs import make_run

SCRIPT = Path(__file__).parents[1] / "scripts" / "findings.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("findings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(script: ModuleType, tmp_path: Path, *runs: Path) -> str:
    output = tmp_path / "findings.md"
    script.main([*(part for run in runs for part in ("--run", str(run), f"make {run.name}")), "--output", str(output)])
    return output.read_text()


def test_both_data_sets_are_told_with_their_commands(script: ModuleType, tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one", 6), make_run(tmp_path / "two", 2)
    text = written(script, tmp_path, one, two)
    assert text.count("\n## ") == 2
    assert "make one" in text
    assert "make two" in text
    assert "90 networks for the learning rates, 180 that count" in text
    assert "- whether tanh score as well as relu or worse, on these rows already;" in text
    assert "- whether relu is better than leaky_relu on new rows of the same source, too;" in text
    assert "None" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("place", "start"),
    [
        (1, "No: identity, a linear model, costs at most "),
        (2, "Not settled: identity, a linear model, is anything from -"),
        (3, "Yes, on these rows: identity, a linear model, is "),
        (4, "Yes: on new rows of the same source identity, a linear model, is "),
    ],
)
def test_whether_a_non_linearity_is_worth_having(script: ModuleType, tmp_path: Path, place: int, start: str) -> None:
    names = ["relu", "sigmoid", "tanh", "leaky_relu", "maxout"]
    names[place] = "identity"
    run = RunDirectory(make_run(tmp_path / "run", 5, names=tuple(names)))
    assert start in written(script, tmp_path, run.path)
    summary = run.read_summary()
    summary["comparisons"] = [one for one in summary["comparisons"] if one["b"] != "identity"]
    write_json(run.summary, summary)
    assert "Is a non-linearity worth having?" not in "\n".join(script.non_linearity(summary))
