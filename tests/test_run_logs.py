"""What real runs leave in TensorBoard, read back with its EventAccumulator: `fit`, `search` and several workers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actlab.config import Configuration
from actlab.data.layout import RowLayout
from actlab.data.splits import make_splits
from actlab.engine.workers import Worker
from actlab.members import Split
from actlab.report.tensorboard import LIVE_FILE, WORKER_PREFIX
from actlab.runs.compare_search import Search, search
from actlab.runs.fit import fit
from actlab.settings import CompareSettings, DataSettings, ModelSettings, OptimizerSettings, SearchSettings

# the copy of html5lib inside TensorBoard's plugins
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")

MEASURES = {"dead", "saturated", "mean_output", "gradient_ratio"}
N_EPOCHS = 9


def configuration(folder: Path, **changes: Any) -> Configuration:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 2))
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "price": np.exp(x[:, 0] + 0.1 * generator.normal(size=90))})
    frame.to_csv(folder / "t.csv", index=False)
    common: dict[str, Any] = {
        "data": DataSettings(str(folder / "t.csv"), "price", batch_size=16),
        "model": ModelSettings(hidden=[6, 4], activation="tanh", n_members=3),
        "optimizer": OptimizerSettings(patience=2, learning_rate=0.05),
        "compare": CompareSettings(folds=2, inner=1),
        "trainer": {"max_epochs": N_EPOCHS, "accelerator": "cpu"},
        "out": str(folder / "run"),
    }
    return Configuration(**(common | changes))


def searched(folder: Path, **changes: Any) -> Configuration:
    space = SearchSettings(
        n_trials=6, batch=3, activations=["relu", "tanh"], learning_rate=[1e-3, 1e-1], dropout=[0.0, 0.3], pruning=False
    )
    return configuration(folder, search=space, **changes)


def read(directory: Path) -> EventAccumulator:
    found = EventAccumulator(str(directory), size_guidance={"histograms": 0, "scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    return found


def hidden_layers(events: EventAccumulator, n_layers: int) -> None:
    """Health of every layer, from the initial weights on, is there."""
    tags = events.Tags()["scalars"]
    expected = {f"health_{name}/layer_{n}" for name in MEASURES for n in range(1, n_layers + 1)}
    assert {tag for tag in tags if tag.startswith("health_")} == expected
    for tag in expected:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps[0] == 0
        assert steps == sorted(set(steps))


def test_a_fit_logs_curves_health_histograms_its_setting_and_figures(tmp_path: Path) -> None:
    run = fit(configuration(tmp_path))
    assert sorted(path.name for path in run.tensorboard.iterdir()) == ["tanh", "~figures", "~settings"]
    events = read(run.tensorboard / "tanh")
    hidden_layers(events, 2)
    health, members = pd.read_csv(run.health), run.read_members()
    own = health[(health.layer == 2) & (health.moment == "start")]
    (first, *_) = events.Scalars("health_mean_output/layer_2")
    assert first.value == pytest.approx(own.mean_output.mean(), rel=1e-6)
    ratio = health[(health.layer == 1) & (health.moment == "best")].gradient_ratio
    best = events.Scalars("health_gradient_ratio/layer_1")[1]
    assert (best.step, best.value) == (
        round(members.best_epoch.mean()),
        pytest.approx(np.exp(np.log(ratio).mean()), rel=1e-6),
    )
    curves = pd.read_csv(run.curves)
    values = [event.value for event in events.Scalars("val/log_rmse")]
    assert values == pytest.approx(curves.val_mean[curves.members * 2 >= 3].tolist(), rel=1e-6)
    assert events.Tags()["histograms"] == ["pre_activations/layer_1", "pre_activations/layer_2"]
    (settings,) = (run.tensorboard / "~settings").iterdir()
    (test,) = read(settings).Scalars("~final/test_log_rmse")
    assert test.value == pytest.approx(members.test_score.mean(), rel=1e-6)
    pictures = read(run.tensorboard / "~figures")
    assert set(pictures.Tags()["images"]) == {"figures/curves", "figures/health", "figures/predictions"}
    (curves_png,) = pictures.Images("figures/curves")
    assert curves_png.encoded_image_string == (run.figures / "curves.png").read_bytes()


def test_histograms_fit_the_health_that_was_measured_while_training(tmp_path: Path) -> None:
    """The mean output of tanh, from health.csv, and from the middles of the bins: two ways to the same networks."""
    run = fit(configuration(tmp_path))
    health, events = pd.read_csv(run.health), read(run.tensorboard / "tanh")
    for layer in (1, 2):
        for event, moment in zip(events.Histograms(f"pre_activations/layer_{layer}"), ("start", "best"), strict=True):
            histogram = event.histogram_value
            edges = np.array([histogram.min, *histogram.bucket_limit])
            counts = np.array(histogram.bucket)
            n_units = 6 if layer == 1 else 4
            assert counts.sum() == histogram.num == 3 * n_units * n_validation()
            outputs = np.tanh((edges[:-1] + edges[1:]) / 2)
            expected = health[(health.layer == layer) & (health.moment == moment)].mean_output.mean()
            assert counts @ outputs / counts.sum() == pytest.approx(expected, abs=0.02)


def n_validation() -> int:
    return len(make_splits(RowLayout(90), CompareSettings(folds=2, inner=1), 0)[Split(0, 0, 0)].validation)


def test_a_search_logs_as_a_comparison_does_and_its_settings_show_what_was_searched(tmp_path: Path) -> None:
    run, summary = search(searched(tmp_path))
    assert summary is not None
    tried = {row["activation"] for row in summary["ranking"]}
    assert {path.name for path in run.tensorboard.iterdir()} == {*tried, "~settings", "~figures"}
    for name in tried:
        events = read(run.tensorboard / name)
        hidden_layers(events, 2)
        assert {"val/log_rmse", "val/log_rmse_low", "train/log_rmse"} <= set(events.Tags()["scalars"])
        assert bool(events.Tags()["histograms"]) == (name == summary["winner"])
    assert len(list((run.tensorboard / "~settings").iterdir())) == 6
    assert hyper_parameters(run.tensorboard / "~settings") == {"activation", "learning_rate", "dropout"}
    images = read(run.tensorboard / "~figures").Tags()["images"]
    assert {"figures/ranking", "figures/slices", "figures/learning_rates"} <= set(images)
    assert not list(run.tensorboard.rglob(LIVE_FILE))


def hyper_parameters(directory: Path) -> set[str]:
    """Columns of the HParams tab, as the first setting declares them."""
    from tensorboard.plugins.hparams import metadata

    for setting in directory.iterdir():
        events = read(setting)
        if metadata.EXPERIMENT_TAG in events.Tags()["tensors"]:
            content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
            return {info.name for info in metadata.parse_experiment_plugin_data(content).hparam_infos}
    raise AssertionError("no setting declares the columns")


def test_a_worker_shows_its_curves_in_a_place_of_its_own_until_the_run_is_done(tmp_path: Path) -> None:
    asked = searched(tmp_path)
    worker = Search(asked, Worker(index=1, n_threads=1, n_workers=2))
    try:
        worker.train()
    finally:
        worker.live.close()
        worker.study.close()
    directory = Path(str(asked.out)) / "tensorboard"
    live = list(directory.rglob(LIVE_FILE))
    assert live
    assert {path.parts[len(directory.parts)] for path in live} == {f"{WORKER_PREFIX}1"}
    assert len(read(live[0].parent).Scalars("live/val")) > 1
    run, _ = search(asked)
    assert not list(run.tensorboard.rglob(LIVE_FILE))
    assert not list(run.tensorboard.glob(f"{WORKER_PREFIX}*"))
