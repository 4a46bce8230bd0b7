"""Targets with zeros, targets in any unit, and rows that count differently."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from actlab.data.datamodule import prepare
from actlab.data.layout import RowLayout
from actlab.data.splits import SplitRows
from actlab.data.table import read_table
from actlab.errors import InputError
from actlab.members import Split
from actlab.runs.references import reference_predictions
from actlab.settings import DataSettings
from variants import kind


def _written(folder: Path, **columns: object) -> str:
    path = folder / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


def _refusal(settings: DataSettings) -> str:
    try:
        read_table(settings)
    except InputError as error:
        return str(error)
    raise AssertionError(f"not refused: {settings}")


def _parts(n_rows: int) -> SplitRows:
    rows = np.arange(n_rows)
    return SplitRows(rows[rows % 5 < 3], rows[rows % 5 == 3], rows[rows % 5 == 4])


@kind(
    "counts with zeros as a target", "refused with log1p named; under it ln(1 + y), standardised, never negative again"
)
def _(generator: np.random.Generator, folder: Path) -> None:
    n_rows = int(generator.integers(20, 60))
    rate = np.exp(generator.normal(generator.uniform(-1, 6), 1, n_rows))
    y = generator.poisson(rate).astype(float)
    y[:2], y[2] = 0, y.max() + 1
    # rates and shares of a count are no whole numbers
    y *= generator.choice([1.0, 0.25, 0.1, 1e-3, 12.0])
    path = _written(folder, x=generator.normal(size=n_rows), y=y)
    text = _refusal(DataSettings(path, "y"))
    assert "line 2, 3" in text or "lines 2, 3" in text, text
    assert "--data.target_transform log1p" in text
    settings = DataSettings(path, "y", target_transform="log1p")
    data = prepare(read_table(settings), _parts(n_rows), settings)
    known = np.log1p(y[data.rows.training])
    np.testing.assert_allclose(data.targets.numpy(), (np.log1p(y) - known.mean()) / known.std(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(data.scaler.inverse(data.targets.numpy()), y, rtol=1e-9, atol=1e-12)
    assert (data.scaler.inverse(generator.normal(-3, 5, 100)) >= 0).all()
    y[int(generator.integers(n_rows))] = -0.5
    below = _refusal(DataSettings(_written(folder, x=rate, y=y), "y", target_transform="log1p"))
    assert f"line {int(np.argmin(y)) + 2};" in below, below


@kind("a plain target in another unit", "a power of two: the same bits; a power of ten or an offset: equal to 1e-6")
def _(generator: np.random.Generator, folder: Path) -> None:
    n_rows = int(generator.integers(20, 60))
    x, y = generator.normal(size=n_rows), generator.normal(generator.uniform(-5, 5), generator.uniform(0.1, 10), n_rows)

    def scaled(values: np.ndarray) -> tuple[np.ndarray, float]:
        path = folder / "table.csv"
        # every digit, as Python writes a number
        path.write_text("x,y\n" + "".join(f"{a!r},{b!r}\n" for a, b in zip(x.tolist(), values.tolist(), strict=True)))
        settings = DataSettings(str(path), "y", target_transform="none")
        data = prepare(read_table(settings), _parts(n_rows), settings)
        return data.targets.numpy(), data.scaler.sd

    wanted, sd = scaled(y)
    power = int(generator.integers(-400, 400))
    found, other = scaled(y * 2.0**power)
    assert found.tobytes() == wanted.tobytes()
    assert other == sd * 2.0**power
    for values in (y * 10.0 ** int(generator.integers(-140, 140)), y + sd * 10.0 ** generator.uniform(0, 8)):
        np.testing.assert_allclose(scaled(values)[0], wanted, rtol=1e-6, atol=1e-6)


def _weighted(generator: np.random.Generator, n_rows: int) -> tuple[np.ndarray, list[str]]:
    """Weights and the texts that a file has of them; some are 0, not all are equal."""
    weights = generator.choice([0.0, 0.25, 1, 2, 3.5, 1200], n_rows) * generator.choice([1.0, 1e-6, 1e6])
    weights[:3] = 0, 1, 2
    style = generator.choice(["{!r}", "{:.3e}", "{:015.6f}", " {!r} "])
    if style == "{:015.6f}":
        weights = weights.round(6)
    return weights, [style.format(value) for value in weights.tolist()]


@kind(
    "a column of weights", "no feature; rows of weight 0 left out, others count by weight, whatever the weights' unit"
)
def _(generator: np.random.Generator, folder: Path) -> None:
    n_rows = int(generator.integers(30, 80))
    weights, texts = _weighted(generator, n_rows)
    x, y = generator.normal(size=n_rows), generator.lognormal(size=n_rows)
    settings = DataSettings(_written(folder, x=x, w=texts, y=y), "y", weight="w")
    table, kept = read_table(settings), weights > 0
    assert list(table.features) == ["x"]
    np.testing.assert_allclose(table.features["x"], x[kept], rtol=1e-12)
    assert table.layout.weights is not None
    np.testing.assert_allclose(table.layout.weights, weights[kept], rtol=1e-12)
    data, own = prepare(table, _parts(table.n_rows), settings), weights[kept]
    known = data.rows.training
    mean = np.average(np.log(y[kept][known]), weights=own[known])
    variance = np.average((np.log(y[kept][known]) - mean) ** 2, weights=own[known])
    assert np.isclose(data.scaler.mean, mean, rtol=1e-9)
    assert np.isclose(data.scaler.sd, np.sqrt(variance), rtol=1e-9)
    assert data.weights is not None
    np.testing.assert_allclose(data.weights.numpy(), own / own[known].mean(), rtol=1e-9)


@kind("weights that cannot be", "refused with line and cell: negative, missing, text, dates, infinite, all 0")
def _(generator: np.random.Generator, folder: Path) -> None:
    n_rows = int(generator.integers(20, 60))
    _, texts = _weighted(generator, n_rows)
    line = int(generator.integers(n_rows)) + 2
    way = str(generator.choice(["negative", "missing", "text", "dates", "infinite", "huge", "zero"]))
    texts[line - 2] = {"negative": "-0.5", "missing": "NA", "text": "often", "infinite": "inf", "huge": "1e200"}.get(
        way, texts[line - 2]
    )
    if way == "dates":
        texts = [f"2024-01-{1 + i % 28:02}" for i in range(n_rows)]
        line = 2
    if way == "zero":
        texts = ["0"] * n_rows
    columns = {"x": generator.normal(size=n_rows), "w": texts, "y": generator.lognormal(size=n_rows)}
    text = _refusal(DataSettings(_written(folder, **columns), "y", weight="w"))
    assert "'w'" in text, text
    assert f"line {line}," in text or (way == "zero" and "0 in every row" in text), text


@kind("equal weights", "the same table as without, to the bit")
def _(generator: np.random.Generator, folder: Path) -> None:
    n_rows = int(generator.integers(20, 60))
    columns = {"x": generator.normal(size=n_rows), "y": generator.lognormal(size=n_rows)}
    weight = generator.choice([1.0, 7.0, 0.1, 1e-9, 3e9])
    settings = DataSettings(_written(folder, **columns, w=np.full(n_rows, weight)), "y", weight="w")
    found, parts = prepare(read_table(settings), _parts(n_rows), settings), _parts(n_rows)
    plain = DataSettings(_written(folder, **columns), "y")
    wanted = prepare(read_table(plain), parts, plain)
    assert (found.scaler, found.preprocessor, found.weights) == (wanted.scaler, wanted.preprocessor, None)
    assert found.features.numpy().tobytes() == wanted.features.numpy().tobytes()
    assert found.targets.numpy().tobytes() == wanted.targets.numpy().tobytes()


@kind("whole weights and repeated rows", "equal preprocessing, target scale, references and scores", is_slow=True)
def _(generator: np.random.Generator, folder: Path) -> None:
    n_rows = int(generator.integers(40, 90))
    counts = generator.integers(1, 6, n_rows)
    counts[:2] = 1, 2
    x, kinds = generator.normal(size=n_rows), generator.choice(["a", "b", "c"], n_rows)
    y = np.exp(x + (kinds == "a") + 0.3 * generator.normal(size=n_rows))
    columns = {"x": np.where(generator.random(n_rows) < 0.2, np.nan, x), "kind": kinds, "y": y}
    number = np.repeat(np.arange(n_rows), counts)
    settings = DataSettings(_written(folder, **columns, w=counts), "y", weight="w")
    once = read_table(settings)
    plain = DataSettings(_written(folder, **{name: values[number] for name, values in columns.items()}), "y")
    # copies are of one group, as are other equal rows
    groups = np.arange(n_rows) if once.layout.groups is None else once.layout.groups
    often = replace(read_table(plain), layout=RowLayout(len(number), groups=groups[number]))
    parts = vars(_parts(n_rows))
    repeated = SplitRows(**{name: np.flatnonzero(np.isin(number, rows)) for name, rows in parts.items()})
    found, wanted = prepare(once, SplitRows(**parts), settings), prepare(often, repeated, plain)
    np.testing.assert_allclose(found.features.numpy()[number], wanted.features.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.targets.numpy()[number], wanted.targets.numpy(), rtol=1e-9, atol=1e-9)
    own = reference_predictions(once, {Split(0, 0, 0): SplitRows(**parts)}, settings)
    others = reference_predictions(often, {Split(0, 0, 0): repeated}, plain)
    for one, other in zip(own, others, strict=True):
        assert np.isclose(one.score, other.score, rtol=1e-9), one.name
        np.testing.assert_allclose(np.repeat(one.predictions, counts[one.rows]), other.predictions, rtol=1e-9)
