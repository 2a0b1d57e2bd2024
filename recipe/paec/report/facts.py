"""Key numbers of a run, and its provenance, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from recipe.paec.report.runs import Run
from recipe.paec.run.metric_names import CUT_OFF, ENTROPY, NATS, hbar_unit
from recipe.paec.run.summary import accuracy, anchored, last_tenth, tail_mean

NOT_FINITE = "not finite"
"""Value of what was NaN or infinite at the end."""


@dataclass(frozen=True)
class Fact:
    """A number with its name."""

    label: str
    value: str
    detail: str = ""


def facts_of(run: Run) -> list[Fact]:
    """Key numbers of a run; only what was recorded."""
    trained = [record for record in run.records if record.get("timing_s/step") is not None or ENTROPY in record]
    found = [_steps(run), *_accuracies(run.records), *_entropies(run, trained)]
    for label, key, form, unit in (
        ("score, last tenth", "critic/score/mean", ".3f", ""),
        ("response length, last tenth", "response_length/mean", ".1f", "tokens"),
        ("cut off, last tenth", CUT_OFF, ".1f", "%"),
    ):
        if (value := tail_mean(trained, key)) is not None:
            value *= 100 if unit == "%" else 1
            found.append(Fact(label, f"{value:{form}} {unit}".strip()))
        elif any(record.get(key, 0.0) is None for record in last_tenth(trained)):
            found.append(Fact(label, NOT_FINITE))
    seconds = known(trained, "timing_s/step")
    if seconds:
        found.append(Fact("time per step", f"{median(seconds):.1f} s", f"median; {_duration(sum(seconds))} in steps"))
    memory = [
        (label, max(values))
        for label, key in (
            ("peak memory, device", "actor/perf/max_memory_allocated_gb"),
            ("memory in use on the machine, peak", "actor/perf/cpu_memory_used_gb"),
        )
        if any(values := known(trained, key))
    ]
    return found + [Fact(label, f"{value:.1f} GiB") for label, value in memory]


def known(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """The values of a metric that are numbers."""
    return [record[key] for record in records if record.get(key) is not None]


def _steps(run: Run) -> Fact:
    total = run.setting("trainer.total_training_steps")
    return Fact("steps", f"{run.last_step or 0}" + (f" of {total}" if isinstance(total, int) else ""))


def _accuracies(records: Sequence[Mapping[str, Any]]) -> list[Fact]:
    validated = [(record["step"], accuracy(record)) for record in records if accuracy(record)]
    found = []
    for key in dict.fromkeys(key for _, values in validated for key in values):
        values = [(step, of_step[key]) for step, of_step in validated if key in of_step]
        (first_step, first), (last_step, last) = values[0], values[-1]
        best_step, best = max(values, key=lambda pair: (pair[1], pair[0]))
        detail = f"step {last_step}"
        if len(values) > 1:
            detail += f"; {100 * first:.1f} % at step {first_step}, best {100 * best:.1f} % at step {best_step}"
        found.append(Fact(key.removeprefix("val/"), f"{100 * last:.1f} %", detail))
    return found


def _at_the_end(records: Sequence[Mapping[str, Any]], key: str, unit: str) -> tuple[str, str]:
    """The last value of a metric that all `records` have, and its step; "not finite", and since which step."""
    step = records[-1]["step"]
    if records[-1][key] is not None:
        return f"{records[-1][key]:.4f} {unit}".rstrip(), f"step {step}"
    for record in reversed(records):
        if record[key] is not None:
            break
        step = record["step"]
    return NOT_FINITE, f"since step {step}"


def _entropies(run: Run, trained: Sequence[Mapping[str, Any]]) -> list[Fact]:
    found = []
    entropies = [record for record in trained if ENTROPY in record]
    if entropies:
        first, last = entropies[0], entropies[-1]
        value, at = _at_the_end(entropies, ENTROPY, NATS)
        before = f"; {first[ENTROPY]:.4f} at step {first['step']}" if first[ENTROPY] is not None else ""
        found.append(Fact("token entropy", value, at + before))
    method = anchored(trained[-1]) if trained else None
    if method is not None:
        key, last = method + "selected_entropy", trained[-1]
        parts = [
            f"{name} {last[method + name]:.4f}" for name in ("anchor", "floor") if last.get(method + name) is not None
        ]
        unit = hbar_unit(run.config, method)
        value, at = _at_the_end([record for record in trained if key in record], key, unit)
        found.append(Fact("H\u0304, selected positions", value, ", ".join([at, *parts])))
        active = known(trained, method + "penalty_active")
        if active:
            found.append(Fact("penalty active", f"{int(sum(active))} of {len(active)} steps"))
    return found


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def provenance(run: Run) -> list[Fact]:
    """What a run was made with: experiment, method, model, data, seed, commit, versions; only what was recorded."""
    files = run.setting("data.train_files")
    entries = [
        ("directory", str(run.folder)),
        ("experiment", run.setting("run.experiment")),
        ("command line", " ".join(map(str, run.setting("run.overrides") or []))),
        ("method", run.setting("identity.method") or run.setting("method.name")),
        ("model", run.setting("model.path") or run.setting("actor_rollout_ref.model.path")),
        ("model fingerprint", run.setting("identity.model")),
        ("training data", ", ".join(map(str, files)) if isinstance(files, list) else files),
        ("seed", run.setting("seed")),
        ("workers", run.setting("identity.workers")),
        ("commit", run.versions.get("git_commit")),
    ]
    entries += [(name, value) for name, value in sorted(run.versions.items()) if name != "git_commit"]
    return [Fact(label, str(value)) for label, value in entries if value not in (None, "")]
