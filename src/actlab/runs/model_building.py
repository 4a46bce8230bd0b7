"""The networks of a run, and which of them become the model people take home.

A mean of networks predicts better than one of them, and by how much differs between activations: the ranking, which
is about single networks, does not say whose mean is best. So activations are scored here as means of infinitely many
networks, and the best few go into the model in equal parts. In nested cross-validation that beat the winner alone, and
weights fitted on out-of-fold predictions were no better than equal ones (docs/accuracy.md).

What is shipped are new networks of these settings, in the folds of the first repeat that counts. Those of the
comparison gave up rows to stop early; how long to train is known now, and the model trains on all rows outside a fold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from actlab.data.datamodule import fit_scales
from actlab.data.layout import RowLayout
from actlab.data.preprocessing import Preprocessor
from actlab.data.splits import Rows, Splits, make_splits
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
from actlab.verdict.simultaneous import FloatArray
from actlab.verdict.summary import PAIR

Float32Array = npt.NDArray[np.float32]

# Of the shipped networks' training in best epochs of those that stopped early: an annealed training gains from more
# (Concrete: 0.1538 at 1, 0.1489 at 1.5, 0.1458 at 2; docs/accuracy.md).
LENGTH = 1.5
# An activation goes into the model only if its score is within this share of the best one's.
CLOSE = 0.05


def shipped_splits(layout: RowLayout, protocol: ProtocolSettings, bag: int, seed: int) -> Splits:
    """The splits of a run, and those that only networks of the shipped model have."""
    return make_splits(layout, replace(protocol, inner=max(protocol.inner, bag)), seed)


def networks_of(outcomes: Sequence[Outcome]) -> list[TrainedNetwork]:
    """Those that did not diverge."""
    return [outcome.network for outcome in outcomes if outcome.network is not None]


class RunNetworks:
    """The trained networks of a run: on disk by the number of their trial, and how good their means are.

    `splits` are those of `table`: those of `shipped_splits` where the model's networks are to be trained.
    """

    def __init__(self, directory: Path, evaluation: Evaluation, table: Table, splits: Splits) -> None:
        self.directory, self.evaluation, self.table, self.splits = directory, evaluation, table, splits
        self.target = Target.of(evaluation.data.target_transform)
        # trial of the results to the number that its networks were saved under, where these differ
        self.numbers: Mapping[int, int] = {}
        self._fitted: dict[Split, tuple[Preprocessor, TargetScaler]] = {}
        assert table.target is not None
        self._actual = table.target
        # on the scale trained on; torch's logarithm of all rows, as NumPy's, or that of fewer, may differ in a last bit
        is_log, learned = self.target.is_log, torch.from_numpy(self.target.forward(table.target))
        self._truth = torch.from_numpy(table.target).log() if is_log else learned
        # what is kept of many networks is kept standardised, so that float32 can tell values apart in any unit
        everything, transform = np.arange(table.n_rows), evaluation.data.target_transform
        self.scaler = fit_target(table.target, everything, transform, table.layout.weights)

    def save(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Write the networks of a trial."""
        networks = networks_of(outcomes)
        for network in networks:
            self._fitted.setdefault(network.member.split, (network.preprocessor, network.scaler))
        write_checkpoint(self.directory / f"{number}.pt", [network.to_dict() for network in networks])

    def load(self, number: int, setting: Setting, repeats: Sequence[int]) -> list[TrainedNetwork]:
        """The networks of a trial; trained again where they were not kept, or the files are on another machine."""
        kept = self.numbers.get(number, number)
        file = self.directory / f"{kept}.pt"
        if not file.exists():
            (result,) = evaluate({kept: Work(setting, tuple(repeats))}, self.evaluation, self.table)
            self.save(kept, result.outcomes)
        found = torch.load(file, weights_only=True)
        return [TrainedNetwork.from_dict(one, *self._fit(Split(**one["member"]["split"]))) for one in found]

    @property
    def truth(self) -> FloatArray:
        """(n,) target of all rows, on the scale trained on."""
        return self._truth.numpy()

    def _fit(self, split: Split) -> tuple[Preprocessor, TargetScaler]:
        """What the training rows of a split say; fitted once, and not at all where a network brought it."""
        if split not in self._fitted:
            self._fitted[split] = fit_scales(self.table, self.splits[split].training, self.evaluation.data)
        return self._fitted[split]

    def load_chosen(self, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> list[TrainedNetwork]:
        """The networks of the rows of `summary.choose`, in the folds of the first repeat that counts."""
        first = first_repeat(chosen)
        repeats = {trial: sorted(set(rows.repeat)) for trial, rows in first.groupby("trial")}
        found = {trial: self.load(trial, settings[trial], own) for trial, own in repeats.items()}  # type: ignore[index,arg-type]  # trials are integers
        rows = first[["trial", *PAIR]].itertuples(index=False, name=None)
        return [network for trial, *fold in rows for network in found[trial] if network.fold == tuple(fold)]

    def train_again(
        self,
        rows: pd.DataFrame,
        settings: Mapping[int, Setting],
        size: int,
        callbacks: Sequence[pl.Callback] = (),
    ) -> list[TrainedNetwork]:
        """New networks of some rows of `summary.choose`, `size` each, on all rows of the table outside their folds; on
        all earlier ones where rows have a time.

        Nothing is held back to stop them: each trains for the `epochs` of its row, its learning rate falling to zero.
        None of them saw the fold's test rows, so their mean on these is scored as honestly as that of the first ones.
        """
        evaluation = self.evaluation
        members = [
            make_member(trial, settings[trial], Split(repeat, fold, inner), evaluation.seed, epochs)
            for trial, repeat, fold, epochs in rows[["trial", *PAIR, "epochs"]].itertuples(index=False, name=None)
            for inner in range(size)
        ]
        wider = replace(evaluation, protocol=replace(evaluation.protocol, inner=max(size, evaluation.protocol.inner)))
        # they go with the directory, when the model is stored
        snapshots = snapshots_in(self.directory, wider, self.table, keeps_results=True)
        return networks_of(train_in_waves(members, wider, self.table, callbacks, snapshots)) if members else []

    @property
    def is_timed(self) -> bool:
        """Whether folds train on earlier rows and test later ones."""
        return self.table.layout.time is not None

    @property
    def first_fold(self) -> int:
        """Of those that the model is scored by: in time the later half, whose networks know nearly as much as it."""
        return self.evaluation.protocol.folds // 2 if self.is_timed else 0

    def taken_home(self, networks: Sequence[TrainedNetwork]) -> list[TrainedNetwork]:
        """Those of the model: where folds train on a part of the time only, the ones trained on all rows."""
        last = [network for network in networks if network.fold[1] == self.evaluation.protocol.folds]
        return last or list(networks)

    def test_rows(self, fold: FoldKey) -> Rows:
        return self.splits[Split(*fold, 0)].test

    def weights_of(self, rows: Rows) -> FloatArray:
        """What each of some rows counts."""
        weights = self.table.layout.weights
        return np.ones(len(rows)) if weights is None else weights[rows]

    def _errors(self, networks: Sequence[TrainedNetwork]) -> dict[FoldKey, Tensor]:
        """True minus predicted value (networks, test rows) of each (repeat, fold), on the trained (log) scale."""
        predictions: dict[FoldKey, list[Tensor]] = {}
        for network in networks:
            assert network.test_predictions is not None
            if len(network.test_predictions):
                predictions.setdefault(network.fold, []).append(network.test_predictions)
        return {fold: self._truth[self.test_rows(fold)] - torch.stack(own) for fold, own in predictions.items()}

    def residuals(self, networks: Sequence[TrainedNetwork]) -> tuple[FoldResiduals, ...]:
        """Errors, means and spreads of each fold's networks on its test rows."""
        parts = []
        for fold, errors in self._errors(networks).items():
            found = fold_prediction((self._truth[self.test_rows(fold)] - errors).numpy())
            parts.append(FoldResiduals(*fold, errors.mean(0), *map(torch.from_numpy, found)))
        return tuple(parts)

    def out_of_fold(self, networks: Sequence[TrainedNetwork], repeats: Sequence[int]) -> Float32Array:
        """(draws, n) what the networks of one setting predict for rows that they never saw, standardised by `scaler`.

        A draw is an inner split of one of the `repeats`, in order. nan where a network diverged.
        """
        draws = list(product(repeats, range(self.evaluation.protocol.inner)))
        found = np.full((len(draws), self.table.n_rows), np.nan, dtype=np.float32)
        for network in networks:
            assert network.test_predictions is not None
            split = network.member.split
            place, rows = draws.index((split.repeat, split.inner)), self.test_rows(network.fold)
            found[place, rows] = (network.test_predictions.numpy() - self.scaler.mean) / self.scaler.sd
        return found

    def _off(self, predictions: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """What predictions (draws, n) as `out_of_fold` has them exceed the truth by, on the scale trained on."""
        truth = (self._truth.numpy() - self.scaler.mean) / self.scaler.sd
        return np.asarray((predictions.astype(np.float64) - truth) * self.scaler.sd)

    def squared_errors(self, predictions: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """(n,) on the scale trained on, averaged over draws, of predictions (draws, n) as `out_of_fold` has them."""
        return np.asarray(np.square(self._off(predictions)).mean(0))

    def endless_errors(self, predictions: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """(n,) squared errors of all rows that the mean of infinitely many networks would have, estimated.

        `predictions` is (draws, n), as `out_of_fold` has them: of each row by several networks that never saw it. The
        squared error of a mean of n networks is that of an infinite mean plus their variance over n. Taken off, it is
        estimated without bias, and may be below zero for a row; of a single network it is not known and stays in.
        """
        errors = self._off(predictions)
        noise = errors.var(0, ddof=1) / len(errors) if len(errors) > 1 else 0.0
        return np.asarray(np.square(errors.mean(0)) - noise)

    def score(self, networks: Sequence[TrainedNetwork]) -> float:
        """The root of the (weighted) mean squared error over all rows, each by the averaged networks of the fold that
        tests it; the mean over repeats."""
        squares: dict[int, list[Tensor]] = {}
        for part in self.residuals(networks):
            weights = torch.from_numpy(self.weights_of(self.test_rows((part.repeat, part.fold))))
            squares.setdefault(part.repeat, []).append(torch.stack([part.residuals.square() * weights, weights]))
        sums = [torch.cat(own, dim=1).sum(1) for own in squares.values()]
        scores = [(square / weight).sqrt().item() for square, weight in sums]
        return float(np.mean(scores)) if scores else float("nan")

    def predictions(self, networks: Sequence[TrainedNetwork]) -> pd.DataFrame:
        """predictions.csv: each row by the averaged networks of the fold that tests it, in target units.

        Columns: row (number in the table, from 0), id (where there is one), repeat, fold, actual, predicted, and weight
        (where rows have any).
        """
        frames = []
        for part in self.residuals(networks):
            rows = self.test_rows((part.repeat, part.fold))
            actual, ids = self._actual[rows], self.table.ids
            own_ids = {"id": ids.iloc[rows].to_numpy()} if ids is not None else {}
            predicted = self.target.predicted(actual, part.residuals.numpy())
            columns = {"repeat": part.repeat, "fold": part.fold, "actual": actual, "predicted": predicted}
            weights = {} if self.table.layout.weights is None else {"weight": self.weights_of(rows)}
            frames.append(pd.DataFrame({"row": rows, **own_ids, **columns, **weights}))
        return pd.concat(frames, ignore_index=True).sort_values(["repeat", "row"], ignore_index=True)

    def write_model(
        self, run: RunDirectory, networks: Sequence[TrainedNetwork], config: dict[str, Any], versions: dict[str, str]
    ) -> Ensemble:
        """best.ckpt and predictions.csv; returns the model, whose scores the checkpoint names."""
        scores = {"test_score": self.score(networks), "sha256": self.table.content_hash}
        members = tuple(replace(network, test_predictions=None) for network in self.taken_home(networks))
        ensemble = Ensemble(members, self.table.schema, config, self.residuals(networks), scores, versions)
        save(ensemble, run.checkpoint)
        write_frame(run.predictions, self.predictions(networks))
        return ensemble


def first_repeat(chosen: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first repeat that counts; an activation's own first one would pair it with other folds."""
    rows: pd.DataFrame = chosen[chosen.repeat == chosen.repeat.min()]
    return rows


def without_diverged(chosen: pd.DataFrame) -> pd.DataFrame:
    """The rows with a validation score, of activations that never diverged if there are any: a model is better off
    without a setting whose training fails now and then."""
    finite: pd.DataFrame = chosen[np.isfinite(chosen.val)]
    steady: pd.DataFrame = finite[~finite.activation.isin(chosen.activation[~np.isfinite(chosen.val)])]
    return steady if len(steady) else finite


def ship(
    networks: RunNetworks,
    chosen: pd.DataFrame,
    out_of_fold: Mapping[str, Float32Array],
    settings: Mapping[int, Setting],
    grid: CompareSettings,
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[list[TrainedNetwork], dict[str, Any]]:
    """The networks of the model, and what summary.json says about it.

    `test_score` is the root of the mean squared error over all rows, each by the networks of the fold that tests it.
    Which activations go in was decided by these rows too; in `test_score_chosen_on_other_folds` the other folds decide
    for each fold, and in `test_score_chosen_on_validation` it has the one activation with the best inner-validation
    score. `chosen` is what `summary.choose` returns, `out_of_fold` activation to (draws, n) predictions as
    `RunNetworks.out_of_fold` has them, `settings` those of its trials by number.
    """
    steady = without_diverged(chosen)
    usable = with_lengths(first_repeat(steady), steady, networks.is_timed)
    squares = squares_by_activation(networks, usable, out_of_fold)
    keys: list[FoldKey] = squares.columns.to_list()  # type: ignore[assignment]  # pairs, as made
    inside = best_activations(squares, keys, grid.ensemble)
    if networks.is_timed:
        earlier = {key: [other for other in keys if other < key] for key in keys}
        outside = {key: _by_earlier(squares, earlier[key], usable, grid.ensemble) for key in keys}
    else:
        outside = {key: best_activations(squares, [k for k in keys if k != key], grid.ensemble) for key in keys}
    own, elsewhere = (rows_of(usable, names) for names in (dict.fromkeys(keys, inside), outside))
    on_validation = usable.sort_values("val").groupby(PAIR).head(1)
    own, elsewhere, on_validation = (part[part.fold >= networks.first_fold] for part in (own, elsewhere, on_validation))
    if networks.is_timed:
        # of what each fold is scored by, nothing may be known from later; what is taken home knows all
        last = own[own.fold == own.fold.max()]
        own = pd.concat([elsewhere, last.assign(fold=networks.evaluation.protocol.folds)])
    wanted = pd.concat([own, elsewhere, on_validation]).drop_duplicates(["trial", *PAIR])
    trained = networks.train_again(wanted, settings, grid.bag, callbacks)
    shipped = networks_of_rows(trained, own)
    label = dict(zip(own.trial, own.activation, strict=True))
    names = [label[network.member.trial] for network in networks.taken_home(shipped)]
    return shipped, {
        "activations": {name: names.count(name) for name in sorted(set(names))},
        "n_members": len(names),
        "test_score": networks.score(shipped),
        "test_score_chosen_on_other_folds": networks.score(networks_of_rows(trained, elsewhere)),
        "test_score_chosen_on_validation": networks.score(networks_of_rows(trained, on_validation)),
    }


def squares_by_activation(
    networks: RunNetworks, usable: pd.DataFrame, out_of_fold: Mapping[str, Float32Array]
) -> pd.DataFrame:
    """Sums of the (weighted) squared errors of infinitely many averaged networks, one row an activation, one column
    each (repeat, fold) of the model, whose test rows they are summed over."""
    keys = sorted(set(usable[PAIR].itertuples(index=False, name=None)))
    rows = {key: networks.test_rows(key) for key in keys}
    names = [str(name) for name in dict.fromkeys(usable.activation) if name in out_of_fold]
    errors = {name: networks.endless_errors(out_of_fold[name]) for name in names}
    weights = {key: networks.weights_of(own) for key, own in rows.items()}
    table = [[float((errors[name][rows[key]] * weights[key]).sum()) for key in keys] for name in names]
    return pd.DataFrame(table, index=names, columns=pd.MultiIndex.from_tuples(keys, names=PAIR), dtype=float)


def best_activations(squares: pd.DataFrame, keys: Sequence[Any], at_most: int) -> list[str]:
    """The activations with the lowest score over the rows of some folds, best first, that are close to the best."""
    order = squares[list(keys)].sum(axis=1).clip(lower=0).pow(0.5).dropna().sort_values(kind="stable")
    return [str(name) for name in order[order <= (1 + CLOSE) * order.min()].index[:at_most]]


def _by_earlier(squares: pd.DataFrame, earlier: Sequence[FoldKey], usable: pd.DataFrame, at_most: int) -> list[str]:
    """The best activations by the folds whose test rows are earlier; where there is none, by the first's validation."""
    if earlier:
        return best_activations(squares, earlier, at_most)
    first = usable[usable.fold == usable.fold.min()].set_index("activation")[["val"]]
    return best_activations(first**2, ["val"], at_most)


def with_lengths(rows: pd.DataFrame, chosen: pd.DataFrame, is_timed: bool) -> pd.DataFrame:
    """The rows with the `epochs` that their networks train for: `LENGTH` times the mean best epoch of those of `chosen`
    of their activation, and where rows have a time of their fold, because other folds are later."""
    keys = ["activation", "fold"] if is_timed else ["activation"]
    lengths = (LENGTH * chosen.groupby(keys).best_epoch.mean()).round().clip(lower=1).astype(int)
    return rows.merge(lengths.rename("epochs").reset_index(), on=keys, how="left")


def rows_of(chosen: pd.DataFrame, names: Mapping[FoldKey, Sequence[str]]) -> pd.DataFrame:
    """The rows of some activations for each (repeat, fold)."""
    wanted = {(name, *key) for key, own in names.items() for name in own}
    rows = chosen[["activation", *PAIR]].itertuples(index=False, name=None)
    return chosen[np.array([row in wanted for row in rows], dtype=bool)]


def networks_of_rows(networks: Sequence[TrainedNetwork], rows: pd.DataFrame) -> list[TrainedNetwork]:
    """The networks of the (trial, repeat, fold) of some rows."""
    wanted = set(rows[["trial", *PAIR]].itertuples(index=False, name=None))
    return [network for network in networks if (network.member.trial, *network.fold) in wanted]
