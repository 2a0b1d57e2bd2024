"""The reward function: rule-based scores, one scale and one set of keys for every data source.

configs/train.yaml names it: `custom_reward_function.path` is `pkg://recipe.paec.rollout.rewards`. Reward workers import
it, so it loads neither torch, ray nor verl; the rules are those of `recipe.grading`, which evaluation uses too.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Any

from recipe.grading.pool import GraderPool, ScoredVerdict

LOGGER = logging.getLogger(__name__)
GRADERS = 2
"""Grader processes of one reward worker: verl starts 8 reward workers unless told otherwise. A process takes about
14 MiB for the strict rule, 65 MiB with math_verify."""
REPORTED = 5
"""Failures of scorers from outside that a reward worker writes to the log; all are counted."""
ADDED = ("num_turns", "rollout_reward_scores", "interaction_kwargs")
"""What verl adds to a row's `extra_info` before it calls the reward function."""
METRIC = "metric/"
"""Begins the keys of what a scorer from outside measured."""
SHORT, END = 200, 10_000
"""Characters: a text of SHORT or fewer does not count as repeating itself; of one longer than END, its end decides."""
COMPRESSED = 0.1
"""A text repeats itself if zlib makes it smaller than this share of its size."""
_opening = Lock()
_failures: list[str] = []


def _pool(scorers: tuple[tuple[str, str], ...] = ()) -> GraderPool:
    """The graders of this process, with these scorers by data source; they end with it."""
    with _opening:  # a cached function runs once for every thread that arrives before its first result
        return _pool_of(os.getpid(), scorers)


@cache
def _pool_of(process: int, scorers: tuple[tuple[str, str], ...]) -> GraderPool:  # a forked process needs its own pool
    pool = GraderPool(GRADERS)
    pool.scorers = dict(scorers)
    return pool


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    scorers: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> dict[str, float | str]:
    """Score one response; the signature is that of verl's custom reward functions. verl calls it from many threads.

    Args:
        data_source: a data source of `scorers` or of `recipe.grading.sources`.
        solution_str: the decoded response, untrusted.
        ground_truth: `reward_model.ground_truth` of the row.
        extra_info: for a mathematical row, `split == "train"` means only the strict rule, and any other split the
            graders of the evaluation. A scorer from outside gets it without what verl added.
        scorers: data source -> scorer (`reward.scorers`).
        **kwargs: arguments that verl passes to other reward functions; not used.

    Returns:
        The same keys for every source and split. 0.0 or 1.0 each: `score` (correct), `acc` (the same, under the name
        that verl's validation aggregates), `format` (an answer could be extracted), `strict` (correct by the strict
        rule), `unparsable` (no answer, or none that makes sense to the grader), `grader_timeout` and `grader_error`
        (not graded, and scored 0), and `repetition` (`repeats_itself`). And `pred`, the extracted answer, "" without
        one. With a scorer from outside, `score` is any finite number, and what else it measured follows as
        `metric/<name>`, its score as `metric/score`.

    Raises:
        ValueError: no scorer for the data source, a reference that it cannot read, or a scorer that cannot be imported.
    """
    strictly = extra_info is not None and extra_info.get("split") == "train"
    extra = {key: value for key, value in (extra_info or {}).items() if key not in ADDED}
    pool = _pool(tuple(sorted(scorers.items()))) if scorers else _pool()
    verdict = pool.judge(data_source, solution_str, ground_truth, strictly, extra)
    score, metrics = float(verdict.correct), {}
    if isinstance(verdict, ScoredVerdict):
        score = verdict.score
        metrics = {f"{METRIC}{name}": value for name, value in {**verdict.metrics, "score": score}.items()}
        if verdict.status in ("timeout", "error") and len(_failures) < REPORTED:
            _failures.append(verdict.detail)
            LOGGER.warning("the scorer of %s failed, and the response is scored 0: %s", data_source, verdict.detail)
    return {
        "score": score,
        "acc": float(verdict.correct),
        "format": float(verdict.answer is not None),
        "strict": float(verdict.strict),
        "unparsable": float(verdict.status == "unparsable"),
        "grader_timeout": float(verdict.status == "timeout"),
        "grader_error": float(verdict.status == "error"),
        "repetition": float(repeats_itself(solution_str)),
        "pred": verdict.answer or "",
        **metrics,
    }


def repeats_itself(text: str) -> bool:
    """Whether zlib compresses the last END characters to less than COMPRESSED; never with SHORT or fewer in all."""
    end = text[-END:].encode(errors="replace")
    return len(text) > SHORT and len(zlib.compress(end)) < COMPRESSED * len(end)
