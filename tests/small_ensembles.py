"""Ensembles of untrained networks with real preprocessing: made in a moment, and as awkward as trained ones."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from actlab.data.preprocessing import Preprocessor, fit_preprocessor
from actlab.data.splits import make_splits
from actlab.data.table import Table, read_table
from actlab.data.target import LOG, TargetScaler, fit_target
from actlab.members import Member
from actlab.model.ensemble import Ensemble, FoldResiduals
from actlab.networks.network import Regressor
from actlab.networks.trained import TrainedNetwork
from actlab.settings import DataSettings, ProtocolSettings

HOUSES = Path(__file__).parents[1] / "data" / "house_prices" / "train.csv"
CONCRETE = Path(__file__).parents[1] / "data" / "concrete" / "concrete.csv"


@cache
def houses() -> Table:
    return read_table(DataSettings(csv=str(HOUSES), target="SalePrice"))


def make_ensemble(
    table: Table,
    activations: Sequence[str] = ("relu",),
    settings: DataSettings | None = None,
    protocol: ProtocolSettings | None = None,
    hidden: tuple[int, ...] = (8, 5),
) -> Ensemble:
    """One member for each activation and split, with out-of-fold residuals."""
    settings = settings or DataSettings()
    protocol = protocol or ProtocolSettings(folds=2, inner=2, validation_fraction=0.3)
    assert table.target is not None
    members, test_rows = [], {}
    for split, rows in make_splits(table.layout, protocol, seed=0).items():
        test_rows[split.repeat, split.fold] = rows.test
        preprocessor = fit_preprocessor(table.features, table.schema, rows.training, settings, table.target)
        scaler = fit_target(table.target, rows.training, settings.target_transform)
        for activation in activations:
            member = Member(0, activation, 1e-3, split, split.inner, hidden)
            state = Regressor([member], [preprocessor.n_features]).member_state(0)
            members.append(TrainedNetwork(member, perturbed(state), preprocessor, scaler, 0.13, 0.14))
    config = {"data": {"csv": "train.csv", "ordinal": {}}, "optimizer": {"learning_rate": 1e-3}, "seed": 0}
    ensemble = Ensemble(
        tuple(members), table.schema, config, (), {"test_score": 0.125}, {"actlab": "0.1.0", "torch": "2.13.0"}
    )
    return replace(ensemble, residuals=tuple(residuals_of(ensemble, table, test_rows)))


def untrained(member: Member, state: dict[str, torch.Tensor]) -> TrainedNetwork:
    """A network whose inputs need no preprocessing."""
    return TrainedNetwork(member, state, Preprocessor(()), TargetScaler(0.0, 1.0, LOG), 0.1, 0.1)


def perturbed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Biases and learned slopes start at constants: move everything, as training would."""
    generator = torch.Generator().manual_seed(0)
    return {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def residuals_of(ensemble: Ensemble, table: Table, test_rows: dict[tuple[int, int], np.ndarray]) -> list[FoldResiduals]:
    """True minus predicted value of each fold's members on its test rows."""
    assert table.target is not None
    parts = []
    for (repeat, fold), rows in test_rows.items():
        said = ensemble.predict_by_fold(table.features.iloc[rows])[repeat, fold]
        errors = ensemble.target.forward(table.target[rows]) - said.mean
        parts.append(FoldResiduals(repeat, fold, *map(torch.from_numpy, (errors, said.mean, said.spread))))
    return parts
