"""What lies in a run directory, and what a killed process leaves there."""

from pathlib import Path

import numpy as np
import pytest

from actlab.errors import InputError
from actlab.run_files import OutOfFold, RunDirectory, read_out_of_fold, write_out_of_fold


def test_half_written_files_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    kept = [run.figures / "curves.png", run.tensorboard / "relu" / "events.out.tfevents.1", run.path / ".config.yaml.x"]
    gone = [run.figures / ".curves.png.x1y2.png", run.tensorboard / "relu" / ".events.out.tfevents.1.x1y2"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run.sweep()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_a_new_directory_has_nothing_to_remove(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").sweep()
    assert list(tmp_path.iterdir()) == []


def test_out_of_fold_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    rng, run = np.random.default_rng(0), RunDirectory(tmp_path)
    actual = rng.normal(size=7)
    kept = {
        "relu [dropout=0.1, hidden=64-32]": OutOfFold(1e-3, (1, 2, 4), rng.normal(size=(3, 2, 7)).astype(np.float32)),
        "mine.Bump": OutOfFold(0.03, (1,), None, rng.normal(size=7)),
    }
    write_out_of_fold(run, actual, kept)
    found_actual, found = read_out_of_fold(run)
    assert found_actual.tobytes() == actual.tobytes()
    assert list(found) == list(kept)
    for name, own in kept.items():
        assert (found[name].learning_rate, found[name].repeats) == (own.learning_rate, own.repeats)
        for key in ("predictions", "squared_errors"):
            written, read = getattr(own, key), getattr(found[name], key)
            if written is None:
                assert read is None
            else:
                assert (read.dtype, read.shape, read.tobytes()) == (written.dtype, written.shape, written.tobytes())
    assert [path.name for path in tmp_path.iterdir()] == ["out_of_fold.npz"]
    write_out_of_fold(run, actual, {})
    assert read_out_of_fold(run)[1] == {}


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_out_of_fold_predictions_that_are_damaged_are_named(tmp_path: Path, content: bytes | None) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(InputError, match="is not there"):
        read_out_of_fold(run)
    if content is None:
        write_out_of_fold(run, np.zeros(3), {"relu": OutOfFold(0.1, (1,), np.zeros((1, 1, 3), dtype=np.float32))})
        content = run.out_of_fold.read_bytes()[:-30]
    run.out_of_fold.write_bytes(content)
    with pytest.raises(InputError, match=r"out_of_fold\.npz is damaged .*; the run's command writes it again"):
        read_out_of_fold(run)
