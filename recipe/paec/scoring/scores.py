"""From graded samples to scores: the content of `scores.json`, and validation metrics during training.

A graded sample is a mapping (a JSON line of `samples.jsonl`); the fields read here are

    benchmark, problem      str
    sample                  int, 0 <= sample < n: which response to the problem
    correct, strict         bool: verdicts of the evaluation's grader and of the training rule
    group                   int, one for each class of equivalent answers of a problem; null without an answer
    status                  "ok", "unparsable", "timeout" or "error": how the evaluation's grader fared
    finish_reason, tokens   str and int, or null where unknown
    score                   number; only where a scorer from outside gave it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from recipe.paec.scoring.estimators import (
    average,
    bootstrap_interval,
    bootstrap_intervals,
    inconsistent_groups,
    maj_at_k,
    pass_at_every_k,
    powers_of_two,
)
from recipe.paec.scoring.verdicts import SampleVerdict, collect

FORMAT = 1
"""Format version of scores.json; raised when a reader of the old format would misread the new one."""


# ---- scores.json -----------------------------------------------------------------------------------------------------


def score(samples: Iterable[Mapping[str, Any]], name: str = "samples.jsonl") -> dict[str, Any]:
    """Scores of graded samples, ready for JSON; shares and accuracies are fractions of 1.

    Args:
        samples: one mapping per response, in any order.
        name: name of their file in errors; the first sample is its line 1.

    Returns:
        format, benchmarks and average. Every mean over problems is {"value", "low", "high"} (`bootstrap_interval`). Of
        a benchmark: problems, samples (n of each problem), avg, strict_avg, score (the mean score, where a scorer from
        outside gave scores), maj (at powers of two and n), pass (at
        every k up to n), disagreement (share of samples that are right, but not by the strict rule), the shares
        truncated, unparsable, grader_timeout and grader_error, mean_length (tokens), inconsistent_groups (of equivalent
        answers with different verdicts), and per_problem counts of correct and strict samples and the majority's
        verdict. average holds the unweighted means over benchmarks of avg, maj and pass, each at the benchmark's own n.

    Raises:
        UserError: a malformed sample, a sample twice, or problems of one benchmark with different n; no samples.
    """
    benchmarks = {benchmark: _score_benchmark(problems) for benchmark, problems in collect(samples, name).items()}
    return {
        "format": FORMAT,
        "benchmarks": benchmarks,
        "average": {
            metric: asdict(bootstrap_interval(*(per_problem(b, metric) for b in benchmarks.values())))
            for metric in ("avg", "maj", "pass")
        },
    }


def per_problem(benchmark: Mapping[str, Any], metric: str) -> np.ndarray:
    """A metric of every problem of one benchmark of `score`, [P], in the order of its per_problem.

    Args:
        metric: "avg", "maj" or "pass", at the benchmark's n, or "pass@k" with k <= n.
    """
    n, problems = benchmark["samples"], benchmark["per_problem"].values()
    kind, _, k = metric.partition("@")
    if kind == "avg":
        return np.array([problem["correct"] / n for problem in problems])
    if kind == "maj":
        return np.array([float(problem["maj"]) for problem in problems])
    return np.array([pass_at_every_k(n, problem["correct"])[int(k or n) - 1] for problem in problems])


def _score_benchmark(problems: Mapping[str, Sequence[SampleVerdict]]) -> dict[str, Any]:
    rows = {problem: _quantities(verdicts) for problem, verdicts in problems.items()}
    verdicts = [verdict for of_problem in problems.values() for verdict in of_problem]
    n = len(verdicts) // len(problems)
    names = list(next(iter(rows.values())))
    estimates = dict(zip(names, bootstrap_intervals([list(row.values()) for row in rows.values()]), strict=True))

    def at_k(kind: str) -> dict[str, Any]:
        return {
            name.removeprefix(kind): asdict(estimate) for name, estimate in estimates.items() if name.startswith(kind)
        }

    return {
        "problems": len(problems),
        "samples": n,
        "avg": asdict(estimates["avg"]),
        "strict_avg": asdict(estimates["strict_avg"]),
        **({"score": asdict(estimates["score"])} if "score" in estimates else {}),
        "maj": at_k("maj@"),
        "pass": at_k("pass@"),
        "disagreement": sum(v.correct != v.strict for v in verdicts) / len(verdicts),
        "truncated": _mean_if_known(
            verdicts, lambda v: None if v.finish_reason is None else v.finish_reason == "length"
        ),
        **_grader_shares(verdicts, len(verdicts)),
        "mean_length": _mean_if_known(verdicts, lambda v: v.tokens),
        "inconsistent_groups": sum(
            inconsistent_groups([v.group for v in of_problem], [v.correct for v in of_problem])
            for of_problem in problems.values()
        ),
        "per_problem": {
            problem: {
                "correct": sum(v.correct for v in problems[problem]),
                "strict": sum(v.strict for v in problems[problem]),
                "maj": int(row[f"maj@{n}"]),
            }
            for problem, row in rows.items()
        },
    }


def _quantities(verdicts: Sequence[SampleVerdict]) -> dict[str, float]:
    """Every quantity of one problem whose mean over problems is a score."""
    n, correct, groups = len(verdicts), [v.correct for v in verdicts], [v.group for v in verdicts]
    return {
        "avg": average(correct),
        "strict_avg": average([v.strict for v in verdicts]),
        **{f"maj@{k}": maj_at_k(groups, correct, k) for k in powers_of_two(n)},
        **{f"pass@{k}": float(p) for k, p in enumerate(pass_at_every_k(n, sum(correct)), 1)},
        **({"score": mean} if (mean := _mean_if_known(verdicts, lambda v: v.score)) is not None else {}),
    }


def _grader_shares(verdicts: Sequence[SampleVerdict], total: int) -> dict[str, float]:
    """Shares of `total` samples in which the evaluation's grader found nothing to grade, or failed."""
    names = {"unparsable": "unparsable", "grader_timeout": "timeout", "grader_error": "error"}
    return {name: sum(v.status == status for v in verdicts) / total for name, status in names.items()}


def _mean_if_known(verdicts: Sequence[SampleVerdict], value: Callable[[SampleVerdict], float | None]) -> float | None:
    """Mean over samples; None if a value is missing, because the mean of the others may differ."""
    values = [value(verdict) for verdict in verdicts]
    return None if None in values else fmean(values)


# ---- validation during training --------------------------------------------------------------------------------------


def validation_metrics(
    data_sources: Sequence[str],
    problem_ids: Sequence[str],
    verdicts: Sequence[SampleVerdict],
    *,
    problems: Mapping[str, int],
    samples: int,
) -> dict[str, float]:
    """Flat metrics of one validation, by the same estimators; fractions of 1.

    Samples that are expected but missing (a failed generation) count as wrong, and a problem with a missing one has
    no majority (the missing votes might have changed it), so that losing samples never raises a score; `missing` says
    how many.

    Args:
        data_sources, problem_ids, verdicts: one entry per sample, those of a problem in the order they were drawn.
        problems: data source -> number of problems validated.
        samples: samples n per problem.

    Returns:
        val/<source>/avg@n, maj@n, pass@k (k powers of two, and n), strict_avg, disagreement, unparsable,
        grader_timeout, grader_error (shares of all expected samples), missing (samples).

    Raises:
        ValueError: more problems or samples than expected, or a data source that was not.
    """
    found: dict[str, dict[str, list[SampleVerdict]]] = {source: {} for source in problems}
    for source, problem, verdict in zip(data_sources, problem_ids, verdicts, strict=True):
        if source not in found:
            raise ValueError(f"validation: unexpected data source {source}, expected {', '.join(problems)}")
        found[source].setdefault(problem, []).append(verdict)
    metrics = {}
    for source, of_source in found.items():
        if len(of_source) > problems[source]:
            raise ValueError(f"validation: {len(of_source)} problems of {source}, expected {problems[source]}")
        for problem, given in of_source.items():
            if len(given) > samples:
                raise ValueError(f"validation: {len(given)} samples of {source}, problem {problem}, expected {samples}")
        given = [verdict for of_problem in of_source.values() for verdict in of_problem]
        expected = problems[source] * samples
        lost = SampleVerdict(correct=False, strict=False, group=None, status="missing")
        padded = [of_problem + [lost] * (samples - len(of_problem)) for of_problem in of_source.values()]
        padded += [[lost] * samples] * (problems[source] - len(padded))
        rows = [_quantities(of_problem) for of_problem in padded]
        majorities = [
            row[f"maj@{samples}"] * (lost not in of_problem) for row, of_problem in zip(rows, padded, strict=True)
        ]
        values = {
            f"avg@{samples}": fmean(row["avg"] for row in rows),
            f"maj@{samples}": fmean(majorities),
            **{f"pass@{k}": fmean(row[f"pass@{k}"] for row in rows) for k in powers_of_two(samples)},
            "strict_avg": fmean(row["strict_avg"] for row in rows),
            "disagreement": sum(v.correct != v.strict for v in given) / expected,
            **_grader_shares(given, expected),
            "missing": float(expected - len(given)),
        }
        metrics |= {f"val/{source}/{name}": value for name, value in values.items()}
    return metrics
