"""Validations in the metrics of a run: accuracy, and the token entropy of the policy that was validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.paec.run.metric_names import ENTROPY

RECORDED = "recorded"
"""Name of the validation in files of `benchmarks.first_run`, which have `entropy` and `accuracy` only."""
MEASURED, NEXT, SAME = "validation", "next step", "same step"
"""Where the entropy of a validated policy comes from, best first.

Its own samples (the laboratory's validations); the log-prob pass of the next training step, which has the same weights;
that of the step before its last update, where there is no next one.
"""


@dataclass(frozen=True)
class Validation:
    """One validation."""

    step: int
    accuracy: float
    """avg@n, a fraction of 1."""
    entropy: float | None
    """Mean token entropy, nats; None if it was not recorded."""
    origin: str | None
    """MEASURED, NEXT or SAME."""


def sources(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Metric prefix of each validation set -> the key of its accuracy: `val/gsm8k` -> `val/gsm8k/avg@8`."""
    keys = dict.fromkeys(key for record in records for key in record)
    found = {}
    for key in keys:
        prefix, _, name = key.rpartition("/")
        if name.startswith("avg@") and prefix.startswith(("val/", "held_out/")):
            found[prefix] = key
    if not found and "accuracy" in keys:
        found[RECORDED] = "accuracy"
    return found


def validations(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Validation]]:
    """The validations of a run on each validation set, by its metric prefix, in the order of the steps."""
    by_step = {record["step"]: record for record in records}
    return {
        prefix: [
            Validation(step, record[key], *entropy_of(by_step, step, prefix))
            for step, record in sorted(by_step.items())
            if record.get(key) is not None
        ]
        for prefix, key in sources(records).items()
    }


def entropy_of(by_step: Mapping[int, Mapping[str, Any]], step: int, prefix: str) -> tuple[float | None, str | None]:
    """(token entropy in nats of the policy after `step`, where it comes from); (None, None) if nothing has it."""
    places = (
        (step, f"{prefix}/entropy", MEASURED),
        *((at, key, origin) for at, origin in ((step + 1, NEXT), (step, SAME)) for key in (ENTROPY, "entropy")),
    )
    for at, key, origin in places:
        value = by_step.get(at, {}).get(key)
        if value is not None:
            return value, origin
    return None, None
