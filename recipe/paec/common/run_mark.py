"""Distinguishes the runs of one host."""

from __future__ import annotations

import os

RUN_VARIABLE = "PAEC_RUN"
"""Environment variable of all workers of a run, which distinguishes the runs of one host."""


def unique_job(job: str) -> str:
    """Ray's job id with the run's mark: both ends of the weight sync name their socket by it.

    Each Ray cluster counts its jobs from 1, so two runs on one host, each with its own cluster, have the same id.
    """
    mark = "-" + os.environ[RUN_VARIABLE]
    return job if job.endswith(mark) else job + mark
