"""The teaching experiment against a plain torch script of its words, written here without the package."""

import functools
import math
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from torch import nn

from actlab.errors import InputError
from actlab.runs.article import (
    ArticleData,
    ArticleResult,
    article,
    explain_failure,
    prepare,
    render,
    train,
)

HOUSE_PRICES = str(Path(__file__).parents[1] / "data" / "house_prices" / "train.csv")
CLASSES = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
SEED_0 = {
    "sigmoid": (12.062, 12.029),
    "tanh": (12.038, 12.007),
    "relu": (2.991, 2.812),
    "leaky_relu": (2.991, 2.821),
}
EPOCH_LINE = re.compile(r"Epoch: (\d+)/10\.\. Training Loss: (\d+\.\d{3}|nan|inf)\.\. Test Loss: (\d+\.\d{3}|nan|inf)")


@functools.cache
def plain_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    table = pd.read_csv(HOUSE_PRICES, keep_default_na=False, na_values=["NA"])
    x = pd.get_dummies(table.drop(columns=["Id", "SalePrice"]), dummy_na=True, drop_first=True)
    x = x.fillna(x.median())
    scaled = MinMaxScaler().fit_transform(x)
    return tuple(train_test_split(scaled, table["SalePrice"].to_numpy(), test_size=0.2, random_state=42))


@functools.cache
def plain_losses(activation: str, seed: int) -> tuple[tuple[float, float], ...]:
    """Training and test loss after each epoch."""
    x_train, x_test, y_train, y_test = plain_arrays()
    xs = [torch.tensor(x, dtype=torch.float32) for x in np.array_split(x_train, 50)]
    ys = [torch.tensor(y, dtype=torch.float32).view(-1, 1) for y in np.array_split(y_train, 50)]
    x_test, y_test = torch.tensor(x_test, dtype=torch.float32), torch.tensor(y_test, dtype=torch.float32).view(-1, 1)
    act, mse, losses = CLASSES[activation], nn.MSELoss(), []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(288, 144), act(), nn.Linear(144, 72), act(), nn.Linear(72, 18), act(), nn.Linear(18, 1), act()
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
        for _ in range(10):
            running = 0.0
            for x, y in zip(xs, ys, strict=True):
                optimizer.zero_grad()
                loss = torch.sqrt(mse(torch.log(network(x)), torch.log(y)))
                loss.backward()
                optimizer.step()
                running += loss.item()
            with torch.no_grad():
                losses.append((running / 50, torch.sqrt(mse(torch.log(network(x_test)), torch.log(y_test))).item()))
    return tuple(losses)


@pytest.fixture(scope="module")
def data() -> ArticleData:
    return prepare(HOUSE_PRICES, "SalePrice")


@pytest.fixture(scope="module")
def printed() -> list[str]:
    return []


@pytest.fixture(scope="module")
def two_seeds(printed: list[str]) -> dict[tuple[str, int], ArticleResult]:
    """Seeds 0 and 2, by the function behind the command; what it prints goes to `printed`."""
    first = article(HOUSE_PRICES, "SalePrice", seed=0, echo=printed.append)
    second = article(HOUSE_PRICES, "SalePrice", seed=2, echo=printed.append)
    return {(result.activation, result.seed): result for result in first + second}


def assert_equals_plain_script(result: ArticleResult) -> None:
    ours = np.array([result.train_losses, result.test_losses]).T
    np.testing.assert_allclose(ours, plain_losses(result.activation, result.seed), rtol=0, atol=5e-4)


def plain_failed(activation: str, seed: int) -> bool:
    return not np.isfinite(plain_losses(activation, seed)).all()


@pytest.mark.parametrize("activation", CLASSES)
def test_seed_0_ends_at_the_known_losses(two_seeds: dict[tuple[str, int], ArticleResult], activation: str) -> None:
    result = two_seeds[activation, 0]
    assert (round(result.train_losses[-1], 3), round(result.test_losses[-1], 3)) == SEED_0[activation]
    assert result.failure is None


@pytest.mark.parametrize(("activation", "kind"), [("tanh", "nan"), ("leaky_relu", "nan"), ("relu", "inf")])
def test_seed_2_fails_from_the_first_epoch(
    two_seeds: dict[tuple[str, int], ArticleResult], activation: str, kind: str
) -> None:
    result = two_seeds[activation, 2]
    assert {str(loss) for loss in result.train_losses + result.test_losses} == {kind}


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("activation", CLASSES)
def test_every_epoch_equals_the_plain_script(
    two_seeds: dict[tuple[str, int], ArticleResult], activation: str, seed: int
) -> None:
    assert_equals_plain_script(two_seeds[activation, seed])
    assert (two_seeds[activation, seed].failure is not None) == plain_failed(activation, seed)


def test_prints_the_lines_of_the_article(two_seeds: dict[tuple[str, int], ArticleResult], printed: list[str]) -> None:
    found = [match.groups() for match in map(EPOCH_LINE.fullmatch, printed) if match]
    expected = [
        (str(epoch), f"{train_loss:.3f}", f"{test_loss:.3f}")
        for result in two_seeds.values()
        for epoch, (train_loss, test_loss) in enumerate(
            zip(result.train_losses, result.test_losses, strict=True), start=1
        )
    ]
    assert found == expected
    assert len(found) == 80


def test_features_are_those_of_the_plain_script(data: ArticleData) -> None:
    x_train, x_test, y_train, y_test = plain_arrays()
    assert data.test_features.shape == (292, 288)
    assert [len(y) for _, y in data.batches] == [24] * 18 + [23] * 32
    for ours, theirs in (
        (torch.cat([x for x, _ in data.batches]), x_train),
        (torch.cat([y for _, y in data.batches]), y_train),
        (data.test_features, x_test),
        (data.test_targets, y_test),
    ):
        assert torch.equal(ours, torch.tensor(theirs, dtype=torch.float32))
    # scaled over all rows, a column leaks unless the training rows alone reach both 0 and 1 (or it is constant)
    leaks = [
        (x_train[:, i].min() > x_test[:, i].min()) or (x_train[:, i].max() < x_test[:, i].max()) for i in range(288)
    ]
    assert data.n_leaking_columns == sum(leaks) > 0


def test_id_column_is_left_out_only_when_named() -> None:
    assert prepare(HOUSE_PRICES, "SalePrice", id_column=None).test_features.shape[1] == 289
    assert prepare(HOUSE_PRICES, "SalePrice", id_column="absent").test_features.shape[1] == 289


def test_global_random_state_is_neither_used_nor_changed(data: ArticleData) -> None:
    expected = train(data, "sigmoid", 0)
    torch.rand(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
    assert train(data, "sigmoid", 0) == expected
    prepare(HOUSE_PRICES, "SalePrice")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_without_an_echo_the_same_networks_are_trained_in_silence(
    data: ArticleData, two_seeds: dict[tuple[str, int], ArticleResult], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, "relu", 0) == two_seeds["relu", 0]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("activation", ["tanh", "relu", "leaky_relu"])
def test_reason_counts_the_outputs_of_the_first_batch(
    two_seeds: dict[tuple[str, int], ArticleResult], data: ArticleData, activation: str
) -> None:
    reason = two_seeds[activation, 2].failure
    assert reason is not None
    act = CLASSES[activation]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = nn.Sequential(
            nn.Linear(288, 144), act(), nn.Linear(144, 72), act(), nn.Linear(72, 18), act(), nn.Linear(18, 1), act()
        )
    outputs = network(data.batches[0][0])
    n_negative, n_zero = int((outputs < 0).sum()), int((outputs == 0).sum())
    assert n_negative + n_zero > 0
    assert reason.startswith("epoch 1, batch 1: ")
    assert (f"{n_negative} of 24 outputs are negative" in reason) == (n_negative > 0)
    assert (f"{n_zero} of 24 outputs are exactly 0" in reason) == (n_zero > 0)
    assert reason.count(". ") == 0
    assert reason.endswith(".")


@pytest.mark.parametrize(
    ("outputs", "loss", "gradients", "expected"),
    [
        (
            [-1.0, 0.0, 2.0],
            math.nan,
            [math.nan, 1.0],
            "here: 1 of 3 outputs are negative (log gives nan) and 1 of 3 outputs are exactly 0 (log gives -inf), "
            "so the loss is nan and 1 of 2 gradients are nan, which destroys the weights.",
        ),
        (
            [0.0, 2.0],
            math.inf,
            [0.0, 0.0],
            "here: 1 of 2 outputs are exactly 0 (log gives -inf), so the loss is inf and all 2 gradients are 0, "
            "which leaves nothing to learn from.",
        ),
        ([0.0, 2.0], math.inf, [1.0], "here: 1 of 2 outputs are exactly 0 (log gives -inf), so the loss is inf."),
        ([math.nan], math.nan, None, "here: 1 of 1 outputs are not finite themselves, so the loss is nan."),
    ],
)
def test_failure_is_explained_by_what_was_observed(
    outputs: list[float], loss: float, gradients: list[float] | None, expected: str
) -> None:
    flat = None if gradients is None else torch.tensor(gradients)
    assert explain_failure("here", torch.tensor(outputs), loss, flat) == expected


def test_failure_on_test_rows_only_is_found(data: ArticleData) -> None:
    """A linear network is negative on one of two opposite far-away rows, while it trains without trouble."""
    batch = (torch.ones(4, 1), torch.ones(4))
    far = ArticleData((batch,) * 50, torch.tensor([[1e6], [-1e6]]), torch.ones(2), n_leaking_columns=0)
    results = [train(far, "identity", seed) for seed in range(4)]
    fine = [result for result in results if np.isfinite(result.train_losses).all()]
    assert fine
    for result in fine:
        reason = "epoch 1, test rows: 1 of 2 outputs are negative (log gives nan), so the loss is nan."
        assert result.failure == reason


def test_summary_quotes_this_run(two_seeds: dict[tuple[str, int], ArticleResult], data: ArticleData) -> None:
    text = render(list(two_seeds.values()), data)
    _, _, y_train, y_test = plain_arrays()
    bound = np.sqrt((np.log(y_test) ** 2).mean())
    of_median = np.sqrt(((np.log(np.median(y_train)) - np.log(y_test)) ** 2).mean())
    assert f"cannot be under {bound:.3f}" in text
    assert f"has a test loss of {of_median:.3f}; the best network here has 2.812." in text
    assert "3 of 8 networks failed, 3 of them in the very first batch" in text
    assert f"{data.n_leaking_columns} of 288 columns" in text
    bounded = [two_seeds[key] for key in (("sigmoid", 0), ("sigmoid", 2), ("tanh", 0))]
    assert all(result.output_range[1] <= 1 and result.test_losses[-1] >= bound for result in bounded)


def test_summary_of_a_run_without_and_with_only_failures(
    two_seeds: dict[tuple[str, int], ArticleResult], data: ArticleData
) -> None:
    assert "No network failed" in render([two_seeds["relu", 0]], data)
    assert "1 of 1 networks failed" in render([two_seeds["relu", 2]], data)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


ROWS = "".join(f"{i},{i % 7},{i + 1}\n" for i in range(70))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Id,x,y\n" + ROWS, "data.target must be a column"),
        ("Id,x,price\n" + ROWS + "71,1,0\n", r"> 0 in every row, got price='0' in row 71"),
        ("Id,x,price\n" + ROWS + "71,1,dear\n", r"> 0 in every row, got price='dear'"),
        ("Id,x,price\n" + ROWS + "71,1,NA\n", r"> 0 in every row"),
        ("Id,x,price\n1,1,1\n2,2,2\n", "rows=2"),
        ("Id,x,price\n" + ROWS + "71,inf,1\n", r"every column must hold finite .* got columns=\['x'\]"),
        ("Id,z,price\n" + "1,NA,1\n" * 70, r"every column must hold finite .* got columns=\['z'\]"),
        ("Id,x,price\n" + ROWS + "71,1,1,1,1\n", "cannot be read: .* line 72"),
        ("Id,price\n" + "1,1\n" * 70, "a column besides the target"),
        ("", "cannot be read"),
    ],
)
def test_unusable_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        prepare(write(tmp_path / "table.csv", text), "price")
    assert "\n" not in str(error.value)


def test_missing_file_and_bad_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv"):
        article(str(tmp_path / "absent.csv"), "price")
    with pytest.raises(InputError, match="seeds must be at least 1, got seeds=0"):
        article(HOUSE_PRICES, "SalePrice", seeds=0)
    with pytest.raises(InputError, match="seed must be at least 0"):
        article(HOUSE_PRICES, "SalePrice", seed=-1)


def test_another_table_needs_only_its_target(tmp_path: Path) -> None:
    lines: list[str] = []
    csv = write(tmp_path / "table.csv", "key,x,price\n" + ROWS)
    results = article(csv, "price", seeds=2, echo=lines.append)
    assert [(r.activation, r.seed) for r in results] == [(name, seed) for seed in (0, 1) for name in CLASSES]
    assert sum("seed 1: Training Loss" in line for line in lines) == 4


@pytest.mark.slow
def test_ten_seeds_fail_as_often_as_in_the_plain_script() -> None:
    lines: list[str] = []
    results = article(HOUSE_PRICES, "SalePrice", seeds=10, echo=lines.append)
    for result in results:
        assert_equals_plain_script(result)
    n_failed = {
        name: sum(result.failure is not None for result in results if result.activation == name) for name in CLASSES
    }
    assert n_failed == {name: sum(plain_failed(name, seed) for seed in range(10)) for name in CLASSES}
    assert n_failed == {"sigmoid": 0, "tanh": 7, "relu": 6, "leaky_relu": 6}
    table = "\n".join(lines)
    assert re.search(r"^Tanh +7 of 10 +12\.007 ", table, re.MULTILINE)
