"""Run directories without training: members, curves, health, predictions and summary of invented networks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from actlab.activations import ACTIVATIONS
from actlab.data.splits import fold_sizes
from actlab.run_files import RunDirectory, write_frame, write_json
from actlab.verdict.claims import Part
from actlab.verdict.race import Race, Terms, run
from actlab.verdict.simultaneous import FloatArray, RowNoise, Units, row_sums
from actlab.verdict.summary import choose, race_record, repeat_scores, summarise
from actlab.verdict.what_matters import what_matters

# those with a look of their own, best known first
ORDER = tuple(row.name for row in sorted((r for r in ACTIVATIONS if r.look is not None), key=lambda r: r.look or 0))
N_EPOCHS, N_LAYERS, N_ROWS = 200, 3, 300
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
ROPE = 0.02
Protocol = Literal["race", "grid", "search"]


@dataclass(frozen=True)
class Invented:
    """How an activation's errors differ from those of the first: the share by which they are larger, the standard
    deviation of that share over repeats, and that of errors of its own on some rows."""

    larger: float
    luck: float
    own: float


# by the place of an activation; with eight repeats the first five are the best, as good, not settled, worse here, worse
INVENTED = (
    Invented(0.0, 0.002, 0.0),
    Invented(0.002, 0.002, 0.0),
    Invented(0.012, 0.02, 0.0),
    Invented(-0.05, 0.002, 0.05),
    Invented(0.25, 0.002, 0.0),
)
# places of those that diverge in a repeat that counts, and at every learning rate of the sweep
DIVERGED, NEVER_ENTERED = 5, 13


def make_run(
    directory: str | Path,
    n_activations: int = 5,
    n_rates: int = 3,
    n_repeats: int | None = None,
    target: str = "price",
    command: str = "compare",
    n_folds: int = 5,
    seed: int = 0,
    names: tuple[str, ...] = ORDER,
    protocol: Literal["race", "grid"] = "race",
) -> Path:
    """A finished run. A race has the sweep as repeat 0 and eight repeats that count, a grid four, a search one.

    Among the first six activations every word occurs that a comparison with the best can end with; the fourteenth never
    enters. identity diverges at the highest rate.
    """
    rng = np.random.default_rng(seed)
    run_directory = RunDirectory(directory)
    run_directory.create()
    kind: Protocol = "search" if command == "search" else protocol
    repeats = n_repeats or {"race": 8, "grid": 4, "search": 1}[kind]
    own = names[:n_activations]
    networks = Networks(own, kind, n_rates, repeats, n_folds, seed)
    race = networks.race()
    frame = networks.members(race)
    write_frame(run_directory.members, frame)
    write_frame(run_directory.curves, pd.concat([_curve(rows, rng) for _, rows in frame.groupby("trial")]))
    write_frame(run_directory.health, _health(frame, rng))
    actual = np.exp(rng.normal(12, 0.4, N_ROWS))
    write_frame(
        run_directory.predictions,
        pd.DataFrame({"row": range(N_ROWS), "id": [f"house {i}" for i in range(N_ROWS)], "repeat": networks.first})
        .assign(fold=np.arange(N_ROWS) % n_folds, actual=actual)
        .assign(predicted=actual * np.exp(rng.normal(0, 0.12, N_ROWS))),
    )
    found = summarise(frame, networks.sizes, race, "relu", RATES[:: max(1, n_rates - 1)] if command == "search" else ())
    if command == "search":
        found |= {"trials": trials_of(frame, rng), "importances": {"learning_rate": 0.7, "hidden": 0.2, "dropout": 0.1}}
    if race is not None:
        found["what_matters"] = what_matters(frame, race, networks.sizes, {name: {"activation": name} for name in own})
    top = header(command, target, networks)
    top["protocol"] |= race_record(race, frame) | {"n_trials": frame.trial.nunique()}
    write_json(run_directory.summary, top | found | footer())
    run_directory.write_config({"data": {"csv": "my.csv", "target": target}, "seed": seed, "out": str(directory)})
    return run_directory.path


@dataclass(frozen=True)
class Networks:
    """Invented networks; members are trained on `sizes` rows a fold, as many inner parts as the protocol has."""

    names: tuple[str, ...]
    protocol: Protocol
    n_rates: int
    n_repeats: int
    n_folds: int
    seed: int

    @property
    def sizes(self) -> list[int]:
        return fold_sizes(N_ROWS, self.n_folds)

    @property
    def inner(self) -> int:
        return 2 if self.protocol == "grid" else 1

    @property
    def first(self) -> int:
        """The first repeat that counts."""
        return int(self.protocol != "search")

    @property
    def terms(self) -> Terms:
        n_networks = self.n_folds * self.inner
        if self.protocol == "grid":
            return Terms.grid(n_networks, ROPE, self.n_repeats)
        return Terms.race(n_networks, self.n_repeats * n_networks * len(self.names), ROPE)

    def errors(self, name: str, rate: float, repeat: int, inner: int) -> FloatArray:
        """Of every row (n,), each by a network that did not see it; nan where it diverged."""
        place = self.names.index(name)
        planted = INVENTED[place % len(INVENTED)]
        common, own = (np.random.default_rng([self.seed, one]).normal(size=N_ROWS) for one in (1000, place))
        # by no chance better on just these rows
        common, own = common / common.std(), own - own @ common / (common @ common) * common
        luck = np.random.default_rng([self.seed, place, repeat, inner, int(1e6 * rate)])
        larger = 1 + planted.larger + 0.002 * (place // len(INVENTED)) + 0.08 * abs(math.log10(rate) + 2.3) ** 2
        found = 0.12 * larger * common + planted.own * own / own.std()
        found *= np.exp(planted.luck * luck.normal())
        is_lost = (name == "identity" and rate >= 0.1) or (place == DIVERGED and repeat == 2) or place == NEVER_ENTERED
        found[: N_ROWS // 10 if is_lost else 0] = math.nan
        return found

    def cells(self) -> Iterator[tuple[str, float, tuple[int, ...]]]:
        """Activation, learning rate and repeats of every trial there may be, in the order of the results."""
        rates, counting = RATES[: self.n_rates], range(1, self.n_repeats + 1)
        if self.protocol == "search":
            drawn = 10 ** np.random.default_rng(self.seed).uniform(-3.5, -1.5, len(self.names) * self.n_rates)
            rows = [(name, place) for name in self.names for place in range(self.n_rates)]
            for (name, _), rate in zip(rows, drawn.tolist(), strict=True):
                yield name, rate, tuple(range(self.n_repeats))
            return
        best = min(rates, key=lambda rate: abs(math.log10(rate) + 2.3))
        swept = [(name, rate, (0,)) for name in self.names for rate in rates] if self.protocol == "race" else []
        yield from swept
        entered = [name for place, name in enumerate(self.names) if place != NEVER_ENTERED]
        for repeat in counting:
            for name in entered if self.protocol == "race" else self.names:
                for rate in (best,) if self.protocol == "race" else rates:
                    yield name, rate, (repeat,)

    @cached_property
    def all_members(self) -> pd.DataFrame:
        """Rows of members.csv, also of those that the race does not ask for."""
        members = []
        for trial, (name, rate, repeats) in enumerate(self.cells()):
            for repeat in repeats:
                order = np.random.default_rng([self.seed, repeat]).permutation(N_ROWS)
                for inner in range(self.inner):
                    squared = self.errors(name, rate, repeat, inner) ** 2
                    for fold, rows in enumerate(np.array_split(order, self.n_folds)):
                        score = float(np.sqrt(squared[rows].mean()))
                        members.append(
                            {"trial": trial, "activation": name, "learning_rate": rate, "repeat": repeat, "fold": fold}
                            | {"inner": inner, "seed": 0, "best_epoch": 40, "epochs": 60, "val_score": score * 0.95}
                            | {"test_score": score, "diverged": math.isnan(score), "pruned": False}
                            | {"n_parameters": 57421, "seconds": 1.0}
                        )
        return pd.DataFrame(members)

    def race(self) -> Race | None:
        """None for a search."""
        if self.protocol == "search":
            return None
        members = self.all_members
        rates = choose(members, is_comparison=True).groupby("activation").learning_rate.first().to_dict()

        def squared_errors() -> Iterator[dict[str, FloatArray]]:
            for repeat in range(1, self.n_repeats + 1):
                found = {
                    str(name): np.mean([self.errors(name, rate, repeat, i) ** 2 for i in range(self.inner)], axis=0)
                    for name, rate in rates.items()
                }
                yield {name: values for name, values in found.items() if np.isfinite(values).all()}

        units, looks = Units.rows(N_ROWS), [look for look, _ in self.terms.looks if look <= self.n_repeats]
        sums = row_sums(squared_errors(), units, looks) if looks else {}
        return run(repeat_scores(members, self.sizes), self.terms, RowNoise(units, self.n_folds, sums))

    def members(self, race: Race | None) -> pd.DataFrame:
        """Those that the race asked for, trials numbered without gaps."""
        members = self.all_members
        if race is not None and self.protocol == "race":
            members = members[members.repeat <= members.activation.map(race.used).fillna(0)]
        numbers = {trial: place for place, trial in enumerate(dict.fromkeys(members.trial))}
        return members.assign(trial=members.trial.map(numbers)).reset_index(drop=True)


def _curve(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Of one trial."""
    first, epochs = rows.iloc[0], np.arange(1, N_EPOCHS + 1)
    level = 0.12 if math.isnan(first.val_score) else first.val_score
    val = level + 0.3 * np.exp(-epochs / (8 + 20 * rng.uniform())) + 0.001 * rng.normal(size=N_EPOCHS)
    named = {"trial": first.trial, "activation": first.activation, "learning_rate": first.learning_rate}
    return pd.DataFrame(named | {"epoch": epochs, "members": len(rows)}).assign(
        train_mean=val * (0.95 - epochs / 900), train_sd=0.01, val_mean=val, val_sd=0.01
    )


def _health(members: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Three moments and all layers of every network."""
    keys = members[["trial", "activation", "learning_rate", "repeat", "fold", "inner"]]
    moments = pd.DataFrame(
        [(layer, moment) for moment in ("start", "best", "end") for layer in range(1, N_LAYERS + 1)],
        columns=["layer", "moment"],
    )
    rows = keys.merge(moments, how="cross")
    n = len(rows)
    return rows.assign(
        dead=rng.uniform(0, 0.3, n),
        saturated=rng.uniform(size=n),
        mean_output=rng.normal(size=n),
        gradient_ratio=rng.lognormal(size=n),
    )


def trials_of(members: pd.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """A row a trial: dropout, widths and decay as a search may have drawn them."""
    rows = members.groupby("trial").agg({"activation": "first", "learning_rate": "first", "val_score": "mean"})
    return [
        {"trial": int(str(trial)), "activation": row.activation, "learning_rate": row.learning_rate}
        | {"hidden": ["144-72-18", "64-32", "256"][int(rng.integers(3))], "dropout": float(rng.uniform(0, 0.3))}
        | {"weight_decay": float(10 ** rng.uniform(-3, -1)), "init": "auto", "val_score": row.val_score}
        for trial, row in rows.iterrows()
    ]


def header(command: str, target: str, networks: Networks) -> dict[str, Any]:
    return {
        "metric": "log_rmse",
        "command": command,
        "data": {"csv": "my.csv", "target": target, "n_rows": N_ROWS, "n_columns": 4, "sha256": "0" * 64},
        "protocol": {
            "protocol": networks.protocol,
            "folds": networks.n_folds,
            "inner": networks.inner,
            "repeats": networks.n_repeats,
            "n_rows": N_ROWS,
            "validation_fraction": 0.15,
            "max_epochs": N_EPOCHS,
            "patience": 12,
            "hidden": [144, 72, 18],
            "seed": networks.seed,
            "rope": ROPE,
            "budget": networks.terms.budget if networks.protocol == "race" else None,
        },
    }


def footer() -> dict[str, Any]:
    what = "test score of sigmoid minus that of tanh"
    part = Part(what, 0.01, 0.002, 0.018, 0.01, 0.04, threshold=0.0, values=((1, 0.01),) * 5, verdict="supported")
    lost = Part("dead units of relu", reason="one rate was tried")
    return {
        "ensemble": {
            "activation": "relu",
            "n_members": 5,
            "test_score": 0.121,
            "test_score_chosen_on_validation": 0.123,
        },
        "references": {"median": 0.4, "ridge": 0.125, "hist_gradient_boosting": 0.1285},
        "claims": [
            {"claim": "Tanh beats sigmoid.", "verdict": "supported", "reason": "", "parts": [part.to_dict()]},
            {
                "claim": "ReLU units die.",
                "verdict": "cannot tell",
                "reason": "one rate was tried",
                "parts": [lost.to_dict()],
            },
        ],
        "versions": {"python": "3.11.0", "actlab": "0.1.0", "torch": "2.13.0"},
    }
