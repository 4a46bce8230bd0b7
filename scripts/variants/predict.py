"""Rows for a trained model: hold-out files, cells that training never had, bad cells, and the ONNX graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from actlab.config import Configuration
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.splits import make_splits
from actlab.data.table import frame_rows, read_table
from actlab.data.target import fit_target
from actlab.errors import InputError
from actlab.members import Member
from actlab.model.ensemble import Ensemble, FoldResiduals, save
from actlab.model.prediction import predict_rows
from actlab.networks.network import Regressor
from actlab.networks.trained import TrainedNetwork
from actlab.runs.fit import score
from actlab.settings import DataSettings, ProtocolSettings
from variants import kind

N_TRAINING, N_NEW = 90, 25
KINDS = ("a", "b", "old town", "é")


def rows(generator: np.random.Generator, n: int) -> pd.DataFrame:
    """A plain number, a skewed one, one with gaps, integer codes, categories, and a positive target."""
    return pd.DataFrame(
        {
            "plain": generator.uniform(-5, 5, n).round(2),
            "skewed": np.exp(generator.normal(size=n)).round(3),
            "gaps": np.where(generator.random(n) < 0.3, np.nan, generator.normal(size=n).round(3)),
            "code": generator.choice([101, 205, 412], n),
            "kind": generator.choice(KINDS, n),
            "price": np.exp(generator.normal(size=n)).round(3),
        }
    )


def model(folder: Path, generator: np.random.Generator, **settings: object) -> tuple[Path, Ensemble]:
    """The checkpoint of untrained networks on such rows, one a fold, with errors out of fold."""
    frame = rows(generator, N_TRAINING)
    frame.to_csv(folder / "train.csv", index=False)
    data = DataSettings(csv=str(folder / "train.csv"), target="price", categorical=["code"], **settings)  # type: ignore[arg-type]
    table = read_table(data)
    assert table.target is not None
    members, parts = [], []
    for split, own in make_splits(table.layout, ProtocolSettings(folds=3, inner=1), seed=0).items():
        preprocessor = fit_preprocessor(table.features, table.schema, own.training, data)
        scaler = fit_target(table.target, own.training, data.target_transform)
        member = Member(0, "tanh", 1e-3, split, split.inner, (6,))
        state = Regressor([member], [preprocessor.n_features]).member_state(0)
        members.append(TrainedNetwork(member, state, preprocessor, scaler, 0.1, 0.1))
        errors = torch.from_numpy(generator.normal(size=len(own.test)))
        parts.append(
            FoldResiduals(split.repeat, split.fold, errors, torch.zeros_like(errors), torch.zeros_like(errors))
        )
    config = {"data": {key: value for key, value in vars(data).items() if value != getattr(DataSettings(), key)}}
    ensemble = Ensemble(tuple(members), table.schema, config, tuple(parts), {"test_score": 0.1}, {})
    save(ensemble, folder / "best.ckpt")
    return folder / "best.ckpt", ensemble


@kind("hold-out files", "the error of what predict gives, whatever the file would look like by itself", is_slow=True)
def _(generator: np.random.Generator, folder: Path) -> None:
    transform = str(generator.choice(["log", "none"]))
    ckpt, ensemble = model(folder, generator, target_transform=transform)
    new = rows(generator, N_NEW)
    # a file in which kinds of columns would be found otherwise: one value, no gap, only some categories
    for name in generator.choice(["plain", "skewed", "gaps", "code", "kind"], 2, replace=False):
        new[name] = new[name].dropna().iloc[0]
    new = new[generator.permutation(new.columns)]
    separator = str(generator.choice([",", ";", "\t"]))
    new.to_csv(folder / "new.csv", index=False, sep=separator)
    forward = ensemble.target.forward
    predicted = predict_rows(ckpt, new.drop(columns="price"), warn=lambda text: None).prediction
    expected = np.sqrt(np.mean((forward(new.price) - forward(predicted)) ** 2))
    asked = DataSettings(str(folder / "new.csv"), "price" if generator.random() < 0.5 else None)
    found = score(Configuration(data=asked, ckpt_path=str(ckpt)), "test")
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    other = replace(asked, target_transform="none" if transform == "log" else "log", numeric=["kind"])
    try:
        score(Configuration(data=other, ckpt_path=str(ckpt)), "test")
    except InputError as error:
        assert "is not what the checkpoint was trained with" in str(error)  # noqa: PT017  # it must be said so
    else:
        raise AssertionError("a contradiction is not refused")


def unlike(generator: np.random.Generator) -> tuple[str, object, str]:
    """A column, a cell that training never had there, and what is said of it."""
    name = str(generator.choice(["plain", "skewed", "code", "kind"]))
    if generator.random() < 0.4:
        return name, None, "missing in"
    cells = {
        "plain": float(generator.choice([-1, 1]) * generator.uniform(20, 1e6)),
        "skewed": float(generator.choice([-generator.uniform(0.01, 9), generator.uniform(1e3, 1e9)])),
        "code": int(generator.integers(500, 999)),
        "kind": str(generator.choice(["c", "Old", "A"])),
    }
    return name, cells[name], "outside" if name in ("plain", "skewed") else "never saw"


@kind(
    "cells that training never had",
    "counted and said with the first line; no interval there, the others unchanged",
    is_slow=True,
)
def _(generator: np.random.Generator, folder: Path) -> None:
    ckpt, _ = model(folder, generator)
    new = (
        pd.read_csv(folder / "train.csv").drop(columns="price").sample(N_NEW, random_state=int(generator.integers(99)))
    )
    said: list[str] = []
    before = predict_rows(ckpt, new, 0.8, said.append)
    assert said == []
    assert before.notna().all(axis=None)
    name, cell, words = unlike(generator)
    hit = np.sort(generator.choice(N_NEW, int(generator.integers(1, 9)), replace=False))
    own = new[name].astype(object).to_numpy().copy()
    own[hit] = cell
    changed = new.assign(**{name: own})
    if generator.random() < 0.5:
        changed.to_csv(folder / "new.csv", index=False)
        changed = str(folder / "new.csv")  # type: ignore[assignment]
    after = predict_rows(ckpt, changed, 0.8, said.append)
    n = f"{len(hit)} row{'s' if len(hit) > 1 else ''} (first: line {hit[0] + 2}"
    assert len(said) == 2, said
    assert said[0].startswith(f"column '{name}'"), said
    assert words in said[0], said
    assert n in said[0], said
    assert after.lower.isna().to_numpy().nonzero()[0].tolist() == hit.tolist()
    rest = np.setdiff1d(np.arange(N_NEW), hit)
    pd.testing.assert_frame_equal(after.iloc[rest], before.iloc[rest], rtol=1e-6)


@kind(
    "bad cells in rows to predict",
    "refused with line and column, or as if they were empty, counted and said",
    is_slow=True,
)
def _(generator: np.random.Generator, folder: Path) -> None:
    ckpt, _ = model(folder, generator)
    new = rows(generator, N_NEW).drop(columns="price")
    name, bad = (
        str(generator.choice(["plain", "skewed", "gaps"])),
        str(generator.choice(["x", "1.2.3", "inf", "12a", "#"])),
    )
    hit = np.sort(generator.choice(N_NEW, int(generator.integers(1, 6)), replace=False))
    for path, cell in ((folder / "bad.csv", bad), (folder / "empty.csv", "")):
        own = new[name].astype(object).to_numpy().copy()
        own[hit] = cell
        new.assign(**{name: own}).to_csv(path, index=False)
    try:
        predict_rows(ckpt, folder / "bad.csv")
    except InputError as error:
        assert f"line {hit[0] + 2}, column '{name}'" in str(error)  # noqa: PT017  # it must be said so
    else:
        raise AssertionError("a bad cell is not refused")
    said: list[str] = []
    found = predict_rows(ckpt, folder / "bad.csv", 0.8, said.append, bad_cells="missing")
    expected = predict_rows(ckpt, folder / "empty.csv", 0.8, lambda text: None)
    pd.testing.assert_frame_equal(found, expected)
    n = f"{len(hit)} row{'s' if len(hit) > 1 else ''}"
    assert f"column '{name}': no number in {n} (first: line {hit[0] + 2}, '{bad}'), taken as missing" in said


def written(generator: np.random.Generator, text: str) -> str:
    """Another way to write the text of a cell."""
    blanks = ["", " ", "  ", "\t", "\u00a0", "\u3000"]
    before, after = generator.choice(blanks, 2)
    if text.isdigit():
        text = str(generator.choice([text, f"{text}.0", f"{text}.00", f"+{text}", f"{text}."]))
    return f"{before}{text}{after}"


@kind(
    "cells given to the ONNX graph",
    "what predict gives for the same texts and numbers, however they are written",
    is_slow=True,
)
def _(generator: np.random.Generator, folder: Path) -> None:
    import onnxruntime

    from actlab.model.onnx_export import to_onnx

    _, ensemble = model(folder, generator, na_values=["", "NA", "-999"])
    new = rows(generator, N_NEW).drop(columns="price")
    new["plain"] = np.where(generator.random(N_NEW) < 0.2, -999.0, new.plain)
    for name in ("code", "kind"):
        texts = [str(generator.choice([cell, cell, cell, "NA", "", "none such"])) for cell in new[name]]
        new[name] = [written(generator, text) for text in texts]
    graph = to_onnx(ensemble).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    given = {
        one.name: new[[one.name]].to_numpy(float if "double" in one.type else object) for one in session.get_inputs()
    }
    (found,) = session.run(None, given)
    expected = ensemble.predict(frame_rows(new, ensemble.schema).features)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
