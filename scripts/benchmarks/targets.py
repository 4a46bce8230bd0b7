"""What the benchmark was to show, and what it shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.markdown import table

Sections = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One thing to show.

    Args:
        what: In words.
        section: Where it is measured.
        low: Least value that will do, if any.
        high: Largest value that will do, if any.
        spec: Format of the value.
        unit: Behind it.
        value: The measured value from the section; None where it cannot be told.
    """

    what: str
    section: str
    low: float | None
    high: float | None
    spec: str
    unit: str
    value: Callable[[Any], float | None]

    @property
    def wanted(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:{self.spec}}{self.unit} to {self.high:{self.spec}}{self.unit}"
        if self.low is not None:
            return f"at least {self.low:{self.spec}}{self.unit}"
        return f"at most {self.high:{self.spec}}{self.unit}"

    def row(self, sections: Sections) -> tuple[str, str, str, str]:
        found = sections.get(self.section, {"measured": False})
        value = self.value(found) if found.get("measured", True) else None
        if value is None:
            return self.what, self.wanted, "not measured", "-"
        is_met = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        return self.what, self.wanted, f"{value:{self.spec}}{self.unit}", "yes" if is_met else "no"


def _against(name: str, ours: str = "actlab") -> Callable[[Any], float | None]:
    def ratio(found: Any) -> float | None:
        rows = found["article"]["rows"]
        return rows[ours]["median"] / rows[name]["median"] if {ours, name} <= rows.keys() else None

    return ratio


def _search(found: Any) -> float:
    """How long the example took to be as good; at least, where it never was."""
    reached = found["goal_seconds"]
    return float((found["searched_seconds"] if reached is None else reached) / found["rows"]["pruning on"]["seconds"])


def _lead_of_search(found: Any) -> float:
    rows = found["rows"]
    return float(rows["pruning on"]["best"] - rows["example"]["best"])


def _comparison(name: str) -> Callable[[Any], float | None]:
    return lambda found: found[name]["median"] / found["actlab"]["median"]


def _share(task: str, key: str) -> Callable[[Any], float | None]:
    def least(found: Any) -> float | None:
        own = [row[key] for row in found["rows"] if row["task"] == task and row["members"] >= 32]
        return 100 * min(own) if own else None

    return least


def _slope(axis: str) -> Callable[[Any], float | None]:
    return lambda found: found["axes"].get(axis, {"slopes": {"train_s": None}})["slopes"]["train_s"]


TARGETS = (
    Target(
        "Article's network, networks a minute: times (a) plain loop",
        "contestants",
        8,
        None,
        ".1f",
        " x",
        _against("plain"),
    ),
    Target("- times (b) one Lightning Trainer a network", "contestants", 16, None, ".1f", " x", _against("lightning")),
    Target("- times (c) the plain loop in processes", "contestants", 3.5, None, ".1f", " x", _against("processes")),
    Target("- times (g) torch.func.vmap", "contestants", 2, None, ".1f", " x", _against("vmap")),
    Target("- one member alone: times (a)", "contestants", 1, None, ".2f", " x", _against("plain", "actlab_1")),
    Target(
        "Search with pruning, to an equal value: times (f)",
        "search",
        20,
        None,
        ".1f",
        " x",
        _search,
    ),
    Target("- best value, less the example's (validation log-RMSE)", "search", None, 0.001, ".4f", "", _lead_of_search),
    Target(
        "Default comparison, command to answer: times (b)", "comparison", 8, None, ".1f", " x", _comparison("lightning")
    ),
    Target("- times (c)", "comparison", 2.5, None, ".1f", " x", _comparison("processes")),
    Target(
        "Share of the matrix product's rate, batch 128, 32 members or more",
        "limits",
        60,
        None,
        ".0f",
        " %",
        _share("batch of 128", "matrix_share"),
    ),
    Target(
        "Share of the roofline, batch 24, 32 members or more",
        "limits",
        70,
        None,
        ".0f",
        " %",
        _share("batch of 24", "roofline_share"),
    ),
    Target("Growth of training with members, exponent", "growth", 0.9, 1.1, ".2f", "", _slope("members")),
    Target("Growth of training with rows, exponent", "growth", 0.9, 1.1, ".2f", "", _slope("rows")),
    Target(
        "First training step after `import lightning.pytorch` alone",
        "startup",
        None,
        2.5,
        ".1f",
        " s",
        lambda found: found["first step"]["median"] - found["import"]["median"],
    ),
    Target(
        "Comparison on 1,000,000 rows x 100 columns, peak memory",
        "large",
        None,
        6,
        ".1f",
        " GB",
        lambda found: found["peak_bytes"] / 1e9,
    ),
)


def render(sections: Sections) -> str:
    """A table of all targets; what was missed says no."""
    rows = [target.row(sections) for target in TARGETS]
    return "## What it was to show\n\n" + table(("", "wanted", "measured", "met"), rows)
