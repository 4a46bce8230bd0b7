"""The model people take home: equal to its members one by one, the same after a save, safe to load."""

import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from actlab.activations import ACTIVATIONS
from actlab.data.columns import FORMER
from actlab.data.target import PLAIN
from actlab.errors import InputError
from actlab.model.ensemble import Ensemble, describe, from_checkpoint, load, save, to_checkpoint
from actlab.model.prediction import predict_file
from actlab.networks.network import Regressor, stack_states
from actlab.settings import DataSettings
from small_ensembles import houses, make_ensemble

ROWS = houses().features.iloc[:200]


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return make_ensemble(houses(), ("relu", "geglu", "prelu"))


@pytest.fixture(scope="module")
def saved(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    save(ensemble, path)
    return path


def one_by_one(ensemble: Ensemble) -> dict[tuple[int, int], list[tuple[float, np.ndarray]]]:
    """(weight, log price) of each member, by fold, each network alone with its own preprocessing."""
    outputs: dict[tuple[int, int], list[tuple[float, np.ndarray]]] = {}
    for one in ensemble.members:
        network = Regressor([one.member], [one.preprocessor.n_features], stack_states([one.state]))
        with torch.no_grad():
            z = network.eval()(torch.from_numpy(one.preprocessor.transform(ROWS)))[0].double().numpy()
        outputs.setdefault(one.fold, []).append((one.weight, z * one.scaler.sd + one.scaler.mean))
    return outputs


def with_weights(ensemble: Ensemble) -> Ensemble:
    return replace(ensemble, members=tuple(replace(one, weight=float(i + 1)) for i, one in enumerate(ensemble.members)))


def test_the_prediction_is_the_weighted_mean_of_the_members_on_the_log_scale(ensemble: Ensemble) -> None:
    weighted = with_weights(ensemble)
    pairs = [pair for fold in one_by_one(weighted).values() for pair in fold]
    expected = np.exp(sum(w * y for w, y in pairs) / sum(w for w, _ in pairs))
    np.testing.assert_allclose(weighted.predict(ROWS), expected, rtol=1e-6)


def test_a_fold_is_predicted_by_its_own_members(ensemble: Ensemble) -> None:
    weighted = with_weights(ensemble)
    by_fold = weighted.predict_by_fold(ROWS)
    assert list(by_fold) == [(0, 0), (0, 1)]
    for fold, pairs in one_by_one(weighted).items():
        expected = sum(w * y for w, y in pairs) / sum(w for w, _ in pairs)
        np.testing.assert_allclose(by_fold[fold].mean, expected, rtol=1e-6)
        np.testing.assert_allclose(by_fold[fold].spread, np.std([y for _, y in pairs], axis=0, ddof=1), rtol=1e-4)


def test_a_plain_target_comes_back_plain() -> None:
    plain = make_ensemble(houses(), settings=DataSettings(target_transform="none"))
    mean = np.mean([y for fold in one_by_one(plain).values() for _, y in fold], axis=0)
    np.testing.assert_allclose(plain.predict(ROWS), mean, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_change_nothing(ensemble: Ensemble, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ROWS.iloc[: 20 * size]
    whole = ensemble.predict(rows)
    pieces = [ensemble.predict(rows.iloc[start : start + size]) for start in range(0, len(rows), size)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-6)
    monkeypatch.setattr("actlab.model.ensemble.BLOCK_ROWS", size)
    np.testing.assert_allclose(ensemble.predict(rows), whole, rtol=1e-6)


def test_no_rows_give_no_predictions(ensemble: Ensemble) -> None:
    assert ensemble.predict(ROWS.iloc[:0]).shape == (0,)


def test_columns_may_come_in_any_order_but_must_be_there(ensemble: Ensemble) -> None:
    np.testing.assert_array_equal(ensemble.predict(ROWS[ROWS.columns[::-1]]), ensemble.predict(ROWS))
    with pytest.raises(InputError, match="lack the column 'LotArea'"):
        ensemble.predict(ROWS.drop(columns="LotArea"))


def test_each_preprocessing_runs_once_a_block(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(ensemble.members[0].preprocessor)
    original, calls = kind.transform, []
    monkeypatch.setattr(kind, "transform", lambda self, rows: calls.append(self) or original(self, rows))
    ensemble.predict(ROWS)
    assert len(calls) == len(ensemble.preprocessors) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"members": ()},
        {"residuals": "shifted"},
        {"residuals": "nan"},
        {"members": "weightless"},
        {"members": "mixed"},
    ],
)
def test_an_ensemble_that_makes_no_sense_cannot_be_made(ensemble: Ensemble, change: dict[str, Any]) -> None:
    first = ensemble.members[0]
    values = {
        "shifted": (replace(ensemble.residuals[0], fold=9),),
        "nan": (replace(ensemble.residuals[0], residuals=torch.tensor([float("nan")])),),
        "weightless": (replace(first, weight=0.0),),
        "mixed": (first, replace(first, scaler=replace(first.scaler, target=PLAIN))),
        (): (),
    }
    with pytest.raises(ValueError, match=r"member|residuals|weights"):
        replace(ensemble, **{key: values[value] for key, value in change.items()})


def test_a_saved_ensemble_predicts_the_same_bits(ensemble: Ensemble, saved: Path) -> None:
    again = load(saved)
    np.testing.assert_array_equal(again.predict(ROWS), ensemble.predict(ROWS))
    assert (again.schema, again.target, again.config) == (ensemble.schema, ensemble.target, ensemble.config)
    assert (again.scores, again.versions) == (ensemble.scores, ensemble.versions)
    assert [one.member for one in again.members] == [one.member for one in ensemble.members]
    for mine, theirs in zip(again.residuals, ensemble.residuals, strict=True):
        assert (mine.repeat, mine.fold) == (theirs.repeat, theirs.fold)
        for name in ("residuals", "means", "spreads"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("name", [row.name for row in ACTIVATIONS])
def test_every_activation_survives_the_file(name: str) -> None:
    ensemble = make_ensemble(houses(), (name,))
    again = from_checkpoint(to_checkpoint(ensemble))
    np.testing.assert_array_equal(again.predict(ROWS), ensemble.predict(ROWS))


def test_members_of_one_split_share_their_preprocessing_in_the_file(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)["actlab"]
    assert (len(content["members"]), len(content["preprocessors"])) == (12, 4)


def test_numbers_of_numpy_do_not_reach_the_file(ensemble: Ensemble, tmp_path: Path) -> None:
    odd = replace(
        ensemble,
        scores={"test_score": np.float64(0.1), "n": np.int64(3), "nan": float("nan")},
        members=tuple(replace(one, val_score=np.float64(0.2)) for one in ensemble.members),
    )
    save(odd, tmp_path / "best.ckpt")
    scores = load(tmp_path / "best.ckpt").scores
    assert type(scores["test_score"]) is float
    assert type(scores["n"]) is int
    assert np.isnan(scores["nan"])


def test_what_is_not_plain_is_refused_before_anything_is_written(ensemble: Ensemble, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="PosixPath"):
        save(replace(ensemble, config={"csv": Path("train.csv")}), tmp_path / "best.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_view_is_saved_without_the_storage_behind_it(ensemble: Ensemble, tmp_path: Path) -> None:
    first = ensemble.members[0]
    bulky = {name: torch.zeros(1000, *value.shape)[7] + value for name, value in first.state.items()}
    views = {name: torch.stack([value] * 1000)[7] for name, value in bulky.items()}
    save(replace(ensemble, members=(replace(first, state=views),), residuals=()), tmp_path / "views.ckpt")
    assert (tmp_path / "views.ckpt").stat().st_size < 200_000


def test_lightning_takes_the_file_as_ckpt_path(ensemble: Ensemble, saved: Path) -> None:
    class Tester(pl.LightningModule):
        ensemble: Ensemble

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.ensemble = from_checkpoint(checkpoint)

        def test_step(self, batch: Tensor, batch_idx: int) -> None:
            self.log("test/first", float(self.ensemble.predict(ROWS.iloc[:1])[0]), batch_size=1)

        def test_dataloader(self) -> list[int]:
            return [0]

    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    with warnings.catch_warnings(action="ignore"):  # Lightning's advice on loaders and GPUs
        (scores,) = pl.Trainer(**quiet).test(Tester(), ckpt_path=str(saved), verbose=False)
    assert scores["test/first"] == pytest.approx(ensemble.predict(ROWS.iloc[:1])[0], rel=1e-6)


# what version 0.1.0 wrote, before a trained network was one class, and what it predicted
FORMAT_2 = Path(__file__).parent / "data" / "format_2"


def test_a_file_of_an_earlier_version_predicts_what_it_predicted(tmp_path: Path) -> None:
    predict_file(FORMAT_2 / "best.ckpt", FORMAT_2 / "rows.csv", tmp_path / "out.csv", 0.8, warn=lambda text: None)
    found, expected = (pd.read_csv(path) for path in (tmp_path / "out.csv", FORMAT_2 / "predictions.csv"))
    # the first row lacks a number that training never lacked, and has no interval any more
    assert found.lower.isna().tolist() == [True] + [False] * (len(found) - 1)
    pd.testing.assert_frame_equal(found.fillna(expected), expected, rtol=1e-6)


def test_the_file_has_the_form_that_it_had_and_what_came_since() -> None:
    def compare(one: object, other: object) -> None:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            assert torch.equal(one, other)
        elif isinstance(one, dict) and isinstance(other, dict):
            assert one.keys() <= other.keys()
            for key, value in one.items():
                compare(value, other[key])
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for pair in zip(one, other, strict=True):
                compare(*pair)
        else:
            assert repr(FORMER.get(str(one), one)) == repr(other)

    written = torch.load(FORMAT_2 / "best.ckpt", weights_only=True)
    compare(written["actlab"], to_checkpoint(load(FORMAT_2 / "best.ckpt"))["actlab"])


# Each makes a file that must not load, from the bytes of a good one; with what the message must say.
def truncated(good: bytes, path: Path) -> None:
    path.write_bytes(good[: len(good) * 2 // 3])


def barely_begun(good: bytes, path: Path) -> None:
    path.write_bytes(good[:2])


def empty(good: bytes, path: Path) -> None:
    path.touch()


def text(good: bytes, path: Path) -> None:
    path.write_text("Id,SalePrice\n1,2\n")


def one_byte_wrong(good: bytes, path: Path) -> None:
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :])


def bare_pickle(good: bytes, path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.with_suffix(".ran"))))


def pickle_inside(good: bytes, path: Path) -> None:
    torch.save({"actlab": Payload(path.with_suffix(".ran"))}, path)


def workbook(good: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


def state_dict_of_another(good: bytes, path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "epoch": 3, "pytorch-lightning_version": "2.6.6"}, path)


def tensor(good: bytes, path: Path) -> None:
    torch.save(torch.zeros(3), path)


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "is cut short; copy it again"),
        (barely_begun, "is not a checkpoint of actlab"),
        (empty, "is not a checkpoint of actlab"),
        (text, "is not a checkpoint of actlab"),
        (one_byte_wrong, "is damaged"),
        (bare_pickle, "is not a checkpoint of actlab"),
        (pickle_inside, "holds Python objects, which could run code"),
        (workbook, "is damaged or not a checkpoint"),
        (state_dict_of_another, "was not written by actlab"),
        (tensor, "was not written by actlab"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_in_a_sentence(
    make: Callable[[bytes, Path], None], message: str, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    make(saved.read_bytes(), path)
    with pytest.raises(InputError, match=message) as raised:
        load(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert not path.with_suffix(".ran").exists()


def test_a_missing_file_and_a_directory_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(InputError, match=r"is a directory; name a checkpoint, .*best\.ckpt"):
        load(saved.parent)


@pytest.mark.parametrize(("number", "words"), [
    (99, r"has format 99, and actlab .* reads format 2; upgrade actlab"),
    (1, r"has format 1 of an earlier actlab, .* reads format 2; start the run's command again with --fresh"),
])  # fmt: skip
def test_another_format_is_refused_with_the_way_out(ensemble: Ensemble, number: int, words: str) -> None:
    checkpoint = to_checkpoint(ensemble)
    checkpoint["actlab"]["format"] = number
    with pytest.raises(InputError, match=words):
        from_checkpoint(checkpoint)


def change_config(content: dict[str, Any]) -> None:
    content["config"]["seed"] = 1


def drop_member_key(content: dict[str, Any]) -> None:
    del content["members"][0]["member"]["hidden"]


def change_shape(content: dict[str, Any]) -> None:
    content["members"][0]["state"]["weight_1"] = torch.zeros(3, 3)


def put_nan(content: dict[str, Any]) -> None:
    content["members"][0]["state"]["bias_0"][0] = float("nan")


def drop_column(content: dict[str, Any]) -> None:
    content["schema"]["columns"].pop()


def lose_members(content: dict[str, Any]) -> None:
    content["members"] = "none"


def lose_preprocessing(content: dict[str, Any]) -> None:
    content["preprocessors"].pop()


@pytest.mark.parametrize(
    "change",
    [change_config, drop_member_key, change_shape, put_nan, drop_column, lose_members, lose_preprocessing],
)
def test_contents_that_do_not_fit_together_are_refused(
    ensemble: Ensemble, change: Callable[[dict[str, Any]], None]
) -> None:
    checkpoint = to_checkpoint(ensemble)
    change(checkpoint["actlab"])
    with pytest.raises(InputError, match=r"x\.ckpt is damaged \(.*\); make it again, or copy it again"):
        from_checkpoint(checkpoint, "x.ckpt")


def test_a_file_cannot_make_actlab_import_a_module(
    ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_code.py").write_text("import torch\nclass Cube(torch.nn.Module):\n    forward = pow\n")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = to_checkpoint(ensemble)
    checkpoint["actlab"]["members"][0]["member"]["activation"] = "foreign_code.Cube"
    with pytest.raises(InputError, match=r"'foreign_code\.Cube', whose module would be imported and run"):
        from_checkpoint(checkpoint)
    assert "foreign_code" not in sys.modules
    from_checkpoint(checkpoint, allow_code=True)
    assert sys.modules.pop("foreign_code")


def test_an_activation_by_class_path_loads_where_its_module_is_loaded() -> None:
    ensemble = make_ensemble(houses(), ("torch.nn.Tanhshrink",))
    again = from_checkpoint(to_checkpoint(ensemble))
    np.testing.assert_array_equal(again.predict(ROWS), ensemble.predict(ROWS))


def test_a_network_trained_in_another_precision_predicts_in_no_less_than_float32(ensemble: Ensemble) -> None:
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.2)):
        members = tuple(
            replace(one, state={name: value.to(dtype) for name, value in one.state.items()}) for one in ensemble.members
        )
        np.testing.assert_allclose(replace(ensemble, members=members).predict(ROWS), ensemble.predict(ROWS), tolerance)


def test_description_names_data_columns_settings_scores_and_versions(ensemble: Ensemble) -> None:
    said = describe(ensemble)
    for part in (
        "SalePrice",
        "LotArea",
        "Neighborhood",
        "train.csv",
        "test_score: 0.125",
        "torch: 2.13.0",
        "relu [8, 5] at 0.001",
    ):
        assert part in said
