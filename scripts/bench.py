"""Measure how fast actlab is, against what people would do and against the machine, and write docs/benchmarks.md.

    python scripts/bench.py quick|full|smoke [--only SECTION ...] [--json FILE] [--output FILE]

One run measures everything: contestants take turns, round after round, and the medians and ranges of the rounds are
reported. `--render` writes the document again from the JSON of an earlier run.
"""

import argparse
import importlib.metadata
import json
import logging
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
from optuna.storages.journal import JournalFileBackend

import bench_gpu
import bench_limits
from actlab.configuration import Configuration, parse
from actlab.records import write_text
from actlab.runs.trials import Evaluation, Setting, evaluate, make_member
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
                seconds, _ = bench_limits.timed_command([sys.executable, "-m", "actlab", *command, "--out", str(run)])
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
                rows += [
                    {"task": name, **bench_limits.shares(task, task.members[:count], limits[-1])}
                    for count in ((2,) if is_smoke else (8, 32, 64, 512))
                ]
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


def setting_of(params: Mapping[str, Any], configuration: Configuration) -> Setting:
    """The network of a trial of the default search space: activation and learning rate."""
    model, decay = configuration.model, configuration.optimizer.weight_decay
    name, rate = params["activation"], params["learning_rate"]
    return Setting(name, rate, decay, tuple(model.hidden), model.dropout, model.init)


def example_search(configuration: Configuration) -> SearchRun:
    """TPE, one Trainer a network, MedianPruner; a trial is trained on actlab's splits, one after the other."""
    task = comparison_task(configuration)
    splits = list(task.data)

    def objective(trial: optuna.Trial) -> float:
        space = configuration.search
        trial.suggest_categorical("activation", space.activations or configuration.compare.activations)
        trial.suggest_float("learning_rate", *space.learning_rate, log=True)
        setting = setting_of(trial.params, configuration)
        scores: list[float] = []
        for split in splits:
            member = make_member(trial.number, setting, split, configuration.seed)
            scores.append(fit_template(task, member, [Reporting(trial, task, scores)])[0])
        return fmean(scores)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=configuration.seed)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner())
    started, clock = datetime.now(), time.perf_counter()
    study.optimize(objective, n_trials=configuration.search.n_trials)
    return search_run(study, started, time.perf_counter() - clock)


def actlab_search(flags: Sequence[str]) -> SearchRun:
    """The command, from its start to its answer."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = datetime.now()
        command = [sys.executable, "-m", "actlab", "search", *flags, "--out", str(run)]
        seconds, _ = bench_limits.timed_command(command)
        backend = JournalFileBackend(str(run / "study.journal"))
        study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
        return search_run(study, started, seconds)


def independent_scores(
    settings: dict[int, Setting], configuration: Configuration, is_smoke: bool = False
) -> list[float]:
    """Mean test score of each search's best setting on new splits and seeds, all trained as one population."""
    from actlab.data.table import read_table

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


INTRODUCTION = """# Benchmarks

Written by `COMMAND` from the figures of one run; `--render` writes it again from the JSON. Figures are medians of
ROUNDS rounds in which the contestants take turns, with the lowest and the highest in brackets.
"""

METHOD = {
    "contestants": """## Against what people would do

Networks trained per minute on the whole machine, on data that are preprocessed already. All contestants start from the
same initial weights, visit the same batches in the same order, use AdamW with the same settings, are scored on the same
validation rows after every epoch and stop early by the same rule; before anything is timed their validation scores
must agree with actlab's. Two differ by their nature: scikit-learn draws its own weights, stops on rows of its own and
has ReLU in place of the activations it lacks; skorch shuffles by itself. Slow contestants train a sample that is spread
evenly over the members; the rate is that of their network epochs, at the epochs which the largest population's members
take on average. Processes are started before the clock. `torch.func.vmap` gets up to 64 members of equal activation and
learning rate at a time.
""",
    "comparison": """## A comparison as users run it

From the command to the answer, everything included (start, reading, report), against a sample of the same members
trained by one Lightning `Trainer` each and by a plain loop in parallel processes, scaled by network epochs. Neither
counts preprocessing, statistics, a report or, for Lightning, the start of Python.
""",
    "search": """## A search

A study as Optuna's Lightning example is written (TPE, MedianPruner, one Trainer a network) against `actlab search`, on
the default network with the article's batch size. A trial of each is trained on the same splits, its value is the same
quantity, and the example reports the mean over the splits so far after every epoch. `To the level` is when a search
found a value as good as the best of the least successful of the three; actlab's time starts with its command. The last
column is the mean test score of the best setting found, trained again on new splits and seeds.
""",
    "limits": """## Against the limit

Training steps of a population (no validation, no Lightning) against a large matrix product and against large copies,
each with the same number of threads in the same process, the better of threads inside one product and a product in
each thread. Floating-point operations are those of the matrix products, 2 B (3 W - W_1) a step for W weights, W_1 of
them in the first layer, whose inputs need no gradient. Bytes are 40 a parameter (weights read forward and backward,
gradient written, the optimiser's four reads and three writes) and four times the batch's inputs. The roofline adds both
times: its share is (FLOP / FLOP rate + bytes / copy rate) / time; `in cache` takes the rate of copies as large as a
stack instead, which are faster, so that less of the time is excused.
""",
    "phases": """## Where the time goes

Shares of one fit with one thread, with TensorBoard logging switched on. `loss and the loop` is what remains of an
epoch, `Lightning` what remains of the fit.
""",
    "choices": """## How the choices were made

Networks per minute of MEMBERS members of the article's network by stack size (weights, gradients and two moments)
and by how the cores are used; microseconds a member of the first layer, forward and backward, by memory layout.
""",
    "growth": """## Growth

Every point is a process of its own on a generated CSV. The exponent s is that of time = a + b n^s, where a is the fixed
part: 1.0 is linear.
""",
    "startup": """## From the command to the first training step

Seconds from the start of the process; `import lightning.pytorch` alone is what no program on Lightning can avoid.
""",
    "large": "## A large CSV\n",
    "gpu": """## GPU

The same program with `trainer.accelerator=gpu`. The matrix product's rate is measured in the same precision.
""",
}

TRIED = """## What was tried and did not help

- **Weights as (P, out, in)**, as `nn.Linear` has them: the gradient of the first layer then needs a copy that turns it
  round, 115 us a member and step. They lie (P, in, out).
- **One flat (P, D) row a member with views for the layers**: autograd makes a zero-padded gradient of the whole row for
  every view, twice the time. Every tensor is a parameter of its own.
- **Two threads inside each product**: matrices this small gain little from them. Two Python threads, each with a stack
  and one thread of arithmetic, gain nearly twofold.
- **Other settings of malloc**: no difference.
- **`MKL_CBWR=AUTO`**, which asks for reproducible products: it costs nothing, and gains nothing either.
- **`torch.compile`**: no gain on a CPU at this size, and 10-39 s to compile.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def span(found: Mapping[str, float], spec: str = ",.0f", scale: float = 1.0) -> str:
    """median (low-high)."""
    shown = [format(found[key] * scale, spec) for key in ("median", "low", "high")]
    return f"{shown[0]} ({shown[1]}-{shown[2]})"


def number(value: float | None, spec: str = ".4f") -> str:
    return "-" if value is None else format(value, spec)


def render_contestants(found: dict[str, Any]) -> str:
    titles = {"article": "Article's network: batch 24", "comparison": "Default comparison"}
    parts = []
    for name, task in found.items():
        rows, best = task["rows"], max(row["median"] for key, row in task["rows"].items() if key.startswith("actlab"))
        parts.append(
            f"### {titles[name]}, up to {task['max_epochs']} epochs, {task['mean_epochs']:.1f} on average\n\n"
            + table(
                ("contestant", "networks trained", "networks a minute", "actlab's best is", "mean validation score"),
                [
                    (
                        row["title"],
                        str(row["networks"]),
                        span(row),
                        f"{best / row['median']:.1f} x",
                        number(row["mean_score"]),
                    )
                    for row in rows.values()
                ],
            )
            + ("" if "skorch" in rows else "\nskorch is not installed: not measured.\n")
            + f"\nLargest difference of a validation score before timing: {max(task['agreement'].values()):.1e}.\n"
        )
    return "\n".join(parts)


def render_comparison(found: dict[str, Any]) -> str:
    titles = {"actlab": "actlab", "lightning": CONTESTANTS["lightning"][0], PROCESSES: PROCESSES_TITLE}
    rows = [
        (title, span(found[key]), f"{found[key]['median'] / found['actlab']['median']:.1f} x")
        for key, title in titles.items()
    ]
    return (
        f"`{found['command']}`: {found['members']:,} members, {found['member_epochs']:,} network epochs; the others on "
        f"a sample of {found['sample']} members.\n\n" + table(("", "seconds", "of actlab's"), rows)
    )


def render_search(found: dict[str, Any]) -> str:
    slow = found["rows"]["example"]["seconds"]
    rows = [
        (
            name,
            f"{row['seconds']:.0f}",
            f"{slow / row['seconds']:.1f} x",
            number(row["seconds_to_level"], ".0f"),
            number(row["best"]),
            f"{row['params']['activation']} at {row['params']['learning_rate']:.2g}",
            number(row["independent_score"]),
        )
        for name, row in found["rows"].items()
    ]
    head = ("", "seconds", "faster", "to the level, s", "best value", "best setting", "its test score")
    return (
        f"`{found['command']}`: {found['trials']} trials on {found['splits']} splits, up to {found['max_epochs']} "
        f"epochs; the level is {found['level']:.4f}.\n\n" + table(head, rows)
    )


def render_limits(found: dict[str, Any]) -> str:
    flops, copy, cache = (median(m[key] for m in found["machines"]) for key in ("flops", "copy", "copy_in_cache"))
    head = ("ReLU network", "members", "us a step and member", "with all of the fit", "matrix product", "copies")
    rows = [
        (
            row["task"],
            str(row["members"]),
            f"{row['step_us']:.0f}",
            f"{row['fit_step_us']:.0f}",
            *(f"{row[key]:.0%}" for key in SHARES),
        )
        for row in found["rows"]
    ]
    return (
        f"Matrix product {flops / 1e9:.0f} GFLOP/s, copies {copy / 1e9:.1f} GB/s, in cache {cache / 1e9:.1f} GB/s.\n\n"
        + table((*head, "roofline", "roofline in cache"), rows)
    )


SHARES = ("matrix_share", "copy_share", "roofline_share", "roofline_share_in_cache")


def render_phases(found: dict[str, Any]) -> str:
    parts = list(dict.fromkeys(part for own in found.values() for part in own if part != "total"))
    rows = [
        (f"{name} members", f"{own['total']:.2f}", *(f"{own.get(part, 0) / own['total']:.1%}" for part in parts))
        for name, own in found.items()
    ]
    return table(("", "seconds", *parts), rows)


def render_choices(found: dict[str, Any]) -> str:
    rates = {**{f"stacks of {key}": own for key, own in found["stack_sizes"].items()}, **found["threads"]}
    layouts = found["layouts_us"].items()
    return (
        table(("", "networks a minute"), [(key, span(own)) for key, own in rates.items()])
        + "\n"
        + table(("weights of the first layer", "us a member"), [(key, span(own, ".0f")) for key, own in layouts])
    )


def render_growth(found: dict[str, Any]) -> str:
    parts = []
    for axis, own in found.items():
        head = (axis, "CSV read, s", "to the first step, s", "training, s", "peak memory, MB", "of which imports, MB")
        rows = [
            (
                f"{point['size']:,}",
                *(f"{point[key]:.2f}" for key in ("read_s", "first_step_s", "train_s")),
                *(f"{point[key] / 1e6:,.0f}" for key in ("peak_bytes", "imported_bytes")),
            )
            for point in own["points"]
        ]
        fixed = {key: value for key, value in own["points"][0].items() if key in POINT and key != axis}
        slopes = own["slopes"]
        parts.append(
            f"### By {axis} ({', '.join(f'{key} {shown(value)}' for key, value in fixed.items())})\n\n"
            + table(head, rows)
            + f"\nExponent of training {number(slopes['train_s'], '.2f')}, of the time to the first step "
            f"{number(slopes['first_step_s'], '.2f')}.\n"
        )
    return "\n".join(parts)


POINT = ("members", "rows", "columns", "activations", "epochs", "batch")


def shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value:,}"


def render_startup(found: dict[str, Any]) -> str:
    before, whole = (found[key]["median"] for key in ("import lightning.pytorch", "actlab compare"))
    rows = [(f"`{key}`", span(own, ".2f")) for key, own in found.items()]
    return table(("", "seconds"), rows) + f"\nThe first step comes {whole - before:.1f} s after the import alone.\n"


def render_large(found: dict[str, Any]) -> str:
    return (
        f"`{found['command']}` on {found['rows']:,} rows x {found['columns']} columns ({found['csv_bytes'] / 1e6:,.0f} "
        f"MB): {found['seconds']:.0f} s, peak memory {found['peak_bytes'] / 1e9:.2f} GB.\n"
    )


def render_gpu(found: dict[str, Any]) -> str:
    head = ("network", "precision", "members", "networks a minute", "in steps alone", "peak memory, MB")
    rows = [
        (row["task"], row["precision"], f"{row['members']:,}", "out of memory", *["-"] * 6)
        if row.get("out_of_memory")
        else (
            row["task"],
            row["precision"],
            f"{row['members']:,}",
            f"{row['networks_per_minute']:,.0f}",
            f"{row['steps_alone_per_minute']:,.0f}",
            f"{row['peak_bytes'] / 1e6:,.0f}",
            *(f"{row[key]:.0%}" for key in SHARES[:3]),
        )
        for row in found["rows"]
    ]
    agreement = [
        f"- {precision}: validation scores differ from the CPU's by at most {own['first_epoch']:.1e} after the first "
        f"epoch and {own['last_epoch']:.1e} after the last."
        for precision, own in found["agreement"].items()
    ]
    largest = [
        f"- {precision}: the largest that trains has {n:,} members." for precision, n in found["largest"].items()
    ]
    return (
        f"{found['device']}.\n\n"
        + table((*head, "matrix product", "copies", "roofline"), rows)
        + "\n".join(["", *agreement, *largest, ""])
    )


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "contestants": render_contestants,
    "comparison": render_comparison,
    "search": render_search,
    "limits": render_limits,
    "phases": render_phases,
    "choices": render_choices,
    "growth": render_growth,
    "startup": render_startup,
    "large": render_large,
    "gpu": render_gpu,
}


def render(results: Mapping[str, Any]) -> str:
    """docs/benchmarks.md from the JSON of a run; a section that was not measured says so."""
    machine = results["machine"]
    parts = [
        INTRODUCTION.replace("COMMAND", results["command"]).replace("ROUNDS", str(results["rounds"])),
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_bytes'] / 2**30:.0f} GiB of memory, "
        f"{machine['system']}; load before the start {machine['load_before']:.1f}; {results['date']}, "
        f"{results['seconds'] / 60:.0f} minutes.\n",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + ".\n",
    ]
    for name, draw in RENDERERS.items():
        found = results["sections"].get(name, {"measured": False})
        text = METHOD[name].replace("MEMBERS", str(found.get("members", "")))
        if found.get("measured", True):
            parts += [text, draw(found)]
        else:
            parts += [text, f"Not measured{': ' + found['why'] if 'why' in found else ''}.\n"]
    return "\n".join([*parts, TRIED])


def measure(mode: str, only: Sequence[str], json_path: Path) -> dict[str, Any]:
    """Run the sections, writing the JSON after each, so that an interrupted run keeps what it has."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    bench = Bench(mode)
    started = time.perf_counter()
    results: dict[str, Any] = {
        "mode": mode,
        "command": f"python scripts/bench.py {mode}" + (f" --only {' '.join(only)}" if only else ""),
        "rounds": bench.plan.rounds,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": about_machine(),
        "sections": {},
        "section_seconds": {},
    }
    for name in only or bench.sections:
        print(f"{name} ...", file=sys.stderr, flush=True)
        at = time.perf_counter()
        results["sections"][name] = bench.sections[name]()
        results["section_seconds"][name] = time.perf_counter() - at
        results["seconds"] = time.perf_counter() - started
        json_path.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_path, json.dumps(results, indent=1) + "\n")
    return results


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Measure actlab against what people would do and against the machine.")
    parser.add_argument("mode", nargs="?", choices=list(PLANS), help="how much is measured (default: quick)")
    parser.add_argument("--smoke", action="store_true", help="the same as the mode smoke: does everything run")
    parser.add_argument("--only", nargs="+", choices=list(RENDERERS), default=[], help="sections; all if not given")
    parser.add_argument("--json", help="figures (default: runs/bench.json, runs/bench-smoke.json)")
    parser.add_argument("--output", help="document (default: docs/benchmarks.md, runs/bench-smoke.md)")
    parser.add_argument("--render", action="store_true", help="write the document from the JSON, measuring nothing")
    asked = parser.parse_args(arguments)
    mode = "smoke" if asked.smoke else asked.mode or "quick"
    is_smoke = mode == "smoke"
    json_path = Path(asked.json or ("runs/bench-smoke.json" if is_smoke else "runs/bench.json"))
    output = Path(asked.output or ("runs/bench-smoke.md" if is_smoke else "docs/benchmarks.md"))
    results = json.loads(json_path.read_text()) if asked.render else measure(mode, asked.only, json_path)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, render(results))
    print(f"{output} and {json_path}")


if __name__ == "__main__":
    main(sys.argv[1:])
