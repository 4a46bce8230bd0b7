"""The report: made from files alone, safe against what a CSV holds, saying what the run has and no more."""

import base64
import hashlib
import json
import math
import re
import resource
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from actlab.errors import InputError
from actlab.report.finished import read_finished
from actlab.report.page import (
    are_paired,
    changed,
    page,
    paired_difference,
    score_table,
    unbroken,
    write_report,
    write_side_by_side,
)
from actlab.report.score_figures import repeats_of
from actlab.report.tables import trials_table
from actlab.report.words import WHAT_THE_WORDS_MEAN, answer, repeat_command
from synthetic_runs import make_run

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Texts, ids, headings and the attributes that could load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.ids, self.loads, self.scripts = "", [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.loads.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"]:
            self.scripts.append(data)
        self.text += data


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", 6, 3, target=EVIL)


@pytest.fixture(scope="module")
def html(path: Path) -> str:
    return write_report(path).read_text(encoding="utf-8")


def test_reading_order(html: str) -> None:
    order = ["differences", "matters", "ranking", "rates", "curves", "health", "predictions", "method"]
    assert [found for found in Page(html).ids if found in order] == order


def test_it_opens_with_the_answer_and_names_what_was_fixed(html: str, path: Path) -> None:
    text = Page(html).text
    summary = read_finished(path).summary
    assert text.index(unbroken(answer(summary))) < text.index("What is worse than relu") < text.index("The ranking")
    assert "2.0\N{NO-BREAK SPACE}% of the score" in text
    for words in ("Tanh beats sigmoid.", "supported", "torch", "2.13.0", "share splits, initial seeds", "house "):
        assert words in text


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    loads = Page(html).loads
    assert loads
    assert all(place.startswith(("#", "data:")) for place in loads)
    assert not re.search(r"@import|url\((?!#)", html)


def test_ids_are_unique_although_figures_share_names(html: str) -> None:
    ids = Page(html).ids
    assert len(ids) == len(set(ids))


def test_every_figure_has_a_text_alternative(html: str) -> None:
    assert html.count('<svg role="img" aria-label="') == html.count("<figure>") == 7


def test_a_columns_name_stays_text(html: str) -> None:
    assert EVIL not in html
    found = Page(html)
    assert found.tags.count("script") == 1
    assert EVIL in found.text


@pytest.mark.parametrize("n", [1, 9])
def test_warnings_about_the_table_stand_under_the_answer_and_notes_by_the_data(tmp_path: Path, n: int) -> None:
    path = make_run(tmp_path / "run")
    summary = json.loads((path / "summary.json").read_text())
    said = {"warnings": [f"the target follows from <i>column {i}</i>" for i in range(n)], "notes": ["'k' is the id"]}
    (path / "summary.json").write_text(json.dumps(summary | said))
    html = page(read_finished(path))
    text = Page(html).text
    assert all(one in text for one in said["warnings"])
    assert text.index(said["warnings"][0]) < text.index("What is worse") < text.index(said["notes"][0])
    assert ('<details id="warnings" open>' in html) is (n == 1)


@pytest.mark.parametrize("part", ["id", "activation", "claim"])
def test_no_cell_is_read_as_html(tmp_path: Path, part: str) -> None:
    run = read_finished(make_run(tmp_path / "run", 2, 2))
    if part == "id":
        run.predictions.assign(id=EVIL).to_csv(run.directory.predictions, index=False)  # type: ignore[union-attr]
    text = run.directory.summary.read_text()
    changed_text = {"activation": text.replace('"relu"', json.dumps(EVIL)), "claim": text.replace("Tanh beats", EVIL)}
    run.directory.summary.write_text(changed_text.get(part, text))
    for file in (run.directory.members, run.directory.curves, run.directory.health):
        if part == "activation":
            file.write_text(file.read_text().replace("relu", EVIL))
    html = write_report(run.directory.path).read_text()
    assert EVIL not in html
    assert "alert(1)" in html


def test_only_our_own_script_may_run(html: str) -> None:
    (script,) = Page(html).scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_the_page_is_made_in_seconds_without_torch_and_stays_small(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 24, 6)
    code = (
        "import sys; from actlab.report.page import write_report\n"
        "write_report(sys.argv[1]); print('torch' in sys.modules)"
    )
    # what it would take on a machine that does nothing else
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert (done.stdout, done.stderr) == ("False\n", "")
    # the sweep and the race
    assert len(pd.read_csv(path / "members.csv")) > 24 * 6 * 5 + 24 * 4 * 5
    assert (path / "report.html").stat().st_size < 3e6
    assert seconds < 20


@pytest.mark.parametrize("name", ["health.csv", "predictions.csv", "curves.csv", "config.yaml"])
def test_what_was_not_recorded_is_left_out_and_said(tmp_path: Path, name: str) -> None:
    path = make_run(tmp_path / "run", 2, 2)
    (path / name).unlink()
    html = write_report(path).read_text()
    said = {"health.csv": "did not record the health of the layers", "predictions.csv": "predictions of single rows"}
    assert said.get(name, "") in html


def test_the_guide_has_the_three_sentences_of_the_page(html: str) -> None:
    guide = " ".join((Path(__file__).parents[1] / "docs/read_the_report.md").read_text().split())
    text = Page(html).text
    for sentence in WHAT_THE_WORDS_MEAN:
        said = sentence.format(rope="2.0 %")
        assert said in guide
        assert unbroken(said) in text


def test_every_word_of_the_verdict_stands_in_the_table_with_what_it_is_said_of(html: str, path: Path) -> None:
    found = {row["b"]: row for row in read_finished(path).summary["comparisons"] if row["against"] == "best"}
    assert {row["verdict"] for row in found.values()} == {"as good", "not settled", "worse here", "worse", "diverged"}
    rows = re.findall(r"<tr>(.*?)</tr>", html[html.index("differences-table") :], flags=re.DOTALL)
    for name, one in found.items():
        (row,) = (row for row in rows[:6] if f">{name}<" in row)
        assert str(one["verdict"]) in row
        assert str(one["covers"] or "–") in row


@pytest.mark.parametrize("change", [{"confirmation": None}, {"ci_low": 0.1}])
def test_a_run_that_was_judged_in_another_way_is_refused_in_a_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    path = make_run(tmp_path / "run", 2, 2)
    summary = json.loads((path / "summary.json").read_text())
    if "ci_low" in change:
        summary["ranking"][0] |= change
    else:
        summary |= change
    (path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="is of an earlier version of actlab, which judged in another way: train it"):
        write_report(path)
    with pytest.raises(InputError, match="earlier version"):
        write_side_by_side(make_run(tmp_path / "other", 2, 2), path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protocol": "grid", "n_repeats": 2}, "2 repeats are too few for a verdict, compare.repeats 4 gives one"),
        ({"n_activations": 1}, "there is nothing to compare with"),
        ({"command": "search"}, "a search gives activations unequal numbers of trials, so nothing was tested"),
    ],
)
def test_where_nothing_was_tested_the_page_says_why(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    html = write_report(make_run(tmp_path / "run", **{"n_activations": 3} | options)).read_text()
    assert f"{said.capitalize()}." in html
    assert 'id="differences"' not in html
    assert "differences-table" not in html
    assert 'id="meanings"' not in html


def test_a_search_ranks_and_says_that_nothing_was_tested(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path / "run", 4, 3, command="search")).read_text()
    found = Page(html)
    assert found.ids.index("ranking") < found.ids.index("rates") < found.ids.index("search")
    assert html.count("<figure>") == 7


def test_a_search_names_its_best_trials_with_what_differs_between_them(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 8, 3, command="search"))
    table = trials_table(run.summary)
    assert table is not None
    titles = [column.title for column in table.columns]
    assert titles == ["trial", "activation", "rate", "hidden", "dropout", "weight decay", "validation"]
    scores = [float(row.cells[-1].value) for row in table.rows]
    assert scores == sorted(trial["val_score"] for trial in run.summary["trials"])[: len(scores)]
    best = min(run.summary["trials"], key=lambda trial: trial["val_score"])
    cells = table.rows[0].cells
    assert [cell.text for cell in cells[:2]] == [str(best["trial"]), best["activation"]]
    assert cells[3].text == best["hidden"]
    assert float(cells[4].value) == best["dropout"]
    assert trials_table(read_finished(make_run(tmp_path / "grid", 2, 2)).summary) is None


def test_a_fit_shows_its_networks(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 1, 1)
    (path / "summary.json").write_text(json.dumps({"metric": "log_rmse", "ensemble": {"test_score": 0.12}}))
    text = Page(write_report(path).read_text()).text
    assert "one activation was trained, so nothing is compared" in text
    assert "best epoch" in text
    assert "The ranking" not in text


def test_repeating_names_the_stored_configuration(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "my run", 1, 1))
    again = f"'{tmp_path}/my run-again'"
    said = repeat_command(run.directory, run.command)
    assert said == f"actlab compare --config '{tmp_path}/my run/config.yaml' --out {again}"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is not a directory"),
        (lambda path: path.mkdir(), "is not a run directory"),
        (lambda path: (path.mkdir(), (path / "study.journal").touch()), "is not finished"),
        (lambda path: (path.mkdir(), (path / "summary.json").write_text("{")), "is not JSON"),
        (lambda path: (path.mkdir(), (path / "summary.json").write_text("[]")), "is not the summary of a run"),
        (lambda path: (path.mkdir(), (path / "summary.json").write_text("{}")), "members.csv is not there"),
    ],
)
def test_what_is_no_finished_run_is_refused_in_a_sentence(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "run")
    with pytest.raises(InputError, match=said):
        write_report(tmp_path / "run")


def test_the_page_does_not_depend_on_when_it_is_made(path: Path) -> None:
    run = read_finished(path)
    assert page(run) == page(run)


def test_two_runs_of_the_same_folds_are_paired_by_repeat(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, n, 3, seed=0) for name, n in (("a", 3), ("b", 4))]
    members = pd.read_csv(paths[1] / "members.csv")
    members.assign(test_score=members.test_score * 0.9).to_csv(paths[1] / "members.csv", index=False)
    a, b = map(read_finished, paths)
    assert are_paired(a, b)
    relu, *_, fourth = score_table(a, b).rows
    own, other = (repeats_of(run)["relu"] for run in (a, b))
    assert len(own) == len(other) == 8
    difference, half, n = paired_difference(own, other)
    assert n == 8
    assert float(relu.cells[5].value) == pytest.approx(difference)
    assert relu.cells[6].text == f"{difference - half:+.4f} to {difference + half:+.4f}"
    assert relu.cells[7].text == "8"
    assert [cell.text for cell in fourth.cells[1:3]] == [None, None]
    html = write_side_by_side(*paths).read_text()
    ids = Page(html).ids
    assert len(ids) == len(set(ids))
    assert "mean difference over the repeats that both have" in html


def test_repeats_are_paired_as_far_as_both_have_them_and_few_have_no_interval() -> None:
    a, b = [1.0, 2.0, 4.0, 3.0, 9.0], [1.5, 2.0, 5.0, 4.5]
    found = stats.ttest_1samp([0.5, 0.0, 1.0, 1.5], 0.0)
    difference, half, n = paired_difference(a, b)
    assert (difference, n) == (0.75, 4)
    low, high = found.confidence_interval(0.95)
    assert (difference - half, difference + half) == pytest.approx((low, high))
    difference, half, n = paired_difference(a, b[:3])
    assert (difference, n) == (0.5, 3)
    assert math.isnan(half)


def test_runs_with_other_folds_are_not_paired(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, 2, 2, n_folds=n) for name, n in (("a", 5), ("b", 4))]
    assert "cannot be paired" in write_side_by_side(*paths).read_text()
    different = changed(*map(read_finished, paths))
    assert "protocol.folds: 5 -> 4" in different
    assert not any("looks" in line or "seconds" in line for line in different)


def test_runs_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, 2, 2) for name in ("a", "b"))
    with pytest.raises(InputError, match="are the same run"):
        write_side_by_side(a, a)
    summary = json.loads((b / "summary.json").read_text())
    (b / "summary.json").write_text(json.dumps(summary | {"metric": "rmse"}))
    with pytest.raises(InputError, match="different metrics"):
        write_side_by_side(a, b)
    del summary["ranking"]
    (b / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="is a fit"):
        write_side_by_side(a, b)
