"""Out-of-fold errors behind what preprocessing does with skewed numbers, many categories and dates.

python scripts/preprocessing_choices.py logs         # units of the logarithm of skewed columns
python scripts/preprocessing_choices.py categories   # encodings of columns with many categories
python scripts/preprocessing_choices.py dates        # parts of the calendar

Each line is a table, each column an alternative: the error of ridge, a slash, and that of networks (relu and silu at
one rate, one network a fold), as a share of the first alternative's.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.preprocessing import TargetEncoder
from statsmodels import datasets

from actlab.config import Configuration
from actlab.data.splits import make_splits, splits_of
from actlab.data.table import read_table
from actlab.run_files import read_yaml
from actlab.runs.evaluate import Evaluation, Setting, Work, evaluate
from actlab.runs.references import reference_predictions
from actlab.settings import CompareSettings, DataSettings, ModelSettings, TargetTransform

ROOT = Path(__file__).parents[1]
ACTIVATIONS = ("relu", "silu")
LEARNING_RATE = 3e-3
N_ROWS = 1500
Unit = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Alternative:
    """One way to read a table: as a file, under settings, with functions of `actlab.data.preprocessing` exchanged."""

    data: DataSettings
    frame: pd.DataFrame | None = None
    dropout: float = 0.0
    exchanged: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    name: str
    alternatives: dict[str, Alternative] = field(default_factory=dict)


def errors(own: Alternative, repeats: int) -> np.ndarray:
    """Roots of mean squared errors out of fold: of ridge, and of single networks."""
    with tempfile.TemporaryDirectory() as folder:
        data = own.data
        if own.frame is not None:
            data = replace(data, csv=f"{folder}/table.csv")
            own.frame.to_csv(data.csv, index=False)
        table = read_table(data)
    configuration = Configuration(
        data=data,
        model=ModelSettings(dropout=own.dropout),
        compare=CompareSettings(repeats=repeats),
        trainer={"max_epochs": 100, "accelerator": "cpu"},
    )
    evaluation, counted = Evaluation.of(configuration, "compare"), range(1, repeats + 1)
    settings = [replace(Setting.of(name, configuration), learning_rate=LEARNING_RATE) for name in ACTIVATIONS]
    work = {number: Work(setting, tuple(counted)) for number, setting in enumerate(settings)}
    networks = [o.test_score for result in evaluate(work, evaluation, table) for o in result.outcomes]
    splits = make_splits(table.layout, evaluation.protocol, evaluation.seed)
    chosen = {split: splits[split] for split in splits_of(counted, evaluation.protocol)}
    ridge = [one.score for one in reference_predictions(table, chosen, data) if one.name == "ridge"]
    return np.array([np.sqrt(np.mean(np.square(scores))) for scores in (ridge, networks)])


def some_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[np.random.default_rng(0).permutation(len(frame))[:N_ROWS]]


def numbered(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])]).assign(y=y)


# skewed numbers

LOG_UNITS: dict[str, Unit] = {
    "1": lambda x: 1.0,
    "smallest": lambda x: float(x[x > 0].min()),
    "5 % quantile": lambda x: float(np.quantile(x[x > 0], 0.05)),
    "quartile": lambda x: float(np.quantile(x[x > 0], 0.25)),
    "median": lambda x: float(np.median(x[x > 0])),
    "geometric mean": lambda x: float(np.exp(np.log(x[x > 0]).mean())),
    "mean": lambda x: float(x[x > 0].mean()),
}


def logs() -> Iterator[Table]:
    for title, own in skewed_tables():
        yield Table(title, {name: replace(own, exchanged={"_log_unit": unit}) for name, unit in LOG_UNITS.items()})


def skewed_tables() -> Iterator[tuple[str, Alternative]]:
    houses = read_yaml(ROOT / "configs" / "house_prices.yaml")["data"]
    houses["csv"] = str(ROOT / houses["csv"])
    yield "House Prices", Alternative(DataSettings(**houses), dropout=0.1)
    concrete = str(ROOT / "data" / "concrete" / "concrete.csv")
    yield "Concrete, as by default", Alternative(DataSettings(csv=concrete, target="compressive_strength"))
    star = datasets.star98.load_pandas().data
    star["share"] = star.NABOVE / (star.NABOVE + star.NBELOW)
    grunfeld = datasets.grunfeld.load_pandas().data
    tumours = load_breast_cancer(as_frame=True).frame
    measured = [name for name in tumours if "error" in name or name in ("mean texture", "mean compactness")]
    tables: list[tuple[str, pd.DataFrame, str, TargetTransform]] = [
        ("grunfeld", grunfeld[grunfeld.invest > 0], "invest", "log"),
        ("engel", datasets.engel.load_pandas().data, "foodexp", "log"),
        ("cancer", datasets.cancer.load_pandas().data, "cancer", "none"),
        ("star98", star.drop(columns=["NABOVE", "NBELOW"]), "share", "none"),
        ("anes96", datasets.anes96.load_pandas().data.drop(columns="logpopul"), "income", "none"),
        ("fair", datasets.fair.load_pandas().data, "affairs", "none"),
        ("randhie", datasets.randhie.load_pandas().data, "mdvis", "none"),
        ("wine", load_wine(as_frame=True).frame, "proline", "log"),
        ("breast cancer", tumours[[*measured, "worst area"]], "worst area", "log"),
    ]
    for name, frame, target, transform in tables:
        yield name, Alternative(DataSettings(target=target, target_transform=transform), some_rows(frame))
    yield from generated_skewed_tables()


def generated_skewed_tables() -> Iterator[tuple[str, Alternative]]:
    rng = np.random.default_rng(0)
    log, plain = (DataSettings(target="y", target_transform=transform) for transform in ("log", "none"))
    weights = np.array([0.5, 0.4, 0.3, 0.2, 0.0])
    for unit in (1e-6, 1.0, 1e4):
        x = rng.lognormal(0, 1.2, (800, 5))
        y = np.exp(np.log(x) @ weights + 0.2 * rng.normal(size=800))
        yield f"products, unit {unit:g}", Alternative(log, numbered(x * unit, y))
        yield f"sums, unit {unit:g}", Alternative(plain, numbered(x * unit, x @ weights + 0.3 * rng.normal(size=800)))
    units = np.array([1e-3, 1, 10, 1e3, 1e5])
    x = rng.pareto(2.0, (800, 5))
    y = np.sqrt(x).sum(axis=1) + 0.3 * rng.normal(size=800)
    yield "roots of heavy tails", Alternative(plain, numbered(x * units, y))
    areas = rng.gamma(2.0, 150, (800, 5)) * (rng.random((800, 5)) < 0.5)
    y = 1000 + areas @ (2 * weights) + 80 * rng.normal(size=800)
    yield "areas, half of them zero", Alternative(log, numbered(areas, y))
    x = rng.gamma(0.4, 5.0, (800, 5))
    y = np.exp(-x / 5).sum(axis=1) + 0.1 * rng.normal(size=800)
    yield "decay", Alternative(plain, numbered(x * units, y))


# many categories


def categories() -> Iterator[Table]:
    rng = np.random.default_rng(0)
    n = 2000
    x = rng.normal(size=(n, 4))
    base = x @ np.array([0.5, 0.3, 0.0, 0.0]) + np.sin(2 * x[:, 2])
    zipf = 1 / np.arange(1, 401)
    few_each = rng.integers(0, 500, n)
    some_often = rng.choice(400, n, p=zipf / zipf.sum())
    mostly_alone = rng.integers(0, 3000, n)
    effects = rng.normal(size=3000)
    noise = rng.normal(size=n)
    for name, codes, y in (
        ("500 categories, effect as large as noise", few_each, base + effects[few_each] + noise),
        ("500, effect a third of noise", few_each, base + effects[few_each] / 3 + noise),
        ("500, no effect", few_each, base + noise),
        ("400 of Zipf's frequencies, effect", some_often, base + effects[some_often] + noise),
        ("400 of Zipf's frequencies, no effect", some_often, base + noise),
        ("most rows alone, effect", mostly_alone, base + effects[mostly_alone] + noise),
        ("most rows alone, no effect", mostly_alone, base + noise),
        ("500, each with a slope of its own", few_each, base + effects[few_each] * x[:, 3] + noise),
        ("150, each with a slope of its own", few_each % 150, base + effects[few_each % 150] * x[:, 3] + noise),
        ("500, effect on slope and level", few_each, base + effects[few_each] * (1 + x[:, 3]) + noise),
    ):
        frame = numbered(x, y).assign(code=[f"c{code}" for code in codes])
        yield Table(name, encodings(frame))


def encodings(frame: pd.DataFrame) -> dict[str, Alternative]:
    data = DataSettings(target="y", target_transform="none", categorical=["code"])
    often = frame.code.value_counts().index[:100]
    frequent = frame.code.where(frame.code.isin(often), "other")
    hashed = "h" + (pd.util.hash_array(frame.code.to_numpy(dtype=object)) % 100).astype(str).astype(object)
    both = frame.assign(frequent=frequent)
    wide = replace(data, max_categories=10_000)
    return {
        "100 most frequent and other": Alternative(wide, frame.assign(code=frequent)),
        "100 hashes": Alternative(wide, frame.assign(code=hashed)),
        "one input each": Alternative(wide, frame),
        "mean target": Alternative(data, frame),
        "TargetEncoder's shrinking": Alternative(data, frame, exchanged={"_category_means": by_scikit_learn}),
        "mean target, 100 most frequent": Alternative(replace(data, max_categories=101), both),
        "without": Alternative(replace(data, categorical=[]), frame.drop(columns="code")),
    }


def by_scikit_learn(places: np.ndarray, n_places: int, y: np.ndarray) -> np.ndarray:
    """As `_category_means`, shrunk by each category's own variance (`smooth="auto"`)."""
    encoder = TargetEncoder(target_type="continuous").fit(places[:, None], y)
    return np.asarray(encoder.transform(np.arange(n_places)[:, None])[:, 0])


# dates

CHOICES: dict[str, dict[str, Any]] = {
    "days": {"*": ["days"]},
    "by rule": {},
    "days, hour, yearday": {"*": ["days", "hour", "yearday"]},
    "parts without days": {"*": ["hour", "weekday", "yearday"]},
}


def dates() -> Iterator[Table]:
    rng = np.random.default_rng(0)
    for name, moments, y in (
        ("temperature by the hour, two years", *temperature(rng, 2)),
        ("temperature by the hour, six months", *temperature(rng, 0.5)),
        ("stock by the day", *stock(rng)),
        ("sales by the day", *sales(rng)),
        ("sales by the month", *monthly(rng)),
        ("one number a year", *yearly(rng)),
        ("no effect, by the day", *no_effect(rng)),
    ):
        when = pd.DatetimeIndex(moments).strftime("%Y-%m-%d" if moments.hour.max() == 0 else "%Y-%m-%d %H:%M:%S")
        frame = some_rows(pd.DataFrame({"when": when, "other": rng.normal(size=len(y)), "y": y}))
        own = Alternative(DataSettings(target="y"), frame)
        yield Table(name, {c: replace(own, data=replace(own.data, dates=dates)) for c, dates in CHOICES.items()})


Dated = tuple[pd.DatetimeIndex, np.ndarray]


def temperature(rng: np.random.Generator, years: float) -> Dated:
    when = pd.date_range("2022-01-01", periods=round(8766 * years), freq="h")
    season, day = (when.day_of_year + when.hour / 24) / 365.2425, when.hour / 24
    y = 50 - 12 * np.cos(2 * np.pi * (season - 0.05)) - 5 * np.cos(2 * np.pi * (day - 0.1))
    return when, np.asarray(y) + 0.3 * rng.normal(size=len(when))


def stock(rng: np.random.Generator) -> Dated:
    when = pd.bdate_range("2015-01-01", periods=1500)
    return when, 100 * np.exp(np.cumsum(0.01 * rng.normal(size=len(when))))


def sales(rng: np.random.Generator) -> Dated:
    when = pd.date_range("2020-01-01", periods=1200)
    logs = np.where(when.day_of_week >= 5, 0.6, 0.0) + 0.3 * np.cos(2 * np.pi * when.day_of_year / 365)
    return when, np.asarray(np.exp(5 + logs + 0.0003 * np.arange(1200) + 0.1 * rng.normal(size=1200)))


def monthly(rng: np.random.Generator) -> Dated:
    when = pd.date_range("1980-01-01", periods=480, freq="MS")
    return when, np.asarray(np.exp(5 + 0.3 * np.cos(2 * np.pi * when.month / 12) + 0.1 * rng.normal(size=480)))


def yearly(rng: np.random.Generator) -> Dated:
    when = pd.date_range("1800-12-31", periods=200, freq="YE")
    return when, np.asarray(np.exp(3 + 0.01 * np.arange(200) + 0.1 * rng.normal(size=200)))


def no_effect(rng: np.random.Generator) -> Dated:
    when = pd.date_range("2020-01-01", periods=1200)
    return when, np.exp(rng.normal(size=1200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["logs", "categories", "dates"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="", help="tables whose name holds this")
    asked = parser.parse_args()
    tables = {"logs": logs, "categories": categories, "dates": dates}[asked.what]()
    found: list[np.ndarray] = []
    for table in (table for table in tables if asked.only in table.name):
        if not found:
            names = list(table.alternatives)
            print(f"| table | {names[0]} (error) | {' | '.join(names)} |\n| --- |{' --- |' * (len(names) + 1)}")
        scores = []
        for own in table.alternatives.values():
            with patch.multiple("actlab.data.preprocessing", **own.exchanged) if own.exchanged else nullcontext():
                scores.append(errors(own, asked.repeats))
        shares = np.array(scores) / scores[0]
        found.append(np.log(shares))
        first = " / ".join(f"{score:.4g}" for score in scores[0])
        print(f"| {table.name} | {first} | {' | '.join(f'{r:.3f} / {n:.3f}' for r, n in shares)} |", flush=True)
    means = np.exp(np.mean(found, axis=0))
    print(f"| geometric mean | | {' | '.join(f'{r:.3f} / {n:.3f}' for r, n in means)} |")


if __name__ == "__main__":
    main()
