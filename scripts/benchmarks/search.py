"""Section `search`: a study as Optuna's own Lightning example is written, and `actlab search`."""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning.pytorch as pl
import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend

from actlab.config import Configuration, parse
from actlab.data.table import read_table
from actlab.runs.evaluate import Evaluation, Setting, Work, evaluate, make_member
from benchmarks.command import timed_command
from benchmarks.frameworks import fit_template
from benchmarks.markdown import Section, number, table
from benchmarks.plans import Bench
from benchmarks.tasks import ARTICLE_BATCH, Task, comparison_task

TEXT = """## A search

A study as Optuna's Lightning example is written (TPE, MedianPruner, one Trainer a network) against `actlab search`, on
the article's network and batch size. A trial of each is trained on the same splits, its value is the same quantity,
and the example reports the mean over the splits so far after every epoch. MedianPruner's defaults stop a trial from its
first epoch on, so the example trains few network epochs and ends at a worse value. `To the level` is when a search
found a value as good as the best of the least successful of the three; actlab's time starts with its command and ends
with its report. The last column is the mean test score of the best setting found, trained again on new splits and
seeds. Then the example goes on beyond its trials, until it has a value as good as actlab's with pruning, or for
PATIENCE times as long as actlab took. One round.
"""
# The example may take so many times as long to be as good.
PATIENCE = 20
TITLES = {
    "example": "(f) Optuna's Lightning example",
    "pruning off": "actlab search, pruning off",
    "pruning on": "actlab search, pruning on",
}


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


def example_search(configuration: Configuration, goal: float, most_s: float) -> tuple[SearchRun, SearchRun]:
    """TPE, one Trainer a network, MedianPruner; a trial is trained on actlab's splits, one after the other.

    Returns:
        The search of `search.n_trials`, and the same gone on with until a value is at most `goal` or `most_s` are over.
    """
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
    asked = search_run(study, started, time.perf_counter() - clock)

    def stop_at_goal(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if study.best_value <= goal:
            study.stop()

    if asked.best > goal and asked.seconds < most_s:
        study.optimize(objective, timeout=most_s - asked.seconds, callbacks=[stop_at_goal])
    return asked, search_run(study, started, time.perf_counter() - clock)


def actlab_search(flags: Sequence[str]) -> SearchRun:
    """The command, from its start to its answer."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = datetime.now()
        command = [sys.executable, "-m", "actlab", "search", *flags, "--out", str(run)]
        seconds, _ = timed_command(command)
        backend = JournalFileBackend(str(run / "study.journal"))
        study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
        return search_run(study, started, seconds)


def independent_scores(
    settings: dict[int, Setting], configuration: Configuration, is_smoke: bool = False
) -> list[float]:
    """Mean test score of each search's best setting on new splits and seeds, all trained as one population."""
    protocol = replace(
        configuration.compare.splitting("search"), folds=2 if is_smoke else 5, inner=1 if is_smoke else 2
    )
    options = {**configuration.trainer, "accelerator": "cpu"}
    evaluation = Evaluation(configuration.data, protocol, configuration.optimizer, options, configuration.seed + 1)
    results = evaluate(
        {number: Work(own) for number, own in settings.items()}, evaluation, read_table(configuration.data)
    )
    return [fmean(outcome.test_score for outcome in result.outcomes) for result in results]


def measure(bench: Bench) -> dict[str, Any]:
    """The three searches, one after the other, and the example gone on with."""
    plan = bench.plan
    flags = ["--config", plan.config, *plan.flags[:2], "--compare.folds", str(plan.search_folds)]
    flags += ["--compare.inner", "1", "--trainer.max_epochs", str(plan.search_epochs)]
    flags += ["--data.batch_size", str(ARTICLE_BATCH), "--search.n_trials", str(plan.search_trials)]
    configuration = parse("search", flags)
    own = {
        title: actlab_search([*flags, "--search.pruning", pruning])
        for title, pruning in (("pruning off", "false"), ("pruning on", "true"))
    }
    goal = own["pruning on"].best
    asked, longer = example_search(configuration, goal, 0 if bench.is_smoke else PATIENCE * own["pruning on"].seconds)
    runs = {"example": asked, **own}
    level = max(run.best for run in runs.values())
    settings = {i: setting_of(run.params, configuration) for i, run in enumerate(runs.values())}
    scores = independent_scores(settings, configuration, bench.is_smoke)
    return {
        "command": "actlab search " + " ".join(flags),
        "trials": plan.search_trials,
        "splits": len(comparison_task(configuration).data),
        "max_epochs": plan.search_epochs,
        "level": level,
        "goal": goal,
        "goal_seconds": longer.seconds_to(goal),
        "searched_seconds": longer.seconds,
        "searched_best": longer.best,
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


def render(found: dict[str, Any]) -> str:
    slow = found["rows"]["example"]["seconds"]
    rows = [
        (
            TITLES[name],
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
        f"epochs; the level is {found['level']:.4f}.\n\n" + table(head, rows) + f"\n{goal_sentence(found)}\n"
    )


def goal_sentence(found: Mapping[str, Any]) -> str:
    """What became of the example when it went on."""
    own, reached = found["rows"]["pruning on"]["seconds"], found["goal_seconds"]
    if reached is not None:
        return (
            f"The example had a value as good as {found['goal']:.4f} after {reached:.0f} s, {reached / own:.1f} times "
            "as long as all of actlab's search with pruning."
        )
    searched = found["searched_seconds"]
    return (
        f"The example had no value as good as {found['goal']:.4f} after {searched:.0f} s, {searched / own:.1f} times "
        f"as long as all of actlab's search with pruning; its best was {found['searched_best']:.4f}."
    )


SECTION = Section(TEXT, measure, render)
