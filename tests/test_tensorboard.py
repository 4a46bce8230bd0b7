"""What TensorBoard is given: read back with TensorBoard's own reader, and bounded."""

import io
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from actlab.report import tensorboard as tensorboard_log
from actlab.report.tensorboard import (
    MAX_LAYERS,
    MAX_POINTS,
    MAX_SETTINGS,
    EventFile,
    curve_points,
    run_name,
    setting_rows,
    write_comparison,
    write_figures_log,
)
from actlab.run_files import RunDirectory

# the copy of html5lib inside TensorBoard's plugins
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def frames(activations: list[str], n_epochs: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Members and curves of a race: activations x 6 rates x 5 folds in the sweep, and two repeats more of 0.003,
    everyone's best rate; test scores of the sweep are far from those that count."""
    members, curves = [], []
    cells = [(name, rate, 0) for name in activations for rate in RATES]
    cells += [(name, 3e-3, repeat) for repeat in (1, 2) for name in activations]
    for trial, (activation, rate, repeat) in enumerate(cells):
        score = 0.13 + abs(np.log10(rate / 3e-3)) / 10
        row = {"trial": trial, "activation": activation, "learning_rate": rate, "repeat": repeat, "inner": 0}
        row |= {"val_score": score, "test_score": score + 0.01 if repeat else 9.0, "diverged": False, "pruned": False}
        members += [row | {"fold": fold, "best_epoch": 40, "epochs": 52} for fold in range(5)]
        epoch = np.arange(1, n_epochs + 1)
        entry = {"trial": trial, "activation": activation, "learning_rate": rate, "epoch": epoch, "members": 15}
        entry |= {"train_mean": score, "train_sd": 0.01, "val_mean": score + 1 / epoch, "val_sd": 0.02}
        curves.append(pd.DataFrame(entry))
    ranking = [
        {"activation": name, "learning_rate": 3e-3, "mean": 0.14 + place / 1000}
        for place, name in enumerate(activations)
    ]
    comparisons = [
        {"against": "best", "a": activations[0], "b": name, "verdict": "worse here", "difference": 0.025}
        for name in activations[1:]
    ]
    summary = {"metric": "log_rmse", "command": "compare", "ranking": ranking, "winner": activations[0]}
    return pd.DataFrame(members), pd.concat(curves), summary | {"comparisons": comparisons}


def health_of(members: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Health whose values name their moment, layer and measure; gradients lie around 0.5 as ratios do."""
    rows = members[["trial", "activation", "learning_rate", "repeat", "fold", "inner"]]
    parts = []
    for layer in range(1, n_layers + 1):
        for place, moment in enumerate(("start", "best", "end")):
            value = layer / 100 + place / 10
            ratio = np.where(np.arange(len(rows)) % 2, 0.25, 1.0)
            own = rows.assign(layer=layer, moment=moment, dead=value, saturated=value + 0.001, mean_output=-value)
            parts.append(own.assign(gradient_ratio=ratio))
    return pd.concat(parts)


def bins_of(n_layers: int) -> pd.DataFrame:
    """Pre-activations of layers: 40 bins from -2 to 2, counts that name layer and moment."""
    edges = np.linspace(-2, 2, 41)
    parts = [
        pd.DataFrame({"layer": layer, "moment": moment, "low": edges[:-1], "high": edges[1:]}).assign(
            count=np.arange(40) + layer + (100 if moment == "best" else 0)
        )
        for layer in range(1, n_layers + 1)
        for moment in ("start", "best")
    ]
    return pd.concat(parts)


def png_of(n_bytes: int) -> bytes:
    """A picture of 3 x 2 points, and bytes behind it up to a size."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    Figure(figsize=(3, 2), dpi=1).savefig(buffer, format="png", dpi=1)
    return buffer.getvalue().ljust(n_bytes, b"\0")


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag to (step, value) of a run, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(run.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault(value.tag, []).append((event.step, make_ndarray(value.tensor).item()))
    return found


def provider(directory: Path) -> Any:
    """TensorBoard's own view of a log directory."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(directory))


def test_each_activation_has_a_run_with_mean_and_band_of_its_best_rate(tmp_path: Path) -> None:
    members, curves, summary = frames(["relu", "my.layers.Own"], n_epochs=3)
    run = RunDirectory(tmp_path)
    write_comparison(run, members, curves, summary)
    assert sorted(path.name for path in run.tensorboard.iterdir()) == ["my.layers.Own", "relu", "~settings"]
    found = scalars(run.tensorboard / "relu")
    for tag in ("val/log_rmse", "zoom/relu_val"):
        assert found[tag] == [(e, pytest.approx(0.13 + 1 / e)) for e in (1, 2, 3)]
        assert found[f"{tag}_low"] == [(e, pytest.approx(0.11 + 1 / e)) for e in (1, 2, 3)]
        assert found[f"{tag}_high"] == [(e, pytest.approx(0.15 + 1 / e)) for e in (1, 2, 3)]
    assert len(found) == 12


def test_files_and_bytes_are_bounded_for_24_activations_and_6_rates(tmp_path: Path) -> None:
    members, curves, summary = frames([f"activation_{i}" for i in range(24)], n_epochs=1200)
    run = RunDirectory(tmp_path)
    run.figures.mkdir()
    for number in range(60):
        (run.figures / f"{number}.png").write_bytes(png_of(200_000))
    for _ in range(2):
        write_comparison(run, members, curves, summary, {}, health_of(members, 20), bins_of(20))
        write_figures_log(run)
    files = [path for path in run.tensorboard.rglob("*") if path.is_file()]
    assert len(files) == 24 + 24 * 6 + 1
    figures = run.tensorboard / "~figures"
    assert max(path.stat().st_size for path in files if path.parent != figures) < 300_000
    assert sum(path.stat().st_size for path in files) < 13_000_000
    assert sum(path.stat().st_size for path in figures.iterdir()) < tensorboard_log.MAX_FIGURES_BYTES
    assert max(path.stat().st_size for path in (run.tensorboard / "~settings").rglob("*")) < 8_000


def test_health_is_the_mean_of_the_chosen_networks_at_the_epochs_of_their_moments(tmp_path: Path) -> None:
    members, curves, summary = frames(["relu", "silu"], n_epochs=3)
    health = health_of(members, 2)
    # neither the sweep nor settings that validation did not choose count
    health.loc[health.repeat == 0, "dead"] = 1.0
    run = RunDirectory(tmp_path)
    write_comparison(run, members, curves, summary, {}, health)
    found = scalars(run.tensorboard / "silu")
    for layer in (1, 2):
        values = [layer / 100, layer / 100 + 0.1, layer / 100 + 0.2]
        assert found[f"health_dead/layer_{layer}"] == list(zip((0, 40, 52), map(pytest.approx, values), strict=True))
        assert found[f"health_mean_output/layer_{layer}"][1] == (40, pytest.approx(-values[1]))
    # geometric: 4 of ten chosen members have 1, the others 0.25
    assert found["health_gradient_ratio/layer_1"][0][1] == pytest.approx(0.25**0.6)


def test_the_end_is_left_out_where_it_is_the_best_epoch_and_layers_are_bounded(tmp_path: Path) -> None:
    members, curves, summary = frames(["relu"], n_epochs=3)
    run = RunDirectory(tmp_path)
    write_comparison(run, members.assign(epochs=40), curves, summary, {}, health_of(members, MAX_LAYERS + 3))
    found = scalars(run.tensorboard / "relu")
    assert [step for step, _ in found["health_dead/layer_1"]] == [0, 40]
    assert f"health_dead/layer_{MAX_LAYERS}" in found
    assert f"health_dead/layer_{MAX_LAYERS + 1}" not in found


def test_the_winner_alone_has_histograms_and_tensorboard_reads_their_bins(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    members, curves, summary = frames(["relu", "silu"], n_epochs=3)
    run = RunDirectory(tmp_path)
    write_comparison(run, members, curves, summary | {"winner": "silu"}, {}, None, bins_of(2))
    found = {}
    for name in ("relu", "silu"):
        (path,) = (run.tensorboard / name).iterdir()
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "histograms":
                    found[name, value.tag, event.step] = make_ndarray(value.tensor)
    assert list(found) == [("silu", f"pre_activations/layer_{n}", step) for step in (0, 40) for n in (1, 2)]
    bins = found["silu", "pre_activations/layer_2", 40]
    assert bins[:, 0] == pytest.approx(np.linspace(-2, 2, 41)[:-1], abs=1e-6)
    assert bins[:, 1] == pytest.approx(np.linspace(-2, 2, 41)[1:], abs=1e-6)
    assert bins[:, 2].tolist() == (np.arange(40) + 102).tolist()


def test_a_fit_has_no_ranking_and_shows_what_it_trained(tmp_path: Path) -> None:
    members, curves, _ = frames(["relu"], n_epochs=3)
    own = members[members.trial == 0].assign(repeat=0, fold=0)
    run = RunDirectory(tmp_path)
    write_comparison(run, own, curves[curves.trial == 0], {"metric": "log_rmse"}, None, health_of(own, 1), bins_of(1))
    found = scalars(run.tensorboard / "relu")
    assert [step for step, _ in found["val/log_rmse"]] == [1, 2, 3]
    assert [step for step, _ in found["health_dead/layer_1"]] == [0, 40, 52]
    assert len(session_groups(run.tensorboard)) == 1


def test_figures_are_images_and_those_beyond_the_limit_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDirectory(tmp_path)
    run.figures.mkdir()
    for name, n_bytes in (("small", 300), ("large", 5000), ("medium", 1000)):
        (run.figures / f"{name}.png").write_bytes(png_of(n_bytes))
    # of a process that was killed, or is still at it
    (run.figures / ".small.png.x1y2.png").touch()
    write_figures_log(run)
    assert not run.tensorboard.exists()
    run.tensorboard.mkdir()
    monkeypatch.setattr(tensorboard_log, "MAX_FIGURES_BYTES", 4000)
    write_figures_log(run)
    events = EventAccumulator(str(run.tensorboard / "~figures"))
    events.Reload()
    assert events.Tags()["images"] == ["figures/small", "figures/medium"]
    (image,) = events.Images("figures/small")
    assert (image.width, image.height) == (3, 2)
    assert image.encoded_image_string == png_of(300)


def test_custom_scalars_has_one_picture_of_all_and_one_of_each(tmp_path: Path) -> None:
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    members, curves, summary = frames(["relu", "silu"], n_epochs=3)
    run = RunDirectory(tmp_path)
    write_comparison(run, members, curves, summary)
    data = provider(run.tensorboard)
    context = TBContext(logdir=str(run.tensorboard), data_provider=data)
    layout = json.loads(CustomScalarsPlugin(context).layout_impl(RequestContext(), "x"))
    together, alone = layout["category"]
    (band,) = together["chart"][1]["margin"]["series"]
    assert band == {"value": "val/log_rmse", "lower": "val/log_rmse_low", "upper": "val/log_rmse_high"}
    written = {tag for name in ("relu", "silu") for tag in scalars(run.tensorboard / name)}
    series = [series for chart in [*together["chart"], *alone["chart"]] for series in chart["margin"]["series"]]
    assert {tag for entry in series for tag in entry.values()} == written
    assert [chart["title"].split(":")[0] for chart in alone["chart"]] == ["silu", "relu"]


def session_groups(directory: Path) -> list[dict[str, Any]]:
    """Rows of the HParams tab: hyper-parameters and metrics of each session group."""
    from google.protobuf.json_format import MessageToDict
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    context = backend_context.Context(TBContext(logdir=str(directory), data_provider=provider(directory)))
    request = api_pb2.GetExperimentRequest()
    experiment = get_experiment.Handler(RequestContext(), context, "x", request).run()
    ask = api_pb2.ListSessionGroupsRequest(slice_size=1000, start_index=0, allowed_statuses=[0, 1, 2, 3])
    for info in experiment.hparam_infos:
        ask.col_params.add(hparam=info.name)
    for info in experiment.metric_infos:
        ask.col_params.add(metric=info.name)
    response = list_session_groups.Handler(RequestContext(), context, "x", ask).run()
    rows = []
    for group in response.session_groups:
        row = {name: MessageToDict(value) for name, value in group.hparams.items()}
        rows.append(row | {metric.name.tag: metric.value for metric in group.metric_values})
    return rows


def test_hparams_has_one_row_a_setting_with_what_was_raced_of_it(tmp_path: Path) -> None:
    members, curves, summary = frames(["relu", "silu"], n_epochs=3)
    run = RunDirectory(tmp_path)
    write_comparison(run, members, curves, summary)
    rows = {(row["activation"], row["learning_rate"]): row for row in session_groups(run.tensorboard)}
    assert set(rows) == {(a, r) for a in ("relu", "silu") for r in RATES}
    swept = {"activation", "learning_rate", "verdict", "~final/val_log_rmse"}
    for (_, rate), row in rows.items():
        is_raced = rate == 3e-3
        assert set(row) == swept | ({"~final/test_log_rmse", "~final/worse_percent"} if is_raced else set())
        assert row["~final/val_log_rmse"] == pytest.approx(0.13 + abs(np.log10(rate / 3e-3)) / 10)
        if not is_raced:
            assert row["verdict"] == "only swept"
    for name, mean, worse, verdict in (("relu", 0.14, 0.0, "best"), ("silu", 0.141, 2.5, "worse here")):
        row = rows[name, 3e-3]
        assert (row["~final/test_log_rmse"], row["~final/worse_percent"]) == pytest.approx((mean, worse))
        assert row["verdict"] == verdict


def test_hparams_of_a_run_that_tested_nothing_have_no_verdicts() -> None:
    members, _, summary = frames(["relu"], n_epochs=3)
    rows = setting_rows(members, summary | {"comparisons": []}, {})
    assert "verdict" not in rows
    assert "~final/worse_percent" not in rows
    search = setting_rows(members, summary | {"comparisons": [], "command": "search"}, {})
    assert len(search) == members.trial.nunique()
    assert search["~final/test_log_rmse"].tolist().count(pytest.approx(0.14)) == 2


def test_more_hyperparameters_are_shown_only_where_they_differ_and_are_all_there() -> None:
    members, _, summary = frames(["relu"], n_epochs=3)
    extra: dict[int, dict[str, Any]] = {
        trial: {"dropout": trial / 10, "weight_decay": 0.01, "momentum": None if trial else 0.9} for trial in range(6)
    }
    rows = setting_rows(members, summary | {"comparisons": []}, extra)
    assert rows.attrs["hparams"] == ["activation", "learning_rate", "dropout"]
    assert rows["dropout"].dtype == float


def test_settings_that_repeat_stay_apart_diverged_ones_are_counted_and_rows_are_bounded() -> None:
    members, _, summary = frames([f"a{i}" for i in range(40)], n_epochs=3)
    assert len(setting_rows(members, summary, {})) == MAX_SETTINGS
    members = members[members["trial"] < 6].assign(learning_rate=0.01)
    members.loc[members["trial"] == 4, ["diverged", "val_score", "test_score"]] = [True, np.nan, np.nan]
    rows = setting_rows(members, summary | {"command": "search"}, {})
    assert sorted(rows["name"]) == [f"a0 0.01 trial {n}" for n in range(6)]
    assert rows.iloc[-1]["name"] == "a0 0.01 trial 4"
    assert rows.iloc[-1]["~final/diverged"] == 5


def test_a_curve_ends_with_half_of_its_members_and_is_thinned() -> None:
    _, curves, _ = frames(["relu"], n_epochs=4000)
    chosen = curves[curves["trial"] == 2].assign(members=np.where(np.arange(4000) < 2000, 15, 7))
    points = curve_points(chosen, "rmse", "relu")
    assert max(points) <= 2000
    assert len(points) <= MAX_POINTS
    assert curve_points(curves[:0], "rmse", "relu") == {}


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    with closing(EventFile(tmp_path / "events.out.tfevents.x")) as events:
        events.add_scalars(1, {"a": 1.0, "b": float("nan")})
        events.add_scalars(2, {"a": float("inf")})
    assert scalars(tmp_path) == {"a": [(1, 1.0)]}


def test_run_names_are_safe_and_distinct() -> None:
    assert run_name("my.layers.Own") == "my.layers.Own"
    assert "/" not in run_name("../a/b")
    assert run_name("a/b") != run_name("a_b")


def test_writing_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pandas as pd; from actlab.run_files import RunDirectory\n"
        "from actlab.report.tensorboard import *\n"
        "m = pd.DataFrame([dict(trial=0, activation='relu', learning_rate=.1, val_score=1.,\n"
        "    test_score=1., diverged=0, repeat=1)])\n"
        "c = pd.DataFrame([dict(trial=0, activation='relu', learning_rate=.1, epoch=1, members=1, train_mean=1.,\n"
        "    train_sd=0., val_mean=1., val_sd=0.)])\n"
        "summary = {'metric': 'rmse', 'ranking': [dict(activation='relu', learning_rate=.1, mean=1.)]}\n"
        f"write_comparison(RunDirectory({str(tmp_path)!r}), m, c, summary); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
