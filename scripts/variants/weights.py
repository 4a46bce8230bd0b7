"""Targets with zeros, targets in any unit, and rows that count differently."""

from pathlib import Path

import numpy as np
import pandas as pd

from actlab.data.datamodule import prepare
from actlab.data.splits import SplitRows
from actlab.data.table import read_table
from actlab.errors import InputError
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
