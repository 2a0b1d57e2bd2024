"""What a search maximises: one number of a run, from its validations during training.

last         the metric of the validation after the last step
best         its largest value after any step, the untrained policy left out
area         its mean over the steps from the first validation to the last, straight lines between validations
hypervolume  the area above `reference` that the validations dominate as points (metric, other metric)
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from recipe.paec.common.errors import UserError
from recipe.paec.scoring.estimators import hypervolume, powers_of_two

TAKES = ("last", "best", "area", "hypervolume")
_METRIC = re.compile(r"val/.+/((?:avg|maj|pass|distinct)@\d+)")


@dataclass(frozen=True)
class Objective:
    """One number of a run; the larger, the better."""

    take: str
    """One of TAKES."""
    of: tuple[str, ...]
    """Metrics of a validation, such as avg@32: one; two for hypervolume. Several validation sets: their mean."""
    reference: tuple[float, float] = (0.0, 0.0)
    """Of the hypervolume: what a validation must exceed in the two metrics to count."""

    def written(self) -> dict[str, Any]:
        """As in the file of a search."""
        point = {"reference": list(self.reference)} if self.take == "hypervolume" else {}
        return {"take": self.take, "of": list(self.of), **point}

    def sentence(self) -> str:
        """What it is, for a caption."""
        return {
            "last": f"{self.of[0]} of the validation after the last step",
            "best": f"the largest {self.of[0]} of the validations during training",
            "area": f"{self.of[0]} of the validations, mean over the steps",
            "hypervolume": f"hypervolume of {' and '.join(self.of)} above {self.reference}",
        }[self.take]

    def check(self, known: Collection[str]) -> None:
        """UserError for a metric that the validations do not record."""
        for metric in self.of:
            if metric not in known:
                close = difflib.get_close_matches(metric, known, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UserError(
                    f"objective.of: {metric} is not a metric of these validations: {hint}They have {', '.join(known)} "
                    "(test problems must not influence the choice)"
                )

    def value(self, lines: Sequence[Mapping[str, Any]], steps: int) -> float:
        """The objective of a finished run.

        Args:
            lines: its metrics, a mapping for each step.
            steps: the run's last step.

        Raises:
            ValueError: a validation lacks a metric, or there was none after the last step.
        """
        curve = [(line["step"], _point(line, self.of)) for line in lines if any(map(_METRIC.fullmatch, line))]
        if not curve or curve[-1][0] != steps:
            raise ValueError(f"there is no validation after step {steps}")
        points = np.array([point for _, point in curve])
        if self.take == "hypervolume":
            return float(hypervolume(points[:, 0], points[:, 1], self.reference))
        values, at = points[:, 0], np.array([step for step, _ in curve])
        if self.take == "last":
            return float(values[-1])
        if self.take == "best":
            return float(values[at > 0].max())
        return float(np.trapezoid(values, at) / (at[-1] - at[0])) if len(at) > 1 else float(values[0])


def _point(line: Mapping[str, Any], metrics: Sequence[str]) -> list[float]:
    """The metrics of one validation, each the unweighted mean over the validation sets."""
    found = []
    for metric in metrics:
        values = [value for key, value in line.items() if (match := _METRIC.fullmatch(key)) and match[1] == metric]
        if not values or None in values:
            raise ValueError(f"the validation of step {line['step']} has no {metric}")
        found.append(fmean(values))
    return found


def metrics_of(samples: int, kinds: Sequence[str]) -> list[str]:
    """The metrics of a validation with so many samples; of `kinds`, pass has every power of two, others only all."""
    return [f"{kind}@{k}" for kind in kinds for k in (powers_of_two(samples) if kind == "pass" else [samples])]


def objective_of(written: Any) -> Objective:
    """The objective that a file describes; UserError if it is invalid."""
    form = "{take: last, of: avg@32} or {take: hypervolume, of: [avg@32, pass@32], reference: [0.3, 0.6]}"
    if not isinstance(written, Mapping) or not {"take", "of"} <= written.keys() <= {"take", "of", "reference"}:
        raise UserError(f"objective: must be like {form}")
    take, of = written["take"], written["of"]
    if take not in TAKES:
        raise UserError(f"objective.take={take}: must be one of {', '.join(TAKES)}")
    metrics = [of] if isinstance(of, str) else of
    if not isinstance(metrics, list) or not all(isinstance(metric, str) for metric in metrics):
        raise UserError(f"objective.of={of}: must be the name of a metric, or of two, as in {form}")
    count = 2 if take == "hypervolume" else 1
    if len(metrics) != count or len(set(metrics)) != count:
        raise UserError(
            f"objective.of: take: {take} needs {['one metric', 'two different metrics'][count - 1]}, as in {form}"
        )
    if "reference" not in written:
        return Objective(take, tuple(metrics))
    point = written["reference"]
    numbers = isinstance(point, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in point
    )
    if take != "hypervolume" or not numbers or len(point) != 2:
        raise UserError(
            f"objective.reference={point}: must be two numbers, and is only for take: hypervolume, as in {form}"
        )
    return Objective(take, tuple(metrics), (float(point[0]), float(point[1])))
