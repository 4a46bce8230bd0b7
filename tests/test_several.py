"""A comparison on several data sets: a run each, the Friedman test across them, and what is refused before training."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from actlab.config import Configuration, DataSets
from actlab.engine.storage import SafeJournalStorage
from actlab.errors import InputError
from actlab.report import several_page as rank_figure
from actlab.report.several import answer, marks_note, print_several, remarks, score_and_rank
from actlab.report.several_page import write_several
from actlab.run_files import RunDirectory, write_json, write_text
from actlab.runs.compare_search import Compare, compare
from actlab.runs.several import compare_several
from actlab.settings import CompareSettings, DataSettings, ModelSettings
from actlab.verdict.across_data_sets import ranks_frame, summarise_data_sets
from synthetic_runs import ORDER
from test_page import EVIL, Page

ACTIVATIONS = ["identity", "relu", "tanh", "silu"]
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small tables, ever less linear."""
    folder = tmp_path_factory.mktemp("tables")
    for bend, name in enumerate(NAMES):
        generator = np.random.default_rng(bend)
        x = generator.normal(size=(60, 2))
        frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1]})
        frame.assign(y=np.exp(x[:, 0] + bend * np.abs(x[:, 1]))).to_csv(folder / f"{name}.csv", index=False)
    return folder


def data_sets(tables: Path, out: Path, names: tuple[str, ...] = NAMES, **compared: Any) -> DataSets:
    protocol = {"activations": ACTIVATIONS, "learning_rates": [0.01], "folds": 2, "repeats": 4, **compared}
    shared = Configuration(
        model=ModelSettings(hidden=[4]),
        compare=CompareSettings(**protocol),
        trainer={"max_epochs": 5, "accelerator": "cpu"},
        out=str(out),
    )
    return DataSets("all", {n: replace(shared, data=DataSettings(f"{tables / n}.csv", "y"), name=n) for n in names})


@pytest.fixture(scope="module")
def finished(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    run, summary = compare_several(data_sets(tables, tmp_path_factory.mktemp("runs") / "all"))
    assert summary is not None
    return run, summary


def own_scores(run: RunDirectory) -> pd.DataFrame:
    """Data sets by activations, from the runs' own rankings."""
    rankings = {name: RunDirectory(run.path / name).read_summary()["ranking"] for name in NAMES}
    return pd.DataFrame({name: {row["activation"]: row["mean"] for row in own} for name, own in rankings.items()}).T


def test_statistic_and_ranks_are_those_of_scipy(finished: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, summary = finished
    scores = own_scores(run)
    reference = stats.friedmanchisquare(*scores.to_numpy().T)
    assert summary["friedman"]["chi_squared"] == pytest.approx(reference.statistic, rel=1e-12)
    assert summary["friedman"]["p"] == pytest.approx(reference.pvalue, rel=1e-12)
    ranks = scores.rank(axis=1)
    for name in NAMES:
        assert summary["ranks"][name] == ranks.loc[name].to_dict()
        assert summary["scores"][name] == scores.loc[name].to_dict()
    assert summary["mean_ranks"] == pytest.approx(ranks.mean().to_dict())
    assert summary["activations"] == sorted(summary["mean_ranks"], key=lambda name: summary["mean_ranks"][name])


def test_critical_difference_is_that_of_the_table(finished: tuple[RunDirectory, dict[str, Any]]) -> None:
    # Demsar (2006), table 5a: q = 2.569 for four; sqrt(4 * 5 / (6 * 3)) = 1.0541
    assert finished[1]["critical_difference"] == pytest.approx(2.569 * 1.0541, abs=2e-3)


def test_the_directory_has_every_file(finished: tuple[RunDirectory, dict[str, Any]]) -> None:
    run, summary = finished
    assert {path.name for path in run.figures.iterdir()} == {"critical_difference.png", "critical_difference.svg"}
    assert run.read_summary() == summary
    pd.testing.assert_frame_equal(pd.read_csv(run.path / "ranks.csv"), ranks_frame(summary))
    for name in NAMES:
        own = RunDirectory(run.path / name)
        for path in (own.config, own.members, own.summary, own.report, own.checkpoint):
            assert path.exists(), path


def test_each_run_is_what_it_would_be_alone(
    finished: tuple[RunDirectory, dict[str, Any]], tables: Path, tmp_path: Path
) -> None:
    alone, _ = compare(replace(data_sets(tables, tmp_path).configurations["two"], out=str(tmp_path / "alone")))
    together = RunDirectory(finished[0].path / "two").read_members()
    pd.testing.assert_frame_equal(alone.read_members().drop(columns="seconds"), together.drop(columns="seconds"))


def test_the_stored_list_gives_the_same_comparison(
    finished: tuple[RunDirectory, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from actlab.config import parse_data_sets

    run, summary = finished
    monkeypatch.setattr(Compare, "train", _must_not)
    again = parse_data_sets(["--config", str(run.config)])
    assert again is not None
    assert list(again.configurations) == list(NAMES)
    assert compare_several(again)[1] == summary


def _must_not(*_: Any) -> None:
    raise AssertionError("nothing was to be trained")


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    finished: tuple[RunDirectory, dict[str, Any]], tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = data_sets(tables, tmp_path / "all")
    train = Compare.train

    def interrupted(self: Compare) -> None:
        if self.configuration.name == "two":
            raise KeyboardInterrupt
        train(self)

    with monkeypatch.context() as patch:
        patch.setattr(Compare, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare_several(asked)
    first = RunDirectory(tmp_path / "all/one")
    before = first.members.stat().st_mtime_ns, first.report.stat().st_mtime_ns
    with pytest.raises(InputError, match="is not finished"):
        write_several(tmp_path / "all")
    _, summary = compare_several(asked)
    assert (first.members.stat().st_mtime_ns, first.report.stat().st_mtime_ns) == before
    assert summary is not None
    assert summary["scores"] == finished[1]["scores"]


def test_runs_that_were_there_before_are_taken_over(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = data_sets(tables, tmp_path / "all", NAMES[:2])
    for name, configuration in asked.configurations.items():
        compare(replace(configuration, out=str(tmp_path / "all" / name)))
    monkeypatch.setattr(Compare, "train", _must_not)
    _, summary = compare_several(asked)
    assert summary is not None
    assert not summary["can_show_difference"]
    assert summary["not_distinguished"] == [summary["activations"]]


def test_another_configuration_is_refused_before_anything_is_trained(
    finished: tuple[RunDirectory, dict[str, Any]], tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, summary = finished
    monkeypatch.setattr(Compare, "execute", _must_not)
    config = run.config.read_text()
    asked = data_sets(tables, run.path)
    asked.configurations["three"] = replace(asked.configurations["three"], seed=8)
    with pytest.raises(InputError, match=r"three holds another run, which differs in seed: 0 -> 8"):
        compare_several(asked)
    with pytest.raises(InputError, match="three would be left out"):
        compare_several(data_sets(tables, run.path, NAMES[:2]))
    assert run.config.read_text() == config
    assert run.read_summary() == summary


def test_a_directory_of_something_else_is_refused(
    finished: tuple[RunDirectory, dict[str, Any]], tables: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="a run on one data set"):
        compare_several(data_sets(tables, finished[0].path / "one"))
    with pytest.raises(InputError, match="holds a comparison on several data sets"):
        compare(replace(data_sets(tables, tmp_path).whole, out=str(finished[0].path)))
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="other files in it"):
        compare_several(data_sets(tables, tmp_path))
    with pytest.raises(InputError, match="is a file"):
        compare_several(data_sets(tables, tmp_path / "letter.txt"))


def test_fresh_is_a_directory_beside(finished: tuple[RunDirectory, dict[str, Any]], tables: Path) -> None:
    from actlab.runs.several import choose_directory

    asked = data_sets(tables, finished[0].path)
    asked.configurations["one"] = replace(asked.whole, fresh=True)
    assert choose_directory(asked).path == finished[0].path.with_name("all-2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compare": CompareSettings(activations=["relu", "tanh", "mish"])}, "different activations .*mish"),
        ({"compare": CompareSettings(activations=[*ACTIVATIONS, "nonsense"])}, "nonsense"),
        ({"data": DataSettings("nowhere.csv", "y")}, "nowhere.csv does not exist"),
        ({"data": DataSettings("one.csv", "y", scaling="standard")}, "one and two are the same table"),
        ({"data": DataSettings("two.csv", "z")}, "no column 'z'"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_leaves_nothing(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Mapping[str, Any], message: str
) -> None:
    monkeypatch.chdir(tables)
    asked = data_sets(tables, tmp_path / "all", NAMES[:2])
    asked.configurations["two"] = replace(asked.configurations["two"], **change)
    with pytest.raises(InputError, match=message):
        compare_several(asked)
    assert list(tmp_path.iterdir()) == []


def test_two_activations_are_refused(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 3 activations, got 2"):
        compare_several(data_sets(tables, tmp_path / "all", activations=["relu", "tanh"]))
    assert list(tmp_path.iterdir()) == []


def test_in_a_database_studies_are_called_by_comparison_and_data_set(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(self: Compare) -> None:
        seen.append(self.study.optuna.study_name)

    monkeypatch.setattr("actlab.runs.experiment.open_storage", lambda url: SafeJournalStorage(tmp_path / "database"))
    monkeypatch.setattr(Compare, "execute", note)
    asked = data_sets(tables, tmp_path / "all", NAMES[:2])
    shared = {name: replace(own, storage="postgresql+psycopg://host/db") for name, own in asked.configurations.items()}
    run, summary = compare_several(replace(asked, configurations=shared))
    assert seen == ["all/one", "all/two"]
    # nothing was trained here, as when another machine has the results
    assert summary is None
    assert not run.summary.exists()


def made_up(n_data_sets: int, n_activations: int, noise: float = 0.0) -> dict[str, Any]:
    """A summary whose activations keep their order up to noise; the last one is shown to be worse everywhere."""
    generator = np.random.default_rng(0)
    names = ORDER[:n_activations]
    summaries = {}
    for i in range(n_data_sets):
        scores = {name: 0.1 + 0.01 * j + noise * generator.normal() for j, name in enumerate(names)}
        order = sorted(scores, key=lambda name: scores[name])
        summaries[f"data_{i}"] = {
            "metric": "log_rmse",
            "data": {"csv": "my.csv", "target": "price", "n_rows": 50},
            "ranking": [{"activation": name, "mean": scores[name]} for name in order],
            "winner": order[0],
            "comparisons": [
                {"against": "best", "a": order[0], "b": order[-1], "verdict": "worse"},
                {"against": "best", "a": order[0], "b": order[-2], "verdict": "worse here"},
            ],
        }
    summary = summarise_data_sets(summaries)
    for entry in summary["data_sets"]:
        entry["answer"] = "On this data nothing is known."
    return summary


def test_two_data_sets_are_said_to_be_too_few_with_the_numbers() -> None:
    summary = made_up(2, 5)
    said = answer(summary)
    # q = 2.728 for five: 2.728 * sqrt(5 * 6 / 12) = 4.31
    assert said.startswith("Over 2 data sets relu has the best mean rank (1 of 5), but 2 data sets cannot tell any two")
    assert "4.31 apart and can lie 4 apart at most" in said


def test_ten_that_agree_name_who_ranks_behind_and_who_is_not_told_apart() -> None:
    summary = made_up(10, 5)
    # 2.728 * sqrt(5 * 6 / 60) = 1.93: ranks 3 to 5 lie further from rank 1
    assert answer(summary) == (
        "Over 10 data sets relu has the best mean rank (1 of 5); tanh, leaky_relu and maxout rank behind it; "
        "no difference from the other 1 is shown."
    )
    assert "few" not in " ".join(remarks(summary))
    assert "few" in " ".join(remarks(made_up(4, 5)))
    assert remarks(summary)[-1] == "Lowest score: relu 10 times."


def test_noise_shows_no_difference_and_joins_all() -> None:
    summary = made_up(6, 5, noise=10.0)
    assert summary["friedman"]["p_permutation"] > 0.05
    assert "but no difference between activations is shown (Friedman test, p = " in answer(summary)
    assert summary["not_distinguished"] == [summary["activations"]]


def test_a_diverged_activation_ranks_last_and_worse_ones_have_marks() -> None:
    summary = made_up(3, 4)
    assert marks_note(summary | {"verdicts": {"data_0": {"tanh": "as good"}}}) == ""
    only = marks_note(summary | {"verdicts": {"data_0": {"tanh": "worse here"}}})
    assert only == "* worse than the best there on these rows"
    shown = [score_and_rank(summary, "data_0", name) for name in summary["activations"]]
    assert shown == ["0.1000 (1)", "0.1100 (2)", "0.1200 (3)*", "0.1300 (4)**"]
    rankings = [[("relu", None), ("tanh", 0.2), ("silu", 0.1)], [("relu", 0.1), ("tanh", 0.2), ("silu", 0.3)]]
    summaries = {
        str(i): {"ranking": [{"activation": name, "mean": mean} for name, mean in ranking], "winner": ranking[-1][0]}
        for i, ranking in enumerate(rankings)
    }
    found = summarise_data_sets(summaries)
    assert found["ranks"] == {"0": {"tanh": 2, "silu": 1, "relu": 3}, "1": {"tanh": 2, "silu": 3, "relu": 1}}


def directory(summary: Mapping[str, Any], path: Path) -> RunDirectory:
    run = RunDirectory(path)
    run.create()
    write_json(run.summary, dict(summary))
    entries = ", ".join(f"{entry['name']}/config.yaml" for entry in summary["data_sets"])
    write_text(run.config, f"data: [{entries}]\n")
    return run


@pytest.mark.parametrize(("n_data_sets", "n_activations"), [(2, 3), (8, 24)])
def test_the_diagram_names_every_activation_once_in_rows_of_their_own(
    tmp_path: Path, n_data_sets: int, n_activations: int
) -> None:
    summary = made_up(n_data_sets, n_activations, noise=0.02)
    figure = rank_figure.critical_difference(summary)
    labels = {
        name: text
        for text in figure.axes[0].texts
        for name in summary["activations"]
        if name in text.get_text().split()
    }
    assert set(labels) == set(summary["activations"])
    for side in ("left", "right"):
        heights = sorted(text.get_position()[1] for text in labels.values() if text.get_ha() == side)
        assert min(np.diff(heights), default=1.0) == pytest.approx(rank_figure.LABEL) or len(heights) == 1
    write_several(directory(summary, tmp_path).path)
    assert (tmp_path / "figures/critical_difference.png").stat().st_size > 5_000


def test_bars_join_the_groups_and_do_not_touch_in_a_row() -> None:
    rows = rank_figure.rows_of_bars([["a", "b", "c"], ["c", "d"], ["d", "e"]], list("abcde"))
    assert rows == [[["a", "b", "c"], ["d", "e"]], [["c", "d"]]]


def test_the_page_stays_offline_links_to_the_runs_and_escapes_names(
    finished: tuple[RunDirectory, dict[str, Any]], tmp_path: Path
) -> None:
    html = finished[0].report.read_text()
    loads = Page(html).loads
    assert [place for place in loads if not place.startswith(("#", "data:"))] == [f"{n}/report.html" for n in NAMES]
    ids = Page(html).ids
    assert len(ids) == len(set(ids))
    assert answer(finished[1]) in Page(html).text
    summary = made_up(3, 3)
    summary["data_sets"][0]["target"] = EVIL
    text = write_several(directory(summary, tmp_path).path).read_text(encoding="utf-8")
    assert EVIL not in text
    assert EVIL in Page(text).text


def test_the_page_is_made_again_from_the_files_without_torch(
    finished: tuple[RunDirectory, dict[str, Any]],
) -> None:
    run, _ = finished
    before = run.report.read_bytes()
    run.report.unlink()
    code = (
        "import sys; from actlab.cli import dispatch; dispatch(['report', sys.argv[1]]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("False", "")
    assert run.report.read_bytes() == before


def test_the_terminal_shows_ranks_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    summary = made_up(3, 4)
    print_several(summary)
    printed = " ".join(capsys.readouterr().out.split())
    assert "relu 1 0.1000 (1) 0.1000 (1) 0.1000 (1)" in printed
    assert answer(summary) in printed
    assert "answer for the luck of the data set" in printed
    assert (
        "** worse than the best there for new rows of that kind, * worse than the best there on these rows" in printed
    )
    assert "data_2: On this data nothing is known." in printed
    print_several(made_up(9, 4))
    assert "the other 4 data sets are in ranks.csv" in " ".join(capsys.readouterr().out.split())
