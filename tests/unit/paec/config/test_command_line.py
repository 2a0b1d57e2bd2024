"""A misspelt key on the command line is named, with what was meant."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recipe.paec.common.repository import REPOSITORY


@pytest.mark.parametrize(
    "override, words",
    [
        ("method.rhoo=0.7", ["unknown configuration key method.rhoo", "did you mean method.rho?"]),
        ("trainer.total_steps=3", ["unknown configuration key trainer.total_steps"]),
        ("method=peac", ["no method peac", "paec"]),
    ],
)
def test_unknown_keys_on_the_command_line(override, words):
    done = subprocess.run(
        [sys.executable, "-m", "recipe.paec.train", override], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    assert all(word in done.stderr for word in words), done.stderr
