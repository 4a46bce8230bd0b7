"""actlab from Python: light to import, the command line's results as frames."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import actlab
from actlab import api
from actlab.errors import InputError
from actlab.report import drawing as colours
from synthetic_runs import make_run

SMALL = {
    "compare": {"activations": ["relu", "tanh"], "learning_rates": [0.01], "folds": 2, "repeats": 4},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


IDS = ["0007", "NA", "=A1", "1e3", *(f"row {i}" for i in range(56))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    folder = tmp_path_factory.mktemp("api")
    frame = pd.DataFrame({"x": range(60), "kind": ["a", "b", "NA"] * 20})
    frame.assign(price=frame.x + 10.0, name=IDS).to_csv(folder / "small.csv", index=False)
    return actlab.compare(folder / "small.csv", "price", out=folder / "run", data={"id": "name"}, **SMALL)


def test_importing_actlab_imports_almost_nothing() -> None:
    code = "import sys; before = set(sys.modules); import actlab; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "pandas", "numpy", "matplotlib", "optuna"} & set(done.stdout.split())


def test_loading_and_drawing_a_run_needs_no_torch(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 2, 2, 1)
    code = (
        "import sys, actlab; run = actlab.load_run(sys.argv[1]); "
        "run.members, run.curves, run.health, run.ranking, run.comparisons, run.figures(), run.answer, run.report(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        actlab.train  # noqa: B018
    assert {"compare", "search", "load_run", "load_runs"} <= set(actlab.__all__)


def test_a_comparison_gives_frames_figures_and_predictions(trained: api.Run, tmp_path: Path) -> None:
    assert len(trained.members) == 2 * 4 * 2
    assert set(trained.ranking.activation) == {"relu", "tanh"}
    assert trained.comparisons.against.tolist() == ["best", "baseline"]
    assert trained.answer.startswith("On this data ")
    assert {"ranking", "learning_rates", "curves"} <= trained.figures().keys()
    assert trained.predictions is not None
    assert set(trained.predictions.id) == set(IDS)
    rows = pd.DataFrame({"name": ["NA", "0007"], "x": [5, 50], "kind": ["a", None]})
    from_frame = trained.predict(rows)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    assert from_frame.columns.tolist() == ["name", "prediction"]
    assert from_frame.name.tolist() == ["NA", "0007"]
    pd.testing.assert_frame_equal(from_frame, trained.predict(tmp_path / "rows.csv"))
    assert {"lower", "upper"} <= set(trained.predict(rows, interval=0.8).columns)


def test_the_same_call_again_gives_the_same_run(trained: api.Run) -> None:
    config = trained.config
    again = actlab.compare(config["data"]["csv"], "price", out=trained.path, data={"id": "name"}, **SMALL)
    assert again.summary == trained.summary
    with pytest.raises(InputError, match="seed"):
        actlab.compare(config["data"]["csv"], "price", out=trained.path, seed=5, data={"id": "name"}, **SMALL)


def homes() -> pd.DataFrame:
    frame = pd.DataFrame({"x": [float(i) for i in range(60)], "kind": ["a", "b", None] * 20, "new": [True, False] * 30})
    return frame.assign(kind=frame.kind.astype("category"), price=frame.x + 10.0)


def test_a_frame_is_compared_as_its_file_is(tmp_path: Path) -> None:
    homes().to_parquet(tmp_path / "homes.parquet")
    first = actlab.compare(homes(), "price", out=tmp_path / "frame", **SMALL)
    second = actlab.compare(tmp_path / "homes.parquet", "price", out=tmp_path / "file", **SMALL)
    pd.testing.assert_frame_equal(first.members.drop(columns="seconds"), second.members.drop(columns="seconds"))
    rows = homes().drop(columns="price")
    predicted = first.predict(rows)
    assert len(predicted) == 60
    pd.testing.assert_frame_equal(first.predict(pl.from_pandas(rows)), predicted)
    pd.testing.assert_frame_equal(second.predict(tmp_path / "homes.parquet"), predicted)


def test_the_run_of_a_frame_goes_on_with_the_same_content_only(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = actlab.compare(homes(), "price", out=out, **SMALL)
    assert first.config["data"]["csv"] == f"frame sha256:{first.summary['data']['sha256']}"
    assert actlab.compare(homes(), "price", out=out, **SMALL).summary == first.summary
    with pytest.raises(InputError, match=r"the content of frame sha256"):
        actlab.compare(homes().assign(x=1.5), "price", out=out, **SMALL)
    with pytest.raises(InputError, match="was a frame, which only Python has"):
        actlab.compare(first.config["data"]["csv"], "price", out=out, **SMALL)


@pytest.mark.slow
def test_workers_take_the_frame_from_their_parent(tmp_path: Path) -> None:
    alone = actlab.compare(homes(), "price", out=tmp_path / "alone", **SMALL)
    shared = actlab.compare(homes(), "price", out=tmp_path / "shared", workers=2, **SMALL)
    columns = ["activation", "learning_rate", "fold", "repeat", "test_score"]
    pd.testing.assert_frame_equal(shared.members[columns], alone.members[columns])


def test_a_frame_in_place_of_a_key_is_refused() -> None:
    with pytest.raises(InputError, match="takes the path of a file, not a frame"):
        actlab.compare("a.csv", "price", data={"test_csv": homes()})
    with pytest.raises(InputError, match="a path or a frame"):
        actlab.compare([1, 2], "price")


def test_a_search_gives_a_run_too(trained: api.Run, tmp_path: Path) -> None:
    csv = trained.config["data"]["csv"]
    run = actlab.search(csv, "price", out=tmp_path / "run", search={"n_trials": 2, "batch": 2}, **SMALL)
    assert len(run.comparisons) == 0
    assert run.members.trial.nunique() == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [({"compare": {"splits": 3}}, "splits"), ({"compare": {"folds": 1}}, "at least 2"), ({"sed": 1}, "sed")],
)
def test_a_bad_override_is_named(tmp_path: Path, overrides: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        actlab.compare(tmp_path / "none.csv", "price", out=tmp_path / "run", **overrides)


def test_a_fit_has_networks_and_no_answer(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 1, 1)
    (path / "summary.json").write_text(json.dumps({"metric": "log_rmse"}))
    run = actlab.load_run(path)
    assert len(run.members) == 5
    assert run.ranking.empty
    with pytest.raises(InputError, match="answers no comparison"):
        _ = run.answer


def test_several_data_sets_are_loaded_by_their_names(tmp_path: Path) -> None:
    names = ["a", "b"]
    for seed, name in enumerate(names):
        make_run(tmp_path / name, 3, 2, 1, seed=seed)
    with pytest.raises(InputError, match="does not hold a comparison on several"):
        actlab.load_runs(tmp_path)
    (tmp_path / "config.yaml").write_text("data: [a/config.yaml, b/config.yaml]\n")
    with pytest.raises(InputError, match="is not finished"):
        actlab.load_runs(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"data_sets": [{"name": name} for name in names]}))
    runs = actlab.load_runs(tmp_path)
    assert list(runs) == names
    assert runs["b"].summary == actlab.load_run(tmp_path / "b").summary
    with pytest.raises(InputError, match="name one of its runs"):
        actlab.load_run(tmp_path)


def test_a_list_of_data_sets_is_for_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("data: [a.yaml, b.yaml]\n")
    with pytest.raises(InputError, match="command line's actlab compare only"):
        actlab.compare("houses.csv", "price", config=tmp_path / "both.yaml")


def test_examples_in_docstrings_hold() -> None:
    found = doctest.testmod(colours)
    assert found.attempted > 0
    assert found.failed == 0
