"""Kinds of tables that people have and that go wrong elsewhere, each as a generator of variants with what is right.

A module of this package holds the kinds of one topic. A kind is a function of a random generator and an empty folder
that makes one variant, as a user would meet it, and asserts the right value:

    @kind("decimal commas at prediction", "the values of training, whatever the file's own style")
    def _(generator: np.random.Generator, folder: Path) -> None: ...
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Variant = Callable[[np.random.Generator, Path], None]


@dataclass(frozen=True)
class Kind:
    """One kind of table: its title, what is right for it, and the function that tries one variant.

    `is_slow` where a variant takes more than about 20 ms, because networks train, say; `n_variants` are tried.
    """

    title: str
    right: str
    variant: Variant
    is_slow: bool
    n_variants: int


KINDS: dict[str, Kind] = {}


def kind(title: str, right: str, is_slow: bool = False, n_variants: int = 50) -> Callable[[Variant], Variant]:
    """Register a kind of table under its title."""

    def register(variant: Variant) -> Variant:
        assert title not in KINDS, title
        KINDS[title] = Kind(title, right, variant, is_slow, n_variants)
        return variant

    return register


def load_kinds() -> dict[str, Kind]:
    """Every kind of every module of this package, by its title."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(KINDS.items()))
