"""What lies in a run directory, and what a killed process leaves there."""

from pathlib import Path

from actlab.run_files import RunDirectory


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
