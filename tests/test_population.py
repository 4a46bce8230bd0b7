"""A population equals its members: by value against a plain torch loop, and to the bit whatever the neighbours do."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from actlab import activations
from actlab.data.datamodule import TabularDataModule, batch_orders
from actlab.data.splits import SplitRows
from actlab.members import Member, Split, stream_seed
from actlab.networks import compiled as chunks
from actlab.networks import population as planning
from actlab.networks.activation_functions import RReLU
from actlab.networks.adamw import schedule_factor
from actlab.networks.autograd import Piece
from actlab.networks.module import PopulationModule
from actlab.networks.network import Regressor, draw, gather
from actlab.networks.population import Outcome, StackTraining
from actlab.networks.streams import least_kept, random_bits
from actlab.runs.evaluate import make_trainer
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

PROTOCOL = ProtocolSettings(folds=3, inner=2)


def member(
    activation: str, rate: float, fold: int = 0, inner: int = 0, seed: int = 0, dropout: float = 0.0, init: str = "auto"
) -> Member:
    return Member(0, activation, rate, Split(0, fold, inner), seed, (24, 12, 8), dropout, init, 0.05)


def data_of(csv: str, target: str, batch_size: int = 32, is_refit: bool = False) -> TabularDataModule:
    data = TabularDataModule(DataSettings(csv, target, batch_size=batch_size), PROTOCOL, is_refit=is_refit)
    data.setup()
    return data


def train(
    members: list[Member],
    data: TabularDataModule,
    epochs: int,
    precision: str = "32-true",
    schedule: str = "constant",
    patience: int = 1000,
) -> list[Outcome]:
    population = PopulationModule(members, OptimizerSettings(schedule=schedule, patience=patience))
    trainer = make_trainer({"max_epochs": epochs, "accelerator": "cpu", "precision": precision}, [])
    trainer.fit(population, datamodule=copy.copy(data))
    trainer.test(population, datamodule=data, verbose=False)
    return population.outcomes


class Dropout(nn.Module):
    """nn.Dropout with the mask of the member's own stream."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability, self.generator = probability, generator

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return z
        drawn = random_bits(-(-z.numel() // 4), self.generator)
        kept = drawn.view(torch.int16)[: z.numel()].view(z.shape) >= least_kept(self.probability)
        return z * (kept.to(z.dtype) / (1 - self.probability))


def plain_loop(
    one: Member,
    data: TabularDataModule,
    epochs: int,
    dtype: torch.dtype,
    schedule: str = "constant",
    scored: str = "validation",
    is_mixed: bool = False,
) -> list[float]:
    """Log-RMSE on the validation rows (or others) after each epoch of one network, trained as one would write it
    without actlab's stacks; `is_mixed` computes forward passes in bfloat16."""
    split = data.data[one.split]
    features, targets = split.features.to(dtype), split.targets.to(dtype)
    training, held_out = torch.from_numpy(split.rows.training), torch.from_numpy(getattr(split.rows, scored))
    weights = (torch.ones(len(targets)) if split.weights is None else split.weights).to(dtype)
    generator = torch.Generator().manual_seed(stream_seed(one.stream, "init"))
    masks, noise = torch.Generator(), torch.Generator()
    layers: list[nn.Module] = []
    drawn = draw(split.n_features, one.hidden, one.activation, one.init, generator)
    for depth, (weight, bias) in enumerate(drawn):
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        layers.append(linear)
        if depth < len(one.hidden):
            activation = activations.get(one.activation).build().to(dtype)
            if isinstance(activation, RReLU):
                activation.uniform = lambda shape: torch.rand(shape, generator=noise, dtype=torch.float32)
            layers.append(activation)
            if one.dropout:
                layers.append(Dropout(one.dropout, masks))
    network = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=one.learning_rate, weight_decay=one.weight_decay)
    curve = []
    for epoch in range(epochs):
        network.train()
        masks.manual_seed(stream_seed(one.stream, "dropout", epoch))
        noise.manual_seed(stream_seed(one.stream, "noise", epoch))
        optimizer.param_groups[0]["lr"] = one.learning_rate * schedule_factor(schedule, epoch, epochs)
        for rows in batch_orders(training, [one.stream], epoch, data.settings.batch_size)[0]:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                outputs = network(features[rows]).squeeze(-1)
            squares = nn.functional.mse_loss(outputs.to(dtype), targets[rows], reduction="none")
            loss = (squares * weights[rows]).mean()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            errors = (network(features[held_out]).squeeze(-1) - targets[held_out]).double()
        mean = (errors.square() * weights[held_out].double()).sum() / weights[held_out].double().sum()
        curve.append((mean.sqrt() * split.scaler.sd).item())
    return curve


MIXED = [
    member("relu", 1e-3),
    member("relu", 1e-2, fold=1, inner=1, seed=3),
    member("tanh", 3e-3, fold=2),
    member("maxout", 1e-3, fold=1, seed=1),
    member("prelu", 3e-3, init="torch"),
    member("prelu", 1e-2, fold=2, inner=1),
    member("swiglu", 3e-3, seed=2),
    member("silu", 3e-3, dropout=0.2),
    member("silu", 1e-3, fold=1, dropout=0.2),
    member("rrelu", 1e-3, fold=1),
    member("snake", 3e-3, fold=2, seed=5),
    member("maxout", 3e-3, dropout=0.2),
]


@pytest.mark.parametrize(("precision", "dtype", "epochs", "tolerance"), [
    ("64-true", torch.float64, 5, 1e-9),
    ("32-true", torch.float32, 3, 1e-4),
])  # fmt: skip
def test_each_member_of_a_mixed_population_has_the_curve_of_a_plain_loop(
    house_csv: str, precision: str, dtype: torch.dtype, epochs: int, tolerance: float
) -> None:
    data = data_of(house_csv, "SalePrice", batch_size=128)
    for one, outcome in zip(MIXED, train(MIXED, data, epochs, precision), strict=True):
        alone = plain_loop(one, data, epochs, dtype)
        assert outcome.val_curve == pytest.approx(alone, abs=tolerance, rel=0), one


def weighted(data: TabularDataModule, weights: torch.Tensor) -> TabularDataModule:
    """The same data where rows count differently."""
    other = copy.copy(data)
    other.data = {
        split: replace(entry, weights=weights / weights[torch.from_numpy(entry.rows.training)].mean())
        for split, entry in data.data.items()
    }
    return other


def test_each_member_of_a_weighted_population_has_the_curve_of_a_plain_loop(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    rows = weighted(data, 3 * torch.rand(120, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    for one, outcome in zip(MIXED, train(MIXED, rows, 5, "64-true"), strict=True):
        assert outcome.val_curve == pytest.approx(plain_loop(one, rows, 5, torch.float64), abs=1e-9, rel=0), one
        tested = plain_loop(one, rows, outcome.best_epoch, torch.float64, scored="test")[-1]
        assert outcome.test_score == pytest.approx(tested, abs=1e-9, rel=0), one
        assert outcome.val_curve != pytest.approx(plain_loop(one, data, 5, torch.float64), abs=1e-4, rel=0)


def test_integer_weights_are_repeated_rows_in_a_full_batch_and_in_scores(small_csv: str) -> None:
    """Loss, gradient (by way of the weights that steps lead to), and validation and test scores."""
    data = data_of(small_csv, "price", batch_size=1000)
    split, counts = Split(0, 0, 0), torch.arange(120) % 2 * 2 + 1
    entry = data.data[split]
    # 64 rows in one batch of whole lanes, and 128 once they are repeated
    training = np.concatenate([np.flatnonzero(counts == count)[:32] for count in (1, 3)])
    rest = np.setdiff1d(np.arange(120), training)
    rows = SplitRows(np.sort(training), rest[::2], rest[1::2])
    once, often = copy.copy(data), copy.copy(data)
    once.data = {split: replace(entry, rows=rows)}
    once = weighted(once, counts.double())
    number = torch.arange(120).repeat_interleave(counts)
    parts = [np.flatnonzero(np.isin(number, part)) for part in (rows.training, rows.validation, rows.test)]
    features, targets = entry.features[number], entry.targets[number]
    often.data = {split: replace(entry, rows=SplitRows(*parts), features=features, targets=targets)}
    assert len(often.data[split].rows.training) == 128
    members = [member(name, 3e-3) for name in ("relu", "tanh", "maxout", "prelu")]
    for found, wanted in zip(train(members, once, 4, "64-true"), train(members, often, 4, "64-true"), strict=True):
        for name in ("train_curve", "val_curve", "test_score"):
            assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name
        assert found.state is not None
        assert wanted.state is not None
        for name, value in found.state.items():
            torch.testing.assert_close(value, wanted.state[name], rtol=1e-6, atol=1e-8)


def test_a_population_in_mixed_precision_follows_a_plain_loop(house_csv: str) -> None:
    data = data_of(house_csv, "SalePrice", batch_size=64)
    members = [member(name, 3e-3, fold) for name in ("tanh", "silu", "identity") for fold in range(3)]
    outcomes = train(members, data, 4, "bf16-mixed")
    errors = [
        a - b
        for one, outcome in zip(members, outcomes, strict=True)
        for a, b in zip(outcome.val_curve, plain_loop(one, data, 4, torch.float32, is_mixed=True), strict=True)
    ]
    assert max(map(abs, errors)) < 0.003


def test_the_cosine_schedule_is_that_of_a_plain_loop(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    (outcome,) = train([MIXED[0]], data, 6, "64-true", schedule="cosine")
    alone = plain_loop(MIXED[0], data, 6, torch.float64, schedule="cosine")
    assert outcome.val_curve == pytest.approx(alone, abs=1e-9, rel=0)
    assert alone != pytest.approx(plain_loop(MIXED[0], data, 6, torch.float64), abs=1e-6, rel=0)


def test_members_of_a_given_length_train_on_the_validation_rows_too_and_end_at_a_rate_of_zero(small_csv: str) -> None:
    data = data_of(small_csv, "price", is_refit=True)
    first = data.data[Split(0, 0, 0)].rows
    assert len(first.validation) == 0
    assert sorted([*first.training, *first.test]) == list(range(120))
    members = [
        replace(one, epochs=epochs)
        for one, epochs in (
            (member("relu", 1e-2), 7),
            (member("relu", 1e-2, inner=1), 3),
            (member("relu", 3e-2, fold=1), 5),
            (member("tanh", 1e-2, dropout=0.2), 4),
            (member("relu", 1e9), 6),
        )
    ]
    outcomes = train(members, data, 7, "64-true")
    for one, outcome in zip(members[:4], outcomes, strict=False):
        expected = plain_loop(one, data, one.epochs, torch.float64, "cosine", "test")[-1]
        assert outcome.test_score == pytest.approx(expected, rel=1e-9)
        assert (outcome.epochs, outcome.best_epoch) == (one.epochs, one.epochs)
        assert math.isnan(outcome.val_score)
    assert outcomes[4].is_diverged
    assert outcomes[4].state is None


@pytest.mark.parametrize("row", activations.ACTIVATIONS, ids=lambda row: row.name)
def test_every_activation_of_the_table_trains_as_its_module_does_alone(
    row: activations.Activation, small_csv: str
) -> None:
    data = data_of(small_csv, "price")
    members = [member(row.name, 3e-3, fold, seed=fold) for fold in range(3)]
    for one, outcome in zip(members, train(members, data, 3, "64-true"), strict=True):
        assert outcome.val_curve == pytest.approx(plain_loop(one, data, 3, torch.float64), abs=1e-9, rel=0)


def same(a: Outcome, b: Outcome) -> bool:
    assert a.state is not None
    assert b.state is not None
    return a.val_curve == b.val_curve and all(torch.equal(a.state[name], b.state[name]) for name in a.state)


def test_changing_one_members_learning_rate_changes_no_other_members_bits(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    before = train(MIXED, data, 12, patience=3)
    changed = [replace(MIXED[0], learning_rate=0.5), *MIXED[1:]]
    after = train(changed, data, 12, patience=3)
    assert not same(before[0], after[0])
    assert all(same(a, b) for a, b in zip(before[1:], after[1:], strict=True))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A single stack would share the threads within its products, where the last bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_member_alone_and_in_company_agree_to_the_bit(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    together = train(MIXED, data, 8, patience=2)
    for one, outcome in zip(MIXED, together, strict=True):
        (alone,) = train([one], data, 8, patience=2)
        assert same(alone, outcome), one


@pytest.mark.usefixtures("one_thread")
def test_a_member_that_diverges_is_recorded_and_its_neighbours_do_not_notice(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    tame = member("relu_squared", 1e-3)
    wild = member("relu_squared", 1e18, seed=1)
    outcomes = train([wild, tame], data, 10)
    assert outcomes[0].is_diverged
    assert outcomes[0].epochs < 10
    assert not outcomes[1].is_diverged
    assert same(outcomes[1], train([tame], data, 10)[0])


@pytest.mark.usefixtures("one_thread")
def test_early_stopping_keeps_the_best_epochs_weights(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    patient = train([MIXED[1]], data, 60, patience=4)[0]
    assert patient.epochs == patient.best_epoch + 4
    assert patient.val_score == min(patient.val_curve) == patient.val_curve[patient.best_epoch - 1]
    exact = train([MIXED[1]], data, patient.best_epoch)[0]
    assert same(replace(patient, val_curve=patient.val_curve[: patient.best_epoch]), exact)


@pytest.mark.usefixtures("one_thread")
def test_small_stacks_that_go_together_change_no_members_bits(small_csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(small_csv, "price")
    rates = (1e-3, 3e-3, 1e-2, 3e-2)
    members = [
        member("silu", rate, fold, inner, dropout=0.1) for rate in rates for fold in range(3) for inner in (0, 1)
    ]
    monkeypatch.setattr(planning, "STACK_BYTES", 50_000)
    absorbed = []
    absorb = StackTraining.absorb
    monkeypatch.setattr(StackTraining, "absorb", lambda self, other: absorbed.append(1) or absorb(self, other))
    merging = train(members, data, 40, patience=3)
    assert absorbed
    monkeypatch.setattr(planning, "SMALL", 0)
    n_absorbed = len(absorbed)
    apart = train(members, data, 40, patience=3)
    assert len(absorbed) == n_absorbed
    assert all(same(a, b) for a, b in zip(merging, apart, strict=True))


@pytest.mark.usefixtures("two_threads")
def test_a_stack_that_is_shared_out_between_threads_changes_no_members_bits(
    small_csv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(small_csv, "price")
    rates = (1e-3, 3e-3, 1e-2, 3e-2)
    members = [
        member("silu", rate, fold, inner, dropout=0.1) for rate in rates for fold in range(3) for inner in (0, 1)
    ]
    halves = []
    halve = StackTraining.halve
    monkeypatch.setattr(StackTraining, "halve", lambda self: halves.append(1) or halve(self))
    shared = train(members, data, 60, patience=3)
    assert halves
    monkeypatch.setattr(planning, "MOST_OF_A_SHARE", math.inf)
    n_halves = len(halves)
    whole = train(members, data, 60, patience=3)
    assert len(halves) == n_halves
    assert all(same(a, b) for a, b in zip(shared, whole, strict=True))


@pytest.mark.usefixtures("one_thread")
def test_what_takes_longest_goes_first_and_its_time_is_that_of_its_members(
    small_csv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, trained, pace = data_of(small_csv, "price"), [], {"relu": 1.0, "tanh": 5.0}
    original = StackTraining.train

    def watched(self: StackTraining, piece: Piece) -> None:
        before = {position: outcome.seconds for position, outcome in self.outcomes.items()}
        original(self, piece)
        risen = [
            row for row, position in enumerate(self.outcomes) if self.outcomes[position].seconds > before[position]
        ]
        assert risen == list(range(piece.rows.start, piece.rows.stop))
        trained.append((self.stack.row.name, piece.n_members))
        self.pace = pace[self.stack.row.name]

    monkeypatch.setattr(StackTraining, "train", watched)
    monkeypatch.setattr(chunks, "chunk_bytes", lambda: 60_000)
    members = [member(name, 1e-3, seed=seed) for name, count in (("relu", 7), ("tanh", 4)) for seed in range(count)]
    train(members, data, 2)
    sizes = {name: sorted((n for own, n in trained[: len(trained) // 2] if own == name), reverse=True) for name in pace}
    assert len(sizes["relu"]) > 1
    assert len(sizes["tanh"]) > 1
    assert (sum(sizes["relu"]), sum(sizes["tanh"])) == (7, 4)
    # of one pace at first: the largest; then every chunk of tanh takes longer than any of relu
    first, second = trained[: len(trained) // 2], trained[len(trained) // 2 :]
    assert [n for _, n in first] == sorted((n for _, n in first), reverse=True)
    assert second == [(name, n) for name in ("tanh", "relu") for n in sizes[name]]


def test_padding_is_not_counted_and_a_member_goes_without_it() -> None:
    one, other = member("maxout", 1e-3), member("maxout", 1e-3, seed=1)
    stack = Regressor([one, other], [9, 6])
    alone = Regressor([other], [6])
    assert [stack.n_parameters(row) for row in (0, 1)] == [alone.n_parameters(0) + 3 * 2 * 24, alone.n_parameters(0)]
    turned = gather([(stack, torch.tensor([1])), (stack, torch.tensor([0]))])
    assert turned.n_features == (6, 9)
    for found in (stack.member_state(1), turned.member_state(0)):
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in alone.member_state(0).items()
        }


def test_a_stack_holds_equal_architectures_in_the_order_of_learning_rate(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    stacks = planning.plan_stacks(MIXED, data.data, batch_size=32)
    assert sorted(p for stack in stacks for p in stack) == list(range(len(MIXED)))
    for stack in stacks:
        assert len({(MIXED[p].activation, MIXED[p].dropout) for p in stack}) == 1
        rates = [MIXED[p].learning_rate for p in stack]
        assert rates == sorted(rates)


def test_no_training_run_touches_the_global_random_state(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    first = train(MIXED, data, 3)
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    second = train(MIXED, data, 3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_the_trainer_is_lightnings_own(small_csv: str) -> None:
    assert isinstance(make_trainer({"max_epochs": 1}, []), pl.Trainer)


def test_the_mean_score_on_test_rows_is_logged(small_csv: str) -> None:
    data = data_of(small_csv, "price")
    population = PopulationModule(MIXED[:3], OptimizerSettings())
    trainer = make_trainer({"max_epochs": 2, "accelerator": "cpu"}, [])
    trainer.fit(population, datamodule=copy.copy(data))
    (logged,) = trainer.test(population, datamodule=data, verbose=False)
    mean = sum(outcome.test_score for outcome in population.outcomes) / 3
    assert logged == {"test/score": pytest.approx(mean, rel=1e-6)}
