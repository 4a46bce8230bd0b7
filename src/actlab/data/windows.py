"""Expanding windows: rows are trained on, validated on and tested in the order of time, at every level.

The rows are cut into K + 1 contiguous blocks of time, as equal in rows as whole time stamps allow: those of one time
stamp are never divided. Fold k of K tests block k + 1; it trains on all rows before that, of which the last part
validates. The first block is never tested. A race finds its learning rates in that block alone, so that no row later
than a test row has a say in them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actlab.errors import InputError
from actlab.settings import ProtocolSettings

Rows = NDArray[np.int64]

# The fewest rows of each part.
LEAST_VALIDATION, LEAST_TRAINING = 2, 3
# Contiguous blocks of tested rows that are units for what is said of new rows: neighbours in time are alike.
N_UNITS = 20


class Window(NamedTuple):
    """Sorted row numbers: of `training` < `validation` < `test` in time."""

    training: Rows
    validation: Rows
    test: Rows


def windows(time: NDArray[np.float64], protocol: ProtocolSettings) -> list[Window]:
    """The windows of K folds, and one more that tests nothing and trains on all rows, from the time (n,) of each.

    Raises:
        InputError: too few time stamps or rows for so many folds.
    """
    n_folds, share, stamps, found = protocol.folds, protocol.validation_fraction, np.unique(time), list[Window]()
    # a time stamp for each block, and another for the first, which is divided once more
    if len(stamps) >= n_folds + 2:
        blocks = time_blocks(np.maximum(time, stamps[1]), n_folds + 1)
        for fold in range(n_folds + 1):
            known, test = np.flatnonzero(blocks <= fold), np.flatnonzero(blocks == fold + 1)
            earlier, last = without_last_part(time[known], share)
            found.append(Window(known[earlier], known[last], test))
    if not found or len(found[0].training) < LEAST_TRAINING or len(found[0].validation) < LEAST_VALIDATION:
        raise InputError(
            f"{len(time)} rows of {len(stamps)} different times are too few for {n_folds} folds with a validation "
            f"fraction of {share}: each tests times of its own, and before the first of them there must be at least "
            f"{LEAST_TRAINING} rows to train and {LEAST_VALIDATION} to validate on; ask for fewer with --compare.folds"
        )
    return found


def time_blocks(time: NDArray[np.float64], n_blocks: int) -> Rows:
    """The contiguous block (n,) of each row, from 0 without gaps; fewer blocks where there are fewer time stamps.

    A block ends with the time stamp that is nearest to its share of the rows, and each has at least one.
    """
    stamps, codes, counts = np.unique(time, return_inverse=True, return_counts=True)
    n_blocks, ends, starts = min(n_blocks, len(stamps)), np.cumsum(counts), [0]
    for block in range(1, n_blocks):
        # time stamps before the block
        nearest = 1 + int(np.abs(ends - block * len(time) / n_blocks).argmin())
        starts.append(min(max(nearest, starts[-1] + 1), len(stamps) - (n_blocks - block)))
    return np.searchsorted(starts, codes, side="right") - 1


def without_last_part(time: NDArray[np.float64], share: float) -> tuple[Rows, Rows]:
    """Positions of all rows but the last share of them, and of these: of whole time stamps, at least one each."""
    stamps, counts = np.unique(time, return_counts=True)
    cut = int(np.abs(np.cumsum(counts)[:-1] - (1 - share) * len(time)).argmin())
    return np.flatnonzero(time <= stamps[cut]), np.flatnonzero(time > stamps[cut])
