"""reasoning_gym's scorers audited: no evaluator within reach, no answer that is always right."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap

import reasoning_gym as library
from reasoning_gym.factory import DATASETS

from recipe.grading import reasoning_gym
from recipe.grading.pool import GraderPool

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
