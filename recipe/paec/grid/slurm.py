"""Submits a grid as Slurm jobs."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import IS_CHECKOUT, REPOSITORY
from recipe.paec.grid.request import Grid
from recipe.paec.grid.runs import GridRun
from recipe.paec.grid.table import show_table

SWEEP = REPOSITORY / "launch" / "slurm" / "sweep.sbatch"


def submit(grid: Grid, runs: Sequence[GridRun], folder: Path) -> None:
    """Submit unfinished runs as an array, and a job that writes the table when all of them have ended."""
    if not IS_CHECKOUT:
        raise UserError(
            "SLURM: the jobs run launch/slurm/sweep.sbatch, which an installed package does not have: start the grid "
            "in a checkout of the repository, or leave SLURM out to train here"
        )
    if shutil.which("sbatch") is None:
        raise UserError("SLURM: sbatch is not installed on this machine: leave SLURM out to train here")
    try:
        own = shlex.split(grid.words["SLURM"])
    except ValueError as error:
        raise UserError(f"SLURM={grid.words['SLURM']}: {error}: close its quotation marks") from None
    tasks = [str(task) for task, run in enumerate(runs) if not run.done()]
    if not tasks:
        show_table(grid, runs, folder, {})
        return
    # The jobs start in another folder than this command.
    overrides = [*grid.overrides, f"run.root='{folder.parent}'"]
    words = {**grid.words, "GRID": grid.name}
    name = f"paec-{folder.name}".replace(",", ":")  # squeue takes a list with commas; no grid has a colon
    queued = _slurm(["squeue", "--noheader", f"--user={getpass.getuser()}", f"--name={name}", "--format=%A"], {})
    if queued:
        job = queued.split()[0]
        raise UserError(f"job {job} is already running this grid: wait for it, or cancel it with scancel {job}")
    options = [f"--job-name={name}", f"--chdir={REPOSITORY}", f"--output={folder}/slurm-%A_%a.out", "--parsable"]
    options += own
    array = _slurm(["sbatch", *options, f"--array={','.join(tasks)}", str(SWEEP), *overrides], words)
    array = array.split(";")[0]
    say(f"submitted {len(tasks)} of {len(runs)} runs as the array {array}: {folder}/slurm-{array}_*.out")
    table = ["bash", "launch/python.sh", "-m", "recipe.paec.grid", "--table-only", *overrides]
    once = [f"--dependency=afterany:{array}", f"--output={folder}/slurm-%j-table.out", "--nodes=1", "--ntasks=1"]
    job = _slurm(["sbatch", *options, *once, "--time=10", f"--wrap={shlex.join(table)}"], words)
    say(f"job {job.split(';')[0]} writes the table after them; until then, use the same command with --table-only")


def _slurm(command: list[str], words: Mapping[str, str]) -> str:
    done = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip()
