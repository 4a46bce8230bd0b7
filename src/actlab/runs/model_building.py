"""From the networks of a run to the model people take home: which ones, kept where, averaged how.

From trained members to the model people take home: their weights on disk, averaged predictions, an `Ensemble`.

Which networks of a finished run become the model people take home, and how good that model is.

A mean of networks predicts better than one of them, and by how much differs between activations: the ranking, which
is about single networks, does not say whose mean is best. So activations are scored here as endless bags, and the
best few go into the model in equal parts. In nested cross-validation that beat the winner alone, and weights fitted on
out-of-fold predictions were no better than equal ones (docs/accuracy.md).

What is shipped are new networks of these settings. Those of the comparison gave up rows to stop early and to choose
the learning rate; both are known now, and the model trains on all rows outside a fold.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actlab.data.preprocessing import Preprocessor, fit_preprocessor
from actlab.data.splits import Rows, SplitRows, make_splits, without_validation
from actlab.data.table import Table
from actlab.data.target import Target, TargetScaler, fit_target
from actlab.members import Member, Split
from actlab.model.ensemble import Ensemble, EnsembleMember, FoldResiduals, fold_prediction
from actlab.networks.population import Outcome
from actlab.run_files import write_atomically
from actlab.runs.evaluate import Evaluation, Setting, evaluate, make_member, snapshots_in, train_in_waves
from actlab.settings import CompareSettings
from actlab.verdict.summary import PAIR

FoldKey = tuple[int, int]

# Of the shipped networks' training in best epochs of those that stopped early: an annealed training gains from more
# (Concrete: 0.1538 at 1, 0.1489 at 1.5, 0.1458 at 2; docs/accuracy.md).
LENGTH = 1.5


def shipped_splits(n_rows: int, settings: CompareSettings, seed: int) -> dict[Split, SplitRows]:
    """The splits of a comparison, and those that only networks of the shipped model have."""
    return make_splits(n_rows, replace(settings, inner=max(settings.inner, settings.bag)), seed)


@dataclass(frozen=True)
class Network:
    """One trained member: its weights, and its predictions for the test rows on the trained (log) scale."""

    member: Member
    state: dict[str, Tensor]
    test_predictions: Tensor
    val_score: float
    test_score: float


def length_of(best_epoch: float) -> int:
    """Epochs of a network that trains without validation rows, from those at which its like were best."""
    return max(1, round(LENGTH * best_epoch))


def networks_of(outcomes: Sequence[Outcome]) -> list[Network]:
    """The members that have finite scores."""
    return [
        Network(o.member, o.state, o.test_predictions, o.val_score, o.test_score)
        for o in outcomes
        if o.state is not None and o.test_predictions is not None
    ]


class Networks:
    """The networks of a run, by the number of their trial, kept as files of tensors and plain types.

    Args:
        directory: Where the files lie.
        evaluation: How they were trained.
        table: What they were trained on.
        splits: Its splits, those of `shipped_splits` where networks are to be bagged.
    """

    def __init__(
        self, directory: Path, evaluation: Evaluation, table: Table, splits: Mapping[Split, SplitRows]
    ) -> None:
        self.directory, self.evaluation, self.table, self.splits = directory, evaluation, table, splits
        self.target = Target.of(evaluation.data.target_transform)

    def _file(self, number: int) -> Path:
        return self.directory / f"{number}.pt"

    def keep(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Write the networks of a trial."""
        content = [{**vars(network), "member": asdict(network.member)} for network in networks_of(outcomes)]
        # by way of memory: on a full disk torch.save raises what is no OSError
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self._file(number), lambda path: path.write_bytes(buffer.getvalue()))

    def of(self, number: int, setting: Setting) -> list[Network]:
        """The networks of a trial; trained again where the files are on another machine."""
        if not self._file(number).exists():
            (result,) = evaluate({number: setting}, self.evaluation, self.table)
            self.keep(number, result.outcomes)
        content = torch.load(self._file(number), weights_only=True)
        return [Network(**{**entry, "member": _member(entry["member"])}) for entry in content]

    def gather(self, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> list[Network]:
        """The networks of the rows of `summary.choose`: for each (repeat, fold) those of its chosen trial."""
        # the folds of an activation mostly choose the same few trials
        kept = {trial: self.of(trial, settings[trial]) for trial in dict.fromkeys(chosen.trial.tolist())}
        return [
            network
            for trial, *fold in chosen[["trial", "repeat", "fold"]].to_numpy().tolist()
            for network in kept[trial]
            if [network.member.split.repeat, network.member.split.fold] == fold
        ]

    def refit(
        self,
        chosen: pd.DataFrame,
        settings: Mapping[int, Setting],
        size: int,
        callbacks: Sequence[pl.Callback] = (),
    ) -> list[Network]:
        """Networks of the rows of `summary.choose`, `size` each, on all rows outside their folds.

        Nothing is held back to stop them: each trains for `LENGTH` times the mean best epoch of the networks that
        stopped early in its fold, its learning rate falling to zero. None of them saw the fold's test rows, so their
        mean on these is scored as honestly as that of the first ones.
        """
        evaluation = self.evaluation
        usable = chosen[np.isfinite(chosen.val)]
        members = [
            make_member(trial, settings[trial], Split(repeat, fold, inner), evaluation.seed, length_of(best_epoch))
            for trial, repeat, fold, best_epoch in zip(
                usable.trial, usable.repeat, usable.fold, usable.best_epoch, strict=True
            )
            for inner in range(size)
        ]
        wider = replace(evaluation, protocol=replace(evaluation.protocol, inner=max(size, evaluation.protocol.inner)))
        # they go with the directory, when the model is stored
        snapshots = snapshots_in(self.directory, wider, self.table)
        return networks_of(train_in_waves(members, wider, self.table, callbacks, snapshots)) if members else []

    def residuals(self, networks: Sequence[Network]) -> dict[FoldKey, Tensor]:
        """True minus averaged predicted value on the test rows of each (repeat, fold), on the trained (log) scale."""
        return {fold: errors.mean(0) for fold, errors in self._errors(networks).items()}

    def fold_residuals(self, networks: Sequence[Network]) -> tuple[FoldResiduals, ...]:
        """What intervals are made from: errors, means and spreads of each fold's networks on its test rows."""
        parts = []
        for (repeat, fold), errors in self._errors(networks).items():
            truth = self._truth()[torch.from_numpy(self.splits[Split(repeat, fold, 0)].test)]
            said = fold_prediction((truth - errors).numpy())
            means, spreads = torch.from_numpy(said.mean), torch.from_numpy(said.spread)
            parts.append(FoldResiduals(repeat, fold, errors.mean(0), means, spreads))
        return tuple(parts)

    def _truth(self) -> Tensor:
        """The target of every row on the trained (log) scale."""
        assert self.table.target is not None
        return torch.from_numpy(self.target.forward(self.table.target))

    def _errors(self, networks: Sequence[Network]) -> dict[FoldKey, Tensor]:
        """True minus predicted value (networks, test rows) of each (repeat, fold), on the trained (log) scale."""
        truth = self._truth()
        by_fold: dict[FoldKey, list[Network]] = {}
        for network in networks:
            split = network.member.split
            by_fold.setdefault((split.repeat, split.fold), []).append(network)
        return {
            fold: truth[torch.from_numpy(self.splits[own[0].member.split].test)]
            - torch.stack([network.test_predictions for network in own])
            for fold, own in by_fold.items()
        }

    def endless_scores(self, networks: Sequence[Network]) -> dict[FoldKey, float]:
        """The score on the test rows of each (repeat, fold) that the mean of endlessly many such networks would have.

        The squared error of a mean of n networks is that of an endless mean plus their variance over n. Taken off, it
        is estimated without bias (the score, its root, nearly so); of a single network it is not known and stays in.
        """
        scores = {}
        for fold, errors in self._errors(networks).items():
            noise = errors.var(0).mean() / len(errors) if len(errors) > 1 else torch.zeros(())
            scores[fold] = (errors.mean(0).square().mean() - noise).clamp_min(0).sqrt().item()
        return scores

    def predictions(self, networks: Sequence[Network]) -> pd.DataFrame:
        """predictions.csv: each row by the averaged networks of the fold that tests it, in target units.

        Columns: row (number in the table, from 0), id (where there is one), repeat, fold, actual, predicted.
        """
        table = self.table
        assert table.target is not None
        parts = []
        for (repeat, fold), residuals in self.residuals(networks).items():
            rows = self.splits[Split(repeat, fold, 0)].test
            actual = table.target[rows]
            predicted = self.target.predicted(actual, residuals.numpy())
            columns = {"repeat": repeat, "fold": fold, "actual": actual, "predicted": predicted}
            ids = {"id": table.ids.iloc[rows].to_numpy()} if table.ids is not None else {}
            parts.append(pd.DataFrame({"row": rows, **ids, **columns}))
        return pd.concat(parts, ignore_index=True).sort_values(["repeat", "row"], ignore_index=True)

    def score(self, networks: Sequence[Network]) -> float:
        """Mean over (repeat, fold) of the score of the fold's averaged networks on rows none of them saw."""
        scores = [residuals.square().mean().sqrt().item() for residuals in self.residuals(networks).values()]
        return float(np.mean(scores)) if scores else float("nan")

    def ensemble(
        self, networks: Sequence[Network], config: dict[str, Any], scores: dict[str, Any], versions: dict[str, str]
    ) -> Ensemble:
        """The networks with their preprocessing, ready to be saved."""
        parts = {_part(network.member): network.member for network in networks}
        fitted = {part: self._fit(self._rows(member)) for part, member in parts.items()}
        return Ensemble(
            members=tuple(
                EnsembleMember(
                    network.member,
                    network.state,
                    *fitted[_part(network.member)],
                    network.val_score,
                    network.test_score,
                )
                for network in networks
            ),
            schema=self.table.schema,
            metric=self.target.metric,
            config=config,
            residuals=self.fold_residuals(networks),
            scores=scores,
            versions=versions,
        )

    def _rows(self, member: Member) -> Rows:
        """What a member was trained on."""
        rows = self.splits[member.split]
        return (without_validation(rows) if member.epochs else rows).training

    def _fit(self, rows: Rows) -> tuple[Preprocessor, TargetScaler]:
        table, data = self.table, self.evaluation.data
        assert table.target is not None
        return (
            fit_preprocessor(table.features, table.schema, rows, data),
            fit_target(table.target, rows, data.target_transform),
        )


def _part(member: Member) -> tuple[int, ...]:
    """Members of one part of the rows share their preprocessing."""
    split = member.split
    return (split.repeat, split.fold) if member.epochs else (split.repeat, split.fold, split.inner)


def _member(content: dict[str, Any]) -> Member:
    hidden = tuple(content["hidden"])
    return Member(**{**content, "split": Split(**content["split"]), "hidden": hidden})


# An activation goes into the model only if its score is within this share of the best one's.
CLOSE = 0.05


def ship(
    networks: Networks,
    chosen: pd.DataFrame,
    settings: Mapping[int, Setting],
    grid: CompareSettings,
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[list[Network], dict[str, Any]]:
    """The networks of the model, and what summary.json says about it.

    `test_score` is the mean over (repeat, fold) of the score of the fold's own networks on its test rows. Which
    activations go in was decided by these rows too; in `test_score_chosen_on_other_folds` the other folds of the
    repeat decide for each fold, and in `test_score_chosen_on_validation` it has the one activation and rate with the
    best inner-validation score.

    Args:
        networks: All that the run trained.
        chosen: As `summary.choose` returns them.
        settings: Trial number to setting.
        grid: `ensemble` and `bag`.
        callbacks: Passed on to the training.
    """
    scores = bag_scores(networks, chosen, settings)
    keys = fold_keys(chosen)
    inside = best(scores, keys, grid.ensemble)
    outside = {
        (repeat, fold): best(scores, [key for key in keys if key[0] == repeat and key[1] != fold], grid.ensemble)
        for repeat, fold in keys
    }
    own, elsewhere = (rows_of(chosen, names) for names in (dict.fromkeys(keys, inside), outside))
    on_validation = chosen.sort_values("val").groupby(PAIR).head(1)
    wanted = pd.concat([own, elsewhere, on_validation]).drop_duplicates(["trial", *PAIR])
    trained = networks.refit(wanted, settings, grid.bag, callbacks)
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


def bag_scores(networks: Networks, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> pd.DataFrame:
    """Test score of each activation's endless bag: activations by (repeat, fold), nan where there is none."""
    found = {
        name: networks.endless_scores(networks.gather(rows[rows.score.notna()], settings))
        for name, rows in chosen.groupby("activation")
    }
    keys = fold_keys(chosen)
    table = [[own.get(key, math.nan) for key in keys] for own in found.values()]
    return pd.DataFrame(table, index=list(found), columns=pd.MultiIndex.from_tuples(keys), dtype=float)


def fold_keys(chosen: pd.DataFrame) -> list[FoldKey]:
    """Every (repeat, fold), in order."""
    return [(int(repeat), int(fold)) for repeat, fold in sorted(set(map(tuple, chosen[PAIR].to_numpy().tolist())))]


def best(scores: pd.DataFrame, keys: Sequence[FoldKey], at_most: int) -> list[str]:
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


def networks_of_rows(networks: Sequence[Network], rows: pd.DataFrame) -> list[Network]:
    """The networks of the (trial, repeat, fold) of some rows."""
    wanted = set(rows[["trial", *PAIR]].itertuples(index=False, name=None))
    return [n for n in networks if (n.member.trial, n.member.split.repeat, n.member.split.fold) in wanted]
