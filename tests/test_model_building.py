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
from actlab.data.layout import RowLayout
from actlab.data.splits import make_splits
from actlab.data.table import read_table
from actlab.data.target import LOG, TargetScaler, fit_target
from actlab.errors import InputError
from actlab.members import Split
from actlab.model.ensemble import load
from actlab.networks.trained import TrainedNetwork
from actlab.run_files import RunDirectory
from actlab.runs.compare_search import compare
from actlab.runs.evaluate import Evaluation, Setting, Work, evaluate, make_member, train
from actlab.runs.fit import score
from actlab.runs.model_building import (
    RunNetworks,
    best_activations,
    networks_of,
    ship,
    shipped_splits,
    squares_by_activation,
    without_diverged,
)
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, ProtocolSettings
from small_ensembles import untrained

SETTINGS = {number: Setting(name, 1e-2, 0.0, (6,), 0.1, "auto") for number, name in enumerate(("relu", "tanh"))}


def evaluation(csv: str, inner: int) -> Evaluation:
    return Evaluation(
        DataSettings(csv=csv, target="price", batch_size=32),
        ProtocolSettings(folds=3, inner=inner),
        OptimizerSettings(patience=3),
        {"max_epochs": 6, "accelerator": "cpu"},
    )


def networks_with(csv: str, folder: Path, asked: Evaluation) -> RunNetworks:
    """The networks of both settings, as a comparison leaves them."""
    table = read_table(asked.data)
    splits = shipped_splits(table.layout, asked.protocol, 4, 0)
    networks = RunNetworks(folder, asked, table, splits)
    for result in evaluate({number: Work(setting) for number, setting in SETTINGS.items()}, asked, table):
        networks.save(result.number, result.outcomes)
    return networks


def test_the_models_networks_train_on_all_rows_outside_their_fold(small_csv: str, tmp_path: Path) -> None:
    networks = networks_with(small_csv, tmp_path, evaluation(small_csv, 2))
    rows = pd.DataFrame({"activation": ["a", "b"], "trial": [0, 0], "repeat": 0, "fold": [0, 1], "epochs": [5, 1]})
    found = networks.train_again(rows, SETTINGS, 4)
    assert [(n.member.trial, n.member.split.fold, n.member.split.inner) for n in found] == [
        (0, fold, inner) for fold in (0, 1) for inner in range(4)
    ]
    assert {n.member.split.fold: n.member.epochs for n in found} == {0: 5, 1: 1}
    # as one population of this length alone would train them
    members = [n.member for n in found if n.member.split.fold == 0]
    wide = replace(networks.evaluation, protocol=ProtocolSettings(folds=3, inner=4))
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
    networks = RunNetworks(tmp_path, asked, read_table(asked.data), make_splits(RowLayout(120), asked.protocol, 0))
    rows = {"activation": "relu", "trial": [0], "repeat": [1], "fold": [0], "val": [np.nan], "best_epoch": [0.0]}
    shipped, found = ship(networks, pd.DataFrame(rows), {}, SETTINGS, CompareSettings(folds=3))
    assert shipped == []
    assert (found["n_members"], found["activations"]) == (0, {})
    assert np.isnan(found["test_score"])


def test_the_first_inner_splits_are_the_comparisons_own() -> None:
    settings = ProtocolSettings(folds=4, inner=2)
    wide, narrow = shipped_splits(RowLayout(90), settings, 7, 3), make_splits(RowLayout(90), settings, 3)
    assert len(wide) == 4 * 7
    for split, rows in narrow.items():
        assert all(np.array_equal(a, b) for a, b in zip(vars(rows).values(), vars(wide[split]).values(), strict=True))
    for split, rows in wide.items():
        assert np.array_equal(rows.test, wide[replace(split, inner=0)].test)
        assert not set(rows.test) & (set(rows.training) | set(rows.validation))


def test_the_errors_of_infinitely_many_networks_are_those_of_their_expectation(small_csv: str, tmp_path: Path) -> None:
    """Networks that are a known function plus independent noise: the noise is taken off, whatever their number."""
    asked = evaluation(small_csv, 2)
    networks = RunNetworks(tmp_path, asked, read_table(asked.data), make_splits(RowLayout(120), asked.protocol, 0))
    generator, off = np.random.default_rng(0), np.where(np.arange(120) % 2, 0.3, -0.1)
    for n_draws in (2, 5):
        noise = (0.2 * generator.normal(size=(n_draws, 120)) for _ in range(8000))
        drawn = [(networks.truth + off + own - networks.scaler.mean) / networks.scaler.sd for own in noise]
        means = np.mean([networks.endless_errors(one) for one in drawn], axis=0)
        np.testing.assert_allclose(means, off**2, atol=0.005)
    # of one network the noise is not known, and stays in
    np.testing.assert_allclose(networks.endless_errors(drawn[0][:1]), networks.squared_errors(drawn[0][:1]), rtol=1e-12)


def test_the_errors_of_infinitely_many_networks_by_hand(small_csv: str, tmp_path: Path) -> None:
    """Errors 1, 2, 6 of a row: (3)^2 less their variance 7 over 3 draws; the score is over the rows of a fold."""
    asked = evaluation(small_csv, 1)
    networks = RunNetworks(tmp_path, asked, read_table(asked.data), make_splits(RowLayout(120), asked.protocol, 0))
    errors = np.zeros((3, 120))
    test = networks.splits[Split(0, 1, 0)].test
    errors[:, test[0]], errors[:, test[1]] = (1, 2, 6), (-4, -4, -4)
    draws = (networks.truth + errors - networks.scaler.mean) / networks.scaler.sd
    found = networks.endless_errors(draws)
    np.testing.assert_allclose(found[test[:2]], [9 - 7 / 3, 16], rtol=1e-12)
    np.testing.assert_allclose(networks.squared_errors(draws)[test[:2]], [41 / 3, 16], rtol=1e-12)
    usable = pd.DataFrame({"activation": "relu", "repeat": 0, "fold": [0, 1, 2]})
    squares = squares_by_activation(networks, usable, {"relu": draws})  # type: ignore[dict-item]
    np.testing.assert_allclose(squares.loc["relu"].to_numpy(), [0, 25 - 7 / 3, 0], atol=1e-12)


def test_predictions_lie_at_their_rows_and_a_diverged_network_leaves_a_gap(small_csv: str, tmp_path: Path) -> None:
    asked = evaluation(small_csv, 2)
    splits = make_splits(RowLayout(120), replace(asked.protocol, repeats=3), 0)
    networks = RunNetworks(tmp_path, asked, read_table(asked.data), splits)

    def made(split: Split) -> TrainedNetwork:
        # each row's own number, plus thousands that tell repeat and inner part
        said = 1e9 + 10 * (splits[split].test + 1000.0 * split.repeat + 10_000.0 * split.inner)
        return replace(untrained(make_member(0, SETTINGS[0], split, 0), {}), test_predictions=torch.from_numpy(said))

    # kept in float32, so they are standardised first
    networks.scaler = TargetScaler(1e9, 10.0, LOG)
    whole = [made(split) for split in splits if split.repeat > 0]
    found = networks.out_of_fold(whole[::-1], (1, 2))
    assert found.dtype == np.float32
    expected = [[np.arange(120) + 1000 * repeat + 10_000 * inner] for repeat in (1, 2) for inner in (0, 1)]
    assert found.tolist() == np.concatenate(expected).tolist()
    lost = networks.out_of_fold([one for one in whole if one.member.split != Split(2, 1, 1)], (1, 2))
    assert np.flatnonzero(np.isnan(lost[3])).tolist() == splits[Split(2, 1, 1)].test.tolist()
    assert np.isnan(lost).sum() == 40


def test_a_models_score_is_over_all_rows_and_not_the_mean_of_its_folds(small_csv: str, tmp_path: Path) -> None:
    """Seven folds of 120 rows, of which only one is predicted badly."""
    asked = replace(evaluation(small_csv, 1), protocol=ProtocolSettings(folds=7, inner=1))
    splits = make_splits(RowLayout(120), replace(asked.protocol, repeats=2), 0)
    networks, errors = RunNetworks(tmp_path, asked, read_table(asked.data), splits), np.full(120, 0.1)
    errors[splits[Split(1, 6, 0)].test] = 2.0

    def made(split: Split) -> TrainedNetwork:
        said = torch.from_numpy((networks.truth + errors)[splits[split].test])
        return replace(untrained(make_member(0, SETTINGS[0], split, 0), {}), test_predictions=said)

    own = [made(split) for split in splits if split.repeat == 1]
    assert networks.score(own) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    both = [made(split) for split in splits]
    assert networks.score(both) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert np.isnan(networks.score([]))


def test_integer_weights_are_repeated_rows_in_a_models_score(small_csv: str, tmp_path: Path) -> None:
    asked, counts = evaluation(small_csv, 1), np.arange(120) % 3 + 1
    table = read_table(asked.data)
    table = replace(table, layout=replace(table.layout, weights=counts.astype(float)))
    splits, errors = make_splits(table.layout, asked.protocol, 0), np.random.default_rng(0).normal(size=120)
    networks = RunNetworks(tmp_path, asked, table, splits)

    def made(split: Split) -> TrainedNetwork:
        said = torch.from_numpy((networks.truth + errors)[splits[split].test])
        return replace(untrained(make_member(0, SETTINGS[0], split, 0), {}), test_predictions=said)

    own = [made(split) for split in splits]
    assert networks.score(own) == pytest.approx(np.sqrt(np.mean(np.repeat(errors, counts) ** 2)), rel=1e-12)
    written = networks.predictions(own)
    assert written.weight.tolist() == counts.tolist()
    usable = pd.DataFrame({"activation": "relu", "repeat": 0, "fold": [0, 1, 2]})
    squares = squares_by_activation(networks, usable, {"relu": networks.out_of_fold(own, (0,))})
    for fold in range(3):
        rows = splits[Split(0, fold, 0)].test
        wanted = np.sum(np.repeat(errors[rows], counts[rows]) ** 2)
        assert squares[0, fold]["relu"] == pytest.approx(wanted, rel=1e-5)


def test_the_best_few_that_are_close_go_into_the_model() -> None:
    keys = [(0, 0), (0, 1)]
    squares = pd.DataFrame(
        {keys[0]: [1.0, 1.2, 1.16, 0.9, 1.0], keys[1]: [1.0, 1.0, 1.0, np.nan, 1.5]}, index=[*"abcde"]
    )
    # roots over a: 1.41, b 1.483 (4.9 % worse), c 1.470 (3.9 %), d by one fold alone 0.949, e 1.58
    assert best_activations(squares.drop("d"), keys, 3) == ["a", "c", "b"]
    assert best_activations(squares.drop("d"), keys, 2) == ["a", "c"]
    assert best_activations(squares.drop("d"), keys, 9) == ["a", "c", "b"]
    assert best_activations(squares, keys[:1], 2) == ["d"]
    assert best_activations(squares.drop("d"), keys[1:], 1) == ["a"]
    # noise taken off may leave less than nothing
    assert best_activations(squares * -1, keys[:1], 1) == ["a"]


def test_who_diverged_in_a_repeat_that_counts_is_left_out_while_others_are_there() -> None:
    chosen = pd.DataFrame(
        {"activation": [*"aabb"], "repeat": [1, 2, 1, 2], "fold": 0, "val": [0.1, np.nan, 0.2, 0.3], "trial": range(4)}
    )
    assert without_diverged(chosen).trial.tolist() == [2, 3]
    assert without_diverged(chosen[:2]).trial.tolist() == [0]


def chosen_of_both(vals: list[float], best_epochs: list[int]) -> pd.DataFrame:
    """relu and tanh in the three folds of the first repeat."""
    rows = {"activation": ["relu"] * 3 + ["tanh"] * 3, "trial": [0] * 3 + [1] * 3, "repeat": 0, "fold": [0, 1, 2] * 2}
    return pd.DataFrame(rows | {"val": vals, "best_epoch": best_epochs, "score": 0.1})


def test_what_goes_into_a_folds_own_estimate_is_decided_by_the_other_folds(
    small_csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = networks_with(small_csv, tmp_path, evaluation(small_csv, 2))
    # the first fold's best on validation is relu, the others' tanh
    chosen = chosen_of_both([0.1, 0.3, 0.3, 0.2, 0.2, 0.2], [3] * 6)
    # tanh is the best of all three folds, but without fold 2 it is relu
    squares = pd.DataFrame([[1.0, 1.0, 5.0], [2.0, 2.0, 1.0]], index=["relu", "tanh"], columns=[(0, 0), (0, 1), (0, 2)])
    monkeypatch.setattr("actlab.runs.model_building.squares_by_activation", lambda *_: squares)
    shipped, found = ship(networks, chosen, {}, SETTINGS, CompareSettings(folds=3, inner=2, ensemble=1))
    assert found["activations"] == {"tanh": 6}
    assert {network.member.trial for network in shipped} == {1}
    everyone = networks.train_again(chosen.assign(epochs=4), SETTINGS, 2)

    def those(trial_of: dict[int, int]) -> list[TrainedNetwork]:
        return [network for network in everyone if network.member.trial == trial_of[network.member.split.fold]]

    # without fold 0: relu 1 + 5 against tanh 2 + 1
    assert found["test_score_chosen_on_other_folds"] == pytest.approx(networks.score(those({0: 1, 1: 1, 2: 0})))
    assert found["test_score_chosen_on_validation"] == pytest.approx(networks.score(those({0: 0, 1: 1, 2: 1})))
    assert found["test_score"] == pytest.approx(networks.score(those({0: 1, 1: 1, 2: 1})))
    assert len({value for key, value in found.items() if key.startswith("test_score")}) == 3


def test_all_counting_networks_say_how_long_to_train(small_csv: str, tmp_path: Path) -> None:
    """Also those of later repeats; the model itself lies in the folds of the first."""
    asked = evaluation(small_csv, 2)
    networks = networks_with(small_csv, tmp_path, asked)
    first = chosen_of_both([0.1] * 6, [2, 2, 2, 3, 3, 3])
    later = first.assign(repeat=1, trial=[5] * 3 + [6] * 3, best_epoch=[4, 4, 4, 3, 3, 3])
    draws = {
        name: np.asarray(networks.truth + error, dtype=np.float32)[None]
        for name, error in (("relu", 0.1), ("tanh", 0.1))
    }
    shipped, found = ship(networks, pd.concat([first, later]), draws, SETTINGS, CompareSettings(folds=3, bag=1))
    # one and a half times 3 in both, rounded to even
    assert {network.member.epochs for network in shipped} == {4}
    assert sorted((n.member.activation, n.member.split.repeat, n.member.split.fold) for n in shipped) == [
        (name, 0, fold) for name in ("relu", "tanh") for fold in range(3)
    ]
    assert found["activations"] == {"relu": 3, "tanh": 3}


def test_networks_that_were_not_kept_are_trained_again(small_csv: str, tmp_path: Path) -> None:
    networks = networks_with(small_csv, tmp_path, evaluation(small_csv, 2))
    kept = networks.load(1, SETTINGS[1], (0,))
    (tmp_path / "1.pt").unlink()
    for one, other in zip(networks.load(1, SETTINGS[1], (0,)), kept, strict=True):
        assert one.member == other.member
        assert one.test_predictions is not None
        assert other.test_predictions is not None
        torch.testing.assert_close(one.test_predictions, other.test_predictions, rtol=1e-4, atol=1e-5)
    assert [n.fold for n in networks.load(7, SETTINGS[1], (2,))] == [(2, fold) for fold in (0, 0, 1, 1, 2, 2)]


def test_a_comparison_ships_a_bag_and_scores_it_on_rows_that_it_did_not_see(small_csv: str, tmp_path: Path) -> None:
    asked = Configuration(
        data=DataSettings(small_csv, "price"),
        model=ModelSettings(hidden=[6]),
        compare=CompareSettings(activations=["relu", "tanh"], learning_rates=[1e-2, 3e-2], folds=3, bag=4, budget=24),
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
    # the comparison itself stays as it was: a sweep of two or more rates, and four repeats of two activations
    assert (run.read_members().repeat > 0).sum() == 4 * 2 * 3
    table = read_table(asked.data)
    assert table.target is not None
    rmse, splits = [], make_splits(RowLayout(120), asked.compare.splitting("compare"), 0)
    for fold, rows in enumerate(splits[Split(1, fold, 0)].test for fold in range(3)):
        own = replace(ensemble, members=tuple(m for m in ensemble.members if m.member.split.fold == fold), residuals=())
        assert len(own.members) == 4 * len(counts)
        rmse.append(np.sqrt(np.mean(np.log(own.predict(table.features.iloc[rows]) / table.target[rows]) ** 2)))
    assert summary["ensemble"]["test_score"] == pytest.approx(np.sqrt(np.mean(np.square(rmse))), rel=1e-5)
    assert np.isfinite(summary["ensemble"]["test_score_chosen_on_other_folds"])
    # out-of-fold scoring of the file finds the rows of the further splits too
    on_rows = score(replace(asked, ckpt_path=str(run.checkpoint), data=DataSettings()), "test")
    assert on_rows == pytest.approx(np.sqrt(np.mean(np.square(rmse))), rel=1e-5)
    with pytest.raises(InputError, match="trained on their validation rows too"):
        score(replace(asked, ckpt_path=str(run.checkpoint), data=DataSettings()), "validation")


def test_a_bag_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"compare\.bag must be at least 1, got bag=0"):
        CompareSettings(bag=0)


@pytest.mark.parametrize("transform", ["log", "log1p", "none"])
def test_residuals_are_from_torchs_logarithm_to_the_bit(small_csv: str, tmp_path: Path, transform: Any) -> None:
    table = read_table(DataSettings(csv=small_csv, target="price"))
    assert table.target is not None
    asked = evaluation(small_csv, 1)
    asked = replace(asked, data=replace(asked.data, target_transform=transform))
    splits = make_splits(table.layout, asked.protocol, 0)
    test = splits[Split(0, 0, 0)].test
    made = replace(
        untrained(make_member(0, SETTINGS[0], Split(0, 0, 0), 0), {}),
        test_predictions=torch.zeros(len(test), dtype=torch.float64),
    )
    (part,) = RunNetworks(tmp_path, asked, table, splits).residuals([made])
    whole = torch.from_numpy(table.target)
    learned = {"log": whole.log(), "log1p": torch.from_numpy(np.log1p(table.target)), "none": whole}[transform]
    assert torch.equal(part.residuals, learned[test])
