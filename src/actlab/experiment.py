"""What `compare` and `search` share: the run directory and its study, evaluating trials, and writing the results."""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial

from actlab import summary as summaries
from actlab.configuration import Configuration, differences, to_yaml
from actlab.ensemble import Ensemble, EnsembleMember, FoldResiduals, save
from actlab.errors import InputError
from actlab.members import Split
from actlab.population import Outcome
from actlab.preprocessing import fit_preprocessor, fit_target
from actlab.progress import PopulationProgress
from actlab.records import (
    CurveRecord,
    MemberRecord,
    RunDirectory,
    plain,
    to_frame,
    write_atomically,
    write_frame,
    write_json,
    write_text,
)
from actlab.references import reference_scores
from actlab.splits import make_splits
from actlab.studies import Cell, Study, open_storage
from actlab.table import Table
from actlab.trials import Evaluation, Setting, TrialResult, evaluate

# the most members that train as one population: their states lie in memory together
POPULATION_MEMBERS = 1500
PACKAGES = ("actlab", "torch", "lightning", "torchmetrics", "optuna", "numpy", "pandas", "scikit-learn", "scipy")
FINGERPRINT = "actlab"


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


class Experiment:
    """A run: its configuration, data, directory and study.

    Args:
        command: `compare` or `search`.
        configuration: What was asked for.
        table: The data.
        sampler: What proposes trials, where they are not all queued.

    Raises:
        InputError: the directory belongs to another configuration or other data; the message lists what differs.
    """

    def __init__(
        self,
        command: str,
        configuration: Configuration,
        table: Table,
        sampler: optuna.samplers.BaseSampler | None = None,
    ) -> None:
        self.command, self.configuration, self.table = command, configuration, table
        self.run = choose_directory(command, configuration)
        self.run.create()
        self.evaluation = Evaluation(
            configuration.data,
            configuration.compare,
            configuration.optimizer,
            configuration.trainer,
            configuration.seed,
        )
        self.splits = make_splits(table.n_rows, configuration.compare, configuration.seed)
        storage = open_storage(self.run.journal, configuration.storage)
        name = "actlab" if configuration.storage is None else self.run.path.name
        self.study = Study(storage, name, sampler)
        self._check_fingerprint()
        if not self.run.config.exists():
            write_text(self.run.config, to_yaml(configuration.to_dict()))

    def _check_fingerprint(self) -> None:
        asked = {
            "command": self.command,
            "data": self.table.content_hash,
            "config": plain(self.configuration.compared()),
            "versions": versions(),
        }
        stored = self.study.optuna.user_attrs.get(FINGERPRINT)
        if stored is None:
            self.study.optuna.set_user_attr(FINGERPRINT, asked)
            return
        changed = differences(stored["versions"], asked["versions"])
        if changed:
            print(f"warning: this run was started with other versions: {'; '.join(changed)}", file=sys.stderr)
        lines = differences(_stable(stored), _stable(asked))
        if lines:
            raise InputError(
                f"{self.run.path} holds a run of another configuration ({'; '.join(lines)}); "
                "go on with the old one, choose another --out, or add --fresh"
            )

    def evaluate(self, claimed: Mapping[int, optuna.Trial], settings: Mapping[int, Setting]) -> None:
        """Train claimed trials as one population and tell the study.

        Args:
            claimed: Number in the results to Optuna trial.
            settings: The same numbers to what is to be evaluated.
        """
        progress = self.progress
        for result in evaluate(dict(settings), self.evaluation, self.table, [progress] if progress else []):
            self._keep_weights(result.number, result.outcomes)
            value = result.value
            self.study.complete(
                claimed[result.number],
                value if np.isfinite(value) else np.inf,
                {
                    "number": result.number,
                    "members": [plain(asdict(record)) for record in result.member_records()],
                    "curves": [plain(list(asdict(record).values())) for record in result.curve_records()],
                },
            )

    progress: PopulationProgress | None = None

    def _weights(self, number: int) -> Path:
        return self.run.weights / f"{number}.pt"

    def _keep_weights(self, number: int, outcomes: Sequence[Outcome]) -> None:
        content = [
            {"split": _key(o.member.split), "state": o.state, "test_predictions": o.test_predictions} for o in outcomes
        ]
        write_atomically(self._weights(number), lambda path: torch.save(content, path))

    def networks(self, number: int, setting: Setting) -> dict[Split, dict[str, Any]]:
        """Best weights and test predictions of a trial's members; trained again where another machine has them."""
        if not self._weights(number).exists():
            (result,) = evaluate({number: setting}, self.evaluation, self.table)
            self._keep_weights(number, result.outcomes)
        content = torch.load(self._weights(number), weights_only=True)
        return {Split(*entry["split"]): entry for entry in content}

    def frames(self, done: Sequence[FrozenTrial]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """members.csv and curves.csv of completed trials."""
        members = [MemberRecord(**_numbers(row)) for trial in done for row in trial.user_attrs["members"]]
        curves = [
            CurveRecord(*(np.nan if value is None else value for value in row))
            for trial in done
            for row in trial.user_attrs["curves"]
        ]
        return to_frame(members, MemberRecord), to_frame(curves, CurveRecord)

    def write(
        self,
        done: Sequence[FrozenTrial],
        settings: Mapping[int, Setting],
        rates: list[float],
        is_equal_budget: bool,
        log: Callable[[RunDirectory, pd.DataFrame, pd.DataFrame, dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Everything of the run directory, from the study; returns the summary.

        Args:
            done: Completed trials in the order of the results.
            settings: Number in the results to setting.
            rates: Learning rates tried, or the ends of their range.
            is_equal_budget: Whether comparisons between activations are fair.
            log: Writes the TensorBoard comparison.
        """
        members, curves = self.frames(done)
        write_frame(self.run.members, members)
        write_frame(self.run.curves, curves)
        some = next(iter(self.splits.values()))
        found = summaries.summarise(
            members, len(some.test) / len(some.training), self.configuration.compare.baseline, rates, is_equal_budget
        )
        summary = self._header() | found
        chosen = summaries.choose(members)
        networks = self._networks_of(chosen, found["winner"], settings)
        summary["ensemble"] = {
            "activation": found["winner"],
            "n_members": sum(len(entries) for entries in networks.values()),
            "test_score": self._ensemble_score(networks),
            "test_score_chosen_on_validation": self._ensemble_score(self._nested(chosen, settings)),
        }
        summary["references"] = reference_scores(self.table, self.splits, self.configuration.data)
        summary["versions"] = versions()
        self._save_ensemble(networks, members, settings, summary)
        write_json(self.run.summary, summary)
        log(self.run, members, curves, summary)
        return dict(plain(summary))

    def _header(self) -> dict[str, Any]:
        configuration, table = self.configuration, self.table
        some = next(iter(self.splits.values()))
        return {
            "metric": "log_rmse" if configuration.data.target_transform == "log" else "rmse",
            "command": self.command,
            "data": {
                "csv": configuration.data.csv,
                "target": table.schema.target,
                "n_rows": table.n_rows,
                "n_columns": len(table.schema.columns),
                "sha256": table.content_hash,
            },
            "protocol": {
                "folds": configuration.compare.folds,
                "inner": configuration.compare.inner,
                "repeats": configuration.compare.repeats,
                "validation_fraction": configuration.compare.validation_fraction,
                "n_training": len(some.training),
                "n_validation": len(some.validation),
                "n_test": len(some.test),
                "max_epochs": configuration.trainer["max_epochs"],
                "patience": configuration.optimizer.patience,
                "hidden": configuration.model.hidden,
                "seed": configuration.seed,
            },
        }

    def _networks_of(
        self, chosen: pd.DataFrame, activation: str, settings: Mapping[int, Setting]
    ) -> dict[Split, dict[str, Any]]:
        """An activation's members, of the trial chosen for each (repeat, fold)."""
        return self._gather(chosen[chosen.activation == activation], settings)

    def _nested(self, chosen: pd.DataFrame, settings: Mapping[int, Setting]) -> dict[Split, dict[str, Any]]:
        """Members of the activation and rate with the best validation score of each (repeat, fold)."""
        return self._gather(chosen.sort_values("val").groupby(summaries.PAIR).head(1), settings)

    def _gather(self, rows: pd.DataFrame, settings: Mapping[int, Setting]) -> dict[Split, dict[str, Any]]:
        gathered: dict[Split, dict[str, Any]] = {}
        for row in rows.itertuples():
            for split, entry in self.networks(int(row.trial), settings[int(row.trial)]).items():
                if (split.repeat, split.fold) == (row.repeat, row.fold) and entry["state"] is not None:
                    gathered[split] = entry | {"number": int(row.trial)}
        return gathered

    def _fold_predictions(self, networks: Mapping[Split, dict[str, Any]]) -> dict[tuple[int, int], torch.Tensor]:
        """Mean prediction of each (repeat, fold)'s members on its test rows, on the trained (log) scale."""
        by_fold: dict[tuple[int, int], list[torch.Tensor]] = {}
        for split, entry in networks.items():
            by_fold.setdefault((split.repeat, split.fold), []).append(entry["test_predictions"])
        return {fold: torch.stack(parts).mean(0) for fold, parts in by_fold.items()}

    def residuals(self, networks: Mapping[Split, dict[str, Any]]) -> dict[tuple[int, int], torch.Tensor]:
        """True minus predicted value on the test rows of each (repeat, fold), on the trained (log) scale."""
        assert self.table.target is not None
        truth = torch.from_numpy(self.table.target)
        if self.configuration.data.target_transform == "log":
            truth = truth.log()
        return {
            fold: truth[torch.from_numpy(self.splits[Split(*fold, 0)].test)] - predicted
            for fold, predicted in self._fold_predictions(networks).items()
        }

    def _ensemble_score(self, networks: Mapping[Split, dict[str, Any]]) -> float:
        """Mean over (repeat, fold) of the score of the fold's averaged members on rows none of them saw."""
        scores = [residuals.square().mean().sqrt().item() for residuals in self.residuals(networks).values()]
        return float(np.mean(scores)) if scores else float("nan")

    def _save_ensemble(
        self,
        networks: Mapping[Split, dict[str, Any]],
        members: pd.DataFrame,
        settings: Mapping[int, Setting],
        summary: dict[str, Any],
    ) -> None:
        if not networks:
            return
        scores = members.set_index(["trial", "repeat", "fold", "inner"])[["val_score", "test_score", "seed"]]
        ensemble_members = []
        for split, entry in networks.items():
            row = scores.loc[(entry["number"], *_key(split))]
            setting = settings[entry["number"]]
            ensemble_members.append(self._ensemble_member(split, entry, setting, row))
        ensemble = Ensemble(
            members=tuple(ensemble_members),
            schema=self.table.schema,
            metric=summary["metric"],
            config=plain(self.configuration.to_dict()),
            residuals=tuple(
                FoldResiduals(repeat, fold, tuple(values.tolist()))
                for (repeat, fold), values in self.residuals(networks).items()
            ),
            scores={"test_score": summary["ensemble"]["test_score"], "sha256": self.table.content_hash},
            versions=versions(),
        )
        save(ensemble, self.run.checkpoint)

    def _ensemble_member(self, split: Split, entry: dict[str, Any], setting: Setting, row: Any) -> EnsembleMember:
        from actlab.trials import make_member

        table, data = self.table, self.configuration.data
        assert table.target is not None
        rows = self.splits[split].training
        return EnsembleMember(
            member=make_member(entry["number"], setting, split, self.configuration.seed),
            state=entry["state"],
            preprocessor=fit_preprocessor(table.features, table.schema, rows, data),
            scaler=fit_target(table.target, rows, data.target_transform),
            val_score=float(row.val_score),
            test_score=float(row.test_score),
        )


def _key(split: Split) -> tuple[int, int, int]:
    return (split.repeat, split.fold, split.inner)


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in row.items()}


def _stable(fingerprint: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fingerprint.items() if key != "versions"}


def choose_directory(command: str, configuration: Configuration) -> RunDirectory:
    """The run directory: `--out`, else runs/COMMAND-NAME; with `--fresh` the first of it, it-2, it-3, ... not there.

    Raises:
        InputError: the path is a file, or a directory of something else.
    """
    path = Path(configuration.out or f"runs/{command}-{configuration.name}")
    if configuration.fresh:
        base, number = path, 2
        while path.exists():
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; name a directory")
    run = RunDirectory(path)
    if path.is_dir() and any(path.iterdir()) and not (run.journal.exists() or run.config.exists()):
        raise InputError(f"--out {path} is a directory with other files in it; name a new one")
    return run


def all_cells(activations: Sequence[str], rates: Sequence[float]) -> list[Cell]:
    """The grid in the order of the results: every activation at every learning rate."""
    return [Cell({"activation": name, "learning_rate": rate}) for name in activations for rate in rates]
