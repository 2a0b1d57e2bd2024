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
  "-m pip --version") exec test ! -f "$(dirname "$0")/../no-pip" ;;
  "-m venv "*) mkdir -p "$3/bin" && {{ test "$0" -ef "$3/bin/python" || cp "$0" "$3/bin"; }} && rm -f "$3/no-pip" ;;
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


def test_a_cdpath_changes_no_folder(set_up, tmp_path):
    assert set_up("gpu", CDPATH=str(REPOSITORY))[2:] == [f"-e {REPOSITORY}[gpu,test] --no-build-isolation"]


def test_an_environment_without_pip_is_completed(set_up, tmp_path):
    """As `python -m venv` leaves it when it is killed halfway."""
    (tmp_path / "no-pip").touch()
    set_up("gpu")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "-m pip --version" and f"-m venv {tmp_path}" in calls and not (tmp_path / "no-pip").exists()
    set_up("gpu", FLASH_ATTN="1")
    assert f"-m venv {tmp_path}" not in (tmp_path / "calls").read_text().splitlines()


def test_a_python_with_a_space_in_its_path(tmp_path, set_up):
    python, venv = tmp_path / "my programs" / "bin" / "python", tmp_path / "my programs" / "new"
    python.parent.mkdir(parents=True)
    (tmp_path / "bin" / "python").rename(python)
    set_up("gpu", PYTHON=str(python), VENV=str(venv))
    assert (python.parents[1] / "calls").read_text().splitlines()[-1] == f"-m venv {venv}"
    assert "torch==2.11.0" in (venv / "calls").read_text()


@pytest.mark.parametrize(
    "experiment, stack", [("", "cpu"), ("tiny_math", "cpu"), ("tiny_gpu", "gpu"), ("qwen7b", "cpu")]
)
def test_a_grid_sets_up_the_stack_of_its_experiment(set_up, tmp_path, experiment, stack):
    """Of others, the one that this machine can use."""
    folder = tmp_path / "bin"
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
    (folder / "nvidia-smi").chmod(0o755)
    path = {"VENV": str(tmp_path), "PATH": f"{folder}:{os.environ['PATH']}", "UV": ""}
    words = [f"EXPERIMENT={experiment}"] if experiment else []
    for given, env in ((words, {}), ([], dict(word.split("=") for word in words))):
        command = ["bash", "launch/grid.sh", "METHODS=none", *given]
        subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **path, **env}, check=True)
        calls = (tmp_path / "calls").read_text().splitlines()
        assert calls[-1] == " ".join(["-m recipe.paec.grid METHODS=none", *given])
        assert len(list(tmp_path.glob(f".paec-{stack}-*"))) == 1
