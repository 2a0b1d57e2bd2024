"""Data sources: which have a scorer, which references can be read, and reasoning_gym's scorers audited."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap

import pytest
import reasoning_gym as library
from reasoning_gym.factory import DATASETS

from recipe.grading import countdown, reasoning_gym, sources
from recipe.grading.pool import GraderPool

OURS = ("aime24", "aime25", "aime26", "amc23", "amc83", "math500", "minerva", "olympiadbench", "gsm8k", "math")
OURS += ("dapo_math_17k", "openr1_math_46k")
VERLS = ("openai/gsm8k", "lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500", "math_dapo")
VERLS += ("math_dapo_reasoning", "aime2025")


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=2, time_limit=20.0) as pool:
        yield pool


def test_every_source_of_the_project_has_a_scorer():
    assert {sources.kind(source) for source in OURS + VERLS} == {"math"}
    assert sources.kind("reasoning_gym/countdown") == "countdown"
    assert sources.kind("reasoning_gym/spell_backward") == "reasoning_gym"


@pytest.mark.parametrize(
    "source", ["", "numina_cn_k12", "codecontests", "searchR1_nq", "math5000", "Gsm8k", "countdown"]
)
def test_other_sources_have_none(source):
    assert not sources.supports(source)
    assert sources.why_not(source).startswith(f"no scorer for data_source {source!r}; it must be one of aime24, ")


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


# ---- reasoning_gym ---------------------------------------------------------------------------------------------------

EVALUATORS = {"eval", "exec", "compile", "__import__", "parse_expr", "sympify", "simplify", "literal_eval", "lambdify"}
EVALUATORS |= {"system", "Popen", "nsimplify", "S"}


def evaluators_within_reach(cls: type) -> set[str]:
    """Names of EVALUATORS that a dataset's score_answer calls, itself or through functions of the library."""
    found, seen, waiting = set(), set(), [cls.score_answer]
    while waiting:
        function = inspect.unwrap(waiting.pop())
        if function in seen or function.__code__.co_filename.startswith("<"):  # made by dataclasses
            continue
        seen.add(function)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        module = sys.modules[function.__module__]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name, target = node.attr, getattr(cls, node.attr, getattr(module, node.attr, None))
            elif isinstance(node, ast.Name):
                name, target = node.id, getattr(module, node.id, None)
            else:
                continue
            ours = getattr(target, "__module__", "") or ""
            if name in EVALUATORS and not (inspect.isfunction(target) and ours.startswith("reasoning_gym.")):
                found.add(name)
            elif inspect.isclass(target) and ours.startswith("reasoning_gym."):
                waiting += [member for member in vars(target).values() if inspect.isfunction(member)]
                waiting += [
                    member.__func__
                    for member in vars(target).values()
                    if isinstance(member, staticmethod | classmethod)
                ]
            elif inspect.isfunction(target) and ours.startswith("reasoning_gym."):
                waiting.append(target)
    return found


def test_no_scorer_of_a_supported_task_can_reach_an_evaluator():
    reach = {task: evaluators_within_reach(cls) for task, (cls, _) in DATASETS.items()}
    assert len(reach) > 100
    evaluating = {task for task, names in reach.items() if names & {"eval", "exec", "parse_expr"}}
    own = {"propositional_logic": {"simplify"}}  # a method of its own expressions, not sympy's
    assert {task: reach[task] for task in reasoning_gym.tasks() if reach[task]} == own
    excluded = {task for task, why in reasoning_gym.EXCLUDED.items() if "eval" in why}
    assert evaluating == excluded  # none too many, none forgotten
    assert reasoning_gym.EXCLUDED.keys() <= DATASETS.keys()


NO_ANSWER = {
    "graph_color": "possible_answer",
    "rubiks_cube": "example_correct_answer",
    "propositional_logic": "example_answer",
}
PARTIAL = {"boxnet", "rush_hour"}
"""Tasks whose entries hold no solution at all."""


def test_the_librarys_own_answers_are_correct_and_others_are_not(pool):
    items, tasks = [], []
    for task in reasoning_gym.tasks():
        if task in PARTIAL:
            continue
        entry = library.create_dataset(task, size=1, seed=3)[0]
        answer = entry["metadata"][NO_ANSWER[task]] if task in NO_ANSWER else entry["answer"]
        answer = answer if isinstance(answer, str) else json.dumps(answer)
        truth = json.dumps({"answer": entry["answer"], "metadata": entry["metadata"]}, default=str)
        tasks.append(task)
        items.append(
            (f"reasoning_gym/{task}", rf"\boxed{{{answer}}}" if "{" not in answer else f"Answer: {answer}", truth)
        )
        items.append((f"reasoning_gym/{task}", r"\boxed{none of this}", truth))
    verdicts = pool.grade(items)
    assert [task for task, verdict in zip(tasks, verdicts[::2], strict=True) if not verdict.correct] == []
    assert [task for task, verdict in zip(tasks, verdicts[1::2], strict=True) if verdict.correct] == []
    assert {verdict.status for verdict in verdicts} == {"ok", "unparsable"}


EMPTY_ANSWERS = ("0", "0.", "-0", "nan", "nanj", "[NaN]", "inf", "1e400", "[]", "{}", "None", "-", ".")


def test_no_empty_answer_is_right_for_every_problem_of_a_task():
    accepted = []
    for task in reasoning_gym.tasks():
        if task in PARTIAL:
            continue
        entries = list(library.create_dataset(task, size=2, seed=5))
        if len({str(entry["answer"]) for entry in entries}) == 1 and task not in NO_ANSWER:
            continue
        truths = [json.dumps(entry, default=str) for entry in entries]
        scorer = reasoning_gym.scorer(task)
        for answer in EMPTY_ANSWERS:
            if all(reasoning_gym.score(scorer, truth, answer)["correct"] for truth in truths):
                accepted.append((task, answer))
    assert accepted == []


def test_hostile_answers_to_tasks(tmp_path):
    path = tmp_path / "touched"
    truth = json.dumps({"answer": "1", "metadata": {}})
    with GraderPool(workers=2, time_limit=2.0) as pool:
        for task in ("chain_sum", "prime_factorization", "decimal_arithmetic", "spell_backward"):
            for answer in (
                f"__import__('os').system('touch {path}')",
                "9" * 20_000,
                "1e999999999",
                "nan",
                "\u202e\x00",
            ):
                verdict = pool.judge(f"reasoning_gym/{task}", rf"\boxed{{{answer}}}", truth)
                assert not verdict.correct and verdict.status in ("ok", "unparsable", "timeout"), (
                    task,
                    answer[:30],
                    verdict,
                )
    assert not path.exists()


def test_countdown_is_scored_behind_its_filter(pool):
    truth = json.dumps({"metadata": {"numbers": [7, 5, 1], "target": 2}})
    verdict = pool.judge(countdown.DATA_SOURCE, "7-5=2,1*2=2;1*(7-5)", truth)
    assert (verdict.correct, verdict.strict, verdict.answer) == (True, True, "1*(7-5)")
    assert pool.judge(countdown.DATA_SOURCE, ";9**9**9", truth).status == "unparsable"
