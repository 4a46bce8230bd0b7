"""Small data and the plain loop that a population is compared with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def house_csv() -> str:
    return str(ROOT / "data/house_prices/train.csv")


@pytest.fixture(scope="session")
def concrete_csv() -> str:
    return str(ROOT / "data/concrete/concrete.csv")


@pytest.fixture
def small_csv(tmp_path: Path) -> str:
    """120 rows, two numeric columns (one with gaps), one categorical, a positive target."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 2))
    kind = generator.choice(["a", "b", "c"], size=120)
    frame = pd.DataFrame({"x": x[:, 0], "gap": np.where(x[:, 1] > 1, np.nan, x[:, 1]), "kind": kind})
    frame["price"] = np.exp(0.5 * x[:, 0] - 0.3 * np.abs(x[:, 1]) + (kind == "a") + 0.1 * generator.normal(size=120))
    path = tmp_path / "small.csv"
    frame.to_csv(path, index=False)
    return str(path)
