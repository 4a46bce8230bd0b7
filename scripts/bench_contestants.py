"""What is compared by scripts/bench.py: the same networks, trained as people train them and as actlab does.

Every contestant takes a task and members and gives back each member's best validation score and its epochs. All of
them start from the members' own initial weights, visit the same batches in the same order and stop early by the same
rule, scikit-learn and skorch excepted, which keep their own initial weights or order.

Shapes: P members, B rows of a batch, F input columns.
"""

import contextlib
import copy
import importlib.util
import math
import multiprocessing
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler, TensorDataset

from actlab.configuration import Configuration
from actlab.data.datamodule import SplitData, TabularDataModule, batch_order, batch_shape, prepare
from actlab.data.preprocessing import Preprocessor, fit_target
from actlab.data.splits import SplitRows, make_splits
from actlab.data.table import read_table
from actlab.members import Member, Split, stream_seed
from actlab.networks import activations, initialisation
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome, SplitTensors
from actlab.runs import article
from actlab.runs.trials import Setting, make_member, make_trainer
from actlab.settings import DataSettings, OptimizerSettings

ARTICLE_BATCH = 24
# more members in one vmap gain nothing: the largest measured before its time per member rises again
VMAP_MEMBERS = 64
N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SKLEARN_NAMES = {"sigmoid": "logistic", "tanh": "tanh", "identity": "identity"}


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
    """

    name: str
    data: dict[Split, SplitData]
    settings: DataSettings
    optimizer: OptimizerSettings
    max_epochs: int
    members: tuple[Member, ...]

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
    splits = make_splits(table.n_rows, configuration.compare, configuration.seed)
    grid, model = configuration.compare, configuration.model
    settings = [
        Setting(name, rate, configuration.optimizer.weight_decay, tuple(model.hidden), model.dropout, model.init)
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


def network(member: Member, n_features: int, width: int | None = None) -> nn.Sequential:
    """The network as one would write it, with the member's initial weights; zeros for inputs that it has not."""
    generator = torch.Generator().manual_seed(stream_seed(member.stream, "init"))
    layers: list[nn.Module] = []
    for weight, bias in initialisation.draw(n_features, member.hidden, member.activation, member.init, generator):
        if not layers and width is not None:
            weight = functional.pad(weight, (0, width - n_features))
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
        layers += [linear, activations.get(member.activation).build()]
        if member.dropout > 0:
            layers.append(nn.Dropout(member.dropout))
    # nothing follows the output layer
    return nn.Sequential(*layers[: -2 if member.dropout > 0 else -1])


class Best:
    """The best validation score so far, and when patience is out: actlab's own rule."""

    def __init__(self, task: Task) -> None:
        self.patience = task.optimizer.patience
        self.score, self.epoch, self.epochs = math.nan, 0, 0

    def add(self, score: float) -> bool:
        """Take an epoch's score; true where it is the best so far."""
        self.epochs += 1
        if math.isfinite(score) and not self.score <= score:
            self.score, self.epoch = score, self.epochs
            return True
        if not math.isfinite(score):
            self.patience = 0
        return False

    @property
    def is_done(self) -> bool:
        return self.epochs - self.epoch >= self.patience


def plain(task: Task, members: Sequence[Member], fused: bool | None = None) -> Trained:
    """One network after the other, in a loop of one's own."""
    trained = Trained()
    for member in members:
        best = _plain(task, member, fused)
        trained.add(best.score, best.epochs)
    return trained


def plain_fused(task: Task, members: Sequence[Member]) -> Trained:
    """The same with the fused kernel of the optimiser, which few loops ask for."""
    return plain(task, members, fused=True)


def _plain(task: Task, member: Member, fused: bool | None) -> Best:
    data = task.data[member.split]
    x, y = data.features, data.targets.float()
    model = network(member, data.n_features)
    rate, decay = member.learning_rate, member.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=fused)
    training, validation = torch.from_numpy(data.rows.training), torch.from_numpy(data.rows.validation)
    best, kept = Best(task), model.state_dict()
    for epoch in range(task.max_epochs):
        model.train()
        total = 0.0
        for rows in batch_order(training, member.stream, epoch, task.settings.batch_size):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x[rows]).squeeze(-1), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            error = functional.mse_loss(model(x[validation]).squeeze(-1), y[validation])
        if best.add(math.sqrt(error.item()) * data.scaler.sd if math.isfinite(total) else math.nan):
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        if best.is_done:
            break
    model.load_state_dict(kept)
    return best


class Processes:
    """The plain loop in as many processes as there are cores, with one thread of arithmetic each.

    Started once and warm: starting them is not counted, unless the caller does.
    """

    def __init__(self, task: Task, n_processes: int = N_CORES) -> None:
        self.n_processes = n_processes
        self.pool = ProcessPoolExecutor(
            n_processes, multiprocessing.get_context("spawn"), _start_process, (pickle.dumps(task),)
        )

    def __enter__(self) -> Self:
        list(self.pool.map(_is_ready, range(4 * self.n_processes)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown()

    def __call__(self, task: Task, members: Sequence[Member]) -> Trained:
        trained = Trained()
        for score, epochs in self.pool.map(_plain_here, members):
            trained.add(score, epochs)
        return trained


_TASKS: list[Task] = []


def _start_process(task: bytes) -> None:
    torch.set_num_threads(1)
    _TASKS[:] = [pickle.loads(task)]


def _is_ready(number: int) -> bool:
    return bool(_TASKS)


def _plain_here(member: Member) -> tuple[float, int]:
    best = _plain(_TASKS[0], member, None)
    return best.score, best.epochs


class OrderSampler(Sampler[list[int]]):
    """The member's batches for a DataLoader, at the cost of any sampler."""

    def __init__(self, task: Task, member: Member) -> None:
        self.rows = torch.from_numpy(task.data[member.split].rows.training)
        self.member, self.batch_size, self.epoch = member, task.settings.batch_size, 0

    def __len__(self) -> int:
        return batch_shape(len(self.rows), self.batch_size)[0]

    def __iter__(self) -> Iterator[list[int]]:
        order = batch_order(self.rows, self.member.stream, self.epoch, self.batch_size)
        self.epoch += 1
        yield from order.tolist()


class TemplateModule(pl.LightningModule):
    """A LightningModule as templates have it: losses logged at every step and shown in the bar."""

    def __init__(self, model: nn.Module, member: Member) -> None:
        super().__init__()
        self.model, self.member = model, member

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.model(features).squeeze(-1)
        return outputs

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        features, targets = batch
        loss = functional.mse_loss(self(features), targets)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        features, targets = batch
        self.log("val/loss", functional.mse_loss(self(features), targets), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        member = self.member
        return torch.optim.AdamW(self.parameters(), member.learning_rate, weight_decay=member.weight_decay)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Bars and hints are produced and go nowhere."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def lightning(task: Task, members: Sequence[Member]) -> Trained:
    """One `Trainer.fit` a network: TensorBoard logger, validation, progress bar, early stopping, best checkpoint."""
    trained = Trained()
    for member in members:
        trained.add(*fit_template(task, member))
    return trained


def fit_template(task: Task, member: Member, callbacks: Sequence[pl.Callback] = ()) -> tuple[float, int]:
    """Best validation score and epochs of one such fit."""
    data = task.data[member.split]
    targets, held_out = data.targets.float(), torch.from_numpy(data.rows.validation)
    training = DataLoader(TensorDataset(data.features, targets), batch_sampler=OrderSampler(task, member))
    validation = DataLoader(TensorDataset(data.features[held_out], targets[held_out]), task.settings.batch_size)
    stopping = EarlyStopping("val/loss", patience=task.optimizer.patience)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=task.max_epochs,
            default_root_dir=folder,
            logger=TensorBoardLogger(folder),
            callbacks=[stopping, ModelCheckpoint(monitor="val/loss"), *callbacks],
        )
        trainer.fit(TemplateModule(network(member, data.n_features), member), training, validation)
    return math.sqrt(float(stopping.best_score)) * data.scaler.sd, trainer.current_epoch


def scikit_learn(task: Task, members: Sequence[Member]) -> Trained:
    """`MLPRegressor`, which stops early on rows of its own; ReLU where it has not the member's activation."""
    from sklearn.neural_network import MLPRegressor

    trained = Trained()
    for member in members:
        data = task.data[member.split]
        x, y, rows = data.features.numpy(), data.targets.numpy(), data.rows
        model = MLPRegressor(
            hidden_layer_sizes=member.hidden,
            activation=SKLEARN_NAMES.get(member.activation, "relu"),
            alpha=member.weight_decay,
            batch_size=min(task.settings.batch_size, len(rows.training)),
            learning_rate_init=member.learning_rate,
            max_iter=task.max_epochs,
            random_state=member.seed,
            tol=0.0,
            early_stopping=task.optimizer.patience < task.max_epochs,
            validation_fraction=len(rows.validation) / (len(rows.validation) + len(rows.training)),
            n_iter_no_change=task.optimizer.patience + 1,
        )
        with quiet(), np.errstate(all="ignore"):
            try:
                model.fit(x[rows.training], y[rows.training].astype(np.float32))
                errors = model.predict(x[rows.validation]) - y[rows.validation]
            except ValueError as error:
                # how it says that a network diverged
                if "non-finite" not in str(error):
                    raise
                trained.add(math.nan, int(getattr(model, "n_iter_", 1)))
                continue
        trained.add(float(np.sqrt(np.mean(errors**2))) * data.scaler.sd, int(model.n_iter_))
    return trained


def has_skorch() -> bool:
    return importlib.util.find_spec("skorch") is not None


def skorch(task: Task, members: Sequence[Member]) -> Trained:
    """skorch's `NeuralNetRegressor`, its validation rows given, shuffled by its own loader."""
    from skorch import NeuralNetRegressor
    from skorch.callbacks import EarlyStopping as Stopping
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    trained = Trained()
    for member in members:
        data = task.data[member.split]
        x, y, rows = data.features.numpy(), data.targets.float().unsqueeze(1).numpy(), data.rows
        model = NeuralNetRegressor(
            network(member, data.n_features),
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=member.weight_decay,
            lr=member.learning_rate,
            max_epochs=task.max_epochs,
            batch_size=task.settings.batch_size,
            iterator_train__shuffle=True,
            train_split=predefined_split(Dataset(x[rows.validation], y[rows.validation])),
            callbacks=[("stopping", Stopping(patience=task.optimizer.patience, threshold=0.0))],
            verbose=0,
        )
        with quiet():
            model.fit(x[rows.training], y[rows.training])
        losses = [float(loss) for loss in model.history[:, "valid_loss"]]
        best = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
        trained.add(math.sqrt(best) * data.scaler.sd, len(losses))
    return trained


def vmap(task: Task, members: Sequence[Member]) -> Trained:
    """`torch.func.vmap` over `functional_call`, members of equal activation and learning rate at a time."""
    groups: dict[object, list[Member]] = {}
    for member in members:
        groups.setdefault((member.activation, member.learning_rate), []).append(member)
    found: dict[Member, Best] = {}
    for group in groups.values():
        for start in range(0, len(group), VMAP_MEMBERS):
            found |= _vmap(task, group[start : start + VMAP_MEMBERS])
    return Trained([found[m].score for m in members], [found[m].epochs for m in members])


def _vmap(task: Task, members: Sequence[Member]) -> dict[Member, Best]:
    """Train until the last of them has done; epochs after a member's own end are not counted."""
    tensors = SplitTensors(task.data, torch.device("cpu"), torch.float32)
    width = tensors.features.shape[-1]
    networks = [network(member, task.data[member.split].n_features, width) for member in members]
    parameters, _ = torch.func.stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def one(own: dict[str, Tensor], features: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(base, own, (features,)).squeeze(-1)
        return outputs

    model = torch.func.vmap(one, randomness="different")
    optimizer = torch.optim.AdamW(
        list(parameters.values()), members[0].learning_rate, weight_decay=members[0].weight_decay, fused=True
    )
    places = torch.tensor([tensors.place[m.split] * tensors.n_rows for m in members])
    rows = [task.data[member.split].rows for member in members]
    validation = torch.stack([torch.from_numpy(own.validation) for own in rows]) + places.unsqueeze(1)
    training = [torch.from_numpy(own.training) for own in rows]
    sd = torch.tensor([task.data[member.split].scaler.sd for member in members])
    found = {member: Best(task) for member in members}
    for epoch in range(task.max_epochs):
        base.train()
        orders = [
            batch_order(own, member.stream, epoch, task.settings.batch_size)
            for own, member in zip(training, members, strict=True)
        ]
        for step_rows in torch.stack(orders, dim=1) + places.unsqueeze(1):
            features, targets = tensors.gather(step_rows, width)
            loss = (model(parameters, features) - targets).square().mean(dim=1).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        base.eval()
        features, targets = tensors.gather(validation, width)
        with torch.no_grad():
            errors = (model(parameters, features) - targets).square().mean(dim=1)
        for best, score in zip(found.values(), (errors.sqrt() * sd).tolist(), strict=True):
            if not best.is_done or best.epochs == 0:
                best.add(score)
        if all(best.is_done for best in found.values()):
            break
    return found


def actlab(task: Task, members: Sequence[Member]) -> Trained:
    """One population in one fit."""
    outcomes = fit_population(task, members)
    return Trained([outcome.val_score for outcome in outcomes], [outcome.epochs for outcome in outcomes])


def actlab_one_by_one(task: Task, members: Sequence[Member]) -> Trained:
    """Populations of one member, one after the other."""
    trained = Trained()
    for member in members:
        alone = actlab(task, [member])
        trained.add(alone.scores[0], alone.epochs[0])
    return trained


def fit_population(task: Task, members: Sequence[Member], **trainer_options: Any) -> list[Outcome]:
    """What `actlab.runs.trials.train` does, on data that are prepared already and without scoring the test rows."""
    datamodule = TabularDataModule(splits=list(task.data))
    datamodule.settings, datamodule.data = task.settings, task.data
    module = PopulationModule(members, task.optimizer)
    options = {"accelerator": "cpu", "max_epochs": task.max_epochs, **trainer_options}
    make_trainer(options, ()).fit(module, datamodule=datamodule)
    return module.outcomes


CONTESTANTS: dict[str, tuple[str, Contestant]] = {
    "plain": ("(a) plain torch loop, one network after the other", plain),
    "plain_fused": ("(a) the same with the fused optimiser", plain_fused),
    "lightning": ("(b) one Lightning Trainer a network", lightning),
    "scikit_learn": ("(d) scikit-learn MLPRegressor", scikit_learn),
    "skorch": ("(e) skorch", skorch),
    "vmap": ("(g) torch.func.vmap, fused optimiser", vmap),
    "actlab_1": ("actlab, populations of one", actlab_one_by_one),
    "actlab_64": ("actlab, one population", actlab),
    "actlab_650": ("actlab, one population", actlab),
}
PROCESSES = "processes"
PROCESSES_TITLE = f"(c) plain loop in {N_CORES} processes of one thread"


def differences(task: Task, members: Sequence[Member], processes: Processes) -> dict[str, float]:
    """Largest difference between actlab's validation scores and those of each contestant with the same seeds."""
    ours = actlab(task, members).scores
    contestants: dict[str, Contestant] = {
        "actlab_1": actlab_one_by_one,
        "plain": plain,
        "plain_fused": plain_fused,
        "lightning": lightning,
        PROCESSES: processes,
        "vmap": vmap,
    }
    return {
        name: max(abs(a - b) for a, b in zip(ours, run(task, members).scores, strict=True))
        for name, run in contestants.items()
    }
