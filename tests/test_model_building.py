"""The shipped model's networks: trained on all rows outside their folds, scored on those that none of them saw."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from actlab.config import Configuration
from actlab.data.splits import make_splits
from actlab.data.table import read_table
from actlab.data.target import fit_target
from actlab.errors import InputError
from actlab.members import Split
from actlab.model.ensemble import load
from actlab.networks.trained import TrainedNetwork
from actlab.run_files import RunDirectory
from actlab.runs.compare_search import compare
from actlab.runs.evaluate import Evaluation, Setting, evaluate, make_member, train
from actlab.runs.fit import score
from actlab.runs.model_building import RunNetworks, best_activations, networks_of, ship, shipped_splits
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings
from small_ensembles import untrained

SETTINGS = {number: Setting(name, 1e-2, 0.0, (6,), 0.1, "auto") for number, name in enumerate(("relu", "tanh"))}


def evaluation(csv: str, inner: int) -> Evaluation:
    return Evaluation(
        DataSettings(csv=csv, target="price", batch_size=32),
        CompareSettings(folds=3, inner=inner, bag=4),
        OptimizerSettings(patience=3),
        {"max_epochs": 6, "accelerator": "cpu"},
    )


def networks_with(csv: str, folder: Path, asked: Evaluation) -> RunNetworks:
    """The networks of both settings, as a comparison leaves them."""
    table = read_table(asked.data)
    splits = shipped_splits(table.n_rows, CompareSettings(folds=3, inner=2, bag=4), 0)
    networks = RunNetworks(folder, asked, table, splits)
    for result in evaluate(SETTINGS, asked, table):
        networks.save(result.number, result.outcomes)
    return networks


def test_the_models_networks_train_on_all_rows_outside_their_fold(small_csv: str, tmp_path: Path) -> None:
    networks = networks_with(small_csv, tmp_path, evaluation(small_csv, 2))
    # relu in folds 0 and 1, tanh in fold 2, which was not finite on validation there: none of those
    rows = {"trial": [0, 0, 1], "repeat": 0, "fold": [0, 1, 2], "val": [0.1, 0.2, np.nan], "best_epoch": [3.5, 0.2, 4]}
    found = networks.train_again(pd.DataFrame(rows), SETTINGS, 4)
    assert [(n.member.trial, n.member.split.fold, n.member.split.inner) for n in found] == [
        (0, fold, inner) for fold in (0, 1) for inner in range(4)
    ]
    assert {n.member.split.fold: n.member.epochs for n in found} == {0: 5, 1: 1}
    # as one population of this length alone would train them
    members = [n.member for n in found if n.member.split.fold == 0]
    wide = replace(networks.evaluation, protocol=CompareSettings(folds=3, inner=4))
    alone = networks_of(train(members, wide, networks.table, []))
    for network, other in zip(found, alone, strict=False):
        torch.testing.assert_close(network.test_predictions, other.test_predictions, rtol=1e-4, atol=1e-5)
    # their preprocessing knows the rows that the comparison's networks had for validation
    run = RunDirectory(tmp_path / "run")
    run.create()
    networks.write_model(run, found, {}, {})
    ensemble = load(run.checkpoint)
    assert len(ensemble.preprocessors) == 2
    outside = np.setdiff1d(np.arange(120), networks.splits[Split(0, 0, 0)].test)
    scaler = fit_target(networks.table.target, outside, "log")
    assert ensemble.members[0].scaler == scaler
    features = networks.table.features.iloc[networks.splits[Split(0, 0, 0)].test]
    np.testing.assert_allclose(
        ensemble.predict_by_fold(features)[0, 0].mean,
        np.mean([n.test_predictions.numpy() for n in found[:4]], axis=0),
        rtol=1e-5,
    )


def test_members_that_stop_early_and_others_do_not_mix(small_csv: str) -> None:
    asked = evaluation(small_csv, 2)
    members = [make_member(0, SETTINGS[0], Split(0, 0, inner), 0, epochs) for inner, epochs in enumerate((0, 5))]
    with pytest.raises(ValueError, match="different training rows"):
        train(members, asked, read_table(asked.data), [])


def test_the_model_needs_no_networks_where_every_setting_failed(small_csv: str, tmp_path: Path) -> None:
    asked = evaluation(small_csv, 2)
    networks = RunNetworks(tmp_path, asked, read_table(asked.data), {})
    rows = {"trial": [0], "repeat": [0], "fold": [0], "val": [np.nan], "best_epoch": [0.0]}
    assert networks.train_again(pd.DataFrame(rows), SETTINGS, 2) == []


def test_the_first_inner_splits_are_the_comparisons_own() -> None:
    settings = CompareSettings(folds=4, inner=2, bag=7)
    wide, narrow = shipped_splits(90, settings, 3), make_splits(90, settings, 3)
    assert len(wide) == 4 * 7
    for split, rows in narrow.items():
        assert all(np.array_equal(a, b) for a, b in zip(vars(rows).values(), vars(wide[split]).values(), strict=True))
    for split, rows in wide.items():
        assert np.array_equal(rows.test, wide[replace(split, inner=0)].test)
        assert not set(rows.test) & (set(rows.training) | set(rows.validation))


def test_the_score_of_infinitely_many_networks_is_that_of_their_expectation(small_csv: str, tmp_path: Path) -> None:
    """Networks that are a known function plus independent noise: the noise is taken off, whatever their number."""
    table = read_table(DataSettings(csv=small_csv, target="price"))
    assert table.target is not None
    asked = evaluation(small_csv, 2)
    splits = make_splits(table.n_rows, asked.protocol, 0)
    networks = RunNetworks(tmp_path, asked, table, splits)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        made = []
        for inner in (0, 1):
            test = splits[Split(0, 1, inner)].test
            off = np.where(np.arange(len(test)) % 2, 0.3, -0.1)
            predictions = np.log(table.target[test]) + off + 0.2 * generator.normal(size=len(test))
            one = make_member(0, SETTINGS[0], Split(0, 1, inner), 0)
            made.append(replace(untrained(one, {}), test_predictions=torch.from_numpy(predictions)))
        (score,) = networks.infinite_ensemble_scores(made).values()
        found.append(score**2)
    assert np.mean(found) == pytest.approx((0.3**2 + 0.1**2) / 2, rel=0.05)
    (alone,) = networks.infinite_ensemble_scores(made[:1]).values()
    assert alone == pytest.approx(networks.score(made[:1]))


def test_the_best_few_that_are_close_go_into_the_model() -> None:
    keys = [(0, 0), (0, 1)]
    scores = pd.DataFrame(
        {keys[0]: [1.0, 1.06, 1.0, 0.9, 1.0], keys[1]: [1.0, 1.0, 1.08, np.nan, 1.2]}, index=list("abcde")
    )
    # means: a 1.0, b 1.03, c 1.04, e 1.1; d has no score in one fold
    assert best_activations(scores, keys, 3) == ["a", "b", "c"]
    assert best_activations(scores, keys, 2) == ["a", "b"]
    assert best_activations(scores, keys, 9) == ["a", "b", "c"]
    assert best_activations(scores, keys[:1], 2) == ["d"]
    assert best_activations(scores, keys[1:], 1) == ["a"]
    assert best_activations(scores * np.nan, keys, 3) == []


def test_what_goes_into_a_folds_own_estimate_is_decided_by_the_other_folds(
    small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = networks_with(small_csv, tmp_path, evaluation(small_csv, 2))
    chosen = pd.DataFrame(
        {
            "activation": ["relu"] * 3 + ["tanh"] * 3,
            "trial": [0] * 3 + [1] * 3,
            "repeat": 0,
            "fold": [0, 1, 2] * 2,
            # the first fold's best on validation is relu, the others' tanh
            "val": [0.1, 0.3, 0.3, 0.2, 0.2, 0.2],
            "best_epoch": [3] * 6,
            "score": [0.1] * 6,
        }
    )
    # tanh is the best of all three folds, but without fold 2 it is relu
    scores = pd.DataFrame([[1.0, 1.0, 5.0], [2.0, 2.0, 1.0]], index=["relu", "tanh"], columns=[(0, 0), (0, 1), (0, 2)])
    monkeypatch.setattr("actlab.runs.model_building.scores_by_activation", lambda *_: scores)
    shipped, found = ship(networks, chosen, SETTINGS, CompareSettings(folds=3, inner=2, ensemble=1))
    assert found["activations"] == {"tanh": 6}
    assert {network.member.trial for network in shipped} == {1}
    everyone = networks.train_again(chosen, SETTINGS, 2)

    def those(trial_of: dict[int, int]) -> list[TrainedNetwork]:
        return [network for network in everyone if network.member.trial == trial_of[network.member.split.fold]]

    # without fold 0: relu (1 + 5) / 2 against tanh (2 + 1) / 2
    assert found["test_score_chosen_on_other_folds"] == pytest.approx(networks.score(those({0: 1, 1: 1, 2: 0})))
    assert found["test_score_chosen_on_validation"] == pytest.approx(networks.score(those({0: 0, 1: 1, 2: 1})))
    assert found["test_score"] == pytest.approx(networks.score(those({0: 1, 1: 1, 2: 1})))
    assert len({value for key, value in found.items() if key.startswith("test_score")}) == 3


def test_a_comparison_ships_a_bag_and_scores_it_on_rows_that_it_did_not_see(small_csv: str, tmp_path: Path) -> None:
    asked = Configuration(
        data=DataSettings(small_csv, "price"),
        model=ModelSettings(hidden=[6]),
        compare=CompareSettings(activations=["relu", "tanh"], learning_rates=[1e-2, 3e-2], folds=3, bag=4),
        trainer={"max_epochs": 8, "accelerator": "cpu"},
        out=str(tmp_path / "run"),
    )
    run, _ = compare(asked)
    summary = json.loads(run.summary.read_text())
    ensemble = load(run.checkpoint)
    counts = Counter(one.member.activation for one in ensemble.members)
    assert summary["ensemble"]["activations"] == counts
    assert set(counts.values()) == {3 * 4}
    assert summary["ensemble"]["n_members"] == len(ensemble.members)
    assert len(run.read_members()) == 4 * 6  # the comparison itself stays as it was
    table = read_table(asked.data)
    assert table.target is not None
    rmse = []
    for fold, rows in enumerate(s.test for key, s in make_splits(120, asked.compare, 0).items() if key.inner == 0):
        own = replace(ensemble, members=tuple(m for m in ensemble.members if m.member.split.fold == fold), residuals=())
        assert len(own.members) == 4 * len(counts)
        rmse.append(np.sqrt(np.mean(np.log(own.predict(table.features.iloc[rows]) / table.target[rows]) ** 2)))
    assert summary["ensemble"]["test_score"] == pytest.approx(np.mean(rmse), rel=1e-5)
    assert np.isfinite(summary["ensemble"]["test_score_chosen_on_other_folds"])
    # out-of-fold scoring of the file finds the rows of the further splits too
    on_rows = score(replace(asked, ckpt_path=str(run.checkpoint), data=DataSettings()), "test")
    assert on_rows == pytest.approx(np.sqrt(np.mean(np.square(rmse))), rel=1e-5)
    with pytest.raises(InputError, match="trained on their validation rows too"):
        score(replace(asked, ckpt_path=str(run.checkpoint), data=DataSettings()), "validation")


def test_a_bag_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"compare\.bag must be at least 1, got bag=0"):
        CompareSettings(bag=0)


@pytest.mark.parametrize("transform", ["log", "none"])
def test_residuals_are_from_torchs_logarithm_to_the_bit(small_csv: str, tmp_path: Path, transform: Any) -> None:
    table = read_table(DataSettings(csv=small_csv, target="price"))
    assert table.target is not None
    asked = evaluation(small_csv, 1)
    asked = replace(asked, data=replace(asked.data, target_transform=transform))
    splits = make_splits(table.n_rows, asked.protocol, 0)
    test = splits[Split(0, 0, 0)].test
    made = replace(
        untrained(make_member(0, SETTINGS[0], Split(0, 0, 0), 0), {}),
        test_predictions=torch.zeros(len(test), dtype=torch.float64),
    )
    (part,) = RunNetworks(tmp_path, asked, table, splits).residuals([made])
    whole = torch.from_numpy(table.target)
    assert torch.equal(part.residuals, (whole.log() if transform == "log" else whole)[test])
