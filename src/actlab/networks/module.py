"""The LightningModule: a population of stacks that trains in one `Trainer.fit`.

A Lightning batch is one epoch of the whole population, so Lightning's cost per batch is paid once an epoch. On the CPU
the pieces of an epoch run side by side in threads, each with one thread of arithmetic: matrices this small gain
little from two threads inside one product, and a member's numbers do not depend on how many there are.

From `Trainer.fit` to a training step: `PopulationModule.training_step`, `StackTraining.train` of a piece of an epoch,
`Chunks.train_alone`, `Steps.forward` (by autograd: `AutogradSteps._train`, `AutogradSteps._step`).
"""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from actlab.data.datamodule import EpochOrder, SplitData, SplitTensors, TabularDataModule
from actlab.members import Member
from actlab.networks import population as planning
from actlab.networks.autograd import Piece
from actlab.networks.machine import keep_freed_memory
from actlab.networks.metrics import LogRMSE
from actlab.networks.network import Regressor, stack_states, take_rows
from actlab.networks.population import Outcome, StackTraining
from actlab.networks.streams import SharedBatches
from actlab.networks.trained import TrainedNetwork
from actlab.settings import OptimizerSettings


class PopulationModule(pl.LightningModule):
    """Trains members of any activations, learning rates, splits and seeds together.

    Each member is trained as it would be alone (its own initial weights, batch order, learning rate, early stopping
    and best weights); `outcomes` holds what became of each, in the order of `members`, after `Trainer.fit`.
    `Trainer.test` adds the score on the test rows of the member's own fold.
    Learning rate and weight decay are the members' own, not of `optimizer`.
    """

    def __init__(self, members: Sequence[Member], optimizer: OptimizerSettings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.members, self.optimizer_settings = tuple(members), optimizer
        self.stacks = nn.ModuleList()
        self.training_stacks: list[StackTraining] = []
        self.finished: dict[int, Outcome] = {}
        self.member_epochs = 0
        # of each stack to be: its members' positions, and what an interrupted fit left of it
        self._planned: list[tuple[list[int], dict[str, Any] | None]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._n_threads = 1
        self._epoch_started = 0.0
        self._shared: SharedBatches | None = None
        # what `on_fit_start` changed in the process
        self._undo = ExitStack()
        self.strict_loading = False

    @property
    def datamodule(self) -> TabularDataModule:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it on every Trainer
        if not isinstance(datamodule, TabularDataModule):
            raise TypeError(f"PopulationModule trains on a TabularDataModule, got {type(datamodule).__name__}")
        return datamodule

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each member, in the order of `members`; complete after `Trainer.fit`."""
        return [self.finished[position] for position in range(len(self.members))]

    @property
    def running(self) -> list[Outcome]:
        """So far, of the members in training; the others are in `finished`."""
        return [outcome for training in self.training_stacks for outcome in training.outcomes.values()]

    @property
    def n_alive(self) -> int:
        return sum(training.n_members for training in self.training_stacks)

    @property
    def on_accelerator(self) -> bool:
        """Whether work is done elsewhere while Python goes on."""
        return bool(self.trainer.strategy.root_device.type != "cpu")

    @property
    def n_side_by_side(self) -> int:
        """Threads that share the work of the stacks."""
        return self._n_threads if self._pool else 1

    @property
    def max_epochs(self) -> int:
        return int(self.trainer.max_epochs or 1)

    def setup(self, stage: str) -> None:
        """Draw every member's initial weights, in stacks.

        Not in `configure_model`: there Lightning looks at every call of torch, of which this makes thousands, and has
        tensors made on the device, for which the members' generators are not.
        """
        if stage != "fit" or len(self.stacks):
            return
        self._set_streams(self.members)
        self._n_threads = 1 if self.on_accelerator else torch.get_num_threads()
        stack_bytes = None if self.on_accelerator else planning.STACK_BYTES
        batch_size = self.datamodule.settings.batch_size
        plan = planning.plan_stacks(self.members, self.datamodule.data, batch_size, self._n_threads, stack_bytes)
        self._planned = [(positions, None) for positions in plan]
        self.stacks = nn.ModuleList(map(self._new_stack, plan))

    def _new_stack(self, positions: Sequence[int], weights: dict[str, Tensor] | None = None) -> Regressor:
        """Some members with initial weights, or with these."""
        data, members = self.datamodule.data, [self.members[position] for position in positions]
        width = max(split.n_features for split in data.values())
        return Regressor(members, [data[member.split].n_features for member in members], weights, width)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One stock AdamW a stack, made here because the stacks lie on the device only now."""
        data, stacks = self.datamodule.data, [stack for stack in self.stacks if isinstance(stack, Regressor)]
        dtype = stacks[0].first_weight.dtype if stacks else torch.float32
        tensors = SplitTensors(data, self.trainer.strategy.root_device, dtype)
        # an accelerator records autograd's steps instead, and autocast is autograd's
        is_compiled = not self.on_accelerator and self.trainer.precision in ("32-true", "64-true")
        self._shared = SharedBatches([member.stream for member in self.members], tensors) if is_compiled else None
        batch_size = self.datamodule.settings.batch_size
        common = (data, tensors, self.optimizer_settings, self.max_epochs, batch_size, self._shared)
        self.training_stacks = [
            StackTraining(stack, positions, *common, left)
            for stack, (positions, left) in zip(stacks, self._planned, strict=True)
        ]
        self._planned = []
        return [training.optimizer.adamw for training in self.training_stacks]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what all members go on from at the next epoch; Lightning knows no stacks that shrink."""
        checkpoint |= {"state_dict": {}, "optimizer_states": [], "lr_schedulers": []}
        checkpoint["population"] = {
            "members": list(map(repr, self.members)),
            "member_epochs": self.member_epochs,
            "finished": {position: outcome.to_dict() for position, outcome in self.finished.items()},
            "stacks": [training.to_dict() for training in self.training_stacks],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over those members of an interrupted population that are in this one."""
        content = checkpoint["population"]
        own = {repr(member): position for position, member in enumerate(self.members)}
        position_of = {there: own[name] for there, name in enumerate(content["members"]) if name in own}
        self.finished = {
            position_of[there]: Outcome(self.members[position_of[there]], **outcome)
            for there, outcome in content["finished"].items()
            if there in position_of
        }
        self.member_epochs = content["member_epochs"]
        self.stacks, self._planned = nn.ModuleList(), []
        for stack in content["stacks"]:
            rows = [row for row, there in enumerate(stack["positions"]) if there in position_of]
            if rows:
                positions = [position_of[stack["positions"][row]] for row in rows]
                self._planned.append((positions, {**stack, "rows": rows}))
                self.stacks.append(self._new_stack(positions, take_rows((stack["weights"], torch.tensor(rows)))))
        self._set_streams(self.members[position] for positions, _ in self._planned for position in positions)

    def _set_streams(self, members: Iterable[Member]) -> None:
        """Of members in training: the streams whose batches are made."""
        self.datamodule.streams = tuple(dict.fromkeys(member.stream for member in members))

    def on_fit_start(self) -> None:
        # members of one population differ in length: the longest first keeps the threads busy to the end
        self.training_stacks.sort(key=lambda training: -training.n_members)
        if self._n_threads > 1 and len(self.training_stacks) > 1:
            torch.set_num_threads(1)
            self._undo.callback(torch.set_num_threads, self._n_threads)
            self._pool = ThreadPoolExecutor(self._n_threads, initializer=_prepare_thread)
            self._undo.callback(self._pool.shutdown, cancel_futures=True)
            self._undo.callback(setattr, self, "_pool", None)
        torch.set_flush_denormal(True)
        # a process-wide state of the processor: whoever computes after us wants it as it was
        self._undo.callback(torch.set_flush_denormal, False)
        keep_freed_memory()
        # what is there already stays: no need to look through it again and again
        if gc.get_freeze_count() == 0:
            gc.freeze()
            self._undo.callback(gc.unfreeze)

    def _side_by_side(self, tasks: Iterable[tuple[StackTraining, Callable[[], None]]]) -> None:
        """Work of stacks, as the Trainer wants it computed."""

        # threads of a pool start with gradients on and no autocast, whatever Lightning set around this call
        is_training, in_precision = torch.is_grad_enabled(), self.trainer.precision_plugin.forward_context

        def run(task: tuple[StackTraining, Callable[[], None]]) -> None:
            training, work = task
            with in_precision(), torch.set_grad_enabled(is_training), training.on_own_queue():
                work()

        self.in_pool(run, tasks)

    def in_pool(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """What `work` makes of each item: side by side while there are threads, in turn otherwise."""
        return list((self._pool.map if self._pool else map)(work, items))

    def training_step(self, batch: EpochOrder, batch_idx: int) -> None:
        """One epoch of every member that is still in training."""
        self.member_epochs += self.n_alive
        self._epoch_started = time.perf_counter()
        if self._shared is not None:
            self.in_pool(self._shared.fill, self._shared.start(batch, [t.shape for t in self.training_stacks]))
        pieces: list[tuple[StackTraining, Piece]] = []
        for training in self.training_stacks:
            with training.on_own_queue():
                pieces += [(training, piece) for piece in training.begin_epoch(batch)]
        # what takes longest first, so that the threads end together
        pieces.sort(key=lambda found: (found[0].pace * found[1].n_members, found[1].n_members), reverse=True)
        self._side_by_side((training, partial(training.train, piece)) for training, piece in pieces)

    def validation_step(self, batch: str, batch_idx: int) -> None:
        """Score every member on its inner-validation rows."""
        if self.trainer.sanity_checking:
            return
        self._side_by_side((training, training.validate) for training in self.training_stacks)
        if self.on_accelerator:
            # numbers are read when the work of all stacks is under way
            self._side_by_side((training, training.record) for training in self.training_stacks)
            torch.accelerator.synchronize()
            seconds = (time.perf_counter() - self._epoch_started) / self.n_alive
            for training in self.training_stacks:
                training.spend(seconds)

    def on_train_epoch_end(self) -> None:
        """Members that are done leave; those that stay move closer together."""
        for name in ("train", "val") if self.trainer.logger is not None else ():
            if last := [curve[-1] for outcome in self.running if (curve := getattr(outcome, f"{name}_curve"))]:
                self.log(f"{name}/score", sum(last) / len(last))
        self.retire(lambda outcome: outcome.is_done(self.optimizer_settings.patience, self.max_epochs))
        if not self.training_stacks:
            self.trainer.should_stop = True

    def retire(self, leaves: Callable[[Outcome], object]) -> None:
        """Take members out of training with their best weights so far; their neighbours do not notice."""
        if not any(map(leaves, self.running)):
            return

        def leave(training: StackTraining) -> None:
            with training.on_own_queue():
                training.retire(leaves)

        self.in_pool(leave, self.training_stacks)
        for training in self.training_stacks:
            self.finished.update(training.finished)
        if self.on_accelerator:
            # what the stacks let go of may be taken by others now
            torch.accelerator.synchronize()
        self.training_stacks = planning.balanced([t for t in self.training_stacks if t.n_members], self.n_side_by_side)
        self.stacks = nn.ModuleList(training.stack for training in self.training_stacks)
        self.trainer.strategy.optimizers = [training.optimizer.adamw for training in self.training_stacks]
        self._set_streams(member for training in self.training_stacks for member in training.stack.members)

    def on_train_end(self) -> None:
        self.retire(lambda outcome: True)
        self._undo.close()

    def on_exception(self, exception: BaseException) -> None:
        self._undo.close()

    def test_step(self, batch: str, batch_idx: int) -> None:
        """Score every member's best weights on the test rows of its fold, once."""
        data = self.datamodule.data
        groups: dict[object, list[Outcome]] = {}
        for outcome in self.finished.values():
            if outcome.state is not None:
                member = outcome.member
                groups.setdefault((member.split, member.activation, member.hidden), []).append(outcome)
        for outcomes in groups.values():
            self._score(outcomes, data[outcomes[0].member.split])
        scores = [outcome.test_score for outcomes in groups.values() for outcome in outcomes]
        if scores:
            self.log("test/score", sum(scores) / len(scores), batch_size=1)

    def _score(self, outcomes: Sequence[Outcome], data: SplitData) -> None:
        rows = torch.from_numpy(data.rows.test)
        outputs = predict(outcomes, data.features[rows].to(self.device)).clamp(min=data.scaler.least)
        targets = data.targets[rows].to(outputs)
        metric = LogRMSE(len(outcomes)).to(self.device)
        weights = None if data.weights is None else data.weights[rows].to(self.device)
        metric.update(outputs * data.scaler.sd, targets * data.scaler.sd, weights)
        for outcome, score, row in zip(outcomes, metric.compute().reshape(-1).tolist(), outputs, strict=True):
            outcome.test_score = score
            assert outcome.state is not None
            predictions = torch.from_numpy(data.scaler.value(row.double().cpu().numpy()))
            outcome.network = TrainedNetwork(
                outcome.member, outcome.state, data.preprocessor, data.scaler, outcome.val_score, score, predictions
            )


@torch.no_grad()
def predict(outcomes: Sequence[Outcome], features: Tensor) -> Tensor:
    """Standardised predictions (P, B) for features (B, F) of members of one split, activation and widths, each with a
    `state`.
    """
    states = [outcome.state for outcome in outcomes if outcome.state is not None]
    widths = [features.shape[1]] * len(states)
    stack = Regressor([outcome.member for outcome in outcomes], widths, stack_states(states))
    stack = stack.to(features.device).eval()
    return cast(Tensor, stack(features.to(stack.first_weight.dtype)))


def _prepare_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
