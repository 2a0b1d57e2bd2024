"""How far two numbers may be apart that the evaluation calls equal.

math_verify rounds to six decimals as soon as one side is a decimal, so that to it any two numbers below 5e-7 are equal,
9.1e-31 and 1.6e-19 too. Here six decimals must agree, and five significant digits.
"""

from __future__ import annotations

from typing import Any

ABSOLUTE = 1
"""Millionths. Two numbers with the same six decimals differ by no more."""
RELATIVE = 50
"""Millionths of the larger number. Two numbers of which one is the other rounded to five digits differ by no more."""
MILLION = 10**6


def near(a: Any, b: Any) -> bool:
    """Whether two numbers, `Fraction` or sympy's, are close enough for `recipe.grading.verify` to call them equal.

    That is necessary, and for a decimal almost sufficient: 1/3 and 0.333333, 1/60 and 0.016667, 0.5 and 0.4999999 are
    near, 0 and 1e-9 are not. Exact numbers are only equal if they are the same, however near.
    """
    distance, larger = MILLION * abs(a - b), max(abs(a), abs(b))
    return bool(distance <= ABSOLUTE and distance <= RELATIVE * larger)
