"""Estimates, differences and significance between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import SeedGroup
from recipe.paec.scoring.display import heading, in_papers_order
from recipe.paec.scoring.estimators import LEVEL, Estimate, bootstrap_interval, paired_bootstrap, t_interval
from recipe.paec.scoring.scores import per_problem

SIGNIFICANT = 1 - LEVEL
"""p below which a difference from the baseline is marked: its interval then excludes 0."""

DAGGER, DASH = "\N{DAGGER}", "\N{EN DASH}"


def problem_means(method: SeedGroup, benchmark: str, metric: str) -> np.ndarray:
    """A metric of each problem, [P], averaged over the method's seeds."""
    return np.mean([per_problem(run.scores["benchmarks"][benchmark], metric) for run in method.runs], axis=0)


def estimate(method: SeedGroup, benchmarks: Sequence[str], metric: str) -> Estimate:
    """A method's score on a benchmark, or its unweighted mean over several, in fractions of 1.

    The interval is Student's over the seeds where there are two or more, else the bootstrap's over problems.
    """
    if len(method.runs) == 1:
        return bootstrap_interval(*(problem_means(method, benchmark, metric) for benchmark in benchmarks))
    return t_interval(
        [
            float(np.mean([per_problem(run.scores["benchmarks"][b], metric).mean() for b in benchmarks]))
            for run in method.runs
        ]
    )


def compare(methods: Sequence[SeedGroup], metric: str, baseline: str, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """One table, ready for JSON: every method's estimates, and their differences from the baseline's.

    Args:
        methods: of one problem set, see `check`.
        metric: "avg", "maj", or "pass@k"; a benchmark with n < k has no pass@k (null), nor then has the average.
        baseline: a method's name. Differences from it are of per-problem means over seeds (`paired_bootstrap`), so
            they reflect the randomness of problems and samples, not the spread between training runs.
        remarks: sentences for the caption.

    Returns:
        metric, level, baseline, samples (n by benchmark), remarks, caption, and methods: name, runs (paths), interval
        ("seeds" or "problems"), benchmarks and average, each {value, low, high, difference: {value, low, high, p}}.

    Raises:
        UserError: no method of that name, or no benchmark with n >= k.
    """
    by_name = {method.name: method for method in methods}
    if baseline not in by_name:
        raise UserError(f"--baseline {baseline}: must be one of {', '.join(by_name)}")
    first = methods[0].runs[0].scores["benchmarks"]
    names = in_papers_order(first)
    # With --allow-protocol-mismatch the n differ; the smallest decides.
    samples = {
        name: min(run.scores["benchmarks"][name]["samples"] for m in methods for run in m.runs) for name in names
    }
    k = int(metric.partition("@")[2] or 1)
    scored = [name for name in names if samples[name] >= k]
    if not scored:
        raise UserError(
            f"--metric {metric}: no benchmark has {k} samples per problem, the most is {max(samples.values())}"
        )

    def cell(method: SeedGroup, over: Sequence[str]) -> dict[str, Any] | None:
        if not set(over) <= set(scored):
            return None
        pairs = [[problem_means(m, name, metric) for m in (method, by_name[baseline])] for name in over]
        difference = None if method.name == baseline else asdict(paired_bootstrap(*pairs))
        return {**asdict(estimate(method, over, metric)), "difference": difference}

    result = {
        "metric": metric,
        "level": LEVEL,
        "baseline": baseline,
        "samples": samples,
        "remarks": [*remarks, *_steps(methods)],
        "methods": [
            {
                "name": method.name,
                "runs": [str(run.path) for run in method.runs],
                "interval": "seeds" if len(method.runs) > 1 else "problems",
                "benchmarks": {name: cell(method, [name]) for name in names},
                "average": cell(method, names),
            }
            for method in methods
        ],
    }
    return {**result, "caption": _caption(result)}


def _steps(methods: Sequence[SeedGroup]) -> list[str]:
    steps = {m.name: sorted({str(run.scores["provenance"]["step"]) for run in m.runs}) for m in methods}
    if len({step for found in steps.values() for step in found}) < 2:
        return []
    listed = "; ".join(f"{name} {', '.join(found)}" for name, found in steps.items())
    return [f"the models come from different training steps ({listed})"]


def _caption(result: Mapping[str, Any]) -> str:
    percent = f"{100 * result['level']:.0f} %"
    intervals = {method["interval"] for method in result["methods"]}
    by_n: dict[int, list[str]] = {}
    for name, n in result["samples"].items():
        by_n.setdefault(n, []).append(heading(name))
    metric = result["metric"] if "@" in result["metric"] else result["metric"] + "@n"
    sentences = [f"in percent: {metric}, n = " + "; ".join(f"{n} ({', '.join(b)})" for n, b in by_n.items())]
    if "seeds" in intervals:
        sentences.append(f"\N{PLUS-MINUS SIGN}: {percent} t interval over training seeds")
    if "problems" in intervals:
        sentences.append(f"[low, high]: {percent} bootstrap over problems, one seed")
    if len(result["methods"]) > 1:
        sentences.append(
            f"Bold: the best. {DAGGER}: differs from {result['baseline']}, p < {1 - result['level']:.2f}, paired "
            "bootstrap over problems, uncorrected for the number of comparisons"
        )
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in [*sentences, *result["remarks"]])
