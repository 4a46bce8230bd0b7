"""`actlab compare`: every activation at every learning rate with equal budgets, and the answer."""

import json
from functools import cached_property
from typing import Any

import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution

from actlab.configuration import Configuration
from actlab.engine.studies import Cell
from actlab.networks import activations
from actlab.records import RunDirectory
from actlab.runs.experiment import Experiment
from actlab.runs.trial_settings import arms_of

# The most members that train as one population, and so what an interruption can lose: the default comparison is one.
# In several, threads would run dry at the end of each, when few members are left. A GPU wants them larger still.
POPULATION_MEMBERS, GPU_FACTOR = 720, 8


def compare(configuration: Configuration) -> tuple[RunDirectory, dict[str, Any] | None]:
    """Run or resume the comparison; returns the run directory and its summary (None where another process writes it).

    Raises:
        InputError: bad data or configuration, or the run directory holds another run.
    """
    for name in configuration.compare.activations:
        activations.get(name)
    return Comparison(configuration).execute()


class Comparison(Experiment):
    """The full grid; the same budget for all."""

    command = "compare"
    is_equal_budget = True
    ignored = ("search",)

    @cached_property
    def cells(self) -> list[Cell]:
        grid = self.configuration.compare
        names = [arm.name for arm in arms_of(self.configuration)]
        distributions = {
            "activation": CategoricalDistribution(names),
            # a float on a log axis, not a category: that is how Optuna's plots should show it
            "learning_rate": FloatDistribution(min(grid.learning_rates), max(grid.learning_rates), log=True),
        }
        pairs = [(name, rate) for name in names for rate in grid.learning_rates]
        return [
            Cell(
                json.dumps({"activation": name, "learning_rate": rate}),
                number,
                {"activation": name, "learning_rate": rate},
                distributions,
            )
            for number, (name, rate) in enumerate(pairs)
        ]

    @property
    def batch(self) -> int:
        members = POPULATION_MEMBERS * (GPU_FACTOR if self._has_gpu() else 1)
        largest = max(1, members // len(self.splits))
        if self.configuration.storage is not None:
            # nobody knows how many workers there are: one activation at a time
            return min(largest, len(self.rates))
        n_workers = self.worker.n_workers if self.worker is not None else 1
        # two populations a worker, so that one who gets the slow activations is not waited for long
        return min(largest, -(-len(self.cells) // (2 * n_workers))) if n_workers > 1 else largest

    def _has_gpu(self) -> bool:
        return self.configuration.trainer.get("accelerator") != "cpu" and torch.accelerator.is_available()

    @property
    def rates(self) -> list[float]:
        return self.configuration.compare.learning_rates

    def propose(self, number: int, trial: optuna.Trial) -> dict[str, Any]:
        return trial.params
