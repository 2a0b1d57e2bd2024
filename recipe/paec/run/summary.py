"""The lines a run prints: one per step while it runs, and a summary at the end. Only reads `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

ENTROPY = "actor/entropy"
HBAR = "/selected_entropy"


def accuracy(record: dict[str, Any]) -> dict[str, float]:
    """Validation accuracy in a record: metric path -> avg@n."""
    return {
        key: value for key, value in record.items() if key.startswith("val/") and "/avg@" in key and value is not None
    }


def tail_mean(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """A metric "at the end": its mean over the last tenth of the records, rounded up; None if one is missing there."""
    values = [record.get(key) for record in records[-math.ceil(len(records) / 10) :]]
    return fmean(values) if values and None not in values else None


def anchored(record: dict[str, Any]) -> str | None:
    """Metric prefix of the method with an anchor, `actor/paec/` or a similar method's; None without one."""
    found = (key for key in record if key.startswith("actor/") and key.endswith(HBAR) and "update" not in key)
    return next((key.removesuffix(HBAR) + "/" for key in found), None)


def step_line(record: dict[str, Any], total_steps: int) -> str:
    """One line for one step."""
    parts = [f"step {record['step']:>4}/{total_steps}"]
    method = anchored(record) or ""
    columns = [
        ("reward", "critic/score/mean", ".3f"),
        ("entropy", ENTROPY, ".4f"),
        ("Hbar", method + "selected_entropy", ".4f"),
        ("anchor", method + "anchor", ".4f"),
        ("floor", method + "floor", ".4f"),
        ("penalty", method + "penalty", ".2e"),
        ("grad", "actor/grad_norm", ".3f"),
        ("length", "response_length/mean", ".1f"),
        ("s", "timing_s/step", ".1f"),
    ]
    for label, key, form in columns:
        value = record.get(key)
        if value is not None:
            parts.append(f"{label} {value:{form}}")
    for key, value in accuracy(record).items():
        parts.append(f"{key.removeprefix('val/')} {value:.3f}")
    return "  ".join(parts)


def closing_lines(records: list[dict[str, Any]], files: dict[str, str]) -> list[str]:
    """The summary of a finished run: accuracy before and after, entropies, anchor, floor, where the files are."""
    lines = []
    validated = [(record["step"], accuracy(record)) for record in records if accuracy(record)]
    if validated:
        (first_step, first), (last_step, last) = validated[0], validated[-1]
        for key in last:
            before = f"{first[key]:.3f} (step {first_step})" if key in first else "not measured"
            lines.append(f"  accuracy {key.removeprefix('val/')}: {before} -> {last[key]:.3f} (step {last_step})")
    trained = [record for record in records if ENTROPY in record]
    if trained:
        first, last = trained[0], trained[-1]
        lines.append(f"  token entropy (nats): {first[ENTROPY]:.4f} (step {first['step']}) -> {last[ENTROPY]:.4f}")
        method = anchored(last)
        if method is not None:
            lines.append(
                f"  Hbar, entropy at selected positions: {first[method + 'selected_entropy']:.4f} -> "
                f"{last[method + 'selected_entropy']:.4f}"
            )
            active = sum(record.get(method + "penalty_active", 0.0) or 0.0 for record in trained)
            lines.append(
                f"  anchor {last[method + 'anchor']:.4f}, floor {last[method + 'floor']:.4f}; the penalty was active "
                f"in {int(active)} of {len(trained)} steps"
            )
    return lines + [f"  {label}: {path}" for label, path in files.items()]
