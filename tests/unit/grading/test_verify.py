"""math_verify on the table of pairs, and on what it cannot parse."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest

from recipe.grading.pool import Verdict

TABLE = Path(__file__).with_name("answer_pairs.tsv")


def sections() -> list[list[tuple[str, str, bool]]]:
    """The required pairs, and the known misses, as (reference, answer, equivalent)."""
    parts = TABLE.read_text(encoding="utf-8").split("# Known misses")
    rows = [[line.split("\t") for line in part.splitlines()[1:] if not line.startswith("#")] for part in parts]
    return [[(gold, answer, verdict == "yes") for _, gold, answer, verdict in part] for part in rows]


def test_math_verify_on_the_table_of_pairs(pool):
    required, misses = sections()
    assert len(required) >= 150 and len(required) + len(misses) >= 200
    verdicts = pool.grade(("math500", rf"\boxed{{{answer}}}", gold) for gold, answer, _ in required + misses)
    assert {verdict.status for verdict in verdicts} <= {"ok", "unparsable"}
    found = [verdict.correct for verdict in verdicts]
    assert [pair for pair, correct in zip(required, found, strict=False) if pair[2] != correct] == []
    repaired = [pair for pair, correct in zip(misses, found[len(required) :], strict=True) if pair[2] == correct]
    assert repaired == [], "these are right now: move them up in the table"


def test_what_cannot_be_parsed_is_right_only_by_the_strict_rule(pool):
    text = pool.judge("math500", r"\boxed{12 \& 7}", "12")
    assert text == Verdict(False, False, r"12 \& 7", "unparsable", "math_verify cannot parse the answer")
    text = pool.judge("math500", r"\boxed{12}", r"12 \& 7")
    assert text == Verdict(False, False, "12", "ok", "math_verify cannot parse the reference")
    assert pool.judge("math500", r"\boxed{12 \& 7.}", r"12 \& 7") == Verdict(True, True, r"12 \& 7.", "ok")
    long = pool.judge("math500", r"\boxed{" + "1+" * 2000 + "1}", "2001")
    assert (long.correct, long.status, long.detail) == (False, "unparsable", "longer than 2000 characters")


@pytest.mark.parametrize(
    ("gold", "answer", "correct"),
    [
        ("ABC", "CBA", False),
        ("ABC", "ABC", True),
        (r"\text{BCAD}", "DACB", False),
        ("BCAD", r"\mathrm{BCAD}", True),
        ("AB", "BA", True),
        ("abc", "cba", True),
        ("ABC", "2", False),
    ],
)
def test_an_order_of_letters_is_no_product(pool, gold, answer, correct):
    assert pool.judge("math500", rf"\boxed{{{answer}}}", gold).correct is correct


@pytest.mark.parametrize("answer", ["5:00", r"\frac{0}{0}", "5:00 \\text{ p.m.}"])
def test_what_math_verify_fails_on_is_still_equal_to_itself(pool, answer):
    assert pool.judge("math500", rf"\boxed{{{answer}}}", answer) == Verdict(True, True, answer, "ok")
    assert pool.judge("math500", rf"\boxed{{{answer}}}", "6").correct is False


def test_a_division_by_zero_is_a_wrong_answer_and_no_error(pool):
    verdict = pool.judge("math500", r"\boxed{1/0}", "2")
    assert verdict == Verdict(False, False, "1/0", "ok", "the answer divides by zero")
    verdict = pool.judge("math500", r"\boxed{2}", "1/0")
    assert verdict == Verdict(False, False, "2", "ok", "the reference divides by zero")


def test_small_numbers_are_only_equal_if_they_are(pool):
    """Random a x 10^-p and b x 10^-q, every third pair of neighbours; as plain numbers, and times pi."""
    chance = random.Random(0)
    pairs = []
    for i in range(1500):
        a, p, b, q = (chance.randrange(1, limit) for limit in (1000, 40, 1000, 40))
        pairs.append((a, p, a + i % 2, p) if i % 3 == 0 else (a, p, b, q))
    equal = [Fraction(a, 10**p) == Fraction(b, 10**q) for a, p, b, q in pairs]
    assert 200 < sum(equal) < 300
    for behind, number in (("", 1500), (r"\pi", 60)):
        written = [
            (rf"{a}\times10^{{-{p}}}{behind}", rf"{b}\times10^{{-{q}}}{behind}") for a, p, b, q in pairs[:number]
        ]
        verdicts = pool.grade(("minerva", rf"\boxed{{{answer}}}", gold) for gold, answer in written)
        assert [verdict.correct for verdict in verdicts] == equal[:number]
        assert [pool.group("minerva", pair) == [0, 0] for pair in written[:60]] == equal[:60]


@pytest.mark.parametrize(
    ("gold", "answer", "correct"),
    [
        (r"9.1\times10^{-31}", r"1.6\times10^{-19}", False),
        (r"x=9.1\times10^{-31}", r"x=1.6\times10^{-19}", False),
        (r"(1,9.1\times10^{-31})", r"(1,1.6\times10^{-19})", False),
        (r"[0,10^{-20}]", r"[0,10^{-21}]", False),
        (r"x+10^{-20}", r"x+10^{-21}", False),
        ("10^{-20}", "10^{-30}", False),
        (r"0.0000001\%", r"0.0000003\%", False),
        ("0", "0.0000001", False),
        ("0.0000001", "0", False),
        ("0", "1 000", False),  # a product to math_verify
        ("x=2.5", "x=3.5", False),
        ("x=2.5", "y=2.5", False),
        ("x=-2.5", r"x=-\frac{5}{2}", True),
        ("e^{-20}", "1/e^{20}", True),
        (r"\sqrt{3}^{-80}", "3^{-40}", True),
        ("0.1x", "x/10", True),
        (r"50\%", "0.5", True),
        (r"\infty", r"2\cdot\infty", True),
        (r"\begin{pmatrix}0.333333\\1\end{pmatrix}", r"\begin{pmatrix}\frac13\\1\end{pmatrix}", True),
        ("1/3", "0.333333", True),
        ("0.333333", "1/3", True),
        ("1/6", "0.166667", True),
        ("1/30", "0.0333333", True),
        ("1/60", "0.016667", True),
        (r"\sqrt2", "1.414214", True),
        ("0.5", "0.4999999", True),
        ("1/3", "333333/1000000", False),
    ],
)
def test_the_tolerance_is_the_same_for_judging_and_for_grouping(pool, gold, answer, correct):
    verdict = pool.judge("minerva", rf"\boxed{{{answer}}}", gold)
    assert (verdict.correct, verdict.status) == (correct, "ok")
    assert pool.group("minerva", [gold, answer]) == [0, 0 if correct else 1]
    assert pool.group("minerva", [answer, gold]) == [0, 0 if correct else 1]


@pytest.mark.parametrize(
    ("gold", "answer", "correct"),
    [
        (r"1.602\times10^{-19}", r"1.602\times10^{-19}\approx1.6\times10^{-19}", True),
        (r"6.02\times10^{23}", r"6.02\times10^{23}\approx6.0\times10^{23}", True),
        (r"9.1\times10^{-31}", r"9.1\times10^{-31}\approx1.6\times10^{-19}", False),
        (r"9\times10^{-31}", r"9\times10^{-31}\approx2\times10^{-19}", False),
        (r"2\cdot\frac13", r"\frac23\approx0.67", True),
        (r"2\cdot\frac13", r"\frac23\approx0.9", False),
        (r"\sqrt2", r"x=\sqrt2\approx1.41 cm", True),
        (r"\sqrt2", r"\sqrt2\approx 2 cm", False),
        ("12", r"12\approx 13t", False),
        ("12", r"12\approx 13\%", False),
        (r"\frac13", r"\frac13\approx33.3\%", True),
    ],
)
def test_an_approximation_is_as_good_as_its_last_digit(pool, gold, answer, correct):
    assert pool.judge("minerva", rf"\boxed{{{answer}}}", gold).correct is correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("6t^2+4t", "6t^2+4"),
        ("2ab", "2"),
        ("2a+3c", "2a+3"),
        ("x+3s", "x+3"),
        (r"2\pi t", r"2\pi"),
        ("16t", "16c"),
        ("3s", "3"),
        ("y=2t", "y=2"),
        ("2x+3 s", "2x+3"),
        (r"\frac{1}{2}t", r"\frac12"),
        (r"2\mathbf{x}", "2"),
        ("2mg", "2"),
        ("5 pm", "5"),
        ("10 m", "10 km"),
        ("5 m", "5 cm"),
        ("5 m", "5 s"),
        ("100 L", "100 mL"),
    ],
)
def test_a_variable_is_not_left_out_and_a_unit_is_not_changed(pool, gold, answer):
    for reference, given in ((gold, answer), (answer, gold)):
        assert pool.judge("math500", rf"\boxed{{{given}}}", reference).correct is False
        assert pool.group("math500", [reference, given]) == [0, 1]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("10", "10 m"),
        ("10", r"10\,m"),
        ("10", "10cm"),
        ("10 m", "10 meters"),
        (r"2\sqrt2", r"\sqrt{8} cm"),
        (r"2\sqrt2", r"\sqrt{8}\mathrm{m}"),
        ("3+2x", "2x+3 meters"),
        ("2x+3", r"3+2x\text{ cm}"),
        ("2ab", "2ba"),
        (r"2\pi t", r"\pi t\cdot 2"),
        (r"\frac{1}{2}t", "0.5t"),
    ],
)
def test_a_unit_may_be_left_out_and_a_product_written_differently(pool, gold, answer):
    for reference, given in ((gold, answer), (answer, gold)):
        assert pool.judge("math500", rf"\boxed{{{given}}}", reference).correct is True
        assert pool.group("math500", [reference, given]) == [0, 0]
