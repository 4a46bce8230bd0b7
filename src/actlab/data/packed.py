"""A column of cell texts in little memory: 16 bytes a cell where a list of Python's own texts takes 60."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import overload

import numpy as np


class PackedTexts(Sequence[str]):
    """Cell texts, added block by block; read one by one or all in order, as a list would be.

    NumPy's variable-width texts keep up to 15 bytes in place and longer ones in an arena of their own.
    """

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._ends: list[int] = [0]

    def extend(self, texts: Sequence[str]) -> None:
        """Add a block of texts at the end."""
        if len(texts) > 0:
            self._parts.append(np.array(texts, dtype=np.dtypes.StringDType()))
            self._ends.append(self._ends[-1] + len(texts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[str]:
        blocks: Iterable[list[str]] = (part.tolist() for part in self._parts)
        return chain.from_iterable(blocks)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        part = int(np.searchsorted(self._ends, place, side="right")) - 1
        return str(self._parts[part][place - self._ends[part]])
