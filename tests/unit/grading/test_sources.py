"""Data sources: which have a scorer, and which references can be read."""

from __future__ import annotations

import re

import pytest

from recipe.grading import reasoning_gym, sources, strict

OURS = ("aime24", "aime25", "aime26", "amc23", "amc83", "math500", "minerva", "olympiadbench", "gsm8k", "math")
OURS += ("dapo_math_17k", "openr1_math_46k")
VERLS = ("openai/gsm8k", "lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500", "math_dapo")
VERLS += ("math_dapo_reasoning", "aime2025")


def test_every_source_of_the_project_has_a_scorer():
    assert {sources.kind(source) for source in OURS + VERLS} == {"math"}
    assert sources.kind("reasoning_gym/countdown") == "countdown"
    assert sources.kind("reasoning_gym/spell_backward") == "reasoning_gym"


@pytest.mark.parametrize(
    "source", ["", "numina_cn_k12", "codecontests", "searchR1_nq", "math5000", "Gsm8k", "countdown"]
)
def test_other_sources_have_none(source):
    assert not sources.supports(source)
    told = sources.why_not(source)
    assert told.startswith(f"no scorer for data_source {source!r}: add {sources.naming(source)} (docs/scorers.md), or ")
    assert "; those with a scorer are aime24, " in told


@pytest.mark.parametrize(
    ("source", "argument"),
    [
        ("spelling", "reward.scorers.spelling=package.module:function"),
        ("my/set", '"reward.scorers={my/set: package.module:function}"'),
        ("quiz.v2", '"reward.scorers={quiz.v2: package.module:function}"'),
    ],
)
def test_the_argument_that_names_a_scorer(source, argument):
    assert sources.naming(source) == argument


def test_an_excluded_task_is_refused_with_its_reason():
    assert not sources.supports("reasoning_gym/puzzle24") and not sources.supports("reasoning_gym/nonsense")
    assert sources.why_not("reasoning_gym/n_queens").endswith("its scorer calls eval on the response")
    with pytest.raises(ValueError, match="reasoning_gym/n_queens: its scorer calls eval"):
        reasoning_gym.scorer("n_queens")


@pytest.mark.parametrize(
    ("source", "truth", "problem"),
    [
        ("math500", "1, 2", None),
        ("math500", r"\text{no solution}", None),
        ("math500", "", "'' contains no answer"),
        ("math500", " $ $ ", "' $ $ ' contains no answer"),
        ("math500", 5, "int instead of a string"),
        ("aime24", r"\boxed{5}", "is boxed: give the content of the box only"),
        ("gsm8k", "1" * 2001, "2001 characters, more than the limit of 2000: not a final answer"),
        ("reasoning_gym/spell_backward", '{"answer": "x", "metadata": {}}', None),
        ("reasoning_gym/rush_hour", '{"answer": null, "metadata": {}}', None),
        ("reasoning_gym/spell_backward", '{"answer": "x"}', 'no "metadata" object'),
        ("reasoning_gym/spell_backward", '{"metadata": {}}', 'not an object with an "answer" (a string, or null)'),
        ("reasoning_gym/spell_backward", "[1]", 'not an object with an "answer" (a string, or null)'),
        ("reasoning_gym/spell_backward", "x", "not JSON"),
        ("reasoning_gym/countdown", '{"metadata": {"numbers": [1], "target": 1}}', None),
        ("reasoning_gym/countdown", "[]", "is not a JSON object with metadata.numbers and metadata.target"),
    ],
)
def test_references(source, truth, problem):
    found = sources.check_ground_truth(source, truth)
    assert found is None if problem is None else problem in found


def test_a_reference_that_takes_too_long_is_named(monkeypatch):
    monkeypatch.setattr(sources, "READING_LIMIT", 0.1)
    monkeypatch.setattr(strict, "canonical", lambda text: re.fullmatch("(a+)+b", "a" * 60))
    assert sources.check_ground_truth("math500", "36") == "'36' could not be read within 0.1 s: not a final answer"
