"""`actlab fit`, `validate` and `test`: several seeds of one activation on one split, and scores of a checkpoint.

The split is the first of the comparison's protocol, or the last one in time: its test fold is never looked at by `fit`.
"""

import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import chain
from typing import Literal

import numpy as np

from actlab import __version__, activations
from actlab.config import Configuration, differences
from actlab.data.sources import open_source
from actlab.data.splits import make_splits
from actlab.data.table import Table, read_rows, read_table
from actlab.diagnostics.health import HealthMonitor, HealthRecord
from actlab.errors import InputError
from actlab.members import Split
from actlab.model.ensemble import Ensemble, load
from actlab.model.prediction import CHUNK_ROWS, Unseen, Warnings, print_warning
from actlab.printed_tables import PrintedTable, TableColumn, print_table, text_column
from actlab.report.page import write_report
from actlab.report.tensorboard import write_comparison
from actlab.run_files import CurveRecord, MemberRecord, RunDirectory, jsonable, to_frame, write_frame, write_json
from actlab.runs.evaluate import Evaluation, Setting, TrialResult, make_member, snapshots_in, train_in_waves
from actlab.runs.experiment import choose_directory, show_warnings, with_given_folds
from actlab.runs.model_building import RunNetworks, networks_of, shipped_splits
from actlab.runs.progress import LiveCurves, PopulationProgress
from actlab.runs.results import versions, write_pre_activations
from actlab.settings import CompareSettings, DataSettings

# Keys that may differ from those of training where a checkpoint is scored: they do not say how rows are read.
FREE = ("csv", "test_csv", "missing_target", "batch_size")
Part = Literal["validation", "test"]


def fit(configuration: Configuration) -> RunDirectory:
    """Train `model.n_members` networks of `model.activation`, and write a run directory.

    Raises:
        InputError: bad data or configuration, or the directory holds another run.
    """
    if configuration.data.test_csv is not None:
        raise InputError("data.test_csv is scored by compare and search; score a fit with actlab test --data.csv FILE")
    table = read_table(configuration.data)
    configuration = with_given_folds(configuration, table.layout)
    run = choose_directory("fit", configuration)
    if run.config.exists() and (lines := differences(run.read_config(), jsonable(configuration.to_dict()))):
        raise InputError(
            f"{run.path} holds a run of another configuration ({'; '.join(lines)}); choose another --out or add --fresh"
        )
    if run.config.exists() and run.checkpoint.exists():
        raise InputError(f"{run.path} holds this very run, finished; add --fresh to train it again beside")
    # whatever can be refused is refused before anything is written
    splits = make_splits(table.layout, configuration.compare.splitting("fit"), configuration.seed)
    activations.get(configuration.model.activation)
    run.create()
    show_warnings(table)
    run.write_config(configuration.to_dict())
    setting = Setting.of(configuration.model.activation, configuration)
    # of rows that have a time the last ones are tested; repeat 0 would train before all test rows
    split = Split(0, 0, 0) if table.layout.time is None else Split(1, configuration.compare.folds - 1, 0)
    members = [make_member(0, setting, split, configuration.seed + i) for i in range(configuration.model.n_members)]
    evaluation = Evaluation.of(configuration, "fit")
    # first, so that members are measured before anything takes them out of training
    monitor, live = HealthMonitor(), LiveCurves(run.tensorboard)
    try:
        with PopulationProgress(len(members)) as progress:
            snapshots = snapshots_in(run.weights, evaluation, table)
            outcomes = train_in_waves(members, evaluation, table, [monitor, progress, live], snapshots)
    finally:
        live.close()
    networks = RunNetworks(run.weights, evaluation, table, splits)
    score = _write(configuration, run, networks, TrialResult(0, setting, tuple(outcomes)), monitor)
    columns = [TableColumn(f"{part} {networks.target.metric}", four_decimals) for part in ("validation", "test")]
    rows = [(str(one.seed), own.val_score, own.test_score) for one, own in zip(members, outcomes, strict=True)]
    print_table(PrintedTable.of((text_column("seed"), *columns), [*rows, ("all, averaged", "", score)]))
    shutil.rmtree(run.weights, ignore_errors=True)
    print(f"results: {run.path}")
    return run


def _write(
    configuration: Configuration, run: RunDirectory, networks: RunNetworks, result: TrialResult, monitor: HealthMonitor
) -> float:
    """Every file of the run directory; returns the score of the networks' mean on the test rows.

    Raises:
        InputError: every network diverged; their records are on disk then.
    """
    frame = to_frame(result.member_records(), MemberRecord)
    curves, health = to_frame(result.curve_records(), CurveRecord), to_frame(monitor.of(0), HealthRecord)
    for path, records in ((run.members, frame), (run.curves, curves), (run.health, health)):
        write_frame(path, records)
    trained = networks_of(result.outcomes)
    if not trained:
        raise InputError(
            f"all {len(result.outcomes)} networks diverged at learning_rate={result.setting.learning_rate}; "
            "try a smaller one"
        )
    scores = networks.write_model(run, trained, jsonable(configuration.to_dict()), versions()).scores
    bins = write_pre_activations(run, trained, networks)
    said = {"warnings": list(networks.table.warnings), "notes": list(networks.table.notes)}
    summary = {"metric": networks.target.metric, **said, "ensemble": scores, "versions": versions()}
    write_comparison(run, frame, curves, summary, None, health, bins)
    write_json(run.summary, summary)
    write_report(run.path)
    return float(scores["test_score"])


def score(configuration: Configuration, part: Part) -> float:
    """Score a checkpoint on the rows of its own split, or on all rows of another CSV.

    On its own data each row is predicted only by the members that have it in their validation (or test) part, so a
    comparison's checkpoint is scored out of fold. A CSV with other content is new to all members. Rows are read, and
    scored, as those of training were.

    Raises:
        InputError: no checkpoint named, its data are not there, the data settings contradict those it was trained
            with, or its members have no validation rows.
    """
    if configuration.ckpt_path is None:
        raise InputError("--ckpt_path is needed: the best.ckpt of a run")
    ensemble = load(configuration.ckpt_path, configuration.allow_code)
    trained = DataSettings(**ensemble.config["data"])
    _refuse_contradictions(configuration.data, trained)
    path = str(configuration.data.csv or trained.csv)
    takes_bad = configuration.bad_cells == "missing"
    drops = "drop" in (trained.missing_target, configuration.data.missing_target)
    scored = replace(trained, target_transform=ensemble.target.transform, missing_target="drop" if drops else "refuse")
    source = open_source(path)
    tables = read_rows(source, ensemble.schema, CHUNK_ROWS, scored, takes_bad)
    first = next(tables)
    if first.content_hash == ensemble.scores.get("sha256"):
        (whole,) = read_rows(source, ensemble.schema, scored=scored)
        table = read_table(replace(trained, csv=path), source=source)
        # rows of weight 0 are not there
        table = replace(table, features=whole.features) if whole.n_rows == table.n_rows else table
        residuals, weights = _own_residuals(ensemble, table, part)
    else:
        residuals, weights = np.concatenate(list(_new_residuals(ensemble, chain([first], tables)))), None
    value = float(np.sqrt(np.average(residuals**2, weights=weights)))
    print(f"{ensemble.target.metric} {four_decimals(value)} on {len(residuals)} {part} rows of {path}")
    return value


def four_decimals(score: float) -> str:
    """With a power of ten where they would all be zero: the unit may be any."""
    return f"{score:.3e}" if 0 < score < 1e-4 else f"{score:.4f}"


def _refuse_contradictions(asked: DataSettings, trained: DataSettings) -> None:
    """Refuse settings that say otherwise how rows are read; those left at their defaults say nothing."""
    for key in (field.name for field in fields(DataSettings) if field.name not in FREE):
        new, old = getattr(asked, key), getattr(trained, key)
        if new not in (old, getattr(DataSettings(), key)):
            raise InputError(
                f"data.{key}={new!r} is not what the checkpoint was trained with, {old!r}, and rows are read as in "
                f"training; leave data.{key} out"
            )


def _new_residuals(ensemble: Ensemble, tables: Iterator[Table]) -> Iterator[np.ndarray]:
    """The errors on rows that no member has seen, on the scale trained on, and warnings about them."""
    unseen, told, forward = Unseen(ensemble), Warnings(print_warning), ensemble.target.forward
    for table in tables:
        unseen.look(table)
        for text in table.warnings:
            told.add(text)
        assert table.target is not None
        yield forward(table.target) - forward(ensemble.predict(table.features))
    for text in unseen.sentences():
        told.add(text)


def _own_residuals(ensemble: Ensemble, table: Table, part: Part) -> tuple[np.ndarray, np.ndarray | None]:
    """Of each row that some member has in its part, by these members alone, on the scale trained on; and the weights of
    these rows, if they have any."""
    if part == "validation" and any(one.member.epochs for one in ensemble.members):
        raise InputError(
            "the networks of this checkpoint were trained on their validation rows too; score them on the rows of "
            "their test folds, with `actlab test`"
        )
    asked, weights = CompareSettings(**ensemble.config["compare"]), table.layout.weights
    splits = shipped_splits(table.layout, asked.splitting("fit"), asked.bag, ensemble.config["seed"])
    if ensemble.has_seen_all:
        # no row is new to them: the errors are those of the windows before
        tested = np.concatenate([splits[Split(one.repeat, one.fold, 0)].test for one in ensemble.residuals])
        residuals = np.concatenate([one.residuals.numpy() for one in ensemble.residuals])
        return residuals, None if weights is None else weights[tested]
    assert table.target is not None
    actual = ensemble.target.forward(table.target)
    for own in ensemble.residuals:
        test = splits[Split(own.repeat, own.fold, 0)].test
        if len(test) != len(own.means) or not np.allclose(actual[test], (own.means + own.residuals).numpy()):
            raise InputError(
                f"actlab {__version__} splits rows otherwise than the checkpoint's did: networks would be scored on "
                "rows that they were trained on; score it on another file, or start the run again with --fresh"
            )
    total, count = np.zeros(table.n_rows), np.zeros(table.n_rows)
    for one in ensemble.members:
        rows: np.ndarray = getattr(splits[one.member.split], part)
        alone = replace(ensemble, members=(one,), residuals=())
        total[rows] += alone.predict_by_fold(table.features.iloc[rows])[one.fold].mean
        count[rows] += 1
    seen = count > 0
    return np.asarray(actual[seen] - total[seen] / count[seen]), None if weights is None else weights[seen]
