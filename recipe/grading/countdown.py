"""The countdown task's scorer: reasoning_gym's own, behind a filter. Light to import, for reward workers."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable
from functools import cache
from typing import Any

DATA_SOURCE = "reasoning_gym/countdown"

# The library's scorer ends in sympy's parse_expr, which is Python's eval: the text of a model only gets there as a
# short string of these characters. Powers and long digit runs are excluded because evaluating them can take forever.
_EXPRESSION = re.compile(r"[0-9+\-*() ]{1,64}")
_COSTLY = re.compile(r"\*\s*\*|[0-9]{4}")


def _passes(expression: str) -> bool:
    """Whether the filter lets an expression pass."""
    return _EXPRESSION.fullmatch(expression) is not None and _COSTLY.search(expression) is None


def extract(solution: str) -> str | None:
    """The expression of a response: what follows the last ';', if the filter lets it pass."""
    _, separator, expression = solution.rpartition(";")
    expression = expression.strip()
    return expression if separator and _passes(expression) else None


_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def value(expression: str) -> int | None:
    """The value of an expression that `extract` may return, exactly; None if it is not one, such as `8+*3`."""
    if not _passes(expression):
        return None
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, TypeError, KeyError):
        return None


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return _value(node.operand) * {ast.UAdd: 1, ast.USub: -1}[type(node.op)]
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise TypeError(type(node))


def solution(expression: str) -> str:
    """What an expression that `extract` may return shares with those that differ only in order and brackets.

    `7+5-2`, `5+7-2` and `7-(2-5)` are one solution, `2*(7-1)` and `(7-1)*2` another. A text that is no expression is
    its own.
    """
    try:
        return _ordered(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, KeyError):
        return expression


def _ordered(node: ast.expr) -> str:
    """An expression with the terms of its sums and the factors of its products in order, signs pulled into the sums."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return "*".join(sorted(f"({_ordered(factor)})" for factor in _factors(node)))
    return "".join(sorted(f"{sign}({_ordered(term)})" for sign, term in _terms(node, "+")))


def _factors(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


def _terms(node: ast.expr, sign: str) -> list[tuple[str, ast.expr]]:
    opposite = {"+": "-", "-": "+"}[sign]
    if isinstance(node, ast.UnaryOp):
        return _terms(node.operand, {ast.UAdd: sign, ast.USub: opposite}[type(node.op)])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return [*_terms(node.left, sign), *_terms(node.right, sign if isinstance(node.op, ast.Add) else opposite)]
    return [(sign, node)]


def score(solution: str, ground_truth: str) -> tuple[bool, str | None]:
    """(correct, the extracted expression) of a response to a countdown problem; the response is untrusted.

    Correct iff reasoning_gym scores it 1.0. The library also gives 0.05 and 0.01 to wrong answers, which becomes noise
    when advantages are normalised. ValueError for a ground truth that is not the JSON which data_prep.countdown writes.
    """
    if problem := check_entry(ground_truth):
        raise ValueError(f"field reward_model.ground_truth of {DATA_SOURCE}: {problem}")
    expression = extract(solution)
    if expression is None:
        return False, None
    return _library_scorer()(answer=expression, entry=json.loads(ground_truth)) == 1.0, expression


def check_entry(ground_truth: Any) -> str | None:
    """What is wrong with a ground truth, and the remedy; None if it can be read."""
    try:
        entry = json.loads(ground_truth)
        entry["metadata"]["numbers"], entry["metadata"]["target"]
    except (TypeError, KeyError, json.JSONDecodeError):
        return (
            f"{ground_truth!r:.200} is not a JSON object with metadata.numbers and metadata.target; "
            'prepare the data with "python -m data_prep.countdown"'
        )
    return None


@cache
def _library_scorer() -> Callable[..., float]:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn("countdown")
