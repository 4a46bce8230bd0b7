"""How one stack trains: its epochs, its members' best weights, and who leaves.

Everything here concerns one stack on one device with one thread of control, so that stacks can run side by side.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from actlab.data.datamodule import EpochOrder, SplitData, batch_shape, whole_lanes
from actlab.members import Member, Split
from actlab.networks.metrics import MemberRMSE
from actlab.networks.regressor import Regressor, unstack
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


def schedule_factor(schedule: str, epoch: int, max_epochs: int) -> float:
    """What the learning rate is multiplied by in an epoch: 1, or the half cosine from 1 towards 0."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / max_epochs))
    return 1.0


class RowAdamW:
    """A stock AdamW over the members of a stack, each with its own learning rate and weight decay.

    Neighbouring members with equal settings share a parameter group of slices of the stacked tensors, so the fused
    kernel runs over long rows. The slices share the storage of the stack; gradients are handed over before a step.
    """

    def __init__(self, stack: Regressor) -> None:
        self.tensors = list(stack.stacked().values())
        self.bounds = _equal_runs([(m.learning_rate, m.weight_decay, m.epochs) for m in stack.members])
        groups = [
            {
                "params": [torch.nn.Parameter(tensor.detach()[start:stop]) for tensor in self.tensors],
                "lr": stack.members[start].learning_rate,
                "initial_lr": stack.members[start].learning_rate,
                "weight_decay": stack.members[start].weight_decay,
                "epochs": stack.members[start].epochs,
            }
            for start, stop in self.bounds
        ]
        self.adamw = torch.optim.AdamW(groups, fused=True)

    def step(self) -> None:
        """One update from the gradients of the stacked tensors, which are given up."""
        for (start, stop), group in zip(self.bounds, self.adamw.param_groups, strict=True):
            for part, whole in zip(group["params"], self.tensors, strict=True):
                part.grad = whole.grad[start:stop] if whole.grad is not None else None
        self.adamw.step()
        for whole in self.tensors:
            whole.grad = None

    def start_epoch(self, epoch: int, schedule: str, max_epochs: int) -> None:
        """Set every learning rate for the epoch to come; members of a given length have the cosine over it."""
        for group in self.adamw.param_groups:
            own = ("cosine", group["epochs"]) if group["epochs"] else (schedule, max_epochs)
            group["lr"] = group["initial_lr"] * schedule_factor(own[0], epoch, own[1])

    def moments(self, position: int, rows: Tensor) -> dict[str, Tensor]:
        """Step count and moments (rows, ...) of some members for the tensor at a position; empty before any step."""
        states = [self.adamw.state[group["params"][position]] for group in self.adamw.param_groups]
        if not states[0]:
            return {}
        whole = {key: torch.cat([state[key] for state in states]) for key in ("exp_avg", "exp_avg_sq")}
        return {"step": states[0]["step"], **{key: value.index_select(0, rows) for key, value in whole.items()}}

    def take_moments(self, sources: "Sequence[tuple[RowAdamW, Tensor]]") -> None:
        """Go on from other optimisers: this one's rows are their rows, one source after the other.

        All sources have made the same number of steps.
        """
        for position in range(len(self.tensors)):
            parts = [source.moments(position, rows) for source, rows in sources]
            if not parts[0]:
                return
            whole = {key: torch.cat([part[key] for part in parts]) for key in ("exp_avg", "exp_avg_sq")}
            for (start, stop), group in zip(self.bounds, self.adamw.param_groups, strict=True):
                self.adamw.state[group["params"][position]] = {
                    "step": parts[0]["step"].clone(),
                    **{key: value[start:stop].clone() for key, value in whole.items()},
                }


def _equal_runs(values: Sequence[object]) -> list[tuple[int, int]]:
    """Half-open bounds of the runs of equal neighbours."""
    starts = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


class SplitTensors:
    """The rows of all splits on the device: features (S, N, F), standardised targets (S, N), F padded with zeros."""

    def __init__(self, data: dict[Split, SplitData], device: torch.device, dtype: torch.dtype) -> None:
        widest = max(split.n_features for split in data.values())
        n_rows = len(next(iter(data.values())).targets)
        self.place = {split: place for place, split in enumerate(data)}
        self.n_rows = n_rows
        self.features = torch.zeros(len(data), n_rows, widest, device=device, dtype=dtype)
        self.targets = torch.zeros(len(data), n_rows, device=device, dtype=dtype)
        for place, split in enumerate(data.values()):
            self.features[place, :, : split.n_features] = split.features.to(device, dtype)
            self.targets[place] = split.targets.to(device, dtype)
        self.flat_features = self.features.view(-1, widest)
        self.flat_targets = self.targets.view(-1)

    def gather(self, flat_rows: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
        """Features (P, B, F) and targets (P, B) of flat row numbers (P, B) = place * N + row."""
        features = self.flat_features.index_select(0, flat_rows.reshape(-1)).view(*flat_rows.shape, -1)
        return features[..., :n_features], self.flat_targets[flat_rows]


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
        self._take(stack, RowAdamW(stack))
        self.validation_rows = self.first_rows.unsqueeze(1) + filled.to(self.first_rows.device)

    def _take(self, stack: Regressor, optimizer: RowAdamW) -> None:
        self.stack, self.optimizer = stack, optimizer
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
        total = torch.zeros(self.n_members, device=self.sd.device, dtype=torch.float64)
        for step_rows in rows:
            features, targets = self.tensors.gather(step_rows, self.n_features)
            loss = (self.stack(features) - targets).square().mean(dim=1)
            loss.sum().backward()
            self.optimizer.step()
            total += loss.detach()
        scores = ((total / len(rows)).sqrt() * self.sd).tolist()
        share = (time.perf_counter() - started) / self.n_members
        for position, score in zip(self.positions, scores, strict=True):
            outcome = self.outcomes[position]
            outcome.train_curve.append(score)
            outcome.epochs += 1
            outcome.seconds += share

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
        optimizer = RowAdamW(stack)
        optimizer.take_moments(sources)
        self._take(stack, optimizer)

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
