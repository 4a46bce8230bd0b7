"""`actlab predict`: the right rows in the right order, warnings where it can go on, a sentence where it cannot."""

import csv
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actlab.data.table import read_table
from actlab.errors import InputError, PredictionWarning
from actlab.model.ensemble import Ensemble, load, save
from actlab.model.intervals import prediction_interval
from actlab.model.prediction import Prediction, harmless, predict_file, predict_rows
from actlab.settings import DataSettings
from small_ensembles import HOUSES, houses, make_ensemble

N_ROWS = 60


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    save(make_ensemble(houses()), path)
    return path


@pytest.fixture(scope="module")
def ensemble(ckpt: Path) -> Ensemble:
    return load(ckpt)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Rows as text, as in the file."""
    return pd.read_csv(HOUSES, dtype=str, keep_default_na=False, nrows=N_ROWS)


def run(ckpt: Path, rows: pd.DataFrame, tmp_path: Path, **options: object) -> tuple[pd.DataFrame, Prediction]:
    rows.to_csv(tmp_path / "in.csv", index=False)
    options.setdefault("warn", lambda text: None)
    done = predict_file(ckpt, tmp_path / "in.csv", tmp_path / "out.csv", **options)  # type: ignore[arg-type]
    return pd.read_csv(tmp_path / "out.csv", dtype={"Id": str}), done


def test_every_row_is_predicted_in_its_order_under_its_id(
    ckpt: Path, ensemble: Ensemble, rows: pd.DataFrame, tmp_path: Path
) -> None:
    out, done = run(ckpt, rows, tmp_path)
    assert list(out.columns) == ["Id", "prediction"]
    assert out["Id"].tolist() == rows["Id"].tolist()
    np.testing.assert_array_equal(out["prediction"], ensemble.predict(houses().features[:N_ROWS]))
    assert done == Prediction(N_ROWS, ())


@pytest.fixture
def blanks(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A model of a complete number `x`, a number `gap` and a category `kind` with gaps, a skewed `area`, two codes of
    which one was rare, and rows as in training."""
    rng, n = np.random.default_rng(3), 200
    frame = pd.DataFrame(
        {
            "x": rng.uniform(10, 20, n).round(3),
            "gap": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "kind": np.where(rng.random(n) < 0.2, None, rng.choice(["a", "b"], n)),
            "area": np.exp(rng.normal(size=n)).round(3),
            "zone": rng.choice(["n", "s"], n),
            "code": ["lone", *rng.choice(["p", "q"], n - 1)],
            "price": np.exp(rng.normal(size=n)),
        }
    )
    frame.to_csv(tmp_path / "train.csv", index=False)
    table = read_table(DataSettings(csv=str(tmp_path / "train.csv"), target="price"))
    save(make_ensemble(table), tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt", frame.drop(columns="price")


def test_rows_as_in_training_are_not_warned_of_and_have_intervals(
    blanks: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    ckpt, rows = blanks
    out, done = run(ckpt, rows, tmp_path, interval=0.8)
    assert done == Prediction(200, ())
    assert out.notna().all(axis=None)


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "xlsx", "standard input"])
def test_every_kind_of_file_is_predicted_as_its_csv(
    blanks: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ckpt, rows = blanks
    right, _ = run(ckpt, rows, tmp_path, interval=0.8)
    source, told = str(tmp_path / f"rows.{kind}"), list[tuple[int, int]]()
    if kind == "standard input":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "in.csv").read_bytes())))
        source = "-"
    else:
        write = {"csv.gz": rows.to_csv, "parquet": rows.to_parquet, "xlsx": rows.to_excel}[kind]
        write(source, index=False)
    predict_file(ckpt, source, tmp_path / "other.csv", 0.8, 64, progress=lambda n, of: told.append((n, of)))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "other.csv"), right)
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]


# column, cells from row 150 on, the sentence about them (of chunks of 7 rows), and whether their rows keep an interval
UNLIKE = [
    ("x", [None, None], "column 'x': missing in 2 rows (first: line 152), never in training", False),
    ("zone", [None], "column 'zone': missing in 1 row (first: line 152), never in training", False),
    ("gap", [None], None, True),
    ("kind", [None], None, True),
    (
        "zone",
        ["e", "w", "e"],
        "column 'zone' has values that the model never saw in training in 3 rows (first: line 152), taken as none of "
        "its categories: 'e', 'w'",
        False,
    ),
    (
        "x",
        [30.5, 19.0, -0.5],
        "column 'x': outside 10.011 to 19.998 in 2 rows (first: line 152, 30.5), of which networks know nothing",
        [False, True, False],
    ),
    # within a width of the range beyond it
    ("x", [29.0, 0.5], None, True),
    # a logarithm is taken: within a quarter of its range, and beyond
    ("area", [50.0, 0.0], None, True),
    (
        "area",
        [1000.0, -0.001],
        "column 'area': outside 0.05 to 24.319 in 2 rows (first: line 152, 1000), of which networks know nothing",
        False,
    ),
    # in some fold `lone` was new, too
    (
        "code",
        ["r"],
        "column 'code' has values that the model never saw in training in 1 row (first: line 152), taken as none of "
        "its categories: 'r'",
        True,
    ),
]


@pytest.mark.parametrize(("name", "cells", "sentence", "is_known"), UNLIKE)
def test_cells_that_training_never_had_are_counted_and_their_rows_have_no_interval(
    blanks: tuple[Path, pd.DataFrame],
    tmp_path: Path,
    name: str,
    cells: list[object],
    sentence: str | None,
    is_known: bool | list[bool],
) -> None:
    ckpt, rows = blanks
    whole, _ = run(ckpt, rows, tmp_path, interval=0.8)
    rows[name] = [*rows[name][:150], *cells, *rows[name][150 + len(cells) :]]
    out, done = run(ckpt, rows, tmp_path, interval=0.8, chunk_rows=7, overwrite=True)
    told = [] if sentence is None else [sentence]
    has_none = np.zeros(200, dtype=bool)
    has_none[150 : 150 + len(cells)] = ~np.array(is_known)
    n = f"{has_none.sum()} row{'s' if has_none.sum() > 1 else ''}"
    empty = f"lower and upper are empty in {n} with cells that training never had: its errors say nothing of them"
    assert done.warnings == (*told, *([empty] if has_none.any() else []))
    np.testing.assert_array_equal(out[["lower", "upper"]].isna(), np.stack([has_none] * 2, axis=1))
    assert out.prediction.notna().all()
    others = np.r_[0:150, 150 + len(cells) : 200]
    pd.testing.assert_frame_equal(out.iloc[others], whole.iloc[others], rtol=1e-6)
    # written as nothing at all
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.endswith(",,") for line in lines[1:]] == has_none.tolist()
    _, without = run(ckpt, rows, tmp_path, overwrite=True)
    assert without.warnings == tuple(told)


def test_bad_cells_are_refused_or_taken_as_missing_counted_and_said(
    blanks: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    ckpt, rows = blanks
    cells = {3: "?!", 8: "1.2.3", 150: "inf"}
    bad = rows.assign(gap=[cells.get(i, value) for i, value in enumerate(rows.gap)])
    missing = rows.assign(gap=[np.nan if i in cells else value for i, value in enumerate(rows.gap)])
    for own in (bad, str(tmp_path / "in.csv")):
        bad.to_csv(tmp_path / "in.csv", index=False)
        with pytest.raises(InputError, match=r"line 5, column 'gap': '\?!' is not a number; .*--bad_cells missing"):
            predict_rows(ckpt, own)
        said: list[str] = []
        found = predict_rows(ckpt, own, 0.8, said.append, bad_cells="missing")
        assert said == ["column 'gap': no number in 3 rows (first: line 5, '?!'), taken as missing"]
        pd.testing.assert_frame_equal(found, predict_rows(ckpt, missing, 0.8))
    _, done = run(ckpt, bad, tmp_path, chunk_rows=7, bad_cells="missing")
    assert done.warnings == tuple(said)


def test_a_bad_cell_where_training_had_no_gap_leaves_no_interval(blanks: tuple[Path, pd.DataFrame]) -> None:
    ckpt, rows = blanks
    said: list[str] = []
    found = predict_rows(ckpt, rows.assign(x=["ten", *rows.x[1:]]), 0.8, said.append, bad_cells="missing")
    assert [text.split(" in ")[0] for text in said] == [
        "column 'x': no number",
        "column 'x': missing",
        "lower and upper are empty",
    ]
    assert found.lower.isna().tolist() == [True] + [False] * 199


def test_another_word_for_bad_cells_is_refused(blanks: tuple[Path, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="bad_cells must be refuse or missing, got bad_cells='drop'"):
        predict_rows(*blanks, bad_cells="drop")  # type: ignore[arg-type]


def test_a_category_among_many_is_no_surprise_and_a_gap_there_is(tmp_path: Path) -> None:
    """Many categories have one number, and a new one has that of others."""
    rng = np.random.default_rng(7)
    columns = {"name": rng.choice(list("abcdefghij"), 120), "x": rng.normal(size=120)}
    frame = pd.DataFrame({**columns, "price": np.exp(rng.normal(size=120))})
    frame.to_csv(tmp_path / "many.csv", index=False)
    settings = DataSettings(csv=str(tmp_path / "many.csv"), target="price", max_categories=3)
    save(make_ensemble(read_table(settings), settings=settings), tmp_path / "best.ckpt")
    said: list[str] = []
    found = predict_rows(tmp_path / "best.ckpt", pd.DataFrame({"name": ["a", "new", None], "x": 0.5}), 0.8, said.append)
    assert found.lower.isna().tolist() == [False, False, True]
    assert said[0] == "column 'name': missing in 1 row (first: line 4), never in training"


def test_from_python_they_are_warnings_of_a_class_of_their_own(blanks: tuple[Path, pd.DataFrame]) -> None:
    ckpt, rows = blanks
    with pytest.warns(PredictionWarning, match=r"column 'x': missing in 200 rows \(first: line 2\), never in training"):
        found = predict_rows(ckpt, rows.assign(x=np.nan))
    assert len(found) == 200


def test_the_mean_is_the_median_smeared_by_the_errors_out_of_fold(
    ckpt: Path, ensemble: Ensemble, rows: pd.DataFrame, tmp_path: Path
) -> None:
    """Duan 1983: the mean over errors e of exp(mu + e)."""
    medians, _ = run(ckpt, rows, tmp_path, interval=0.8)
    means, _ = run(ckpt, rows, tmp_path, interval=0.8, mean=True, overwrite=True)
    errors = np.concatenate([part.residuals.numpy() for part in ensemble.residuals])
    expected = [np.mean(np.exp(np.log(median) + errors)) for median in medians.prediction]
    np.testing.assert_allclose(means.prediction, expected, rtol=1e-12)
    pd.testing.assert_frame_equal(means[["Id", "lower", "upper"]], medians[["Id", "lower", "upper"]])


def test_the_mean_of_a_plain_target_is_its_prediction(small_csv: str, tmp_path: Path) -> None:
    settings = DataSettings(csv=small_csv, target="price", target_transform="none")
    save(make_ensemble(read_table(settings), settings=settings), tmp_path / "best.ckpt")
    rows = pd.read_csv(small_csv).drop(columns="price")
    pd.testing.assert_frame_equal(
        predict_rows(tmp_path / "best.ckpt", rows, mean=True), predict_rows(tmp_path / "best.ckpt", rows)
    )


def test_no_mean_without_errors_out_of_fold(ensemble: Ensemble, rows: pd.DataFrame, tmp_path: Path) -> None:
    save(replace(ensemble, residuals=()), tmp_path / "best.ckpt")
    with pytest.raises(InputError, match="no out-of-fold errors to make means from; predict without --mean"):
        predict_rows(tmp_path / "best.ckpt", rows, mean=True)


def test_the_target_changes_nothing(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    with_target, _ = run(ckpt, rows, tmp_path)
    nonsense, _ = run(ckpt, rows.assign(SalePrice="?"), tmp_path, overwrite=True)
    without, _ = run(ckpt, rows.drop(columns="SalePrice"), tmp_path, overwrite=True)
    pd.testing.assert_frame_equal(with_target, nonsense)
    pd.testing.assert_frame_equal(with_target, without)


@pytest.mark.parametrize("chunk_rows", [1, 7, N_ROWS])
def test_chunks_change_nothing(ckpt: Path, rows: pd.DataFrame, tmp_path: Path, chunk_rows: int) -> None:
    rows = rows.iloc[: 12 * chunk_rows]
    whole, _ = run(ckpt, rows, tmp_path, interval=0.8)
    steps: list[tuple[int, int]] = []

    def note(n_rows: int, n_about: int) -> None:
        steps.append((n_rows, n_about))

    chunked, _ = run(ckpt, rows, tmp_path, interval=0.8, chunk_rows=chunk_rows, progress=note, overwrite=True)
    pd.testing.assert_frame_equal(whole, chunked, rtol=1e-6)
    ends = [min(end, len(rows)) for end in range(chunk_rows, len(rows) + chunk_rows, chunk_rows)]
    assert steps == [(end, len(rows)) for end in ends]


def test_interval_adds_its_ends_in_the_unit_of_the_target(
    ckpt: Path, ensemble: Ensemble, rows: pd.DataFrame, tmp_path: Path
) -> None:
    out, _ = run(ckpt, rows, tmp_path, interval=0.9)
    assert list(out.columns) == ["Id", "prediction", "lower", "upper"]
    features = houses().features[:N_ROWS]
    lower, upper = prediction_interval(ensemble, ensemble.predict_by_fold(features), 0.9)
    np.testing.assert_array_equal(out[["lower", "upper"]].to_numpy(), np.stack([lower, upper], axis=1))
    assert (out["lower"] < out["prediction"]).all()
    assert (out["prediction"] < out["upper"]).all()


def test_columns_may_be_shuffled(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    straight, _ = run(ckpt, rows, tmp_path)
    shuffled, done = run(ckpt, rows[sorted(rows.columns)], tmp_path, overwrite=True)
    pd.testing.assert_frame_equal(straight, shuffled)
    assert done.warnings == ()


def test_what_it_can_go_on_with_is_warned_of_once(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["Neighborhood"] = ["Atlantis", "Mordor"] * (N_ROWS // 2)
    rows["LotArea"] = [f"{int(area):,}" for area in rows["LotArea"]]
    rows = rows.drop(columns=["GrLivArea", "Street"]).assign(colour="red")
    said: list[str] = []
    out, done = run(ckpt, rows, tmp_path, chunk_rows=7, warn=said.append)
    assert done.warnings == tuple(said)
    assert out["prediction"].gt(0).all()
    for part in (
        "lacks columns 'Street', 'GrLivArea': taken as missing",
        "columns unknown to the model, ignored: 'colour'",
        "column 'LotArea' holds numbers written as text",
        "column 'Neighborhood' has values that the model never saw in training in 60 rows (first: line 2), taken as "
        "none of its categories: 'Atlantis', 'Mordor'",
        "column 'Street': missing in 60 rows (first: line 2), never in training",
        "column 'GrLivArea': missing in 60 rows (first: line 2), never in training",
    ):
        assert sum(part in text for text in said) == 1, part
    assert len(said) == 6


def test_a_category_that_one_fold_saw_is_no_surprise(ckpt: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    rows = pd.read_csv(HOUSES, dtype=str, keep_default_na=False)
    texts = {name: set(cells.dropna()) for name, cells in houses().features.items()}
    # (column, category) pairs that the training rows of a fold did not hold
    rare = [
        {(rule.name, text) for rule in p.rules if rule.known is not None for text in texts[rule.name] - {*rule.known}}
        for p in ensemble.preprocessors
    ]
    assert any(rare)
    _, done = run(ckpt, rows, tmp_path)
    known_to_none = set.intersection(*rare)
    assert len(done.warnings) == len({name for name, _ in known_to_none})


def test_numbers_as_text_are_the_numbers(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    straight, _ = run(ckpt, rows, tmp_path)
    rows["LotArea"] = [f"{int(area):,}" for area in rows["LotArea"]]
    again, done = run(ckpt, rows, tmp_path, overwrite=True)
    pd.testing.assert_frame_equal(straight, again)
    assert len(done.warnings) == 1


def test_without_the_id_column_rows_keep_their_order(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    with_id, _ = run(ckpt, rows, tmp_path)
    out, done = run(ckpt, rows.drop(columns="Id"), tmp_path, overwrite=True)
    assert list(out.columns) == ["prediction"]
    np.testing.assert_array_equal(out["prediction"], with_id["prediction"])
    assert "lacks the id column 'Id'" in done.warnings[0]


def test_a_model_without_id_writes_predictions_only(small_csv: str, tmp_path: Path) -> None:
    table = read_table(DataSettings(csv=small_csv, target="price"))
    save(make_ensemble(table), tmp_path / "best.ckpt")
    out, done = run(tmp_path / "best.ckpt", pd.read_csv(small_csv), tmp_path)
    assert (list(out.columns), done) == (["prediction"], Prediction(120, ()))


def test_an_id_called_prediction_gives_way(small_csv: str, tmp_path: Path) -> None:
    frame = pd.read_csv(small_csv)
    frame.insert(0, "prediction", [f"row {i}" for i in range(len(frame))])
    frame.to_csv(small_csv, index=False)
    table = read_table(DataSettings(csv=small_csv, target="price", id="prediction"))
    save(make_ensemble(table), tmp_path / "best.ckpt")
    out, done = run(tmp_path / "best.ckpt", frame, tmp_path)
    assert list(out.columns) == ["id", "prediction"]
    assert "is called 'id' in the output" in done.warnings[0]


def test_warnings_go_to_stderr(
    ckpt: Path, rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.drop(columns="Street").to_csv(tmp_path / "in.csv", index=False)
    predict_file(ckpt, tmp_path / "in.csv", tmp_path / "out.csv")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("warning: ")


ODD_IDS = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "＝1", " =1", "-5", "+5", "-1.5e3", "a=b", "", 'say "hi"', "a,b"]


def test_ids_start_no_formula_and_are_otherwise_untouched(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["Id"] = (ODD_IDS * N_ROWS)[:N_ROWS]
    run(ckpt, rows, tmp_path)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        written = [row["Id"] for row in csv.DictReader(file)][: len(ODD_IDS)]
    # the reader strips blanks before a cell
    assert [text.lstrip("'") for text in written] == [text.lstrip(" ") for text in ODD_IDS]
    assert [text.startswith("'") for text in written] == [True] * 7 + [False] * 7


@given(st.text())
def test_no_text_starts_a_formula(text: str) -> None:
    written = harmless(text)
    assert written.removeprefix("'") == text.removeprefix("'")
    if written.lstrip()[:1] in ("=", "+", "-", "@"):
        float(written)


def hurt_number(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[40, "LotArea"] = "big"
    return rows


def hurt_infinite(rows: pd.DataFrame) -> pd.DataFrame:
    rows.loc[40, "LotArea"] = "inf"
    return rows


def no_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:0]


def no_features(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["Id", "SalePrice"]]


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        (hurt_number, r"in\.csv, line 42, column 'LotArea': 'big' is not a number; correct the cell"),
        (hurt_infinite, r"in\.csv, line 42, column 'LotArea': 'inf' is infinite"),
        (no_rows, r"in\.csv has a header but no data row"),
        (no_features, r"in\.csv has none of the 79 feature columns of the model"),
    ],
)
def test_what_it_cannot_go_on_with_is_refused_and_nothing_is_left(
    ckpt: Path, rows: pd.DataFrame, tmp_path: Path, hurt: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(ckpt, hurt(rows), tmp_path, chunk_rows=7)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_refused_run_leaves_the_old_output_alone(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    run(ckpt, rows, tmp_path)
    before = (tmp_path / "out.csv").read_bytes()
    with pytest.raises(InputError, match="exists; choose another --output, or replace it with --overwrite"):
        run(ckpt, rows, tmp_path)
    with pytest.raises(InputError, match="is not a number"):
        run(ckpt, hurt_number(rows), tmp_path, overwrite=True)
    assert (tmp_path / "out.csv").read_bytes() == before


def test_an_empty_output_file_holds_nothing_to_lose(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "out.csv").touch()
    out, _ = run(ckpt, rows, tmp_path)
    assert len(out) == N_ROWS


def refused(ckpt: Path, rows: pd.DataFrame, tmp_path: Path, output: Path, message: str) -> None:
    rows.to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(InputError, match=message):
        predict_file(ckpt, tmp_path / "in.csv", output, overwrite=True)


def test_input_and_checkpoint_are_never_written_over(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    refused(ckpt, rows, tmp_path, tmp_path / "in.csv", "is both read and written")
    refused(ckpt, rows, tmp_path, ckpt, "is both read and written")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    refused(ckpt, rows, tmp_path, tmp_path / "link.csv", "is both read and written")
    os.link(tmp_path / "in.csv", tmp_path / "hard.csv")
    refused(ckpt, rows, tmp_path, tmp_path / "hard.csv", "is both read and written")


def test_outputs_that_cannot_be_are_refused(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    refused(ckpt, rows, tmp_path, tmp_path, "is a directory; name a file to write")
    refused(ckpt, rows, tmp_path, tmp_path / "none" / "out.csv", "is not a directory; make it first")
    refused(ckpt, rows, tmp_path, Path("/dev/null"), "is not a regular file")


def test_a_link_is_followed(ckpt: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "real.csv").touch()
    (tmp_path / "out.csv").symlink_to(tmp_path / "real.csv")
    run(ckpt, rows, tmp_path)
    assert (tmp_path / "out.csv").is_symlink()
    assert len(pd.read_csv(tmp_path / "real.csv")) == N_ROWS


def test_a_full_disk_is_one_sentence(
    ckpt: Path, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("actlab.run_files.os.fsync", full)
    with pytest.raises(InputError, match=r"out\.csv cannot be written: No space left on device"):
        run(ckpt, rows, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_an_interval_out_of_reach_is_refused_before_any_row_is_read(
    ckpt: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    for level, message in (
        (1.5, "between 0 and 1"),
        (0.9999, "needs at least 9999 rows, the model was trained on 1460"),
    ):
        with pytest.raises(InputError, match=message):
            run(ckpt, rows, tmp_path, interval=level)
    assert not (tmp_path / "out.csv").exists()


ODD_TEXTS = ["0007", "NA", "=A1", "1e3", "nan", "", "007.0", "row 1"]


@pytest.fixture
def odd(small_csv: str, tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A model whose rows have awkward ids, numbers, categories, grades and days, and such rows."""
    price = pd.read_csv(small_csv).price
    frame = pd.DataFrame(
        {
            "name": [f"n{i}" for i in range(len(price))],
            "area": price.rank(),
            "zone": ["3", "20", "Old Town", "NA"] * (len(price) // 4),
            "grade": ["NA", "TA", "Gd"] * (len(price) // 3),
            "sold": pd.date_range("2020-01-01", periods=len(price)).astype(str),
            "price": price,
        }
    )
    frame.to_csv(tmp_path / "odd.csv", index=False)
    settings = DataSettings(
        csv=str(tmp_path / "odd.csv"),
        target="price",
        id="name",
        ordinal={"grade": ["NA", "TA", "Gd"]},
        na_values=["NA", "-999"],
    )
    save(make_ensemble(read_table(settings)), tmp_path / "best.ckpt")
    n_rows = len(ODD_TEXTS)
    rows = {
        "name": ODD_TEXTS,
        "area": [1.5, None, -999, 3e2, 5, 60, 7, 8.25],
        "zone": [3, 20.0, "Old Town", None, " 3.0", "NA", "Mordor", 20],
        "grade": ["TA", None, "NA", "Gd", "", "TA", "TA", "Gd"],
        "sold": pd.DatetimeIndex([pd.Timestamp(2020, 3, day, 12 * (day % 2)) for day in range(1, n_rows + 1)]),
    }
    return tmp_path / "best.ckpt", pd.DataFrame(rows, index=[5] * n_rows)


def test_a_frame_and_its_csv_are_predicted_alike_and_ids_stay_as_they_were(
    odd: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    ckpt, rows = odd
    rows.astype({"area": object}).replace({"area": {-999: "-999"}}).to_csv(
        tmp_path / "rows.csv", index=False, na_rep="NA"
    )
    said: list[list[str]] = [[], []]
    from_frame = predict_rows(ckpt, rows, 0.5, said[0].append)
    from_file = predict_rows(ckpt, tmp_path / "rows.csv", 0.5, said[1].append)
    assert list(from_frame.columns) == ["name", "prediction", "lower", "upper"]
    pd.testing.assert_frame_equal(from_frame, from_file)
    assert from_frame.name.tolist() == from_file.name.tolist() == ODD_TEXTS
    assert from_frame.prediction.nunique() == len(rows)
    assert [text.replace("the frame", str(tmp_path / "rows.csv")) for text in said[0]] == said[1]
    assert any("'Mordor'" in text for text in said[0])
    # as in the file that `actlab predict` writes, but for the apostrophe
    predict_file(ckpt, tmp_path / "rows.csv", tmp_path / "out.csv", 0.5, warn=said[0].append)
    ends = {"lower": [""], "upper": [""]}
    written = pd.read_csv(tmp_path / "out.csv", dtype={"name": str}, keep_default_na=False, na_values=ends)
    assert written[list(ends)].isna().sum().tolist() == [5, 5]
    pd.testing.assert_frame_equal(written.replace("'=A1", "=A1"), from_frame, check_dtype=False)


def test_numbers_of_a_frame_are_numbers_however_the_training_file_wrote_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"area": [f"{i},5" for i in range(40)], "price": range(1, 41)})
    frame.to_csv(tmp_path / "comma.csv", index=False, sep=";")
    table = read_table(DataSettings(csv=str(tmp_path / "comma.csv"), target="price"))
    save(make_ensemble(table), tmp_path / "best.ckpt")
    as_texts = predict_rows(tmp_path / "best.ckpt", frame[["area"]], warn=lambda text: None)
    as_numbers = predict_rows(tmp_path / "best.ckpt", pd.DataFrame({"area": np.arange(40) + 0.5}))
    pd.testing.assert_frame_equal(as_texts, as_numbers)


def test_nothing_is_written_for_a_frame(ckpt: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predict_rows(ckpt, rows)
    ensemble = load(ckpt)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a file is opened")

    monkeypatch.setattr("actlab.model.prediction.load", lambda *_: ensemble)
    for name in ("builtins.open", "os.open", "tempfile.mkstemp", "tempfile.mkdtemp"):
        monkeypatch.setattr(name, refuse)
    found = predict_rows(ckpt, rows)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.iloc[:0], "the frame has no row"),
        (lambda rows: rows[["Id"]], "the frame has none of the 79 feature columns"),
        (lambda rows: rows.assign(LotArea="big"), r"the frame, line 2, column 'LotArea': 'big' is not a number"),
        (lambda rows: rows.assign(LotArea=np.inf), r"the frame, line 2, column 'LotArea': 'inf' is infinite"),
        (lambda rows: pd.concat([rows, rows.LotArea], axis=1), "column names must differ, but 'LotArea' stands"),
    ],
)
def test_a_frame_that_cannot_be_predicted_is_refused_in_a_sentence(
    ckpt: Path, rows: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predict_rows(ckpt, change(rows))
