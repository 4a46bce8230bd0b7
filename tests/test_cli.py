"""The commands as a user runs them: exit codes, one sentence on stderr, files left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from actlab.cli import COMMANDS


def actlab(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "actlab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_names_every_command() -> None:
    done = actlab("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_help_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'pandas', 'numpy', 'optuna'}"
    code = f"import sys; from actlab.cli import dispatch; dispatch(['--help']); print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    done = actlab(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_activations_prints_the_whole_table() -> None:
    from actlab.activations import ACTIVATIONS

    printed = actlab("activations").stdout
    for row in ACTIVATIONS:
        assert row.name in printed
        assert row.formula in printed
        assert row.source in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "unknown command"),
        (["check"], "needed and not given: CSV"),
        (["predict", "--ckpt_path", "x"], "needed and not given: --input, --output"),
        (["check", "nowhere.csv"], "nowhere.csv"),
        (["compare", "--data.csv", "nowhere.csv", "--data.target", "y"], "nowhere.csv"),
        (["compare", "--data.csv", "x.csv", "--no.such", "1"], "no.such"),
        (["fit", "--data.csv", "nowhere.csv", "--data.target", "y"], "nowhere.csv"),
        (["test"], "--ckpt_path"),
        (["predict", "--ckpt_path", "nowhere.ckpt", "--input", "a", "--output", "b"], "nowhere.ckpt"),
        (["article", "--data.csv", "nowhere.csv", "--data.target", "y"], "nowhere.csv"),
        (["compare", "--data", "[nowhere.yaml]"], "need at least 2"),
        (["compare", "--data", "nowhere.yaml", "neither.yaml"], "nowhere.yaml"),
        (["search", "--data", "a.yaml", "b.yaml"], "actlab compare only"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = actlab(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_fit_then_test_then_predict(small_csv: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--data.csv", small_csv, "--data.target", "price", "--trainer.max_epochs", "8", "--model.n_members", "3"]
    fitted = actlab("fit", *flags, "--model.hidden", "[16, 8]", "--out", str(run))
    assert fitted.returncode == 0, fitted.stderr
    assert {"config.yaml", "members.csv", "curves.csv", "best.ckpt", "summary.json"} <= {p.name for p in run.iterdir()}
    assert pd.read_csv(run / "members.csv").seed.tolist() == [0, 1, 2]

    tested = actlab("test", "--ckpt_path", str(run / "best.ckpt"))
    assert tested.returncode == 0, tested.stderr
    assert fitted.stdout.splitlines()[-2].split()[-1] in tested.stdout

    frame = pd.read_csv(small_csv).drop(columns="price")
    frame["extra"] = "x"
    frame.loc[0, "kind"] = "never seen"
    frame.to_csv(tmp_path / "new.csv", index=False)
    output = tmp_path / "predictions.csv"
    paths = ["--input", str(tmp_path / "new.csv"), "--output", str(output)]
    predicted = actlab("predict", "--ckpt_path", str(run / "best.ckpt"), *paths)
    assert predicted.returncode == 0, predicted.stderr
    assert "extra" in predicted.stderr
    assert "never seen" in predicted.stderr
    assert len(pd.read_csv(output)) == len(frame)
    config = tmp_path / "predict.yaml"
    config.write_text(f"ckpt_path: {run / 'best.ckpt'}\ninput: {tmp_path / 'new.csv'}\noutput: {output}\n")
    refused = actlab("predict", "--config", str(config))
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    with_intervals = actlab("predict", "--config", str(config), "--overwrite", "--interval", "0.8")
    assert with_intervals.returncode == 0, with_intervals.stderr
    assert "lower and upper are empty in 1 row with cells that training never had" in with_intervals.stderr
    interval = pd.read_csv(output)
    assert interval.lower.isna().tolist() == interval.upper.isna().tolist() == [True] + [False] * (len(frame) - 1)
    interval = interval[1:]
    assert (interval.lower < interval.prediction).all()
    assert (interval.prediction < interval.upper).all()

    again = actlab("fit", *flags, "--model.hidden", "[16, 8]", "--out", str(run))
    assert again.returncode == 2
    assert "--fresh" in again.stderr
    other = actlab("fit", *flags, "--model.hidden", "[16, 9]", "--out", str(run))
    assert other.returncode == 2
    assert "model.hidden" in other.stderr


def test_compare_answers_for_a_csv_never_seen_before(small_csv: str, tmp_path: Path) -> None:
    flags = ["--data.csv", small_csv, "--data.target", "price", "--trainer.max_epochs", "5", "--compare.folds", "3"]
    flags += ["--compare.repeats", "4"]
    grid = ["--compare.activations", "[identity, relu]", "--compare.learning_rates", "[0.003, 0.01]"]
    done = actlab("compare", *flags, *grid, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "On this data" in done.stdout
    run = tmp_path / "runs" / "compare-small"
    assert {
        "config.yaml",
        "study.journal",
        "members.csv",
        "curves.csv",
        "summary.json",
        "best.ckpt",
        "tensorboard",
    } <= {path.name for path in run.iterdir()}
    counting = pd.read_csv(run / "members.csv").query("repeat >= 1")
    assert len(counting) == 2 * 4 * 3


def test_compare_on_several_data_sets_ranks_across_them(small_csv: str, tmp_path: Path) -> None:
    frame = pd.read_csv(small_csv)
    frame.assign(price=frame.price.iloc[::-1].to_numpy()).to_csv(tmp_path / "other.csv", index=False)
    for name in ("small", "other"):
        (tmp_path / f"{name}.yaml").write_text(f"data: {{csv: {name}.csv, target: price}}\n")
    (tmp_path / "both.yaml").write_text(
        "data: [small.yaml, other.yaml]\nmodel: {hidden: [4]}\ntrainer: {max_epochs: 2}\n"
        "compare: {activations: [identity, relu, tanh], learning_rates: [0.01], folds: 2, repeats: 4}\n"
    )
    done = actlab("compare", "--config", "both.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Over 2 data sets" in done.stdout
    assert "results: runs/compare-both" in done.stdout
    as_json = actlab("compare", "--config", "both.yaml", "--json", cwd=tmp_path)
    assert json.loads(as_json.stdout) == json.loads((tmp_path / "runs/compare-both/summary.json").read_text())
    refused = actlab("report", "runs/compare-both", "runs/compare-both/small", cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds a comparison on 2 data sets" in refused.stderr


def test_the_help_of_compare_has_the_switch_and_the_list() -> None:
    printed = actlab("compare", "--help").stdout
    assert "--confirm " in printed
    assert "--data a.yaml b.yaml" in printed
