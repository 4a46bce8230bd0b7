"""Section `contestants`: networks per minute of what people would do, and of actlab, on the same work."""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from actlab.members import Member
from benchmarks.frameworks import has_skorch, lightning, scikit_learn, skorch
from benchmarks.markdown import Section, number, span, spread, table
from benchmarks.plain_loop import Processes, plain, plain_fused
from benchmarks.plans import Bench
from benchmarks.stacked import actlab, actlab_one_by_one, vmap
from benchmarks.tasks import N_CORES, Contestant, Task, Trained

# of validation scores, before anything is timed
TOLERANCE = 1e-3
CONTESTANTS: dict[str, tuple[str, Contestant]] = {
    "plain": ("(a) plain torch loop, one network after the other", plain),
    "plain_fused": ("(a) the same with the fused optimiser", plain_fused),
    "lightning": ("(b) one Lightning Trainer a network", lightning),
    "scikit_learn": ("(d) scikit-learn MLPRegressor", scikit_learn),
    "skorch": ("(e) skorch", skorch),
    "vmap": ("(g) torch.func.vmap, fused optimiser", vmap),
    "actlab_1": ("actlab, populations of one", actlab_one_by_one),
    "actlab": ("actlab, one population", actlab),
    "actlab_650": ("actlab, one population", actlab),
}
PROCESSES = "processes"
PROCESSES_TITLE = f"(c) plain loop in {N_CORES} processes of one thread"
TITLES = {
    "article": "The article's network (288-144-72-18-1, batch 24)",
    "comparison": "The default comparison's networks (batch 128, early stopping)",
}
TEXT = """## Against what people would do

Networks trained per minute on the whole machine, on data that are preprocessed already. All contestants start from the
same initial weights, visit the same batches in the same order, use AdamW with the same settings, are scored on the same
validation rows after every epoch and stop early by the same rule; before anything is timed their validation scores
must agree with actlab's (without dropout, whose masks differ). Two differ by their nature: scikit-learn draws its own
weights, stops on rows of its own and has ReLU in place of the activations it lacks; skorch shuffles by itself. Slow
contestants train a sample that is spread evenly over the members; the rate is that of their network epochs, at the
epochs that the largest population's members take on average. Processes are started before the clock.
`torch.func.vmap` gets up to 64 members of equal activation and learning rate at a time.
"""


def differences(task: Task, members: Sequence[Member], processes: Processes) -> dict[str, float]:
    """Largest difference between actlab's validation scores and those of each contestant with the same seeds."""
    ours = actlab(task, members).scores
    contestants: dict[str, Contestant] = {
        "actlab_1": actlab_one_by_one,
        "plain": plain,
        "plain_fused": plain_fused,
        "lightning": lightning,
        PROCESSES: processes,
        "vmap": vmap,
    }
    return {
        name: max(abs(a - b) for a, b in zip(ours, run(task, members).scores, strict=True))
        for name, run in contestants.items()
    }


def measure(bench: Bench) -> dict[str, Any]:
    """Networks per minute of each contestant on both tasks, after a look whether they train the same."""
    found: dict[str, Any] = {}
    for place, (name, task) in enumerate(bench.tasks.items()):
        with Processes(task) as processes:
            without = replace(task, max_epochs=min(3, task.max_epochs))
            members = [replace(member, dropout=0.0) for member in task.sample(4)]
            agreement = differences(without, members, processes)
            worst = max(agreement.values())
            if not worst < TOLERANCE:
                raise RuntimeError(f"the contestants do not train the same networks: {agreement}")
            counts = {key: own[place] for key, own in bench.plan.networks.items()}
            found[name] = {"agreement": agreement, **_race(task, counts, processes, bench.plan.contests)}
    return found


def _race(task: Task, counts: dict[str, int], processes: Processes, rounds: int) -> dict[str, Any]:
    """Rounds in which everyone trains once, one after the other."""
    runs: dict[str, tuple[str, Contestant]] = {**CONTESTANTS, PROCESSES: (PROCESSES_TITLE, processes)}
    asked = {name: count for name, count in counts.items() if name != "skorch" or has_skorch()}
    times: dict[str, list[tuple[float, Trained]]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, count in asked.items():
            members = task.alike(count) if name == "vmap" else task.sample(count)
            started = time.perf_counter()
            trained = runs[name][1](task, members)
            times[name].append((time.perf_counter() - started, trained))
    largest = max(times.values(), key=lambda own: len(own[0][1].epochs))
    epochs = fmean(largest[0][1].epochs)
    rows = {name: _row(runs[name][0], own, epochs) for name, own in times.items()}
    return {"rounds": rounds, "mean_epochs": epochs, "max_epochs": task.max_epochs, "rows": rows}


def _row(title: str, runs: Sequence[tuple[float, Trained]], epochs: float) -> dict[str, Any]:
    """Networks per minute, as if all had as many epochs as the largest population's on average."""
    rates = [60 * sum(trained.epochs) / seconds / epochs for seconds, trained in runs]
    scores = [score for score in runs[0][1].scores if np.isfinite(score)]
    return {
        "title": title,
        "networks": len(runs[0][1].scores),
        **spread(rates),
        "seconds": [seconds for seconds, _ in runs],
        "mean_score": fmean(scores) if scores else None,
    }


def render(found: dict[str, Any]) -> str:
    return "\n".join(_render_task(TITLES[name], task) for name, task in found.items())


def _render_task(title: str, task: dict[str, Any]) -> str:
    best = max(row["median"] for key, row in task["rows"].items() if key.startswith("actlab"))
    rows = [
        (
            row["title"],
            str(row["networks"]),
            span(row),
            f"{best / row['median']:.1f} x",
            number(row["mean_score"]),
        )
        for row in task["rows"].values()
    ]
    head = ("contestant", "networks a round", "networks a minute", "actlab's best is", "mean validation score")
    return (
        f"### {title}, up to {task['max_epochs']} epochs, {task['mean_epochs']:.1f} on average\n\n"
        f"Medians of {task['rounds']} rounds.\n\n"
        + table(head, rows)
        + ("" if "skorch" in task["rows"] else "\nskorch is not installed: not measured.\n")
        + f"\nLargest difference of a validation score before timing: {max(task['agreement'].values()):.1e}. Mean "
        "scores are those of each contestant's own sample, so they differ where samples do.\n"
    )


SECTION = Section(TEXT, measure, render)
