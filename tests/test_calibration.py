"""The statistics tested as a whole: what they say where nothing is to be found."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "calibrate.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibrate"] = module
    spec.loader.exec_module(module)
    return module


def test_names_are_exchangeable_and_differ_in_their_seeds_only(script: ModuleType) -> None:
    (members,) = script.same_under_several_names(1, 60, seed=3)
    assert members.activation.nunique() == script.N_NAMES
    assert members.groupby("activation").seed.nunique().tolist() == [1] * script.N_NAMES
    assert members.seed.nunique() == script.N_NAMES
    one = members[members.learning_rate == script.RATES[0]].groupby("activation").test_score
    assert one.first().nunique() == script.N_NAMES
    assert one.size().tolist() == [script.FOLDS * script.REPEATS] * script.N_NAMES


def test_a_planted_difference_is_found_the_more_often_the_larger_it_is(script: ModuleType) -> None:
    families = [fake_family(script, seed) for seed in range(12)]
    found = script.power(families)
    assert [p.effect for p in found] == list(script.PLANTED)
    powers = [p.baseline for p in found]
    assert powers == sorted(powers)
    assert powers[-1] == 1.0


def fake_family(script: ModuleType, seed: int) -> pd.DataFrame:
    """Names without any difference, as a training would leave them."""
    generator = np.random.default_rng(seed)
    rows = []
    for k in range(script.N_NAMES):
        for at, rate in enumerate(script.RATES):
            for repeat in range(script.REPEATS):
                for fold in range(script.FOLDS):
                    val, test = (1 + generator.normal(0, 0.05, 2)).tolist()
                    rows.append((script.N_NAMES * at + k, f"name {k}", rate, repeat, fold, 0, k, val, test))
    columns = ["trial", "activation", "learning_rate", "repeat", "fold", "inner", "seed", "val_score", "test_score"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(diverged=False, pruned=False, n_parameters=1, seconds=1.0, epochs=1, best_epoch=1)


def test_the_document_holds_every_count(script: ModuleType) -> None:
    families = [fake_family(script, seed) for seed in range(4)]
    counts = [script.count("same activation", families), script.twin_columns(20, 60, 0)]
    text = script.document(counts, script.power(families), "settings", 1.0)
    assert "| same activation | 4 | 12 |" in text
    assert "| twin columns | 20 | 20 |" in text
    assert script.COMMAND in text


def test_the_naive_test_is_fooled_by_overlapping_folds_and_ours_is_not(script: ModuleType) -> None:
    found = script.twin_columns(200, 60, seed=1)
    assert found.share <= 0.05
    assert found.naive_share > 0.2


@pytest.mark.slow
def test_at_most_one_comparison_in_twenty_is_wrongly_called_better(script: ModuleType) -> None:
    counts, powers = script.calibrate(70, 200, seed=1)
    for found in counts:
        assert found.comparisons >= 200
        assert found.share <= 0.05, found
    assert powers[-1].baseline > 0.9
