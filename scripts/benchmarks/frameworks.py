"""The same networks by Lightning, as its templates do, by scikit-learn and by skorch."""

import contextlib
import importlib.util
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler, TensorDataset

from actlab.data.datamodule import batch_orders, batch_shape
from actlab.members import Member
from benchmarks.plain_loop import network
from benchmarks.tasks import Task, Trained

SKLEARN_NAMES = {"sigmoid": "logistic", "tanh": "tanh", "identity": "identity"}


class OrderSampler(Sampler[list[int]]):
    """The member's batches for a DataLoader, at the cost of any sampler."""

    def __init__(self, task: Task, member: Member) -> None:
        self.rows = torch.from_numpy(task.data[member.split].rows.training)
        self.member, self.batch_size, self.epoch = member, task.settings.batch_size, 0

    def __len__(self) -> int:
        return batch_shape(len(self.rows), self.batch_size)[0]

    def __iter__(self) -> Iterator[list[int]]:
        order = batch_orders(self.rows, [self.member.stream], self.epoch, self.batch_size)[0]
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
