"""How far apart two numbers may be, by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from recipe.grading.tolerance import near


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("1/3", "0.333333", True),
        ("1/30", "0.0333333", True),
        ("1/60", "0.0166667", True),
        ("0.5", "0.4999999", True),
        ("-1/3", "-0.333333", True),
        ("1234567", "1234567.0000009", True),
        ("0", "0", True),
        ("1/3", "0.33333", False),
        ("1/60", "0.016667", True),  # five digits
        ("1/60", "0.01667", False),
        ("1/3", "-0.333333", False),
        ("0", "1e-9", False),
        ("1e-9", "-1e-9", False),
        ("9.1e-31", "1.6e-19", False),
        ("1.602e-19", "1.6021e-19", False),
        ("1234567", "1234567.00001", False),
    ],
)
def test_by_hand(a, b, expected):
    left, right = Fraction(a), Fraction(b)
    assert near(left, right) is near(right, left) is expected
    assert near(sympy.Rational(left), sympy.Rational(right)) is expected


@given(st.decimals("0.1", "0.999999", places=9), st.integers(0, 30))
def test_a_number_is_near_itself_rounded_to_six_digits_and_below_a_tenth_to_five(mantissa, exponent):
    exact = Fraction(mantissa)
    assert near(exact / 10**exponent, Fraction(round(mantissa, 6)) / 10**exponent)
    assert near(exact / 10 ** (exponent + 1), Fraction(round(mantissa, 5)) / 10 ** (exponent + 1))
