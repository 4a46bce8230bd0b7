"""Measure how fast actlab is, against what people would do and against the machine, and write docs/benchmarks.md.

    python scripts/bench.py quick|full|smoke [--only SECTION ...] [--json FILE] [--output FILE]

One run measures everything: contestants take turns, round after round, and the medians and ranges of the rounds are
reported. `--render` writes the document again from the JSON of an earlier run.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import optuna
import pandas as pd
import torch

import bench_gpu
import bench_limits
from actlab.configuration import Configuration, parse
from actlab.experiment import setting_of
from actlab.records import write_text
from actlab.search import suggest
from actlab.trials import Evaluation, Setting, evaluate, make_member
from bench_contestants import (
    CONTESTANTS,
    N_CORES,
    PROCESSES,
    PROCESSES_TITLE,
    Contestant,
    Processes,
    Task,
    Trained,
    article_task,
    comparison_task,
    differences,
    fit_template,
    has_skorch,
    lightning,
)

HOUSE_PRICES = ("data/house_prices/train.csv", "SalePrice")
TOLERANCE = 1e-3
PACKAGES = ("torch", "lightning", "torchmetrics", "optuna", "scikit-learn", "skorch", "numpy", "pandas")


@dataclass(frozen=True)
class Plan:
    """How much of everything is measured.

    Args:
        config: The comparison that is timed as a command, and whose members are the second task.
        rounds: Rounds of each measurement.
        networks: Networks that each contestant trains in a round, for the article's task and the comparison's.
        sample: Members of the comparison that Lightning and processes train, to be scaled.
        search_trials: Trials of a search.
        search_folds: Splits that every trial is trained on.
        search_epochs: Longest training in a search.
        phase_members: Sizes of the populations whose time is divided up.
        epochs: Epochs of populations measured against the limits.
        large: Rows and columns of the large CSV; None leaves it out.
        flags: More arguments of the comparison.
    """

    config: str
    rounds: int
    networks: Mapping[str, tuple[int, int]]
    sample: int
    search_trials: int
    search_folds: int
    search_epochs: int
    phase_members: tuple[int, ...]
    epochs: int
    large: tuple[int, int] | None
    flags: tuple[str, ...] = ()


PLANS = {
    "smoke": Plan(
        "configs/quick.yaml",
        1,
        {**dict.fromkeys((*CONTESTANTS, PROCESSES), (1, 1)), "actlab_64": (4, 2)},
        2,
        2,
        2,
        1,
        (2,),
        2,
        None,
        ("--compare.activations", "[relu]", "--compare.folds", "2", "--trainer.max_epochs", "1"),
    ),
    "quick": Plan(
        "configs/quick.yaml",
        3,
        {
            "plain": (6, 6),
            "plain_fused": (6, 6),
            "lightning": (3, 3),
            PROCESSES: (12, 12),
            "scikit_learn": (4, 6),
            "skorch": (3, 3),
            "vmap": (64, 20),
            "actlab_1": (6, 6),
            "actlab_64": (64, 60),
        },
        12,
        20,
        2,
        30,
        (8, 64),
        4,
        None,
    ),
    "full": Plan(
        "configs/house_prices.yaml",
        5,
        {
            "plain": (12, 13),
            "plain_fused": (12, 13),
            "lightning": (4, 6),
            PROCESSES: (24, 26),
            "scikit_learn": (8, 13),
            "skorch": (4, 6),
            "vmap": (128, 60),
            "actlab_1": (8, 13),
            "actlab_64": (64, 64),
            "actlab_650": (650, 650),
        },
        26,
        100,
        2,
        30,
        (8, 64, 512),
        10,
        (1_000_000, 100),
    ),
}


class Bench:
    """The sections of one run; each gives plain types for the JSON."""

    def __init__(self, mode: str) -> None:
        self.mode, self.plan = mode, PLANS[mode]
        self.sections: dict[str, Callable[[], dict[str, Any]]] = {
            "contestants": self.contestants,
            "comparison": self.comparison,
            "search": self.search,
            "limits": self.limits,
            "phases": self.phases,
            "choices": self.choices,
            "growth": self.growth,
            "startup": self.startup,
            "large": self.large,
            "gpu": self.gpu,
        }

    @cached_property
    def configuration(self) -> Configuration:
        return parse("compare", "", ["--config", self.plan.config, *self.plan.flags])

    @cached_property
    def tasks(self) -> dict[str, Task]:
        is_smoke = self.mode == "smoke"
        article = article_task(*HOUSE_PRICES, 650, 1 if is_smoke else 10)
        return {"article": article, "comparison": comparison_task(self.configuration)}

    def contestants(self) -> dict[str, Any]:
        """Networks per minute of each contestant on both tasks, after a look whether they train the same."""
        found: dict[str, Any] = {}
        for place, (name, task) in enumerate(self.tasks.items()):
            with Processes(task) as processes:
                without = replace(task, max_epochs=min(3, task.max_epochs))
                members = [replace(member, dropout=0.0) for member in task.sample(4)]
                agreement = differences(without, members, processes)
                worst = max(agreement.values())
                if not worst < TOLERANCE:
                    raise RuntimeError(f"the contestants do not train the same networks: {agreement}")
                found[name] = {"agreement": agreement, **self._race(task, place, processes)}
        return found

    def _race(self, task: Task, place: int, processes: Processes) -> dict[str, Any]:
        runs: dict[str, tuple[str, Contestant]] = {**CONTESTANTS, PROCESSES: (PROCESSES_TITLE, processes)}
        asked = {name: self.plan.networks[name][place] for name in runs if name in self.plan.networks}
        if not has_skorch():
            asked.pop("skorch", None)
        times: dict[str, list[tuple[float, Trained]]] = {name: [] for name in asked}
        for _ in range(self.plan.rounds):
            for name, count in asked.items():
                members = task.alike(count) if name == "vmap" else task.sample(count)
                started = time.perf_counter()
                trained = runs[name][1](task, members)
                times[name].append((time.perf_counter() - started, trained))
        longest = max(times.values(), key=lambda own: len(own[0][1].epochs))
        epochs = fmean(longest[0][1].epochs)
        rows = {name: self._row(runs[name][0], own, epochs) for name, own in times.items()}
        return {"mean_epochs": epochs, "max_epochs": task.max_epochs, "rows": rows}

    def _row(self, title: str, runs: Sequence[tuple[float, Trained]], epochs: float) -> dict[str, Any]:
        """Networks per minute, as if all had as many epochs as the largest population's on average."""
        rates = [60 * sum(trained.epochs) / seconds / epochs for seconds, trained in runs]
        scores = [score for score in runs[0][1].scores if np.isfinite(score)]
        return {
            "title": title,
            "networks": len(runs[0][1].scores),
            **spread(rates),
            "seconds": [seconds for seconds, _ in runs],
            "mean_score": fmean(scores) if scores else None,
        }

    def comparison(self) -> dict[str, Any]:
        """A comparison from command to answer, and what a sample of its members costs done otherwise."""
        task, sample = self.tasks["comparison"], self.tasks["comparison"].sample(self.plan.sample)
        command = ["compare", "--config", self.plan.config, *self.plan.flags]
        whole: list[float] = []
        others: dict[str, list[float]] = {"lightning": [], PROCESSES: []}
        member_epochs = 0
        for _ in range(max(1, self.plan.rounds // 2)):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                seconds, _ = bench_limits.timed_command(
                    [sys.executable, "-m", "actlab", *command, "--out", str(run)]
                )
                whole.append(seconds)
                member_epochs = int(pd.read_csv(run / "members.csv").epochs.sum())
            started = time.perf_counter()
            trained = lightning(task, sample)
            others["lightning"].append((time.perf_counter() - started) / sum(trained.epochs))
            started = time.perf_counter()
            with Processes(task) as processes:
                start_s = time.perf_counter() - started
                trained = processes(task, sample)
            epoch_s = (time.perf_counter() - started - start_s) / sum(trained.epochs)
            others[PROCESSES].append(epoch_s + start_s / member_epochs)
        return {
            "command": "actlab " + " ".join(command),
            "members": len(task.members),
            "member_epochs": member_epochs,
            "sample": len(sample),
            "actlab": spread(whole),
            "lightning": spread([member_epochs * epoch_s for epoch_s in others["lightning"]]),
            PROCESSES: spread([member_epochs * epoch_s for epoch_s in others[PROCESSES]]),
        }

    def search(self) -> dict[str, Any]:
        """A search as Optuna's Lightning example is written, and `actlab search` with pruning off and on."""
        plan = self.plan
        flags = ["--config", plan.config, *plan.flags[:2], "--compare.folds", str(plan.search_folds)]
        flags += ["--compare.inner", "1", "--trainer.max_epochs", str(plan.search_epochs)]
        flags += ["--data.batch_size", "24", "--search.n_trials", str(plan.search_trials)]
        configuration = parse("search", "", flags)
        runs = {"example": example_search(configuration)}
        for title, pruning in (("actlab, pruning off", "false"), ("actlab, pruning on", "true")):
            runs[title] = actlab_search([*flags, "--search.pruning", pruning])
        level = max(run.best for run in runs.values())
        settings = {i: setting_of(run.params, configuration) for i, run in enumerate(runs.values())}
        scores = independent_scores(settings, configuration, is_smoke=self.mode == "smoke")
        return {
            "command": "actlab search " + " ".join(flags),
            "trials": plan.search_trials,
            "splits": len(comparison_task(configuration).data),
            "max_epochs": plan.search_epochs,
            "level": level,
            "rows": {
                name: {
                    "seconds": run.seconds,
                    "seconds_to_level": run.seconds_to(level),
                    "best": run.best,
                    "params": run.params,
                    "independent_score": score,
                }
                for (name, run), score in zip(runs.items(), scores, strict=True)
            },
        }

    def limits(self) -> dict[str, Any]:
        """Population training against the rates of a large matrix product and of copies."""
        is_smoke = self.mode == "smoke"
        article = bench_limits.constant_length(self.tasks["article"], self.plan.epochs, "relu")
        plain = replace(article, settings=replace(article.settings, batch_size=128))
        rows: list[dict[str, Any]] = []
        limits = []
        for _ in range(self.plan.rounds):
            limits.append(bench_limits.machine(is_smoke))
            for name, task in (("batch of 24", article), ("batch of 128", plain)):
                for count in (8, 32, 64, 512) if not is_smoke else (2,):
                    rows.append({"task": name, **bench_limits.shares(task, task.members[:count], limits[-1])})
        return {"machines": [asdict(limit) for limit in limits], "rows": medians(rows, ("task", "members"))}

    def phases(self) -> dict[str, Any]:
        """Where the time of a fit goes, with one thread."""
        found: dict[str, Any] = {}
        for name, task in self.tasks.items():
            settled = bench_limits.constant_length(task, self.plan.epochs, "relu")
            for count in self.plan.phase_members:
                found[f"{name}, {count}"] = bench_limits.phases(settled, settled.members[:count])
        return found

    def choices(self) -> dict[str, Any]:
        """Stack size, threads and memory layout, each by what it gives."""
        task = bench_limits.constant_length(self.tasks["article"], self.plan.epochs, "relu")
        members = task.members[: 2 if self.mode == "smoke" else 128]
        sizes, threads, layouts = [], [], []
        for _ in range(self.plan.rounds):
            sizes.append(bench_limits.stack_sizes(task, members))
            threads.append(bench_limits.threadings(task, members))
            layouts.append(bench_limits.layouts(len(members), 24, 288, 144))
        return {
            "members": len(members),
            "stack_sizes": {key: spread([own[key] for own in sizes]) for key in sizes[0]},
            "threads": {key: spread([own[key] for own in threads]) for key in threads[0]},
            "layouts_us": {key: spread([own[key] for own in layouts]) for key in layouts[0]},
        }

    def growth(self) -> dict[str, Any]:
        return bench_limits.growth(self.mode, 1 if self.mode == "smoke" else 3)

    def startup(self) -> dict[str, Any]:
        """From a command to its first training step, and the import that it cannot do without."""
        seconds = bench_limits.start_up(self.plan.config, 2 * self.plan.rounds)
        return {name: spread(own) for name, own in seconds.items()}

    def large(self) -> dict[str, Any]:
        if self.plan.large is None:
            return {"measured": False}
        return {"measured": True, **bench_limits.large_comparison(*self.plan.large)}

    def gpu(self) -> dict[str, Any]:
        return bench_gpu.measure(self.mode, *HOUSE_PRICES)


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}


def medians(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each combination of keys, its other values the medians of the rounds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {key: value if key in keys else median([row[key] for row in own]) for key, value in own[0].items()}
        for own in groups.values()
    ]


@dataclass(frozen=True)
class SearchRun:
    """A search: its length, its best trial, and (seconds since the start, value) of each trial in order of its end."""

    seconds: float
    best: float
    params: dict[str, Any]
    history: tuple[tuple[float, float], ...]

    def seconds_to(self, level: float) -> float | None:
        """When a value this low was found first."""
        return next((at for at, value in self.history if value <= level), None)


def search_run(study: optuna.Study, started: datetime, seconds: float) -> SearchRun:
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE and t.value is not None]
    ends = [(t.datetime_complete.timestamp(), t.value) for t in done if t.datetime_complete and t.value is not None]
    history = tuple(sorted((at - started.timestamp(), value) for at, value in ends))
    return SearchRun(seconds, float(study.best_value), dict(study.best_params), history)


class Reporting(pl.Callback):
    """Optuna's pruning callback: reports after every validation and ends the trial when the pruner says so."""

    def __init__(self, trial: optuna.Trial, task: Task, before: Sequence[float]) -> None:
        self.trial, self.before = trial, before
        self.sd, self.offset, self.best = next(iter(task.data.values())).scaler.sd, 0, np.inf
        self.offset = len(before) * task.max_epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics["val/loss"]) ** 0.5 * self.sd
        self.best = min(self.best, score)
        self.trial.report(fmean([*self.before, self.best]), self.offset + trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def example_search(configuration: Configuration) -> SearchRun:
    """TPE, one Trainer a network, MedianPruner; a trial is trained on the same splits as actlab's, one after another."""
    task = comparison_task(configuration)
    splits = list(task.data)

    def objective(trial: optuna.Trial) -> float:
        setting = setting_of(suggest(trial, configuration), configuration)
        scores: list[float] = []
        for split in splits:
            member = make_member(trial.number, setting, split, configuration.seed)
            scores.append(fit_template(task, member, [Reporting(trial, task, scores)])[0])
        return fmean(scores)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=configuration.seed)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner())
    started, clock = datetime.now(), time.perf_counter()  # noqa: DTZ005
    study.optimize(objective, n_trials=configuration.search.n_trials)
    return search_run(study, started, time.perf_counter() - clock)


def actlab_search(flags: Sequence[str]) -> SearchRun:
    """The command, from its start to its answer."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = datetime.now()  # noqa: DTZ005
        command = [sys.executable, "-m", "actlab", "search", *flags, "--out", str(run)]
        seconds, _ = bench_limits.timed_command(command)
        backend = optuna.storages.journal.JournalFileBackend(str(run / "study.journal"))
        study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
        return search_run(study, started, seconds)


def independent_scores(
    settings: dict[int, Setting], configuration: Configuration, is_smoke: bool = False
) -> list[float]:
    """Mean test score of each search's best setting on new splits and seeds, all trained as one population."""
    from actlab.table import read_table

    protocol = replace(configuration.compare, folds=2 if is_smoke else 5, inner=1 if is_smoke else 2)
    options = {**configuration.trainer, "accelerator": "cpu"}
    evaluation = Evaluation(configuration.data, protocol, configuration.optimizer, options, configuration.seed + 1)
    results = evaluate(settings, evaluation, read_table(configuration.data))
    return [fmean(outcome.test_score for outcome in result.outcomes) for result in results]


def about_machine() -> dict[str, Any]:
    """Processor, memory, versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": N_CORES,
        "cpu": cpu_name(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


# --- the document -----------------------------------------------------------------------------------------------------
