"""Units and offsets of numbers, parts of dates, and columns of many categories."""

from pathlib import Path

import numpy as np
import pandas as pd

from actlab.data.preprocessing import Preprocessor, fit_and_transform
from actlab.data.table import read_rows, read_table
from actlab.settings import DataSettings
from variants import kind

N_ROWS = 60


def inputs_of(preprocessor: Preprocessor) -> dict[str, tuple[str, ...]]:
    """Column to the names of its inputs."""
    return {rule.name: rule.feature_names for rule in preprocessor.rules}


def inputs(frame: pd.DataFrame, folder: Path, **keys: object) -> tuple[Preprocessor, np.ndarray, np.ndarray]:
    """A table that is written and read; inputs of its first 50 rows to train on, and of the others."""
    path = folder / "table.csv"
    frame.to_csv(path, index=False)
    table = read_table(DataSettings(csv=str(path), target="y", **keys))  # type: ignore[arg-type]
    settings, rows = DataSettings(**keys), np.arange(50)  # type: ignore[arg-type]
    assert table.target is not None
    preprocessor, x = fit_and_transform(table.features, table.schema, rows, settings, table.target)
    # the file as one to predict on gives the same
    (again,) = read_rows(str(path), table.schema)
    np.testing.assert_array_equal(preprocessor.transform(again.features)[50:], x[50:])
    return preprocessor, x[:50], x[50:]


def numbers(generator: np.random.Generator) -> pd.DataFrame:
    """Columns of the shapes that measurements have, some cells missing."""
    columns = {
        "normal": generator.normal(generator.uniform(-5, 5), generator.uniform(0.01, 3), N_ROWS),
        "skewed": generator.lognormal(generator.normal(), generator.uniform(0.5, 2), N_ROWS),
        "tail": generator.pareto(generator.uniform(1, 4), N_ROWS),
        "zeros": generator.gamma(2, 100, N_ROWS) * (generator.random(N_ROWS) < 0.4),
        "counts": generator.poisson(generator.uniform(0.2, 5), N_ROWS).astype(float),
        "rounded": generator.normal(0, 1, N_ROWS).round(1),
    }
    frame = pd.DataFrame(columns)
    frame = frame.mask(pd.DataFrame(generator.random(frame.shape) < 0.05, columns=frame.columns))
    return frame.assign(y=generator.lognormal(size=N_ROWS))


def keys_of(generator: np.random.Generator) -> dict[str, object]:
    return {
        "scaling": str(generator.choice(["robust", "standard", "minmax"])),
        "smooth_clip": bool(generator.random() < 0.5),
        "numeric": list(numbers(generator).columns.drop("y")),
    }


@kind("columns in units that differ by powers of two", "the same inputs of the network, to the bit")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame, keys = numbers(generator), keys_of(generator)
    scaled = frame.copy()
    for name in frame.columns.drop("y"):
        scaled[name] = np.ldexp(frame[name], int(generator.integers(-900, 900)))
    (_, training, new), (_, others, others_new) = (inputs(one, folder, **keys) for one in (frame, scaled))
    np.testing.assert_array_equal(training, others)
    np.testing.assert_array_equal(new, others_new)
    assert (np.ptp(training, axis=0) > 0.1).all()


@kind("columns in units that differ by powers of ten", "the same inputs of the network, to 1e-6")
def _(generator: np.random.Generator, folder: Path) -> None:
    frame, keys = numbers(generator), keys_of(generator)
    scaled = frame.copy()
    for name in frame.columns.drop("y"):
        scaled[name] = frame[name] * 10.0 ** int(generator.integers(-200, 200))
    (_, training, new), (_, others, others_new) = (inputs(one, folder, **keys) for one in (frame, scaled))
    np.testing.assert_allclose(training, others, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(new, others_new, rtol=1e-6, atol=1e-6)


@kind("columns far from zero", "inputs as without the offset, to 1e-6: float64 holds what float32 would round")
def _(generator: np.random.Generator, folder: Path) -> None:
    # of eighths, which stay what they are beside an offset
    column = np.round(8 * generator.normal(0, 10 ** generator.uniform(0, 3), N_ROWS)) / 8
    frame = pd.DataFrame({"x": column, "y": generator.lognormal(size=N_ROWS)})
    offset = float(generator.choice([-1, 1]) * round(10 ** generator.uniform(7, 10)))
    keys = keys_of(generator) | {"numeric": ["x"], "smooth_clip": False}
    (_, training, new), (_, others, others_new) = (
        inputs(one, folder, **keys, log_skewed=False) for one in (frame, frame.assign(x=frame.x + offset))
    )
    # a mean is rounded as all numbers of its size are: the same for all rows
    for one, other in ((training, others), (new, others_new)):
        np.testing.assert_allclose(one - one[0], other - other[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@kind("dates by the hour, day, week, month and year", "days, and the parts of the calendar in which they differ")
def _(generator: np.random.Generator, folder: Path) -> None:
    step, n_days, parts = [
        ("h", 1 / 24, ["hour", "weekday", "yearday"]),
        ("D", 1, ["weekday", "yearday"]),
        ("W-WED", 7, ["yearday"]),
        ("MS", 30, ["yearday"]),
        ("YS", 365, []),
    ][generator.integers(5)]
    start = pd.Timestamp(f"{generator.integers(1930, 2010)}-06-01")
    moments = pd.date_range(start, periods=round(max(600 / n_days, 80)), freq=step)
    moments = moments[np.sort(generator.permutation(len(moments))[:N_ROWS])]
    texts = moments.strftime("%Y-%m-%dT%H:%M:%S" if step == "h" else "%Y-%m-%d")
    frame = pd.DataFrame({"when": texts, "y": generator.lognormal(size=N_ROWS)})
    preprocessor, training, new = inputs(frame, folder, smooth_clip=False, scaling="minmax")
    sides = [f"when ({part}, {side})" for part in parts for side in ("sin", "cos")]
    assert list(inputs_of(preprocessor)["when"]) == ["when", *sides]
    cycles = {
        "hour": moments.hour / 24,
        "weekday": (moments.day_of_week - 3) / 7,
        "yearday": (moments - pd.Timestamp(0)) / pd.Timedelta(days=365.2425),
    }
    days = (moments - moments[0]) / (moments[49] - moments[0])
    expected = np.stack([days, *(f(2 * np.pi * cycles[part]) for part in parts for f in (np.sin, np.cos))], axis=1)
    np.testing.assert_allclose(np.concatenate([training, new]), np.clip(expected, -1, 1.5), atol=2e-6)


@kind("codes of more categories than are an input each", "the mean target of a category's other rows, not of its own")
def _(generator: np.random.Generator, folder: Path) -> None:
    n_codes = int(generator.integers(8, 20))
    codes = [f"c{code}" for code in generator.integers(0, n_codes, N_ROWS)]
    frame = pd.DataFrame({"code": codes, "y": generator.lognormal(size=N_ROWS)})
    preprocessor, training, new = inputs(frame, folder, max_categories=5)
    z = np.log(frame.y[:50])
    z = (z - z.mean()) / z.std(ddof=0)
    means, counts = z.groupby(frame.code[:50]).mean(), frame.code[:50].value_counts()
    shared = list(counts.index[counts > 1])
    alone = z[frame.code[:50].map(counts) == 1]
    values = [*new[:, 0]]
    for code, value in zip(frame.code[50:], values, strict=True):
        mean = means[code] if code in shared else alone.mean() if len(alone) else 0.0
        # shrunk towards the mean of all, which is 0
        assert -1e-6 <= value * np.sign(mean) <= abs(mean) + 1e-6
    assert inputs_of(preprocessor) == {"code": ("code (mean target)",)}
    # another target of a training row changes no input of its own, once standardising is undone
    row = int(generator.integers(50))
    altered = frame.assign(y=frame.y.where(frame.index != row, 1000 * frame.y))
    _, others, _ = inputs(altered, folder, max_categories=5)
    logs = [np.log(one.y[:50]) for one in (frame, altered)]
    one, other = (x[row, 0] * z.std(ddof=0) + z.mean() for x, z in zip((training, others), logs, strict=True))
    assert abs(one - other) < 1e-5
