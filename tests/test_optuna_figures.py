"""Optuna's figures are drawn for what a study has, and for nothing it has not."""

import random
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from actlab.report.optuna_figures import draw_study, importance_shares


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


def test_importances_are_shares_of_what_differs(tmp_path: Path) -> None:
    assert importance_shares(study_of(3, False)) == {}
    study = optuna.create_study()
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("a", "b", "c")}
    for number in range(40):
        params = {"a": number / 40, "b": (number * 7 % 40) / 40, "c": 0.5}
        study.add_trial(create_trial(value=10 * params["a"] + params["b"], params=params, distributions=distributions))
    found = importance_shares(study)
    assert set(found) == {"a", "b"}
    assert sum(found.values()) == pytest.approx(1)
    assert found["a"] > 0.9


def test_the_callers_style_and_screen_stay(tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 31.0}):
        mpl.use("svg")
        before = dict(mpl.rcParams)
        draw_study(study_of(8, False), tmp_path)
        assert dict(mpl.rcParams) == before
    mpl.use("agg")


def test_importances_do_not_depend_on_the_unit_of_the_score() -> None:
    distribution = optuna.distributions.FloatDistribution(0, 1)

    def study(unit: float) -> optuna.Study:
        made, rng = optuna.create_study(), np.random.default_rng(0)
        for a, b in rng.random((30, 2)):
            params, own = {"a": a, "b": b}, dict.fromkeys("ab", distribution)
            value = (3 * a + b) * unit
            made.add_trial(optuna.trial.create_trial(params=params, distributions=own, value=value))
        return made

    shares = importance_shares(study(1.0))
    assert shares["a"] > shares["b"] > 0
    assert importance_shares(study(2.0**-60)) == shares
    assert importance_shares(study(0.0)) == {}
