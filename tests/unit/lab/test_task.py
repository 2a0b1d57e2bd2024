"""Grading is the pipeline's, and the validation's numbers are those of its samples."""

from __future__ import annotations

import copy

import pytest
import torch

from data_prep import tiny_model, word_problems
from recipe.grading import countdown
from recipe.grading.pool import GraderPool
from recipe.lab import grpo
from recipe.lab import task as task_module
from recipe.lab.policy import Prompts
from recipe.lab.sampling import sample
from recipe.lab.task import Task, generator_of, rows_of, shortened
from recipe.paec.common.errors import UserError

TEXTS = ("7-3=4,4+3=7;7-3+3", "7-3=4;4+3 = 7", "", "no answer", "7;", "1;2;7 - 3 + 3", "7-3+3;", "x;7-3+(3)", ";;")


def test_verdicts_are_those_of_the_pool(task):
    problems = [task.train[place % 3] for place in range(3 * len(TEXTS))]
    texts = [text for text in TEXTS for _ in range(3)]
    with GraderPool(workers=1) as pool:
        expected = [pool.judge(p.source, text, p.truth, p.training) for p, text in zip(problems, texts, strict=True)]
    assert task.verdicts(problems, texts) == expected
    assert {v.status for v in expected} == {"ok", "unparsable"} and any(v.correct for v in expected)


def test_answer_classes(task):
    first, second = task.train[:2]
    texts = ["x;7-3+3", "x;7 -3+3", "none", "none", "x;7-3+3"]
    problems = [first, first, first, first, second]
    classes = task.answer_ids(problems, task.verdicts(problems, texts)).tolist()
    assert classes[0] == classes[1] == 0 == classes[4]  # numbers count within a problem
    assert len({*classes[:4]}) == 3 and min(classes[2:4]) < 0


def test_the_validation_by_hand(small, task, monkeypatch):
    monkeypatch.setattr(task_module, "HIGH", 0.5)
    few = copy.copy(task)
    few.validation = task.validation[:5]
    state = grpo.started(small())
    validated = few.validate(state.policy, 4, 32, 1.0, seed=1, step=3, split="validation")
    found = validated.metrics
    prompts = Prompts.of([problem.ids for problem in few.validation])
    drawn = sample(state.policy, prompts, 4, 32, torch.ones(5), task.end, generator_of(1, 3, "validation"))
    texts = task.texts(rows_of(drawn.tokens.flatten(0, 1), drawn.inside.flatten(0, 1)))
    right, distinct, solutions = [], [], []
    for row, problem in enumerate(few.validation):
        of_problem = task.verdicts([problem] * 4, texts[4 * row : 4 * row + 4])
        right.append(sum(v.correct for v in of_problem))
        distinct.append(len({v.answer for v in of_problem if v.correct}))
        solutions.append(len({countdown.solution(v.answer) for v in of_problem if v.correct}))
    assert (validated.correct, validated.distinct, validated.solutions) == (right, distinct, solutions)
    right, distinct = sum(right), sum(distinct)
    source = "val/reasoning_gym/countdown"
    assert found[f"{source}/avg@4"] == found[f"{source}/pass@1"] == pytest.approx(right / 20)
    assert found[f"{source}/distinct@4"] == pytest.approx(distinct / 5)
    assert found[f"{source}/solutions@4"] == pytest.approx(sum(solutions) / 5)
    log_probs = drawn.logits[drawn.inside].double().log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    assert found[f"{source}/entropy"] == pytest.approx(entropy.mean().item(), rel=1e-5)
    high = entropy[entropy > 0.5].sum().item() / len(entropy)
    assert 0 < high < entropy.mean().item()
    assert found[f"{source}/entropy_high"] == pytest.approx(high, rel=1e-5)
    assert {f"{source}/pass@2", f"{source}/pass@4", f"{source}/unparsable"} <= found.keys()


def test_held_out_problems_are_in_no_training_set(task, small):
    truths = {problem.truth for problem in (*task.train, *task.validation)}
    assert len(task.held_out) == 64 and not truths & {problem.truth for problem in task.held_out}
    assert not any(problem.training for problem in task.held_out)
    few = copy.copy(task)
    few.held_out = task.held_out[:3]
    found = few.validate(grpo.started(small()).policy, 2, 32, 1.0, seed=1, step=3, split="held_out")
    assert len(found.correct) == 3 and "held_out/reasoning_gym/countdown/pass@2" in found.metrics
    assert not any(key.startswith("val/") for key in found.metrics)


def test_a_response_must_fit_the_model(small):
    with pytest.raises(UserError, match="data.max_response_length=500: with the longest prompt of"):
        Task(small().task, positions=512, length=500)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Task:
    """Word problems: four to validate, and an untrained model."""
    folder = tmp_path_factory.mktemp("words")
    tiny_model.build(folder / "model")
    word_problems.write(folder / "data", train=8, validation=4)
    return Task(folder, positions=512, length=8)


def test_majority_votes_by_hand(small, words, monkeypatch):
    """Right by two of four, by an equal one, wrong by the first of a tie, and without an answer."""
    truths = [problem.truth for problem in words.validation]
    right = [rf"So it is \boxed{{{truth}}}." for truth in truths]
    wrong = r"It is \boxed{12345}."
    texts = [right[0], wrong, "none", right[0] + " Yes."]
    texts += [wrong, right[1], rf"$\boxed{{{truths[1]}.0}}$" if truths[1].isdigit() else right[1], "Answer: 54321"]
    texts += [wrong, right[2], right[2], wrong]
    texts += ["none", "", r"\boxed{}", "nothing"]
    monkeypatch.setattr(words, "texts", lambda rows: [texts.pop(0) for _ in rows])
    state = grpo.started(small())
    validated = words.validate(state.policy, 4, 4, 1.0, seed=1, step=3, split="validation")
    assert validated.correct == [2, 2, 2, 0] and validated.majority == [True, True, False, False]
    source = f"val/{word_problems.DATA_SOURCE}"
    found = validated.metrics
    assert (found[f"{source}/maj@4"], found[f"{source}/pass@4"], found[f"{source}/avg@4"]) == (0.5, 0.75, 6 / 16)


def test_countdown_has_no_majority(small, task):
    few = copy.copy(task)
    few.validation = task.validation[:2]
    validated = few.validate(grpo.started(small()).policy, 2, 8, 1.0, seed=1, step=0, split="validation")
    assert validated.majority is None and not [name for name in validated.metrics if "/maj@" in name]


@pytest.mark.parametrize(
    "text, expected",
    [
        (r"First 3*2=6. \boxed{5} or \boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}"),
        ("Answer: 7", r"\boxed{7}"),
        ("Answer: a } b", "Answer: a } b"),
        ("no answer", "no answer"),
    ],
)
def test_the_shortened_response_has_the_same_answer(words, text, expected):
    problem = words.train[0]
    assert shortened(problem, text) == expected
    with GraderPool(workers=1) as pool:
        one, other = (pool.judge(problem.source, t, problem.truth, problem.training) for t in (text, expected))
    assert one == other
