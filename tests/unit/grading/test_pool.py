"""Grading in processes: the table of pairs, hostile answers, time, memory, threads, and the life of the processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recipe.grading.pool import GraderPool, Verdict

TABLE = Path(__file__).with_name("answer_pairs.tsv")


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=2, time_limit=20.0) as pool:
        yield pool


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


def test_a_memory_bomb_is_an_error():
    with GraderPool(workers=1, time_limit=60.0, memory_limit=500 << 20) as pool:
        verdict = pool.judge("math500", r"\boxed{2^{2^{30}}}", "5")
        assert (verdict.correct, verdict.status) == (False, "error")
        assert "emory" in verdict.detail
        assert pool.judge("math500", r"\boxed{1+x}", "x+1").correct


INJECTIONS = [
    "__import__('os').system('touch {path}')",
    r"\text{{__import__('os').system('touch {path}')}}",
    "[c for c in ().__class__.__base__.__subclasses__()][0]",
    "eval(\"open('{path}','w')\")",
    "open('{path}','w')",
    "1/2 + __import__('pathlib').Path('{path}').touch()",
    "x=__import__('os').system('touch {path}')",
    "(lambda: __import__('os').mkdir('{path}'))()",
    r"\operatorname{{open}}('{path}', 'w')",
    "$ __import__('os').system('touch {path}') $",
    "0.5; __import__('os').system('touch {path}')",
    "1,000,__import__('os').system('touch {path}')",
]


def test_no_answer_is_run(pool, tmp_path):
    path = tmp_path / "touched"
    for injection in INJECTIONS:
        text = injection.format(path=path)
        for response in (rf"\boxed{{{text}}}", f"Answer: {text}", f"#### {text}"):
            for gold in ("5", text):
                verdict = pool.judge("math500", response, gold)
                assert verdict.status in ("ok", "unparsable"), (response, verdict)
        pool.group("math500", [text, "5", r"\frac{1}{2}"])
    assert not path.exists()


def test_nothing_tries_to_make_code_of_an_answer_and_the_guard_would_refuse_it():
    script = r"""
import json, os, subprocess, sys
from recipe.grading import verify, worker
guard = worker.Guard()
def ask(gold, answer):
    request = {"kind": "math", "gold": gold, "answer": answer, "both_ways": True}
    return worker.answer(request, guard, 1 << 40), list(guard.refused)
for answer in json.loads(sys.argv[1]):
    for pair in ((answer, "x"), ("x", answer), (answer, answer)):
        reply, refused = ask(*pair)
        assert refused == [] and reply["status"] != "error", (pair, reply, refused)
import sympy
attempts = {
    "compile": lambda *_, **__: eval("1+1"),
    "exec": lambda *_, **__: exec(code),
    "recipe.grading.text": lambda *_, **__: sympy.sympify("x + 1"),
    "os.system": lambda *_, **__: os.system("true"),
    "subprocess.Popen": lambda *_, **__: subprocess.run(["true"]),
}
code = compile("1", "<string>", "exec")
for event, attempt in attempts.items():
    verify.math_verify.verify = attempt
    reply, refused = ask("1", "2")
    expected = {"status": "error", "correct": False, "detail": f"refused: {event}"}
    assert (refused, reply) == ([event], expected), event
print("checked")
"""
    texts = [injection.format(path="/nowhere/x") for injection in INJECTIONS]
    run = subprocess.run([sys.executable, "-c", script, json.dumps(texts)], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "checked", run.stderr


# ---- processes -------------------------------------------------------------------------------------------------------


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()] + [
        int(pid)
        for task in Path(f"/proc/{parent}/task").iterdir()
        if task.name != str(parent)
        for pid in (task / "children").read_text().split()
    ]


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_graders_do_not_outlive_a_killed_parent():
    script = r"""
import sys, threading
from recipe.grading.pool import GraderPool
pool = GraderPool(workers=1, time_limit=300)
thread = threading.Thread(target=lambda: print(pool.judge("math500", r"\boxed{6}", "5").status, flush=True))
thread.start()
thread.join()
pool.judge("math500", r"\boxed{10^{10^{10}}}", "5")  # busy in C code when the parent dies
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ok\n"  # asked from a thread that has ended, with the grader alive
    time.sleep(0.5)
    (grader,) = children(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(grader)


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
