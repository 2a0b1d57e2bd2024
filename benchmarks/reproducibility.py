"""How equal are two runs of one seed? `python -m benchmarks.reproducibility RUN OTHER`

Compares the run directories of two trainings step by step: every metric that both have, and every response. Prints a
table; exit code 1 if a metric or a response differs. Times and memory are left out. What compares vLLM's log-probs with
the actor's is listed apart: it is of the size of rounding errors, and those of vLLM depend on which requests it
happens to run together.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from recipe.paec.common.records import METRICS_FILE, read_metrics

NOT_COMPARED = ("timing", "perf/", "actor/perf/")
"""First words of metrics that no two runs share: times, throughput, memory."""
OF_THE_ENGINE = ("rollout_corr/", "training/rollout_")
"""First words of metrics that compare vLLM's log-probs with the actor's."""


@dataclass(frozen=True)
class Step:
    """What two runs have in common at one step."""

    number: int
    metrics: int
    """Metrics compared, those of the engine not among them."""
    different: dict[str, float]
    """Those that are not equal bit for bit: |a - b| / max(|a|, |b|), infinite where only one run has the metric."""
    engine_metrics: int
    engine_difference: float
    """The largest |a - b| of the engine's metrics."""
    responses: int
    identical: int
    """Responses of the same prompt and sample with the same text, score and place in the file."""


def compare(run: Path, other: Path) -> list[Step]:
    """The training steps that both runs have, in order."""
    records, others = ({r["step"]: r for r in read_metrics(folder / METRICS_FILE)} for folder in (run, other))
    return [_step(run, other, records[n], others[n]) for n in sorted(records.keys() & others.keys()) if n > 0]


def _step(run: Path, other: Path, record: dict, its: dict) -> Step:
    names = [name for name in record.keys() | its.keys() if not name.startswith(NOT_COMPARED)]
    engine = [name for name in names if name.startswith(OF_THE_ENGINE)]
    ours = [name for name in names if name not in engine]
    responses, its_responses = (_lines(folder / "rollouts" / f"{record['step']}.jsonl") for folder in (run, other))
    return Step(
        number=record["step"],
        metrics=len(ours),
        different={
            name: _relative(record.get(name), its.get(name)) for name in ours if record.get(name) != its.get(name)
        },
        engine_metrics=len(engine),
        engine_difference=max((abs(record[name] - its[name]) for name in engine), default=0.0),
        responses=max(len(responses), len(its_responses)),
        identical=sum(a == b for a, b in zip(responses, its_responses, strict=False)),
    )


def _relative(a: float | None, b: float | None) -> float:
    return float("inf") if a is None or b is None else abs(a - b) / max(abs(a), abs(b))


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    steps = compare(options.run, options.other)
    print(
        "| step | metrics equal bit for bit | largest relative difference | of the engine, largest difference "
        "| responses identical |\n|---|---|---|---|---|"
    )
    for step in steps:
        print(
            f"| {step.number} | {step.metrics - len(step.different)} of {step.metrics} | "
            f"{max(step.different.values(), default=0):.1e} | {step.engine_difference:.1e} | "
            f"{step.identical} of {step.responses} |"
        )
    for step in steps:
        for name, difference in sorted(step.different.items()):
            print(f"step {step.number}: {name} differs by {difference:.1e}")
    return int(any(step.different or step.identical < step.responses for step in steps))


if __name__ == "__main__":
    sys.exit(main())
