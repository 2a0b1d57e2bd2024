"""The table at the end of a sweep: means over the seeds of every job at its last validation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from recipe.paec.scoring.display import heading, markdown

_AVERAGE = re.compile(r"val/(.+)/avg@(\d+)")


def table(records: Mapping[str, Sequence[Path | None]]) -> str:
    """The table as Markdown with its caption; "" if no run was validated.

    Args:
        records: job -> the files of `recipe.lab.sweep.record_of` of its seeds; None for one that has none, which the
            means leave out.
    """
    read = {job: [json.loads(f.read_text("utf-8")) for f in files if f] for job, files in records.items()}
    found = {job: [last_validation(record) for record in runs] for job, runs in read.items()}
    columns = list(dict.fromkeys(column for runs in found.values() for run in runs for column in run))
    if not columns:
        return ""
    several = len({source for source, _ in columns}) > 1
    rows = [["job", "seeds", *(f"{heading(source)} {name}" if several else name for source, name in columns)]]
    for job, runs in found.items():
        seeds = str(len(runs)) + (f" of {len(records[job])}" if len(runs) < len(records[job]) else "")
        rows.append([job, seeds, *(_mean([run.get(column) for run in runs]) for column in columns)])
    steps = {record["validation"]["step"][-1] for runs in read.values() for record in runs if last_validation(record)}
    place = " or ".join(map(str, sorted(steps)))
    return f"{markdown(rows)}Means over the seeds at the last validation, step {place}; entropy: of a token, nats."


def last_validation(record: Mapping[str, Any]) -> dict[tuple[str, str], float | None]:
    """(data source, metric) -> value of the last validation in a record; None for one that is not a number."""
    curves, found = record["validation"], {}
    for key in curves:
        if match := _AVERAGE.fullmatch(key):
            source, n = match.groups()
            for name in (f"avg@{n}", f"pass@{n}", f"distinct@{n}", "entropy"):
                if values := curves.get(f"val/{source}/{name}"):
                    found[source, name] = values[-1]
    return found


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.3f}" if known and len(known) == len(values) else "-"
