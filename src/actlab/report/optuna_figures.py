"""Figures of a search (which parameter mattered, the score by each of them), and Optuna's own figures of its study."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from actlab.printed_tables import is_number, is_quantity
from actlab.report.drawing import INK, PALETTE, label_rows, look, panels_of, place_ticks, sheet, short
from actlab.report.finished import FinishedRun
from actlab.report.words import three_digits
from actlab.run_files import write_atomically

PANELS_A_ROW = 3
LEGEND_COLUMNS = 5
# Levels that have room for their names under a panel; a parameter with more is left to the table of trials.
MAX_LEVELS = 10
LOGARITHMIC = ("learning_rate", "weight_decay")
# what is drawn against a parameter, and what has a figure of its own
NOT_PARAMETERS = ("trial", "activation", "val_score")
DPI = 120
# of its trees. Full ones of the default comparison's 65 trials take a minute, these 0.4 s; they call the activation's
# share 0.72 where full ones call it 0.69
FANOVA_DEPTH = 4

Trial = Mapping[str, Any]


def _title(parameter: str) -> str:
    return {"hidden": "hidden layers", "init": "initial weights"}.get(parameter, parameter.replace("_", " "))


def importances(run: FinishedRun) -> Figure | None:
    """How much of the variance of the trials' scores each parameter explains, the largest share first."""
    found: dict[str, float] = run.summary.get("importances") or {}
    if not found:
        return None
    names = sorted(found, key=lambda name: -found[name])
    shares = [found[name] for name in names]
    figure = sheet(0.6, n_rows=len(names))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), shares, height=0.6, color=PALETTE[0])
    for place, share in enumerate(shares):
        axes.annotate(f"{share:.0%}", (share, place), (4, 0), textcoords="offset points", va="center", color=INK)
    label_rows(axes, list(map(_title, names)))
    axes.set_xlim(0, 1.15 * shares[0] or 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(True, axis="x")
    axes.set_xlabel("share of the variance of validation scores explained (fANOVA)")
    return figure


def slices(run: FinishedRun) -> Figure | None:
    """Validation score of every trial by each parameter that was searched, a mark an activation."""
    trials = [trial for trial in run.summary.get("trials") or [] if is_number(trial.get("val_score"))]
    searched = [name for name in (trials[0] if trials else ()) if name not in NOT_PARAMETERS]
    varied = [name for name in searched if len({str(trial.get(name)) for trial in trials}) > 1]
    parameters = [name for name in varied if len(_levels(name, trials)) <= MAX_LEVELS]
    if not parameters:
        return None
    tried = {str(trial["activation"]) for trial in trials}
    names = [name for name in run.order if name in tried] + sorted(tried - set(run.order))
    n_rows, legend_rows = math.ceil(len(parameters) / PANELS_A_ROW), math.ceil(len(names) / LEGEND_COLUMNS)
    figure = sheet(2.5 * n_rows + 0.22 * legend_rows + 0.1)
    panels = panels_of(figure, len(parameters), PANELS_A_ROW, sharex=False)
    for axes, parameter in zip(panels.flat, parameters, strict=False):
        _slice(axes, parameter, trials, names)
    scores = np.array([trial["val_score"] for trial in trials])
    best = float(scores.min())
    panels[0, 0].set_ylim(best * 0.97, max(min(float(scores.max()), best * 3), best * 1.05) * 1.03)
    for row in panels:
        row[0].set_ylabel(f"validation {run.target.metric_name}")
    marks, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(marks, labels, loc="outside lower center", ncols=LEGEND_COLUMNS, handletextpad=0.1, columnspacing=0.9)
    return figure


def _slice(axes: Axes, parameter: str, trials: Sequence[Trial], names: Sequence[str]) -> None:
    levels = _levels(parameter, trials)
    for name in names:
        own = [trial for trial in trials if trial["activation"] == name]
        x = [levels.index(str(trial[parameter])) if levels else float(trial[parameter]) for trial in own]
        y, own_look = [trial["val_score"] for trial in own], look(name)
        style: Any = {"marker": own_look.marker, "color": own_look.colour, "alpha": 0.8, "linewidth": 0}
        axes.scatter(x, y, s=20, label=short(name), **style)
    if levels:
        axes.set_xticks(range(len(levels)), [short(level) for level in levels], rotation=90)
        axes.set_xlim(-0.6, len(levels) - 0.4)
    elif parameter in LOGARITHMIC and min(float(trial[parameter]) for trial in trials) > 0:
        _logarithmic(axes, [float(trial[parameter]) for trial in trials])
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel(_title(parameter))
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="y")


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A tick a power of ten, or the ends where there is none between them."""
    low, high = min(values), max(values)
    decades = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    ticks = decades[:: math.ceil(len(decades) / 4)] if decades else [low, high]
    axes.set_xscale("log")
    place_ticks(axes.xaxis, ticks, [three_digits(tick) for tick in ticks])


def _levels(parameter: str, trials: Sequence[Trial]) -> list[str]:
    """What a parameter can be where that is not always a number; none otherwise."""
    values = [trial.get(parameter) for trial in trials]
    return [] if all(map(is_quantity, values)) else sorted(set(map(str, values)))


def draw_study(study: optuna.Study, directory: Path) -> list[Path]:
    """Write the figures that the study has enough trials for, as PNG; returns their paths.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    from matplotlib import pyplot as plt

    paths = []
    with _without_a_window():
        for name, draw in _drawings(_finite(study)).items():
            paths.append(directory / f"{name}.png")
            # Optuna sets a style of its own for the whole process, and returns one axes or an array of them
            with style.context("default"):
                figure = np.ravel(draw())[0].figure
                write_atomically(paths[-1], partial(figure.savefig, format="png", dpi=DPI, bbox_inches="tight"))
                plt.close(figure)
    return paths


def _drawings(study: optuna.Study) -> dict[str, Callable[[], Any]]:
    """File name to what draws it."""
    from optuna.visualization import matplotlib as figures

    drawings: dict[str, Callable[[], Any]] = {}
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    parameters = sorted({name for trial in complete for name in trial.params})
    # the names of categories overlap under Optuna's panels
    numeric = [name for name in parameters if all(isinstance(trial.params.get(name), float) for trial in complete)]
    if numeric and len(complete) > 1:
        drawings["optuna_slice"] = partial(figures.plot_slice, study, params=numeric)
    if options := _importance_options(complete):
        pair = ["learning_rate", "activation"]
        drawings["optuna_learning_rate_by_activation"] = partial(figures.plot_rank, study, params=pair)
        drawings["optuna_importances"] = partial(figures.plot_param_importances, study, **options)
    if any(trial.intermediate_values for trial in complete):
        drawings["optuna_intermediate_values"] = partial(figures.plot_intermediate_values, study)
    return drawings


def importance_shares(study: optuna.Study) -> dict[str, float]:
    """Parameter to the share of the variance of the finished trials' values that it explains, as Optuna's figure shows
    it; shares add up to one. Empty for a few trials."""
    study = _finite(study)
    options = _importance_options(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    found = optuna.importance.get_param_importances(study, **options) if options else {}
    return {name: float(share) for name, share in found.items()}


def _importance_options(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """How importances are told, of the parameters that differ between trials; empty where they cannot be."""
    parameters = sorted({name for trial in trials for name in trial.params})
    varied = [name for name in parameters if len({trial.params.get(name) for trial in trials}) > 1]
    values = [trial.value for trial in trials if trial.value is not None]
    if len(varied) < 2 or len(trials) < 4 or len(set(values)) < 2:
        return {}
    # scikit-learn's trees take a small variance for none: scores in a unit of their own, a power of two
    unit = math.frexp(max(map(abs, values)))[1]
    evaluator = optuna.importance.FanovaImportanceEvaluator(max_depth=FANOVA_DEPTH, seed=0)
    return {"params": varied, "evaluator": evaluator, "target": lambda trial: math.ldexp(trial.value, -unit)}


@contextmanager
def _without_a_window() -> Iterator[None]:
    """pyplot draws without a screen in here, and afterwards where it did before: a notebook goes on showing figures."""
    from matplotlib import pyplot as plt

    # by way of dict, which does not start a backend where none was asked for
    before = dict.__getitem__(mpl.rcParams, "backend")
    plt.switch_backend("agg")
    try:
        with warnings.catch_warnings():
            # marked experimental since Optuna 2.2
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # matplotlib: axes that a few trials leave flat
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        plt.switch_backend(before)


def _finite(study: optuna.Study) -> optuna.Study:
    """A copy in memory without trials that diverged: there is no place for infinity on an axis. User attributes stay
    behind: Optuna copies its trials for every figure, and curves are most of what they hold."""
    kept = ("state", "value", "params", "distributions", "intermediate_values")
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.value is not None and math.isfinite(trial.value):
            copy.add_trial(optuna.trial.create_trial(**{name: getattr(trial, name) for name in kept}))
    return copy
