"""One evaluation for all: variants and their settings, records, determinism, and waves that change nothing."""

import gc
import math

import lightning.pytorch as pl
import numpy as np
import pytest

from actlab.activations import ACTIVATIONS, get
from actlab.config import Configuration
from actlab.data.datamodule import TabularDataModule
from actlab.data.layout import RowLayout
from actlab.data.splits import make_splits
from actlab.data.table import Table, read_table
from actlab.errors import InputError
from actlab.members import Member, Split
from actlab.networks.network import Regressor
from actlab.run_files import MemberRecord, to_frame
from actlab.runs import evaluate as trials
from actlab.runs.evaluate import Evaluation, Setting, baseline_of, evaluate, n_parameters, variants, widths_for
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, ProtocolSettings
from short_searches import works

HIDDEN = (144, 72, 18)
SETTINGS = {
    0: Setting("relu", 1e-2, 0.0, (16, 8), 0.1, "auto"),
    1: Setting("tanh", 1e-2, 0.0, (16, 8), 0.1, "auto"),
}


def asking(activations: list[str], factors: dict[str, list[object]]) -> Configuration:
    return Configuration(compare=CompareSettings(activations=activations, factors=factors))


def evaluation(csv: str) -> Evaluation:
    return Evaluation(
        DataSettings(csv=csv, target="price", batch_size=32),
        ProtocolSettings(folds=3, inner=2),
        OptimizerSettings(patience=5),
        {"max_epochs": 15, "accelerator": "cpu"},
    )


@pytest.fixture
def table(small_csv: str) -> Table:
    return read_table(DataSettings(csv=small_csv, target="price"))


def frame(csv: str, table: Table, settings: dict[int, Setting] | None = None) -> "np.ndarray":
    results = evaluate(works(settings or SETTINGS), evaluation(csv), table)
    records = [record for result in results for record in result.member_records()]
    return to_frame(records, MemberRecord).drop(columns="seconds")


def test_two_runs_give_the_same_rows_but_for_the_seconds(small_csv: str, table: Table) -> None:
    assert frame(small_csv, table).equals(frame(small_csv, table))


def test_every_setting_has_one_member_on_every_split(small_csv: str, table: Table) -> None:
    members = frame(small_csv, table)
    assert len(members) == 2 * 6
    assert not members.duplicated(["trial", "repeat", "fold", "inner"]).any()
    assert np.isfinite(members.test_score).all()


def test_splits_in_waves_give_the_same_rows(small_csv: str, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    together = frame(small_csv, table)
    monkeypatch.setattr(trials, "SPLIT_BYTES", 120 * 6 * 8 * 2)
    assert (
        len(
            trials._waves(
                list(make_splits(RowLayout(120), ProtocolSettings(folds=3, inner=2), 0)), table, evaluation(small_csv)
            )
        )
        > 1
    )
    assert frame(small_csv, table).equals(together)


def test_a_callback_that_outlives_its_population_does_not_keep_the_rows(small_csv: str, table: Table) -> None:
    def datamodules() -> int:
        return sum(type(found) is TabularDataModule for found in gc.get_objects())

    gc.collect()
    before, callback = datamodules(), pl.Callback()
    evaluate(works(SETTINGS), evaluation(small_csv), table, [callback])
    assert datamodules() == before
    assert not vars(callback)


def test_the_test_score_is_the_rmse_of_the_log_predictions(small_csv: str, table: Table) -> None:
    (result,) = evaluate(works({0: SETTINGS[0]}), evaluation(small_csv), table)
    splits = make_splits(table.layout, ProtocolSettings(folds=3, inner=2), 0)
    assert table.target is not None
    for outcome in result.outcomes:
        truth = np.log(table.target[splits[outcome.member.split].test])
        assert outcome.network is not None
        assert outcome.network.test_predictions is not None
        wanted = math.sqrt(np.mean((outcome.network.test_predictions.numpy() - truth) ** 2))
        assert outcome.test_score == pytest.approx(wanted, rel=1e-6)


def test_a_trial_with_a_diverged_member_keeps_its_row_and_has_no_value(small_csv: str, table: Table) -> None:
    wild = Setting("relu_squared", 1e25, 0.0, (16, 8), 0.0, "auto")
    results = evaluate(works({0: wild, 1: SETTINGS[1]}), evaluation(small_csv), table)
    assert results[0].value == math.inf
    assert all(record.diverged for record in results[0].member_records())
    assert math.isfinite(results[1].value)


def test_curves_have_a_row_an_epoch_with_the_members_still_in_training(small_csv: str, table: Table) -> None:
    (result,) = evaluate(works({0: SETTINGS[0]}), evaluation(small_csv), table)
    curves = result.curve_records()
    assert [row.epoch for row in curves] == list(range(1, max(o.epochs for o in result.outcomes) + 1))
    assert curves[0].members == 6
    assert curves[0].val_mean == pytest.approx(np.mean([o.val_curve[0] for o in result.outcomes]))


@pytest.mark.parametrize("name", [row.name for row in ACTIVATIONS])
def test_parameters_are_counted_as_the_network_has_them(name: str) -> None:
    member = Member(0, name, 0.01, Split(0, 0, 0), 0, (7, 5))
    assert n_parameters(name, (7, 5), 11) == Regressor([member], [11]).n_parameters(0)


@pytest.mark.parametrize("n_features", [8, 288])
@pytest.mark.parametrize("name", [row.name for row in ACTIVATIONS])
def test_matched_widths_have_nearly_equally_many_parameters(name: str, n_features: int) -> None:
    widths = widths_for(name, HIDDEN, n_features)
    plain = n_parameters("relu", HIDDEN, n_features)
    assert n_parameters(name, widths, n_features) == pytest.approx(plain, rel=0.01)
    assert (widths == HIDDEN) == (get(name).width_factor == 1)
    assert all(width <= full for width, full in zip(widths, HIDDEN, strict=True))


def test_a_maxout_layer_by_hand() -> None:
    """One layer on one input: a plain unit has 3 numbers, a maxout unit 5, and the output one bias."""
    assert n_parameters("relu", (10,), 1) == 31
    assert n_parameters("maxout", (10,), 1) == 51
    assert n_parameters("prelu", (10,), 1) == 32
    assert widths_for("maxout", (10,), 1) == (6,)
    assert widths_for("maxout", (1,), 1) == (1,)


def test_without_factors_a_variant_is_an_activation() -> None:
    found = variants(asking(["relu", "tanh"], {}))
    assert found == [Setting.of(name, Configuration()) for name in ("relu", "tanh")]
    assert [variant.label for variant in found] == ["relu", "tanh"]


def test_factors_are_crossed_and_named() -> None:
    found = variants(asking(["relu", "tanh"], {"init": ["auto", "torch"], "hidden": [[64, 32], [8]]}))
    assert [variant.label for variant in found][:4] == [
        "relu [init=auto, hidden=64-32]",
        "relu [init=auto, hidden=8]",
        "relu [init=torch, hidden=64-32]",
        "relu [init=torch, hidden=8]",
    ]
    assert len(found) == 8
    assert (found[3].init, found[3].hidden) == ("torch", (8,))
    assert found[3].dropout == ModelSettings().dropout
    assert variants(asking(["relu"], {"weight_decay": [0.1]}))[0].weight_decay == 0.1


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"depth": [1]}, "compare.factors must be among init, dropout, hidden, weight_decay, got 'depth'"),
        ({"init": []}, "compare.factors.init must be a list of levels"),
        ({"init": "torch"}, "compare.factors.init must be a list of levels"),
        ({"init": ["auto", "auto"]}, "must not name a level twice"),
        ({"init": ["auto", "xavier"]}, "compare.factors.init must be auto or torch, got 'xavier'"),
        ({"dropout": [0.0, 1.5]}, "model.dropout must be in [0, 1), got dropout=1.5"),
        ({"dropout": ["much"]}, "compare.factors.dropout cannot be 'much'"),
        ({"hidden": [[0]]}, "model.hidden must name at least one layer"),
        ({"hidden": [5]}, "compare.factors.hidden cannot be 5"),
    ],
)
def test_a_factor_that_makes_no_sense_is_refused_with_the_reason(
    factors: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        variants(asking(["relu"], factors))
    assert message in str(caught.value)


def test_the_baseline_is_the_first_variant_of_its_activation() -> None:
    found = variants(asking(["tanh", "relu"], {"init": ["auto", "torch"]}))
    assert baseline_of("relu", found) == "relu [init=auto]"
    assert baseline_of("relu [init=torch]", found) == "relu [init=torch]"
    assert baseline_of("silu", found) == "silu"
