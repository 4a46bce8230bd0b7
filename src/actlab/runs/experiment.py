"""What `compare` and `search` share: run directory and study, the loop of a worker, and who writes the results."""

import json
import random
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import optuna

from actlab.configuration import Configuration
from actlab.data.splits import make_splits
from actlab.data.table import read_table
from actlab.diagnostics.health_callback import HealthMonitor
from actlab.engine.studies import Cell, Study, open_storage
from actlab.engine.workers import Worker, run_workers
from actlab.errors import InputError
from actlab.networks.device import is_accelerated
from actlab.networks.memory import give_back_freed_memory
from actlab.records import RunDirectory, plain
from actlab.report.event_files import WORKER_PREFIX
from actlab.runs.assembly import Networks, shipped_splits
from actlab.runs.directory import Fingerprint, check_same_run, choose_directory, keep_configuration, show_warnings
from actlab.runs.investigation import attributes_of
from actlab.runs.live_curves import LiveCurves
from actlab.runs.progress import PopulationProgress
from actlab.runs.results import CURVES, MEMBERS, Results, versions
from actlab.runs.team_progress import TeamProgress
from actlab.runs.trial_settings import count_features, setting_of, target_sd
from actlab.runs.trials import Evaluation, TrialResult, evaluate

# which process wrote the results, as an attribute of the study
WRITER = "written_by"
# The most members that train as one population, and so what an interruption can lose: the default comparison is one.
# In several, threads would run dry at the end of each, when few members are left. A GPU wants them larger still.
POPULATION_MEMBERS, GPU_FACTOR = 720, 8
# how long a worker with nothing to do waits before it looks again
WAIT_S, LONGEST_WAIT_S = 0.5, 15.0


class Experiment(ABC):
    """A run: its configuration, data, directory and study, and the trials that train in it.

    Args:
        configuration: What was asked for.
        worker: Which one of several processes this is; None for the one that was started by hand.

    Raises:
        InputError: bad data or configuration, or the directory belongs to another configuration or other data.
    """

    command: ClassVar[str]
    is_equal_budget: ClassVar[bool]
    # groups of the configuration that this command does not read
    ignored: ClassVar[tuple[str, ...]] = ()

    def __init__(self, configuration: Configuration, worker: Worker | None = None) -> None:
        self.configuration, self.worker = configuration, worker
        self.table = read_table(configuration.data)
        give_back_freed_memory()
        self.splits = make_splits(self.table.n_rows, configuration.compare, configuration.seed)
        self.run = choose_directory(self.command, configuration)
        self.run.create()
        if worker is None:
            show_warnings(self.table.warnings)
        trainer = dict(configuration.trainer)
        if worker is not None and (device := worker.device()) is not None:
            trainer["devices"] = [device]
        self.evaluation = Evaluation(
            configuration.data, configuration.compare, configuration.optimizer, trainer, configuration.seed
        )
        shipped = shipped_splits(self.table.n_rows, configuration.compare, configuration.seed)
        self.networks = Networks(self.run.weights, self.evaluation, self.table, shipped)
        storage = open_storage(self.run.journal, configuration.storage)
        name = "actlab" if configuration.storage is None else configuration.study or self.run.path.name
        self.study = Study(storage, name)
        with self.study.liveness.exclusive():
            check_same_run(self.run, self.study.optuna, self._fingerprint(), is_quiet=worker is not None)
            keep_configuration(self.run, configuration)
        self.progress: PopulationProgress | None = None
        # workers would write over each other's files
        own = self.run.tensorboard / f"{WORKER_PREFIX}{worker.index}" if worker is not None else self.run.tensorboard
        self.live = LiveCurves(own)

    @property
    @abstractmethod
    def cells(self) -> list[Cell]:
        """Everything that is to be done, in the order of the results."""

    @property
    @abstractmethod
    def batch(self) -> int:
        """Trials that train as one population."""

    @property
    def largest_batch(self) -> int:
        """The most trials that may train as one population."""
        factor = GPU_FACTOR if is_accelerated(self.configuration.trainer.get("accelerator", "auto")) else 1
        return max(1, POPULATION_MEMBERS * factor // len(self.splits))

    @property
    def n_workers(self) -> int:
        """Processes on this machine that share the run."""
        return self.worker.n_workers if self.worker is not None else 1

    @property
    @abstractmethod
    def rates(self) -> list[float]:
        """Learning rates tried, or the ends of their range."""

    @abstractmethod
    def propose(self, number: int, trial: optuna.Trial) -> dict[str, Any]:
        """The parameters of a claimed trial."""

    def callbacks(self, claimed: Mapping[int, optuna.Trial]) -> list[pl.Callback]:
        """What goes along with the training of a population."""
        return [self.progress, self.live] if self.progress is not None else [self.live]

    def _fingerprint(self) -> Fingerprint:
        config = {key: value for key, value in self.configuration.compared().items() if key not in self.ignored}
        return Fingerprint(self.command, self.table.content_hash, config, versions())

    def execute(self) -> tuple[RunDirectory, dict[str, Any] | None]:
        """Train what is missing and write the results; the summary is None where another process writes it."""
        was_done = self._is_done()
        if was_done and (written := self._written()) is not None:
            return self.run, written
        try:
            if self.configuration.workers > 1:
                self._run_workers()
            else:
                self.train()
            if not was_done and not self._is_writer():
                return self.run, None
            with self.study.liveness.exclusive():
                # several processes on one directory: who comes second finds the files
                return self.run, self._written() or self._write()
        finally:
            self.live.close()
            self.study.close()

    def _is_done(self) -> bool:
        done = self.study.done()
        return all(cell.key in done for cell in self.cells)

    def _written(self) -> dict[str, Any] | None:
        """The summary, where the results are on disk already."""
        # the report is written last
        if not (self.run.summary.exists() and self.run.report.exists()):
            return None
        try:
            summary = self.run.read_summary()
        except json.JSONDecodeError:
            return None
        return summary if summary.get("protocol", {}).get("n_trials") == len(self.cells) else None

    def _is_writer(self) -> bool:
        """The first process that finds everything done writes the results; who comes later says so and leaves."""
        own = {"host": socket.gethostname(), "directory": str(self.run.path.resolve())}
        with self.study.liveness.exclusive():
            writer = self.study.optuna.user_attrs.get(WRITER)
            if writer is None:
                self.study.optuna.set_user_attr(WRITER, own)
        if writer is None or writer == own:
            return True
        print(f"all trials are done; the results are in {writer['directory']} on {writer['host']}", file=sys.stderr)
        return False

    def _write(self) -> dict[str, Any]:
        done = self.study.done()
        trials = [done[cell.key] for cell in self.cells]
        settings = {
            cell.number: setting_of(trial.params, self.configuration, self.n_features)
            for cell, trial in zip(self.cells, trials, strict=True)
        }
        asked = self.configuration
        results = Results(
            self.command, asked, self.run, self.table, self.splits, self.networks, self.rates, self.is_equal_budget
        )
        return results.write(trials, settings, self.study.optuna)

    def _run_workers(self) -> None:
        own = replace(self.configuration, out=str(self.run.path), fresh=False, workers=1)
        self.study.enqueue_missing(self.cells)
        with closing(TeamProgress(self.study, len(self.cells), len(self.splits))) as progress:
            run_workers(_work, (type(self), own), self.configuration.workers, self.run.path / "workers", progress.show)

    def train(self) -> None:
        """Claim trials and train them, one population after the other, until every cell is done."""
        n_splits, wait_s = len(self.splits), WAIT_S
        with PopulationProgress(len(self.cells) * n_splits) if self.worker is None else nullcontext() as progress:
            self.progress = progress
            if progress is not None:
                progress.advance(len(self.study.done()) * n_splits)
            self.study.enqueue_missing(self.cells, self._n_queued())
            while True:
                if claimed := self.study.claim(self.batch):
                    self._train(claimed)
                    wait_s = WAIT_S
                elif not self.study.enqueue_missing(self.cells, self._n_queued()):
                    if self._is_done():
                        return
                    if wait_s == WAIT_S:
                        print("waiting for trials that are in training elsewhere", file=sys.stderr)
                    time.sleep(wait_s * (0.5 + random.random()))
                    wait_s = min(1.5 * wait_s, LONGEST_WAIT_S)

    def _n_queued(self) -> int | None:
        """How many cells are queued at a time; all of them where their order does not matter."""
        return None

    def _train(self, claimed: Mapping[int, optuna.Trial]) -> None:
        """Train claimed trials as one population and tell the study; interrupted, they go back to the queue."""
        try:
            params = {number: self.propose(number, trial) for number, trial in claimed.items()}
            settings = {number: setting_of(own, self.configuration, self.n_features) for number, own in params.items()}
            # first, so that members are measured before anything takes them out of training
            monitor = HealthMonitor()
            for result in evaluate(settings, self.evaluation, self.table, [monitor, *self.callbacks(claimed)]):
                self.networks.keep(result.number, result.outcomes)
                self._tell(claimed[result.number], result, monitor)
        except BaseException:
            self._give_back(claimed)
            raise

    def _give_back(self, claimed: Mapping[int, optuna.Trial]) -> None:
        # what keeps us from writing now is what went wrong before; a dead worker's trials are found anyway
        with suppress(InputError, optuna.exceptions.OptunaError):
            self.study.release(list(claimed.values()))

    @cached_property
    def n_features(self) -> int:
        """Input columns of the networks of the first split."""
        return count_features(self.table, next(iter(self.splits.values())), self.configuration.data)

    def _tell(self, trial: optuna.Trial, result: TrialResult, monitor: HealthMonitor) -> None:
        attributes = {
            MEMBERS: [plain(vars(record)) for record in result.member_records()],
            CURVES: [plain(list(vars(record).values())) for record in result.curve_records()],
            **attributes_of(result, monitor, target_sd(self.table, self.configuration.data)),
        }
        if reason := next((outcome.pruned for outcome in result.outcomes if outcome.pruned), ""):
            self.study.prune(trial, reason, attributes)
        else:
            self.study.complete(trial, result.value if np.isfinite(result.value) else np.inf, attributes)


def _work(argument: tuple[type[Experiment], Configuration], worker: Worker) -> None:
    """What a worker process does."""
    kind, configuration = argument
    experiment = kind(configuration, worker)
    try:
        experiment.train()
    finally:
        experiment.live.close()
        experiment.study.close()
