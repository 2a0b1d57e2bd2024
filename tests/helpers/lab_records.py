"""Runs of the laboratory made up by hand, and their records as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.lab import records


def runs(name: str = "one", seeds: tuple[int, ...] = (1, 2), correct: int = 16) -> records.Runs:
    """Two validations of three problems; the second of `correct` right responses each."""
    counts = np.array([[[8, 16, 0], [correct] * 3]] * len(seeds))
    return records.Runs(name, seeds, np.array([0, 25]), counts, np.minimum(counts, 4), np.full((len(seeds), 2), 0.1))


def record(step: list[int], seed: int, source: str = records.SOURCE) -> dict:
    counts = {"correct": [[seed, 2], [3, 4]], "distinct": [[1, 1], [1, 2]]}
    entropies = {f"{split}/{source}/entropy": [0.2, 0.1] for split in ("held_out", "val")}
    validation = {"step": step, **entropies}
    problems = {"held_out": counts, "validation": {**counts, "correct": [[seed, 2], [16, 16]]}}
    training = {"step": step[1:], "actor/paec/penalty_active": [0.25 * seed] * len(step[1:])}
    return {
        "validation": validation,
        "problems": problems,
        "training": training,
        "date": f"2026-11-{20 + seed}",
        "cores": 2,
    }


def write(folder: Path, *names: str, step: tuple[int, ...] = (0, 25)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(record([*step], int(name[-1]))))
