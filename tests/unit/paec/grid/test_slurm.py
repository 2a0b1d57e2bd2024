"""A grid as Slurm jobs: what sbatch is called with, what is refused, what a job starts; stand-ins for Slurm."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from grid_cases import exported, made_run

from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.grid import request, slurm
from recipe.paec.grid.runs import GridRun

STAND_IN = """#!/usr/bin/env python3
import json, os, pathlib, sys
name = pathlib.Path(sys.argv[0]).name
with open({log!r}, "a") as stream:
    print(json.dumps([name, *sys.argv[1:], os.environ.get("METHODS")]), file=stream)
print({answers!r}[name])
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """commands(queued="...") puts stand-ins for squeue and sbatch first in PATH; returns the file of their calls."""

    def make(queued: str = "") -> Path:
        folder, log = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir(exist_ok=True)
        for name in ("squeue", "sbatch"):
            text = STAND_IN.format(log=str(log), answers={"squeue": queued, "sbatch": "77;cluster"})
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return log

    return make


def grid_of(root: Path) -> tuple[request.Grid, list[GridRun]]:
    """Two methods with two seeds, of which the first run is done."""
    grid = request.parse(["METHODS=none paec", "SEEDS=0 1", "SLURM=--partition=a --time=60", "lora.rank=2"], {})
    done = made_run(root / "t-none-seed0", [{"step": 2}], saved=2)
    exported(done)
    planned = [("paec", 0), ("none", 1), ("paec", 1)]
    return grid, [done, *(GridRun(m, s, root / f"t-{m}-seed{s}", 2, saves=True, exports=True) for m, s in planned)]


def test_the_array_and_the_job_of_the_table(tmp_path, commands, capsys):
    log = commands()
    grid, runs = grid_of(tmp_path)
    folder = tmp_path / "g"
    slurm.submit(grid, runs, folder)
    queue, array, table = [json.loads(line) for line in log.read_text().splitlines()]
    assert queue[0] == "squeue" and "--name=paec-g" in queue
    for job in (array, table):
        assert job[0] == "sbatch" and {"--job-name=paec-g", "--parsable", "--partition=a"} < set(job)
        assert f"--chdir={REPOSITORY}" in job and job[-1] == "none paec", "the grid's words are in the environment"
    assert "--array=1,2,3" in array and str(slurm.SWEEP) in array and f"run.root='{tmp_path}'" in array
    assert "--dependency=afterany:77" in table and "--nodes=1" in table
    (wrapped,) = [word for word in table if word.startswith("--wrap=")]
    assert wrapped.startswith("--wrap=bash launch/python.sh -m recipe.paec.grid --table-only lora.rank=2")
    assert "submitted 3 of 4 runs as the array 77: " in capsys.readouterr().out


def test_a_grid_that_is_queued_is_not_submitted_again(tmp_path, commands):
    log = commands(queued="41\n42")
    with pytest.raises(UserError, match="^job 41 is already running this grid: .* scancel 41$"):
        slurm.submit(*grid_of(tmp_path), tmp_path / "g")
    assert [json.loads(line)[0] for line in log.read_text().splitlines()] == ["squeue"]


def test_a_grid_with_a_comma_in_its_name_is_found_in_the_queue(tmp_path, commands):
    """squeue would take the comma for the end of the first of two names."""
    log = commands()
    slurm.submit(*grid_of(tmp_path), tmp_path / "compare-t-lora.rank=2,seed=1")
    queue, array, table = [json.loads(line) for line in log.read_text().splitlines()]
    name = "paec-compare-t-lora.rank=2:seed=1"
    assert f"--name={name}" in queue
    assert f"--job-name={name}" in array and f"--job-name={name}" in table


def test_options_with_an_open_quotation(tmp_path, commands):
    log = commands()
    grid, runs = grid_of(tmp_path)
    grid = replace(grid, words={**grid.words, "SLURM": "--comment='a b"})
    with pytest.raises(UserError, match="^SLURM=--comment='a b: No closing quotation: close its quotation marks$"):
        slurm.submit(grid, runs, tmp_path / "g")
    assert not log.exists()


def test_a_machine_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="^SLURM: sbatch is not installed on this machine: leave SLURM out"):
        slurm.submit(*grid_of(tmp_path), tmp_path / "g")


def test_an_installed_package_has_no_job_to_submit(tmp_path, commands, monkeypatch):
    log = commands()
    monkeypatch.setattr(slurm, "IS_CHECKOUT", False)
    with pytest.raises(UserError, match="^SLURM: the jobs run launch/slurm/sweep.sbatch, .* in a checkout"):
        slurm.submit(*grid_of(tmp_path), tmp_path / "g")
    assert not log.exists()


# ---- a job -----------------------------------------------------------------------------------------------------------

JOB = {
    "scontrol": """case "$*" in
  "show hostnames"*) echo n1 ;;
  "show job"*) echo "   Command={root}/launch/slurm/paec.sbatch" ;;
  "show config") echo "KillWait = 30 sec" ;;
esac""",
    "srun": "exec sleep 600",
    "python": """case "$*" in
  *"ray_node head"*) while [[ $1 != --address-file ]]; do shift; done; echo 10.0.0.1:6379 > "$2"; exec sleep 600 ;;
  *recipe.paec.train*) printf "%s\\n" "$@" > {root}/started ;;
esac""",
}


@pytest.mark.parametrize(("restarts", "fresh"), [("0", ["run.fresh=true", "+run.fresh=true"]), ("2", [])])
def test_a_later_start_of_a_job_resumes(tmp_path, restarts, fresh):
    """`run.fresh=true` deletes what there was before the job, not the checkpoint that the job has saved."""
    for name in ("launch", "configs", "paec_loss"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "bin").mkdir()
    for name, text in JOB.items():
        (tmp_path / "bin" / name).write_text("#!/usr/bin/env bash\n" + text.replace("{root}", str(tmp_path)) + "\n")
        (tmp_path / "bin" / name).chmod(0o755)
    slurm_sets = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_CPUS_ON_NODE": "2"}
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VENV": str(tmp_path), "EXPERIMENT": "tiny_cpu_paec"}
    given = ["run.fresh=true", "run.name=a b", "+run.fresh=true", "run.stall_timeout=9"]
    command = ["bash", str(tmp_path / "launch" / "slurm" / "paec.sbatch"), *given]
    done = subprocess.run(
        command, env=env | slurm_sets | {"SLURM_RESTART_COUNT": restarts}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "started").read_text().splitlines()
    assert [a for a in arguments if "fresh" in a] == fresh
    assert [a for a in arguments if a.startswith("run.") and "fresh" not in a] == [
        "run.name=a b",
        "run.stall_timeout=9",
    ]
    assert arguments[2:4] == ["experiment=tiny_cpu", "method=paec"]
