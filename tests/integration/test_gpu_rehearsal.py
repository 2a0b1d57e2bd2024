"""The tests of tests/gpu run on a CPU as well, but for what only a GPU has, so that a GPU does not meet them first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "gpu"


def run(*arguments: str, **env: str) -> str:
    """pytest on tests/gpu in a process of its own; its report."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir", str(FOLDER), str(FOLDER)]
    done = subprocess.run([*command, *arguments], env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-12000:]
    return done.stdout


@pytest.mark.slow
def test_rehearsal():
    report = run("-m", "not pipeline", PAEC_GPU_TESTS_ON="cpu")
    assert int(re.search(r"(\d+) passed", report)[1]) >= 70
    reasons = re.findall(r"^SKIPPED \[\d+\] .*: (.*)$", report, re.MULTILINE)
    assert reasons and all(reason.endswith("not rehearsed") for reason in reasons)


def test_without_a_gpu_they_are_skipped_with_a_sentence():
    report = run("-k", "little_memory", CUDA_VISIBLE_DEVICES="")
    assert "needs a CUDA GPU, and this machine has none: bash tests/run.sh --gpu where there is one" in report
