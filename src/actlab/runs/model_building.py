"""The networks of a run, and which of them become the model people take home.

A mean of networks predicts better than one of them, and by how much differs between activations: the ranking, which
is about single networks, does not say whose mean is best. So activations are scored here as means of infinitely many
networks, and the best few go into the model in equal parts. In nested cross-validation that beat the winner alone, and
weights fitted on out-of-fold predictions were no better than equal ones (docs/accuracy.md).

What is shipped are new networks of these settings. Those of the comparison gave up rows to stop early and to choose
the learning rate; both are known now, and the model trains on all rows outside a fold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actlab.data.preprocessing import Preprocessor, fit_preprocessor
from actlab.data.splits import Rows, SplitRows, Splits, make_splits
from actlab.data.table import Table
from actlab.data.target import Target, TargetScaler, fit_target
from actlab.members import FoldKey, Split
from actlab.model.checkpoint import write_checkpoint
from actlab.model.ensemble import Ensemble, FoldResiduals, fold_prediction, save
from actlab.networks.population import Outcome
from actlab.networks.trained import TrainedNetwork
from actlab.run_files import RunDirectory, write_frame
from actlab.runs.evaluate import Evaluation, Setting, Work, evaluate, make_member, snapshots_in, train_in_waves
from actlab.settings import CompareSettings, ProtocolSettings
from actlab.verdict.summary import PAIR

# Of the shipped networks' training in best epochs of those that stopped early: an annealed training gains from more
# (Concrete: 0.1538 at 1, 0.1489 at 1.5, 0.1458 at 2; docs/accuracy.md).
LENGTH = 1.5
# An activation goes into the model only if its score is within this share of the best one's.
CLOSE = 0.05


def shipped_splits(n_rows: int, protocol: ProtocolSettings, bag: int, seed: int) -> Splits:
    """The splits of a run, and those that only networks of the shipped model have."""
    return make_splits(n_rows, replace(protocol, inner=max(protocol.inner, bag)), seed)


def networks_of(outcomes: Sequence[Outcome]) -> list[TrainedNetwork]:
    """Those that did not diverge."""
    return [outcome.network for outcome in outcomes if outcome.network is not None]


class RunNetworks:
    """The trained networks of a run: on disk by the number of their trial, and how good their means are.

    `splits` are those of `table`: those of `shipped_splits` where the model's networks are to be trained.
    """

    def __init__(
        self, directory: Path, evaluation: Evaluation, table: Table, splits: Mapping[Split, SplitRows]
    ) -> None:
        self.directory, self.evaluation, self.table, self.splits = directory, evaluation, table, splits
        self.target = Target.of(evaluation.data.target_transform)
        self._fitted: dict[Split, tuple[Preprocessor, TargetScaler]] = {}
        assert table.target is not None
        self._actual, truth = table.target, torch.from_numpy(table.target)
        # on the scale trained on; torch's logarithm of all rows, as NumPy's, or that of fewer, may differ in a last bit
        self._truth = truth.log() if self.target.is_log else truth

    def save(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Write the networks of a trial."""
        networks = networks_of(outcomes)
        for network in networks:
            self._fitted.setdefault(network.member.split, (network.preprocessor, network.scaler))
        write_checkpoint(self.directory / f"{number}.pt", [network.to_dict() for network in networks])

    def load(self, number: int, setting: Setting) -> list[TrainedNetwork]:
        """The networks of a trial; trained again where the files are on another machine."""
        file = self.directory / f"{number}.pt"
        if not file.exists():
            (result,) = evaluate({number: Work(setting, (1,))}, self.evaluation, self.table)
            self.save(number, result.outcomes)
        found = torch.load(file, weights_only=True)
        return [TrainedNetwork.from_dict(one, *self._fit(Split(**one["member"]["split"]))) for one in found]

    def _fit(self, split: Split) -> tuple[Preprocessor, TargetScaler]:
        """What the training rows of a split say; fitted once, and not at all where a network brought it."""
        if split not in self._fitted:
            table, data, rows = self.table, self.evaluation.data, self.splits[split].training
            preprocessor = fit_preprocessor(table.features, table.schema, rows, data)
            self._fitted[split] = preprocessor, fit_target(self._actual, rows, data.target_transform)
        return self._fitted[split]

    def load_chosen(self, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> list[TrainedNetwork]:
        """The networks of the rows of `summary.choose`: for each (repeat, fold) those of its chosen trial."""
        # the folds of an activation mostly choose the same few trials
        found = {trial: self.load(trial, settings[trial]) for trial in dict.fromkeys(chosen.trial.tolist())}
        rows = chosen[["trial", *PAIR]].itertuples(index=False, name=None)
        return [network for trial, *fold in rows for network in found[trial] if network.fold == tuple(fold)]

    def train_again(
        self, chosen: pd.DataFrame, settings: Mapping[int, Setting], size: int, callbacks: Sequence[pl.Callback] = ()
    ) -> list[TrainedNetwork]:
        """New networks of the rows of `summary.choose`, `size` each, on all rows outside their folds.

        Nothing is held back to stop them: each trains for `LENGTH` times the mean best epoch of the networks that
        stopped early in its fold, its learning rate falling to zero. None of them saw the fold's test rows, so their
        mean on these is scored as honestly as that of the first ones.
        """
        evaluation = self.evaluation
        usable = chosen.loc[np.isfinite(chosen.val), ["trial", *PAIR, "best_epoch"]]
        members = [
            make_member(
                trial, settings[trial], Split(repeat, fold, inner), evaluation.seed, max(1, round(LENGTH * best_epoch))
            )
            for trial, repeat, fold, best_epoch in usable.itertuples(index=False, name=None)
            for inner in range(size)
        ]
        wider = replace(evaluation, protocol=replace(evaluation.protocol, inner=max(size, evaluation.protocol.inner)))
        # they go with the directory, when the model is stored
        snapshots = snapshots_in(self.directory, wider, self.table, keeps_results=True)
        return networks_of(train_in_waves(members, wider, self.table, callbacks, snapshots)) if members else []

    def _test_rows(self, fold: FoldKey) -> Rows:
        return self.splits[Split(*fold, 0)].test

    def _errors(self, networks: Sequence[TrainedNetwork]) -> dict[FoldKey, Tensor]:
        """True minus predicted value (networks, test rows) of each (repeat, fold), on the trained (log) scale."""
        predictions: dict[FoldKey, list[Tensor]] = {}
        for network in networks:
            assert network.test_predictions is not None
            predictions.setdefault(network.fold, []).append(network.test_predictions)
        return {fold: self._truth[self._test_rows(fold)] - torch.stack(own) for fold, own in predictions.items()}

    def residuals(self, networks: Sequence[TrainedNetwork]) -> tuple[FoldResiduals, ...]:
        """Errors, means and spreads of each fold's networks on its test rows."""
        parts = []
        for fold, errors in self._errors(networks).items():
            found = fold_prediction((self._truth[self._test_rows(fold)] - errors).numpy())
            parts.append(FoldResiduals(*fold, errors.mean(0), *map(torch.from_numpy, found)))
        return tuple(parts)

    def infinite_ensemble_scores(self, networks: Sequence[TrainedNetwork]) -> dict[FoldKey, float]:
        """The score on the test rows of each (repeat, fold) that the mean of infinitely many such networks would have.

        The squared error of a mean of n networks is that of an infinite mean plus their variance over n. Taken off, it
        is estimated without bias (the score, its root, nearly so); of a single network it is not known and stays in.
        """
        scores = {}
        for fold, errors in self._errors(networks).items():
            noise = errors.var(0).mean() / len(errors) if len(errors) > 1 else torch.zeros(())
            scores[fold] = (errors.mean(0).square().mean() - noise).clamp_min(0).sqrt().item()
        return scores

    def score(self, networks: Sequence[TrainedNetwork]) -> float:
        """Mean over (repeat, fold) of the score of the fold's averaged networks on rows none of them saw."""
        scores = [part.residuals.square().mean().sqrt().item() for part in self.residuals(networks)]
        return float(np.mean(scores)) if scores else float("nan")

    def predictions(self, networks: Sequence[TrainedNetwork]) -> pd.DataFrame:
        """predictions.csv: each row by the averaged networks of the fold that tests it, in target units.

        Columns: row (number in the table, from 0), id (where there is one), repeat, fold, actual, predicted.
        """
        frames = []
        for part in self.residuals(networks):
            rows = self._test_rows((part.repeat, part.fold))
            actual, ids = self._actual[rows], self.table.ids
            own_ids = {"id": ids.iloc[rows].to_numpy()} if ids is not None else {}
            predicted = self.target.predicted(actual, part.residuals.numpy())
            columns = {"repeat": part.repeat, "fold": part.fold, "actual": actual, "predicted": predicted}
            frames.append(pd.DataFrame({"row": rows, **own_ids, **columns}))
        return pd.concat(frames, ignore_index=True).sort_values(["repeat", "row"], ignore_index=True)

    def write_model(
        self, run: RunDirectory, networks: Sequence[TrainedNetwork], config: dict[str, Any], versions: dict[str, str]
    ) -> dict[str, Any]:
        """best.ckpt and predictions.csv; returns the scores that the checkpoint names."""
        scores = {"test_score": self.score(networks), "sha256": self.table.content_hash}
        members = tuple(replace(network, test_predictions=None) for network in networks)
        ensemble = Ensemble(members, self.table.schema, config, self.residuals(networks), scores, versions)
        save(ensemble, run.checkpoint)
        write_frame(run.predictions, self.predictions(networks))
        return scores


def ship(
    networks: RunNetworks,
    chosen: pd.DataFrame,
    settings: Mapping[int, Setting],
    grid: CompareSettings,
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[list[TrainedNetwork], dict[str, Any]]:
    """The networks of the model, and what summary.json says about it.

    `test_score` is the mean over (repeat, fold) of the score of the fold's own networks on its test rows. Which
    activations go in was decided by these rows too; in `test_score_chosen_on_other_folds` the other folds of the
    repeat decide for each fold, and in `test_score_chosen_on_validation` it has the one activation and rate with the
    best inner-validation score. `chosen` is what `summary.choose` returns, `settings` those of its trials by number.
    """
    scores = scores_by_activation(networks, chosen, settings)
    keys = fold_keys(chosen)
    inside = best_activations(scores, keys, grid.ensemble)
    others = {key: [other for other in keys if other[0] == key[0] and other != key] for key in keys}
    outside = {key: best_activations(scores, others[key], grid.ensemble) for key in keys}
    own, elsewhere = (rows_of(chosen, names) for names in (dict.fromkeys(keys, inside), outside))
    on_validation = chosen.sort_values("val").groupby(PAIR).head(1)
    wanted = pd.concat([own, elsewhere, on_validation]).drop_duplicates(["trial", *PAIR])
    trained = networks.train_again(wanted, settings, grid.bag, callbacks)
    shipped = networks_of_rows(trained, own)
    label = dict(zip(own.trial, own.activation, strict=True))
    names = [label[network.member.trial] for network in shipped]
    return shipped, {
        "activations": {name: names.count(name) for name in sorted(set(names))},
        "n_members": len(shipped),
        "test_score": networks.score(shipped),
        "test_score_chosen_on_other_folds": networks.score(networks_of_rows(trained, elsewhere)),
        "test_score_chosen_on_validation": networks.score(networks_of_rows(trained, on_validation)),
    }


def scores_by_activation(networks: RunNetworks, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> pd.DataFrame:
    """Test score of infinitely many networks of each activation, by (repeat, fold); nan where there is none."""
    found = {
        name: networks.infinite_ensemble_scores(networks.load_chosen(rows[rows.score.notna()], settings))
        for name, rows in chosen.groupby("activation")
    }
    keys = fold_keys(chosen)
    table = [[own.get(key, math.nan) for key in keys] for own in found.values()]
    return pd.DataFrame(table, index=list(found), columns=pd.MultiIndex.from_tuples(keys), dtype=float)


def fold_keys(chosen: pd.DataFrame) -> list[FoldKey]:
    return sorted(set(chosen[PAIR].itertuples(index=False, name=None)))


def best_activations(scores: pd.DataFrame, keys: Sequence[FoldKey], at_most: int) -> list[str]:
    """The activations with the lowest mean over some folds, best first, that are close to the best of them.

    One that has no score in more of these folds than others is left out.
    """
    own = scores[list(keys)]
    n_missing = own.isna().sum(axis=1)
    order = own[n_missing == n_missing.min()].mean(axis=1).dropna().sort_values(kind="stable")
    return [str(name) for name in order[order <= (1 + CLOSE) * order.min()].index[:at_most]]


def rows_of(chosen: pd.DataFrame, names: Mapping[FoldKey, Sequence[str]]) -> pd.DataFrame:
    """The rows of some activations for each (repeat, fold)."""
    wanted = {(name, *key) for key, own in names.items() for name in own}
    rows = chosen[["activation", *PAIR]].itertuples(index=False, name=None)
    return chosen[[row in wanted for row in rows]]


def networks_of_rows(networks: Sequence[TrainedNetwork], rows: pd.DataFrame) -> list[TrainedNetwork]:
    """The networks of the (trial, repeat, fold) of some rows."""
    wanted = set(rows[["trial", *PAIR]].itertuples(index=False, name=None))
    return [network for network in networks if (network.member.trial, *network.fold) in wanted]
