"""Steps that an accelerator records and replays.

No accelerator is at hand: a recorder that hands the step back lets every replay run as a step that reads its rows, its
number and its learning rate where a recorded one would. `scripts/bench.py --sections gpu` compares the real thing.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from actlab.data.datamodule import TabularDataModule
from actlab.members import Member, Split
from actlab.networks import adamw as optimizer
from actlab.networks import network as regressor
from actlab.networks import population
from actlab.networks.activation_functions import ReLUSquared
from actlab.networks.autograd import can_record, record
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.networks.streams import HashedStreams, Streams
from actlab.runs.evaluate import make_trainer
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

CPU = torch.device("cpu")
MEMBERS = [
    Member(0, name, rate, Split(0, fold, 0), seed, (9, 6), 0.2, "auto", 0.05)
    for seed, (name, rate) in enumerate([("relu", 0.01), ("rrelu", 0.01), ("prelu", 0.003), ("geglu", 0.03)])
    for fold in range(2)
]


class Mine(ReLUSquared):
    """max(0, z)^2 of one's own."""


def train(csv: str, members: list[Member] = MEMBERS, schedule: str = "cosine", patience: int = 3) -> list[Outcome]:
    data = TabularDataModule(DataSettings(csv, "price", batch_size=32), ProtocolSettings(folds=2, inner=1))
    data.setup()
    for split, entry in list(data.data.items()):
        data.data[split] = replace(entry, weights=torch.linspace(0.1, 2, 120, dtype=torch.float64))
    module = PopulationModule(members, OptimizerSettings(patience=patience, schedule=schedule))
    make_trainer({"max_epochs": 12, "accelerator": "cpu"}, []).fit(module, datamodule=data)
    return module.outcomes


@pytest.fixture
def like_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All that an accelerator does otherwise, but on the CPU and without recording; returns what was recorded."""
    recorded: list[object] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        recorded.append(work)
        return work

    monkeypatch.setattr(population, "can_compile", lambda name: False)
    monkeypatch.setattr(population, "recorder", lambda device: record)
    monkeypatch.setattr(population, "least_alive", lambda device: 0.6)
    monkeypatch.setattr(optimizer, "_as_adamw_takes_it", lambda rate, device: torch.tensor(rate, dtype=torch.float64))
    return recorded


def same(found: list[Outcome], wanted: list[Outcome]) -> bool:
    def all_of(one: Outcome) -> tuple[object, ...]:
        assert one.state is not None
        state = {name: value.tolist() for name, value in one.state.items()}
        return one.epochs, one.best_epoch, one.val_score, one.train_curve, one.val_curve, state

    return all(all_of(a) == all_of(b) for a, b in zip(found, wanted, strict=True))


def test_replays_train_the_same_networks_to_the_bit(small_csv: str, like_an_accelerator: list[object]) -> None:
    replayed = train(small_csv)
    # one for each activation at least, and one more for each stack that has become smaller
    assert len(like_an_accelerator) > 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population, "recorder", lambda device: None)
        patch.setattr(population, "least_alive", lambda device: 1.0)
        assert same(train(small_csv), replayed)
    assert len({outcome.epochs for outcome in replayed}) > 1


def test_a_class_of_ones_own_is_not_recorded(small_csv: str, like_an_accelerator: list[object]) -> None:
    path = f"{Mine.__module__}.{Mine.__qualname__}"
    own = train(small_csv, [replace(member, activation=path) for member in MEMBERS[:2]])
    assert not like_an_accelerator
    table = train(small_csv, [replace(member, activation="relu_squared") for member in MEMBERS[:2]])
    assert like_an_accelerator
    assert [outcome.val_curve for outcome in own] == [outcome.val_curve for outcome in table]


def test_the_processor_records_nothing() -> None:
    assert not can_record(CPU)


@pytest.fixture(params=["torch.accelerator.Graph", "a class of the device"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch's graph was asked to do, of this torch and of those before 2.12."""
    asked: list[str] = []

    class OwnGraph:
        def __init__(self, capture_error_mode: str = "") -> None:
            self.mode = capture_error_mode

        def capture_begin(self, capture_error_mode: str = "") -> None:
            asked.append(f"begin {self.mode}{capture_error_mode}")

        def capture_end(self) -> None:
            asked.append("end")
            if "out of memory" in asked:
                raise RuntimeError("nothing was recorded")

        def replay(self) -> None:
            asked.append("replay")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda: (100, 200))
    monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda: 90)
    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda: 10)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: asked.append("empty"))
    if request.param == "torch.accelerator.Graph":
        monkeypatch.setattr(torch.accelerator, "Graph", OwnGraph)
    else:
        monkeypatch.delattr(torch.accelerator, "Graph")
        monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(OwnGraph=OwnGraph, other=1))
    return asked


def test_a_step_is_recorded_and_replayed(calls: list[str]) -> None:
    replay = record(lambda: calls.append("work"))
    replay()
    replay()
    assert calls == ["empty", "begin thread_local", "work", "end", "replay", "replay"]


def test_memory_that_runs_out_while_a_step_is_recorded_is_said(calls: list[str]) -> None:
    def work() -> None:
        calls.append("out of memory")
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        record(work)
    assert calls[-1] == "end"


def test_stacks_on_a_device_draw_hashed_masks(small_csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = train(small_csv)
    monkeypatch.setattr(population, "can_compile", lambda name: False)
    monkeypatch.setattr(
        regressor, "streams_on", lambda device, members, purpose: HashedStreams(members, purpose, device)
    )
    hashed = train(small_csv)
    assert isinstance(Streams(MEMBERS, "dropout", CPU), Streams)
    assert all(a.val_curve != b.val_curve for a, b in zip(usual, hashed, strict=True))
    # the same experiment but for its luck
    scores = [[outcome.val_score for outcome in own] for own in (usual, hashed)]
    assert sum(scores[1]) == pytest.approx(sum(scores[0]), rel=0.2)
