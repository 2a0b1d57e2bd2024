"""Curves drawn with plain characters, for terminals and logs alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

WIDTH, HEIGHT = 64, 10
"""Columns and rows of a drawing, without its axes."""


@dataclass(frozen=True)
class Curve:
    """One quantity over steps."""

    mark: str
    """The character that draws it."""
    label: str
    steps: Sequence[int]
    """Ascending."""
    values: Sequence[float | None]
    """One for each step; None where there is none."""


def drawn(curves: Sequence[Curve], unit: str, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines of text: a legend, the curves over steps between their least and greatest value, and the steps' axis.

    Every column shows the mean of the values that fall into it. Where curves meet, the later one in `curves` is seen.
    Empty if there are fewer than two steps with a value.

    Args:
        unit: in brackets behind the legend; "" for none.
    """
    known = {curve.mark: _known(curve) for curve in curves}
    steps = sorted({step for points in known.values() for step, _ in points})
    if len(steps) < 2:
        return []
    first, last = steps[0], steps[-1]
    columns = min(width, last - first + 1)
    found = {mark: _columns(points, first, last, columns) for mark, points in known.items() if points}
    values = [value for by_column in found.values() for value in by_column.values()]
    low, high = min(values), max(values)
    rows = [[" "] * columns for _ in range(height)]
    for mark, by_column in found.items():
        for column, value in by_column.items():
            rows[height - 1 - _row(value, low, high, height)][column] = mark
    size = max(len(f"{value:.4f}") for value in (low, high))
    at = {0: f"{high:.4f}", height - 1: f"{low:.4f}"}
    legend = ", ".join(f"{curve.mark} {curve.label}" for curve in curves if known[curve.mark])
    axis = f"{first}" + f"step {last}".rjust(max(columns - len(str(first)), len(f" step {last}")))
    return [
        f"{legend} ({unit})" if unit else legend,
        *(f"{at.get(i, ''):>{size}} |{''.join(row).rstrip()}" for i, row in enumerate(rows)),
        f"{'':>{size}} +{'-' * columns}",
        f"{'':>{size}}  {axis}",
    ]


def smoothed(values: Sequence[float | None], width: int) -> list[float | None]:
    """The centred moving average over at most `width` values (odd), fewer at both ends.

    None stays None, and takes the place of what is not finite.
    """
    half = width // 2
    # As fractions the differences of long sums are exact: rounding would be drawn over the whole height.
    exact = [None if value is None or not math.isfinite(value) else Fraction(value) for value in values]
    sums = [*accumulate((value or 0 for value in exact), initial=Fraction(0))]
    counts = [*accumulate((value is not None for value in exact), initial=0)]
    spans = [(max(0, i - half), min(i + half + 1, len(exact))) for i in range(len(exact))]
    return [
        None if value is None else float(sums[stop] - sums[first]) / (counts[stop] - counts[first])
        for value, (first, stop) in zip(exact, spans, strict=True)
    ]


def _known(curve: Curve) -> list[tuple[int, float]]:
    pairs = zip(curve.steps, curve.values, strict=True)
    return [(step, value) for step, value in pairs if value is not None]


def _columns(points: Sequence[tuple[int, float]], first: int, last: int, columns: int) -> dict[int, float]:
    """Column -> mean of the values whose steps fall into it."""
    found: dict[int, list[float]] = {}
    for step, value in points:
        found.setdefault((step - first) * columns // (last - first + 1), []).append(value)
    return {column: sum(values) / len(values) for column, values in found.items()}


def _row(value: float, low: float, high: float, height: int) -> int:
    """Row of a value, 0 at the bottom."""
    return round((value - low) / (high - low) * (height - 1)) if high > low else 0
