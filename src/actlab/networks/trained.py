"""A trained network: weights, how its rows were prepared, scores; to plain content for a file, and back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from actlab.data.preprocessing import Preprocessor
from actlab.data.target import TargetScaler
from actlab.members import FoldKey, Member
from actlab.networks.network import FIRST_WEIGHT, Regressor, stack_states


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One network after training, with everything that a prediction needs.

    Args:
        state: Its tensors, as `Regressor.member_state` gives them.
        preprocessor: Fitted on its training rows; networks of one split share it.
        scaler: Target scale of its training rows.
        val_score: On its inner-validation rows; nan where it trained on them too.
        test_score: On the test rows of its fold.
        test_predictions: (n_test,) float64 for these rows, on the scale trained on; None once it is part of a model.
        weight: In the mean over the networks of a model, relative to the others' weights.
    """

    member: Member
    state: dict[str, Tensor]
    preprocessor: Preprocessor
    scaler: TargetScaler
    val_score: float
    test_score: float
    test_predictions: Tensor | None = None
    weight: float = 1.0

    @property
    def fold(self) -> FoldKey:
        """(repeat, fold) whose test rows the network never saw."""
        return (self.member.split.repeat, self.member.split.fold)

    @property
    def n_features(self) -> int:
        """F."""
        return int(self.state[FIRST_WEIGHT].shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain types; preprocessing and scale, which networks share, are left to the caller."""
        own = {name: value for name, value in vars(self).items() if name not in ("preprocessor", "scaler")}
        return {**{name: value for name, value in own.items() if value is not None}, "member": asdict(self.member)}

    @classmethod
    def from_dict(cls, content: dict[str, Any], preprocessor: Preprocessor, scaler: TargetScaler) -> "TrainedNetwork":
        """The network that `to_dict` described."""
        member, scores = Member.from_dict(content["member"]), (content["val_score"], content["test_score"])
        optional = {name: content[name] for name in ("test_predictions", "weight") if name in content}
        return cls(member, content["state"], preprocessor, scaler, *scores, **optional)


def stack_of(networks: Sequence[TrainedNetwork]) -> Regressor:
    """Networks of equal activation, widths and precision as one stack, in no less than float32, ready to predict."""
    stacked = stack_states([{name: value.detach() for name, value in one.state.items()} for one in networks])
    stack = Regressor([one.member for one in networks], [one.n_features for one in networks], stacked)
    return stack.to(torch.promote_types(stack.first_weight.dtype, torch.float32)).eval()
