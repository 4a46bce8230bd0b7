"""Optuna's own figures of a study: which parameter matters, and the score by learning rate and activation."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from actlab.records import write_atomically

DPI = 120


def draw_study(study: optuna.Study, directory: Path) -> list[Path]:
    """Write the figures that the study has enough trials for; returns their paths.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    import matplotlib as mpl

    # no window, on machines with and without a screen
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as figures

    study = _finite(study)
    drawings: dict[str, Callable[[], Any]] = {}
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    parameters = sorted({name for trial in complete for name in trial.params})
    if parameters and len(complete) > 1:
        drawings["optuna_slice.png"] = lambda: figures.plot_slice(study, params=parameters)
    varied = [name for name in parameters if len({trial.params.get(name) for trial in complete}) > 1]
    if len(varied) > 1 and len(complete) > 3:
        drawings["optuna_learning_rate_by_activation.png"] = lambda: figures.plot_rank(
            study, params=["learning_rate", "activation"]
        )
        drawings["optuna_importances.png"] = lambda: figures.plot_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=varied
        )
    if any(trial.intermediate_values for trial in complete):
        drawings["optuna_intermediate_values.png"] = lambda: figures.plot_intermediate_values(study)
    paths = []
    for name, draw in drawings.items():
        with warnings.catch_warnings():
            # marked experimental since Optuna 2.2
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # matplotlib: axes that a few trials leave flat
            warnings.simplefilter("ignore", UserWarning)
            figure = _figure_of(draw())
            _save(figure, directory / name)
            plt.close(figure)
        paths.append(directory / name)
    return paths


def _finite(study: optuna.Study) -> optuna.Study:
    """A copy in memory without trials that diverged: there is no place for infinity on an axis."""
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.value is not None and math.isfinite(trial.value):
            copy.add_trial(trial)
    return copy


def _save(figure: Any, path: Path) -> None:
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=DPI, bbox_inches="tight"))


def _figure_of(axes: Any) -> Any:
    """Optuna returns one axes, or an array of them."""
    first = axes.flat[0] if hasattr(axes, "flat") else axes
    return first.figure
