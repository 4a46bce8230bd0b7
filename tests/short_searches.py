"""A search that takes a second, for tests of what is proposed and of what is pruned."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from actlab.config import Configuration
from actlab.engine.pruning import rungs
from actlab.engine.storage import open_storage
from actlab.engine.study import Study
from actlab.runs import results
from actlab.runs.compare_search import Search
from actlab.runs.evaluate import Setting, Work
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings


def works(settings: Mapping[int, Setting], repeats: tuple[int, ...] = (0,)) -> dict[int, Work]:
    """What `evaluate` takes: every setting on the splits of these repeats."""
    return {number: Work(setting, repeats) for number, setting in settings.items()}


def short_search(csv: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configuration]:
    """Nine trials of two members each on one thread, with rungs at 2, 4 and 8 epochs; the body of a fixture."""
    # figures, TensorBoard and report take longer than these trainings, and have tests of their own
    monkeypatch.setattr(results, "draw_study", lambda study, directory: None)
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)
    monkeypatch.setattr(results, "write_report", lambda run: (run / "report.html").touch())
    # so that a short training has some
    monkeypatch.setattr(sys.modules[Search.__module__], "rungs", lambda max_epochs: rungs(4 * max_epochs, 2, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Configuration(
        data=DataSettings(csv, "price"),
        model=ModelSettings(hidden=[8]),
        optimizer=OptimizerSettings(patience=100),
        compare=CompareSettings(folds=2, inner=1),
        search=SearchSettings(n_trials=9, batch=3, activations=["relu", "tanh"], learning_rate=[1e-4, 1e-1]),
        trainer={"max_epochs": 9, "accelerator": "cpu"},
        out=str(out),
    )
    torch.set_num_threads(before)


def study_of(asked: Configuration) -> Study:
    return Study(open_storage(Path(str(asked.out)) / "study.journal"), "actlab")
