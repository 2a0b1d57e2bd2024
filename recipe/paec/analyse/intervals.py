"""Statistics of a few problems, ratios among them, with bootstrap intervals; as JSON and as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recipe.paec.scoring.estimators import LEVEL, RESAMPLES, resampled_means

SEED = 0
"""Of every bootstrap: the same files give the same intervals."""
ROUNDING = 1e-12
"""Relative differences up to this one are rounding."""
UNKNOWN = "-"
"""What a table shows for a value that is not defined."""

Interval = dict[str, float | None]
"""value, low and high; None where one is not defined."""


def constant(values: np.ndarray) -> np.ndarray:
    """Whether [..., N] is the same along the last axis, up to what rounding makes of equal values."""
    return np.ptp(values, -1) <= ROUNDING * np.abs(values).max(-1)


def intervals(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> list[Interval]:
    """Statistics of means over problems, with percentile intervals of a bootstrap over the problems.

    A statistic may be undefined (NaN, as 0/0 is): its value is then None. Resamples in which it is undefined are left
    out; if they are more than 1 - LEVEL of all, or there is only one problem, there is no interval.

    Args:
        values: [P, M] finite, M quantities of P >= 1 problems, which are resampled together.
        statistic: means [..., M] -> [..., K].

    Returns:
        K intervals.
    """
    values = np.asarray(values, float)
    found = statistic(values.mean(0))
    if len(values) < 2:
        return [{"value": _number(value), "low": None, "high": None} for value in found]
    drawn = statistic(resampled_means(values, RESAMPLES, SEED))
    return [interval(value, column) for value, column in zip(found, drawn.T, strict=True)]


def interval(value: float, drawn: np.ndarray) -> Interval:
    """A statistic and the percentiles of its resampled values [R], by the rules of `intervals`."""
    defined = drawn[np.isfinite(drawn)]
    low = high = None
    if np.isfinite(value) and len(defined) >= LEVEL * len(drawn):
        low, high = map(float, np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return {"value": _number(value), "low": low, "high": high}


def mean(values: np.ndarray) -> Interval:
    """The mean of one quantity [P] over problems, with its interval."""
    return intervals(np.asarray(values, float)[:, None], lambda means: means)[0]


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def shown(estimate: Mapping[str, Any] | None, form: str = ".3f") -> str:
    """`0.818 [0.650, 0.941]`; without brackets if there is no interval, UNKNOWN without a value."""
    if estimate is None or estimate["value"] is None:
        return UNKNOWN
    value = f"{estimate['value']:{form}}"
    return value if estimate["low"] is None else f"{value} [{estimate['low']:{form}}, {estimate['high']:{form}}]"


def number(value: float | None, form: str = ".3f") -> str:
    """A number as text, UNKNOWN for None."""
    return UNKNOWN if value is None else f"{value:{form}}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
