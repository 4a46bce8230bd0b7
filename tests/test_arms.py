"""Fair arms: equal numbers of parameters, and settings that are compared like activations."""

import pytest

from actlab.errors import InputError
from actlab.members import Member, Split
from actlab.networks.activations import ACTIVATIONS, get
from actlab.networks.network import Regressor
from actlab.runs.trial_settings import arms, baseline_arm, n_parameters, widths_for
from actlab.settings import ModelSettings, OptimizerSettings

HIDDEN = (144, 72, 18)
MODEL, OPTIMIZER = ModelSettings(), OptimizerSettings()


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


def test_without_factors_an_arm_is_an_activation() -> None:
    found = arms(["relu", "tanh"], {}, MODEL, OPTIMIZER)
    assert [(arm.name, arm.activation, arm.model, arm.optimizer) for arm in found] == [
        (name, name, MODEL, OPTIMIZER) for name in ("relu", "tanh")
    ]


def test_factors_are_crossed_and_named() -> None:
    found = arms(["relu", "tanh"], {"init": ["auto", "torch"], "hidden": [[64, 32], [8]]}, MODEL, OPTIMIZER)
    assert [arm.name for arm in found][:4] == [
        "relu [init=auto, hidden=64-32]",
        "relu [init=auto, hidden=8]",
        "relu [init=torch, hidden=64-32]",
        "relu [init=torch, hidden=8]",
    ]
    assert len(found) == 8
    assert (found[3].model.init, found[3].model.hidden) == ("torch", [8])
    assert found[3].model.dropout == MODEL.dropout
    assert arms(["relu"], {"weight_decay": [0.1]}, MODEL, OPTIMIZER)[0].optimizer.weight_decay == 0.1


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
        arms(["relu"], factors, MODEL, OPTIMIZER)
    assert message in str(caught.value)


def test_the_baseline_is_the_first_arm_of_its_activation() -> None:
    found = arms(["tanh", "relu"], {"init": ["auto", "torch"]}, MODEL, OPTIMIZER)
    assert baseline_arm("relu", found) == "relu [init=auto]"
    assert baseline_arm("relu [init=torch]", found) == "relu [init=torch]"
    assert baseline_arm("silu", found) == "silu"
