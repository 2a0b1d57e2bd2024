"""The reward function: rule-based scores, one scale and one set of keys for every data source.

Set verl's `custom_reward_function.path` to this file. Reward workers import it, so it loads neither torch, ray nor
verl; the rules are those of `recipe.grading`, which evaluation uses too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Any

from recipe.grading.pool import GraderPool

GRADERS = 2
"""Grader processes of one reward worker: verl starts 8 reward workers unless told otherwise. A process takes about
15 MiB for the strict rule, 70 MiB with math_verify."""
_opening = Lock()


def _pool() -> GraderPool:
    """The graders of this process; they end with it."""
    with _opening:  # a cached function runs once for every thread that arrives before its first result
        return _pool_of(os.getpid())


@cache
def _pool_of(process: int) -> GraderPool:  # a forked process needs its own pool
    return GraderPool(GRADERS)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float | str]:
    """Score one response; the signature is that of verl's custom reward functions. verl calls it from many threads.

    Args:
        data_source: a data source of `recipe.grading.sources`.
        solution_str: the decoded response, untrusted.
        ground_truth: `reward_model.ground_truth` of the row.
        extra_info: for a mathematical row, `split == "train"` means only the strict rule, and any other split the
            graders of the evaluation.
        **kwargs: arguments that verl passes to other reward functions; not used.

    Returns:
        The same keys for every source and split. 0.0 or 1.0 each: `score` (correct), `acc` (the same, under the name
        that verl's validation aggregates), `format` (an answer could be extracted), `strict` (correct by the strict
        rule), `unparsable` (no answer, or none that makes sense to the grader), `grader_timeout` and `grader_error`
        (not graded, and scored 0). And `pred`, the extracted answer, "" without one.

    Raises:
        ValueError: no scorer for the data source, or a reference that it cannot read.
    """
    strictly = extra_info is not None and extra_info.get("split") == "train"
    verdict = _pool().judge(data_source, solution_str, ground_truth, strictly)
    return {
        "score": float(verdict.correct),
        "acc": float(verdict.correct),
        "format": float(verdict.answer is not None),
        "strict": float(verdict.strict),
        "unparsable": float(verdict.status == "unparsable"),
        "grader_timeout": float(verdict.status == "timeout"),
        "grader_error": float(verdict.status == "error"),
        "pred": verdict.answer or "",
    }
