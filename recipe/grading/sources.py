"""Which scorer a data source has, and the reference answers that it can read."""

from __future__ import annotations

from typing import Literal

from recipe.grading import countdown, reasoning_gym, strict
from recipe.grading.time_limit import time_limit

Kind = Literal["math", "countdown", "reasoning_gym"]

BENCHMARKS = {
    "aime24": "AIME24",
    "aime25": "AIME25",
    "aime26": "AIME26",
    "amc23": "AMC23",
    "amc83": "AMC83",
    "math500": "MATH500",
    "minerva": "Minerva",
    "olympiadbench": "Olympiad",
}
"""Benchmarks of the papers' tables -> heading, in the papers' order; all are graded by their final answer."""
MATH = (
    *BENCHMARKS,
    *("gsm8k", "math", "dapo_math_17k", "openr1_math_46k", "word_problems"),
    # verl's own names for such sets
    *("openai/gsm8k", "lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500"),
    *("math_dapo", "math_dapo_reasoning", "aime*"),
)
"""Data sources graded by their final answer; `*` ends a prefix.

Of the sets that verl scores, the code sets are left out (their scorers run the response), as are geometry3k (images)
and searchR1_* (a search service).
"""
KNOWN = (*MATH, countdown.DATA_SOURCE, f"{reasoning_gym.PREFIX}<task>")
"""The data sources named in the error for one without a scorer."""


READING_LIMIT = 10.0
"""Seconds for reading one reference answer; it takes microseconds."""


def kind(data_source: str) -> Kind | None:
    """The scorer of a data source, None if it has none. Asking for a reasoning_gym task imports the library."""
    if data_source in MATH or data_source.startswith("aime"):
        return "math"
    if data_source == countdown.DATA_SOURCE:
        return "countdown"
    if data_source.startswith(reasoning_gym.PREFIX):
        return "reasoning_gym" if data_source.removeprefix(reasoning_gym.PREFIX) in reasoning_gym.tasks() else None
    return None


def supports(data_source: str) -> bool:
    """Whether responses of this data source can be scored; to be checked before training."""
    return kind(data_source) is not None


def why_not(data_source: str) -> str:
    """One sentence on a data source without a scorer."""
    task = data_source.removeprefix(reasoning_gym.PREFIX)
    if data_source.startswith(reasoning_gym.PREFIX) and task in reasoning_gym.EXCLUDED:
        return f"no scorer for data_source {data_source!r}: {reasoning_gym.EXCLUDED[task]}"
    return f"no scorer for data_source {data_source!r}; it must be one of {', '.join(KNOWN)}"


def check_ground_truth(data_source: str, ground_truth: object) -> str | None:
    """What is wrong with a row's reference answer, one phrase; None if its scorer can read it.

    ValueError for a data source without a scorer.
    """
    scorer = kind(data_source)
    if scorer is None:
        raise ValueError(why_not(data_source))
    if not isinstance(ground_truth, str):
        return f"{type(ground_truth).__name__} instead of a string"
    if scorer == "countdown":
        return countdown.check_entry(ground_truth)
    if scorer == "reasoning_gym":
        return reasoning_gym.check_entry(ground_truth)
    try:
        with time_limit(READING_LIMIT):
            form = strict.canonical(ground_truth)
    except TimeoutError:
        return f"{ground_truth!r:.80} could not be read within {READING_LIMIT:g} s: not a final answer"
    if not form:
        return f"{ground_truth!r} contains no answer"
    if len(ground_truth) > strict.MAX_LENGTH:
        return f"{len(ground_truth)} characters, more than the limit of {strict.MAX_LENGTH}: not a final answer"
    if r"\boxed" in ground_truth:
        return f"{ground_truth!r:.80} is boxed: give the content of the box only"
    return None
