"""Run directories without training: members, curves, health, predictions and summary of invented networks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actlab.activations import ACTIVATIONS
from actlab.run_files import RunDirectory, write_frame, write_json
from actlab.verdict.summary import summarise

# those with a look of their own, best known first
ORDER = tuple(row.name for row in sorted((r for r in ACTIVATIONS if r.look is not None), key=lambda r: r.look or 0))
N_EPOCHS, N_LAYERS, N_ROWS = 200, 3, 300
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def make_run(
    directory: str | Path,
    n_activations: int = 5,
    n_rates: int = 3,
    n_repeats: int = 1,
    target: str = "price",
    command: str = "compare",
    n_folds: int = 5,
    seed: int = 0,
    names: tuple[str, ...] = ORDER,
) -> Path:
    """A run of 5 folds x `n_repeats` members a trial, one inner split; identity diverges at the highest rate."""
    rng = np.random.default_rng(seed)
    run = RunDirectory(directory)
    run.create()
    members, curves, health = [], [], []
    grid = [(name, rate) for name in names[:n_activations] for rate in RATES[:n_rates]]
    if command == "search":
        grid = [(name, float(10 ** rng.uniform(-3.5, -1.5))) for name, _ in grid]
    for trial, (name, rate) in enumerate(grid):
        quality = 0.125 + 0.002 * names.index(name) + 0.01 * abs(math.log10(rate) + 2.3) ** 2
        for repeat in range(n_repeats):
            for fold in range(n_folds):
                is_bad = name == "identity" and rate >= 0.1
                score = math.nan if is_bad else quality + 0.01 * math.sin(fold + repeat) + 0.002 * rng.normal()
                members.append(
                    {"trial": trial, "activation": name, "learning_rate": rate, "repeat": repeat, "fold": fold}
                    | {"inner": 0, "seed": repeat, "best_epoch": 40, "epochs": 60, "val_score": score * 0.95}
                    | {"test_score": score, "diverged": is_bad, "pruned": False, "n_parameters": 57421, "seconds": 1.0}
                )
                for moment in ("start", "best", "end"):
                    health += [
                        {"trial": trial, "activation": name, "learning_rate": rate, "repeat": repeat, "fold": fold}
                        | {"inner": 0, "layer": layer, "moment": moment, "dead": rng.uniform(0, 0.3)}
                        | {"saturated": rng.uniform(), "mean_output": rng.normal(), "gradient_ratio": rng.lognormal()}
                        for layer in range(1, N_LAYERS + 1)
                    ]
        epochs = np.arange(1, N_EPOCHS + 1)
        val = quality + 0.3 * np.exp(-epochs / (8 + 20 * rng.uniform())) + 0.001 * rng.normal(size=N_EPOCHS)
        curves.append(
            pd.DataFrame(
                {"trial": trial, "activation": name, "learning_rate": rate, "epoch": epochs, "members": 10}
            ).assign(train_mean=val * (0.95 - epochs / 900), train_sd=0.01, val_mean=val, val_sd=0.01)
        )
    frame = pd.DataFrame(members)
    write_frame(run.members, frame)
    write_frame(run.curves, pd.concat(curves))
    write_frame(run.health, pd.DataFrame(health))
    actual = np.exp(rng.normal(12, 0.4, N_ROWS))
    write_frame(
        run.predictions,
        pd.DataFrame({"row": range(N_ROWS), "id": [f"house {i}" for i in range(N_ROWS)], "repeat": 0})
        .assign(fold=np.arange(N_ROWS) % n_folds, actual=actual)
        .assign(predicted=actual * np.exp(rng.normal(0, 0.12, N_ROWS))),
    )
    found = summarise(frame, 0.25, "relu", list(RATES[:n_rates]), command == "compare")
    if command == "search":
        found |= {"trials": trials_of(frame, rng), "importances": {"learning_rate": 0.7, "hidden": 0.2, "dropout": 0.1}}
    write_json(run.summary, header(command, target, n_folds, n_repeats) | found | footer())
    run.write_config({"data": {"csv": "my.csv", "target": target}, "seed": seed, "out": str(directory)})
    return run.path


def trials_of(members: pd.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """A row a trial: dropout, widths and decay as a search may have drawn them."""
    rows = members.groupby("trial").agg({"activation": "first", "learning_rate": "first", "val_score": "mean"})
    return [
        {"trial": int(str(trial)), "activation": row.activation, "learning_rate": row.learning_rate}
        | {"hidden": ["144-72-18", "64-32", "256"][int(rng.integers(3))], "dropout": float(rng.uniform(0, 0.3))}
        | {"weight_decay": float(10 ** rng.uniform(-3, -1)), "init": "auto", "val_score": row.val_score}
        for trial, row in rows.iterrows()
    ]


def header(command: str, target: str, n_folds: int, n_repeats: int) -> dict[str, Any]:
    return {
        "metric": "log_rmse",
        "command": command,
        "data": {"csv": "my.csv", "target": target, "n_rows": N_ROWS, "n_columns": 4, "sha256": "0" * 64},
        "protocol": {"folds": n_folds, "inner": 1, "repeats": n_repeats, "n_training": 200, "n_test": 60, "seed": 0},
    }


def footer() -> dict[str, Any]:
    part = {"what": "test score of sigmoid minus that of tanh", "value": 0.01, "ci_low": 0.002, "ci_high": 0.018}
    part |= {"p": 0.01, "p_holm": 0.04, "threshold": 0.0, "side": "above", "n": 5, "verdict": "supported", "reason": ""}
    lost = {"what": "dead units of relu", "value": None, "verdict": "cannot tell", "reason": "one rate was tried"}
    return {
        "ensemble": {
            "activation": "relu",
            "n_members": 5,
            "test_score": 0.121,
            "test_score_chosen_on_validation": 0.123,
        },
        "references": {"median": 0.4, "ridge": 0.125, "hist_gradient_boosting": 0.1285},
        "claims": [
            {"claim": "Tanh beats sigmoid.", "verdict": "supported", "reason": "", "parts": [part]},
            {"claim": "ReLU units die.", "verdict": "cannot tell", "reason": "one rate was tried", "parts": [lost]},
        ],
        "versions": {"python": "3.11.0", "actlab": "0.1.0", "torch": "2.13.0"},
    }
