"""What `compare` and `search` share: run directory and study, the loop of a worker, and who writes the results.

A directory is gone on with only by the same run: the same command, data and configuration.
"""

import random
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import optuna

from actlab.config import Configuration, differences
from actlab.data.layout import RowLayout
from actlab.data.preprocessing import fit_preprocessor
from actlab.data.sources import is_rereadable
from actlab.data.splits import make_splits
from actlab.data.table import Table, read_table
from actlab.diagnostics.health import HealthMonitor
from actlab.engine.storage import open_storage
from actlab.engine.study import CELL, Cell, Study
from actlab.engine.workers import Worker, run_workers
from actlab.errors import InputError
from actlab.members import Split
from actlab.model.ensemble import load
from actlab.networks.machine import give_back_freed_memory, is_accelerated
from actlab.report.page import write_report
from actlab.report.several import is_several
from actlab.report.tensorboard import WORKER_PREFIX
from actlab.run_files import RunDirectory, jsonable, write_json
from actlab.runs.evaluate import Evaluation, Work, evaluate, setting_of, snapshots_in
from actlab.runs.model_building import RunNetworks, networks_of, shipped_splits
from actlab.runs.progress import LiveCurves, PopulationProgress, TeamProgress
from actlab.runs.references import read_test_file, test_file_scores
from actlab.runs.results import MACHINE_KEYS, ResultFiles, asked_hash, attributes_of, versions

# Attributes of the study: what its first start was asked for, and which process wrote the results.
FINGERPRINT, WRITER = "actlab", "written_by"
# Keys of the configuration that change no number of a network, or only how many there are: data are known by their
# content, devices and progress bars are those of a machine.
FREE_KEYS = ("data.csv", "data.test_csv", *(f"trainer.{key}" for key in MACHINE_KEYS))
# The most members that train as one population: the default comparison is one. In several, threads would run dry at the
# end of each, when few members are left. A GPU wants them larger still.
POPULATION_MEMBERS, GPU_FACTOR = 720, 8
# how long a worker with nothing to do waits before it looks again
WAIT_S, LONGEST_WAIT_S = 0.5, 15.0


def show_warnings(table: Table) -> None:
    """What is to be known of a table, a line each on stderr, as `check` says it."""
    for text in [f"warning: {text}" for text in table.warnings] + [f"note: {text}" for text in table.notes]:
        print(text, file=sys.stderr)


def choose_directory(command: str, configuration: Configuration) -> RunDirectory:
    """The directory of a run on one data set, as `named_directory` gives it."""
    run = named_directory(command, configuration.name, configuration)
    if is_several(run.path):
        raise InputError(f"{run.path} holds a comparison on several data sets; choose another --out, or add --fresh")
    return run


def named_directory(
    command: str, name: str, configuration: Configuration, subdirectories: Collection[str] = ()
) -> RunDirectory:
    """`--out`, else runs/COMMAND-NAME; with `--fresh` the first of it, it-2, it-3, ... that is not there.

    `subdirectories` may lie there already.

    Raises:
        InputError: the path is a file, or a directory of something that is no run.
    """
    path = Path(configuration.out or f"runs/{command}-{name}")
    if configuration.fresh:
        base, number = path, 2
        while path.exists():
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
    run = RunDirectory(path)
    if not path.exists() or run.journal.exists() or run.config.exists():
        return run
    if not path.is_dir():
        raise InputError(f"--out {path} is a file; name a directory")
    # another worker's first files, half written or left by one that was killed, are hidden or the journal's
    found = [entry.name for entry in path.iterdir() if not entry.name.startswith((".", run.journal.name))]
    if any(name not in subdirectories for name in found):
        raise InputError(f"--out {path} is a directory with other files in it; name a new one")
    return run


def with_given_folds(configuration: Configuration, layout: RowLayout) -> Configuration:
    """With as many folds as the table brings along, where it does."""
    if layout.fold is None:
        return configuration
    return replace(configuration, compare=replace(configuration.compare, folds=int(layout.fold.max()) + 1))


def check_same_run(
    run: RunDirectory, study: optuna.Study, asked: dict[str, Any], free: Sequence[str], is_quiet: bool
) -> None:
    """Compare with the start that made the study, or leave our fingerprint there if we make it.

    To be called under the study's lock. Where the study is gone, or in a database, `config.yaml` speaks for it. The
    fingerprint `asked` is the command, the hash of the table's content, the part of the configuration that the command
    reads, and versions, of which others are a warning only (none with `is_quiet`). Keys that are `free` may differ.

    Raises:
        InputError: the directory holds another run; says what differs.
    """
    if (stored := study.user_attrs.get(FINGERPRINT)) is None:
        written = run.read_config() if run.config.exists() else asked["config"]
        stored = {**asked, "config": {key: value for key, value in written.items() if key in asked["config"]}}
    if (changed := differences(stored["versions"], asked["versions"])) and not is_quiet:
        print(f"warning: this run was started with other versions: {'; '.join(changed)}", file=sys.stderr)
    lines = differences({"command": stored["command"]}, {"command": asked["command"]})
    if stored["data"] != asked["data"]:
        csv = asked["config"]["data"]["csv"]
        lines.append(f"the content of {csv} (sha256 {stored['data'][:12]} -> {asked['data'][:12]})")
    changed = differences(stored["config"], asked["config"])
    lines += [line for line in changed if not line.startswith(tuple(f"{key}:" for key in free))]
    lines += _other_accelerator(stored["config"], asked["config"])
    if lines:
        raise InputError(
            f"{run.path} holds another run, which differs in {'; '.join(lines)} (there -> here); "
            "go on with that one, choose another --out, or add --fresh"
        )
    if FINGERPRINT not in study.user_attrs:
        study.set_user_attr(FINGERPRINT, asked)


def _other_accelerator(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """`auto` is whatever the machine has; two that were named differ if their numbers do."""
    named = [config["trainer"].get("accelerator", "auto") for config in (stored, asked)]
    stored_there, asked_here = ({"trainer.accelerator": name} for name in named)
    return [] if "auto" in named else differences(stored_there, asked_here)


class Experiment(ABC):
    """A run: its configuration, data, directory and study, and the trials that train in it.

    `worker` says which one of several processes this is; None is the one that was started by hand. `table` is what
    data.csv names, where it was read before or can be read only once.

    Raises:
        InputError: bad data or configuration, or the directory belongs to another configuration or other data.
    """

    command: ClassVar[str]
    # groups of the configuration that this command does not read, and keys that may change
    ignored: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[tuple[str, ...]] = ()

    def __init__(self, configuration: Configuration, worker: Worker | None = None, table: Table | None = None) -> None:
        self.worker = worker
        # processes on this machine that share the run
        self.n_workers = worker.n_workers if worker is not None else 1
        self.table = table or read_table(configuration.data)
        self.configuration = configuration = with_given_folds(configuration, self.table.layout)
        give_back_freed_memory()
        self.protocol = configuration.compare.splitting(self.command)
        # refused before anything is written
        self.check()
        self.test = read_test_file(configuration.data, self.table) if worker is None else None
        self.run = choose_directory(self.command, configuration)
        self.run.create()
        if worker is None:
            for table in filter(None, (self.table, self.test)):
                show_warnings(table)
        trainer = dict(configuration.trainer)
        if worker is not None and (device := worker.device()) is not None:
            trainer["devices"] = [device]
        self.evaluation = Evaluation.of(replace(configuration, trainer=trainer), self.command)
        shipped = shipped_splits(self.table.layout, self.protocol, configuration.compare.bag, configuration.seed)
        self.networks = RunNetworks(self.run.weights, self.evaluation, self.table, shipped)
        storage = open_storage(self.run.journal if configuration.storage is None else configuration.storage)
        name = "actlab" if configuration.storage is None else configuration.study or self.run.path.name
        self.study = Study(storage, name)
        config = {key: value for key, value in configuration.compared().items() if key not in self.ignored}
        asked = {"command": self.command, "data": self.table.content_hash, "config": jsonable(config)}
        with self.study.coordinator.lock():
            asked["versions"] = versions()
            free = (*FREE_KEYS, *self.free)
            check_same_run(self.run, self.study.optuna, asked, free, is_quiet=worker is not None)
            if worker is None:
                # keys that may change are those of the last start; a damaged file is mended
                self.run.write_config(configuration.to_dict())
        self.progress: PopulationProgress | None = None
        # workers would write over each other's files
        place = f"{WORKER_PREFIX}{worker.index}" if worker is not None else ""
        self.live = LiveCurves(self.run.tensorboard / place)

    def check(self) -> None:
        """Refuse what cannot be done with this table."""
        is_race = self.command == "compare" and self.configuration.compare.protocol == "race"
        if self.table.layout.time is not None and not is_race:
            raise InputError(
                "data.time is for a race: a search or a grid chooses by rows that are later than many test rows; use "
                "actlab compare without --compare.protocol grid, or leave data.time out"
            )
        make_splits(self.table.layout, self.protocol, self.configuration.seed)

    @abstractmethod
    def plan(self) -> list[Cell]:
        """Everything that is to be done, as far as it is known by what is done, in the order of the results.

        A pure function of the cells that are done: once all of its cells are, nothing else is to be done.
        """

    @abstractmethod
    def batch(self, n_missing: int) -> int:
        """Trials that train as one population, where so many are not done."""

    @property
    def n_networks(self) -> int:
        """Networks of one trial."""
        return self.protocol.folds * self.protocol.inner

    @property
    def n_trials_at_most(self) -> int:
        """Trials that the run will have, at most."""
        return len(self.plan())

    @property
    def largest_batch(self) -> int:
        """The most trials that may train as one population."""
        factor = GPU_FACTOR if is_accelerated(self.configuration.trainer.get("accelerator", "auto")) else 1
        return max(1, POPULATION_MEMBERS * factor // self.n_networks)

    def propose(self, number: int, trial: optuna.Trial) -> dict[str, Any]:
        """The parameters of a claimed trial; `number` is that of its members."""
        return trial.params

    def work_of(self, key: str, params: Mapping[str, Any]) -> Work:
        """What a trial trains, by the key of its cell and its parameters."""
        return Work(setting_of(params, self.configuration, self.n_features), tuple(range(self.protocol.repeats)))

    def keeps_networks(self, work: Work) -> bool:
        """Whether networks of a trial are kept on disk until the results are written."""
        return True

    def keeps_predictions(self, work: Work) -> bool:
        """Whether what a trial's networks predict for rows that they never saw is kept in the study."""
        return False

    def callbacks(self, claimed: Mapping[int, optuna.Trial]) -> list[pl.Callback]:
        """What goes along with the training of a population."""
        return [self.progress, self.live] if self.progress is not None else [self.live]

    def close(self) -> None:
        """Leave the study and its files to others."""
        self.live.close()
        self.study.close()

    def execute(self) -> tuple[RunDirectory, dict[str, Any] | None]:
        """Train what is missing and write the results; the summary is None where another process writes it."""
        was_done = self._is_done()
        if was_done and (written := self._written()) is not None:
            return self.run, written
        with closing(self):
            if self.configuration.workers > 1:
                self._run_workers()
            else:
                self.train()
            if not was_done and not self._is_writer():
                return self.run, None
            with self.study.coordinator.lock():
                # several processes on one directory: who comes second finds the files
                return self.run, self._written() or self.result_files().write()

    def _is_done(self) -> bool:
        done = self.study.done()
        return all(cell.key in done for cell in self.plan())

    def _written(self) -> dict[str, Any] | None:
        """The summary, where the results are on disk already."""
        # the report is written last
        if not (self.run.summary.exists() and self.run.report.exists()):
            return None
        try:
            summary = self.run.read_summary()
        except InputError:
            return None
        found, asked = summary.get("protocol", {}), asked_hash(self.configuration)
        is_ours = found.get("n_trials") == len(self.plan()) and found.get("configuration") == asked
        return self._with_test_file(summary) if is_ours else None

    def _with_test_file(self, summary: dict[str, Any]) -> dict[str, Any]:
        """With the scores of the file of `data.test_csv`, where it was another one when the results were written."""
        known, is_there = (summary.get("test_file") or {}).get("sha256"), self.run.checkpoint.exists()
        if self.test is not None and is_there and known != self.test.content_hash:
            # the activations are those that this very configuration names
            model = load(self.run.checkpoint, allow_code=True)
            summary["data"]["test_csv"] = self.configuration.data.test_csv
            summary["test_file"] = test_file_scores(model, self.table, self.test, self.configuration.data)
            write_json(self.run.summary, summary)
            write_report(self.run.path)
        return summary

    def _is_writer(self) -> bool:
        """The first process that finds everything done writes the results; who comes later says so and leaves."""
        here = {"host": socket.gethostname(), "directory": str(self.run.path.resolve())}
        with self.study.coordinator.lock():
            if (writer := self.study.optuna.user_attrs.get(WRITER, here)) == here:
                self.study.optuna.set_user_attr(WRITER, here)
                return True
        print(f"all trials are done; the results are in {writer['directory']} on {writer['host']}", file=sys.stderr)
        return False

    def result_files(self) -> ResultFiles:
        """What the files of the run are written from, once everything is done."""
        done, cells = self.study.done(), self.plan()
        trials = [done[cell.key] for cell in cells]
        settings = {
            place: self.work_of(cell.key, trial.params).setting
            for place, (cell, trial) in enumerate(zip(cells, trials, strict=True))
        }
        self.networks.numbers = {place: cell.number for place, cell in enumerate(cells)}
        own = (self.command, self.configuration, self.run, self.networks, self.study.optuna)
        return ResultFiles(*own, trials, settings, self.test)

    def _run_workers(self) -> None:
        shared = replace(self.configuration, out=str(self.run.path), fresh=False, workers=1)
        self.study.enqueue_missing(self.plan())
        logs, n_workers = self.run.path / "workers", self.configuration.workers
        with TeamProgress(self.study, self.n_trials_at_most, self.n_networks) as progress:
            table = None if is_rereadable(shared.data.csv) else self.table
            run_workers(_work, (type(self), shared, table), n_workers, logs, progress.show)

    def train(self) -> None:
        """Claim trials and train them, one population after the other, until every cell is done."""
        wait_s = WAIT_S
        with ExitStack() as shown:
            if self.worker is None:
                n_members, n_done = self.n_trials_at_most * self.n_networks, len(self.study.done()) * self.n_networks
                self.progress = shown.enter_context(PopulationProgress(n_members, n_done))
            while True:
                cells, done = self.plan(), self.study.done()
                n_queued = self.study.enqueue_missing(cells, self._n_queued())
                if claimed := self.study.claim(self.batch(sum(cell.key not in done for cell in cells))):
                    self._train(claimed)
                    wait_s = WAIT_S
                elif not n_queued:
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
            work = {
                number: self.work_of(trial.user_attrs[CELL], self.propose(number, trial))
                for number, trial in claimed.items()
            }
            # first, so that members are measured before anything takes them out of training
            monitor = HealthMonitor()
            snapshots = snapshots_in(self.run.weights, self.evaluation, self.table)
            callbacks = [monitor, *self.callbacks(claimed)]
            for result in evaluate(work, self.evaluation, self.table, callbacks, snapshots):
                own = work[result.number]
                if self.keeps_networks(own):
                    self.networks.save(result.number, result.outcomes)
                pruned = next((outcome.pruned for outcome in result.outcomes if outcome.pruned), "")
                is_kept, networks = self.keeps_predictions(own), networks_of(result.outcomes)
                predictions = self.networks.out_of_fold(networks, own.repeats) if is_kept else None
                attributes = attributes_of(result, monitor, self.networks.scaler.sd, predictions)
                self.study.complete(claimed[result.number], result.value, attributes, pruned)
            snapshots.clear()
        except BaseException:
            # what keeps us from writing now is what went wrong before; a dead worker's trials are found anyway
            with suppress(InputError, optuna.exceptions.OptunaError):
                self.study.release(list(claimed.values()))
            raise

    @cached_property
    def n_features(self) -> int:
        """Input columns of the networks of the first split."""
        rows, table = self.networks.splits[Split(0, 0, 0)].training, self.table
        data = self.configuration.data
        return fit_preprocessor(table.features, table.schema, rows, data, table.target).n_features


def _work(argument: tuple[type[Experiment], Configuration, Table | None], worker: Worker) -> None:
    """What a worker process does."""
    kind, configuration, table = argument
    with closing(kind(configuration, worker, table)) as experiment:
        experiment.train()
