"""The table of activations: every row works, says where it comes from, and learns what it says."""

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import nn

from actlab import activations
from actlab.activations import ACTIVATIONS, Activation
from actlab.errors import InputError

Z = torch.linspace(-4, 4, 81, dtype=torch.float64)
PAIRS = torch.stack([Z, Z.flip(0) + 0.3], dim=-1)

# independent of the modules: the formulas of the table, in numpy
FORMULAS = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(0, z),
    "leaky_relu": lambda z: np.where(z >= 0, z, 0.01 * z),
    "prelu": lambda z: np.where(z >= 0, z, 0.25 * z),
    "rrelu": lambda z: np.where(z >= 0, z, (1 / 8 + 1 / 3) / 2 * z),
    "elu": lambda z: np.where(z >= 0, z, np.exp(z) - 1),
    "celu": lambda z: np.maximum(0, z) + np.minimum(0, np.exp(z) - 1),
    "selu": lambda z: 1.0507009873554805 * np.where(z >= 0, z, 1.6732632423543772 * (np.exp(z) - 1)),
    "gelu": lambda z: z * (1 + erf(z / np.sqrt(2))) / 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(z))),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "hardswish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "hardtanh": lambda z: np.clip(z, -1, 1),
    "relu6": lambda z: np.clip(z, 0, 6),
    "relu_squared": lambda z: np.maximum(0, z) ** 2,
    "snake": lambda z: z + np.sin(z) ** 2,
}
GATED = {
    "maxout": lambda a, b: np.maximum(a, b),
    "geglu": lambda a, b: FORMULAS["gelu"](a) * b,
    "reglu": lambda a, b: np.maximum(0, a) * b,
    "swiglu": lambda a, b: FORMULAS["silu"](a) * b,
}


@pytest.mark.parametrize("name", [*FORMULAS, *GATED])
def test_an_activation_computes_its_formula(name: str) -> None:
    row = activations.get(name)
    module = row.build().double().eval()
    with torch.no_grad():
        if row.width_factor == 1:
            found, wanted = module(Z.unsqueeze(-1)).squeeze(-1), FORMULAS[name](Z.numpy())
        else:
            found, wanted = module(PAIRS).squeeze(-1), GATED[name](*PAIRS.numpy().T)
    assert found.numpy() == pytest.approx(np.asarray(wanted), abs=1e-9)


@pytest.mark.parametrize("row", ACTIVATIONS, ids=lambda row: row.name)
def test_every_record_maps_k_pre_activations_of_a_unit_to_one_output_with_a_gradient(row: Activation) -> None:
    """Whatever the leading axes, each row by itself: many networks pass at once."""
    z = torch.randn(3, 5, row.width_factor * 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = row.build().double().eval()
    h = module(z.requires_grad_(True))
    assert h.shape == (3, 5, 4)
    torch.testing.assert_close(h[1, 2], module(z[1, 2]), rtol=0, atol=1e-12)
    assert torch.isfinite(torch.autograd.grad(h.sum(), z)[0]).all()
    assert torch.autograd.gradcheck(module, z)


@pytest.mark.parametrize("row", ACTIVATIONS, ids=lambda row: row.name)
def test_what_a_row_says_it_learns_is_what_its_module_learns(row: Activation) -> None:
    assert bool(list(row.build().parameters())) == bool(row.parameters)
    assert row.formula
    assert any(letter.isdigit() for letter in row.source) or row.name == "identity"


def test_names_are_unique_and_every_build_is_a_module_of_its_own() -> None:
    assert len({row.name for row in ACTIVATIONS}) == len(ACTIVATIONS)
    row = activations.get("prelu")
    assert row.build() is not row.build()


def test_rrelu_draws_slopes_in_its_range_in_training_only() -> None:
    module = activations.get("rrelu").build()
    slopes = module(torch.full((1000,), -1.0)).neg()
    assert slopes.min() >= 1 / 8
    assert slopes.max() <= 1 / 3
    assert slopes.std() > 0.03


def test_a_wrong_name_lists_the_right_ones_and_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown activation 'rellu' \(did you mean 'relu'\?\).*swiglu"):
        activations.get("rellu")


class Cubic(nn.Module):
    """z^3"""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z**3


def test_any_module_class_is_an_activation_by_its_path() -> None:
    row = activations.get(f"{__name__}.Cubic")
    assert row.formula == "z^3"
    assert row.build()(torch.tensor(2.0)) == 8


@pytest.mark.parametrize("path", ["nowhere.Nothing", "torch.nn.Nothing", "torch.tensor", "torch."])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="activation"):
        activations.get(path)
