"""`actlab article`: the teaching experiment run to the letter, with the reason of each nan and inf.

One 288-144-72-18-1 network per activation, the activation on the output too, scaled before splitting, one learning
rate, rows never shuffled. Nothing is repaired here; `actlab compare` is the comparison done properly.

Shapes: B rows of a batch, F input columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from torch import Tensor, nn

from actlab.activations import get
from actlab.data.csv_file import readable, shown
from actlab.errors import InputError
from actlab.networks.metrics import log_rmse
from actlab.printed_tables import PrintedTable, TableColumn, as_text, text_column
from actlab.settings import require

TITLES = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "ReLU", "leaky_relu": "LeakyReLU"}
HIDDEN = (144, 72, 18)
N_EPOCHS = 10
N_BATCHES = 50
LEARNING_RATE = 0.001
TEST_SHARE = 0.2
SPLIT_SEED = 42

Echo = Callable[[str], None]


@dataclass(frozen=True)
class ArticleData:
    """The table as the experiment feeds it to its networks; features are (B, F), targets (B,).

    `batches` are 50, in the order of the training rows. `n_leaking_columns` are those whose minimum or maximum, used
    for scaling, occurs in the test rows alone.
    """

    batches: tuple[tuple[Tensor, Tensor], ...]
    test_features: Tensor
    test_targets: Tensor
    n_leaking_columns: int


@dataclass(frozen=True)
class ArticleResult:
    """One network: losses of each epoch, the mean over its batches and on the test rows after it.

    `output_range` is from the smallest to the largest output on the test rows at the end; `failure` says which loss was
    nan or inf first, and why.
    """

    activation: str
    seed: int
    train_losses: tuple[float, ...]
    test_losses: tuple[float, ...]
    output_range: tuple[float, float]
    failure: str | None


def prepare(csv: str, target: str, *, id_column: str | None = "Id") -> ArticleData:
    """One-hot, median for missing, MinMax over all rows, and only then the split: the article's order.

    Raises:
        InputError: the file, the target or a column can not be used.
    """
    with readable(csv):
        # NA alone is missing: pandas' own list would swallow `None`, a category of House Prices
        table = pd.read_csv(csv, keep_default_na=False, na_values=["NA"], low_memory=False)
    require(target in table.columns, f"data.target must be a column of {csv}", target=target)
    enough = len(table) * (1 - TEST_SHARE) >= N_BATCHES
    require(enough, f"{csv} must have a training row for each of the article's {N_BATCHES} batches", rows=len(table))
    targets = _positive(table[target])
    features = _features(table.drop(columns=[name for name in (id_column, target) if name in table.columns]))
    x_train, x_test, y_train, y_test = train_test_split(
        MinMaxScaler().fit_transform(features), targets, test_size=TEST_SHARE, random_state=SPLIT_SEED
    )
    tensor = partial(torch.tensor, dtype=torch.float32)
    batches = zip(np.array_split(x_train, N_BATCHES), np.array_split(y_train, N_BATCHES), strict=True)
    is_leaking = (x_train.min(0) > x_test.min(0)) | (x_train.max(0) < x_test.max(0))
    return ArticleData(
        tuple((tensor(x), tensor(y)) for x, y in batches), tensor(x_test), tensor(y_test), int(is_leaking.sum())
    )


def _features(columns: pd.DataFrame) -> pd.DataFrame:
    """Float columns: text as dummies, missing numbers as the median of all rows."""
    require(columns.shape[1] > 0, "the table must have a column besides the target and the id", columns=0)
    features = pd.get_dummies(columns, dummy_na=True, drop_first=True).astype("float64")
    features = features.fillna(features.median())
    bad = [str(name) for name in features.columns[~np.isfinite(features.to_numpy()).all(axis=0)]]
    require(not bad, "every column must hold finite numbers, and at least one, to have a median", columns=bad)
    return features


def _positive(column: "pd.Series[Any]") -> np.ndarray:
    """The target as numbers, (rows,), all of them > 0: the loss takes its logarithm."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        raise InputError(
            f"the target must be a number > 0 in every row, got {column.name}={shown(str(column.iloc[bad[0]]))} "
            f"in row {bad[0] + 1} below the header and {len(bad)} such rows in all"
        )
    return values


def train(data: ArticleData, activation: str, seed: int, echo: Echo = lambda line: None) -> ArticleResult:
    """Train one network as the article does: 10 epochs of Adam, whatever the loss becomes; `echo` takes its lines."""
    echo(f"{TITLES.get(activation, activation)}, seed {seed}")
    network = _network(data.test_features.shape[1], activation, seed)
    # fused chooses the kernel, not the algorithm; it halves the time of so small a network
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    train_losses, test_losses, failure = [], [], None
    for epoch in range(1, N_EPOCHS + 1):
        losses: list[float] = []
        for i, (x, y) in enumerate(data.batches, start=1):
            optimizer.zero_grad()
            outputs = network(x).squeeze(-1)
            loss = log_rmse(outputs, y)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
            if failure is None and not math.isfinite(losses[-1]):
                gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
                failure = explain_failure(f"epoch {epoch}, batch {i}", outputs.detach(), losses[-1], gradients)
            optimizer.step()
        with torch.no_grad():
            outputs = network(data.test_features).squeeze(-1)
            test_losses.append(log_rmse(outputs, data.test_targets).item())
        if failure is None and not math.isfinite(test_losses[-1]):
            failure = explain_failure(f"epoch {epoch}, test rows", outputs, test_losses[-1])
        train_losses.append(sum(losses) / len(losses))
        echo(f"Epoch: {epoch}/{N_EPOCHS}.. {_loss_text(train_losses, test_losses)}")
    if failure is not None:
        echo(f"Failed at {failure}")
    output_range = (outputs.min().item(), outputs.max().item())
    return ArticleResult(activation, seed, tuple(train_losses), tuple(test_losses), output_range, failure)


def _network(n_features: int, activation: str, seed: int) -> nn.Sequential:
    """288-144-72-18-1, an activation after each layer; weights as after `torch.manual_seed(seed)`."""
    widths = (n_features, *HIDDEN, 1)
    row = get(activation)
    # The script's seed means the global stream; it is put back. `torch.manual_seed` would reseed GPUs too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = [(nn.Linear(n_in, n_out), row.build()) for n_in, n_out in pairwise(widths)]
    return nn.Sequential(*chain.from_iterable(layers))


def explain_failure(where: str, outputs: Tensor, loss: float, gradients: Tensor | None = None) -> str:
    """Say in one sentence what made the loss of the step `where` nan or inf.

    `outputs` (B,) and `gradients` (all of them, flat; None where nothing was being trained) are of that very step.
    """
    counts = (
        (int((outputs < 0).sum()), "negative (log gives nan)"),
        (int((outputs == 0).sum()), "exactly 0 (log gives -inf)"),
        (int((~outputs.isfinite()).sum()), "not finite themselves"),
    )
    causes = " and ".join(f"{n} of {len(outputs)} outputs are {what}" for n, what in counts if n)
    consequence = ""
    if gradients is not None and gradients.isnan().any():
        n_nan = int(gradients.isnan().sum())
        consequence = f" and {n_nan:,} of {len(gradients):,} gradients are nan, which destroys the weights"
    elif gradients is not None and not gradients.any():
        # 1 / (2 sqrt(inf)) = 0 on the way back, and ReLU passes nothing where its output is 0: 0 for every weight
        consequence = f" and all {len(gradients):,} gradients are 0, which leaves nothing to learn from"
    return f"{where}: {causes}, so the loss is {loss}{consequence}."


def _loss_text(train_losses: Sequence[float], test_losses: Sequence[float]) -> str:
    """The end of the article's line of an epoch, the last one."""
    return f"Training Loss: {train_losses[-1]:.3f}.. Test Loss: {test_losses[-1]:.3f}"


def render(results: Sequence[ArticleResult], data: ArticleData) -> str:
    """Failures and last test losses of each activation, then why they say little about activations."""
    titles = ("failed seeds", "last test loss", "last outputs")
    rows = []
    for activation, title in TITLES.items():
        own = [result for result in results if result.activation == activation]
        good = [result for result in own if result.failure is None]
        last = _span([result.test_losses[-1] for result in good], ".3f")
        outputs = _span([end for result in good for end in result.output_range])
        rows.append((title, f"{len(own) - len(good)} of {len(own)}", last, outputs))
    table = PrintedTable.of([text_column("activation"), *map(TableColumn, titles)], rows)
    return "\n".join(["", as_text(table), "", "Why these figures mislead:", *_caveats(results, data)])


def _caveats(results: Sequence[ArticleResult], data: ArticleData) -> list[str]:
    """The experiment's weaknesses, each with a number of this run."""
    y_train, y_test = torch.cat([y for _, y in data.batches]), data.test_targets
    bound = log_rmse(y_test.clamp(max=1), y_test).item()
    of_median = log_rmse(y_train.quantile(0.5).expand_as(y_test), y_test).item()
    good = [result for result in results if result.failure is None]
    best, speed = "no network has one", "too few for any"
    if good:
        best = f"the best network here has {min(r.test_losses[-1] for r in good):.3f}"
        drop, last, title = max(
            (r.test_losses[-2] - r.test_losses[-1], r.test_losses[-1], TITLES[r.activation]) for r in good
        )
        speed = f"the test loss of {title} was stopped at {last:.3f} while it fell by {drop:.3f} an epoch"
    failures = "No network failed, which is this seed's luck: only sigmoid never gives 0 or less (`--seeds 10` counts)."
    if reasons := [result.failure for result in results if result.failure]:
        n_at_once = sum(reason.startswith("epoch 1, batch 1:") for reason in reasons)
        failures = (
            f"{len(reasons)} of {len(results)} networks failed, {n_at_once} of them in the very first batch: by the "
            "luck of their initial weights, before anything was learned."
        )
    return [
        f"- The activation stands on the output too: sigmoid and tanh predict at most 1 where the targets are "
        f"{_span(y_test.tolist())}, so their test loss cannot be under {bound:.3f}, whatever they learn.",
        f"- The median of the training targets, no network at all, has a test loss of {of_median:.3f}; {best}.",
        f"- {failures}",
        f"- Scaled before splitting: {data.n_leaking_columns} of {data.test_features.shape[1]} columns were scaled by "
        "a minimum or maximum that occurs in test rows only.",
        f"- One learning rate, {LEARNING_RATE}, and {N_EPOCHS * len(data.batches)} steps for all: {speed}.",
        f"- {_repeats(good, len({result.seed for result in results}))}. `actlab compare` pairs, repeats, tunes the "
        "learning rate of each and tests the difference.",
    ]


def _repeats(good: Sequence[ArticleResult], n_seeds: int) -> str:
    if n_seeds == 1:
        return "One run for each activation: nothing tells a difference from luck"
    spreads = {}
    for activation, title in TITLES.items():
        ends = [r.test_losses[-1] for r in good if r.activation == activation]
        spreads[title] = max(ends) - min(ends) if ends else 0.0
    title = max(spreads, key=lambda name: spreads[name])
    return f"One split, and the seed alone moves the last test loss of {title} by up to {spreads[title]:.3f}"


def _span(values: Sequence[float], spec: str = "") -> str:
    """Smallest to largest value; "-" without any."""
    if not values:
        return "-"
    spec = spec or (",.0f" if max(values) >= 100 else ".4g")
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low} to {high}"


def article(
    csv: str, target: str, seed: int = 0, seeds: int | None = None, echo: Echo = print, *, id_column: str | None = "Id"
) -> list[ArticleResult]:
    """Run the experiment and print it as it goes: each epoch for `seed`, one line a network for the seeds after it.

    `target` is a positive numeric column of the table, `seeds` how many to run (one if None). `echo` takes each line;
    `id_column` is left out of the features where the table has it.

    Raises:
        InputError: seeds out of range, or a table that `prepare` refuses.
    """
    n_seeds = 1 if seeds is None else seeds
    require(n_seeds >= 1, "seeds must be at least 1", seeds=n_seeds)
    require(0 <= seed <= 2**63 - n_seeds, "seed must be at least 0 and fit torch's 63 bits", seed=seed)
    data = prepare(csv, target, id_column=id_column)
    results = [train(data, activation, seed, echo) for activation in TITLES]
    for later, activation in product(range(seed + 1, seed + n_seeds), TITLES):
        result = train(data, activation, later)
        reason = f". Failed at {result.failure}" if result.failure else ""
        echo(f"{TITLES[activation]}, seed {later}: {_loss_text(result.train_losses, result.test_losses)}{reason}")
        results.append(result)
    echo(render(results, data))
    return results
