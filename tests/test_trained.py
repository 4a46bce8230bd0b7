"""A trained network: to plain content and back, alone and in a stack."""

from dataclasses import replace

import pytest
import torch

from actlab.members import Member, Split
from actlab.networks.network import Regressor
from actlab.networks.trained import TrainedNetwork, stack_of
from small_ensembles import perturbed, untrained


def network(n_features: int, seed: int) -> TrainedNetwork:
    member = Member(3, "prelu", 0.01, Split(0, 1, seed), seed, (4, 2))
    return untrained(member, perturbed(Regressor([member], [n_features]).member_state(0)))


@pytest.mark.parametrize("predictions", [None, torch.arange(3.0, dtype=torch.float64)])
def test_a_network_comes_back_from_its_content(predictions: torch.Tensor | None) -> None:
    one = replace(network(5, 0), test_predictions=predictions, weight=2.0)
    content = one.to_dict()
    assert ("test_predictions" in content) == (predictions is not None)
    again = TrainedNetwork.from_dict(content, one.preprocessor, one.scaler)
    assert vars(again) == vars(one)
    assert (again.fold, again.n_features) == ((0, 1), 5)


def test_content_that_was_written_before_there_were_weights_is_read() -> None:
    one = network(5, 0)
    content = one.to_dict()
    del content["weight"]
    assert TrainedNetwork.from_dict(content, one.preprocessor, one.scaler).weight == 1.0


def test_a_stack_computes_what_each_network_computes_alone() -> None:
    networks, features = [network(6, 0), network(6, 1)], torch.randn(7, 6)
    with torch.no_grad():
        alone = torch.cat([stack_of([one])(features) for one in networks])
        torch.testing.assert_close(stack_of(networks)(features), alone)
