"""What networks compute, checked by value: whether one is affine, and that maxout contains ReLU and leaky ReLU."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from actlab.members import Member
from actlab.networks import activations
from actlab.networks.regressor import Regressor, stack_states

N_POINTS = 200


def deviation_from_affine(networks: Sequence[tuple[Member, Mapping[str, Tensor]]]) -> float:
    """The largest |f(t x + (1 - t) y) - t f(x) - (1 - t) f(y)| over random x, y, t, in standard deviations of f.

    Zero, up to rounding in float64, exactly where every network is an affine function of its inputs.

    Args:
        networks: Each member with its own tensors, as `Regressor.member_state` gives them.
    """
    return max(_deviation(member, state) for member, state in networks)


def _deviation(member: Member, state: Mapping[str, Tensor]) -> float:
    own = stack_states([{name: value.double() for name, value in state.items()}])
    n_features = state["weight_0"].shape[1]
    stack = Regressor([member], [n_features], own).double().eval()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, N_POINTS, n_features, generator=generator, dtype=torch.float64) * 3
    t = torch.rand(N_POINTS, 1, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        between, at_x, at_y = (stack(points)[0] for points in (t * x + (1 - t) * y, x, y))
    straight = t[:, 0] * at_x + (1 - t[:, 0]) * at_y
    spread = torch.cat([at_x, at_y]).std().clamp_min(torch.finfo(torch.float64).tiny)
    return float((between - straight).abs().max() / spread)


def maxout_error(name: str) -> float:
    """The largest difference between an activation and the maxout of z and f'(-1) z, on numbers around zero.

    Zero for ReLU (pieces z and 0) and leaky ReLU (pieces z and 0.01 z): the network with weights (W, c W) is theirs.
    """
    z = torch.linspace(-50, 50, 2001).view(1, -1, 1)
    module = activations.get(name).build().eval()
    with torch.no_grad():
        slope = -module(torch.full((1, 1, 1), -1.0))
        both = activations.get("maxout").build()(torch.cat([z, slope * z], dim=-1))
        return float((both - module(z)).abs().max())
