"""Runs of the launch script for the tests of the real pipeline: start, wait, finish, read what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = REPOSITORY / "launch" / "run_tiny_cpu_paec.sh"
STEPS, SAVE_EVERY = 6, 2
PROMPTS, SAMPLES = 16, 8  # of a step, from configs/
LONGEST_WAIT = 1200
"""Seconds. It only ends a test that hangs: a busy machine takes many times what a quiet one does."""


def start(tiny: Path, root: Path, *overrides: str) -> subprocess.Popen:
    command = ["bash", str(LAUNCH), f"run.root={root}", f"trainer.total_training_steps={STEPS}"]
    command += [f"trainer.save_freq={SAVE_EVERY}", f"trainer.test_freq={STEPS}"]
    command += ["actor_rollout_ref.rollout.val_kwargs.n=1", "data.val_max_samples=32", *overrides]
    env = {**os.environ, "PAEC_TINY_DIR": str(tiny), "PAEC_TINY_ARGS": "--steps 240"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=LONGEST_WAIT)
    return output


def records(directory: Path) -> list[dict]:
    file = directory / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def run_directory(root: Path) -> Path:
    (directory,) = [path for path in root.iterdir() if path.is_dir()]
    return directory


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + LONGEST_WAIT
    while not condition():
        assert process.poll() is None, "the run ended early:\n" + process.stdout.read()
        assert time.monotonic() < deadline, f"nothing for {LONGEST_WAIT} s"
        time.sleep(0.2)


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
