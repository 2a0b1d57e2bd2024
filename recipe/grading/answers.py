"""Scorers that ship with the project for answers that are not mathematics: text, a choice, a pattern, JSON.

Each is a function of (response, ground truth, extra), as a scorer from outside is (`recipe.grading.scorers`), and runs
in a grader's process. Where `recipe.grading.extract` finds an answer in a response, they read that; else all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from recipe.grading.extract import extract_with_line, tidy

Scored = tuple[float, dict[str, Any]]
"""1.0 or 0.0, and {"answer": what was compared, None without an answer}."""

_LETTER = re.compile(r"[\s(\[*_]*([A-Za-z])(?:[\s)\]*_]*$|\s?[).:\]])")
_CHOICE = re.compile(r"\(?([A-Za-z])\)?")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{|[{}$]")
_FENCE = "```"


def exact_match(response: str, ground_truth: str, extra: Mapping[str, Any]) -> Scored:
    """1.0 if the answer is the reference, character by character; blank space counts once, and not at the ends.

    What the extraction takes off an answer, the period of U.S. or the underscores of __init__, may belong to it.
    """
    answer, line = _found(response)
    if answer is None or _spaced(answer) == _spaced(ground_truth):
        return float(answer is not None), {"answer": answer}
    if _spaced(answer) == _spaced(tidy(ground_truth)) and _spaced(ground_truth) in _spaced(line):
        return 1.0, {"answer": ground_truth.strip()}
    return 0.0, {"answer": answer}


def multiple_choice(response: str, ground_truth: str, extra: Mapping[str, Any]) -> Scored:
    r"""1.0 if the answer begins with the reference's letter: B, (b), B. and "B) 12 cm", also in \text{}."""
    answer = _answer(response)
    found = _LETTER.match(_TEXT.sub("", answer)) if answer is not None else None
    letter = found[1].upper() if found else None
    return float(letter == _CHOICE.fullmatch(ground_truth.strip())[1].upper()), {"answer": letter}  # type: ignore[index]


def regex(response: str, ground_truth: str, extra: Mapping[str, Any]) -> Scored:
    """1.0 if the reference, a regular expression of Python's `re`, matches the complete answer, or its line."""
    answer, line = _found(response)
    pattern = re.compile(ground_truth)
    matching = next((text for text in (answer, line) if text and pattern.fullmatch(text)), None)
    return float(matching is not None), {"answer": matching or answer}


def json_value(response: str, ground_truth: str, extra: Mapping[str, Any]) -> Scored:
    """1.0 if the answer is JSON with the reference's value; the order of names and the spelling of numbers are free.

    The JSON is the last fenced block of the response, else its answer; nothing else may surround it. It is parsed, and
    never run.
    """
    pieces = response.split(_FENCE)
    text = pieces[-2].removeprefix("json") if len(pieces) > 2 and len(pieces) % 2 else _answer(response)
    try:
        value = _parsed(text or "")
    except (ValueError, RecursionError):
        return 0.0, {"answer": None}
    answer = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return float(_same(value, _parsed(ground_truth))), {"answer": answer}


SCORERS: dict[str, Callable[[str, str, Mapping[str, Any]], Scored]] = {
    "exact_match": exact_match,
    "multiple_choice": multiple_choice,
    "regex": regex,
    "json": json_value,
}
"""By the name that a configuration or a data source gives."""


def check_reference(name: str, ground_truth: str) -> str | None:
    """What is wrong with a reference of one of `SCORERS`, one phrase; None if it can be read."""
    if not ground_truth.strip():
        return f"{ground_truth!r} contains no answer"
    if name == "multiple_choice" and not _CHOICE.fullmatch(ground_truth.strip()):
        return f"{ground_truth!r:.80} is not a letter: give that of the right choice, such as B"
    try:
        if name == "regex":
            re.compile(ground_truth)
        elif name == "json":
            _parsed(ground_truth)
    except (re.error, ValueError, RecursionError) as error:
        return f"{ground_truth!r:.80} is not {'JSON' if name == 'json' else 'a regular expression'} ({error})"
    return None


def _answer(response: str) -> str | None:
    """What `extract` finds, else all of the response; None if that is blank."""
    return _found(response)[0]


def _found(response: str) -> tuple[str | None, str]:
    """The answer, and its line before anything was taken off it."""
    return extract_with_line(response) or (response.strip() or None, response.strip())


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values, in which true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b
