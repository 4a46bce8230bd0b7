"""Many networks at once: by `torch.func.vmap`, and by actlab."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from actlab.data.datamodule import SplitTensors, TabularDataModule, batch_orders
from actlab.members import Member
from actlab.networks.module import PopulationModule
from actlab.networks.population import Outcome
from actlab.runs.evaluate import make_trainer
from actlab.settings import ProtocolSettings
from benchmarks.plain_loop import Best, network
from benchmarks.tasks import VMAP_MEMBERS, Task, Trained


def vmap(task: Task, members: Sequence[Member], at_once: int = VMAP_MEMBERS) -> Trained:
    """`torch.func.vmap` over `functional_call`, members of equal activation and learning rate at a time."""
    groups: dict[object, list[Member]] = {}
    for member in members:
        groups.setdefault((member.activation, member.learning_rate), []).append(member)
    found: dict[Member, Best] = {}
    for group in groups.values():
        for start in range(0, len(group), at_once):
            found |= _vmap(task, group[start : start + at_once])
    return Trained([found[m].score for m in members], [found[m].epochs for m in members])


def _vmap(task: Task, members: Sequence[Member]) -> dict[Member, Best]:
    """Train until the last of them has done; epochs after a member's own end are not counted."""
    tensors = SplitTensors(task.data, task.device, torch.float32)
    width = tensors.features.shape[-1]
    networks = [network(member, task.data[member.split].n_features, width).to(task.device) for member in members]
    parameters, _ = torch.func.stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def one(own: dict[str, Tensor], features: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(base, own, (features,)).squeeze(-1)
        return outputs

    model = torch.func.vmap(one, randomness="different")
    optimizer = torch.optim.AdamW(
        list(parameters.values()), members[0].learning_rate, weight_decay=members[0].weight_decay, fused=True
    )
    places = torch.tensor([tensors.place[m.split] * tensors.n_rows for m in members]).unsqueeze(1)
    rows = [task.data[member.split].rows for member in members]
    validation = (torch.stack([torch.from_numpy(own.validation) for own in rows]) + places).to(task.device)
    training = [torch.from_numpy(own.training) for own in rows]
    sd = torch.tensor([task.data[member.split].scaler.sd for member in members], device=task.device)
    found = {member: Best(task) for member in members}
    for epoch in range(task.max_epochs):
        base.train()
        orders = [
            batch_orders(own, [member.stream], epoch, task.settings.batch_size)[0]
            for own, member in zip(training, members, strict=True)
        ]
        for step_rows in (torch.stack(orders, dim=1) + places).to(task.device):
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
    """What `actlab.runs.evaluate.train` does, on data that are prepared already and without scoring the test rows."""
    datamodule = TabularDataModule(task.settings, ProtocolSettings())
    datamodule.data = task.data
    module = PopulationModule(members, task.optimizer)
    options = {"accelerator": "cpu", "max_epochs": task.max_epochs, **trainer_options}
    make_trainer(options, ()).fit(module, datamodule=datamodule)
    return module.outcomes
