"""The ONNX graph gives what `predict` gives, from the same raw columns."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from actlab import activations
from actlab.activations import ACTIVATIONS, Activation
from actlab.data.columns import Column
from actlab.data.layout import RowLayout
from actlab.data.preprocessing import CategoryRule, DateRule, TargetRule
from actlab.data.table import Table, frame_rows, read_rows, read_table
from actlab.errors import InputError
from actlab.model.ensemble import Ensemble, save
from actlab.settings import DataSettings, ProtocolSettings
from small_ensembles import CONCRETE, HOUSES, houses, make_ensemble

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from actlab.model.onnx_export import OPSET, Graph, activate, export_file, to_onnx  # noqa: E402

QUALITY = ["NA", "Po", "Fa", "TA", "Gd", "Ex"]


def session(model: Any) -> Any:
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def feeds(ensemble: Ensemble, features: pd.DataFrame) -> dict[str, np.ndarray]:
    """Each column by the name of its input, (N, 1): float64 with NaN, or text with "" for missing."""
    texts = features.select_dtypes(exclude="number").fillna("")
    return {
        "prediction (column)" if column.name == "prediction" else column.name: features[[column.name]].to_numpy(
            dtype=np.float64
        )
        if column.kind == "numeric"
        else texts[[column.name]].to_numpy(dtype=object)
        for column in ensemble.schema.columns
    }


def run(ensemble: Ensemble, features: pd.DataFrame) -> np.ndarray:
    (predicted,) = session(to_onnx(ensemble)).run(None, feeds(ensemble, features))
    return np.asarray(predicted)


def agree(ensemble: Ensemble, features: pd.DataFrame) -> None:
    predicted = run(ensemble, features)
    assert predicted.dtype == np.float64
    np.testing.assert_allclose(predicted, ensemble.predict(features), rtol=1e-5)


def test_all_house_prices_are_predicted_as_by_predict() -> None:
    agree(
        make_ensemble(houses(), ("relu", "silu"), protocol=ProtocolSettings(), hidden=(144, 72, 18)), houses().features
    )


@pytest.mark.parametrize("name", [row.name for row in ACTIVATIONS])
def test_a_network_of_every_activation_agrees(name: str) -> None:
    agree(make_ensemble(houses(), (name,)), houses().features[:1000])


@pytest.mark.parametrize("row", ACTIVATIONS, ids=lambda row: row.name)
def test_the_form_of_every_activation_is_torchs(row: Activation) -> None:
    equals_torch(row.name)


def equals_torch(name: str) -> None:
    """The form of an activation alone; what it learns is -1.7 times its first value."""
    z = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([-1e3, -1e-6, 0.0, 1e-6, 1e3])])
    z = torch.stack([z, z.flip(0)], dim=1)  # (605, 2): two units, or the two pre-activations of one
    module = activations.get(name).build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-1.7)
        expected = module(z).numpy()
    learned = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    graph = Graph()
    # model() is for raw columns; here the input is the pre-activations
    activate(graph, name, "z", learned, 2)
    np.testing.assert_allclose(run_graph(graph, z.numpy()), expected, rtol=1e-5, atol=1e-6)


def run_graph(graph: Graph, z: np.ndarray) -> np.ndarray:
    helper, float_type = onnx.helper, onnx.TensorProto.FLOAT
    inside = onnx.helper.make_graph(
        graph._nodes,
        "activation",
        [helper.make_tensor_value_info("z", float_type, ["N", 2])],
        [helper.make_tensor_value_info(graph._nodes[-1].output[0], float_type, None)],
        graph._constants,
    )
    model = helper.make_model(inside, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return np.asarray(session(model).run(None, {"z": z})[0])


@pytest.mark.parametrize(
    "settings",
    [
        DataSettings(scaling="standard", smooth_clip=False, log_skewed=False),
        DataSettings(scaling="minmax"),
        DataSettings(target_transform="none"),
        DataSettings(target_transform="log1p"),
        DataSettings(ordinal={"ExterQual": QUALITY, "BsmtQual": QUALITY}, categorical=["MSSubClass", "MoSold"]),
    ],
    ids=["standard", "minmax", "plain target", "log of 1 + target", "ordinal and integer codes"],
)
def test_every_way_to_preprocess_agrees(settings: DataSettings) -> None:
    table = read_table(replace(settings, csv=str(HOUSES), target="SalePrice"))
    agree(make_ensemble(table, settings=settings), table.features)


def test_small_counts_agree_and_are_never_negative() -> None:
    counts = np.random.default_rng(0).poisson(0.05, houses().n_rows).astype(float)
    ensemble = make_ensemble(replace(houses(), target=counts), settings=DataSettings(target_transform="log1p"))
    # so low that each network alone would say less than nothing of many rows
    lower = np.quantile(np.log1p(ensemble.predict(houses().features)), 0.8)
    low = [replace(one, scaler=replace(one.scaler, mean=one.scaler.mean - lower)) for one in ensemble.members]
    ensemble = replace(ensemble, members=tuple(low), residuals=())
    predicted = ensemble.predict(houses().features)
    assert predicted.min() == 0
    assert 0 < np.mean(predicted == 0) < 1
    # next to zero, mean and network cancel: what float32 rounds of a number of the size of 1 is left
    np.testing.assert_allclose(run(ensemble, houses().features), predicted, rtol=1e-5, atol=1e-7)


def strange(features: pd.DataFrame) -> pd.DataFrame:
    """Rows as training never saw them: gaps, unknown categories, numbers far out and tiny."""
    rng = np.random.default_rng(0)
    rows = features[:300].copy()
    for name in rows.columns:
        hit = rng.random(len(rows)) < 0.3
        if rows[name].dtype == np.float64:
            far = rng.choice([np.nan, -1e300, 1e300, -5.0, 1e-18, 0.0], size=len(rows))
            rows[name] = np.where(hit, far, rows[name])
        else:
            odd = rng.choice(np.array([None, "never seen", "Ω", "3.0"], dtype=object), size=len(rows))
            rows[name] = np.where(hit, odd, rows[name])
    return rows


def test_rows_unlike_any_before_agree() -> None:
    ensemble = make_ensemble(houses(), protocol=ProtocolSettings(folds=3))
    rows = strange(houses().features)
    agree(ensemble, rows.mask(rows == "3.0", "never seen"))


def only(table: Table, kind: str) -> Table:
    columns = tuple(column for column in table.schema.columns if column.kind == kind)
    names = [column.name for column in columns]
    return replace(table, features=table.features[names], schema=replace(table.schema, columns=columns))


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_tables_of_one_kind_agree(kind: str) -> None:
    table = only(houses(), kind)
    agree(make_ensemble(table), table.features)


def test_concrete_agrees() -> None:
    table = read_table(DataSettings(csv=str(CONCRETE), target="compressive_strength"))
    agree(make_ensemble(table), table.features)


def test_weights_of_members_count() -> None:
    ensemble = make_ensemble(houses())
    weighted = tuple(replace(one, weight=1.0 + i) for i, one in enumerate(ensemble.members))
    agree(replace(ensemble, members=weighted), houses().features[:50])


def test_texts_of_the_file_mean_what_they_mean_in_the_file(tmp_path: Path) -> None:
    """Missing texts and integer codes written as 3.0 need no preparation."""
    settings = DataSettings(csv=str(HOUSES), target="SalePrice", categorical=["MSSubClass"])
    table = read_table(settings)
    ensemble = make_ensemble(table, settings=settings)
    raw = pd.read_csv(HOUSES, dtype=str, keep_default_na=False, nrows=100)
    raw["MSSubClass"] += ".0"
    raw.to_csv(tmp_path / "in.csv", index=False)
    (read,) = read_rows(str(tmp_path / "in.csv"), table.schema)
    given = {**feeds(ensemble, read.features)}
    for column in ensemble.schema.columns:
        if column.kind == "categorical":
            given[column.name] = raw[[column.name]].to_numpy(dtype=object)
    (predicted,) = session(to_onnx(ensemble)).run(None, given)
    np.testing.assert_allclose(predicted, ensemble.predict(read.features), rtol=1e-5)


def written_table(tmp_path: Path) -> Table:
    """Codes, texts with blanks and signs inside, grades, and a column called as the output."""
    rng, n = np.random.default_rng(0), 90
    columns = {
        "prediction": rng.normal(size=n),
        "id": rng.choice(["x", "y"], n),
        "zone": rng.choice(["1", "2", "30", "1.5"], n),
        "kind": rng.choice(["a", "b  b", "é(|", "NA", "C:\\d", "+1"], n),
        "grade": rng.choice(["low", "NA", "high"], n),
        "price": np.exp(rng.normal(size=n)),
    }
    pd.DataFrame(columns).to_csv(tmp_path / "written.csv", index=False)
    return read_table(
        DataSettings(
            csv=str(tmp_path / "written.csv"),
            target="price",
            categorical=["zone"],
            ordinal={"grade": ["low", "NA", "high"]},
            na_values=["", "NA", "-999"],
        )
    )


def test_a_column_called_prediction_does_not_rename_the_output(tmp_path: Path) -> None:
    table = written_table(tmp_path)
    ensemble = make_ensemble(table)
    agree(ensemble, table.features)
    model = to_onnx(ensemble)
    inside = session(model)
    assert [one.name for one in inside.get_outputs()] == ["prediction"]
    facts = {entry.key: entry.value for entry in model.metadata_props}
    named = json.loads(facts["columns"])
    assert [one.name for one in inside.get_inputs()] == list(named)
    assert list(named.values()) == [column.name for column in table.schema.columns]


CELLS = {
    "prediction": [0.5, -999.0, np.nan, 1e300],
    "id": ["x ", "\ty", " ", "z"],
    "zone": ["1.00", " 30.0 ", "2.", "\u00a01.5\u3000", "1.50", "-1", " -999", "1.0x", ""],
    "kind": ["a\n", " b  b", "b b", "\u2003é(|", " NA ", "C:\\d ", "+1.000", "+1", "A", "a a"],
    "grade": ["low ", " NA", "high", "", "-999", "mid", "NA"],
}


def test_cells_mean_what_they_mean_in_a_frame_however_they_are_written(tmp_path: Path) -> None:
    """All cells of `CELLS` against `predict`: blanks of all kinds, 1.00, missing texts and numbers, unknown ones."""
    table = written_table(tmp_path)
    ensemble, rng = make_ensemble(table), np.random.default_rng(1)
    rows = pd.DataFrame({name: [cells[i] for i in rng.integers(0, len(cells), 300)] for name, cells in CELLS.items()})
    rows.loc[: len(CELLS["kind"]) - 1, "kind"] = CELLS["kind"]
    expected = ensemble.predict(frame_rows(rows, table.schema).features)
    np.testing.assert_allclose(run(ensemble, rows), expected, rtol=1e-5)
    assert len(set(expected)) > 150


def test_parts_of_dates_and_mean_targets_agree(tmp_path: Path) -> None:
    """Before 1970 too, with gaps, and with categories that are inputs of their own for some members only."""
    rng, n = np.random.default_rng(0), 300
    columns = {
        "when": pd.date_range("2020-01-01", periods=n, freq="31h").astype(str),
        "day": np.where(rng.random(n) < 0.1, "", pd.date_range("1965-01-01", periods=n, freq="17D").astype(str)),
        "many": rng.choice([f"c{i}" for i in range(160)], n),
        "some": rng.choice([f"d{i}" for i in range(20)], n, p=[0.05] * 19 + [0.05]),
        "few": rng.choice(["a", "b"], n),
        "price": np.exp(rng.normal(size=n)),
    }
    pd.DataFrame(columns).to_csv(tmp_path / "dates.csv", index=False)
    settings = DataSettings(csv=str(tmp_path / "dates.csv"), target="price", max_categories=19)
    table = read_table(settings)
    ensemble = make_ensemble(table, settings=settings)
    kinds = {type(rule) for preprocessor in ensemble.preprocessors for rule in preprocessor.rules}
    assert {DateRule, TargetRule, CategoryRule} <= kinds
    rows = table.features.copy()
    rows.loc[5, "when"], rows.loc[7, "many"], rows.loc[8, "many"], rows.loc[9, "some"] = np.nan, None, "none such", "?"
    agree(ensemble, rows)


def test_many_categories_of_any_spelling_are_found_by_patterns(tmp_path: Path) -> None:
    """More than one pattern holds, and numbers of up to ten bits."""
    names = [f"category number {i} (of many)" for i in range(600)]
    table = replace(only(houses(), "categorical"), features=pd.DataFrame({"name": names}))
    columns = (Column("name", "categorical"),)
    table = replace(table, schema=replace(table.schema, columns=columns), target=np.exp(np.arange(600) / 100))
    table = replace(table, layout=RowLayout(600))
    ensemble = make_ensemble(table, settings=DataSettings(max_categories=600))
    padded = table.features.assign(name=[f"  {name}\u00a0" for name in names])
    np.testing.assert_allclose(run(ensemble, padded), ensemble.predict(table.features), rtol=1e-5)


def test_the_graph_says_what_it_is() -> None:
    ensemble = make_ensemble(houses())
    model = to_onnx(ensemble)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert (facts["target"], facts["id"], facts["metric"]) == ("SalePrice", "Id", "log_rmse")
    assert "NA" in json.loads(facts["missing"])
    inside = session(model)
    assert [one.name for one in inside.get_inputs()] == [column.name for column in ensemble.schema.columns]
    assert {one.type for one in inside.get_inputs()} == {"tensor(double)", "tensor(string)"}
    assert [one.name for one in inside.get_outputs()] == ["prediction"]


def test_the_file_of_a_checkpoint(tmp_path: Path) -> None:
    ensemble = make_ensemble(houses())
    save(ensemble, tmp_path / "best.ckpt")
    export_file(tmp_path / "best.ckpt", tmp_path / "model.onnx")
    inside = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    features = houses().features[:20]
    (predicted,) = inside.run(None, feeds(ensemble, features))
    np.testing.assert_allclose(predicted, ensemble.predict(features), rtol=1e-5)
    with pytest.raises(InputError, match="exists; choose another --output"):
        export_file(tmp_path / "best.ckpt", tmp_path / "model.onnx")
    with pytest.raises(InputError, match="both read and written"):
        export_file(tmp_path / "best.ckpt", tmp_path / "best.ckpt", overwrite=True)


class Bump(nn.Module):
    """z exp(-z^2 / 2)"""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z * (-z.square() / 2).exp()


class Wave(nn.Module):
    """a sin(b u) v, with a learned pair and two pre-activations."""

    width_factor = 2

    def __init__(self) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.tensor(0.9))
        self.frequency = nn.Parameter(torch.tensor(-0.1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        first, second = z.chunk(2, dim=-1)
        return self.height * torch.sin(self.frequency * first) * second


class Branchy(nn.Module):
    """What no graph can say."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z if float(z.sum()) > 0 else -z


OWN = (f"{__name__}.Bump", f"{__name__}.Wave", "torch.nn.Tanhshrink", "torch.nn.SiLU")


@pytest.mark.parametrize("name", OWN)
def test_what_has_no_form_is_written_by_torchs_exporter(name: str) -> None:
    equals_torch(name)


def test_networks_of_classes_of_ones_own_agree() -> None:
    agree(make_ensemble(houses(), ("relu", *OWN[:2])), houses().features[:1000])


def test_a_record_without_a_form_is_exported_as_a_class_is() -> None:
    without = replace(activations.get("snake"), onnx=None)
    with mock.patch.dict(activations.BY_NAME, {"snake": without}):
        equals_torch("snake")


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    save(make_ensemble(houses(), (f"{__name__}.Branchy",)), tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=r"Branchy' cannot be exported: .*torch\.onnx cannot .*\(.+\)"):
        export_file(tmp_path / "best.ckpt", tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize(("package", "activation"), [("onnx", "relu"), ("onnxscript", "torch.nn.Tanhshrink")])
def test_without_the_extra_the_way_to_install_it_is_said(
    monkeypatch: pytest.MonkeyPatch, package: str, activation: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'actlab\[onnx\]'"):
        to_onnx(make_ensemble(houses(), (activation,)))
