"""What a preprocessor does to one column: frozen numbers in, a slice of the network's inputs out."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

# Cells beyond this are taken as this: their powers must not overflow float64.
HUGE = 1e90
SMOOTH_BOUND = 3.0


@dataclass(frozen=True)
class NumberRule:
    """value = bound((f(x) - centre) * factor), f = log1p(max(x, 0)) or x itself.

    Args:
        name: Of the column.
        ranks: Categories of an ordinal column, from lowest to highest; x is the position.
        is_log: Whether f is log1p.
        centre: Subtracted first.
        factor: Multiplied second; 0 for a column that is constant in the training rows.
        fill: Scaled value of a missing cell, from the median of the training rows.
        low: Least scaled value.
        high: Greatest scaled value.
        is_smooth: Whether v / sqrt(1 + (v / 3)^2) comes last.
        has_indicator: Whether a second column says that the cell is missing.
    """

    name: str
    ranks: tuple[str, ...]
    is_log: bool
    centre: float
    factor: float
    fill: float
    low: float
    high: float
    is_smooth: bool
    has_indicator: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per input column."""
        return (self.name, f"{self.name} (missing)") if self.has_indicator else (self.name,)

    def write(self, cells: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (B, 1 or 2) from (B,) cells."""
        x = ranks_of(cells, self.ranks) if self.ranks else np.clip(cells.astype(np.float64), -HUGE, HUGE)
        is_missing = np.isnan(x)
        if self.is_log:
            x = np.log1p(np.maximum(x, 0.0))
        value = np.where(is_missing, self.fill, (x - self.centre) * self.factor)
        value = np.clip(value, self.low, self.high)
        out[:, 0] = value / np.sqrt(1.0 + (value / SMOOTH_BOUND) ** 2) if self.is_smooth else value
        if self.has_indicator:
            out[:, 1] = is_missing

    def unseen(self, cells: np.ndarray) -> list[str]:
        """Texts that are not among the ordered categories."""
        return _unknown(cells, self.ranks) if self.ranks else []


@dataclass(frozen=True)
class CategoryRule:
    """One 0/1 column per category, and where needed one for missing and one for all other categories.

    Args:
        name: Of the column.
        categories: Of the training rows, in alphabetical order; the most frequent ones where there are too many.
        has_missing: Whether missing has a column; otherwise a missing cell is all zeros.
        has_other: Whether all other categories share a column; otherwise they are all zeros.
    """

    name: str
    categories: tuple[str, ...]
    has_missing: bool
    has_other: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per input column."""
        slots = [*self.categories, *(["(missing)"] * self.has_missing), *(["(other)"] * self.has_other)]
        return tuple(f"{self.name}={slot}" for slot in slots)

    def write(self, cells: np.ndarray, out: np.ndarray) -> None:
        """Set the ones of `out` (B, n_slots), all zeros so far, from (B,) cells."""
        n_known = len(self.categories)
        other = n_known + self.has_missing if self.has_other else -1
        codes, texts = pd.factorize(cells)
        slot_of = {text: slot for slot, text in enumerate(self.categories)}
        # the last entry is for missing cells, which factorize gives the code -1
        slots = np.array([*(slot_of.get(text, other) for text in texts), n_known if self.has_missing else -1])[codes]
        rows = np.flatnonzero(slots >= 0)
        out[rows, slots[rows]] = 1.0

    def unseen(self, cells: np.ndarray) -> list[str]:
        """Categories without a column of their own, unless all others share one."""
        return [] if self.has_other else _unknown(cells, self.categories)


def ranks_of(cells: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Return (B,) float64 positions in `order`, NaN for everything else."""
    codes, texts = pd.factorize(cells)
    rank_of = {text: float(rank) for rank, text in enumerate(order)}
    return np.array([*(rank_of.get(text, np.nan) for text in texts), np.nan])[codes]


def _unknown(cells: np.ndarray, known: tuple[str, ...]) -> list[str]:
    return sorted(set(map(str, pd.factorize(cells)[1])) - set(known))


def rule_state(rule: NumberRule | CategoryRule) -> dict[str, Any]:
    """The rule as lists, text, numbers and booleans."""
    state = asdict(rule)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in state.items()}


def rule_of(state: dict[str, Any]) -> NumberRule | CategoryRule:
    """The rule that `rule_state` described."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}
    return CategoryRule(**values) if "has_other" in values else NumberRule(**values)
