"""Section `startup`: from the command to the first training step."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import Section, span, spread, table
from benchmarks.plans import Bench

TEXT = """## From the command to the first training step

Seconds from the start of the process, turn about; `import lightning.pytorch` alone is what no program on Lightning can
avoid.
"""
# Waits in a thread until the class is there, so that nothing is imported which the command would not import.
FIRST_STEP = """
import os, sys, threading, time

first = threading.Lock()

def done(*args):
    # several pieces begin at the same time: one prints, the others wait for the end
    first.acquire()
    print(time.time(), flush=True)
    os._exit(0)

def watch():
    while not hasattr(sys.modules.get("actlab.networks.population"), "StackTraining"):
        time.sleep(0.005)
    sys.modules["actlab.networks.population"].StackTraining.train = done

threading.Thread(target=watch, daemon=True).start()
from actlab.cli import main
main()
"""
IMPORT = "import lightning.pytorch, os, time; print(time.time(), flush=True); os._exit(0)"


def start_up(config: str, rounds: int) -> dict[str, list[float]]:
    """Seconds from the start of a process to the first training step of a comparison, and to the end of an import."""
    found: dict[str, list[float]] = {"import": [], "first step": []}
    for _ in range(rounds):
        found["import"].append(_until_printed(IMPORT, []))
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["compare", "--config", config, "--out", str(Path(folder) / "run")]
            found["first step"].append(_until_printed(FIRST_STEP, arguments))
    return found


def _until_printed(code: str, arguments: Sequence[str]) -> float:
    started = time.time()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{arguments} failed: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1]) - started


def measure(bench: Bench) -> dict[str, Any]:
    """Both, turn about."""
    seconds = start_up(bench.plan.config, bench.plan.starts)
    return {"command": f"actlab compare --config {bench.plan.config}"} | {
        name: spread(own) for name, own in seconds.items()
    }


def render(found: dict[str, Any]) -> str:
    before, whole = found["import"], found["first step"]
    rows = [
        ("`python -c 'import lightning.pytorch'`", span(before, ".2f")),
        (f"`{found['command']}`", span(whole, ".2f")),
    ]
    later = whole["median"] - before["median"]
    return table(("", "seconds"), rows) + f"\nThe first step comes {later:.1f} s after the import alone.\n"


SECTION = Section(TEXT, measure, render)
