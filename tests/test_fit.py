"""`actlab fit`, `validate` and `test` where they differ from a comparison."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actlab.cli import dispatch
from actlab.config import Configuration
from actlab.errors import InputError
from actlab.model.ensemble import load, save
from actlab.model.prediction import predict_rows
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


@pytest.fixture
def codes(tmp_path: Path) -> tuple[str, pd.DataFrame]:
    """A trained checkpoint of a table with integer codes, a grade that is rarely a letter, and a constant price unit;
    and new rows without that letter, of one grade and one unit."""
    rng, n = np.random.default_rng(5), 150
    zone, area = rng.choice([101, 205, 412], n), rng.normal(size=n)
    grade = np.array(["A", "A", *rng.choice(["2", "3"], n - 2)])
    price = np.exp(0.3 * area + (zone == 412) - (grade == "3"))
    frame = pd.DataFrame({"area": area, "zone": zone, "grade": grade, "price": price})
    frame[:100].to_csv(tmp_path / "train.csv", index=False)
    settings = configuration(str(tmp_path / "train.csv"), tmp_path, "relu")
    run = fit(replace(settings, data=replace(settings.data, categorical=["zone"])))
    new = frame[100:][frame.grade[100:] == "2"]
    new.to_csv(tmp_path / "new.csv", index=False)
    return str(run.checkpoint), new


def test_another_csv_is_read_and_scored_as_predict_reads_it(
    codes: tuple[str, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand, from what `predict` gives: `zone` stays a code, a grade that is a number stays a category."""
    ckpt, new = codes
    predicted = predict_rows(ckpt, new.drop(columns="price")).prediction
    expected = np.sqrt(np.mean((np.log(new.price.to_numpy()) - np.log(predicted.to_numpy())) ** 2))
    capsys.readouterr()
    for part in ("test", "validate"):
        assert dispatch([part, "--ckpt_path", ckpt, "--data.csv", str(tmp_path / "new.csv")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" on ")[0] for line in said] == [f"log_rmse {expected:.4f}"] * 2
    plain = Configuration(data=DataSettings(str(tmp_path / "new.csv")), ckpt_path=ckpt)
    np.testing.assert_allclose(score(plain, "test"), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("key", "value"),
    [("target_transform", "none"), ("categorical", ["grade"]), ("target", "area"), ("na_values", ["?"])],
)
def test_settings_that_contradict_the_checkpoint_are_refused(
    codes: tuple[str, pd.DataFrame], tmp_path: Path, key: str, value: object
) -> None:
    other = replace(DataSettings(str(tmp_path / "new.csv"), "price"), **{key: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"data\.{key}=.* is not what the checkpoint was trained with, .*leave"):
        score(Configuration(data=other, ckpt_path=codes[0]), "test")


def test_settings_of_training_may_be_said_again(codes: tuple[str, pd.DataFrame], tmp_path: Path) -> None:
    again = DataSettings(str(tmp_path / "new.csv"), "price", categorical=["zone"], batch_size=7)
    plain = DataSettings(str(tmp_path / "new.csv"))
    first, second = (score(Configuration(data=data, ckpt_path=codes[0]), "test") for data in (again, plain))
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda new: new.rename(columns={"price": "Price"}),
            r"has no column 'price', the target .*did you mean 'Price'",
        ),
        (lambda new: new.assign(price=[0.0, *new.price[1:]]), r"'price': the target must be > 0 .* line 2;"),
        (lambda new: new.assign(price=["", *new.price[1:]]), r"'price': the target is missing in line 2;"),
        (lambda new: new.assign(price=["dear", *new.price[1:]]), r"line 2, column 'price': 'dear' is not a number"),
    ],
)
def test_a_target_that_cannot_be_scored_is_refused(
    codes: tuple[str, pd.DataFrame], tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    change(codes[1]).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match=message):
        score(Configuration(data=DataSettings(str(tmp_path / "bad.csv")), ckpt_path=codes[0]), "test")


def test_what_is_unlike_training_is_said(
    codes: tuple[str, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes[1].assign(area=np.nan).to_csv(tmp_path / "blank.csv", index=False)
    score(Configuration(data=DataSettings(str(tmp_path / "blank.csv")), ckpt_path=codes[0]), "test")
    assert "warning: column 'area': missing in" in capsys.readouterr().err


def test_rows_without_a_target_are_left_out_where_training_left_them_out(
    codes: tuple[str, pd.DataFrame], tmp_path: Path
) -> None:
    new = codes[1]
    new.assign(price=[np.nan, *new.price[1:]]).to_csv(tmp_path / "gap.csv", index=False)
    new[1:].to_csv(tmp_path / "rest.csv", index=False)
    expected = score(Configuration(data=DataSettings(str(tmp_path / "rest.csv")), ckpt_path=codes[0]), "test")
    asked = DataSettings(str(tmp_path / "gap.csv"), missing_target="drop")
    assert score(Configuration(data=asked, ckpt_path=codes[0]), "test") == expected
    # the file of training itself
    ensemble = load(codes[0])
    whole = pd.read_csv(tmp_path / "train.csv")
    longer = pd.concat([whole[:7].assign(price=np.nan), whole], ignore_index=True)
    longer.to_csv(tmp_path / "longer.csv", index=False)
    config = {**ensemble.config, "data": {**ensemble.config["data"], "missing_target": "drop"}}
    sha256 = hashlib.sha256((tmp_path / "longer.csv").read_bytes()).hexdigest()
    again = replace(ensemble, config=config, scores={**ensemble.scores, "sha256": sha256})
    save(again, tmp_path / "longer.ckpt")
    found = Configuration(data=DataSettings(str(tmp_path / "longer.csv")), ckpt_path=str(tmp_path / "longer.ckpt"))
    assert score(found, "test") == score(Configuration(ckpt_path=codes[0]), "test")


def test_bad_cells_of_another_csv_may_be_taken_as_missing(
    codes: tuple[str, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, cell in (("bad", "much"), ("blank", "")):
        codes[1].assign(area=[cell, *codes[1].area[1:]]).to_csv(tmp_path / f"{name}.csv", index=False)
    asked = ["test", "--ckpt_path", codes[0], "--data.csv", str(tmp_path / "bad.csv")]
    with pytest.raises(InputError, match="'much' is not a number"):
        dispatch(asked)
    capsys.readouterr()
    assert dispatch([*asked, "--bad_cells", "missing"]) == 0
    said = capsys.readouterr()
    assert "warning: column 'area': no number in 1 row (first: line 2, 'much'), taken as missing" in said.err
    expected = score(Configuration(data=DataSettings(str(tmp_path / "blank.csv")), ckpt_path=codes[0]), "test")
    assert said.out.startswith(f"log_rmse {expected:.4f} ")


def test_rows_of_other_folds_are_not_scored(codes: tuple[str, pd.DataFrame], tmp_path: Path) -> None:
    """A version that splits rows otherwise would score networks on rows that they were trained on."""
    ensemble = load(codes[0])
    save(replace(ensemble, config={**ensemble.config, "seed": 1}), tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="splits rows otherwise"):
        score(Configuration(ckpt_path=str(tmp_path / "other.ckpt")), "test")
