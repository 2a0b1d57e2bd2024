"""Units: spellings of one unit, different units, and what is not a unit."""

from __future__ import annotations

import pytest

from recipe.grading.units import LONGEST, Unit, parse, same


@pytest.mark.parametrize(
    ("text", "name", "measure"),
    [
        ("cm", "centimeter", True),
        (r"\text{ square centimeters}", "centimeter^{2}", True),
        ("cm^{2}", "centimeter^{2}", True),
        ("centimeters squared", "centimeter^{2}", True),
        ("miles per hour", "mile/hour", True),
        ("mph", "mile/hour", True),
        ("m/s^2", "meter/second^{2}", True),
        ("sq. ft.", "foot^{2}", True),
        ("apples", "apple", False),
        ("apples per hour", "apple/hour", False),
    ],
)
def test_normal_forms_by_hand(text, name, measure):
    assert parse(text) == Unit(name, measure)


@pytest.mark.parametrize(("a", "b"), [("mW", "MW"), ("cm", "cm^2"), ("m/s", "m*s"), ("feet", "inches")])
def test_different_units(a, b):
    assert parse(a) is not None and parse(b) is not None and parse(a) != parse(b)


@pytest.mark.parametrize("text", ["", "cm or 6", "5 cm", "more", "per hour", "m/", "m^4", "cm " * LONGEST])
def test_what_is_no_unit(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("¥", "yen", True),
        ("¥", "yuan", True),
        ("¥", "¥", True),
        ("¥ per hour", "yuan per hour", True),
        ("yen", "yuan", False),
        ("¥", "dollars", False),
        ("cm", "centimeters", True),
        ("cm", "m", False),
    ],
)
def test_a_symbol_of_two_currencies_is_either(a, b, expected):
    left, right = parse(a), parse(b)
    assert same(left, right) is same(right, left) is expected
