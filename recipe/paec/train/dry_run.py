"""What would be started, and what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.run import checkpoints
from recipe.paec.train.watch import failure_of


def dry_run(config: DictConfig, errors: list[str], checkpoint: checkpoints.Checkpoint | None) -> None:
    """Print what would be started, and what is missing."""
    if config.run.prepare_command:
        say(f"model and data would be created first if missing: python {config.run.prepare_command}")
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    replicas = workers // config.cluster.tensor_parallel
    say(f"dry run of {config.run.name}: nothing was started. It would start")
    say(f"  Ray on {config.cluster.nodes} node(s), platform {config.cluster.platform}")
    say(
        f"  {workers} FSDP actor worker(s) of {config.model.path}, sequence parallel {config.cluster.sequence_parallel}"
    )
    say(f"  {replicas} vLLM replica(s), tensor parallel {config.cluster.tensor_parallel}")
    if rollout_gpus := config.cluster.rollout_nodes * config.cluster.rollout_gpus_per_node:
        say(f"  {rollout_gpus // config.cluster.tensor_parallel} more on separate GPUs")
    start = f"from the checkpoint of step {checkpoint.step}" if checkpoint else "at step 0"
    say(f"  training {start} to step {config.trainer.total_training_steps}, in {config.run.directory}")
    if errors:
        raise UserError(*errors)
    say("all checks passed")


def check_with_verl(config: DictConfig) -> list[str]:
    """verl's own validation in a separate process, for the dry run."""
    config = config.copy()
    with tempfile.TemporaryDirectory(prefix="paec-check-") as scratch:
        config.run.directory = scratch
        file = Path(scratch) / "config.yaml"
        file.write_text(OmegaConf.to_yaml(config), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "recipe.paec.driver.process", str(file), "--check"],
            capture_output=True,
            text=True,
            env={**os.environ, **config.cluster.env},
            check=False,
        )
        return [] if done.returncode == 0 else [failure_of(Path(scratch), done.returncode)]
