"""`actlab search`: an Optuna study over activation and learning rate together, in batches that train as populations."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from actlab import activations
from actlab.configuration import Configuration
from actlab.experiment import Experiment
from actlab.members import derive_seed
from actlab.progress import PopulationProgress
from actlab.records import RunDirectory
from actlab.studies import CELL, Cell
from actlab.table import read_table
from actlab.tensorboard_log import write_comparison
from actlab.trials import Setting


def search(configuration: Configuration) -> tuple[RunDirectory, dict[str, Any]]:
    """Run or resume the search until `search.n_trials` are complete; returns the run directory and its summary.

    The sampler gives activations unequal budgets, so the summary ranks them by what was found but compares nothing.

    Raises:
        InputError: bad data or configuration, or the run directory holds another run.
    """
    space = configuration.search
    for name in space.activations or configuration.compare.activations:
        activations.get(name)
    sampler = optuna.samplers.TPESampler(seed=derive_seed(configuration.seed, "sampler") % 2**32)
    experiment = Experiment("search", configuration, read_table(configuration.data), sampler)
    experiment.study.fail_stale()
    _train(experiment)
    trials = _told(experiment)
    settings = {trial.number: setting_of(trial.params, configuration) for trial in trials}
    summary = experiment.write(trials, settings, space.learning_rate, is_equal_budget=False, log=write_comparison)
    return experiment.run, summary


def _told(experiment: Experiment) -> list[FrozenTrial]:
    return experiment.study.trials(TrialState.COMPLETE)


def _train(experiment: Experiment) -> None:
    configuration = experiment.configuration
    n_splits, space = len(experiment.splits), configuration.search
    left = space.n_trials - len(_told(experiment))
    if left <= 0:
        return
    with PopulationProgress(left * n_splits) as progress:
        experiment.progress = progress
        while left > 0:
            claimed, settings = {}, {}
            for _ in range(min(space.batch, left)):
                # all of one trial's parameters before the next is asked for: the sampler's constant liar sees them
                trial = experiment.study.ask()
                setting = setting_of(suggest(trial, configuration), configuration)
                trial.set_user_attr(CELL, Cell(trial.params).key)
                claimed[trial.number], settings[trial.number] = trial, setting
            experiment.evaluate(claimed, settings)
            left = space.n_trials - len(_told(experiment))


def suggest(trial: optuna.Trial, configuration: Configuration) -> dict[str, Any]:
    """Draw a trial's parameters from the search space of the configuration."""
    space = configuration.search
    trial.suggest_categorical("activation", space.activations or configuration.compare.activations)
    trial.suggest_float("learning_rate", *space.learning_rate, log=True)
    if space.weight_decay is not None:
        trial.suggest_float("weight_decay", *space.weight_decay, log=True)
    if space.dropout is not None:
        trial.suggest_float("dropout", *space.dropout)
    if space.hidden is not None:
        trial.suggest_categorical("hidden", ["-".join(map(str, widths)) for widths in space.hidden])
    return trial.params


def setting_of(params: dict[str, Any], configuration: Configuration) -> Setting:
    """A trial's parameters, with the configuration's own values for what is not searched."""
    hidden = params.get("hidden")
    return Setting(
        params["activation"],
        params["learning_rate"],
        params.get("weight_decay", configuration.optimizer.weight_decay),
        tuple(map(int, hidden.split("-"))) if hidden else tuple(configuration.model.hidden),
        params.get("dropout", configuration.model.dropout),
        configuration.model.init,
    )
