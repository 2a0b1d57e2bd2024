"""Which scorer a data source has, and the reference answers that it can read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from recipe.grading import answers, countdown, reasoning_gym, strict
from recipe.grading.scorers import is_function
from recipe.grading.time_limit import time_limit

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
MATH_RULES = ("math", "math_strict", "math_lenient")
"""Scorers of final answers: `math` takes the strict rule in training and both graders elsewhere; the others always the
strict rule, or both graders."""
SOURCES: dict[str, str] = {
    **dict.fromkeys((*BENCHMARKS, "gsm8k", "math", "dapo_math_17k", "openr1_math_46k", "word_problems"), "math"),
    # verl's own names for such sets
    **dict.fromkeys(("openai/gsm8k", "lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval"), "math"),
    **dict.fromkeys(("HuggingFaceH4/MATH-500", "math_dapo", "math_dapo_reasoning", "aime*"), "math"),
    countdown.DATA_SOURCE: "countdown",
    f"{reasoning_gym.PREFIX}*": "reasoning_gym",
    **{f"{name}/*": name for name in (*MATH_RULES, *answers.SCORERS)},
}
"""Data source -> its scorer; `*` ends a prefix. A source of the form <scorer>/<name> says it itself, and so do those of
new data sets (`data_prep.sets.DataSet.scorer`): they need no entry here. `reward.scorers` comes before this table.

Of the sets that verl scores, the code sets are left out (their scorers run the response), as are geometry3k (images)
and searchR1_* (a search service).
"""
NAMES = (*MATH_RULES, *answers.SCORERS, f"{reasoning_gym.PREFIX}<task>")
"""The scorers of this project, as a configuration names them."""
OWN_NONE: Mapping[str, str] = {}
"""No scorers of a configuration's own."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
"""Data sources that can be part of a key."""

READING_LIMIT = 10.0
"""Seconds for reading one reference answer; it takes microseconds."""


def kind(data_source: str, own: Mapping[str, str] = OWN_NONE) -> str | None:
    """The scorer of a data source, None if it has none. Asking for a reasoning_gym task imports the library.

    Args:
        data_source: of a row.
        own: data source -> scorer, of the configuration (`reward.scorers`): one of `NAMES`, or package.module:function.
    """
    if is_function(own.get(data_source, "")):
        return own[data_source]
    source = graded_as(data_source, own)
    ends = (end for end in SOURCES if end.endswith("*") and source.startswith(end[:-1]))
    name = SOURCES.get(source) or SOURCES.get(next(ends, ""))
    if name == "reasoning_gym" and source.removeprefix(reasoning_gym.PREFIX) not in reasoning_gym.tasks():
        return None
    return name


def graded_as(data_source: str, own: Mapping[str, str] = OWN_NONE) -> str:
    """The data source whose entry in `SOURCES` is that of the scorer which `own` names; without one, the same."""
    name = own.get(data_source)
    if name is None or is_function(name):
        return data_source
    return name if name.startswith(reasoning_gym.PREFIX) else f"{name}/{data_source}"


def is_called(scorer: str) -> bool:
    """Whether a scorer is a function of (response, ground truth, extra): one of `answers.SCORERS`, or from outside."""
    return scorer in answers.SCORERS or is_function(scorer)


def check_name(name: str) -> str | None:
    """What is wrong with a scorer's name, one phrase; None for one of `NAMES` and for package.module:function."""
    if name in NAMES[:-1] or is_function(name):
        return None
    if name.startswith(reasoning_gym.PREFIX):
        return None if kind(name) else why_not(name)
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name} is neither package.module:function nor one of {', '.join(NAMES)}{hint}"


def supports(data_source: str, own: Mapping[str, str] = OWN_NONE) -> bool:
    """Whether responses of this data source can be scored; to be checked before training."""
    return kind(data_source, own) is not None


def why_not(data_source: str) -> str:
    """One sentence on a data source without a scorer."""
    task = data_source.removeprefix(reasoning_gym.PREFIX)
    if data_source.startswith(reasoning_gym.PREFIX) and task in reasoning_gym.EXCLUDED:
        return f"no scorer for data_source {data_source!r}: {reasoning_gym.EXCLUDED[task]}"
    known = ", ".join(SOURCES).replace(f"{reasoning_gym.PREFIX}*", NAMES[-1])
    return (
        f"no scorer for data_source {data_source!r}: add {naming(data_source)} (docs/scorers.md), or correct the data "
        f"source; those with a scorer are {known}"
    )


def naming(data_source: str) -> str:
    """The argument of a command that gives a data source a scorer from outside."""
    if _PLAIN.fullmatch(data_source):
        return f"reward.scorers.{data_source}=package.module:function"
    return f'"reward.scorers={{{data_source}: package.module:function}}"'


def check_ground_truth(data_source: str, ground_truth: object, own: Mapping[str, str] = OWN_NONE) -> str | None:
    """What is wrong with a row's reference answer, one phrase; None if its scorer can read it.

    ValueError for a data source without a scorer.
    """
    scorer = kind(data_source, own)
    if scorer is None:
        raise ValueError(why_not(data_source))
    if not isinstance(ground_truth, str):
        return f"{type(ground_truth).__name__} instead of a string"
    if scorer == "countdown":
        return countdown.check_entry(ground_truth)
    if scorer == "reasoning_gym":
        return reasoning_gym.check_entry(ground_truth)
    if scorer in answers.SCORERS:
        return answers.check_reference(scorer, ground_truth)
    if is_function(scorer):
        return None if ground_truth else "empty"
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
