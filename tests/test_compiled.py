"""Compiled steps equal autograd: derivative by derivative, population by population, mask by mask."""

import math
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import torch

from actlab.activations import ACTIVATIONS, Activation, load
from actlab.data.datamodule import TabularDataModule
from actlab.members import Member, Split
from actlab.networks import compiled as chunks
from actlab.networks import population
from actlab.networks import streams as shared_batches
from actlab.networks.compiled import can_compile, compiled_steps, places_among
from actlab.networks.module import PopulationModule
from actlab.networks.network import Regressor
from actlab.networks.population import Outcome
from actlab.runs.evaluate import make_trainer
from actlab.settings import DataSettings, OptimizerSettings, ProtocolSettings

BATCH = 32


def members(activation: str, rates: tuple[float, ...] = (0.01, 0.02), dropout: float = 0.0) -> list[Member]:
    return [
        Member(0, activation, rate, Split(0, fold, inner), 0, (24, 18, 5), dropout, "auto", 0.05)
        for rate in rates
        for fold in range(3)
        for inner in range(2)
    ]


def train(
    csv: str, own: list[Member], epochs: int = 4, precision: str = "32-true", is_weighted: bool = False
) -> list[Outcome]:
    data = TabularDataModule(DataSettings(csv, "price", batch_size=BATCH), ProtocolSettings(folds=3, inner=2))
    data.setup()
    for split, entry in list(data.data.items()) if is_weighted else ():
        data.data[split] = replace(entry, weights=torch.linspace(0.1, 3, 120, dtype=torch.float64))
    module = PopulationModule(own, OptimizerSettings(patience=1000))
    make_trainer({"max_epochs": epochs, "accelerator": "cpu", "precision": precision}, []).fit(module, datamodule=data)
    return module.outcomes


def by_autograd() -> mock._patch:  # type: ignore[type-arg]
    return mock.patch.object(population, "can_compile", return_value=False)


def only(is_wanted: Callable[[Activation], object]) -> pytest.MarkDecorator:
    """A test of each record that has something."""
    return pytest.mark.parametrize("row", [row for row in ACTIVATIONS if is_wanted(row)], ids=lambda row: row.name)


@only(lambda row: row.derivative)
def test_a_derivative_is_that_of_autograd(row: Activation) -> None:
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(4, BATCH, row.width_factor * 8, generator=generator)
    # at the kinks, and where pieces are equal
    z[0, 0], z[0, 1], z[0, 2] = 0.0, 1.0, 6.0
    z.requires_grad_(True)
    h = row.build()(z)
    gradient = torch.randn(h.shape, generator=generator)
    (wanted,) = torch.autograd.grad(h, z, gradient)
    # outputs in the place of z leave nothing else to derive from
    left = h.detach() if is_in_place(row) else z.detach()
    found = load(row.derivative)(gradient, left, h.detach())
    if row.is_rounded:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    else:
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def is_in_place(row: Activation) -> bool:
    z = torch.zeros(1, row.width_factor)
    return bool(row.outputs) and bool(load(row.outputs)(z).data_ptr() == z.data_ptr())


@only(is_in_place)
def test_outputs_in_the_place_of_pre_activations_are_those_of_the_module(row: Activation) -> None:
    z = torch.tensor([-math.inf, -80.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 6.0, 80.0, math.inf, math.nan]).repeat(3, 5)
    wanted = row.build()(z)
    found = load(row.outputs)(z)
    assert found.data_ptr() == z.data_ptr()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


@only(lambda row: row.outputs and not is_in_place(row))
def test_outputs_that_are_rounded_and_their_derivative_are_exact(row: Activation) -> None:
    """To four units in the last place, everywhere, against torch's own in twice the precision."""
    z = torch.linspace(-80, 80, 100_001)
    doubled = z.double().requires_grad_(True)
    exact = row.build()(doubled)
    (slope,) = torch.autograd.grad(exact.sum(), doubled)
    last = 4 * torch.finfo(z.dtype).eps
    found = load(row.outputs)(z)
    torch.testing.assert_close(found.double(), exact.detach(), rtol=last, atol=0)
    by_z = load(row.derivative)(torch.ones_like(z), z, found)
    torch.testing.assert_close(by_z.double(), slope, rtol=last, atol=last)


@only(lambda row: row.learned)
def test_a_learned_activation_and_its_derivatives_are_those_of_autograd(row: Activation) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, BATCH, 8, generator=generator)
    z[0, 0] = 0.0
    own = torch.tensor([0.25, -0.5, 1.0, 3.0]).view(-1, 1, 1).requires_grad_(True)
    z.requires_grad_(True)
    module = row.build()
    ((learned, _),) = module.named_parameters()
    one = [torch.func.functional_call(module, {learned: own[i].view(())}, (z[i],)) for i in range(4)]
    h = torch.stack(one)
    gradient = torch.randn(h.shape, generator=generator)
    by_z, by_own = torch.autograd.grad(h, (z, own), gradient)
    assert row.learned is not None
    function, gradients = map(load, row.learned)
    torch.testing.assert_close(function(z, own), h, rtol=0, atol=0)
    found = gradients(gradient, z.detach(), own.detach())
    torch.testing.assert_close(found, (by_z, by_own.view(-1)), rtol=1e-5, atol=1e-5)


def test_what_has_a_derivative_or_learns_one_number_is_compiled_and_the_rest_is_not() -> None:
    compiled = {row.name for row in ACTIVATIONS if can_compile(row.name)}
    assert compiled == {row.name for row in ACTIVATIONS if row.derivative or row.learned}
    assert not {"rrelu", "torch.nn.ReLU"} & compiled
    assert not can_compile("torch.nn.ReLU")
    # all that was compiled when records began
    assert len(compiled) >= 23


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("row", [row for row in ACTIVATIONS if can_compile(row.name)], ids=lambda r: r.name)
def test_the_compiled_forward_pass_is_that_of_the_network(row: Activation, dropout: float) -> None:
    """In training (what every layer hands on, and the outputs) and in prediction; in float64."""
    own = members(row.name, dropout=dropout)
    stack = Regressor(own, [7] * len(own)).double()
    stack.start_epoch(3)
    features = torch.randn(len(own), BATCH, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masks: list[torch.Tensor] = []
    if stack.masks is not None:
        per_stream = stack.masks.masks([(BATCH, width) for width in own[0].hidden], dropout, torch.float64)
        masks = [mask[stack.masks.rows] for mask in per_stream]
        stack.start_epoch(3)
    layers = stack.layers(slice(0, len(own)))
    seen: list[torch.Tensor] = []
    steps = compiled_steps(row.name)
    with torch.no_grad():
        wanted = stack.train()(features, lambda depth, z, outputs: seen.append(outputs.clone()))
        into = steps.pre_activations(len(own), BATCH, layers)
        inputs, _ = steps.hidden_layers(features, layers, masks, into)
        for found, expected in zip(inputs[1:], seen, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(steps.output_layer(inputs[-1], layers), wanted, rtol=1e-12, atol=1e-14)
        predicted = steps.predict(features, layers, places_among(torch.arange(len(own))))
        torch.testing.assert_close(predicted, stack.eval()(features), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["relu", "tanh", "silu", "maxout", "swiglu"])
@pytest.mark.parametrize(("dropout", "is_weighted"), [(0.0, False), (0.2, False), (0.2, True)])
def test_a_compiled_population_is_that_of_autograd_to_the_bit(
    small_csv: str, name: str, dropout: float, is_weighted: bool
) -> None:
    found = train(small_csv, members(name, dropout=dropout), is_weighted=is_weighted)
    with by_autograd():
        wanted = train(small_csv, members(name, dropout=dropout), is_weighted=is_weighted)
    assert [outcome.train_curve for outcome in found] == [outcome.train_curve for outcome in wanted]
    assert [outcome.val_curve for outcome in found] == [outcome.val_curve for outcome in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.state is not None
        assert other.state is not None
        assert all(torch.equal(value, other.state[key]) for key, value in one.state.items())


@pytest.mark.parametrize("name", ["gelu", "prelu", "snake", *(row.name for row in ACTIVATIONS if row.is_rounded)])
def test_in_float64_they_agree_too(small_csv: str, name: str) -> None:
    found = train(small_csv, members(name), precision="64-true")
    with by_autograd():
        wanted = train(small_csv, members(name), precision="64-true")
    torch.testing.assert_close(
        [outcome.val_curve[-1] for outcome in found],
        [outcome.val_curve[-1] for outcome in wanted],
        rtol=1e-9,
        atol=0,
    )


@pytest.mark.parametrize("chunk_bytes", [1, 100_000, 1_000_000_000])
def test_the_size_of_chunks_changes_no_bits(small_csv: str, chunk_bytes: int) -> None:
    usual = train(small_csv, members("relu", (0.01, 0.02, 0.03), dropout=0.1))
    with mock.patch.object(chunks, "chunk_bytes", return_value=chunk_bytes):
        other = train(small_csv, members("relu", (0.01, 0.02, 0.03), dropout=0.1))
    assert [outcome.val_curve for outcome in usual] == [outcome.val_curve for outcome in other]


@pytest.mark.parametrize(("n_chunks", "sizes"), [(1.4, [12]), (1.6, [6, 6]), (5, [3, 3, 3, 3]), (100, [1] * 12)])
def test_chunks_are_of_equal_size(monkeypatch: pytest.MonkeyPatch, n_chunks: float, sizes: list[int]) -> None:
    own = members("relu")
    stack, batch = Regressor(own, [7] * 12), 10
    layers = [(7, 24), (24, 18), (18, 5), (5, 1)]
    # weights, gradients and two moments; inputs, and of each layer pre-activations, outputs and a gradient
    a_member = 4 * sum((n_in + 1) * n_out for n_in, n_out in layers) + batch * (7 + 3 * (24 + 18 + 5 + 1))
    monkeypatch.setattr(chunks, "chunk_bytes", lambda: 12 * 4 * a_member / n_chunks)
    size = chunks.chunk_size(stack, batch)
    assert [min(size, 12 - start) for start in range(0, 12, size)] == sizes


@pytest.mark.parametrize(("share", "wanted"), [(0, 8_000_000), (20_000_000, 10_000_000), (150_000_000, 16_000_000)])
def test_a_chunk_fills_half_of_a_cores_share_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, share: int, wanted: int
) -> None:
    monkeypatch.setattr(chunks, "cache_of_a_core", lambda: share)
    assert chunks.chunk_bytes() == wanted


@pytest.mark.parametrize("name", ["relu", "prelu"])
def test_a_member_has_the_same_bits_alone_where_no_width_is_a_whole_number_of_lanes(small_csv: str, name: str) -> None:
    own = members(name, (0.01, 0.02, 0.03), dropout=0.1)
    together = train(small_csv, own)
    for place in (0, 7, 17):
        alone = train(small_csv, own[place : place + 1])
        assert alone[0].val_curve == together[place].val_curve


@pytest.mark.parametrize("limits", [
    {"SHARED_BYTES": 0},
    {"MOST_STEPS": 1},
    {"SHARED_BYTES": 0, "MASK_BYTES": 1},
    {"LEAST_SHARED": 1},
    {"LEAST_SHARED": 1000},
])  # fmt: skip
def test_how_many_steps_go_at_once_changes_no_bits(small_csv: str, limits: dict[str, int]) -> None:
    usual = train(small_csv, members("silu", dropout=0.3), is_weighted=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(shared_batches if hasattr(shared_batches, name) else chunks, name, value)
        other = train(small_csv, members("silu", dropout=0.3), is_weighted=True)
    assert [outcome.val_curve for outcome in usual] == [outcome.val_curve for outcome in other]
