"""The CSV as tensors: splits, preprocessing fitted on each split's training rows, batch orders.

A table is small next to the networks trained on it, so every split's preprocessed rows lie on the device as one
tensor and a batch is an index gather: no worker processes, no collation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from actlab.data.preprocessing import Preprocessor, fit_and_transform, fit_preprocessor
from actlab.data.splits import Rows, SplitRows, make_splits, without_validation
from actlab.data.table import Table, read_table
from actlab.data.target import TargetScaler, fit_target
from actlab.members import Split, Stream, stream_seed
from actlab.settings import DataSettings, ProtocolSettings

# Vectorised exponentials and their scalar tails differ in the last bit, and a tail belongs to whichever member lies
# last in a stack. Batches of a multiple of the widest vector (two of 16 floats) leave no tail, so that a member's bits
# do not depend on its neighbours.
LANES = 32


@dataclass(frozen=True)
class SplitData:
    """One split, preprocessed by what its training rows say.

    `features` is (n_rows, F) float32 and `targets` (n_rows,) float64, the standardised (log) target, for all rows of
    the table; `rows` says which of them are for training, validation and test. `weights` (n_rows,) float64 are what
    rows count, 1 on average over the training rows; None where all count alike.
    """

    rows: SplitRows
    preprocessor: Preprocessor
    scaler: TargetScaler
    features: Tensor
    targets: Tensor
    weights: Tensor | None = None

    @property
    def n_features(self) -> int:
        return int(self.features.shape[1])


class SplitTensors:
    """The rows of all splits on the device: features (S, N, F), standardised targets (S, N), F padded with zeros; and
    `flat_weights` (S * N,), empty where all rows count alike."""

    def __init__(self, data: dict[Split, SplitData], device: torch.device, dtype: torch.dtype) -> None:
        widest = max(split.n_features for split in data.values())
        self.place = {split: place for place, split in enumerate(data)}
        self.n_rows = len(next(iter(data.values())).targets)
        self.features = torch.zeros(len(data), self.n_rows, widest, device=device, dtype=dtype)
        self.targets = torch.zeros(len(data), self.n_rows, device=device, dtype=dtype)
        for place, split in enumerate(data.values()):
            self.features[place, :, : split.n_features] = split.features.to(device, dtype)
            self.targets[place] = split.targets.to(device, dtype)
        self._validation = {split: torch.from_numpy(entry.rows.validation) for split, entry in data.items()}
        self._held_out: dict[tuple[Split, ...], tuple[Tensor, Tensor, Tensor | None]] = {}
        self.flat_features = self.features.view(-1, widest)
        self.flat_targets = self.targets.view(-1)
        weights = [split.weights for split in data.values() if split.weights is not None]
        self.flat_weights = torch.cat(weights).to(device, dtype) if weights else self.targets.new_empty(0)

    def flat_rows(self, order: "EpochOrder", streams: Sequence[Stream]) -> Tensor:
        """Flat row numbers (steps, P, B) on the device of an epoch, P streams."""
        rows = torch.stack([order.rows[stream] for stream in streams], dim=1)
        places = torch.tensor([self.place[stream[1]] for stream in streams]) * self.n_rows
        return (rows + places.unsqueeze(1)).to(self.features.device)

    def held_out(self, splits: tuple[Split, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Validation features (S, V, F), targets (S, V) and weights (S, V), None where all rows count alike, of splits
        with equally many, rows filled up to whole lanes.

        The rows that fill up repeat others; V = 0 stays 0. Asked for again, the same tensors come back.
        """
        if splits not in self._held_out:
            rows = torch.stack([self._validation[split] for split in splits])
            filled = rows[:, torch.arange(whole_lanes(rows.shape[1])) % max(1, rows.shape[1])]
            places = torch.tensor([self.place[split] for split in splits]).unsqueeze(1) * self.n_rows
            flat_rows = (filled + places).to(self.features.device)
            weights = self.flat_weights[flat_rows] if len(self.flat_weights) else None
            self._held_out[splits] = (*self.gather(flat_rows, self.features.shape[-1]), weights)
        return self._held_out[splits]

    def gather(self, flat_rows: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
        """Features (P, B, F) and targets (P, B) of flat row numbers (P, B) = place * N + row."""
        width = self.flat_features.shape[1]
        features = self.flat_features.index_select(0, flat_rows.reshape(-1)).view(*flat_rows.shape, width)
        return features[..., :n_features], self.flat_targets[flat_rows]


class EpochOrder(NamedTuple):
    """What one training epoch visits: for each stream, row numbers (steps, B) in the order of visit."""

    epoch: int
    rows: dict[Stream, Tensor]


def whole_lanes(n_rows: int) -> int:
    """`n_rows` rounded up to a multiple of `LANES`."""
    return -(-n_rows // LANES) * LANES


def batch_shape(n_rows: int, batch_size: int) -> tuple[int, int]:
    """(steps, B) of an epoch that visits every row. All batches are of one size, which keeps a population in step."""
    size = min(batch_size, whole_lanes(n_rows))
    return -(-n_rows // size), size


def batch_orders(training_rows: Tensor, streams: Sequence[Stream], epoch: int, batch_size: int) -> Tensor:
    """Row numbers (S, steps, B) of one epoch, a function of each stream and the epoch alone.

    A permutation of the rows; the last batch is filled up from its beginning, so a few rows, others in each epoch, are
    visited twice.
    """
    n_rows = len(training_rows)
    steps, size = batch_shape(n_rows, batch_size)
    generators = [torch.Generator().manual_seed(stream_seed(stream, "order", epoch)) for stream in streams]
    shuffled = torch.stack([torch.randperm(n_rows, generator=generator) for generator in generators])
    filled = shuffled[:, torch.arange(steps * size) % n_rows]
    return training_rows[filled].view(len(streams), steps, size)


class TabularDataModule(pl.LightningDataModule):
    """Reads any CSV with a numeric target and hands out its splits.

    Args:
        settings: Name the file, unless its `table` is read already.
        splits: The splits to prepare; all of the protocol when not given.
        is_refit: Train on the validation rows too.
    """

    def __init__(
        self,
        settings: DataSettings,
        protocol: ProtocolSettings,
        seed: int = 0,
        splits: Sequence[Split] | None = None,
        table: Table | None = None,
        is_refit: bool = False,
    ) -> None:
        super().__init__()
        self.settings, self.protocol, self.seed, self.is_refit = settings, protocol, seed, is_refit
        self.table, self.wanted = table, splits
        self.data: dict[Split, SplitData] = {}
        self.streams: tuple[Stream, ...] = ()

    def setup(self, stage: str | None = None) -> None:
        """Read the table and preprocess every wanted split, once; an `InputError` where the CSV cannot be used."""
        if self.data:
            return
        self.table = self.table or read_table(self.settings)
        splits = make_splits(self.table.layout, self.protocol, self.seed)
        for split in self.wanted if self.wanted is not None else splits:
            rows = without_validation(splits[split]) if self.is_refit else splits[split]
            self.data[split] = prepare(self.table, rows, self.settings)

    def train_dataloader(self) -> "EpochLoader":
        return EpochLoader(self)

    def val_dataloader(self) -> list[str]:
        """One batch: the module holds the validation rows."""
        return ["validation"]

    def test_dataloader(self) -> list[str]:
        return ["test"]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave row numbers where they are: a stack takes those of all its members to the device at once."""
        return batch

    def order(self, epoch: int) -> EpochOrder:
        """The batch orders of all streams that train, on the CPU."""
        of_split: dict[Split, list[Stream]] = {}
        for stream in self.streams:
            of_split.setdefault(stream[1], []).append(stream)
        rows: dict[Stream, Tensor] = {}
        for split, streams in of_split.items():
            training = torch.from_numpy(self.data[split].rows.training)
            rows |= zip(streams, batch_orders(training, streams, epoch, self.settings.batch_size), strict=True)
        return EpochOrder(epoch, rows)


class EpochLoader:
    """One batch an epoch: the epoch's order for the whole population.

    The order depends on the trainer's epoch and not on how often the loader was started, so a resumed fit goes on
    with the batches it would have seen.
    """

    def __init__(self, datamodule: TabularDataModule) -> None:
        self.datamodule = datamodule

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[EpochOrder]:
        trainer = self.datamodule.trainer
        yield self.datamodule.order(trainer.current_epoch if trainer is not None else 0)


def fit_scales(table: Table, rows: Rows, settings: DataSettings) -> tuple[Preprocessor, TargetScaler]:
    """Preprocessing and target scale, from some rows of a table with a target. Weights count in the target's, and in
    preprocessing where they are numbers of copies."""
    assert table.target is not None
    preprocessor = fit_preprocessor(table.features, table.schema, table.layout.repeated(rows), settings, table.target)
    return preprocessor, fit_target(table.target, rows, settings.target_transform, table.layout.weights)


def prepare(table: Table, rows: SplitRows, settings: DataSettings) -> SplitData:
    """Fit preprocessing and target scale on the training rows, apply them to all rows."""
    if table.target is None:
        raise ValueError("a table without a target cannot be prepared for training")
    weights, training = table.layout.weights, table.layout.repeated(rows.training)
    preprocessor, inputs = fit_and_transform(table.features, table.schema, training, settings, table.target)
    scaler = fit_target(table.target, rows.training, settings.target_transform, weights)
    targets = torch.from_numpy(np.ascontiguousarray(scaler.forward(table.target)))
    relative = None if weights is None else torch.from_numpy(weights / weights[rows.training].mean())
    return SplitData(rows, preprocessor, scaler, torch.from_numpy(inputs), targets, relative)
