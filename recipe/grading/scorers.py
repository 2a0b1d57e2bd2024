"""Scorers by name: those of the project, and functions of yours, named `package.module:function`.

    def score(response: str, ground_truth: str, extra: dict) -> float | tuple[float, dict]

`extra` is the row's `extra_info`. The score is any finite number, and is the reward; a response with a score of at
least `CORRECT` is right in pass@k, maj@n and avg@n. The dict has numbers, which become metrics, and may have "answer",
the text that the response is compared by (None: it has none); without it, `recipe.grading.extract` finds the answer,
and if it finds none, the complete response is compared.

A function from outside runs in a grader's process (`recipe.grading.worker`), never in the caller.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import re
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Real
from typing import Any

from recipe.grading import answers
from recipe.grading.extract import extract

CORRECT = 1.0
"""The least score of a right response."""
SIGNATURE = "(response, ground_truth, extra)"
OF_VERL = frozenset({"data_source", "solution_str"})
"""Parameters of verl's `compute_score`, whose first argument is not the response."""
MOST_METRICS, LONGEST_NAME, LONGEST_ANSWER = 32, 64, 10_000
"""Metrics of one response; characters of a metric's name and of an answer."""

_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*:[A-Za-z_][A-Za-z_0-9]*")
_METRIC = re.compile(r"[A-Za-z_][A-Za-z_0-9.-]*")


class ScorerError(ValueError):
    """A scorer cannot be used; one sentence with its name."""


def is_function(name: str) -> bool:
    """Whether it is the name of a function from outside, `package.module:function`."""
    return _FUNCTION.fullmatch(name) is not None


@cache
def load(name: str) -> Callable[..., Any]:
    """The function of a name in `answers.SCORERS`, or of `package.module:function`, which this imports.

    Raises:
        ScorerError: it cannot be imported, is not a plain function of three arguments, has verl's, or does not exist.
    """
    if name in answers.SCORERS:
        return answers.SCORERS[name]
    place, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(place)
    except BaseException as error:  # whatever the module's own code raises, sys.exit() included
        raise ScorerError(f"scorer {name}: {place} cannot be imported {_why(error, place)}") from None
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {place}:{close[0]}?" if close else ""
        raise ScorerError(f"scorer {name}: {place} has no {attribute}{hint}")
    function = getattr(module, attribute)
    if not callable(function):
        raise ScorerError(f"scorer {name}: is a {type(function).__name__}: name a function of {SIGNATURE}")
    if inspect.iscoroutinefunction(function):
        raise ScorerError(f"scorer {name}: is asynchronous: name a plain function of {SIGNATURE}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function in C
        return function
    if OF_VERL & signature.parameters.keys():
        raise ScorerError(
            f"scorer {name}: has the parameters of verl's compute_score; here a scorer is called as {SIGNATURE}: "
            "name a function of these that calls yours (docs/scorers.md)"
        )
    try:
        signature.bind("", "", {})
    except TypeError:
        raise ScorerError(f"scorer {name}: takes {signature}: it is called with three arguments, {SIGNATURE}") from None
    return function


def _why(error: BaseException, module_name: str) -> str:
    """`(what an import raised, and where): the remedy`."""
    remedy, where = "correct the file", ""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
        remedy = "correct the name, or add the folder that holds the package to PYTHONPATH"
    elif isinstance(error, SyntaxError):  # its text has file and line
        where = f": {(error.text or '').strip()!r}"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
        where = f", in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
        if isinstance(error, ImportError):
            remedy = "install what it imports, or correct the import"
    return f"({type(error).__name__}: {' '.join(str(error).split())}{where}): {remedy}"


def called(function: Callable[..., Any], response: str, ground_truth: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """One response, scored: {"status", "correct", "detail", "score", "answer", "metrics"}, ready for JSON.

    Raises:
        TypeError, ValueError: it returns something else than a finite number, or (number, dict of numbers).
        Exception: whatever the function raises.
    """
    found = function(response, ground_truth, dict(extra))
    score, details = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    number = _number("the score", score)
    if not isinstance(details, Mapping):
        raise TypeError(f"the second value is {_named(details)} instead of a dict")
    metrics = dict(details)
    answer = metrics.pop("answer") if "answer" in metrics else _answer(response)
    if not isinstance(answer, str | None):
        raise TypeError(f"the answer is {_named(answer)} instead of text")
    if answer is not None and len(answer) > LONGEST_ANSWER:
        raise ValueError(f"the answer has {len(answer)} characters, more than {LONGEST_ANSWER}")
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"{len(metrics)} metrics, more than {MOST_METRICS}")
    for name in metrics:
        if not isinstance(name, str) or not _METRIC.fullmatch(name) or len(name) > LONGEST_NAME or name == "score":
            raise ValueError(
                f"the metric's name {name!r:.80} must be text of at most {LONGEST_NAME} letters, digits, '_', '.' and "
                "'-', and not score"
            )
    return {
        "status": "unparsable" if answer is None and "answer" in details else "ok",
        "correct": number >= CORRECT,
        "detail": "",
        "score": number,
        "answer": answer,
        "metrics": {name: _number(f"the metric {name}", value) for name, value in metrics.items()},
    }


def _answer(response: str) -> str | None:
    """The answer of a response whose scorer names none: else a majority vote would have no votes."""
    return extract(response) or response.strip()[:LONGEST_ANSWER] or None


def _number(what: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{what} is {_named(value)} instead of a number")
    if not math.isfinite(value):
        raise ValueError(f"{what} is {float(value)}, which is not finite")
    return float(value)


def _named(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
