"""Pictures of a finished run for the guides: its report and its TensorBoard in a headless Chromium.

    .venv/bin/python scripts/screenshots.py runs/compare-house_prices

Needs chromium and chromedriver. Every picture is read again, reduced in colours where it is over the limit, and the
script fails where one still is.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from actlab.errors import InputError
from actlab.report.finished import FinishedRun, read_finished
from actlab.report.tensorboard import FRAGMENT

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, find  # noqa: E402

MAX_BYTES = 300_000
# TensorBoard draws in steps after its texts are there.
SETTLE_S = 3.0
# The runs of activations, as a regular expression in an address.
ACTIVATIONS = "%5E%5B%5E~%5D"
WITHOUT_PANE = {"timeSeriesSettingsPaneOpened": False}
# Texts of a page, also those inside the shadow trees that TensorBoard is built of.
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished comparison")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/screenshots", help="where the pictures go")
    asked = parser.parse_args(arguments)
    if not (find("chromium") and find("chromedriver")):
        raise InputError("chromium and chromedriver are needed (Debian: chromium, chromium-driver)")
    run = read_finished(asked.run)
    if not (run.directory.report.is_file() and run.directory.tensorboard.is_dir()):
        raise InputError(f"{asked.run} has no report.html or no tensorboard; its command writes them")
    asked.out.mkdir(parents=True, exist_ok=True)
    for path in [*report_pictures(run, asked.out), *tensorboard_pictures(run, asked.out)]:
        shrink(path)
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def report_pictures(run: FinishedRun, out: Path) -> Iterator[Path]:
    """The top of the page, light and dark, and on a phone."""
    looks = {"report": (1000, 1250, "light"), "report_dark": (1000, 1250, "dark"), "report_phone": (390, 844, "light")}
    with Browser(is_offline=True) as browser:
        for name, (width, height, scheme) in looks.items():
            browser.look(width, height, scheme)
            browser.open(run.directory.report.resolve().as_uri())
            browser.screenshot(out / f"{name}.png")
            yield out / f"{name}.png"


def tensorboard_pictures(run: FinishedRun, out: Path) -> Iterator[Path]:
    """Curves of all activations, the table of settings, and the hidden layers: health and histograms."""
    tabs: dict[str, tuple[str, Callable[[list[str]], bool]]] = {
        "tensorboard": (f"#{FRAGMENT}", lambda texts: any(text.startswith("validation") for text in texts)),
        "tensorboard_hparams": ("#hparams", lambda texts: any("session groups" in text for text in texts)),
        "tensorboard_layers": (
            f"?runFilter={ACTIVATIONS}&tagFilter=health_saturated%7Cpre_activations#timeseries",
            lambda texts: texts.count("/layer_1") > 1,
        ),
    }
    with serving(run.directory.tensorboard) as address, Browser() as browser:
        browser.look(1400, 950)
        browser.open(address)
        browser.run(f"localStorage.setItem('_tb_global_settings', {json.dumps(WITHOUT_PANE)!r})")
        for name, (place, is_there) in tabs.items():
            # by way of an empty page: a change of the fragment alone does not load another tab
            browser.open("about:blank")
            browser.open(address + place)
            browser.until(partial(_shows, browser, is_there), f"page of {name}")
            time.sleep(SETTLE_S)
            browser.screenshot(out / f"{name}.png")
            yield out / f"{name}.png"


def _shows(browser: Browser, is_there: Callable[[list[str]], bool]) -> bool:
    return is_there(browser.run(READ))


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Address of a TensorBoard of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # TensorBoard shows the name that it is given: not where the run lies on this machine
    where, name = directory.resolve().parents[1], f"{directory.resolve().parent.name}/{directory.name}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", name, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=where, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=20)


def shrink(path: Path) -> None:
    """Reduce the colours of a picture that is over the limit.

    Raises:
        InputError: it is over the limit even so.
    """
    for n_colours in (256, 64, 32):
        if path.stat().st_size < MAX_BYTES:
            return
        with Image.open(path) as image:
            reduced: Any = image.convert("RGB").quantize(n_colours)
        reduced.save(path, optimize=True)
    if path.stat().st_size >= MAX_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
