"""Why the ranking is as it is: claims, health and costs of a run, with everything that needs the networks themselves."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from actlab.assembly import Networks
from actlab.claims import claims
from actlab.costs import StepCost, median_costs, step_costs
from actlab.measurements import Measurements
from actlab.references import ReferencePrediction
from actlab.representation import deviation_from_affine, maxout_error
from actlab.summary import choose
from actlab.trials import Setting


def explain(
    frames: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    test_train_ratio: float,
    rope: float,
    networks: Networks,
    settings: Mapping[int, Setting],
    references: Iterable[ReferencePrediction] = (),
) -> dict[str, Any]:
    """`claims`, `health` and `costs` of summary.json, for a run in which every activation had the same trials.

    Args:
        frames: members, health and convergence.
        test_train_ratio: Rows in the test fold over rows outside it.
        rope: `summary["rope"]`.
        networks: The run's networks; those of identity are checked by value.
        settings: Trial number to setting.
        references: Predictions of the references; ridge's scores are put beside identity's.
    """
    members, health, convergence = frames
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
