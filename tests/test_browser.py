"""The report and TensorBoard as a reader sees them: in a headless Chromium, the report without any network."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

from actlab.report.finished import read_finished
from actlab.report.page import write_report, write_side_by_side
from actlab.report.tensorboard import FRAGMENT, write_comparison
from browser import Browser, find
from synthetic_runs import NEVER_ENTERED, ORDER, make_run

EVIL = "<script>alert(1)</script>"
# one diverged at every learning rate of the sweep
RACED = tuple(name for place, name in enumerate(ORDER) if place != NEVER_ENTERED)
# Texts that are drawn, also those inside the shadow trees that TensorBoard is built of.
READ = """
const texts = [];
const walk = (node) => {
  if (node.nodeType === Node.TEXT_NODE) { if (node.textContent.trim()) texts.push(node.textContent.trim()); return; }
  if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) return;
  if (node.shadowRoot) walk(node.shadowRoot);
  node.childNodes.forEach(walk);
};
walk(document.body);
return texts;
"""


def need_a_browser() -> None:
    if find("chromium") and find("chromedriver"):
        return
    missing = "needs Chromium and chromedriver (Debian: chromium, chromium-driver)"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="module")
def offline() -> Iterator[Browser]:
    need_a_browser()
    with Browser(is_offline=True) as browser:
        yield browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder / "one", 24, 6, target=EVIL), make_run(folder / "two", 3, 3)


@pytest.fixture(scope="module")
def report(runs: tuple[Path, Path]) -> str:
    return write_report(runs[0]).as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_fits_its_window_without_complaints(offline: Browser, report: str, width: int, scheme: str) -> None:
    offline.look(width, scheme=scheme)
    offline.open(report)
    assert offline.run("return document.documentElement.scrollWidth") <= width
    assert offline.errors() == []
    requested = offline.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in requested if not name.startswith("data:")] == []
    contrasts = offline.run(CONTRASTS)
    assert contrasts
    assert min(contrasts) > 4.5


CONTRASTS = """
const light = (colour) => {
  const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
  const [r, g, b] = parts.map((p) => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = light(getComputedStyle(document.body).backgroundColor);
const drawn = "#differences svg text, #ranking svg text, ";
const texts = document.querySelectorAll(drawn + "p, a, li, td, th, figcaption, dt, summary, td span");
return [...texts].map((text) => {
  const style = getComputedStyle(text);
  const ink = light(text.tagName === "text" ? style.fill : style.color);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
});
"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_a_searchs_report_fits_its_window_too(offline: Browser, tmp_path: Path, width: int) -> None:
    offline.look(width)
    offline.open(write_report(make_run(tmp_path / "search", 24, 6, command="search", target=EVIL)).as_uri())
    assert offline.run("return document.documentElement.scrollWidth") <= width
    assert offline.run("return document.querySelectorAll('#search svg').length") == 2
    assert offline.errors() == []


@pytest.mark.slow
def test_tables_sort_both_ways_with_empty_cells_last(offline: Browser, report: str) -> None:
    offline.open(report)
    column = "[...document.querySelectorAll('#ranking-table tbody tr')].map((row) => row.cells[{}].dataset.value)"
    click = "document.querySelectorAll('#ranking-table th button')[{}].click(); return "
    # two diverged
    *means, last, no_score = offline.run(click.format(3) + column.format(3))
    assert (last, no_score) == ("", "")
    assert list(map(float, means)) == sorted(map(float, means))
    assert offline.run(click.format(3) + column.format(3)) == [*means[::-1], "", ""]
    assert offline.run(click.format(1) + column.format(1)) == sorted(ORDER, key=lambda name: name.replace("_", "!"))
    assert offline.run("return document.querySelectorAll('#ranking-table th[aria-sort=ascending]').length") == 1
    # the spread over repeats
    emptied = "document.querySelector('#ranking-table tbody tr').cells[7].dataset.value = ''; "
    for _ in range(2):
        assert offline.run(emptied + click.format(7) + column.format(7))[-3:] == [""] * 3
        emptied = ""
    assert offline.errors() == []


@pytest.mark.slow
def test_a_columns_name_stays_text_and_no_foreign_script_runs(offline: Browser, report: str) -> None:
    offline.open(report)
    assert EVIL in offline.run("return document.querySelector('h1').textContent")
    assert offline.run("return document.scripts.length") == 1
    offline.run("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    assert offline.run("return window.ran") is None
    assert "Content Security Policy" in " ".join(offline.errors())


@pytest.mark.slow
def test_printing_unfolds_and_fills_pages(offline: Browser, report: str, tmp_path: Path) -> None:
    offline.open(report)
    offline.pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert offline.run("return document.querySelector('details').open")
    assert offline.errors() == []


@pytest.mark.slow
def test_two_runs_stand_side_by_side(offline: Browser, runs: tuple[Path, Path]) -> None:
    offline.look(1200)
    offline.open(write_side_by_side(*runs).as_uri())
    left, right = offline.run(
        "return [...document.querySelectorAll('#answers > div')].map((one) => one.getBoundingClientRect().left)"
    )
    assert left < right
    assert offline.run("return document.documentElement.scrollWidth") <= 1200
    assert offline.errors() == []


@pytest.fixture(scope="module")
def tensorboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a TensorBoard with 24 activations x 6 rates x 15 members."""
    need_a_browser()
    run = read_finished(make_run(tmp_path_factory.mktemp("runs") / "run", 24, 6))
    assert run.curves is not None
    edges = np.linspace(-3, 3, 41)
    bins = pd.DataFrame({"layer": 1, "low": edges[:-1], "high": edges[1:], "count": range(40)})
    bins = pd.concat([bins.assign(moment=moment) for moment in ("start", "best")])
    write_comparison(run.directory, run.members, run.curves, run.summary, {}, run.health, bins)
    write_report(run.directory.path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--logdir", str(run.directory.tensorboard), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "tensorboard.main", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as there:
            if there.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("TensorBoard does not answer")


@pytest.fixture
def online(tensorboard: str) -> Iterator[tuple[Browser, str]]:
    with Browser() as browser:
        browser.look(1400, 1000)
        yield browser, tensorboard


def texts_with(browser: Browser, is_there: Callable[[list[str]], Any], what: str) -> list[str]:
    found: list[str] = []

    def look() -> bool:
        found[:] = browser.run(READ)
        return bool(is_there(found))

    browser.until(look, what)
    return found


@pytest.mark.slow
def test_tensorboard_shows_the_custom_charts_of_every_activation(online: tuple[Browser, str]) -> None:
    browser, address = online
    start = time.perf_counter()
    browser.open(f"{address}#{FRAGMENT}")
    together = "validation log-RMSE, mean ± 1 standard deviation over networks"
    drawn = {f"val/log_rmse ({name})" for name in RACED}
    texts = texts_with(browser, lambda texts: together in texts and drawn <= set(texts), "chart of all activations")
    seconds = time.perf_counter() - start
    assert {f"{name}: validation and training log-RMSE" for name in RACED} <= set(texts)
    assert set(RACED) <= set(texts)
    # to be read with pytest -s: a limit would make a busy machine's load a failure
    print(f"the first page took {seconds:.1f} s")


@pytest.mark.slow
def test_tensorboard_lists_every_activations_run(online: tuple[Browser, str]) -> None:
    browser, address = online
    browser.open(f"{address}?runFilter={quote('^[^~]')}#timeseries")
    texts = texts_with(browser, lambda texts: set(RACED) <= set(texts), "run of every activation")
    assert "val" in texts or any(text.startswith("val/") for text in texts)
    assert not any(text.startswith("~settings") for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "cards"),
    [("health_saturated", ["/layer_1", "/layer_2", "/layer_3"]), ("pre_activations", ["/layer_1"]), ("figures", None)],
)
def test_tensorboard_shows_health_histograms_and_figures(
    online: tuple[Browser, str], tag: str, cards: list[str] | None
) -> None:
    browser, address = online
    browser.open(f"{address}?tagFilter={tag}#timeseries")
    names = cards or [f"/{name}" for name in ("curves", "differences", "health")]
    texts = texts_with(browser, lambda texts: set(names) <= set(texts), f"card of {tag}")
    if cards:
        assert [text for text in texts if text.startswith("/layer")] == cards


@pytest.mark.slow
def test_tensorboard_has_a_row_of_hyperparameters_for_each_setting(online: tuple[Browser, str]) -> None:
    browser, address = online
    browser.open(f"{address}#hparams")
    texts = texts_with(browser, lambda texts: "celu 0.0003" in texts, "table of settings")
    assert "Number of matching session groups: 144" in texts
    at = texts.index("celu 0.0003")
    assert texts[at + 1 : at + 4] == ["celu", "0.00030000", "only swept"]
    assert float(texts[at + 4]) > 0
    headings = texts[texts.index("Show Metrics") + 1 : at]
    assert headings[:5] == ["activation", "learning_rate", "verdict", "validation", "test"]
    assert headings[5:] == ["worse than the best, %", "diverged"]
    at = texts.index("celu 0.003")
    assert texts[at + 1 : at + 4] == ["celu", "0.0030000", "worse"]
    cells = texts[at + 4 : at + 8]
    assert all(float(cell) >= 0 for cell in cells)
