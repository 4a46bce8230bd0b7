"""A headless Chromium for tests, driven by chromedriver's HTTP interface (W3C WebDriver) with the standard library."""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BINARIES = {"chromium": ("chromium", "google-chrome", "chromium-browser"), "chromedriver": ("chromedriver",)}


def find(program: str) -> str | None:
    """Path of Chromium or chromedriver; the environment may name them (CHROMIUM, CHROMEDRIVER)."""
    named = os.environ.get(program.upper())
    return named or next(filter(None, map(shutil.which, BINARIES[program])), None)


class Browser:
    """One page in a browser without a window.

    Args:
        is_offline: Let no name resolve, so that nothing outside this machine is reached.
    """

    def __init__(self, is_offline: bool = False) -> None:
        chromium, driver = find("chromium"), find("chromedriver")
        assert chromium is not None
        assert driver is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen([driver, f"--port={port}", "--silent"], stdout=subprocess.DEVNULL)
        self.address = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
        arguments += ["--host-resolver-rules=MAP * ~NOTFOUND"] if is_offline else []
        wanted = {
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        try:
            self._wait_for_driver(f"http://127.0.0.1:{port}/status")
            answer = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._stop()
            raise
        self.address += f"/{answer['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._stop()

    def _stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)

    def _wait_for_driver(self, status: str) -> None:
        for _ in range(100):
            try:
                with urllib.request.urlopen(status, timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver does not answer")

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        body = None if method != "POST" else json.dumps(content or {}).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """The value that a function with this body returns on the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def errors(self) -> list[str]:
        """What the console has complained of since it was last asked."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def look(self, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Window size in CSS pixels, and what the reader prefers: light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path, is_whole: bool = False) -> None:
        taken = self.devtools(
            "Page.captureScreenshot", format="png", captureBeyondViewport=is_whole, **self._clip(is_whole)
        )
        path.write_bytes(base64.b64decode(taken["data"]))

    def _clip(self, is_whole: bool) -> dict[str, Any]:
        if not is_whole:
            return {}
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.devtools("Page.printToPDF", preferCSSPageSize=True)["data"]))

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
        """Wait for a true value of `condition`, and return it."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.2)
        raise TimeoutError(f"after {timeout_s} s still no {what}")
