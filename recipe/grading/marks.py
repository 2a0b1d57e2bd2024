r"""Marks that math_verify drops although they change an answer: primes, and degree signs in a function.

To math_verify f'(x) = 2x is f''(x) = 2x, and \sin 30^\circ is \sin 30.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from recipe.grading.notation import to_latex

_COMMAND = re.compile(r"\\prime(?![A-Za-z]) ?")
_PRIMES = re.compile("'+")
_BEHIND_A_NUMBER = re.compile(r"\d('+)$")
_END = " .,;$"
_DEGREES = re.compile(r"\\circ(?![A-Za-z])|\\degree(?![A-Za-z])|degrees?(?![A-Za-z])")
_OF_AN_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])(?! ?\^ ?\{? ?-)")


class _Primes(NamedTuple):
    """How many primes are together, at each place: {1, 2} in y'' + y'."""

    label: set[int] | None
    """On the left of an equation, which one of two answers may leave out; None without an equation."""
    value: set[int]
    unit: str
    """Behind a number, where primes are feet, inches, minutes or seconds, which may be left out too."""


def differ(a: str, b: str) -> str | None:
    """Why two answers are different in spite of what math_verify says of them: a phrase, or None."""
    if _primes_differ(_primes(a), _primes(b)):
        return "the primes differ"
    if all(_OF_AN_ANGLE.search(text) for text in (a, b)) and _has_degrees(a) != _has_degrees(b):
        return "one angle is in degrees"
    return None


def _primes(answer: str) -> _Primes:
    text = _COMMAND.sub("'", to_latex(answer).replace('"', "''")).rstrip(_END)
    label, equation, value = text.rpartition("=")
    left = _lengths(label) if equation else None
    unit = _BEHIND_A_NUMBER.search(value)
    if unit is None or _DEGREES.search(value):  # the minutes of 30 degrees 15' are not left out
        return _Primes(left, _lengths(value), "")
    return _Primes(left, _lengths(value[: unit.start(1)]), unit[1])


def _lengths(text: str) -> set[int]:
    return {len(run) for run in _PRIMES.findall(text)}


def _primes_differ(a: _Primes, b: _Primes) -> bool:
    if a.unit != b.unit and a.unit and b.unit:
        return True
    if a.label is None or b.label is None:
        return a.value != b.value
    return a.label | a.value != b.label | b.value


def _has_degrees(answer: str) -> bool:
    return _DEGREES.search(to_latex(answer)) is not None
