"""Checkpoints that hold next to nothing."""

from __future__ import annotations

from recipe.paec.run import checkpoints


def complete(root, step, identity):
    (root / f"global_step_{step}" / "actor").mkdir(parents=True)
    checkpoints.commit(root, step, identity, {"paec": {"anchor_steps": 2, "observations": [0.5]}})
