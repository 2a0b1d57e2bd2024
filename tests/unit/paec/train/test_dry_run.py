"""A dry run starts nothing, leaves nothing, and names what is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from recipe.paec.common.repository import REPOSITORY


def dry_run(tmp_path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "recipe.paec.train", "--dry-run", f"run.root={tmp_path / 'runs'}", *overrides]
    env = {**os.environ, "PAEC_TINY_DIR": str(tmp_path / "tiny")}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=env)


@pytest.mark.cpu_stack
def test_dry_run_starts_and_leaves_nothing(tmp_path):
    done = dry_run(tmp_path, "method=siren", "--print-config")
    assert done.returncode == 0, done.stderr
    assert "model and data would be created first" in done.stdout and "all checks passed" in done.stdout
    made = [line for line in done.stdout.splitlines() if "created by the run (run.prepare_command)" in line]
    assert [line[:12] for line in made] == ["ok    model:", "ok    data: "] and "FAIL" not in done.stdout
    assert "the model does not exist yet" in done.stdout and "ok    collective: 1 rank(s)" in done.stdout
    assert done.stdout.splitlines()[-1] == "all checks passed"
    assert "two_sided" in done.stdout and "${" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cpu_stack
def test_dry_run_names_what_is_missing(tmp_path):
    done = dry_run(tmp_path, "data.val_files=[/nowhere/v.parquet]", "+actor_rollout_ref.actor.nonsense=1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: data.val_files: /nowhere/v.parquet does not exist: run python -m data_prep.tiny --output data/tiny"
    ]
    assert "nothing was started" in done.stdout and len(done.stdout.splitlines()) < 60, "no YAML"
    done = dry_run(tmp_path, "+actor_rollout_ref.actor.nonsense=1")  # what verl alone knows
    assert done.returncode == 2 and "nonsense" in done.stderr
