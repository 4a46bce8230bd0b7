"""Measure how fast actlab is, against what people would do and against the machine, and write docs/benchmarks.md.

    python scripts/bench.py quick|full|smoke [--sections NAME,...] [--json FILE] [--output FILE]

One run measures everything, and writes the JSON and the document after each section, so that an interrupted run keeps
what it has. `--sections` measures some anew and keeps the others of an earlier run of the same mode; `--render` writes
the document again from the JSON, measuring nothing.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from actlab.run_files import write_text
from benchmarks.document import SECTIONS, render
from benchmarks.plans import PLANS, Bench
from benchmarks.tasks import N_CORES

PACKAGES = ("torch", "lightning", "torchmetrics", "optuna", "scikit-learn", "skorch", "numpy", "pandas")
FAILED = "it failed"


def about_machine() -> dict[str, Any]:
    """Processor, memory, versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": N_CORES,
        "cpu": cpu_name(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def earlier(json_path: Path, mode: str) -> dict[str, Any]:
    """The sections of an earlier run of the mode, to be kept beside those that are measured anew."""
    found = json.loads(json_path.read_text()) if json_path.exists() else {}
    return found if found.get("mode") == mode else {}


def measure(mode: str, sections: Sequence[str], json_path: Path, output: Path) -> list[str]:
    """Run the sections, writing the JSON and the document after each; returns those that failed."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    bench = Bench(mode)
    before = earlier(json_path, mode) if sections else {}
    command = f"python scripts/bench.py {mode}" + (f" --sections {','.join(sections)}" if sections else "")
    results: dict[str, Any] = {
        "mode": mode,
        "commands": list(dict.fromkeys([*before.get("commands", []), command])),
        "rounds": bench.plan.rounds,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": about_machine(),
        "sections": before.get("sections", {}),
        "section_seconds": before.get("section_seconds", {}),
    }
    for name in sections or SECTIONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        at = time.perf_counter()
        try:
            results["sections"][name] = SECTIONS[name].measure(bench)
        except Exception:
            # an hour of other sections is not lost for one; the exit code tells
            traceback.print_exc()
            results["sections"][name] = {"measured": False, "why": FAILED}
        results["section_seconds"][name] = time.perf_counter() - at
        print(f"{name}: {results['section_seconds'][name]:.0f} s", file=sys.stderr, flush=True)
        write(json_path, json.dumps(results, indent=1) + "\n")
        write(output, render(results))
    return [name for name in sections or SECTIONS if results["sections"][name].get("why") == FAILED]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def section_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return names


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Measure actlab against what people would do and against the machine.")
    parser.add_argument("mode", nargs="?", choices=list(PLANS), default="quick", help="how much (default: quick)")
    parser.add_argument("--sections", type=section_names, default=[], help=f"of {','.join(SECTIONS)} (default: all)")
    parser.add_argument("--json", help="figures (default: runs/bench-MODE.json)")
    parser.add_argument("--output", help="document (default: docs/benchmarks.md; runs/bench-smoke.md for smoke)")
    parser.add_argument("--render", action="store_true", help="write the document from the JSON, measuring nothing")
    asked = parser.parse_args(arguments)
    json_path = Path(asked.json or f"runs/bench-{asked.mode}.json")
    output = Path(asked.output or ("runs/bench-smoke.md" if asked.mode == "smoke" else "docs/benchmarks.md"))
    if asked.render:
        write(output, render(json.loads(json_path.read_text())))
    else:
        failed = measure(asked.mode, asked.sections, json_path, output)
        if failed:
            sys.exit(f"failed, see above: {', '.join(failed)}")
    print(f"{output} and {json_path}")


if __name__ == "__main__":
    main(sys.argv[1:])
