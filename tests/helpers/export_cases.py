"""Checkpoints to be exported: their cases, and ways to damage one."""

from __future__ import annotations

from pathlib import Path

from recipe.paec.run import checkpoints

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
