"""scripts/bench.py: its contestants train the same networks, its figures are computed right, its document renders."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

SCRIPTS = Path(__file__).parents[1] / "scripts"
MODULES = ("contest", "document", "frameworks", "gpu", "growth", "growth_point", "phases", "plain_loop", "plans")
MODULES += ("roofline", "stacked", "targets", "tasks")


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """The modules of the benchmark, which lie beside the scripts and are not installed."""
    sys.path.insert(0, str(SCRIPTS))
    loaded = {name: importlib.import_module(f"benchmarks.{name}") for name in MODULES}
    yield SimpleNamespace(bench=importlib.import_module("bench"), **loaded)
    sys.path.remove(str(SCRIPTS))
    for name in ("bench", "benchmarks", *(f"benchmarks.{name}" for name in MODULES)):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def article(scripts: Any, house_csv: str) -> Any:
    """Two epochs of the article's task on a tenth of its rows."""
    task = scripts.tasks.article_task(house_csv, "SalePrice", 8, 2)
    return fewer_rows(task)


def fewer_rows(task: Any) -> Any:
    data = {
        split: replace(own, rows=replace(own.rows, training=own.rows.training[:100]))
        for split, own in task.data.items()
    }
    return replace(task, data=data)


@pytest.mark.parametrize("name", ["plain", "plain_fused", "lightning", "vmap", "actlab_1"])
def test_every_contestant_reaches_the_losses_of_the_population(scripts: Any, article: Any, name: str) -> None:
    members = article.members[:4]
    expected = scripts.stacked.actlab(article, members)
    found = scripts.contest.CONTESTANTS[name][1](article, members)
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)
    assert found.epochs == expected.epochs == [2] * 4


def test_processes_reach_the_losses_of_the_population(scripts: Any, article: Any) -> None:
    expected = scripts.stacked.actlab(article, article.members[:2])
    with scripts.plain_loop.Processes(article, 1) as processes:
        found = processes(article, article.members[:2])
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)


def test_contestants_stop_early_at_the_same_epoch(scripts: Any, article: Any) -> None:
    # validation rows of the opposite sign: what is learned makes them worse from the first epoch on
    data = {split: replace(own, targets=own.targets.clone()) for split, own in article.data.items()}
    for own in data.values():
        own.targets[torch.from_numpy(own.rows.validation)] *= -1
    task = replace(article, data=data, max_epochs=6, optimizer=replace(article.optimizer, patience=2))
    for name in ("actlab", "plain", "lightning", "vmap"):
        assert scripts.contest.CONTESTANTS[name][1](task, article.members[1:3]).epochs == [3, 3], name


def test_scikit_learn_learns_on_the_same_task(scripts: Any, article: Any) -> None:
    task = replace(article, max_epochs=10, optimizer=replace(article.optimizer, patience=10))
    found = scripts.frameworks.scikit_learn(task, article.members[1:2])
    assert found.scores[0] < 1
    assert found.epochs == [10]


def test_skorch_learns_on_the_same_task(scripts: Any, article: Any) -> None:
    pytest.importorskip("skorch")
    task = replace(article, max_epochs=10, optimizer=replace(article.optimizer, patience=10))
    found = scripts.frameworks.skorch(task, article.members[1:2])
    assert found.scores[0] < 1
    assert found.epochs == [10]


def test_a_comparisons_members_are_those_that_it_trains(scripts: Any, small_csv: str) -> None:
    from actlab.config import parse

    flags = ["--compare.activations", "[relu, maxout]", "--compare.folds", "2", "--data.csv", small_csv]
    configuration = parse("compare", [*flags, "--data.target", "price", "--trainer.max_epochs", "2"])
    task = scripts.tasks.comparison_task(configuration)
    assert len(task.members) == 2 * 5 * 2 * 2
    assert len({member.activation for member in task.sample(2)}) == 2
    alike = task.alike(8)
    assert len(alike) == 8
    assert len({(member.activation, member.learning_rate) for member in alike}) == 2
    expected = scripts.stacked.actlab(task, alike)
    assert scripts.stacked.vmap(task, alike).scores == pytest.approx(expected.scores, abs=1e-4)


def test_operations_are_those_of_the_matrix_products(scripts: Any, article: Any) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    member = article.members[2]
    model = scripts.plain_loop.network(member, 288)
    with FlopCounterMode(display=False) as counter:
        nn.functional.mse_loss(model(torch.randn(24, 288)).squeeze(-1), torch.randn(24)).backward()  # type: ignore[no-untyped-call]
    assert scripts.roofline.step_flops(member, 288, 24) == counter.get_total_flops()


def test_parts_of_a_fit_add_up(scripts: Any, article: Any) -> None:
    found = scripts.phases.phases(article, article.members[:2])
    total = found.pop("total")
    assert {
        "forward products",
        "backward products",
        "optimiser",
        "gather",
        "validation",
        "logging",
        "Lightning",
    } <= found.keys()
    assert min(found.values()) >= 0
    assert sum(found.values()) == pytest.approx(total)


def test_an_exponent_is_found_above_the_fixed_part(scripts: Any) -> None:
    sizes = [1, 4, 16, 64, 256, 1024]
    for true in (1.0, 1.5):
        assert scripts.growth.exponent(sizes, [3 + 0.02 * n**true for n in sizes]) == pytest.approx(true, abs=0.02)
    assert scripts.growth.exponent(sizes[:3], [1, 2, 3]) is None
    assert scripts.growth.exponent(sizes, [1 + 1e-9 * n for n in sizes]) is None


def test_a_point_of_growth_is_measured(scripts: Any, tmp_path: Path) -> None:
    csv = tmp_path / "generated.csv"
    scripts.growth_point.generate(csv, 60, 3)
    found = scripts.growth_point.measure_point(scripts.growth_point.Point(2, 60, 3, ("relu", "tanh"), 1, 16), str(csv))
    assert found["first_step_s"] >= found["read_s"] > 0
    assert found["peak_bytes"] >= found["imported_bytes"] > 1e7


def test_the_gpu_section_runs_on_any_accelerator(scripts: Any, house_csv: str) -> None:
    found = scripts.gpu.measure("smoke", house_csv, "SalePrice", accelerator="cpu")
    assert found["agreement"]["32-true"] == {"first_epoch": 0.0, "last_epoch": 0.0}
    assert found["agreement"]["bf16-mixed"]["last_epoch"] < 0.1
    assert "| article | bf16-mixed | 4 |" in scripts.gpu.render(found)


def test_no_script_names_a_kind_of_device() -> None:
    for path in (SCRIPTS / "bench.py", *(SCRIPTS / "benchmarks").glob("*.py")):
        assert "cuda" not in path.read_text().lower(), path.name


def spread(value: float) -> dict[str, float]:
    return {"median": value, "low": 0.9 * value, "high": 1.1 * value, "n": 3}


def race() -> dict[str, Any]:
    rows = {
        "plain": {"title": "(a) plain", "networks": 2, **spread(100.0), "seconds": [1.0], "mean_score": 0.2},
        "actlab": {"title": "actlab", "networks": 64, **spread(1200.0), "seconds": [1.0], "mean_score": None},
    }
    return {"agreement": {"plain": 1e-8}, "rounds": 5, "mean_epochs": 10.0, "max_epochs": 10, "rows": rows}


def results() -> dict[str, Any]:
    """A run without a GPU and without the sections that were not asked for."""
    row = {"seconds": 100.0, "seconds_to_level": None, "best": 0.13, "independent_score": 0.14}
    row |= {"params": {"activation": "relu", "learning_rate": 0.002}}
    point = {"members": 1, "rows": 100, "columns": 4, "activations": ["relu"], "epochs": 2, "batch": 128, "n": 3}
    point |= {"size": 1, "read_s": 0.1, "first_step_s": 0.2, "train_s": 1.5, "peak_bytes": 5e8, "imported_bytes": 4e8}
    share = {"matrix_share": 0.6, "copy_share": 0.2, "roofline_share": 0.65, "roofline_share_in_cache": 0.6}
    machine = {"cores": 2, "cpu": "a processor", "memory_bytes": 2**34, "system": "Linux", "load_before": 0.1}
    slopes = {"train_s": 1.02, "first_step_s": None}
    search = {"command": "actlab search", "trials": 2, "splits": 2, "max_epochs": 3, "level": 0.13}
    search |= {"goal": 0.125, "goal_seconds": None, "searched_seconds": 105.0, "searched_best": 0.127}
    return {
        "mode": "full",
        "commands": ["python scripts/bench.py full"],
        "rounds": 5,
        "date": "2026-01-01",
        "machine": {**machine, "versions": {"torch": "2.13.0"}},
        "section_seconds": {"contestants": 600.0},
        "sections": {
            "contestants": {"article": race(), "comparison": race()},
            "search": {**search, "rows": {"example": row, "pruning on": {**row, "seconds": 5.0, "best": 0.125}}},
            "limits": {
                "machines": [{"flops": 8e10, "copy": 2e10, "copy_in_cache": 4e10}],
                "rows": [{"task": "batch of 24", "members": 64, "step_us": 80.0, "fit_step_us": 90.0, **share}],
            },
            "growth": {"rounds": 5, "axes": {"members": {"points": [point], "slopes": slopes}}},
            "startup": {"command": "actlab compare", "import": spread(5.0), "first step": spread(7.0)},
            "gpu": {"measured": False, "why": "no GPU on this machine"},
        },
    }


def test_the_document_says_what_was_measured_and_what_was_not(scripts: Any) -> None:
    text = scripts.document.render(json.loads(json.dumps(results())))
    assert "| (a) plain | 2 | 100 (90 to 110) | 12.0 x | 0.2000 |" in text
    assert "| actlab search, pruning on | 5 | 20.0 x | - | 0.1250 | relu at 0.002 | 0.1400 |" in text
    assert "| batch of 24 | 64 | 80 | 90 | 60% | 20% | 65% | 60% |" in text
    assert "Exponent of training 1.02, of the time to the first step -." in text
    assert "The first step comes 2.0 s after the import alone." in text
    assert "Not measured: no GPU on this machine." in text
    assert text.count("Not measured.") == len({"comparison", "phases", "choices", "large"})
    assert "What was tried and did not help" in text


def test_every_target_is_met_missed_or_not_measured(scripts: Any) -> None:
    found = {target.what: target.row(results()["sections"])[1:] for target in scripts.targets.TARGETS}
    assert found["Article's network, networks a minute: times (a) plain loop"] == ("at least 8.0 x", "12.0 x", "yes")
    assert found["Share of the roofline, batch 24, 32 members or more"] == ("at least 70 %", "65 %", "no")
    assert found["Growth of training with members, exponent"] == ("0.90 to 1.10", "1.02", "yes")
    assert found["Search with pruning, to an equal value: times (f)"] == ("at least 20.0 x", "21.0 x", "yes")
    missing = [what for what, (_, value, met) in found.items() if value == "not measured" and met == "-"]
    assert "Comparison on 1,000,000 rows x 100 columns, peak memory" in missing
    assert "- times (g) torch.func.vmap" in missing


def test_render_writes_the_document_from_the_figures_alone(scripts: Any, tmp_path: Path) -> None:
    figures, document = tmp_path / "bench.json", tmp_path / "benchmarks.md"
    figures.write_text(json.dumps(results()))
    scripts.bench.main(["full", "--render", "--json", str(figures), "--output", str(document)])
    assert document.read_text() == scripts.document.render(results())


def test_sections_that_are_done_survive_one_that_fails_and_are_kept_beside_new_ones(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(bench: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    section = scripts.bench.SECTIONS["large"]
    done = replace(section, measure=lambda bench: {**LARGE, "peak_bytes": 5e9})
    for name in scripts.bench.SECTIONS:
        monkeypatch.setitem(scripts.bench.SECTIONS, name, done if name == "large" else replace(section, measure=fail))
    places = ["--json", str(tmp_path / "bench.json"), "--output", str(tmp_path / "bench.md")]
    with pytest.raises(KeyboardInterrupt):
        scripts.bench.main(["smoke", "--sections", "large,growth", *places])
    assert "peak memory 5.00 GB" in (tmp_path / "bench.md").read_text()
    monkeypatch.setitem(scripts.bench.SECTIONS, "gpu", replace(section, measure=lambda bench: {"measured": False}))
    scripts.bench.main(["smoke", "--sections", "gpu", *places])
    assert set(json.loads((tmp_path / "bench.json").read_text())["sections"]) == {"large", "gpu"}
    assert "--sections large,growth`, then `python scripts/bench.py smoke --sections gpu" in (
        (tmp_path / "bench.md").read_text()
    )


def test_a_section_that_fails_costs_no_other_and_is_told(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(bench: Any) -> dict[str, Any]:
        raise RuntimeError("the contestants do not train the same networks")

    section = scripts.bench.SECTIONS["large"]
    for name in ("large", "gpu"):
        own = fail if name == "large" else lambda bench: {"measured": False}
        monkeypatch.setitem(scripts.bench.SECTIONS, name, replace(section, measure=own))
    places = ["--json", str(tmp_path / "bench.json"), "--output", str(tmp_path / "bench.md")]
    with pytest.raises(SystemExit, match="failed, see above: large"):
        scripts.bench.main(["smoke", "--sections", "large,gpu", *places])
    assert set(json.loads((tmp_path / "bench.json").read_text())["sections"]) == {"large", "gpu"}
    assert "Not measured: it failed." in (tmp_path / "bench.md").read_text()


LARGE = {"measured": True, "command": "actlab compare", "rows": 10, "columns": 2, "csv_bytes": 100, "seconds": 1.0}


def test_an_unknown_section_is_refused(scripts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scripts.bench.main(["smoke", "--sections", "limits,speed"])
    assert "no section speed" in capsys.readouterr().err


def test_points_of_growth_are_measured_in_forks_of_one_process(scripts: Any) -> None:
    points = [scripts.growth.Point(members=n, rows=60, columns=3, epochs=1, batch=16) for n in (1, 2)]
    with scripts.growth.measurer() as process:
        found = [process(point) for point in points]
    assert all(one["train_s"] > 0 and one["peak_bytes"] >= one["imported_bytes"] > 1e7 for one in found)
