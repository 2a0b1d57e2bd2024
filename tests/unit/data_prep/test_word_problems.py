"""The word problems: arithmetic by an independent evaluation, answers by the graders, splits, no repetition."""

from __future__ import annotations

import ast
import hashlib
import json
import operator
import re
from collections import Counter
from fractions import Fraction

import pytest

from data_prep import word_problems
from data_prep.contamination import find_contamination
from data_prep.contract import validate_rows
from data_prep.duplicates import find_duplicates
from data_prep.word_problems import DATA_SOURCE, TEMPLATES_OF_PROBLEMS, Template, answers, keys, score, split, worked
from recipe.grading import sources, strict
from recipe.grading.extract import extract
from recipe.paec.rollout.rewards import compute_score

NUMBER = r"\d+(?:\.\d+)?"
EQUATION = re.compile(rf"({NUMBER}(?:[-+*/]{NUMBER})+)=({NUMBER}(?:/{NUMBER})?)")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
KNOWN = {"100", "60", "3"}
"""Numbers that a solution may bring: percent, minutes of an hour, and the three games."""


@pytest.fixture(scope="module")
def pools():
    return split(validation=100)


@pytest.fixture(scope="module")
def problems(pools):
    return pools.practice + pools.validation + pools.held_out


def evaluated(text: str) -> Fraction:
    """Python's own reading of an expression, in exact arithmetic."""

    def value(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        return Fraction(str(node.value))

    return value(ast.parse(text, mode="eval").body)


def test_every_equation_is_true_and_leads_from_the_question_to_the_answer(problems):
    """A number on a left side is one of the question, a known one, or an earlier result; the last result is boxed."""
    for problem in problems:
        allowed = {Fraction(number) for number in (*re.findall(NUMBER, problem.question), *KNOWN)}
        equations = EQUATION.findall(problem.solutions[0])
        assert 1 <= len(equations) <= 3, problem
        for left, right in equations:
            assert evaluated(left) == evaluated(right), problem
            assert {Fraction(number) for number in re.findall(NUMBER, left)} <= allowed, problem
            allowed.add(evaluated(right))
        for solution in problem.solutions:
            assert EQUATION.findall(solution) == equations
            boxed = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", extract(solution))
            (answer,) = re.findall(rf"{NUMBER}(?:/\d+)?", boxed)
            assert evaluated(answer) == evaluated(equations[-1][1]), solution


def test_all_numbers_of_the_question_are_used(problems):
    for problem in problems:
        left = " ".join(left for left, _ in EQUATION.findall(problem.solutions[0]))
        asked, used = (set(map(Fraction, re.findall(NUMBER, text))) for text in (problem.question, left))
        assert asked <= used, problem


def test_the_reference_is_what_the_first_solution_says(problems):
    for problem in problems:
        assert extract(problem.solutions[0]) == problem.answer
        assert sources.check_ground_truth(DATA_SOURCE, problem.answer) is None


def test_every_solution_is_correct_for_the_graders(problems):
    for problem in problems:
        assert len(set(problem.solutions)) == len(problem.solutions) >= 2
        for solution in problem.solutions:
            assert score({"answer": problem.answer}, solution) == 1.0, solution
    problem = problems[-1]
    for info in ({"split": "train"}, {"split": "validation"}):
        found = compute_score(DATA_SOURCE, problem.solutions[0], problem.answer, info)
        assert (found["score"], found["strict"], found["pred"]) == (1.0, 1.0, problem.answer)


@pytest.mark.parametrize(
    "value, form, expected",
    [
        (Fraction(17), "count", ["17"]),
        (Fraction(15, 2), "money", [r"\$7.50", "7.50", r"7.50\text{ dollars}"]),
        (Fraction(25), "percent", [r"25\%", "25", r"25\text{ percent}"]),
        (Fraction(3, 8), "fraction", [r"\frac{3}{8}", "3/8"]),
        (Fraction(3, 2), "hours", [r"1.5\text{ hours}", "1.5", "1.5 hours"]),
    ],
)
def test_answers_as_a_person_writes_them(value, form, expected):
    assert answers(value, form) == expected


def test_wrong_answers_are_wrong():
    """Another number, another unit, no box, and a box that says two things."""
    for response in (r"\boxed{\$7.05}", r"\boxed{7.50\%}", "7.50 dollars", "", r"\boxed{7.50, 8}"):
        assert score({"answer": r"\$7.50"}, response) == 0.0, response
    assert score({"answer": r"7.5\text{ hours}"}, r"\boxed{7.5\text{ minutes}}") == 0.0


def test_a_problem_by_hand():
    template = Template("t", "", (("", "a*b"), ("", "c-x")), "money", {letter: (1,) for letter in "abc"})
    given = {"a": Fraction(4), "b": Fraction("2.50"), "c": Fraction(20)}
    assert worked(template, given) == [("4*2.50=10", 10), ("20-10=10", 10)]
    assert worked(template, given | {"c": Fraction(10)}) is None  # nothing is left
    assert worked(template, given | {"a": Fraction(400)}) is None  # too large
    assert worked(template, given | {"b": Fraction("2.501")}) is None  # a tenth of a cent


def test_every_template_has_problems_in_every_pool(pools):
    names = {template.name for template in TEMPLATES_OF_PROBLEMS}
    assert len(names) == len(TEMPLATES_OF_PROBLEMS) == 15
    for pool in (pools.practice, pools.validation, pools.held_out):
        counts = Counter(problem.key[0] for problem in pool)
        assert set(counts) == names
        assert max(counts.values()) <= word_problems.MAX_KEYS
    assert {len(template.steps) for template in TEMPLATES_OF_PROBLEMS} == {1, 2, 3}
    assert all(len(keys(template)) > 100 for template in TEMPLATES_OF_PROBLEMS)


def test_no_problem_twice(pools, problems):
    """By template and numbers, by question, and by the rule for training sets, which also finds other wordings."""
    assert (len(pools.validation), len(pools.held_out)) == (100, word_problems.HELD_OUT)
    assert len(problems) > 3500
    assert (
        len({problem.key for problem in problems}) == len({problem.question for problem in problems}) == len(problems)
    )
    questions, references = [p.question for p in problems], [p.answer for p in problems]
    assert find_duplicates(questions, references, same_answer=strict.equal).groups == ()


def test_validation_is_not_in_the_training_data(pools):
    benchmark = {DATA_SOURCE: [problem.question for problem in pools.validation]}
    found = find_contamination([problem.question for problem in pools.practice], benchmark)
    assert found.benchmarks[DATA_SOURCE].size == 100
    assert found.benchmarks[DATA_SOURCE].copies == ()


def test_answers_vary(problems):
    references = Counter(problem.answer for problem in problems)
    assert len(references) > 500 and references.most_common(1)[0][1] < 0.03 * len(problems)
    for mark in (r"\$", r"\%", r"\frac", "hours", "km", "years", "students"):
        assert sum(mark in reference for reference in references) >= 10, mark


def digest(folder) -> str:
    return hashlib.sha256((folder / "warm_start.jsonl").read_bytes()).hexdigest()


def test_files(tmp_path):
    said = word_problems.write(tmp_path / "a", train=40, validation=15, seed=3)
    assert said.startswith(f"{tmp_path / 'a'}: 40 training and 15 validation rows, ")
    train, validation = (validate_rows(tmp_path / "a" / f"{name}.parquet") for name in ("train", "validation"))
    assert (len(train), len(validation)) == (40, 15)
    assert set(train["data_source"]) == {"word_problems"} and sources.kind("word_problems") == "math"
    assert [extra["split"] for extra in train["extra_info"]] == ["train"] * 40
    assert {extra["split"] for extra in validation["extra_info"]} == {"validation"}
    row = train.iloc[0]
    assert row["prompt"][0]["content"].startswith(row["extra_info"]["problem"] + "\n\nPlease reason step by step")
    lines = [json.loads(line) for line in (tmp_path / "a" / "warm_start.jsonl").read_text().splitlines()]
    assert lines[0]["prompt"] == row["prompt"][0]["content"]
    assert lines[0]["answer"] == row["reward_model"]["ground_truth"]
    assert Counter(line["split"] for line in lines)["held_out"] == word_problems.HELD_OUT
    sets = [{extra["source"] for extra in frame["extra_info"]} for frame in (train, validation)]
    assert not sets[0] & sets[1] and len(sets[0]) == 40


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        word_problems.write(tmp_path / name, train=40, validation=15, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_too_many_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"20000 training rows, but there are only \d+ problems; request fewer"):
        word_problems.write(tmp_path, train=20000)
    with pytest.raises(ValueError, match=r"held-out problems leave none of the \d+ for training; request fewer"):
        word_problems.write(tmp_path, validation=20000)
    assert list(tmp_path.iterdir()) == []
