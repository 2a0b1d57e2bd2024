"""`paec lab sweep JOBS.yaml`: many runs of the laboratory, several at a time, and a small record of each.

JOBS.yaml:

    all: [steps=300, base=grpo]           # overrides of every job
    seeds: [1, 2, 3]
    jobs:
      grpo: [method=none]                 # name: overrides
      clip_cov: [method=clip_cov, method.ratio=0.002]

makes the runs outputs/lab/JOBS/<name>-seed<seed>, a record of each finished one in outputs/lab/JOBS-records, and a
table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from data_prep.arithmetic import choose_avx2
from recipe.lab import own_code
from recipe.lab.job_file import read
from recipe.lab.runs import is_finished, trained_with
from recipe.lab.settings import ROOT, Settings, settings_of
from recipe.lab.table import table
from recipe.paec.common.child import StopSignals
from recipe.paec.common.console import asked_for_help, complain, complain_of_files, say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import replace_file
from recipe.paec.common.process_tree import ProcessTree
from recipe.paec.common.records import METRICS_FILE, PROBLEMS_FILE, read_metrics
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.config.keys import key_of
from recipe.paec.config.values import closest, shown

PUBLISHED = REPOSITORY / "benchmarks" / "lab"
"""The folder of this project's own files of jobs; their records, RECORDS, are in the repository."""
RECORDS = REPOSITORY / "benchmarks" / "results" / "lab"
COMMAND = [sys.executable, "-m", "recipe.lab"]
"""The command that trains one run."""
LOG, POLL = "lab.log", 0.2
"""A run's output; seconds between two looks at the runs."""
KEYS = ("all", "seeds", "jobs")
"""Of a file of jobs."""
OURS = {
    "seed": "every job runs with every seed: write seeds: [1, 2, 3]",
    "name": "a run is named after its job and its seed: rename the job",
    "output": "the runs go to one folder: give it as --runs",
    "fresh": "a sweep continues its runs: leave it out, or choose another --runs",
}
"""Key that the sweep sets itself -> what to do instead."""
CURVES = (
    *("critic/score/mean", "actor/entropy", "actor/grad_norm", "actor/ppo_kl", "actor/pg_clipfrac"),
    *("response_length/mean", "reward/mixed_prompts"),
)
"""Training metrics of a record, beside those of the run's methods: means over the steps between two validations."""
COUNTS = ("correct", "distinct", "solutions", "majority")
"""What is counted of every problem's responses; solutions only of countdown, majority only where a problem has one
answer."""
SPLITS = ("val/", "held_out/")
"""What the metrics of a validation begin with."""
USAGE = """
usage: paec lab sweep JOBS.yaml [--processes N] [--runs FOLDER] [--records FOLDER]
Runs the jobs of a file, each with every seed; records the curves of each when it has finished; prints a table.
  JOBS.yaml         all: [overrides], seeds: [numbers], jobs: {name: [overrides]}; a job's own override of a key takes
                    the place of that in all
  --processes N     runs at a time, one thread each (2)
  --runs FOLDER     where the runs go (outputs/lab/<name of the file of jobs>)
  --records FOLDER  where the records go (<folder of the runs>-records; of a file in benchmarks/lab of this repository:
                    benchmarks/results/lab/<name of the file of jobs>)
The same command continues: recorded runs are skipped, begun ones resumed.
"""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    job: str
    """Its name in the file."""
    overrides: tuple[str, ...]
    settings: Settings


def jobs_of(content: Any, runs: Path) -> list[Job]:
    """The runs of a file's content, all of them checked.

    Raises:
        UserError: one sentence for each thing that is wrong.
    """
    rule = 'a file of jobs has "jobs: {name: [overrides]}", and may have "all: [...]" and "seeds: [...]"'
    if isinstance(content, Mapping) and (unknown := [str(key) for key in content if key not in KEYS]):
        raise UserError(f"{unknown[0]}: {closest(unknown[0], KEYS, 'did you mean {}? ')}{rule}")
    if not isinstance(content, Mapping) or not content.get("jobs"):
        raise UserError(f"there are no jobs in this file: {rule}")
    common, seeds, errors, found = content.get("all", []), content.get("seeds", [1]), [], []
    if not isinstance(content["jobs"], Mapping):
        raise UserError("jobs: must be names with their overrides: {name: [overrides]}")
    for key, value in (("all", common), ("seeds", seeds)):
        if not isinstance(value, list) or (key == "seeds" and not value):
            raise UserError(f"{key}={value}: must be a list, such as [{'1, 2, 3' if key == 'seeds' else 'steps=300'}]")
    if twice := [seed for place, seed in enumerate(seeds) if str(seed) in map(str, seeds[:place])]:
        raise UserError(f"seeds: {twice[0]} is given twice: name every seed once")
    for name, own in content["jobs"].items():
        if problem := _refused(name, common, own):
            errors.append(problem)
            continue
        own_keys = {key_of(o) for o in own or []}
        of_job = (*(o for o in common if key_of(o) not in own_keys), *(own or []))
        for seed in seeds:
            label = f"{name}-seed{seed}"
            overrides = (*of_job, f"seed={seed}", f'name="{label}"', f'output="{runs / label}"')
            try:
                found.append(Job(label, name, overrides, settings_of(overrides)))
            except UserError as error:
                errors += [f"jobs.{name}: {problem}" for problem in error.errors]
    if errors:
        raise UserError(*dict.fromkeys(errors))
    return found


def _refused(name: Any, common: list[Any], own: Any) -> str | None:
    """What is wrong with a job before its settings are: its name, or its overrides; None if nothing is."""
    if not isinstance(name, str):  # no, off, 1, 0.5
        return f"jobs: YAML reads the name of a job as {shown(name)}, not as text: put the name in quotes"
    job = f"jobs.{name}"
    if "/" in job:
        return f"{job}: the name is that of a folder and of a file: leave the / out"
    if own is not None and not isinstance(own, list):
        return f"{job}: must be a list of overrides, such as [method=none]"
    if not all(isinstance(o, str) for o in [*common, *(own or [])]):
        return f"{job}: overrides must be text, such as method.ratio=0.002"
    for where, overrides in (("all", common), (job, own or [])):
        key = next((key for key in map(key_of, overrides) if key in OURS), None)
        if key is not None:
            return f"{where}: {key}: {OURS[key]}"
    return None


def _is_of_a_method(key: str) -> bool:
    """Whether this is a method's own metric, such as actor/paec/floor."""
    return key.startswith("actor/") and key.count("/") > 1 and not key.startswith(("actor/perf/", "actor/entropy/"))


def record_of(job: Job) -> dict[str, Any]:
    """What is kept of a finished run: its command, validations, and training metrics averaged between validations.

    "problems" has, for each split and validation, how many responses to each problem were correct, how many of those
    differ, and, where a problem has one answer, whether the majority's is right; the number of responses is the setting
    `test_samples`. "date" is the day of the record, "cores" those of the machine. "own_code", only where a method's
    class is not of paec_loss: `own_code.hashes_of`.
    """
    own = trained_with(job.settings.output)
    lines = read_metrics(job.settings.output / METRICS_FILE)
    every, last = job.settings.test_every, lines[-1]["step"]
    # What was the last step before the run was extended is no validation of this one.
    due = {line["step"] for line in lines if line["step"] == last or line["step"] % every == 0} if every > 0 else set()
    tested = [line for line in lines if line["step"] in due and any(key.startswith(SPLITS) for key in line)]
    curves: dict[str, list[Any]] = {"step": [line["step"] for line in tested]}
    for key in sorted({key for line in tested for key in line if key.startswith(SPLITS)}):
        curves[key] = [_rounded(line.get(key)) for line in tested]
    problems: dict[str, dict[str, list[Any]]] = {}
    for line in read_metrics(job.settings.output / PROBLEMS_FILE):
        if line["step"] not in due:
            continue
        counts = problems.setdefault(line["split"], {})
        for key in COUNTS:
            if key in line:
                counts.setdefault(key, []).append(line[key])
    seconds = [line["timing_cpu_s/step"] for line in lines if "timing_cpu_s/step" in line]
    return {
        "name": job.name,
        "command": [
            "python",
            "-m",
            "recipe.lab",
            *(o for o in job.overrides if not o.startswith(("name=", "output="))),
        ],
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "processor": processor(),
        "steps": lines[-1]["step"],
        "cpu_seconds_per_step": _rounded(sum(seconds) / len(seconds)),
        "validation": curves,
        "training": averaged(lines, curves["step"] or [lines[-1]["step"]]),
        "problems": problems,
        **({"own_code": own} if own else {}),
    }


def processor() -> str:
    """What decides how products are rounded: `Intel(R) Xeon(R) Processor, model 143, AVX512, torch 2.13.0+cpu`."""
    found: dict[str, str] = {}
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name, model = found.get("model name", platform.machine()), found.get("model", "not known")
    return f"{name}, model {model}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def averaged(lines: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> dict[str, list[Any]]:
    """CURVES and the methods' own metrics of a run's lines: means over the steps up to each of `steps`."""
    keys = (*CURVES, *sorted({key for line in lines for key in line if _is_of_a_method(key)}))
    found: dict[str, list[Any]] = {"step": []}
    first = 0
    for last in steps:
        span = [line for line in lines if first < line["step"] <= last]
        first = max(first, last)
        if span:
            found["step"].append(last)
            for key in keys:
                values = [line[key] for line in span if line.get(key) is not None]
                found.setdefault(key, []).append(_rounded(sum(values) / len(values)) if values else None)
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def train_all(jobs: Sequence[Job], records: Path, processes: int) -> tuple[list[str], int]:
    """Train jobs, `processes` at a time, and record those that finish; a finished run is recorded as it is.

    Returns:
        Why jobs failed; and 0, or 128 plus the signal that stopped it, and then all runs.
    """
    waiting, failures, code = deque(jobs), list[str](), 0
    running: list[tuple[Job, ProcessTree]] = []

    def stop(number: int, _: object) -> None:
        nonlocal code
        code = code or 128 + number

    with StopSignals(stop):
        try:
            while (waiting or running) and not code:
                while waiting and len(running) < processes and not code:
                    job = waiting.popleft()
                    with _noted(job, records, failures):
                        if (tree := _started(job)) is None:
                            _record(job, records)
                        else:
                            running.append((job, tree))
                for job, tree in [one for one in running if one[1].process.poll() is not None]:
                    running.remove((job, tree))
                    tree.end()
                    with _noted(job, records, failures):
                        if tree.process.returncode:
                            log = job.settings.output / LOG
                            raise UserError(f"exit code {tree.process.returncode}; {log} says why")
                        _record(job, records)
                if running:
                    time.sleep(POLL)
        finally:
            for _, tree in running:
                tree.end()
    return failures, code


@contextmanager
def _noted(job: Job, records: Path, failures: list[str]) -> Iterator[None]:
    """Adds to `failures` why a job fails in the block, and lets the others continue."""
    try:
        yield
    except UserError as error:
        failures.append(f"{job.name}: {error}")
    except OSError as error:
        what = f"{error.filename2 or error.filename or file_of(job, records)}: {error.strerror or error}"
        failures.append(f"{job.name}: {what}: free some space, or choose writable --runs and --records")


def _started(job: Job) -> ProcessTree | None:
    """The process that trains a job; None if its run is finished. UserError if its folder holds another run."""
    if is_finished(job.settings, "delete the folder, or choose another --runs"):
        return None
    job.settings.output.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return ProcessTree([*COMMAND, *job.overrides], job.settings.output / LOG, environment)


def _record(job: Job, records: Path) -> None:
    """Write the record of a finished run."""
    file = file_of(job, records)
    records.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(record_of(job)) + "\n", sync=True)
    say(f"{job.name}: {job.settings.steps} steps, {file}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code: 1 if a run failed, 2 for wrong input, 130 or 143 stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if asked_for_help(given, USAGE):
        return 0
    parser = argparse.ArgumentParser(prog="paec lab sweep", usage=USAGE.strip().removeprefix("usage: "), add_help=False)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--records", type=Path)
    options = parser.parse_args(given)
    options.runs = options.runs or ROOT / options.jobs.stem
    options.records = options.records or records_of(options.jobs, options.runs)
    try:
        if options.processes < 1:
            raise UserError(f"--processes {options.processes}: must be at least 1")
        jobs = jobs_of(read(options.jobs), options.runs)
        pending = pending_of(jobs, options.records)
        say(f"{len(jobs)} runs, {len(jobs) - len(pending)} of them recorded already")
        failures, code = train_all(pending, options.records, options.processes)
        missing = pending_of(jobs, options.records)
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "free some space, or choose writable --runs and --records", "while writing")
    except KeyboardInterrupt:
        code, failures = 128 + signal.SIGINT, []
    if code:
        complain([*failures, f"stopped by {signal.Signals(code - 128).name}: the same command continues"])
        return code
    records: dict[str, list[Path | None]] = {}
    for job in jobs:
        records.setdefault(job.job, []).append(None if job in missing else file_of(job, options.records))
    if shown := table(records):
        say(f"\n{shown}")
    if failures:
        complain(failures)
        return 1
    return 0


def records_of(jobs: Path, runs: Path) -> Path:
    """Where the records of a file of jobs go by default: beside the folder of its runs."""
    return RECORDS / jobs.stem if jobs.resolve().parent == PUBLISHED else Path(f"{runs}-records")


def pending_of(jobs: Sequence[Job], records: Path) -> list[Job]:
    """The jobs that are not `recorded`.

    Raises:
        UserError: of `recorded`, for all of them together.
    """
    found, errors = [], []
    for job in jobs:
        try:
            if not recorded(job, records):
                found.append(job)
        except UserError as error:
            errors += error.errors
    if errors:
        raise UserError(*errors)
    return found


def file_of(job: Job, records: Path) -> Path:
    """The record of a run."""
    return records / f"{job.name}.json"


def recorded(job: Job, records: Path) -> bool:
    """Whether there is a record of this run with as many steps or more.

    Raises:
        UserError: it was made with another version of the method's own file.
    """
    file = file_of(job, records)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    own = [o for o in job.overrides if not o.startswith(("name=", "output=", "steps="))]
    there = [o for o in found["command"][3:] if not o.startswith("steps=")]
    if own != there or found["steps"] < job.settings.steps:
        return False
    if changed := own_code.changed(found.get("own_code", {}), job.settings.own_code):
        raise UserError(
            f"{file} was made with another version of {changed}: delete it and {job.settings.output}, or choose other "
            "--runs and --records"
        )
    return True


if __name__ == "__main__":
    choose_avx2()  # as the trainings do, which is what records say
    sys.exit(main())
