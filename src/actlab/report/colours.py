"""One look for each activation, the same in every figure of every run: colour, marker and line.

Colours are those of Okabe & Ito (2008) and Tol (2021) that colour-blind readers tell apart and that show on white and
on black. Eight colours cannot tell 24 activations apart, so the marker and the line differ as well, and figures name
their rows and panels besides. The arms of an activation, which differ in another setting, have its colour and line, and
markers of their own.
"""

import zlib
from dataclasses import dataclass

PALETTE = ("#1f83c6", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a63b8", "#8c8c8c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", ":")

# Looks are given out in this order; a name that is not here gets one by its hash, so nothing has to be added.
# The first eight are those that readers know best: a colour of its own for each.
ORDER = (
    *("relu", "sigmoid", "tanh", "leaky_relu", "maxout", "silu", "gelu", "identity"),
    *("prelu", "elu", "selu", "mish", "softplus", "rrelu", "celu", "softsign"),
    *("hardswish", "hardtanh", "relu6", "relu_squared", "snake", "geglu", "reglu", "swiglu"),
)


@dataclass(frozen=True)
class Look:
    """How an activation is drawn."""

    colour: str
    marker: str
    line: str


def look(name: str) -> Look:
    """The look of an activation or of one of its arms (`relu [dropout=0.1]`), whatever else is in the figure.

    >>> look("relu")
    Look(colour='#1f83c6', marker='o', line='-')
    >>> look("mine.Bump") == look("mine.Bump") != look("relu")
    True
    >>> look("relu [init=torch]").colour == look("relu").colour
    True
    """
    activation, _, levels = name.partition(" [")
    place = ORDER.index(activation) if activation in ORDER else zlib.crc32(activation.encode())
    # arms of all activations that have the same levels keep the distance that the activations have
    marker = place + (zlib.crc32(levels.encode()) if levels else 0)
    return Look(PALETTE[place % len(PALETTE)], MARKERS[marker % len(MARKERS)], LINES[place // 8 % len(LINES)])
