"""How one stack trains: its epochs, its members' best weights, and who leaves.

Everything here concerns one stack on one device with one thread of control, so that stacks can run side by side.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from actlab.data.datamodule import EpochOrder, SplitData, SplitTensors, batch_shape, whole_lanes
from actlab.members import Member, Split
from actlab.networks.chunks import Chunks, chunk_size
from actlab.networks.compiled import can_compile
from actlab.networks.metrics import MemberRMSE
from actlab.networks.optimizer import RowAdamW
from actlab.networks.regressor import Regressor, unstack
from actlab.networks.streams import MaskBank
from actlab.settings import OptimizerSettings


@dataclass
class Outcome:
    """What became of one member.

    `val_score` is the best validation score (log-RMSE, or RMSE for an untransformed target) and `state` the weights
    of that epoch; nan and None where no epoch gave a finite score. Curves have one value an epoch, the training one
    on the scale of the validation one. A member of a given length has no validation score and its last weights.
    """

    member: Member
    n_parameters: int
    val_score: float = math.nan
    test_score: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    is_diverged: bool = False
    pruned: str = ""
    seconds: float = 0.0
    train_curve: list[float] = field(default_factory=list)
    val_curve: list[float] = field(default_factory=list)
    state: dict[str, Tensor] | None = None
    test_predictions: Tensor | None = None


class StackTraining:
    """One stack in training.

    Args:
        stack: The members' networks, on the device.
        positions: Number of each member in the population.
        data: The splits, for rows and target scales.
        tensors: The same splits' rows on the device.
        optimizer: Patience and schedule.
        max_epochs: Length of the schedule.
        batch_size: Rows of a batch.
        bank: Dropout masks of the whole population. Where given, the stack trains by `actlab.networks.compiled` if
            that knows its activation; else by autograd.
    """

    def __init__(
        self,
        stack: Regressor,
        positions: Sequence[int],
        data: dict[Split, SplitData],
        tensors: SplitTensors,
        optimizer: OptimizerSettings,
        max_epochs: int,
        batch_size: int,
        bank: MaskBank | None = None,
    ) -> None:
        self.settings, self.max_epochs, self.tensors = optimizer, max_epochs, tensors
        self.outcomes = {
            position: Outcome(member, stack.n_parameters(row))
            for row, (position, member) in enumerate(zip(positions, stack.members, strict=True))
        }
        self.finished: dict[int, Outcome] = {}
        self.positions = list(positions)
        # filled when a member first scores
        self.best = {name: torch.empty_like(value.detach()) for name, value in stack.stacked().items()}
        self.scale = {split: entry.scaler.sd for split, entry in data.items()}
        validation = torch.stack([torch.from_numpy(data[member.split].rows.validation) for member in stack.members])
        self.n_validation = validation.shape[1]
        self.batch = batch_shape(len(data[stack.members[0].split].rows.training), batch_size)
        # filled up to whole lanes with rows whose outputs are cut off again: see LANES
        filled = validation[:, torch.arange(whole_lanes(self.n_validation)) % max(1, self.n_validation)]
        self.bank = bank
        is_compiled = bank is not None and can_compile(stack.row.name)
        self.chunk = chunk_size(stack, self.batch[1]) if is_compiled else None
        self._take(stack, RowAdamW(stack, self.chunk))
        self.validation_rows = self.first_rows.unsqueeze(1) + filled.to(self.first_rows.device)

    def _take(self, stack: Regressor, optimizer: RowAdamW) -> None:
        self.stack, self.optimizer = stack, optimizer
        self.chunks = Chunks(stack, optimizer, self.chunk, self.bank) if self.chunk and self.bank else None
        device, members = stack.first_weight.device, stack.members
        self.sd = torch.tensor([self.scale[m.split] for m in members], device=device, dtype=torch.float64)
        self.metric = MemberRMSE(len(members)).to(device)
        self.n_features = stack.first_weight.shape[1]
        places = [self.tensors.place[member.split] for member in members]
        self.first_rows = torch.tensor(places, device=device) * self.tensors.n_rows

    @property
    def n_members(self) -> int:
        return len(self.positions)

    def train_epoch(self, order: EpochOrder) -> None:
        """One pass over the members' own training rows in their own order."""
        started = time.perf_counter()
        self.stack.train()
        self.stack.start_epoch(order.epoch)
        self.optimizer.start_epoch(order.epoch, self.settings.schedule, self.max_epochs)
        members = self.stack.members
        rows = torch.stack([order.rows[member.stream] for member in members], dim=1) + self.first_rows.unsqueeze(1)
        total = self.chunks.train(order.epoch, rows, self.tensors) if self.chunks else self._train_by_autograd(rows)
        scores = ((total / len(rows)).sqrt() * self.sd).tolist()
        share = (time.perf_counter() - started) / self.n_members
        for position, score in zip(self.positions, scores, strict=True):
            outcome = self.outcomes[position]
            outcome.train_curve.append(score)
            outcome.epochs += 1
            outcome.seconds += share

    def _train_by_autograd(self, rows: Tensor) -> Tensor:
        """One step for each of (steps, P, B) flat row numbers; the sum (P,) of the losses."""
        total = torch.zeros(self.n_members, device=self.sd.device, dtype=torch.float64)
        for step_rows in rows:
            features, targets = self.tensors.gather(step_rows, self.n_features)
            loss = (self.stack(features) - targets).square().mean(dim=1)
            loss.sum().backward()
            self.optimizer.step()
            total += loss.detach()
        return total

    @torch.no_grad()
    def validate(self) -> None:
        """Score the validation rows; keep the weights of members that improved."""
        if self.n_validation == 0:
            self._keep_last()
            return
        started = time.perf_counter()
        self.stack.eval()
        features, targets = self.tensors.gather(self.validation_rows, self.n_features)
        sd = self.sd.unsqueeze(1)
        self.metric.reset()
        outputs = self.stack(features)[:, : self.n_validation]
        self.metric.update(outputs * sd, targets[:, : self.n_validation] * sd)
        # torchmetrics makes a scalar of a single value
        scores = self.metric.compute().reshape(-1).tolist()
        share = (time.perf_counter() - started) / self.n_members
        improved = []
        for row, (position, score) in enumerate(zip(self.positions, scores, strict=True)):
            outcome = self.outcomes[position]
            outcome.val_curve.append(score)
            outcome.seconds += share
            outcome.is_diverged = not (math.isfinite(score) and math.isfinite(outcome.train_curve[-1]))
            if not outcome.is_diverged and not outcome.val_score <= score:
                outcome.val_score, outcome.best_epoch = score, outcome.epochs
                improved.append(row)
        self._keep_best(improved)

    def _keep_last(self) -> None:
        """Keep the weights of members that have reached their length."""
        for position in self.positions:
            outcome = self.outcomes[position]
            outcome.is_diverged = not math.isfinite(outcome.train_curve[-1])
            outcome.best_epoch = 0 if outcome.is_diverged else outcome.epochs
        rows = [row for row, position in enumerate(self.positions) if self.is_done(position)]
        self._keep_best(rows)

    def _keep_best(self, rows: Sequence[int]) -> None:
        if rows:
            index = torch.tensor(rows, device=self.sd.device)
            for name, value in self.stack.stacked().items():
                self.best[name].index_copy_(0, index, value.detach().index_select(0, index))

    def is_done(self, position: int) -> bool:
        """Diverged, out of patience, or at the last epoch."""
        outcome = self.outcomes[position]
        if outcome.member.epochs:
            return outcome.is_diverged or outcome.epochs >= outcome.member.epochs
        waited = outcome.epochs - outcome.best_epoch
        return outcome.is_diverged or waited >= self.settings.patience or outcome.epochs >= self.max_epochs

    def retire(self, leaving: set[int]) -> None:
        """Take members out of the stack with their best weights; the rest goes on without them."""
        leaving = leaving & set(self.positions)
        if not leaving:
            return
        for row, position in enumerate(self.positions):
            if position in leaving:
                outcome = self.outcomes.pop(position)
                if outcome.best_epoch > 0:
                    own = {name: value[row].cpu() for name, value in self.best.items()}
                    outcome.state = unstack(own, self.stack.n_features[row])
                self.finished[position] = outcome
        staying = [row for row, position in enumerate(self.positions) if position not in leaving]
        self.positions = [self.positions[row] for row in staying]
        if staying:
            self._shrink(staying)

    def _shrink(self, staying: Sequence[int]) -> None:
        index = torch.tensor(staying, device=self.sd.device)
        self.best = {name: value.index_select(0, index) for name, value in self.best.items()}
        self.validation_rows = self.validation_rows.index_select(0, index)
        self._go_on(self.stack.select(staying), [(self.optimizer, index)])

    def _go_on(self, stack: Regressor, sources: "Sequence[tuple[RowAdamW, Tensor]]") -> None:
        self._take(stack, RowAdamW(stack, self.chunk, sources))

    def can_absorb(self, other: "StackTraining") -> bool:
        """Whether the members of both could have been planned as one stack."""
        mine, theirs = self.stack.members[0], other.stack.members[0]
        return (
            (mine.activation, mine.hidden, mine.dropout) == (theirs.activation, theirs.hidden, theirs.dropout)
            and (self.n_validation, self.batch) == (other.n_validation, other.batch)
            and self.stack.first_weight.shape[1:] == other.stack.first_weight.shape[1:]
        )

    def absorb(self, other: "StackTraining") -> None:
        """Take over another stack's members: many small stacks cost more than one."""
        everyone = [(t.optimizer, torch.arange(t.n_members, device=t.sd.device)) for t in (self, other)]
        self.best = {name: torch.cat([value, other.best[name]]) for name, value in self.best.items()}
        self.validation_rows = torch.cat([self.validation_rows, other.validation_rows])
        self.positions += other.positions
        self.outcomes |= other.outcomes
        self.finished |= other.finished
        self._go_on(self.stack.join(other.stack), everyone)
