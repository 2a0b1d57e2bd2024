"""The tests of tests/gpu that take seconds on a CPU, rehearsed there: a machine with a GPU does not meet them first."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from recipe.paec.common.repository import REPOSITORY

pytestmark = pytest.mark.cpu_stack


@pytest.mark.parametrize("name", ["attention", "kernels", "ranks"])
def test_rehearsed_on_a_cpu(name):
    """Skipped is only what says itself that it is not rehearsed."""
    file = f"tests/gpu/test_gpu_{name}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    env = os.environ | {"PAEC_GPU_TESTS_ON": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout[-8000:]
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all(line.endswith("not rehearsed") for line in skipped), skipped
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 0
