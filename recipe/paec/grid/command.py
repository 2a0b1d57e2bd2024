"""`python -m recipe.paec.grid METHODS="none paec siren" SEEDS="0 1 2" [override ...]`: every method with every seed.

Trains one run after the other on this machine, or (SLURM="--nodes=1 --time=24:00:00") as an array of Slurm jobs;
finished runs are skipped, interrupted ones resume. The table (recipe.paec.grid.table) is rewritten after every run.

    METHODS     methods to compare (docs/methods.md), or [LABEL=]METHOD[:OVERRIDE]... with Hydra's overrides:
                paec:method.rho_min=0.5 or low=paec:method.rho_min=0.5:method.rho=0.7
    SEEDS       seeds of complete runs                                            (default "0 1 2")
    EXPERIMENT  a file of configs/experiment                                      (default tiny_cpu)
    GRID        folder of the table, below run.root                               (default compare-EXPERIMENT)
    SLURM       options of sbatch: submit an array, and a job that writes the table after it
    --table-only, --dry-run

The words before "=" may be environment variables instead. Overrides after them are Hydra's, and apply to all runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import asked_for_help, complain, complain_of_files, say
from recipe.paec.common.errors import UserError
from recipe.paec.grid import table
from recipe.paec.grid.local import train_all
from recipe.paec.grid.prepare import prepare
from recipe.paec.grid.request import Grid, parse
from recipe.paec.grid.runs import GridRun
from recipe.paec.grid.slurm import submit
from recipe.paec.grid.table import show_table

USAGE = """
usage: paec grid METHODS="NAME ..." SEEDS="N ..." [EXPERIMENT=NAME] [SLURM="OPTIONS"] [key=value ...]
Trains every method with every seed, skips what is done, resumes the rest, and writes a table (docs/comparing.md).
  METHODS           methods, or [LABEL=]METHOD[:OVERRIDE]...: low=paec:method.rho=0.5
  SEEDS             seeds of complete runs (default "0 1 2")
  EXPERIMENT        a file of configs/experiment (default tiny_cpu)
  GRID              folder of the table, below run.root (default compare-EXPERIMENT)
  SLURM             options of sbatch: submits an array of jobs, and a job that writes the table after it
  --dry-run, --table-only
example: paec grid METHODS="none paec siren" SEEDS="0 1" trainer.total_training_steps=100
"""


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; raises UserError for anything the user can fix."""
    arguments = list(arguments)
    if "--task" in arguments:
        return print_task(arguments)
    flags = {flag for flag in ("--table-only", "--dry-run") if flag in arguments}
    grid = parse([a for a in arguments if a not in flags], os.environ)
    for note in grid.given_twice():
        say(f"note: {note}")
    runs = prepare(grid)
    folder = runs[0].directory.parent / grid.name
    if "--dry-run" in flags:
        for one in runs:
            place = "done" if one.done() else "to do" if one.step() is None else f"at step {one.step()} of {one.steps}"
            say(f"{one.label}, seed {one.seed}: {place}, {one.directory}")
        say(f"dry run: nothing was started; the table would be written to {folder / table.TABLE}")
        return 0
    if "--table-only" in flags:
        show_table(grid, runs, folder, {})
        return 0
    return start(grid, runs)


def start(grid: Grid, runs: Sequence[GridRun]) -> int:
    """Train the runs of a grid here, or submit them to Slurm if the grid says so; returns the exit code."""
    folder = runs[0].directory.parent / grid.name
    with folders.held(folder, folder_kinds.GRID, say):
        folders.take(folder, folder_kinds.GRID, {}, False, say)
        if grid.words["SLURM"]:
            submit(grid, runs, folder)
            return 0
        return train_all(grid, runs, folder)


def print_task(arguments: list[str]) -> int:
    """`--task N`, for launch/slurm/sweep.sbatch: label, seed and overrides of the N-th run, one per line."""
    place = arguments.index("--task")
    given = "".join(arguments[place + 1 : place + 2])
    if not re.fullmatch(r"-1|\d+", given, re.ASCII):  # -1: a job without an array
        raise UserError(f"--task {given}: must be the number of a run, an integer >= 0")
    task = int(given)
    grid = parse(arguments[:place] + arguments[place + 2 :], os.environ)
    pairs = grid.pairs()
    if not 0 <= task < len(pairs):
        raise UserError(
            f"{len(grid.entries)} methods and {len(grid.seeds)} seeds: submit with sbatch --array=0-{len(pairs) - 1}"
        )
    entry, seed = pairs[task]
    say("\n".join([entry.label, str(seed), *grid.arguments(entry, seed)]))
    return 0


def main() -> int:
    """Command line entry; returns the exit code: 1 if a run failed, 2 for wrong input, 130 or 143 stopped."""
    if asked_for_help(sys.argv[1:], USAGE):
        return 0
    try:
        return run(sys.argv[1:])
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "free some space, or set run.root to a writable folder", "while writing")
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr, flush=True)
        return 130
