"""Grading in processes: hostile answers, time, threads, and the life of the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from grader_processes import gone

from recipe.grading.pool import GraderPool, Verdict


@pytest.mark.parametrize(
    ("response", "gold", "verdict"),
    [
        (r"\boxed{\frac{2}{4}}", "0.5", Verdict(True, True, r"\frac{2}{4}", "ok")),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", Verdict(True, False, "x^2+2x+1", "ok")),
        ("Answer: 7", "8", Verdict(False, False, "7", "ok")),
        ("it is 8", "8", Verdict(False, False, None, "unparsable", "no answer")),
        (r"\boxed{2}", r"\boxed{2", None),
    ],
)
def test_verdicts_by_hand(pool, response, gold, verdict):
    if verdict is None:
        with pytest.raises(ValueError, match="field reward_model.ground_truth of math500: .*is boxed"):
            pool.judge("math500", response, gold)
    else:
        assert pool.judge("math500", response, gold) == verdict


def test_order_is_kept_and_threads_share_the_pool(pool):
    items = [("math500", rf"\boxed{{{i}}}", str(i // 2 * 2)) for i in range(40)]
    assert [verdict.correct for verdict in pool.grade(items)] == [i % 2 == 0 for i in range(40)]
    with ThreadPoolExecutor(8) as threads:  # as verl calls the reward function
        verdicts = list(threads.map(lambda item: pool.judge(*item), items))
    assert [(v.correct, v.answer) for v in verdicts] == [(i % 2 == 0, str(i)) for i in range(40)]


def test_groups(pool):
    answers = ["1/2", None, "0.5", "x^2-1", r"\frac{2}{4}", "3", "(x-1)(x+1)", None, "3.0", "-1+x^2", "(1,2)", "(2,1)"]
    assert pool.group("math500", answers) == [0, None, 0, 1, 0, 2, 1, None, 2, 1, 3, 4]
    words = ["no", "on", "On", None, "no."]  # products of letters to mathematics
    both = pool.groups([("math500", answers), ("reasoning_gym/word_sorting", words)])
    assert both == [[0, None, 0, 1, 0, 2, 1, None, 2, 1, 3, 4], [0, 1, 2, None, 0]]
    assert pool.group("math500", []) == [] and pool.group("math500", [None]) == [None]


def test_answer_ids_count_within_a_group_and_nothing_is_a_class_of_its_own(pool):
    sources = ["math500", "reasoning_gym/word_sorting"] * 4
    answers = ["1/2", "no", "0.5", "on", None, None, "3", "no"]
    assert pool.answer_ids([[6, 4, 2, 0], [1, 3, 5, 7]], sources, answers) == [1, 0, 1, 1, -5, -6, 0, 0]
    assert pool.answer_ids([], [], []) == []


def test_divisions_by_zero_are_grouped_like_any_answer(pool):
    failed = pool.failed_comparisons
    assert pool.group("math500", ["2", "1/0", "3"]) == [0, 1, 2]
    answers = ["2", "1/0", "0/0", "-1/0", "(1/0)", "{1/0}", "1/00", "5/0.0", "x=1/0", r"\{1,1/0\}"]
    assert pool.group("math500", answers) == [0, 1, 2, 3, 1, 1, 4, 5, 1, 6]
    assert pool.failed_comparisons == failed


# ---- hostile answers -------------------------------------------------------------------------------------------------


BOMBS = [
    "9^{9^{9^{9}}}",
    "10^{10^{10}}",
    "(10^9)!",
    r"\binom{10^9}{5\cdot 10^8}",
    r"\sum_{i=1}^{10^{12}} i^i",
    "(" * 900 + "1" + ")" * 900,
]
HARMLESS = {  # too long or too deep to be parsed, or cheap after all
    "nested fractions": r"\frac{1}{" * 50_000 + "2" + "}" * 50_000,
    "nested braces": "{" * 100_000 + "}" * 100_000,
    "long number": "1" * 1_000_000,
    "longest number": "9" * 1999,
    "long text": "a" * 1_000_000,
    "wide matrix": r"\begin{pmatrix}" + "&".join("1" * 900) + r"\end{pmatrix}",
    "long sum": "+".join("1" * 900),
    "decimal": "0." + "3" * 1900,
    "backslashes": "\\\\" * 900,
    "unicode": "\u202e½²³√∞" * 300,
}


def test_a_bomb_costs_at_most_the_time_limit_and_the_next_answer_is_graded():
    with GraderPool(workers=1, time_limit=1.5) as pool:
        for bomb in BOMBS:
            start = time.monotonic()
            verdict = pool.judge("math500", rf"\boxed{{{bomb}}}", "5")
            assert (verdict.correct, verdict.strict, verdict.status) == (False, False, "timeout"), bomb
            assert verdict.detail == "not graded within 1.5 s"
            assert time.monotonic() - start < 10.0
        assert pool.judge("math500", r"\boxed{1+x}", "x+1").correct
        assert pool.group("math500", ["5", "10^{10^{10}}", "5.0"]) == [0, 1, 0]
        assert pool.failed_comparisons == 1


@pytest.mark.parametrize("position", [0, 7])
def test_a_bomb_among_the_answers_to_group_is_compared_once(position):
    answers = ["x+1", r"3\sqrt7", "1+x", r"\sqrt{63}", "y+1", "1+y", "z"]
    groups = [0, 1, 0, 1, 2, 2, 3]
    answers.insert(position, "10^{10^{10}}")
    with GraderPool(workers=1, time_limit=1.0) as pool:
        found = pool.group("math500", answers)
        assert pool.failed_comparisons == 1
    assert found.count(found[position]) == 1
    rest = found[:position] + found[position + 1 :]
    numbers = {number: i for i, number in enumerate(dict.fromkeys(rest))}
    assert [numbers[number] for number in rest] == groups


@pytest.mark.parametrize("answer", HARMLESS.values(), ids=HARMLESS)
def test_large_answers_are_graded_or_unparsable(pool, answer):
    verdict = pool.judge("math500", rf"\boxed{{{answer}}}", "5")
    assert not verdict.correct and verdict.status in ("ok", "unparsable")


# ---- processes -------------------------------------------------------------------------------------------------------


def test_a_killed_grader_is_replaced():
    with GraderPool(workers=1) as pool:
        assert pool.judge("math500", r"\boxed{1+x}", "x+1").correct
        grader = pool._idle.queue[0]._process.pid
        os.kill(grader, signal.SIGKILL)
        assert gone(grader)
        assert pool.judge("math500", r"\boxed{1+x}", "x+1").correct


def test_a_grader_that_died_unnoticed_is_an_error_and_can_be_ended():
    with GraderPool(workers=1) as pool:
        pool.judge("math500", r"\boxed{6}", "5")
        process = pool._idle.queue[0]
        os.kill(process._process.pid, signal.SIGKILL)
        assert gone(process._process.pid)
        reply = process.ask({"kind": "math", "gold": "5", "answer": "6", "both_ways": False}, 5.0)
        assert (reply["status"], reply["detail"]) == ("error", "the grader process exited with code -9")
        process.kill()
        assert process._process.stdin.closed and process._process.stdout.closed


def test_an_interrupted_answer_is_not_the_reply_to_the_next():
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    with GraderPool(workers=1, time_limit=30.0) as pool:
        pool.judge("math500", r"\boxed{6}", "5")
        grader = pool._idle.queue[0]._process.pid
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Interrupt):
                pool.judge("math500", r"\boxed{10^{10^{10}}}", "5")
        finally:
            signal.signal(signal.SIGALRM, before)
        assert gone(grader)
        assert [pool.judge("math500", r"\boxed{1+x}", gold).correct for gold in ("x+1", "x", "x+1")] == [
            True,
            False,
            True,
        ]


def test_a_closed_pool_says_so():
    pool = GraderPool(workers=1)
    pool.judge("math500", r"\boxed{6}", "5")
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.judge("math500", r"\boxed{6}", "5")


def test_who_waits_for_a_pool_that_is_closed_is_told():
    pool = GraderPool(workers=1, time_limit=60.0)
    pool.judge("math500", r"\boxed{6}", "5")
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(pool.judge, "math500", r"\boxed{10^{10^{10}}}", "5") for _ in range(4)]
        time.sleep(0.3)
        closing = time.monotonic()
        pool.close()
        errors = [future.exception(timeout=20) for future in waiting]
    told = [error for error in errors if isinstance(error, RuntimeError) and "closed" in str(error)]
    assert len(told) == 4
    assert time.monotonic() - closing < 1.0


def test_a_forked_child_is_refused_the_processes_of_its_parent():
    script = r"""
import os
from recipe.grading.pool import GraderPool
with GraderPool(workers=1) as pool:
    pool.judge("math500", r"\boxed{6}", "5")
    if os.fork() == 0:
        try:
            pool.judge("math500", r"\boxed{6}", "5")
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()
    print(pool.judge("math500", r"\boxed{1+x}", "x+1").correct)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "this GraderPool was opened before a fork; open another one in the child\nTrue\n"


def test_a_process_that_cannot_start_is_one_clear_error():
    with GraderPool(workers=1, memory_limit=60 << 20) as pool:  # too little for sympy
        with pytest.raises(RuntimeError, match="a grader process did not start .*recipe.grading.worker"):
            pool.judge("math500", r"\boxed{6}", "5")


def test_the_import_is_light():
    code = (
        "import sys, recipe.grading.pool; print({'torch', 'sympy', 'math_verify', 'reasoning_gym'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "set()"
