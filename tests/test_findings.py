"""The script that turns run directories into docs/findings.md."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.run_files import RunDirectory, write_frame, write_json
from actlab.verdict.summary import summarise

SCRIPT = Path(__file__).parents[1] / "scripts" / "findings.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("findings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished(path: Path, means: dict[str, float], **more: Any) -> str:
    generator = np.random.default_rng(0)
    rows = [
        (trial, name, 0.01, repeat, fold, 0, 0, 3, 5, 1.0, mean + generator.normal(0, 0.01), False, False, 100, 1.0)
        for trial, (name, mean) in enumerate(means.items())
        for repeat in range(3)
        for fold in range(5)
    ]
    columns = ["trial", "activation", "learning_rate", "repeat", "fold", "inner", "seed", "best_epoch", "epochs"]
    columns += ["val_score", "test_score", "diverged", "pruned", "n_parameters", "seconds"]
    members = pd.DataFrame(rows, columns=columns)
    protocol = {"repeats": 3, "folds": 5, "inner": 1, "hidden": [8], "max_epochs": 5, "seed": 0}
    protocol |= {"n_test": 20, "n_training": 70, "n_validation": 10}
    data = {"csv": f"data/{path.name}/t.csv", "n_rows": 100, "n_columns": 3, "target": "y"}
    found = summarise(members, 0.25, "relu", [0.001, 0.01, 0.1], is_equal_budget=True)
    run = RunDirectory(path)
    run.create()
    write_frame(run.members, members)
    write_json(run.summary, {"metric": "log_rmse", "data": data, "protocol": protocol, "references": {}} | found | more)
    return str(path)


def test_both_data_sets_are_told_with_their_commands(script: ModuleType, tmp_path: Path) -> None:
    curved = finished(tmp_path / "curved", {"identity": 0.5, "relu": 0.2, "tanh": 0.201})
    straight = finished(tmp_path / "straight", {"identity": 0.2, "relu": 0.2001, "tanh": 0.2002})
    output = tmp_path / "findings.md"
    script.main(["--run", curved, "make one", "--run", straight, "make two", "--output", str(output)])
    text = output.read_text()
    assert text.count("\n## ") == 2
    assert "make one" in text
    assert "make two" in text
    assert "Yes: identity, a linear model, is worse than every activation." in text
    assert "Not shown for all: no difference from" in text
    assert "None" not in text
    assert "nan" not in text


def test_a_second_look_stands_beside_the_first(script: ModuleType, tmp_path: Path) -> None:
    comparison = {"a": "relu", "b": "tanh", "first_difference": -0.01, "difference": -0.002, "ci_low": -0.01}
    comparison |= {"ci_high": 0.006, "p_holm": 0.4, "p_all_pairs": 0.9, "verdict": "no difference shown"}
    confirmation = {"winner": "relu", "rivals": ["tanh"], "comparisons": [comparison]}
    run = finished(tmp_path / "run", {"relu": 0.2, "tanh": 0.21}, confirmation=confirmation)
    output = tmp_path / "findings.md"
    script.main(["--run", run, "make one", "--output", str(output)])
    assert (
        "| relu minus tanh | -0.0100 | -0.0020 | -0.0100 to 0.0060 | 0.4 | no difference shown |" in output.read_text()
    )
