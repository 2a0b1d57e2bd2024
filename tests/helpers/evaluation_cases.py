"""Rows of a benchmark, lines of a journal, and the evaluation's command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from recipe.paec.common.repository import REPOSITORY


def row(index: int, truth: str = "204", source: str = "aime24", **extra) -> dict:
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": f"Problem {index}?\n\nBox it."}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": "test", "index": index, "id": f"p{index}", "problem": f"Problem {index}?", **extra},
    }


def line(problem: str, sample: int) -> dict:
    response = {"response": "\\boxed{1}\u2028", "finish_reason": "stop", "tokens": 5, "seed": 1}
    return {"benchmark": "aime24", "problem": problem, "sample": sample, **response}


def command(*overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recipe.paec.evaluate", *overrides], capture_output=True, text=True, cwd=REPOSITORY
    )


def write_lines(path: Path, records: list) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path
