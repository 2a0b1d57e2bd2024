"""math_verify on the table of pairs, and on what it cannot parse."""

from __future__ import annotations

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


@pytest.mark.parametrize("answer", ["5:00", r"\frac{0}{0}", "5:00 \\text{ p.m.}"])
def test_what_math_verify_fails_on_is_still_equal_to_itself(pool, answer):
    assert pool.judge("math500", rf"\boxed{{{answer}}}", answer) == Verdict(True, True, answer, "ok")
    assert pool.judge("math500", rf"\boxed{{{answer}}}", "6").correct is False


def test_a_division_by_zero_is_a_wrong_answer_and_no_error(pool):
    verdict = pool.judge("math500", r"\boxed{1/0}", "2")
    assert verdict == Verdict(False, False, "1/0", "ok", "the answer divides by zero")
    verdict = pool.judge("math500", r"\boxed{2}", "1/0")
    assert verdict == Verdict(False, False, "2", "ok", "the reference divides by zero")
