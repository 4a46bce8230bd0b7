"""scripts/bench.py: its contestants train the same networks, its figures are computed right, its document renders."""

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
NAMES = ("bench", "bench_contestants", "bench_limits", "bench_gpu")


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """The modules of the benchmark, which lie in a folder and not in a package."""
    sys.path.insert(0, str(SCRIPTS))
    import bench
    import bench_contestants
    import bench_gpu
    import bench_limits

    yield SimpleNamespace(bench=bench, contestants=bench_contestants, gpu=bench_gpu, limits=bench_limits)
    sys.path.remove(str(SCRIPTS))
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def article(scripts: Any, house_csv: str) -> Any:
    """Two epochs of the article's task on a tenth of its rows."""
    task = scripts.contestants.article_task(house_csv, "SalePrice", 8, 2)
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
    expected = scripts.contestants.actlab(article, members)
    found = scripts.contestants.CONTESTANTS[name][1](article, members)
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)
    assert found.epochs == expected.epochs == [2] * 4


def test_processes_reach_the_losses_of_the_population(scripts: Any, article: Any) -> None:
    expected = scripts.contestants.actlab(article, article.members[:2])
    with scripts.contestants.Processes(article, 1) as processes:
        found = processes(article, article.members[:2])
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)


def test_contestants_stop_early_at_the_same_epoch(scripts: Any, article: Any) -> None:
    # validation rows of the opposite sign: what is learned makes them worse from the first epoch on
    data = {split: replace(own, targets=own.targets.clone()) for split, own in article.data.items()}
    for own in data.values():
        own.targets[torch.from_numpy(own.rows.validation)] *= -1
    task = replace(article, data=data, max_epochs=6, optimizer=replace(article.optimizer, patience=2))
    for name in ("actlab_64", "plain", "lightning", "vmap"):
        assert scripts.contestants.CONTESTANTS[name][1](task, article.members[1:3]).epochs == [3, 3], name


def test_scikit_learn_learns_on_the_same_task(scripts: Any, article: Any) -> None:
    task = replace(article, max_epochs=10, optimizer=replace(article.optimizer, patience=10))
    found = scripts.contestants.scikit_learn(task, article.members[1:2])
    assert found.scores[0] < 1
    assert found.epochs == [10]


def test_a_comparisons_members_are_those_that_it_trains(scripts: Any, small_csv: str) -> None:
    from actlab.configuration import parse

    flags = ["--compare.activations", "[relu, maxout]", "--compare.folds", "2", "--data.csv", small_csv]
    configuration = parse("compare", "", [*flags, "--data.target", "price", "--trainer.max_epochs", "2"])
    task = scripts.contestants.comparison_task(configuration)
    assert len(task.members) == 2 * 5 * 2 * 2
    assert len({member.activation for member in task.sample(2)}) == 2
    alike = task.alike(8)
    assert len(alike) == 8
    assert len({(member.activation, member.learning_rate) for member in alike}) == 2
    expected = scripts.contestants.actlab(task, alike)
    assert scripts.contestants.vmap(task, alike).scores == pytest.approx(expected.scores, abs=1e-4)


def test_operations_are_those_of_the_matrix_products(scripts: Any, article: Any) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    member = article.members[2]
    model = scripts.contestants.network(member, 288)
    with FlopCounterMode(display=False) as counter:
        nn.functional.mse_loss(model(torch.randn(24, 288)).squeeze(-1), torch.randn(24)).backward()  # type: ignore[no-untyped-call]
    assert scripts.limits.step_flops(member, 288, 24) == counter.get_total_flops()


def test_parts_of_a_fit_add_up(scripts: Any, article: Any) -> None:
    found = scripts.limits.phases(article, article.members[:2])
    total = found.pop("total")
    assert {"forward", "backward", "optimiser", "gather", "validation", "logging", "Lightning"} <= found.keys()
    assert min(found.values()) >= 0
    assert sum(found.values()) == pytest.approx(total)


def test_an_exponent_is_found_above_the_fixed_part(scripts: Any) -> None:
    sizes = [1, 4, 16, 64, 256, 1024]
    for true in (1.0, 1.5):
        assert scripts.limits.exponent(sizes, [3 + 0.02 * n**true for n in sizes]) == pytest.approx(true, abs=0.02)
    assert scripts.limits.exponent(sizes[:3], [1, 2, 3]) is None


def test_a_point_of_growth_is_measured(scripts: Any, tmp_path: Path) -> None:
    csv = tmp_path / "generated.csv"
    scripts.limits.generate(csv, 60, 3)
    found = scripts.limits.measure_point(scripts.limits.Point(2, 60, 3, ("relu", "tanh"), 1, 16), str(csv))
    assert found["first_step_s"] >= found["read_s"] > 0
    assert found["peak_bytes"] >= found["imported_bytes"] > 1e7


def test_the_gpu_section_runs_on_any_accelerator(scripts: Any, house_csv: str) -> None:
    found = scripts.gpu.measure("smoke", house_csv, "SalePrice", accelerator="cpu")
    assert found["agreement"]["32-true"] == {"first_epoch": 0.0, "last_epoch": 0.0}
    assert found["agreement"]["bf16-mixed"]["last_epoch"] < 0.1
    assert "| article | bf16-mixed | 4 |" in scripts.bench.render_gpu(found)


def test_no_script_names_a_kind_of_device(scripts: Any) -> None:
    for name in NAMES:
        assert "cuda" not in (SCRIPTS / f"{name}.py").read_text().lower()


def spread(value: float) -> dict[str, float]:
    return {"median": value, "low": 0.9 * value, "high": 1.1 * value}


def race() -> dict[str, Any]:
    rows = {
        "plain": {"title": "(a) plain", "networks": 2, **spread(100.0), "seconds": [1.0], "mean_score": 0.2},
        "actlab_64": {"title": "actlab", "networks": 64, **spread(1200.0), "seconds": [1.0], "mean_score": None},
    }
    return {"agreement": {"plain": 1e-8}, "mean_epochs": 10.0, "max_epochs": 10, "rows": rows}


def results() -> dict[str, Any]:
    """A run without a GPU and without the sections that were not asked for."""
    row = {"seconds": 100.0, "seconds_to_level": None, "best": 0.13, "independent_score": 0.14}
    params = {"activation": "relu", "learning_rate": 0.002}
    point = {"members": 1, "rows": 100, "columns": 4, "activations": ["relu"], "epochs": 2, "batch": 128}
    point |= {"size": 1, "read_s": 0.1, "first_step_s": 0.2, "train_s": 1.5, "peak_bytes": 5e8, "imported_bytes": 4e8}
    share = {"matrix_share": 0.6, "copy_share": 0.2, "roofline_share": 0.75, "roofline_share_in_cache": 0.7}
    machine = {"cores": 2, "cpu": "a processor", "memory_bytes": 2**34, "system": "Linux", "load_before": 0.1}
    return {
        "command": "python scripts/bench.py full",
        "rounds": 5,
        "date": "2026-01-01",
        "seconds": 600.0,
        "machine": {**machine, "versions": {"torch": "2.13.0"}},
        "sections": {
            "contestants": {"article": race(), "comparison": race()},
            "search": {
                "command": "actlab search",
                "trials": 2,
                "splits": 2,
                "max_epochs": 3,
                "level": 0.13,
                "rows": {"example": {**row, "params": params}, "actlab": {**row, "seconds": 5.0, "params": params}},
            },
            "limits": {
                "machines": [{"flops": 8e10, "copy": 2e10, "copy_in_cache": 4e10}],
                "rows": [{"task": "batch of 24", "members": 64, "step_us": 80.0, "fit_step_us": 90.0, **share}],
            },
            "growth": {"members": {"points": [point], "slopes": {"train_s": 1.02, "first_step_s": None}}},
            "startup": {"import lightning.pytorch": spread(5.0), "actlab compare": spread(7.0)},
            "gpu": {"measured": False, "why": "no GPU on this machine"},
        },
    }


def test_the_document_says_what_was_measured_and_what_was_not(scripts: Any) -> None:
    text = scripts.bench.render(json.loads(json.dumps(results())))
    assert "| (a) plain | 2 | 100 (90-110) | 12.0 x | 0.2000 |" in text
    assert "| actlab | 5 | 20.0 x | - | 0.1300 | relu at 0.002 | 0.1400 |" in text
    assert "| batch of 24 | 64 | 80 | 90 | 60% | 20% | 75% | 70% |" in text
    assert "Exponent of training 1.02, of the time to the first step -." in text
    assert "The first step comes 2.0 s after the import alone." in text
    assert "Not measured: no GPU on this machine." in text
    assert text.count("Not measured.") == len({"comparison", "phases", "choices", "large"})
    assert "What was tried and did not help" in text


def test_render_writes_the_document_from_the_figures_alone(scripts: Any, tmp_path: Path) -> None:
    figures, document = tmp_path / "bench.json", tmp_path / "benchmarks.md"
    figures.write_text(json.dumps(results()))
    scripts.bench.main(["full", "--render", "--json", str(figures), "--output", str(document)])
    assert document.read_text() == scripts.bench.render(results())
