"""The scorers for text, choices, patterns and JSON: hand cases, and references that they cannot read."""

from __future__ import annotations

import pytest

from recipe.grading import answers, sources
from recipe.grading.pool import Verdict

CASES = [
    ("exact_match", "Answer: New  York ", "New York", 1, "New  York"),
    ("exact_match", "New York", "New York", 1, "New York"),
    ("exact_match", "Answer: new york", "New York", 0, "new york"),
    ("exact_match", r"\boxed{1/2}", "0.5", 0, "1/2"),
    ("exact_match", " \n", "x", 0, None),
    ("exact_match", "Answer: U.S.", "U.S.", 1, "U.S."),
    ("exact_match", "Answer: **U.S.**", "U.S.", 1, "U.S."),
    ("exact_match", "Answer: U.S", "U.S.", 0, "U.S"),
    ("exact_match", "The final answer is Apple Inc. I hope so.", "Apple Inc.", 1, "Apple Inc."),
    ("exact_match", "Answer: `__init__`", "__init__", 1, "__init__"),
    ("exact_match", "Answer: `init`", "__init__", 0, "init"),
    ("exact_match", "Answer: a_b_", "a_b_", 1, "a_b_"),
    ("exact_match", "Answer: `a_b`", "a_b_", 0, "a_b"),
    ("exact_match", "Answer: $5$", "$5$", 1, "$5$"),
    ("exact_match", "Answer: $5$.", "5", 1, "5"),
    ("exact_match", r"\boxed{U.S.}", "U.S", 0, "U.S."),
    ("regex", "Answer: 12.", r"\d+\.", 1, "12."),
    ("regex", "Answer: 12", r"\d+\.", 0, "12"),
    ("regex", "Answer: 12.", r"\d+", 1, "12"),
    ("multiple_choice", r"\boxed{B}", "B", 1, "B"),
    ("multiple_choice", r"\boxed{\text{(b)}}", "(B)", 1, "B"),
    ("multiple_choice", "Answer: B) 12 cm", "B", 1, "B"),
    ("multiple_choice", "Answer: **C**", "B", 0, "C"),
    ("multiple_choice", "Answer: A car", "A", 0, None),
    ("multiple_choice", "D", "D", 1, "D"),
    ("regex", "Answer: color", "colou?r", 1, "color"),
    ("regex", "Answer: my colour", "colou?r", 0, "my colour"),
    ("json", 'So:\n```json\n{"b": [1.0, true], "a": null}\n```', '{"a": null, "b": [1, true]}', 1, None),
    ("json", '{"a": 1}', '{"a": true}', 0, None),
    ("json", '{"a": 1, "b": 2}', '{"a": 1}', 0, None),
    ("json", '\\boxed{{"a": [1]}}', '{"a": [1]}', 1, None),
    ("json", "{'a': 1}", '{"a": 1}', 0, None),
    ("json", "NaN", '{"a": 1}', 0, None),
    ("json", "[" * 100_000, "[]", 0, None),
]


@pytest.mark.parametrize(("name", "response", "truth", "score", "answer"), CASES)
def test_by_hand(name, response, truth, score, answer):
    found, details = answers.SCORERS[name](response, truth, {})
    assert found == score and isinstance(found, float)
    assert name == "json" or details == {"answer": answer}


def test_json_answers_are_compared_in_one_spelling():
    spelled = ['{"b": 1, "a": 2}', '```\n{"a":2,"b":1}\n```']
    assert {answers.json_value(text, "{}", {})[1]["answer"] for text in spelled} == {'{"a": 2, "b": 1}'}
    assert answers.json_value("no JSON", "{}", {}) == (0.0, {"answer": None})


@pytest.mark.parametrize(
    ("source", "truth", "problem"),
    [
        ("exact_match/mine", "x", None),
        ("exact_match/mine", " ", "' ' contains no answer"),
        ("multiple_choice/mine", "(c)", None),
        ("multiple_choice/mine", "12", "'12' is not a letter: give that of the right choice, such as B"),
        ("regex/mine", "a+", None),
        ("regex/mine", "(", "'(' is not a regular expression (missing ), unterminated subpattern at position 0)"),
        ("json/mine", "{}", None),
        ("json/mine", "{a}", "'{a}' is not JSON ("),
    ],
)
def test_references(source, truth, problem):
    found = sources.check_ground_truth(source, truth)
    assert found is None if problem is None else found.startswith(problem)


def test_they_grade_in_the_processes_and_group_by_text(pool):
    assert pool.judge("exact_match/mine", "Answer: yes", "yes") == Verdict(True, True, "yes", "ok")
    assert pool.judge("multiple_choice/mine", "no letter", "B") == Verdict(False, False, None, "unparsable")
    with pytest.raises(ValueError, match="field reward_model.ground_truth of regex/mine: '\\(' is not a regular"):
        pool.judge("regex/mine", "x", "(")
    assert pool.group("exact_match/mine", ["0.5", "1/2", None, "0.5"]) == [0, 1, None, 0]


def test_a_pattern_that_never_ends_costs_one_time_limit():
    from recipe.grading.pool import GraderPool

    with GraderPool(workers=1, time_limit=1.0) as pool:
        assert pool.judge("regex/mine", "a" * 60, "(a+)+b").status == "timeout"
        assert pool.judge("regex/mine", "ab", "(a+)+b").correct
