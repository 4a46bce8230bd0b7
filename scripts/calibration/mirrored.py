"""An activation of one's own that is known to be no better and no worse than another."""

from torch import Tensor, nn


class MirroredElu(nn.ELU):
    """-elu(-z). Networks of it are networks of elu with the signs of their hidden units turned round, and initial
    weights are as likely with one sign as with the other: both have the same scores in distribution."""

    def forward(self, input: Tensor) -> Tensor:
        return -super().forward(-input)
