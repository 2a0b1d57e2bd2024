"""`paec lab sweep JOBS.yaml`: many runs of the laboratory, several at a time, and a small record of each.

JOBS.yaml:

    all: [steps=300, base=grpo]           # overrides of every job
    seeds: [1, 2, 3]
    jobs:
      grpo: [method=none]                 # name: overrides
      clip_cov: [method=clip_cov, method.ratio=0.002]

makes the runs outputs/lab/JOBS/<name>-seed<seed>, and a record of each finished one in benchmarks/results/lab/JOBS.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from recipe.lab.runs import is_finished
from recipe.lab.settings import ROOT, Settings, settings_of
from recipe.paec.common.console import asked_for_help, complain, say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import replace_file
from recipe.paec.common.records import PROBLEMS_FILE
from recipe.paec.run.log import METRICS_FILE, read_metrics

RECORDS = Path("benchmarks/results/lab")
CURVES = (
    *("critic/score/mean", "actor/entropy", "actor/grad_norm", "actor/ppo_kl", "actor/pg_clipfrac"),
    *("response_length/mean", "reward/mixed_prompts"),
)
"""Training metrics of a record, beside those of the run's methods: means over the steps between two validations."""
COUNTS = ("correct", "distinct", "majority")
"""What is counted of every problem's responses; majority only where a problem has one answer."""
SPLITS = ("val/", "held_out/")
"""What the metrics of a validation begin with."""
USAGE = """
usage: paec lab sweep JOBS.yaml [--processes N] [--runs FOLDER] [--records FOLDER]
Runs the jobs of a file, each with every seed, and records the curves of each as soon as it has finished.
  JOBS.yaml         all: [overrides], seeds: [numbers], jobs: {name: [overrides]}
  --processes N     runs at a time, one thread each (2)
  --runs FOLDER     where the runs go (outputs/lab/<name of the file of jobs>)
  --records FOLDER  where the records go (benchmarks/results/lab/<name of the file of jobs>)
The same command continues: recorded runs are skipped, begun ones resumed.
"""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    overrides: tuple[str, ...]
    settings: Settings


def jobs_of(content: Any, runs: Path) -> list[Job]:
    """The runs of a file's content, all of them checked.

    Raises:
        UserError: one sentence for each thing that is wrong.
    """
    keys = {"all", "seeds", "jobs"}
    if not isinstance(content, Mapping) or not content.get("jobs") or content.keys() - keys:
        raise UserError('a file of jobs has "jobs: {name: [overrides]}", and may have "all: [...]" and "seeds: [...]"')
    common, seeds, errors, found = content.get("all", []), content.get("seeds", [1]), [], []
    if not isinstance(content["jobs"], Mapping):
        raise UserError("jobs: must be names with their overrides: {name: [overrides]}")
    for key, value in (("all", common), ("seeds", seeds)):
        if not isinstance(value, list) or (key == "seeds" and not value):
            raise UserError(f"{key}={value}: must be a list, such as [{'1, 2, 3' if key == 'seeds' else 'steps=300'}]")
    for name, own in content["jobs"].items():
        if own is not None and not isinstance(own, list):
            errors.append(f"jobs.{name}: must be a list of overrides, such as [method=none]")
            continue
        if not all(isinstance(o, str) for o in [*common, *(own or [])]):
            errors.append(f"jobs.{name}: overrides must be text, such as method.ratio=0.002")
            continue
        for seed in seeds:
            label = f"{name}-seed{seed}"
            overrides = (*common, *(own or []), f"seed={seed}", f'name="{label}"', f'output="{runs / label}"')
            try:
                found.append(Job(label, overrides, settings_of(overrides)))
            except UserError as error:
                errors += [f"jobs.{name}: {problem}" for problem in error.errors]
    if errors:
        raise UserError(*dict.fromkeys(errors))
    return found


def _is_of_a_method(key: str) -> bool:
    """Whether this is a method's own metric, such as actor/paec/floor."""
    return key.startswith("actor/") and key.count("/") > 1 and not key.startswith("actor/perf/")


def record_of(job: Job) -> dict[str, Any]:
    """What is kept of a finished run: its command, validations, and training metrics averaged between validations.

    "problems" has, for each split and validation, how many responses to each problem were correct, how many of those
    differ, and, where a problem has one answer, whether the majority's is right; the number of responses is the setting
    `test_samples`. "date" is the day of the record, "cores" those of the machine.
    """
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
        "steps": lines[-1]["step"],
        "cpu_seconds_per_step": _rounded(sum(seconds) / len(seconds)),
        "validation": curves,
        "training": averaged(lines, curves["step"] or [lines[-1]["step"]]),
        "problems": problems,
    }


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


def finish(job: Job, records: Path) -> str | None:
    """Run a job to its end in a process of its own and record it; returns why it failed, None if it did not.

    A finished run is recorded as it is, if it is the job's.
    """
    folder, file = job.settings.output, records / f"{job.name}.json"
    try:
        finished = is_finished(job.settings)
    except UserError as error:
        return f"{job.name}: {error}"
    if not finished:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lab.log", "a", encoding="utf-8") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "recipe.lab", *job.overrides]
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        if code:
            return f"{job.name}: exit code {code}; {folder / 'lab.log'} says why"
    records.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(record_of(job)) + "\n", sync=True)
    say(f"{job.name}: {job.settings.steps} steps, {file}")
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code, 1 if a run failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if asked_for_help(given, USAGE):
        return 0
    parser = argparse.ArgumentParser(prog="paec lab sweep", usage=USAGE.strip().removeprefix("usage: "), add_help=False)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--records", type=Path)
    options = parser.parse_args(given)
    options.records = options.records or RECORDS / options.jobs.stem
    options.runs = options.runs or ROOT / options.jobs.stem
    try:
        if options.processes < 1:
            raise UserError(f"--processes {options.processes}: must be at least 1")
        if not options.jobs.is_file():
            raise UserError(f"{options.jobs}: does not exist: give a YAML file of jobs")
        try:
            jobs = jobs_of(yaml.safe_load(options.jobs.read_text(encoding="utf-8")), options.runs)
        except yaml.YAMLError as error:
            raise UserError(f"{options.jobs}: is not YAML: {' '.join(str(error).split())}") from None
    except UserError as error:
        return complain(error.errors)
    pending = [job for job in jobs if not recorded(job, options.records)]
    say(f"{len(jobs)} runs, {len(jobs) - len(pending)} of them recorded already")
    with ThreadPoolExecutor(options.processes) as threads:
        failures = [failure for failure in threads.map(lambda job: finish(job, options.records), pending) if failure]
    return complain(failures) and 1 if failures else 0


def recorded(job: Job, records: Path) -> bool:
    """Whether there is a record of this run with as many steps or more."""
    try:
        found = json.loads((records / f"{job.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    own = [o for o in job.overrides if not o.startswith(("name=", "output=", "steps="))]
    there = [o for o in found["command"][3:] if not o.startswith("steps=")]
    return found["steps"] >= job.settings.steps and own == there


if __name__ == "__main__":
    sys.exit(main())
