"""The lines a run prints: one per step while it runs, and a summary at the end. Only reads `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from recipe.paec.run.drawing import HEIGHT, WIDTH, Curve, drawn, smoothed
from recipe.paec.run.metric_names import ENTROPY, HBAR, NATS, STEP_TIME, hbar_unit


def is_training_step(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a training step, not of a validation alone; without a log-prob pass it has no entropy."""
    return STEP_TIME in record or ENTROPY in record


def accuracy(record: dict[str, Any]) -> dict[str, float]:
    """Validation accuracy in a record: metric path -> avg@n."""
    return {
        key: value for key, value in record.items() if key.startswith("val/") and "/avg@" in key and value is not None
    }


def last_tenth(values: Sequence[Any]) -> Sequence[Any]:
    """The last tenth of the values, their number rounded up."""
    return values[-math.ceil(len(values) / 10) :]


def tail_mean(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """A metric "at the end": its mean over the last tenth of the records, rounded up; None if one is missing there."""
    values = [record.get(key) for record in last_tenth(records)]
    return fmean(values) if values and None not in values else None


def anchored(record: Mapping[str, Any]) -> str | None:
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
        ("s", STEP_TIME, ".1f"),
    ]
    for label, key, form in columns:
        value = record.get(key)
        if value is not None:
            parts.append(f"{label} {value:{form}}")
    for key, value in accuracy(record).items():
        parts.append(f"{key.removeprefix('val/')} {value:.3f}")
    return "  ".join(parts)


def _anchored_method(records: Sequence[Mapping[str, Any]]) -> str | None:
    """`anchored` of the first of these records that has it."""
    return next((found for record in records if (found := anchored(record))), None)


def entropy_curves(records: Sequence[Mapping[str, Any]], grpo: Sequence[dict[str, Any]] = ()) -> list[Curve]:
    """Token entropy of a run's training steps, with the method's Hbar and floor and the entropy of a recorded GRPO run.

    Args:
        records: of the run.
        grpo: lines of `reference_run.grpo_of`; those after the run's last step are left out.
    """
    trained = [record for record in records if ENTROPY in record]
    method = _anchored_method(trained)
    steps = [record["step"] for record in trained]
    keys = [("*", "token entropy", ENTROPY)]
    if method is not None:
        keys = [("-", "floor", method + "floor"), *keys, ("o", "Hbar", method + "selected_entropy")]
    curves = [Curve(mark, label, steps, [record.get(key) for record in trained]) for mark, label, key in keys]
    having = [line for line in grpo if "entropy" in line and steps and line["step"] <= steps[-1]]
    if having:
        values = [line["entropy"] for line in having]
        curves.insert(0, Curve(".", "GRPO's token entropy, recorded", [line["step"] for line in having], values))
    return curves


def drawings(
    records: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    grpo: Sequence[dict[str, Any]] = (),
    columns: int = WIDTH,
    rows: int = HEIGHT,
) -> list[str]:
    """The lines that draw `entropy_curves`: token entropy by itself, and Hbar with its floor, which is far above it.

    Moving averages over a fifteenth of the steps: from step to step they go up and down by as much as runs differ.
    """
    curves = entropy_curves(records, grpo)
    window = max((len(curve.steps) for curve in curves), default=0) // 15
    window += 1 - window % 2  # odd
    means = f"means of {window} steps" if window > 1 else ""
    smooth = [replace(curve, values=smoothed(curve.values, window)) for curve in curves]
    method = _anchored_method(records)
    lines = []
    for marks, unit in ((".*", NATS), ("-o", hbar_unit(config, method) if method else "")):
        pair = [curve for curve in smooth if curve.mark in marks]
        lines += drawn(pair, ", ".join(filter(None, (unit, means))), columns, rows)
    return lines


def beside_grpo(records: Sequence[dict[str, Any]], grpo: Sequence[dict[str, Any]]) -> list[str]:
    """A run beside a recorded GRPO run of the same seed, over the steps that both have; empty without any.

    Token entropy is the mean over the last tenth of those steps, rounded up: a step's own goes up and down by as much
    as the runs differ. Accuracy is that of the last validation that both have.
    """
    lines = []
    for label, key, form in (("token entropy", "entropy", ".4f"), ("accuracy", "accuracy", ".3f")):
        own = {record["step"]: value for record in records if (value := _beside(record, key)) is not None}
        theirs = {line["step"]: line[key] for line in grpo if key in line}
        if both := sorted(own.keys() & theirs.keys()):
            at = last_tenth(both) if key == "entropy" else both[-1:]
            where = f"at step {at[0]}" if len(at) == 1 else f"in steps {at[0]} to {at[-1]}"
            here, there = (f"{fmean(of[step] for step in at):{form}}" for of in (own, theirs))
            lines.append(f"  {label} {where}: {here} here, {there} with GRPO (recorded)")
    return lines


def _beside(record: dict[str, Any], key: str) -> float | None:
    return record.get(ENTROPY) if key == "entropy" else next(iter(accuracy(record).values()), None)


def closing_lines(
    records: list[dict[str, Any]],
    files: dict[str, str],
    config: Mapping[str, Any],
    grpo: Sequence[dict[str, Any]] = (),
) -> list[str]:
    """The summary of a finished run: accuracy before and after, entropies, anchor, floor, where the files are.

    Args:
        records: of the run.
        files: label -> path.
        config: of the run, resolved.
        grpo: a recorded GRPO run of the same seed (`reference_run.grpo_of`), which it is then shown beside.
    """
    lines = []
    validated = [(record["step"], accuracy(record)) for record in records if accuracy(record)]
    if validated:
        (first_step, first), (last_step, last) = validated[0], validated[-1]
        for key in last:
            before = f"{first[key]:.3f} (step {first_step})" if key in first else "not measured"
            lines.append(f"  accuracy {key.removeprefix('val/')}: {before} -> {last[key]:.3f} (step {last_step})")
    lines += _entropy_lines([record for record in records if ENTROPY in record])
    lines += beside_grpo(records, grpo)
    lines += [f"    {line}".rstrip() for line in drawings(records, config, grpo)]
    return lines + [f"  {label}: {path}" for label, path in files.items()]


def _entropy_lines(trained: Sequence[Mapping[str, Any]]) -> list[str]:
    """Entropies at the first and the last of the training steps, and the method's floor."""
    if not trained:
        return []
    first, last = trained[0], trained[-1]
    lines = [f"  token entropy (nats): {_number(first, ENTROPY)} (step {first['step']}) -> {_number(last, ENTROPY)}"]
    method = anchored(last)
    if method is not None:
        hbar = [_number(record, method + "selected_entropy") for record in (first, last)]
        anchor, floor = (_number(last, method + name) for name in ("anchor", "floor"))
        active = sum(record.get(method + "penalty_active", 0.0) or 0.0 for record in trained)
        lines += [
            f"  Hbar, entropy at selected positions: {hbar[0]} -> {hbar[1]}",
            f"  anchor {anchor}, floor {floor}; the penalty was active in {int(active)} of {len(trained)} steps",
        ]
    return lines


def _number(record: Mapping[str, Any], key: str) -> str:
    """A metric with four decimals; "not finite" where it is null, which was NaN or infinite when it was written."""
    if key not in record:
        return "not measured"
    return "not finite" if record[key] is None else f"{record[key]:.4f}"
