"""Extraction and the strict rule: hand cases, difficult text, and properties of every text."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.grading.extract import extract
from recipe.grading.notation import to_latex, visible
from recipe.grading.strict import MAX_LENGTH, canonical, equal, normal_form, number

TABLE = Path(__file__).with_name("answer_pairs.tsv")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2", "1"),  # the last one is open
        (r"\boxed{2", None),
        (r"\boxed{2}}", "2"),
        (r"{ \boxed{2}", "2"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),  # \{ opens no group
        (r"\boxed{\boxed{5}}", "5"),
        (r"\fbox {7}", "7"),
        (r"\boxed{3} \boxed{} \boxed{ }", "3"),  # an empty box does not count
        (r"Answer: 4, so \boxed{3}", "3"),  # a box before anything else
        ("\\boxed{a\nb}", "a\nb"),
        (r"\\boxed{6}", "6"),  # escaped once too often
        (r"\\\boxed{6}", "6"),  # a line break and a box
        (r"\boxedx{6}", None),
        (r"so $\boxed 3$.", "3"),
        (r"so $\boxed 3\pi$.", None),  # not 3
        (r"so \boxed as asked", None),
        ("so \\boxed{9}: print('\\boxed{{}}'.format(9))", "9"),
        (r"\boxed{\{\}}", r"\{\}"),  # the empty set
        ("Answer: 1\nmore\n**Answer:** $5$.\nBye", "5"),
        ("ANSWER : \\(x^2\\)", "x^2"),
        ("the answer:\n\n$$x$$\nyes", "x"),
        ("Answer:\n\n  **12**  \n", "12"),
        ("Answer: $1$ and $2$", "$1$ and $2$"),
        ("Answer: $", None),
        ("Answer:", None),
        ("Answer: **", None),
        ("Antwort：3 answer：３", "３"),
        ("2+2=4\n#### 1,234\n", "1,234"),
        ("#### 1 #### 2", "2"),
        ("The final answer is 3.5. I hope it is correct.", "3.5"),
        ("The final answer is: $1. 5$. I hope", "1. 5"),
        ("final answer is", None),
        (r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("**Final Answer:** The final answer is 12.", "12"),
        ("The final answer is:\n\n$$\n12\n$$\n", "12"),
        ("Answer: 0.333...", "0.333..."),
        ("so it is 72", None),
        ("", None),
        ("\x00\ud800\u202e", None),
    ],
)
def test_extraction_by_hand(response, answer):
    assert extract(response) == answer


HOSTILE = {
    "open braces": "{" * 100_000,
    "nested braces": "{" * 100_000 + "}" * 100_000,
    "backslashes": "\\" * 1_000_000,
    "open boxes": r"\boxed{" * 100_000,
    "nested boxes": r"\boxed{" * 100_000 + "}" * 100_000,
    "empty boxes": r"\boxed{}" * 100_000,
    "boxes and spaces": (r"\boxed" + " " * 100) * 10_000,
    "answers": "answer: " * 100_000,
    "answer and spaces": "answer" + " " * 1_000_000,
    "answer and lines": "answer:" + "\n" * 1_000_000,
    "final answers": "the final answer is " * 50_000,
    "final answers and lines": "the final answer is\n" * 50_000,
    "numbers in open boxes": (r"\boxed 1" + " " * 100) * 10_000,
    "hashes": "#" * 1_000_000,
    "dollars": "Answer: " + "$" * 1_000_000,
    "long answer": r"\boxed{" + "1" * 1_000_000 + "}",
}


@pytest.mark.parametrize("response", HOSTILE.values(), ids=HOSTILE)
def test_extraction_and_the_strict_rule_are_fast_on_hostile_text(response):
    start = time.process_time()
    assert not equal(extract(response) or "", "42")
    assert time.process_time() - start < 3.0


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


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**30))
def test_fractions_are_exact(top, bottom):
    answer = rf"\frac{{{top}}}{{{bottom}}}"
    assert number(normal_form(answer)) == Fraction(top, bottom)
    assert equal(answer, f"{top}/{bottom}")
    assert not equal(answer, f"{top * bottom + 1}/{bottom * bottom}")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_decimals_are_exact(value):
    assert number(normal_form(f"{value:f}")) == Fraction(value)


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


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_extract_finds_any_boxed_text_with_balanced_braces(text):
    text = visible(text.replace("\\", "").replace("{", "").replace("}", "")).strip()
    assert extract(rf"Answer: 1 \boxed{{{text}}} #### 2") == (text or r"1 \boxed{} #### 2")


def test_plain_text_notation_becomes_latex():
    assert to_latex("2½ × π²") == r"2\frac{1}{2} \times  \pi ^{2}"
    assert to_latex("-2 1/2") == r"-2\frac{1}{2}"
    assert to_latex("1.5e-3") == r"1.5\times 10^{-3}"
    assert to_latex("x_1 + 2 1/2") == "x_1 + 2 1/2"
