"""Secrets that a test puts into the environment."""

from __future__ import annotations

PLANTED = {"HF_TOKEN": "hf_plantedQ7d2Zk", "WANDB_API_KEY": "wandb-plantedX9f4Lm"}
