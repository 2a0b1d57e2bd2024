"""launch/setup_env.sh with a stand-in for the environment's Python: what it would install, and when it does nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.paec.common.repository import REPOSITORY

STAND_IN = f"""#!/bin/bash
echo "$*" >> "$(dirname "$0")/../calls"
case "$*" in
  *'version("flash-attn")'*) exec test -f "$(dirname "$0")/../flash-attn" ;;
  *--pin*) exec {sys.executable} "$@" ;;
esac
"""
UV = """#!/bin/bash
echo "uv $*" >> "$(dirname "$0")/../calls"
exit ${UV_EXIT:-0}
"""


@pytest.fixture
def set_up(tmp_path):
    """set_up("gpu", FLASH_ATTN="1") -> the arguments of each `pip install`, without constraints."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(STAND_IN)
    (tmp_path / "bin" / "python").chmod(0o755)

    def run(stack: str, **env: str) -> list[str]:
        calls = tmp_path / "calls"
        calls.write_text("")
        command = ["bash", "launch/setup_env.sh", stack]
        subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "VENV": str(tmp_path), **env}, check=True)
        installs = [line.partition(" install ")[2] for line in calls.read_text().splitlines() if " install " in line]
        return [re.sub(r"^-c \S+ ", "", line) for line in installs]

    return run


def test_flash_attn_only_where_it_is_asked_for(set_up, tmp_path):
    plain = set_up("gpu")
    assert plain[1:] == ["torch==2.11.0", f"-e {REPOSITORY}[gpu,test] --no-build-isolation"]
    assert set_up("gpu") == []
    assert set_up("gpu", FLASH_ATTN="1")[3:] == ["ninja packaging psutil", "flash-attn==2.8.3 --no-build-isolation"]
    Path(tmp_path, "flash-attn").touch()
    assert set_up("gpu", FLASH_ATTN="1") == []
    assert set_up("gpu") == []


LOCK = f"--no-deps -r {REPOSITORY}/launch/lock-cpu.txt"
RECIPE = f"--no-deps --no-build-isolation -e {REPOSITORY}"


def test_the_cpu_stack_is_its_lock_and_knows_no_flash_attn(set_up):
    assert set_up("cpu", FLASH_ATTN="1", UV="")[2:] == [LOCK, RECIPE]


def test_uv_installs_the_lock_where_it_is_found(set_up, tmp_path, capfd):
    uv = tmp_path / "bin" / "uv"
    uv.write_text(UV)
    uv.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        set_up("cpu", UV=str(uv), UV_EXIT="1")
    assert f"{uv} failed" in capfd.readouterr().err
    assert set_up("cpu", PATH=f"{uv.parent}:{os.environ['PATH']}")[2:] == [
        f"--python {tmp_path}/bin/python {LOCK}",
        RECIPE,
    ]


def test_one_environment_holds_one_stack(set_up, tmp_path, capfd):
    set_up("gpu")
    with pytest.raises(subprocess.CalledProcessError):
        set_up("cpu")
    assert f"error: {tmp_path} contains the gpu stack: set VENV to another folder" in capfd.readouterr().err
