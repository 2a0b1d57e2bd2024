"""Run directories for the tests of the report: a few steps, written as a run writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SOURCE = "reasoning_gym/countdown"


def record(step: int, seed: int = 0, method: str | None = "paec", **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl: a validation at every fourth step, training at every step but 0."""
    found: dict[str, Any] = {"step": step}
    if step % 4 == 0:
        right = 0.25 + step / 32 + seed / 100
        values = {"avg@4": right, "maj@4": right + 0.1, "pass@1": right, "pass@2": right + 0.15, "pass@4": right + 0.2}
        found |= {f"val/{SOURCE}/{name}": value for name, value in values.items()}
    if step:
        found |= {
            **{"actor/entropy": 0.5 - step / 64 + seed / 100, "actor/grad_norm": 0.5, "actor/pg_clipfrac": step / 1000},
            **{"critic/score/mean": step / 16, "critic/rewards/mean": step / 16, "response_length/mean": 20.0 + step},
            **{f"response_length{of}/clip_ratio": 0.125 for of in ("", "_non_aborted")},  # at the step's longest
            **{"reward/cut_off": 0.0625, "actor/perf/max_memory_allocated_gb": 0.0},
            **{"actor/perf/cpu_memory_used_gb": 7.5, "training/rollout_probs_diff_mean": 1e-7, "actor/lr": 5e-5},
            **{"timing_s/step": 10.0, "timing_s/gen": 5.0, "timing_s/update_actor": 2.5, "timing_s/testing": 3.0},
        }
        if method:
            own = {
                "selected_entropy": 0.6 - step / 64,
                "anchor": 0.6,
                "floor": 0.48,
                "penalty": 0.0,
                "mask_mass": 0.125,
            }
            own |= {"penalty_active": float(step == 2)} | {f"mask_mass_decile_{i}": 0.1 for i in range(10)}
            found |= {f"actor/{method}/{name}": value for name, value in own.items()}
    return found | more


def config(name: str, seed: int = 0, steps: int = 8, **more: Any) -> dict[str, Any]:
    """The part of a resolved configuration that a report reads."""
    return {
        "run": {"name": name, "experiment": "tiny_cpu", "overrides": [f"seed={seed}"]},
        "trainer": {"total_training_steps": steps, "save_freq": -1},
        "seed": seed,
        "data": {"train_files": ["data/train.parquet"]},
        "identity": {"method": "paec", "workers": 1},
        **more,
    }


def rollouts(step: int, output: str = "1+2=3") -> list[dict[str, Any]]:
    """Two prompts with two responses each: the first prompt has one right response, the second none."""
    return [
        {"input": f"prompt {i}", "output": text, "score": score, "step": step, "uid": f"{step:06d}-{i:06d}_{j}_0"}
        for i, pair in enumerate((((output, 1.0), ("12", 0.0)), (("1234", 0.0), ("1234", 0.0))))
        for j, (text, score) in enumerate(pair)
    ]


def write_run(
    folder: Path,
    steps: int = 8,
    seed: int = 0,
    *,
    last: int | None = None,
    method: str | None = "paec",
    output: str = "1+2=3",
    **more: Any,
) -> Path:
    """Write a run of `steps` steps, recorded up to step `last`; `more` goes into its configuration."""
    (folder / "rollouts").mkdir(parents=True)
    lines = [json.dumps(record(step, seed, method)) for step in range((steps if last is None else last) + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(config(folder.name, seed, steps, **more)), encoding="utf-8")
    (folder / "versions.json").write_text(json.dumps({"git_commit": "abc123", "verl": "0.9.1"}), encoding="utf-8")
    (folder / ".paec_folder.json").write_text(json.dumps({"kind": "run", "name": folder.name}), encoding="utf-8")
    for step in range(1, len(lines)):
        text = "".join(json.dumps(row) + "\n" for row in rollouts(step, output))
        (folder / "rollouts" / f"{step}.jsonl").write_text(text, encoding="utf-8")
    return folder


def write_saving(folder: Path) -> Path:
    """`write_run`, with checkpoints of 1.25 of a step's 10 s at steps 3, 6 and 8."""
    write_run(folder)
    file = folder / "metrics.jsonl"
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for one in found:
        one |= {"timing_s/save_checkpoint": 1.25} if one["step"] in (3, 6, 8) else {}
    file.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return folder
