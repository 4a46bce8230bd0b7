"""Optuna's figures are drawn for what a study has, and for nothing it has not."""

import random
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from actlab.report.study_figures import draw_study


def study_of(n_trials: int, has_rungs: bool) -> optuna.Study:
    chance = random.Random(0)
    study = optuna.create_study()
    distributions = {
        "activation": optuna.distributions.CategoricalDistribution(["relu", "tanh"]),
        "learning_rate": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True),
    }
    for number in range(n_trials):
        params = {"activation": ["relu", "tanh"][number % 2], "learning_rate": 10 ** chance.uniform(-3, -1)}
        rungs = {5: 0.5, 20: 0.4} if has_rungs else {}
        is_pruned = has_rungs and number % 3 == 0
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if is_pruned else TrialState.COMPLETE,
                value=float("inf") if number == 5 else chance.random(),
                params=params,
                distributions=distributions,
                intermediate_values=rungs,
            )
        )
    return study


@pytest.mark.parametrize(("n_trials", "has_rungs", "expected"), [
    (0, False, set()),
    (1, False, set()),
    (2, False, {"slice"}),
    (8, False, {"slice", "importances", "learning_rate_by_activation"}),
    (12, True, {"slice", "importances", "learning_rate_by_activation", "intermediate_values"}),
])  # fmt: skip
def test_a_study_has_the_figures_that_it_has_trials_for(
    n_trials: int, has_rungs: bool, expected: set[str], tmp_path: Path
) -> None:
    paths = draw_study(study_of(n_trials, has_rungs), tmp_path)
    assert {path.stem.removeprefix("optuna_") for path in paths} == expected
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
