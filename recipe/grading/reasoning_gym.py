"""reasoning_gym's own scorers, for the tasks whose scorer does not run the response as code.

The ground truth is the JSON of the library's entry: {"answer": str or null, "metadata": {...}, ...}. The library has
partial credit; here a score of 1.0 is correct and any other is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

PREFIX = "reasoning_gym/"
MAX_ANSWER = 10_000
"""Longer answers, in characters, are not passed to a scorer."""

_EVAL = "its scorer calls eval on the response"
_TUPLES = "its scorer compares tuples, and JSON has none"
_PARSE = "its scorer gives the response to sympy.parse_expr, which ends in eval"
EXCLUDED = {
    "binary_matrix": _EVAL,
    "n_queens": _EVAL,
    "spiral_matrix": _EVAL,
    "string_insertion": _EVAL,
    "intermediate_integration": _PARSE,
    "simple_integration": _PARSE,
    "polynomial_multiplication": _PARSE,
    "puzzle24": _PARSE,
    "countdown": _PARSE + "; recipe.grading.countdown filters it before",
    "arc_agi": _TUPLES,
    "rearc": _TUPLES,
    "bitwise_arithmetic": "its scorer calls eval on the problem",
    "number_sorting": "its scorer may call eval on the reference",
    "composite": "its scorer depends on a configuration that the row does not contain",
    "game_of_life_halting": "its scorer accepts any text",
    "coin_flip": "its scorer gives 1.0 to any prefix of the answer, and 0 is a prefix of most",
    "complex_arithmetic": "its scorer gives 1.0 to nan",
}
"""Tasks without a scorer here, and why (reasoning_gym 0.1.25; audited by tests/unit/grading/test_reasoning_gym.py)."""


@cache
def tasks() -> tuple[str, ...]:
    """The tasks that can be scored, sorted; imports the library."""
    from reasoning_gym.factory import DATASETS

    return tuple(sorted(DATASETS.keys() - EXCLUDED.keys()))


def check_entry(ground_truth: str) -> str | None:
    """What is wrong with a ground truth, one phrase; None if it is an entry that a scorer can read."""
    try:
        entry = json.loads(ground_truth)
    except (TypeError, ValueError):
        return "not JSON"
    if not isinstance(entry, dict) or not isinstance(entry.get("answer", 0), str | None):
        return 'not an object with an "answer" (a string, or null)'
    if not isinstance(entry.get("metadata"), dict):
        return 'no "metadata" object'
    return None


@cache
def scorer(task: str) -> Callable[..., float]:
    """The library's scoring function of a supported task."""
    import reasoning_gym

    if task not in tasks():
        raise ValueError(f"reasoning_gym/{task}: {EXCLUDED.get(task, 'no such task')}")
    return reasoning_gym.get_score_answer_fn(task)


def score(function: Callable[..., float], gold: str, answer: str) -> dict[str, Any]:
    """Score an extracted answer: {"status", "correct", "detail"}; runs in a grader's process."""
    entry: Mapping[str, Any] = json.loads(gold)
    if len(answer) > MAX_ANSWER:
        return {"status": "unparsable", "correct": False, "detail": f"longer than {MAX_ANSWER} characters"}
    try:
        return {"status": "ok", "correct": bool(function(answer=answer, entry=entry) == 1.0), "detail": ""}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Errors that the scorers raise for answers in a wrong format.
        return {"status": "unparsable", "correct": False, "detail": f"{type(error).__name__}: {error}"[:200]}
