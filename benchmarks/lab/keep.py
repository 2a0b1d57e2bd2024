"""Small copies of finished laboratory runs, which open as a report: `python -m benchmarks.lab.keep RUN [RUN ...]`

Writes benchmarks/results/runs/<name>/ with config.yaml, metrics.jsonl, numbers to five digits and no times, and
problems.jsonl, from which the report has its intervals; outputs/lab/<name> as the folder. The two that are there, 150
steps of GRPO and of PAEC with seed 1, are of
`paec lab sweep benchmarks/lab/defaults.yaml`:

    paec report benchmarks/results/runs/none-seed1 benchmarks/results/runs/paec-seed1
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from data_prep.files import atomic_write
from recipe.lab.runs import CONFIG_FILE, steps_done
from recipe.paec.common.records import METRICS_FILE, PROBLEMS_FILE, read_metrics
from recipe.paec.common.repository import REPOSITORY

KEPT = REPOSITORY / "benchmarks" / "results" / "runs"


def keep(run: Path, target: Path = KEPT) -> Path:
    """The small copy of a run below `target`; returns its folder.

    Raises:
        ValueError: there is no run, or it has not finished.
    """
    if not (run / CONFIG_FILE).is_file():
        raise ValueError(f"{run} is not a run of the laboratory: give the folder of one")
    config = yaml.safe_load((run / CONFIG_FILE).read_text(encoding="utf-8"))
    if steps_done(run) < config["steps"]:
        raise ValueError(f"{run} is at step {steps_done(run)} of {config['steps']}: finish it first")
    folder = target / run.name
    place = f"outputs/lab/{run.name}"
    config["output"] = config["run"]["directory"] = place
    config["run"]["overrides"] = [o for o in config["run"]["overrides"] if not o.startswith(("output=", "name="))]
    lines = [
        {key: rounded(value) for key, value in line.items() if not key.startswith(("timing_", "perf/throughput"))}
        for line in read_metrics(run / METRICS_FILE)
    ]
    problems = (run / PROBLEMS_FILE).read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / CONFIG_FILE) as partial:
        partial.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    with atomic_write(folder / METRICS_FILE) as partial:
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with atomic_write(folder / PROBLEMS_FILE) as partial:
        partial.write_text(problems, encoding="utf-8")
    return folder


def rounded(value: Any) -> Any:
    """A float to five significant digits; anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    for run in parser.parse_args(arguments).runs:
        try:
            print(keep(run))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
