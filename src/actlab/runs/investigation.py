"""Why the ranking is as it is: claims, health and costs of a run, with the networks where frames are not enough."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from actlab.data.preprocessing import fit_preprocessor
from actlab.diagnostics.convergence import ConvergenceRecord, convergence_records
from actlab.diagnostics.costs import StepCost, median_costs, step_costs
from actlab.diagnostics.health import HealthRecord
from actlab.diagnostics.health_callback import HealthMonitor
from actlab.diagnostics.pre_activations import BinRecord, Trained, bin_records, n_rows
from actlab.diagnostics.representation import deviation_from_affine, maxout_error
from actlab.members import Split
from actlab.records import plain, to_frame
from actlab.runs.assembly import Network, Networks
from actlab.runs.references import ReferencePrediction
from actlab.runs.trials import Setting, TrialResult
from actlab.verdict.claims import claims
from actlab.verdict.measurements import Measurements
from actlab.verdict.summary import choose

# user attributes of a trial
HEALTH, CONVERGENCE = "health", "convergence"
# Networks whose pre-activations are looked at.
MAX_NETWORKS = 6


def attributes_of(result: TrialResult, monitor: HealthMonitor, target_sd: float) -> dict[str, list[Any]]:
    """Health and convergence of a trial's members as its study keeps them: rows of plain values."""
    reached = convergence_records(result.outcomes, target_sd)
    name = result.setting.label
    return {
        HEALTH: [_row(replace(record, activation=name)) for record in monitor.of(result.number)],
        CONVERGENCE: [_row(replace(record, activation=name)) for record in reached],
    }


def _row(record: HealthRecord | ConvergenceRecord) -> list[Any]:
    return list(plain(list(vars(record).values())))


def explaining_frames(attributes: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """health.csv and convergence.csv from the user attributes of finished trials."""
    health = [HealthRecord(*_numbers(row)) for own in attributes for row in own.get(HEALTH, [])]
    reached = [ConvergenceRecord(*_numbers(row)) for own in attributes for row in own.get(CONVERGENCE, [])]
    return to_frame(health, HealthRecord), to_frame(reached, ConvergenceRecord)


def _numbers(row: Sequence[Any]) -> list[Any]:
    return [math.nan if value is None else value for value in row]


def explain(
    frames: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    test_train_ratio: float,
    rope: float,
    networks: Networks,
    settings: Mapping[int, Setting],
    references: Iterable[ReferencePrediction] = (),
) -> dict[str, Any]:
    """`claims`, `health` and `costs` of summary.json, for a run in which every activation had the same trials.

    With factors, the claims are about the arms of the first levels.

    Args:
        frames: members, health and convergence.
        test_train_ratio: Rows in the test fold over rows outside it.
        rope: `summary["rope"]`.
        networks: The run's networks; those of identity are checked by value.
        settings: Trial number to setting.
        references: Predictions of the references; ridge's scores are put beside identity's.
    """
    name_of = first_arms(settings)
    members, health, convergence = (_renamed(frame, name_of) for frame in frames)
    costs = costs_of(members, settings, networks)
    found = Measurements(
        members,
        test_train_ratio,
        rope,
        health=health,
        convergence=convergence,
        costs={name: (cost.activation_us, cost.network_us) for name, cost in costs.items()},
        deviation_from_affine=_identity_deviation(members, networks, settings),
        maxout_error={name: maxout_error(name) for name in ("relu", "leaky_relu")},
        ridge={(r.repeat, r.fold): r.score for r in references if r.name == "ridge"},
    )
    return {"claims": claims(found), "health": found.context(), "costs": median_costs(costs)}


def first_arms(settings: Mapping[int, Setting]) -> dict[str, str]:
    """The name of each activation's first arm, to the activation itself."""
    labels: dict[str, str] = {}
    for _, setting in sorted(settings.items()):
        labels.setdefault(setting.activation, setting.label)
    return {label: activation for activation, label in labels.items()}


def _renamed(frame: pd.DataFrame, name_of: Mapping[str, str]) -> pd.DataFrame:
    return frame[frame.activation.isin(name_of)].assign(activation=lambda rows: rows.activation.map(name_of))


def costs_of(members: pd.DataFrame, settings: Mapping[int, Setting], networks: Networks) -> dict[str, StepCost]:
    """Step costs of every activation, each with the widths of its first trial, at the run's batch size."""
    widths: dict[str, tuple[int, ...]] = {}
    for trial in sorted(set(members.trial.tolist())):
        widths.setdefault(settings[trial].activation, settings[trial].hidden)
    first = int(members.trial.iloc[0])
    n_features = [int(network.state["weight_0"].shape[1]) for network in networks.of(first, settings[first])]
    return step_costs(widths, max(n_features, default=1), networks.evaluation.data.batch_size)


def _identity_deviation(members: pd.DataFrame, networks: Networks, settings: Mapping[int, Setting]) -> float:
    chosen = choose(members)
    own = networks.gather(chosen[chosen.activation == "identity"], settings)
    return deviation_from_affine([(n.member, n.state) for n in own]) if own else math.nan


def pre_activation_frame(own: Sequence[Network], networks: Networks) -> pd.DataFrame:
    """pre_activations.csv: histograms of some networks of a run, each on its own inner-validation rows.

    Of more than `MAX_NETWORKS` evenly spaced ones: each split's preprocessing has to be fitted again.
    """
    table, data = networks.table, networks.evaluation.data
    shown = [own[place] for place in np.unique(np.linspace(0, len(own) - 1, MAX_NETWORKS).astype(int))]
    limit = n_rows(len(shown), max(max(network.member.hidden, default=1) for network in shown))
    inputs: dict[Split, torch.Tensor] = {}
    for split in {network.member.split for network in shown}:
        rows = networks.splits[split].validation
        rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
        fitted = fit_preprocessor(table.features, table.schema, networks.splits[split].training, data)
        inputs[split] = torch.from_numpy(fitted.transform(table.features.iloc[rows]))
    found = [Trained(network.member, network.state, inputs[network.member.split]) for network in shown]
    return to_frame(bin_records(found), BinRecord)
