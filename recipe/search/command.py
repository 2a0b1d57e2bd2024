"""`paec search FILE.yaml`: the same search budget for every method (recipe.search.request has the form of the file)."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import asked_for_help, complain, complain_of_files, say
from recipe.paec.common.errors import UserError

USAGE = """
usage: paec search FILE.yaml [--output FOLDER] [--processes N] [--dry-run]
Tries the same number of settings of every method, its default first, and chooses the best one of each.
  FILE.yaml         methods and their knobs, seeds, trials, sampler, objective: docs/search.md
  --output FOLDER   runs, journal and table (outputs/search/<name of the file>)
  --processes N     runs of the laboratory at a time, one thread each (2)
  --dry-run         check everything, and say what would be searched
The same command resumes: finished settings are kept, begun ones continue.
example: paec search benchmarks/lab/paec_search.yaml --processes 2
"""
ROOT = Path("outputs/search")
PROCESSES = 2


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; raises UserError for anything the user can fix."""
    parser = argparse.ArgumentParser(prog="paec search", usage=USAGE.strip().removeprefix("usage: "), add_help=False)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    from recipe.search import results  # what imports torch and the methods, after the help
    from recipe.search.lab import Lab
    from recipe.search.loop import search, spaces_of
    from recipe.search.pipeline import Pipeline
    from recipe.search.request import read
    from recipe.search.studies import JOURNAL, Studies, optuna_module

    request = read(options.file)
    folder = options.output or ROOT / request.name
    if options.processes is not None and request.runner != "lab":
        raise UserError("--processes: the pipeline trains one run at a time: leave it out, or set runner: lab")
    processes = PROCESSES if options.processes is None else options.processes
    if processes < 1:
        raise UserError(f"--processes {processes}: must be at least 1")
    optuna_module()
    check_folder(folder, JOURNAL)
    runner = Lab(request, folder, processes) if request.runner == "lab" else Pipeline(request, folder)
    spaces = spaces_of(request, runner)
    settings = sum(map(request.settings, request.methods))
    runs = f"{settings * len(request.seeds)} runs of {runner.steps} steps"
    say(f"{len(request.methods)} methods, {settings} settings, {len(request.seeds)} seeds: {runs}, in {folder}")
    if options.dry_run:
        for name, space in spaces.items():
            knobs = ", ".join(f"{field} {knob.written()}" for field, knob in space.knobs.items())
            say(f"{name}: {request.settings(name)} settings; {knobs or 'no knob, so its default alone'}")
        say("dry run: nothing was started")
        return 0
    kind = replace(folder_kinds.GRID, noun="search", elsewhere="choose another --output")
    with folders.lock(folder, kind):
        studies = Studies(folder, request, spaces)

        def changed(failures: Mapping[str, str]) -> None:
            results.write(folder, request, spaces, studies, runner, failures)

        ended = search(request, studies, runner, changed)
        text, files = results.write(folder, request, spaces, studies, runner, ended.failures)
    say("\n".join(["", text, *map(str, files)]))
    if ended.code is not None:
        why = f"stopped by {signal.Signals(ended.code - 128).name}" if ended.code > 128 else "submitted"
        say(f"{why}; the same command resumes")
        return ended.code
    return complain(list(ended.failures.values())) and 1 if ended.failures else 0


def check_folder(folder: Path, journal: str) -> None:
    """UserError if a folder holds something other than a search."""
    if folder.is_dir() and not (folder / journal).exists():
        strange = next((e.name for e in sorted(folder.iterdir()) if e.name != folder_kinds.LOCK), None)
        if strange is not None:
            raise UserError(f"{folder} contains {strange} but no search: choose another --output")
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: choose another --output")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code: 1 if a run failed, 2 for wrong input, 130 or 143 stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if asked_for_help(given, USAGE):
        return 0
    try:
        return run(given)
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "free some space, or choose a writable folder with --output", "while writing")
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr, flush=True)
        return 130
