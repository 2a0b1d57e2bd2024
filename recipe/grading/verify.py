"""What math_verify says of two answers. Runs in a grader's process (`recipe.grading.worker`), never in the caller's.

math_verify parses with a grammar and compares with sympy, which may take for ever or all memory, and guards itself with
SIGALRM, which fails silently off the main thread; so its own guards are off and the process is guarded instead.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import math_verify
import sympy
import sympy.parsing.sympy_parser
import sympy.physics.units  # simplify imports it late, and it reads its names with parse_expr
from latex2sympy2_extended.antlr_parser import PSParser

from recipe.grading import strict

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its guards are off

# latex2sympy2_extended 1.11.0 asks a parser for this rule that none of its grammars has at that place, so that every
# percentage and every number in E notation would be unparsable.
PSParser.AtomContext.FUNC_GAMMA = lambda self: None

TEXT_EVENT = "recipe.grading.text"
"""Audit event of text that would have been evaluated; its argument is the text."""
_RATIONAL = re.compile(r"[-+]?\d+(?:/\d+)?", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)


def _parse_number(text: str, *args: Any, **kwargs: Any) -> sympy.Number:
    """What sympy's parse_expr makes of a plain number; any other text is refused (audited, then ValueError)."""
    if _RATIONAL.fullmatch(text):
        return sympy.Rational(text)
    if _DECIMAL.fullmatch(text):
        return sympy.Float(text)
    sys.audit(TEXT_EVENT, text)
    raise ValueError("text is not parsed as code here")


# sympy reads every number that is given as text with parse_expr, and that ends in Python's eval.
sympy.parsing.sympy_parser.parse_expr = _parse_number

_CONFIG = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
"""The answer arrives extracted, so its box is the only thing to look for."""


def parse(answer: str) -> Any | None:
    """The sympy object that math_verify makes of an answer, None if it cannot or the answer is too long."""
    if len(answer) > strict.MAX_LENGTH:
        return None
    found = math_verify.parse(
        rf"\boxed{{{strict.to_latex(answer)}}}",
        _CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",  # all of the answer, not a part that parses
        parsing_timeout=None,
        raise_on_error=True,
    )
    return found[0] if found else None


def compare(gold: str, answer: str, both_ways: bool = False) -> dict[str, Any]:
    """Whether an answer is equivalent to the reference; the pool asks only where the strict rule says no.

    Args:
        gold: reference; math_verify's comparison is not symmetric, and this one leads.
        answer: extracted answer.
        both_ways: accept equivalence in the other direction too, for two answers of which neither is the reference.

    Returns:
        {"status": "ok" | "unparsable", "correct": bool, "detail": str}; "unparsable" is an answer that does not parse.
    """
    parsed_gold, parsed = parse(gold), parse(answer)
    if parsed_gold is None or parsed is None:
        status, what = ("unparsable", "answer") if parsed is None else ("ok", "reference")
        return {"status": status, "correct": False, "detail": f"math_verify cannot parse the {what}"}
    pairs = [(parsed_gold, parsed), (parsed, parsed_gold)][: 1 + both_ways]
    correct = any(math_verify.verify(a, b, timeout_seconds=None, raise_on_error=True) for a, b in pairs)
    return {"status": "ok", "correct": correct, "detail": ""}
