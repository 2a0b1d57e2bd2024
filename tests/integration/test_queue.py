"""A step's fields through a real TransferQueue with two storage units, on Ray."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from recipe.paec.common.repository import REPOSITORY

pytestmark = pytest.mark.pipeline


def test_what_is_read_is_what_was_put():
    """The benchmark compares every field with what it has put, and counts those that came in one frame."""
    sizes = ["--responses", "24", "--tokens", "6", "--rounds", "1", "--units", "2"]
    command = [sys.executable, "-m", "benchmarks.queue_rows", *sizes, "--variant", "joined"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [len(seconds) for seconds in found["s"].values()] == [1, 1, 1]
