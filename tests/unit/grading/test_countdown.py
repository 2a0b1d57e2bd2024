"""Countdown is scored behind its filter."""

from __future__ import annotations

import json

import pytest

from recipe.grading import countdown


def test_countdown_is_scored_behind_its_filter(pool):
    truth = json.dumps({"metadata": {"numbers": [7, 5, 1], "target": 2}})
    verdict = pool.judge(countdown.DATA_SOURCE, "7-5=2,1*2=2;1*(7-5)", truth)
    assert (verdict.correct, verdict.strict, verdict.answer) == (True, True, "1*(7-5)")
    assert pool.judge(countdown.DATA_SOURCE, ";9**9**9", truth).status == "unparsable"


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("1*(7-5)", 2),
        (" 2 + 3*4 ", 14),
        ("-(2-5)", 3),
        ("+7", 7),
        ("2*-3", -6),
        ("999*999*999*999", 999**4),
        ("8+*3", None),
        ("08+1", None),
        ("2(3+4)", None),
        ("()", None),
        ("9**9", None),
        ("1000", None),
        ("__import__", None),
        ("(" * 32 + "7" + ")" * 31, None),
        ("", None),
    ],
)
def test_values_of_expressions(expression, expected):
    assert countdown.value(expression) == expected


def test_expressions_are_grouped_by_value_without_a_process(pool, monkeypatch):
    monkeypatch.setattr(pool, "_ask", None)
    answers = ["1+2", None, "3", "2*3", "8+*3", "(1+5)", "8+*3", "8 +*3"]
    assert pool.group(countdown.DATA_SOURCE, answers) == [0, None, 0, 1, 2, 1, 2, 3]


@pytest.mark.parametrize(
    "expressions",
    [
        ["7+5-2", "5+7-2", "7-(2-5)", "(5-2)+7", "-2+7+5", "+7 + 5 - 2"],
        ["2*(7-1)", "(7-1)*2", "(-1+7)*2"],
        ["(7-1)*2*3", "2*(7-1)*3", "(2*3)*(7-1)"],
        ["7-2", "(7-2)", "-(2-7)"],
        ["2-7"],
        ["7*2-1", "2*7-1", "-1+7*2"],
        ["7*(2-1)"],
        ["7-5*1", "7-1*5"],
        ["1*(7-5)", "(7-5)*1"],
        ["8+*3"],
        ["1*-3", "-3*1"],
    ],
)
def test_expressions_that_are_one_solution(expressions):
    assert len({countdown.solution(text) for text in expressions}) == 1


def test_different_solutions():
    different = ["7+5-2", "7-5+2", "7*5-2", "7*(5-2)", "(7-2)*5", "7-5*2", "7-2", "2-7", "7*5*2", "8+*3"]
    assert len({countdown.solution(text) for text in different}) == len(different)
