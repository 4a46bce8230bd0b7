"""Histograms of pre-activations agree with networks made of torch's own modules, value by value."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from actlab.diagnostics import measures as pre_activations
from actlab.diagnostics.measures import N_BINS, TAIL, bin_records, n_rows
from actlab.members import Member, Split
from actlab.networks.network import Regressor
from actlab.networks.trained import TrainedNetwork
from small_ensembles import untrained

MEMBERS = [Member(0, "tanh", 0.01, Split(0, fold, 0), fold, (5, 4)) for fold in range(3)]
N_FEATURES = (6, 7, 6)


def trained(seed: int = 0) -> list[tuple[TrainedNetwork, torch.Tensor]]:
    """Networks with weights that are not their initial ones."""
    torch.manual_seed(seed)
    found = []
    for member, n_features in zip(MEMBERS, N_FEATURES, strict=True):
        state = Regressor([member], [n_features]).member_state(0)
        state = {name: value + torch.randn_like(value) for name, value in state.items()}
        found.append((untrained(member, state), torch.randn(50, n_features)))
    return found


def alone(state: dict[str, torch.Tensor], features: torch.Tensor) -> list[np.ndarray]:
    """Pre-activations of both layers, from `nn.Linear` and `nn.Tanh`."""
    found, signal = [], features
    for depth in range(2):
        weight, bias = state[f"weight_{depth}"], state[f"bias_{depth}"]
        z = nn.functional.linear(signal, weight, bias)
        found.append(z.double().numpy().ravel())
        signal = nn.Tanh()(z)
    return found


def test_counts_are_those_of_numpy_over_separately_computed_values() -> None:
    networks = trained()
    records = bin_records(networks)
    initial = [Regressor([one.member], [features.shape[1]]).member_state(0) for one, features in networks]
    for layer in (1, 2):
        for moment, states in (("start", initial), ("best", [one.state for one, _ in networks])):
            own = [record for record in records if (record.layer, record.moment) == (layer, moment)]
            assert len(own) == N_BINS
            pairs = zip(states, networks, strict=True)
            values = np.concatenate([alone(state, features)[layer - 1] for state, (_, features) in pairs])
            edges = [record.low for record in own] + [own[-1].high]
            expected, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
            # a value at an edge may fall on either side of it in single precision
            assert np.abs(np.cumsum([record.count for record in own]) - np.cumsum(expected)).max() <= 1
            assert sum(record.count for record in own) == values.size


def test_both_moments_have_the_same_bins_and_few_values_lie_beyond() -> None:
    networks = trained()
    records = bin_records(networks)
    edges = {m: [(r.low, r.high) for r in records if (r.moment, r.layer) == (m, 1)] for m in ("start", "best")}
    assert edges["start"] == edges["best"]
    values = np.concatenate([alone(one.state, features)[0] for one, features in networks])
    low, high = edges["best"][0][0], edges["best"][-1][1]
    assert np.mean((values < low) | (values > high)) <= 2 * (TAIL + 1 / values.size)


def test_networks_of_different_depths_are_counted_where_they_have_the_layer() -> None:
    deep = trained()
    shallow = replace(MEMBERS[0], hidden=(3,))
    features = torch.randn(20, 6)
    records = bin_records([*deep, (untrained(shallow, Regressor([shallow], [6]).member_state(0)), features)])
    counted = {layer: sum(r.count for r in records if (r.layer, r.moment) == (layer, "best")) for layer in (1, 2)}
    assert counted == {1: 3 * 50 * 5 + 20 * 3, 2: 3 * 50 * 4}


@pytest.mark.parametrize("activation", ["relu", "maxout", "prelu", "rrelu", "geglu"])
def test_every_kind_of_activation_is_looked_at_without_touching_random_numbers(activation: str) -> None:
    member = replace(MEMBERS[0], activation=activation)
    state = Regressor([member], [6]).member_state(0)
    before = torch.get_rng_state()
    records = bin_records([(untrained(member, state), torch.ones(9, 6))])
    assert torch.equal(before, torch.get_rng_state())
    start, best = ([r.count for r in records if r.moment == moment] for moment in ("start", "best"))
    assert start == best


def test_rows_are_limited_so_that_values_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pre_activations, "MAX_VALUES", 1000)
    assert n_rows(10, 20) == 5
    assert n_rows(1000, 1000) == 1
