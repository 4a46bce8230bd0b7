"""What contestants train: networks on data that are preprocessed already, and what they give back."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from actlab.config import Configuration
from actlab.data.datamodule import SplitData, prepare
from actlab.data.preprocessing import Preprocessor
from actlab.data.splits import SplitRows, make_splits
from actlab.data.table import read_table
from actlab.data.target import fit_target
from actlab.members import Member, Split
from actlab.runs import article
from actlab.runs.evaluate import Setting, make_member
from actlab.settings import DataSettings, OptimizerSettings

ARTICLE_BATCH = 24
CPU = torch.device("cpu")
# more members in one vmap gain nothing: the largest measured before its time per member rises again
VMAP_MEMBERS = 64
N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """Networks to train, on data that are preprocessed already.

    Args:
        name: For the report.
        data: The rows of every split.
        settings: For the batch size.
        optimizer: Patience and schedule.
        max_epochs: Longest training.
        members: All networks of the task.
        device: Where the plain loop and `vmap` train.
    """

    name: str
    data: dict[Split, SplitData]
    settings: DataSettings
    optimizer: OptimizerSettings
    max_epochs: int
    members: tuple[Member, ...]
    device: torch.device = CPU

    def sample(self, count: int) -> list[Member]:
        """So many members, evenly spread over all of them."""
        count = min(count, len(self.members))
        return [self.members[i * len(self.members) // count] for i in range(count)]

    def alike(self, count: int) -> list[Member]:
        """So many members in groups of equal activation and learning rate that are as large as `vmap` likes them."""
        groups: dict[object, list[Member]] = {}
        for member in self.members:
            groups.setdefault((member.activation, member.learning_rate), []).append(member)
        size = min(VMAP_MEMBERS, count, min(map(len, groups.values())))
        wanted = max(1, min(count // size, len(groups)))
        keys = list(groups)
        return [member for i in range(wanted) for member in groups[keys[i * len(keys) // wanted]][:size]]


@dataclass
class Trained:
    """Best validation scores (RMSE of the log target) and epochs, one for each member."""

    scores: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)

    def add(self, score: float, epochs: int) -> None:
        self.scores.append(score)
        self.epochs.append(epochs)


Contestant = Callable[[Task, Sequence[Member]], Trained]


def article_task(csv: str, target: str, n_members: int, max_epochs: int = article.N_EPOCHS) -> Task:
    """The teaching experiment's rows and network, with a linear output and a squared loss that any seed survives."""
    data = article.prepare(csv, target)
    training = torch.cat([x for x, _ in data.batches])
    features = torch.cat([training, data.test_features])
    prices = torch.cat([*(y for _, y in data.batches), data.test_targets]).double().numpy()
    seen, held_out = np.arange(len(training)), np.arange(len(training), len(features))
    scaler = fit_target(prices, seen, "log")
    targets = torch.from_numpy(np.asarray(scaler.forward(prices), dtype=np.float64))
    split, names = Split(0, 0, 0), tuple(article.TITLES)
    members = (
        Member(i % len(names), names[i % len(names)], article.LEARNING_RATE, split, i // len(names), article.HIDDEN)
        for i in range(n_members)
    )
    return Task(
        "article",
        {split: SplitData(SplitRows(seen, held_out, held_out), Preprocessor(()), scaler, features, targets)},
        DataSettings(batch_size=ARTICLE_BATCH),
        OptimizerSettings(patience=max_epochs),
        max_epochs,
        tuple(members),
    )


def comparison_task(configuration: Configuration) -> Task:
    """The members of a comparison: its activations, learning rates and splits, preprocessed as it does."""
    table = read_table(configuration.data)
    splits = make_splits(table.layout, configuration.compare.splitting("search"), configuration.seed)
    grid, model, decay = configuration.compare, configuration.model, configuration.optimizer.weight_decay
    settings = [
        Setting(name, rate, decay, tuple(model.hidden), model.dropout, model.init)
        for name in grid.activations
        for rate in grid.learning_rates
    ]
    return Task(
        "comparison",
        {split: prepare(table, rows, configuration.data) for split, rows in splits.items()},
        configuration.data,
        configuration.optimizer,
        configuration.trainer["max_epochs"],
        tuple(make_member(n, s, split, configuration.seed) for n, s in enumerate(settings) for split in splits),
    )


def constant_length(task: Task, epochs: int, activation: str, **changes: Any) -> Task:
    """A task whose members all train for so many epochs with one activation, on its first split."""
    split = next(iter(task.data))
    first = replace(task.members[0], activation=activation, split=split, **changes)
    members = tuple(replace(first, seed=seed) for seed in range(512))
    optimizer = replace(task.optimizer, patience=epochs + 1)
    return replace(task, members=members, optimizer=optimizer, max_epochs=epochs, data={split: task.data[split]})
