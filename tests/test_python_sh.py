"""launch/python.sh: the environment's Python, or a container's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def python_sh(**env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(REPOSITORY / "launch" / "python.sh"), "-c", "print(6 * 7)"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_of_the_environment(tmp_path):
    assert python_sh(VENV=sys.prefix).stdout == "42\n"
    failed = python_sh(VENV=str(tmp_path / "none"))
    assert failed.returncode == 2 and "no environment at" in failed.stderr and "setup_env.sh" in failed.stderr


def test_container(tmp_path):
    """The arguments of Apptainer, by a stand-in that runs the command here; there is no real image in a test."""
    stand_in = tmp_path / "apptainer"
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" >&2\nwhile [ "$1" != python ]; do shift; done\nshift\n{sys.executable} "$@"\n'
    )
    stand_in.chmod(0o755)
    done = python_sh(CONTAINER="image with spaces.sif", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout == "42\n"
    assert done.stderr.startswith(f"exec --nv --bind {REPOSITORY} ")
    assert done.stderr.endswith("image with spaces.sif python -c print(6 * 7)\n")
    bare = tmp_path / "bare"
    bare.mkdir()
    for program in ("bash", "dirname", "hostname"):
        (bare / program).symlink_to(shutil.which(program))
    without = python_sh(CONTAINER="image.sif", PATH=str(bare))
    assert without.returncode == 2 and "neither apptainer nor singularity" in without.stderr


@pytest.mark.parametrize("script", ["common.sh", "lock.sh", "ray_head.sh", "ray_worker.sh"])
def test_an_exported_cdpath_changes_no_folder(script, tmp_path):
    """With it, `cd` prints where it goes, and goes to another folder of the same name."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "bin").mkdir()
    for program in ("python", "uv"):
        (tmp_path / "bin" / program).write_text('#!/bin/sh\necho "$PWD"\n')
        (tmp_path / "bin" / program).chmod(0o755)
    command = f"source launch/{script}; echo $PAEC_ROOT" if script == "common.sh" else f"bash launch/{script}"
    path = {"CDPATH": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    env = {**os.environ, **path, "VENV": str(tmp_path)}
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == f"{REPOSITORY}\n", done.stderr
