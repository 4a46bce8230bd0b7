"""Optuna's own figures of a study: which parameter matters, and the score by learning rate and activation."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import style
from optuna.trial import FrozenTrial, TrialState

from actlab.records import write_atomically

DPI = 120
# of its trees. Full ones of the default comparison's 65 trials take a minute, these 0.4 s; they call the activation's
# share 0.72 where full ones call it 0.69
FANOVA_DEPTH = 4


def draw_study(study: optuna.Study, directory: Path) -> list[Path]:
    """Write the figures that the study has enough trials for, as PNG; returns their paths.

    Raises:
        InputError: the disk is full or the directory cannot be written.
    """
    paths = []
    with without_a_window():
        from matplotlib import pyplot as plt

        for name, draw in _drawings(_finite(study)).items():
            path = directory / f"{name}.png"
            # Optuna sets a style of its own for the whole process
            with style.context("default"):
                figure = _figure_of(draw())
                _save(figure, path)
                plt.close(figure)
            paths.append(path)
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
        drawings["optuna_slice"] = lambda: figures.plot_slice(study, params=numeric)
    varied = varied_parameters(complete)
    if len(varied) > 1 and len(complete) > 3:
        drawings["optuna_learning_rate_by_activation"] = lambda: figures.plot_rank(
            study, params=["learning_rate", "activation"]
        )
        drawings["optuna_importances"] = lambda: figures.plot_param_importances(
            study, evaluator=_evaluator(), params=varied
        )
    if any(trial.intermediate_values for trial in complete):
        drawings["optuna_intermediate_values"] = lambda: figures.plot_intermediate_values(study)
    return drawings


def importances(study: optuna.Study) -> dict[str, float]:
    """Parameter to the share of the variance of the finished trials' values that it explains; empty for a few trials.

    The shares are those that Optuna's figure shows, and add up to one.
    """
    study = _finite(study)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = varied_parameters(complete)
    if len(varied) < 2 or len(complete) < 4:
        return {}
    found = optuna.importance.get_param_importances(study, evaluator=_evaluator(), params=varied)
    return {name: float(share) for name, share in found.items()}


def varied_parameters(trials: Sequence[FrozenTrial]) -> list[str]:
    """Parameters that not all trials have the same value of."""
    parameters = sorted({name for trial in trials for name in trial.params})
    return [name for name in parameters if len({trial.params.get(name) for trial in trials}) > 1]


def _evaluator() -> optuna.importance.FanovaImportanceEvaluator:
    return optuna.importance.FanovaImportanceEvaluator(max_depth=FANOVA_DEPTH, seed=0)


@contextmanager
def without_a_window() -> Iterator[None]:
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
    """A copy in memory without trials that diverged: there is no place for infinity on an axis.

    User attributes stay behind: Optuna copies its trials for every figure, and curves are most of what they hold.
    """
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.value is not None and math.isfinite(trial.value):
            bare = optuna.trial.create_trial(
                state=trial.state,
                value=trial.value,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=trial.intermediate_values,
            )
            copy.add_trial(bare)
    return copy


def _save(figure: Any, path: Path) -> None:
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI, bbox_inches="tight"))


def _figure_of(axes: Any) -> Any:
    """Optuna returns one axes, or an array of them."""
    first = axes.flat[0] if hasattr(axes, "flat") else axes
    return first.figure
