"""Names of metrics in `metrics.jsonl` that more than one module reads, and the unit of Hbar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENTROPY = "actor/entropy"
HBAR = "/selected_entropy"
"""End of the name, after the method's prefix (`summary.anchored`)."""
STEP_TIME = "timing_s/step"
CUT_OFF = "reward/cut_off"
"""Share of a step's responses that are as long as `data.max_response_length`.

verl's `response_length/clip_ratio` counts those that are as long as the longest response of the step.
"""
NATS = "nats"


def hbar_unit(config: Mapping[str, Any], metric: str) -> str:
    """Unit of Hbar, its anchor and its floor: nats, or "" with `method.entropy=normalized`.

    Args:
        config: of the run, resolved; what it does not say is taken for nats.
        metric: name of one of these metrics, `actor/paec/floor`, or the method's prefix, `actor/paec/`.
    """
    also = (config.get("also") or {}).get(metric.split("/")[1])
    kind = (also or {}).get("entropy") or (config.get("method") or {}).get("entropy")
    return "" if kind == "normalized" else NATS
