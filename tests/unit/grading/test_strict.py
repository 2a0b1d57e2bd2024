"""The strict rule: hand cases, the table of pairs, and properties of every text."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.grading.strict import MAX_LENGTH, Form, canonical, equal, likely_unit, normal_form, number, units_differ

TABLE = Path(__file__).with_name("answer_pairs.tsv")
LONG = (
    "{",
    "(",
    r"\{",
    r"\text{",
    r"\frac{",
    r"\frac",
    r"\sqrt",
    "1",
    "1,",
    "1 ",
    " ",
    "\\",
    "a and ",
    "x=",
    r"\pm",
    "{,",
)
LONG += ("½", "²", "√", "1/", "1e", "-", "^", r"\left", "$", ")", "}", "5 cm ", r"\text{a}", "No ", "0.")


@pytest.mark.parametrize("piece", LONG)
def test_the_strict_rule_takes_milliseconds_for_the_longest_answer(piece):
    answer = (piece * MAX_LENGTH)[: MAX_LENGTH - 1] + "!"
    start = time.process_time()
    canonical(answer)
    assert time.process_time() - start < 0.25


def pairs() -> list[tuple[str, str, str, bool]]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [line.split("\t") for line in lines]
    return [(family, gold, answer, {"yes": True, "no": False}[verdict]) for family, gold, answer, verdict in rows]


def test_the_strict_rule_calls_no_wrong_answer_right():
    assert [pair for pair in pairs() if not pair[3] and equal(pair[1], pair[2])] == []


def test_the_strict_rule_finds_what_docs_grading_says():
    equivalent = [(gold, answer) for _, gold, answer, verdict in pairs() if verdict]
    found = sum(equal(gold, answer) for gold, answer in equivalent)
    text = (TABLE.parents[3] / "docs" / "grading.md").read_text(encoding="utf-8")
    assert f"{found} of {len(equivalent)} equivalent pairs" in text


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("0.50", "1/2"),
        (r"-\dfrac{6}{4}", "-3/2"),
        ("1,234.5", "2469/2"),
        (r"2\tfrac12", "5/2"),
        (r"2\frac32", r"2\frac{3}{2}"),  # not a mixed number, so not computed
        (r"\left( 0.5 , \; 2 \right]", "(1/2,2]"),
        ("3, 1, 2, 1", r"\{1,2,3\}"),
        (r"1 \pm \sqrt2", r"\{1+\sqrt{2},1-\sqrt{2}\}"),
        ("x = 5", "x=5"),
        (r"5 \mathrm{~cm}^2", "5 centimeter^{2}"),
        (r"9.8\text{ m/s}^2", "49/5 meter/second^{2}"),
        ("10 miles per hour", "10 mile/hour"),
        (r"0.\overline{3}", "1/3"),
        (r"-1.2\bar{45}", "-137/110"),
        (r"25^\circ\text{C}", "25 °C"),
        (r"\$5", "5 dollar"),
        ("No Solution.", "nosolution"),
        ("1/0", "1/0"),
        ("", ""),
        ("9" * 3000, "9" * 3000),
    ],
)
def test_normal_forms_by_hand(answer, normal):
    found = canonical(answer)
    assert found.replace("¤", "dollar") == normal


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5 cm", "5 m"),
        ("5 cm", "5 cm^2"),
        ("x=5", "y=5"),
        ("(1,2)", "[1,2]"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "1,2"),
        ("(x)+1", "(x)1"),  # a sign after a bracket is no sign of a number
        ("x^2", "x2"),
        ("x²", "x2"),
        ("2½", "21/2"),
        ("2 1/2", "21/2"),
        ("101₂", "1012"),
        ("3m", "3"),  # a variable
        (r"3\text{ million}", "3"),
        (r"3 \text{ or more}", "3"),
        (r"101\text{ (base 2)}", "101"),
        (r"5\text{ mW}", r"5\text{ MW}"),
        (r"\lbrack 1,2\rbrack", r"\{1,2\}"),
        (r"\sin 30^\circ", r"\sin 30"),
        ("0.333...", "0.333"),
        (r"50\%", "0.5"),
        ("", ""),
        (" ", "$$"),
        ("9" * 3000, "9" * 3000 + ".0"),
    ],
)
def test_the_strict_rule_keeps_apart(a, b):
    assert not equal(a, b) and not equal(b, a)


def test_parts_may_be_left_out_but_not_differ():
    assert equal("x=5 cm", "5") and equal("5", "x=5 cm") and equal("x=5", "5 cm")
    assert not equal("x=5 cm", "x=5 m")
    assert equal(r"5\text{ Hours}", "5 hours") and equal(r"\lbrack 1,2\rbrack", "[1,2]")
    assert canonical("5 cm") != canonical("5")
    assert equal("¥5", "5 yen") and equal("5 yuan", "¥5") and equal("￥5", "5") and not equal("5 yen", "5 yuan")


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("5 cm", "centimeter"),
        ("5 m", "meter"),
        ("x = 5 m", "meter"),
        (r"\text{Area} = 5\text{ cm}^2", "centimeter^{2}"),
        ("1.5 h.", "hour"),
        ("5cm", "centimeter"),
        ("5m", None),
        ("2mg", None),
        ("5 x", None),
        ("x + 3 m", None),
        (r"2\pi m", None),
        (r"\frac{1}{2} m", None),
        (r"\sqrt{3}cm", None),
        ("5" * MAX_LENGTH + " m", None),
    ],
)
def test_units_of_the_evaluation(answer, name):
    unit = likely_unit(answer)
    assert (unit and unit.name) == name


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("5 cm", "5 m", True),
        ("10 m", "10 km", True),
        ("100 L", "100 mL", True),
        ("5 g", "5 kg", True),
        ("5 m", "5 s", True),
        (r"5\text{ m}", "5cm", True),
        (r"\text{Area} = 5\text{ cm}", "5 m", True),
        ("5 m", "5 meters", False),
        ("5 m", "5", False),
        ("5m", "5 cm", False),  # a product, which is not a unit, and not equal either
        (r"5^\circ", r"5^\circ\text{C}", False),
        (r"5^\circ\text{F}", r"5^\circ\text{C}", True),
        ("5 students", "5 people", False),
        ("¥5", "5 yen", False),
        ("¥5", "5 yuan", False),
        ("5 yen", "5 yuan", True),
    ],
)
def test_units_that_differ(a, b, expected):
    assert units_differ(a, b) is units_differ(b, a) is expected


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**30))
def test_fractions_are_exact(top, bottom):
    answer = rf"\frac{{{top}}}{{{bottom}}}"
    assert number(normal_form(answer)) == Fraction(top, bottom)
    assert equal(answer, f"{top}/{bottom}")
    assert not equal(answer, f"{top * bottom + 1}/{bottom * bottom}")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_decimals_are_exact(value):
    assert number(normal_form(f"{value:f}")) == Fraction(value)


@pytest.mark.parametrize("answer", ["1/0", "0/0", "-1/0", "(1/0)", "{1/0}", "1/00", "5/0.0", r"\frac{1}{0}"])
def test_a_division_by_zero_is_text(answer):
    assert number(normal_form(answer)) is None
    assert equal(answer, answer) and not equal(answer, "0") and not equal(answer, "1")


def test_the_value_of_an_answer_that_was_not_put_into_its_normal_form():
    assert number(Form("", "5/2.5", None)) == 2
    assert number(Form("x", "5", None)) is None and number(Form("", "x", None)) is None


PIECES = [
    "1",
    "0.5",
    ",",
    "(",
    ")",
    "[",
    "]",
    r"\{",
    r"\}",
    "{",
    "}",
    r"\frac",
    r"\text{",
    r"\pm",
    "=",
    "x",
    " ",
    "cm",
    "$",
]
PIECES += ["%", r"\sqrt", "^", "_", "½", "²", "−", "and", "\\", ".", ";", "°", "\n", "١"]


@settings(max_examples=300)
@given(*[st.lists(st.sampled_from(PIECES), max_size=8).map("".join)] * 2)
def test_equality_is_symmetric_and_follows_from_the_normal_form(a, b):
    assert canonical(f"  {a}\t") == canonical(a)
    assert equal(a, b) == equal(b, a)
    assert not canonical(a) or canonical(a) != canonical(b) or equal(a, b) or not equal(a, a)
