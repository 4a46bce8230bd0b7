"""Figures as text: medians with ranges, tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from actlab.printed_tables import PrintedTable, TableColumn, as_markdown, text_column
from benchmarks.plans import Bench


@dataclass(frozen=True)
class Section:
    """A part of the benchmark.

    Args:
        text: Heading, and how it is measured.
        measure: Plain types for the JSON; `measured` is false where it was left out.
        render: Markdown from them.
    """

    text: str
    measure: Callable[[Bench], dict[str, Any]]
    render: Callable[[dict[str, Any]], str]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values), "n": len(values)}


def medians(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each combination of keys, its other values the medians of the rounds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {key: value if key in keys else median([row[key] for row in own]) for key, value in own[0].items()}
        for own in groups.values()
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    return as_markdown(PrintedTable.of([text_column(head[0]), *map(TableColumn, head[1:])], rows)) + "\n"


def span(found: Mapping[str, float], spec: str = ",.0f") -> str:
    """The median with the range of the rounds, or a single round's value."""
    shown = [format(found[key], spec) for key in ("median", "low", "high")]
    return shown[0] if found.get("n") == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def number(value: float | None, spec: str = ".4f") -> str:
    return "-" if value is None else format(value, spec)
