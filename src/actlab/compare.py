"""`actlab compare`: every activation at every learning rate with equal budgets, and the answer."""

from typing import Any

from optuna.trial import TrialState

from actlab import activations
from actlab.configuration import Configuration
from actlab.errors import InputError
from actlab.experiment import POPULATION_MEMBERS, Experiment, all_cells
from actlab.progress import PopulationProgress
from actlab.records import RunDirectory
from actlab.table import read_table
from actlab.tensorboard_log import write_comparison
from actlab.trials import Setting


def compare(configuration: Configuration) -> tuple[RunDirectory, dict[str, Any]]:
    """Run or resume the comparison; returns the run directory and its summary.

    Raises:
        InputError: bad data or configuration, or the run directory holds another run.
    """
    for name in configuration.compare.activations:
        activations.get(name)
    experiment = Experiment("compare", configuration, read_table(configuration.data))
    grid = configuration.compare
    cells = all_cells(grid.activations, grid.learning_rates)
    settings = {number: _setting(configuration, **cell.params) for number, cell in enumerate(cells)}
    number_of = {cell.key: number for number, cell in enumerate(cells)}
    experiment.study.enqueue_missing(cells)
    _train(experiment, settings, number_of)
    done = experiment.study.completed()
    missing = [cell.key for cell in cells if cell.key not in done]
    if missing:
        raise InputError(f"{len(missing)} settings are being trained elsewhere; start again when they are done")
    trials = [done[cell.key] for cell in cells]
    summary = experiment.write(trials, settings, grid.learning_rates, is_equal_budget=True, log=write_comparison)
    return experiment.run, summary


def _train(experiment: Experiment, settings: dict[int, Setting], number_of: dict[str, int]) -> None:
    n_splits = len(experiment.splits)
    waiting = len(experiment.study.trials(TrialState.WAITING))
    if not waiting:
        return
    with PopulationProgress(waiting * n_splits) as progress:
        experiment.progress = progress
        while claimed := experiment.study.claim(max(1, POPULATION_MEMBERS // n_splits)):
            # results are numbered by cell: a cell that is queued again after a crash keeps its place
            numbered = {number_of[trial.user_attrs["cell"]]: trial for trial in claimed}
            for number, trial in numbered.items():
                grid = experiment.configuration.compare
                trial.suggest_categorical("activation", grid.activations)
                # a float on a log axis, not a category: that is how Optuna's plots should show it
                trial.suggest_float("learning_rate", min(grid.learning_rates), max(grid.learning_rates), log=True)
                trial.set_user_attr("number", number)
            experiment.evaluate(numbered, {number: settings[number] for number in numbered})


def _setting(configuration: Configuration, activation: str, learning_rate: float) -> Setting:
    model = configuration.model
    return Setting(
        activation,
        learning_rate,
        configuration.optimizer.weight_decay,
        tuple(model.hidden),
        model.dropout,
        model.init,
    )
