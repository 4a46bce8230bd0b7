"""How one stack trains (its epochs, its members' best weights, who leaves), and which members make a stack.

A `StackTraining` concerns one stack on one device, so that stacks can run side by side; pieces of an epoch can, too.
"""

import math
import statistics
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from actlab import activations
from actlab.data.datamodule import EpochOrder, SplitData, SplitTensors, batch_shape
from actlab.members import Member, Split
from actlab.networks.adamw import AdamWState, RowAdamW
from actlab.networks.autograd import AutogradSteps, Piece, recorder
from actlab.networks.compiled import Chunks, can_compile, chunk_size
from actlab.networks.metrics import LogRMSE
from actlab.networks.network import Regressor, gather, layer_shapes, take_rows, unstack
from actlab.networks.streams import EpochShape, SharedBatches
from actlab.networks.trained import TrainedNetwork
from actlab.settings import OptimizerSettings

# Members whose weights come from an accelerator at once: few enough that they land in memory the process has already.
FETCHED = 64


def least_alive(device: torch.device) -> float:
    """Share of a stack that has to train for the others to stay in it."""
    # an accelerator records every new size anew, which costs as much as some dozen epochs of a small stack
    return 1.0 if device.type == "cpu" else 0.75


@dataclass
class Outcome:
    """What became of one member.

    `val_score` is the best validation score (log-RMSE, or RMSE for an untransformed target) and `state` the weights
    of that epoch; nan and None where no epoch gave a finite score. Curves have one value an epoch, the training one
    on the scale of the validation one. A member of a given length has no validation score and its last weights.
    `network` is what leaves training, made by `Trainer.test`; None where there is no `state`.
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
    network: TrainedNetwork | None = None

    def is_done(self, patience: int, max_epochs: int) -> bool:
        """Diverged, out of patience, or at the last epoch."""
        if self.member.epochs:
            return self.is_diverged or self.epochs >= self.member.epochs
        return self.is_diverged or self.epochs - self.best_epoch >= patience or self.epochs >= max_epochs

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain types, all but the member: `Outcome(member, **content)` restores it."""
        return {name: value for name, value in vars(self).items() if name != "member"}


def by_trial(outcomes: Iterable[Outcome]) -> dict[int, list[Outcome]]:
    """Trial to its members, in the order of the outcomes."""
    trials: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        trials.setdefault(outcome.member.trial, []).append(outcome)
    return trials


def mean_score(outcomes: Iterable[Outcome]) -> float:
    """Mean of the members' best validation scores so far, what trials are ranked by; infinite where one has none."""
    mean = statistics.fmean(outcome.val_score for outcome in outcomes)
    return mean if math.isfinite(mean) else math.inf


class StackTraining:
    """One stack in training.

    An accelerator works while Python goes on: each stack has a queue of its own there, entered by `on_own_queue`, and
    numbers are read in `record` alone, when the work of all stacks is under way.

    Args:
        positions: The members' numbers in the population.
        tensors: The rows of `data`, on the stack's device.
        shared: Batches and dropout masks of the whole population. Where given, the stack trains by
            `actlab.networks.compiled` if that knows its activation; else by autograd.
        interrupted: What `to_dict` gave, and the `rows` of these members in it, to go on from.
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
        shared: SharedBatches | None = None,
        interrupted: dict[str, Any] | None = None,
    ) -> None:
        self.settings, self.max_epochs, self.tensors = optimizer, max_epochs, tensors
        so_far: list[dict[str, Any]] = [{"n_parameters": stack.n_parameters(row)} for row in range(stack.n_members)]
        self.finished: dict[int, Outcome] = {}
        # seconds of a member in the last piece that was done
        self.pace = 0.0
        device = stack.first_weight.device
        self.device_queue = None if device.type == "cpu" else torch.Stream(device)
        # filled when a member first scores
        self.best = {name: torch.empty_like(value.detach()) for name, value in stack.stacked().items()}
        self.scalers = {split: entry.scaler for split, entry in data.items()}
        self.splits = tuple(dict.fromkeys(member.split for member in stack.members))
        first = data[self.splits[0]].rows
        self.n_validation = len(first.validation)
        steps, batch = batch_shape(len(first.training), batch_size)
        self.shape = EpochShape(steps, batch, stack.members[0].hidden, stack.dropout)
        self.shared = shared
        # one's own class may do in a step what cannot be recorded
        self.replays = recorder(device) if stack.row.name in activations.BY_NAME else None
        sources = None
        if interrupted is not None:
            rows = torch.tensor(interrupted["rows"])
            so_far = [interrupted["outcomes"][row] for row in interrupted["rows"]]
            self.best = {name: value.to(device) for name, value in take_rows((interrupted["best"], rows)).items()}
            moments = [{k: v.to(device) for k, v in take_rows((own, rows)).items()} for own in interrupted["moments"]]
            sources = [(AdamWState(interrupted["steps"], moments), torch.arange(stack.n_members, device=device))]
        known = zip(positions, stack.members, so_far, strict=True)
        self.outcomes = {position: Outcome(member, **own) for position, member, own in known}
        self._set_stack(stack, sources)

    def to_dict(self) -> dict[str, Any]:
        """Tensors on the processor and plain types: what the members in training go on from at the next epoch."""
        rows = torch.tensor(self.rows, device=self.sd.device)

        def own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            # where all train and lie on the processor, nothing is copied: it is about to be written
            kept = tensors if len(rows) == self.stack.n_members else take_rows((tensors, rows))
            return {name: value.detach().cpu() for name, value in kept.items()}

        steps, moments = self.optimizer.state()
        return {
            "positions": list(self.outcomes),
            "outcomes": [outcome.to_dict() for outcome in self.outcomes.values()],
            "weights": own(self.stack.stacked()),
            "best": own(self.best),
            "steps": steps,
            "moments": [own(each) for each in moments],
        }

    def _set_stack(self, stack: Regressor, sources: Sequence[tuple[AdamWState, Tensor]] | None = None) -> None:
        device, members = stack.first_weight.device, stack.members
        shared = self.shared if can_compile(stack.row.name) else None
        chunk = None if shared is None else chunk_size(stack, self.shape.batch)
        self.stack, self.optimizer = stack, RowAdamW(stack, chunk, sources)
        self.steps = (
            Chunks(stack, self.optimizer, chunk, shared, self.shape)
            if chunk and shared
            else AutogradSteps(stack, self.optimizer, self.tensors, self.replays)
        )
        # of the stack, for each outcome
        self.rows = list(range(len(members)))
        scalers = [self.scalers[member.split] for member in members]
        self.sd = torch.tensor([scaler.sd for scaler in scalers], device=device, dtype=torch.float64)
        is_bounded = math.isfinite(scalers[0].least)
        self.least = torch.tensor([[scaler.least] for scaler in scalers], device=device) if is_bounded else None
        self.metric = LogRMSE(len(members)).to(device)
        self.features, self.targets, self.weights = self.tensors.held_out(self.splits)
        self.places = torch.tensor([self.splits.index(member.split) for member in members], device=device)

    @property
    def n_members(self) -> int:
        """Members that still train."""
        return len(self.outcomes)

    @property
    def running(self) -> list[tuple[int, Outcome]]:
        """Of the members that still train: the row of the stack, and the outcome so far."""
        return list(zip(self.rows, self.outcomes.values(), strict=True))

    @contextmanager
    def on_own_queue(self) -> Iterator[None]:
        """Around all work of this stack: on its own queue, after what the current one has been given so far."""
        if self.device_queue is None:
            yield
            return
        self.device_queue.wait_stream(torch.accelerator.current_stream())
        with self.device_queue:
            yield

    def begin_epoch(self, order: EpochOrder) -> list[Piece]:
        """What there is to `train` for one pass over the members' own training rows in their own order."""
        self.stack.train()
        self.optimizer.start_epoch(order.epoch, self.settings.schedule, self.max_epochs)
        self.losses = torch.zeros(self.stack.n_members, device=self.sd.device, dtype=torch.float64)
        return self.steps.pieces(order)

    def train(self, piece: Piece) -> None:
        """Do one piece of an epoch; several may be done side by side."""
        started = time.perf_counter()
        self.losses[piece.rows] = piece.train() / self.shape.steps
        if self.device_queue is None:
            self.pace = seconds = (time.perf_counter() - started) / piece.n_members
            self.spend(seconds, range(piece.rows.start, piece.rows.stop))

    def spend(self, seconds: float, rows: Container[int] | None = None) -> None:
        """Add seconds to each member, or to each of some rows."""
        for row, outcome in self.running:
            if rows is None or row in rows:
                outcome.seconds += seconds

    @torch.no_grad()
    def validate(self) -> None:
        """Predict the validation rows; on the processor, `record` their scores at once."""
        started = time.perf_counter()
        if self.n_validation:
            self.stack.eval()
            sd = self.sd.unsqueeze(1)
            self.metric.reset()
            # the rows beyond only fill up the lanes
            outputs = self.steps.predict(self.features, self.places)[:, : self.n_validation]
            if self.least is not None:
                outputs = outputs.maximum(self.least.to(outputs))
            targets = self.targets.index_select(0, self.places)[:, : self.n_validation]
            weights = self.weights if self.weights is None else self.weights[self.places, : self.n_validation]
            self.metric.update(outputs * sd, targets * sd, weights)
        if self.device_queue is None:
            self.spend((time.perf_counter() - started) / self.n_members)
            self.record()

    @torch.no_grad()
    def record(self) -> None:
        """Note the scores of the epoch; keep the weights of members that improved."""
        scores = (self.losses.sqrt() * self.sd).tolist()
        for row, outcome in self.running:
            outcome.train_curve.append(scores[row])
            outcome.epochs += 1
        if rows := self._improved() if self.n_validation else self._at_their_length():
            index = torch.tensor(rows, device=self.sd.device)
            for name, value in self.stack.stacked().items():
                self.best[name].index_copy_(0, index, value.detach().index_select(0, index))

    def _improved(self) -> list[int]:
        """Rows of the members that have never been as good on the validation rows."""
        # torchmetrics makes a scalar of a single value
        scores = self.metric.compute().reshape(-1).tolist()
        improved = []
        for row, outcome in self.running:
            score = scores[row]
            outcome.val_curve.append(score)
            outcome.is_diverged = not (math.isfinite(score) and math.isfinite(outcome.train_curve[-1]))
            if not outcome.is_diverged and not outcome.val_score <= score:
                outcome.val_score, outcome.best_epoch = score, outcome.epochs
                improved.append(row)
        return improved

    def _at_their_length(self) -> list[int]:
        """Rows of the members that have reached it, whose last weights count."""
        for _, outcome in self.running:
            outcome.is_diverged = not math.isfinite(outcome.train_curve[-1])
            outcome.best_epoch = 0 if outcome.is_diverged else outcome.epochs
        return [row for row, outcome in self.running if outcome.is_done(self.settings.patience, self.max_epochs)]

    def retire(self, leaves: Callable[[Outcome], object]) -> None:
        """Take members out of the stack with their best weights; the rest goes on without them."""
        places = list(zip(self.rows, self.outcomes, strict=True))
        gone = [place for place in places if leaves(self.outcomes[place[1]])]
        for start in range(0, len(gone), FETCHED):
            self._finish(gone[start : start + FETCHED])
        self.rows = [row for row, position in places if position in self.outcomes]
        if self.rows and len(self.rows) < least_alive(self.sd.device) * self.stack.n_members:
            self._gather([self])

    def _finish(self, gone: Sequence[tuple[int, int]]) -> None:
        """Hand out the best weights of some (row, position)."""
        weights, places = self.best, [row for row, _ in gone]
        if self.device_queue is not None:
            fetched = take_rows((weights, torch.tensor(places, device=self.sd.device)))
            weights, places = {name: value.cpu() for name, value in fetched.items()}, list(range(len(gone)))
        for place, (row, position) in zip(places, gone, strict=True):
            outcome = self.outcomes.pop(position)
            if outcome.best_epoch > 0:
                own = {name: value[place] for name, value in weights.items()}
                outcome.state = unstack(own, self.stack.n_features[row])
            self.finished[position] = outcome

    def _gather(self, trainings: "Sequence[StackTraining]") -> None:
        """Go on with the members of these that still train, one after the other, and let go of all others."""
        places = [(one, torch.tensor(one.rows, device=self.sd.device)) for one in trainings]
        self.best = take_rows(*((one.best, rows) for one, rows in places))
        stack = gather([(one.stack, rows) for one, rows in places])
        self._set_stack(stack, [(one.optimizer.state(), rows) for one, rows in places])

    def halve(self) -> "StackTraining":
        """Give half of the members to a new stack, so that two threads have work."""
        middle, other = self.n_members // 2, copy(self)
        other.finished = {}
        for half, own in ((other, slice(middle, None)), (self, slice(middle))):
            half.rows, half.outcomes = half.rows[own], dict(list(half.outcomes.items())[own])
            half._gather([half])
        return other

    def can_absorb(self, other: "StackTraining") -> bool:
        """Whether the members of both could have been planned as one stack."""
        mine, theirs = (
            (one.stack.row.name, one.n_validation, one.shape, one.stack.first_weight.shape[1:]) for one in (self, other)
        )
        return mine == theirs

    def absorb(self, other: "StackTraining") -> None:
        """Take over another stack's members: many small stacks cost more than one."""
        self.splits = tuple(dict.fromkeys([*self.splits, *other.splits]))
        self.outcomes |= other.outcomes
        self.finished |= other.finished
        self._gather([self, other])


# Largest weights, gradients and two moments of a stack: larger ones cost more to copy whenever a member leaves, and
# leave less to share out among threads. That they fit a cache is the business of chunks.
STACK_BYTES = 32_000_000
# Members of a stack under which its cost is that of calling the kernels.
SMALL = 8
# Least stacks for each thread, as long as these are not small: unequal ones even out over an epoch.
STACKS_A_THREAD = 2
# Largest stack, in multiples of one thread's equal share of all members; a larger one is halved.
MOST_OF_A_SHARE = 1.5


def plan_stacks(
    members: Sequence[Member],
    data: dict[Split, SplitData],
    batch_size: int,
    n_threads: int = 1,
    stack_bytes: int | None = None,
) -> list[list[int]]:
    """Positions of the members of each stack.

    Members of a stack are equal in activation, widths, dropout and number of steps, and lie in the order of learning
    rate; a stack is cut where its training state would outgrow `stack_bytes`, or to give every thread enough.
    """
    groups: dict[object, list[int]] = {}
    for position, member in enumerate(members):
        rows = data[member.split].rows
        shape = (batch_shape(len(rows.training), batch_size), len(rows.validation))
        groups.setdefault((member.activation, member.hidden, member.dropout, shape), []).append(position)
    stacks, by_settings = [], attrgetter("learning_rate", "weight_decay", "epochs", "stream")
    enough = STACKS_A_THREAD if len(members) >= STACKS_A_THREAD * n_threads * SMALL else 1
    n_stacks_wanted = -(-enough * n_threads // len(groups)) if n_threads > 1 else 1
    for positions in groups.values():
        # members of equal optimiser settings lie side by side
        positions.sort(key=lambda position: by_settings(members[position]))
        size = -(-len(positions) // n_stacks_wanted)
        if stack_bytes is not None:
            first = members[positions[0]]
            k = activations.get(first.activation).width_factor
            shapes = layer_shapes(data[first.split].n_features, first.hidden, k)
            # weights, gradients and AdamW's two moments in float32
            n_bytes = 16 * sum(n_out * (n_in + 1) for n_out, n_in in shapes)
            size = min(size, max(1, stack_bytes // n_bytes))
        # equal cuts rather than full ones and a rest
        n_cuts = -(-len(positions) // size)
        bounds = [len(positions) * cut // n_cuts for cut in range(n_cuts + 1)]
        stacks += [positions[start:stop] for start, stop in pairwise(bounds)]
    return stacks


def balanced(stacks: Sequence[StackTraining], n_threads: int) -> list[StackTraining]:
    """The same members in as many stacks as keep all threads at work, the largest first.

    A stack of few members costs nearly as much as a full one, and at the end of a run most are of few members: small
    ones that fit each other become one, while every thread still has two. A stack too large for its share is halved.
    """
    left: list[StackTraining] = []
    n_stacks = len(stacks)
    for training in sorted(stacks, key=lambda training: training.n_members):
        into = next((t for t in left if t.n_members + training.n_members <= SMALL and t.can_absorb(training)), None)
        if into is None or n_stacks <= STACKS_A_THREAD * n_threads:
            left.append(training)
        else:
            into.absorb(training)
            n_stacks -= 1
    n_members = sum(training.n_members for training in left)
    while left and n_threads > 1:
        largest = max(left, key=lambda training: training.n_members)
        if largest.n_members < 2 or largest.n_members <= MOST_OF_A_SHARE * n_members / n_threads:
            break
        left.append(largest.halve())
    return sorted(left, key=lambda training: -training.n_members)
