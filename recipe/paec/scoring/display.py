"""Scores as text: benchmark names, column order, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recipe.grading.sources import BENCHMARKS
from recipe.paec.scoring.estimators import Estimate


def in_papers_order(benchmarks: Iterable[str]) -> list[str]:
    """Benchmarks as the columns of a table: the papers' first, then the others in alphabetical order."""
    order = list(BENCHMARKS)
    return sorted(benchmarks, key=lambda name: (order.index(name) if name in order else len(order), name))


def heading(benchmark: str) -> str:
    """A benchmark's name in a table."""
    return BENCHMARKS.get(benchmark, benchmark)


def percent(estimate: Mapping[str, float | None] | Estimate) -> str:
    """`43.3 [30.0, 56.7]`, in percent; without brackets if there is no interval."""
    fields = asdict(estimate) if isinstance(estimate, Estimate) else estimate
    value = f"{100 * fields['value']:.1f}"
    if fields["low"] is None:
        return value
    return f"{value} [{100 * fields['low']:.1f}, {100 * fields['high']:.1f}]"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, header first, the first column left-aligned and the others right; no line breaks in cells."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |\n" for row in cells
    )


def table(scores: Mapping[str, Any]) -> str:
    """The scores of one evaluation as a Markdown table in the papers' column order, in percent with intervals."""
    benchmarks, mean = scores["benchmarks"], scores["average"]
    names = in_papers_order(benchmarks)

    def row(label: str, cell: Callable[[Mapping[str, Any]], str], last: str = "") -> list[str]:
        return [label, *(cell(benchmarks[name]) for name in names), last]

    scored = any("score" in benchmark for benchmark in benchmarks.values())

    def score(benchmark: Mapping[str, Any]) -> str:
        if "score" not in benchmark:
            return ""
        value, low, high = (benchmark["score"][name] for name in ("value", "low", "high"))
        return f"{value:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")

    def share(value: float | None) -> str:
        return "unknown" if value is None else f"{100 * value:.1f}"

    return markdown(
        [
            ["", *map(heading, names), "Avg"],
            row("problems", lambda b: str(b["problems"])),
            row("samples n", lambda b: str(b["samples"])),
            row("avg@n", lambda b: percent(b["avg"]), percent(mean["avg"])),
            row("maj@n", lambda b: percent(b["maj"][str(b["samples"])]), percent(mean["maj"])),
            row("pass@n", lambda b: percent(b["pass"][str(b["samples"])]), percent(mean["pass"])),
            *([row("mean score", score)] if scored else []),
            row("truncated", lambda b: share(b["truncated"])),
            row("unparsable", lambda b: share(b["unparsable"])),
            row("grader failed", lambda b: share(b["grader_timeout"] + b["grader_error"])),
            row("graders disagree", lambda b: share(b["disagreement"])),
            row("mean length", lambda b: "unknown" if b["mean_length"] is None else f"{b['mean_length']:.0f}"),
        ]
    )
