"""Estimates, differences and significance between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import SeedGroup
from recipe.paec.scoring.display import heading, in_papers_order
from recipe.paec.scoring.estimators import LEVEL, Difference, Estimate, bootstrap_interval, paired_bootstrap, t_interval
from recipe.paec.scoring.scores import per_problem
from recipe.paec.scoring.two_level import two_level_difference

SIGNIFICANT = 1 - LEVEL
"""p below which a difference from the baseline is marked: its interval then excludes 0."""

DAGGER, DASH = "\N{DAGGER}", "\N{EN DASH}"


FEW_SEEDS = 5
"""With fewer seeds the two-level test is too lenient, and the caption says so."""


def seeds_by_problems(method: SeedGroup, benchmark: str, metric: str) -> np.ndarray:
    """A metric of each problem, [S, P], for each of the method's seeds."""
    return np.stack([per_problem(run.scores["benchmarks"][benchmark], metric) for run in method.runs])


def problem_means(method: SeedGroup, benchmark: str, metric: str) -> np.ndarray:
    """A metric of each problem, [P], averaged over the method's seeds."""
    return seeds_by_problems(method, benchmark, metric).mean(axis=0)


def tested_over(method: SeedGroup, baseline: SeedGroup) -> str:
    """What the test against the baseline resamples.

    "problems" if one of the two has a single seed, whose spread between trainings nobody can know; else "seeds and
    problems", or "shared seeds and problems" if both have the same seeds, which are then drawn together.
    """
    if min(len(method.runs), len(baseline.runs)) < 2:
        return "problems"
    shared = method.seeds is not None and set(method.seeds) == set(baseline.seeds or ())
    return "shared seeds and problems" if shared else "seeds and problems"


def difference_from(method: SeedGroup, baseline: SeedGroup, benchmarks: Sequence[str], metric: str) -> Difference:
    """A method's score minus the baseline's on a benchmark, or the mean over several, in fractions of 1."""
    over = tested_over(method, baseline)
    if over == "problems":
        return paired_bootstrap(*([problem_means(m, b, metric) for m in (method, baseline)] for b in benchmarks))
    same_seeds = over == "shared seeds and problems"
    if same_seeds:
        method, baseline = (
            SeedGroup(
                m.name, tuple(run for _, run in sorted(zip(m.seeds, m.runs, strict=True), key=lambda one: one[0]))
            )
            for m in (method, baseline)
        )
    pairs = [tuple(seeds_by_problems(m, b, metric) for m in (method, baseline)) for b in benchmarks]
    return two_level_difference(pairs, same_seeds)


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
        baseline: a method's name. With at least two seeds of both, differences from it reflect the spread between
            trainings and between problems (`two_level_difference`). Otherwise they are of per-problem means over seeds
            (`paired_bootstrap`), and reflect the randomness of problems and samples only.
        remarks: sentences for the caption.

    Returns:
        metric, level, baseline, samples (n by benchmark), remarks, caption, and methods: name, runs (paths), interval
        ("seeds" or "problems"), tested_over (see there; null for the baseline), benchmarks and average, each {value,
        low, high, difference: {value, low, high, p}}.

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
        against = None if method.name == baseline else difference_from(method, by_name[baseline], over, metric)
        return {**asdict(estimate(method, over, metric)), "difference": asdict(against) if against else None}

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
                "tested_over": None if method.name == baseline else tested_over(method, by_name[baseline]),
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
            f"Bold: the best. {DAGGER}: differs from {result['baseline']}, p < {1 - result['level']:.2f}, "
            f"{_tests(result['methods'])}, uncorrected for the number of comparisons"
        )
    sentences += _left_out(result["methods"])
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in [*sentences, *result["remarks"]])


TESTS = {
    "problems": "paired bootstrap over problems",
    "seeds and problems": "bootstrap over seeds and problems",
    "shared seeds and problems": "bootstrap over shared seeds and problems",
}
"""What a test resamples -> its name in the caption."""


def _tests(methods: Sequence[Mapping[str, Any]]) -> str:
    """The tests of a table; with the methods' names if there are several."""
    by_test: dict[str, list[str]] = {}
    for method in methods:
        if method["tested_over"]:
            by_test.setdefault(TESTS[method["tested_over"]], []).append(method["name"])
    if len(by_test) == 1:
        return next(iter(by_test))
    return "; ".join(f"{test} ({', '.join(names)})" for test, names in by_test.items())


def _left_out(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on what the seeds of a table cannot show."""
    sentences = []
    if single := [method["name"] for method in methods if len(method["runs"]) == 1]:
        sentences.append(
            f"one seed of {', '.join(single)}: the spread between trainings is not in its interval, "
            "nor in any test of it"
        )
    tested = [m for m in methods if m["tested_over"] not in (None, "problems")]
    baseline = next(len(m["runs"]) for m in methods if m["tested_over"] is None)
    few = min((len(m["runs"]) for m in tested), default=FEW_SEEDS)
    if tested and (few := min(few, baseline)) < FEW_SEEDS:
        sentences.append(f"with {few} seeds the test is too lenient (docs/comparing.md)")
    return sentences
