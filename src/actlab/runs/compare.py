"""`actlab compare`: every activation at every learning rate with equal budgets, and the answer."""

import json
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from actlab.configuration import Configuration
from actlab.engine.studies import Cell
from actlab.networks import activations
from actlab.records import RunDirectory
from actlab.runs.experiment import Experiment
from actlab.runs.trial_settings import arms_of


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
        largest = self.largest_batch
        if self.configuration.storage is not None:
            # nobody knows how many workers there are: one activation at a time
            return min(largest, len(self.rates))
        # two populations a worker, so that one who gets the slow activations is not waited for long
        return min(largest, -(-len(self.cells) // (2 * self.n_workers))) if self.n_workers > 1 else largest

    @property
    def rates(self) -> list[float]:
        return self.configuration.compare.learning_rates

    def propose(self, number: int, trial: optuna.Trial) -> dict[str, Any]:
        return trial.params
