"""`actlab fit`, `validate` and `test` where they differ from a comparison."""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from actlab.cli import dispatch
from actlab.config import Configuration
from actlab.errors import InputError
from actlab.runs.fit import fit, score
from actlab.settings import CompareSettings, DataSettings, ModelSettings


def configuration(csv: str, folder: Path, activation: str) -> Configuration:
    return Configuration(
        data=DataSettings(csv, "price"),
        model=ModelSettings(activation=activation, hidden=[6], n_members=2),
        compare=CompareSettings(folds=3),
        trainer={"max_epochs": 3, "accelerator": "cpu"},
        out=str(folder / "run"),
    )


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")
def test_a_checkpoint_with_a_class_of_ones_own_is_scored_where_its_code_is_allowed(
    small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_code.py").write_text(
        "import torch\n\nclass Bend(torch.nn.Module):\n    def forward(self, z):\n        return z / (1 + z.abs())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = fit(configuration(small_csv, tmp_path, "own_code.Bend"))
    for command in ("validate", "test"):
        sys.modules.pop("own_code")
        arguments = [command, "--ckpt_path", str(run.checkpoint)]
        with pytest.raises(InputError, match="allow it with --allow_code"):
            dispatch(arguments)
        assert "own_code" not in sys.modules
        capsys.readouterr()
        assert dispatch([*arguments, "--allow_code"]) == 0
        assert capsys.readouterr().out.startswith("log_rmse ")


def test_another_csv_is_scored_on_the_scale_of_the_checkpoint(
    small_csv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = str(fit(configuration(small_csv, tmp_path, "relu")).checkpoint)
    frame = pd.read_csv(small_csv)
    frame[::-1].to_csv(tmp_path / "other.csv", index=False)
    other = DataSettings(str(tmp_path / "other.csv"), "price")
    plain = replace(other, target_transform="none")
    scores = [score(Configuration(data=data, ckpt_path=ckpt), "test") for data in (other, plain)]
    assert scores[0] == scores[1]
    assert capsys.readouterr().out.count("\nlog_rmse ") == 2
