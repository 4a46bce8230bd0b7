"""Random numbers that belong to a stream alone, and what its members share: by value, against their definitions."""

import math
from dataclasses import replace

import pytest
import torch

from actlab.data.datamodule import SplitTensors, TabularDataModule, batch_shape
from actlab.members import Member, Split, stream_seed
from actlab.networks.streams import EpochShape, HashedStreams, SharedBatches, Streams, masks_of_steps
from actlab.settings import DataSettings, ProtocolSettings

BATCH = 32
CPU = torch.device("cpu")
MEMBERS = [Member(0, "relu", 0.01, Split(0, fold, 0), seed, (9, 6), 0.2) for seed in range(2) for fold in range(2)]


def splitmix64(seed: int, count: int) -> list[int]:
    """The reference in Python's own numbers (Steele, Lea & Flood 2014, as Vigna's splitmix64.c)."""
    mask, words = (1 << 64) - 1, []
    for i in range(1, count + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        words.append(z ^ (z >> 31))
    return words


def test_hashed_streams_are_splitmix64_and_go_on_where_they_stopped() -> None:
    streams = HashedStreams(MEMBERS[:3], "dropout", CPU)
    streams.seed(7)
    drawn = torch.cat([streams.random_bits(5), streams.random_bits(4)], dim=1)
    for row, key in enumerate(streams.keys):
        wanted = splitmix64(stream_seed(key, "dropout", 7), 9)
        assert [value & ((1 << 64) - 1) for value in drawn[row].tolist()] == wanted
    # known answers of splitmix64.c for the seed 1234567
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]


def test_hashed_streams_are_uniform_and_independent_of_each_other() -> None:
    members = [replace(MEMBERS[0], seed=seed) for seed in range(4)]
    streams = HashedStreams(members, "noise", CPU)
    uniform = streams.uniform(torch.Size((4, 1 << 16)))
    assert uniform.shape == (4, 1 << 16)
    assert 0 <= uniform.min() < uniform.max() < 1
    # five standard errors
    error = 5 / math.sqrt(1 << 16)
    assert (uniform.mean(dim=1) - 0.5).abs().max() < error * math.sqrt(1 / 12)
    assert (torch.corrcoef(uniform) - torch.eye(4)).abs().max() < error
    shifted = torch.corrcoef(torch.stack([uniform[0, :-1], uniform[0, 1:]]))
    assert shifted[0, 1].abs() < error
    (mask,) = streams.masks([(256, 256)], 0.25, torch.float32)
    assert mask.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert ((mask == 0).float().mean(dim=(1, 2)) - 0.25).abs().max() < error * math.sqrt(0.25 * 0.75)


def test_members_of_a_stream_share_hashed_numbers_wherever_they_lie() -> None:
    alone = HashedStreams(MEMBERS[:1], "noise", CPU).uniform(torch.Size((1, 6, 5)))
    mixed = HashedStreams([MEMBERS[1], MEMBERS[0], MEMBERS[0]], "noise", CPU).uniform(torch.Size((3, 6, 5)))
    assert torch.equal(mixed[1], alone[0])
    assert torch.equal(mixed[2], alone[0])
    assert not torch.equal(mixed[0], alone[0])


def test_masks_drawn_at_once_are_those_of_one_step_after_the_other() -> None:
    own = [Member(0, "relu", 0.1, Split(0, 0, i), 0, (7, 5), 0.3, "auto", 0.0) for i in range(3)]
    shape = EpochShape(5, 6, (7, 5), 0.3)
    stepwise, at_once = Streams(own, "dropout", torch.device("cpu")), Streams(own, "dropout", torch.device("cpu"))
    stepwise.seed(4)
    at_once.seed(4)
    wanted = [stepwise.masks([(6, 7), (6, 5)], 0.3, torch.float32) for _ in range(5)]
    masks = masks_of_steps(at_once.generators, 5, shape, torch.float32)
    for step in range(5):
        for layer in range(2):
            assert torch.equal(masks[layer][step], wanted[step][layer])


def test_shared_batches_are_what_a_stack_would_gather_and_draw_itself(small_csv: str) -> None:
    data = TabularDataModule(DataSettings(small_csv, "price", batch_size=BATCH), ProtocolSettings(folds=3, inner=1))
    data.setup()
    for number, (split, entry) in enumerate(list(data.data.items())):
        data.data[split] = replace(entry, weights=torch.arange(120) + 1000.0 * number)
    own = [
        Member(0, "relu", rate, Split(0, fold, 0), 0, (24, 18, 5), 0.3) for rate in (0.01, 0.02) for fold in range(3)
    ] * 2
    data.streams = tuple(dict.fromkeys(member.stream for member in own))
    tensors = SplitTensors(data.data, torch.device("cpu"), torch.float32)
    steps, batch = batch_shape(len(data.data[own[0].split].rows.training), BATCH)
    shape, other = EpochShape(steps, batch, (24, 5), 0.3), EpochShape(steps + 1, batch, (24, 5), 0.3)
    found = SharedBatches([member.stream for member in reversed(own)], tensors)
    for epoch in (4, 5):
        assert sorted(found.start(data.order(epoch), [shape, other])) == found.keys
        # the last stream is no longer in training: it may hold anything
        for key in found.keys[:-1]:
            found.fill(key)
        rows = tensors.flat_rows(data.order(epoch), found.keys[:-1])
        features, targets = tensors.gather(rows, tensors.features.shape[2])
        shared = found.of_shape[shape]
        assert torch.equal(shared.features[:, :-1], features)
        assert torch.equal(shared.targets[:, :-1], targets)
        assert torch.equal(shared.weights[:, :-1], rows % 120 + 1000.0 * (rows // 120))
        streams = Streams(own, "dropout", torch.device("cpu"))
        streams.seed(epoch)
        for step in range(steps):
            for mask, wanted in zip(shared.masks, streams.masks(shape.dropped, 0.3, torch.float32), strict=True):
                assert torch.equal(mask[step, :-1], wanted[:-1])
    found.start(data.order(6), [other])
    assert list(found.of_shape) == [other]
    alone = SharedBatches([member.stream for member in own[:3]], tensors)
    assert alone.start(data.order(6), [shape._replace(dropout=0.0)]) == []
