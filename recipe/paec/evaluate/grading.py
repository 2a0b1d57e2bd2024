"""Responses with the graders' verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipe.grading.pool import GraderPool
from recipe.paec.common.console import say
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.journal import read_journal

GRADE_TOGETHER = 256
"""Responses per batch for the graders: small enough for frequent lines of progress."""


def grade(
    samples: list[dict[str, Any]], pool: GraderPool, problems: Mapping[str, list[Problem]] | None = None
) -> list[dict[str, Any]]:
    """Samples with both graders' verdicts and the groups of equivalent answers, in the order given.

    `problems`, by benchmark, have the rows' `extra_info`, for scorers from outside; the samples do not.
    """
    extra = {(problem.benchmark, problem.id): problem.extra for of in (problems or {}).values() for problem in of}
    graded: list[dict[str, Any]] = []
    started = last = time.monotonic()
    for begin in range(0, len(samples), GRADE_TOGETHER):
        part = samples[begin : begin + GRADE_TOGETHER]
        verdicts = pool.grade(
            (s["benchmark"], s["response"], s["ground_truth"], extra.get((s["benchmark"], s["problem"]), {}))
            for s in part
        )
        graded += [sample | asdict(verdict) for sample, verdict in zip(part, verdicts, strict=True)]
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"  graded {len(graded)}/{len(samples)}")
    problems = by_problem(graded)
    answers = ((benchmark, [s["answer"] for s in of_problem]) for (benchmark, _), of_problem in problems.items())
    for of_problem, numbers in zip(problems.values(), pool.groups(answers), strict=True):
        for sample, number in zip(of_problem, numbers, strict=True):
            sample["group"] = number
    say(f"graded {len(graded)} responses in {time.monotonic() - started:.0f} s")
    if pool.failed_comparisons:
        say(f"note: {pool.failed_comparisons} comparisons of two answers timed out; they count as different in maj@k")
    return graded


def by_problem(samples: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Samples of each (benchmark, problem), in order."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault((sample["benchmark"], sample["problem"]), []).append(sample)
    return groups


def journaled(problems: dict[str, list[Problem]], journal: Path) -> list[dict[str, Any]]:
    """The journal's responses joined with their problems, in benchmark order."""
    found = read_journal(journal)
    ordered = []
    for group in problems.values():
        for problem in group:
            index = 0
            while (record := found.get((problem.benchmark, problem.id, index))) is not None:
                prompt = {"prompt": problem.prompt[-1]["content"], "ground_truth": problem.ground_truth}
                ordered.append({**{key: record[key] for key in ("benchmark", "problem", "sample")}, **prompt, **record})
                index += 1
    return ordered
