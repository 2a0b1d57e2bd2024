"""math_verify's comparison of two answers. Runs in a grader process (`recipe.grading.worker`), never in the caller.

math_verify parses with a grammar and compares with sympy, which may run forever or use all memory, and guards itself
with SIGALRM, which fails silently outside the main thread; so its own guards are off and the process is guarded.
"""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import math_verify
import math_verify.grader
import sympy
import sympy.parsing.sympy_parser
import sympy.physics.units  # simplify imports it lazily, and it reads its names with parse_expr
from latex2sympy2_extended.antlr_parser import PSParser
from math_verify.grader import is_assignment_relation, is_atomic_or_pct_atomic, is_relation
from sympy.core.function import AppliedUndef

from recipe.grading import marks, strict
from recipe.grading.guard import TEXT_EVENT
from recipe.grading.readable import Unreadable, readable
from recipe.grading.tolerance import near

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its guards are off

# latex2sympy2_extended 1.11.0 asks a parser for this rule, which none of its grammars has at that place, so every
# percentage and every number in E notation would be unparsable.
PSParser.AtomContext.FUNC_GAMMA = lambda self: None

_RATIONAL = re.compile(r"(-?)\(*([-+]?\d+(?:/\d+)?)\)*", re.ASCII)
"""A fraction, also as sympy's nsimplify writes the decimals of an equation: -((5/2))."""
_DECIMAL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)


def _parse_number(text: str, *args: Any, **kwargs: Any) -> sympy.Number:
    """Result of sympy's parse_expr for a plain number; any other text is refused (audited, then ValueError)."""
    if found := _RATIONAL.fullmatch(text):
        return -sympy.Rational(found[2]) if found[1] else sympy.Rational(found[2])
    if _DECIMAL.fullmatch(text):
        return sympy.Float(text)
    sys.audit(TEXT_EVENT, text)
    raise ValueError("text is not parsed as code here")


# sympy reads every number given as text with parse_expr, which ends in Python's eval.
sympy.parsing.sympy_parser.parse_expr = _parse_number

_numeric_eq = math_verify.grader.sympy_numeric_eq
_ZERO = 1e-40
"""What exact arithmetic may leave of a difference that is zero; sympy starts with 15 digits and goes up to 100."""


def _numerically_equal(a: Any, b: Any, float_rounding: int, numeric_precision: int) -> bool:
    """math_verify's comparison of numbers, of the elements of sets and tuples too, without its rounding of small ones.

    It rounds to six decimals, and takes a difference below 1e-15 for zero.
    """
    return bool(_numeric_eq(a, b, float_rounding, numeric_precision)) and _close(a, b)


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, sympy.MatrixBase | sympy.MatrixExpr):
        return True  # its elements are compared
    if all(is_atomic_or_pct_atomic(one, sympy.Integer) for one in (a, b)):
        return True  # 50% and 50
    a, b = _exact(a), _exact(b)
    if not (a.is_number and b.is_number):
        return bool(sympy.N(a - b, chop=_ZERO) == 0)
    a, b = sympy.N(a), sympy.N(b)
    return bool(a == b) or near(a, b)


def _exact(value: Any) -> Any:
    """An expression with its decimals as fractions, and with the hundredths of a percentage multiplied out."""
    decimals = {decimal: sympy.Rational(str(decimal)) for decimal in value.atoms(sympy.Float)}
    return value.xreplace(decimals | {one: one.args[0] for one in value.atoms(sympy.UnevaluatedExpr)})


math_verify.grader.sympy_numeric_eq = _numerically_equal

_LATEX = math_verify.LatexExtractionConfig(boxed_match_priority=0)
_CONFIG = [replace(_LATEX, normalization_config=replace(_LATEX.normalization_config, units=False))]
"""The answer is already extracted, so only a box has to be found; and its units are removed, `readable`. math_verify
would also remove the variables of 4t and 2ab as units."""


_RELATION = re.compile(r"(?<![<>!:\\])=|\\(?:approx|simeq|doteq)(?![A-Za-z])")
_APPROXIMATELY = re.compile(r"\\(?:approx|simeq|doteq)(?![A-Za-z])")
_SEPARATOR = re.compile(r"[,;<>]|\\(?:[lg]eq?|[lg]t|ne|neq|in|pm|begin)(?![A-Za-z])")
_TEN_TO = r" ?\\(?:times|cdot) ?10 ?\^ ?\{? ?(-?\d{1,4})"
_DIGITS = re.compile(rf"\d\.(\d+)(?:{_TEN_TO})?|\d{_TEN_TO}")


_LETTERS = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s*)?([A-Z]{3,})\s*\}?")
"""An order of letters, such as ABC; math_verify would read it as a product, in which the order does not count."""


class _Parsed(NamedTuple):
    text: str
    value: Any | None
    """The sympy object that math_verify parses it to, None if it cannot."""


def _parsed(text: str) -> _Parsed:
    found = math_verify.parse(
        rf"\boxed{{{text}}}",
        _CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",  # all of the answer, not a part that parses
        parsing_timeout=None,
        raise_on_error=True,
    )
    return _Parsed(text, found[0] if found else None)


def compare(gold: str, answer: str, both_ways: bool = False) -> dict[str, Any]:
    """Whether an answer is equivalent to the reference; the pool asks only where the strict rule says no.

    Args:
        gold: reference; math_verify's comparison is not symmetric, and this is its first argument.
        answer: extracted answer.
        both_ways: accept equivalence in the other direction too, for two answers of which neither is the reference.

    Returns:
        {"status": "ok" | "unparsable", "correct": bool, "detail": str}; "unparsable" is an answer that does not parse,
        or must not be passed to math_verify.
    """
    orders = [_LETTERS.fullmatch(text.strip()) for text in (gold, answer)]
    if orders[0] and orders[1]:
        return {"status": "ok", "correct": orders[0][1] == orders[1][1], "detail": ""}
    numbers = [strict.number(strict.normal_form(text)) for text in (gold, answer)]
    if numbers[0] is not None and numbers[1] is not None and not near(*numbers):
        return {"status": "ok", "correct": False, "detail": ""}
    parsed = []
    for what, text in (("reference", gold), ("answer", answer)):
        status = "unparsable" if what == "answer" else "ok"
        try:
            parsed.append(_parsed(readable(text)))
        except Unreadable as reason:
            return {"status": status, "correct": False, "detail": f"the {what} is not passed to math_verify: {reason}"}
        if parsed[-1].value is None:
            return {"status": status, "correct": False, "detail": f"math_verify cannot parse the {what}"}
        if parsed[-1].value.has(sympy.zoo, sympy.nan):  # an error in math_verify's comparison, which ends the process
            return {"status": "ok", "correct": False, "detail": f"the {what} divides by zero"}
    if strict.units_differ(gold, answer):
        return {"status": "ok", "correct": False, "detail": "the units differ"}
    if difference := marks.differ(gold, answer):
        return {"status": "ok", "correct": False, "detail": difference}
    correct = _equivalent(*parsed) or (both_ways and _equivalent(*reversed(parsed)))
    return {"status": "ok", "correct": correct, "detail": ""}


def _equivalent(gold: _Parsed, answer: _Parsed) -> bool:
    if _verify(gold.value, answer.value):
        return _sides_agree(gold, answer)
    # math_verify reads x >= 0 as an interval only where it is the reference.
    return isinstance(gold.value, sympy.Set) and is_relation(answer.value) and _verify(answer.value, gold.value)


def _verify(gold: Any, answer: Any) -> bool:
    return bool(math_verify.verify(gold, answer, timeout_seconds=None, raise_on_error=True))


def _sides_agree(gold: _Parsed, answer: _Parsed) -> bool:
    r"""Whether all sides of `answer` equal `gold`, if that is a number: 2 + 3 = 5 is 5, and 6 = 5 is not.

    math_verify reads the last side of an equation, and the first of an approximation. A side of an approximation
    may be rounded or truncated at its last digit: \frac23 \approx 0.67 and \frac23 \approx 0.66 are \frac23.
    """
    value: Any = gold.value
    if isinstance(value, sympy.Eq) and is_assignment_relation(value) and not value.lhs.is_Add:
        value = value.rhs
    sides = _RELATION.split(answer.text)
    exact = len(_RELATION.split(_APPROXIMATELY.split(answer.text, maxsplit=1)[0]))
    if len(sides) == 1 or not _is_number(value) or _SEPARATOR.search(answer.text):
        return True
    roughly = exact < len(sides)
    for i, side in enumerate(sides):
        found = _parsed(side.strip()).value
        if found is None or (i >= exact and not _is_number(found)):
            return False
        if _is_number(found) and not _verify(value, found) and not (roughly and _near(value, found, side, gold.text)):
            return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, sympy.Expr) and not value.free_symbols and not value.atoms(AppliedUndef)


def _near(value: Any, found: Any, *texts: str) -> bool:
    """Whether one of two numbers is the other rounded or truncated at the last digit that one of the texts has."""
    last = max((_last_place(decimal) for text in texts if (decimal := _DIGITS.search(text))), default=sympy.Integer(1))
    value, found = _exact(value), _exact(found)
    off = abs(sympy.N(value - found)) / last
    outward = abs(sympy.N(found)) > abs(sympy.N(value))
    return bool(off <= 0.5 or (off < 1 and not outward))


def _last_place(decimal: re.Match[str]) -> Any:
    r"""What a unit of a decimal's last digit is worth: 0.01 in 1.25, and 10^{-21} in 1.60\times10^{-19}."""
    digits, *exponents = decimal.groups("")
    return sympy.Integer(10) ** (int("".join(exponents) or 0) - len(digits))
