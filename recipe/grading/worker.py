"""`python -m recipe.grading.worker PARENT SECONDS BYTES`: a grader process; `recipe.grading.pool` starts and stops it.

One JSON object per line on standard input, and one per line on standard output:

    {"kind": "strict", "source", "gold", "response"}       the answer of a response, and what the strict rule says of it
    {"kind": "form", "answer"}                             recipe.grading.strict.normal_form
    {"kind": "math", "gold", "answer", "both_ways"}        recipe.grading.verify.compare
    {"kind": "reasoning_gym", "task", "gold", "answer"}    recipe.grading.reasoning_gym.score
    {"kind": "score", "scorer", "gold", "response", "extra"}    recipe.grading.scorers.called
    {"kind": "load", "scorer"}                             nothing more than to prepare it
    {"kind": "prepare", "needs"}                           import math_verify ("math"), a task's scorer or a function,
                                                           with no limit of time; before the first request that needs it

What it reads was written by a model, so it is sandboxed: memory and processor time are limited by the kernel, it dies
with its parent, and while an answer is processed an audit hook refuses to turn text into code (the string parsing of
sympy ends in Python's eval) or to start a process or a connection; then the verdict is an error.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
from typing import Any

from recipe.grading import answers, reasoning_gym, scorers, sources, strict
from recipe.grading.extract import extract
from recipe.grading.guard import TEXT_EVENT, Guard

RECURSION_LIMIT = 3000
"""Enough for the grammar at about a hundred nested brackets; a deeper answer cannot be parsed."""
CODE_EVENTS = ("compile", "exec", TEXT_EVENT)
"""What the guard refuses because it turns text into code, as math_verify and sympy do."""
AS_CODE = (
    ": a scorer may not compile or run text as code (docs/scorers.md): for mathematics name the scorer math or "
    "math_lenient, and import modules at the top of the file"
)
PR_SET_PDEATHSIG = 1


def _grade(request: dict[str, Any], guard: Guard) -> dict[str, Any]:
    if request["kind"] == "strict":
        return _grade_strictly(request["source"], request["gold"], request["response"])
    if request["kind"] == "form":
        return {"status": "ok", "correct": False, "detail": "", "form": strict.normal_form(request["answer"])}
    if request["kind"] == "load":
        return {"status": "ok", "correct": False, "detail": ""}
    if request["kind"] == "math":
        from recipe.grading import verify

        guard.armed = True
        return verify.compare(request["gold"], request["answer"], request["both_ways"])
    if request["kind"] == "score":
        function = scorers.load(request["scorer"])
        guard.armed = True
        return scorers.called(function, request["response"], request["gold"], request["extra"])
    scorer = reasoning_gym.scorer(request["task"])
    guard.armed = True
    return reasoning_gym.score(scorer, request["gold"], request["answer"])


def _grade_strictly(source: str, gold: str, response: str) -> dict[str, Any]:
    """The answer of a response and the strict rule's verdict; of a reasoning_gym task the answer alone."""
    if problem := sources.check_ground_truth(source, gold):
        return {"status": "reference", "correct": False, "detail": problem}
    answer = extract(response)
    if answer is None:
        return {"status": "unparsable", "correct": False, "detail": "no answer", "answer": None}
    correct = sources.kind(source) in sources.MATH_RULES and strict.equal(gold, answer)
    return {"status": "ok", "correct": correct, "detail": "", "answer": answer}


def _peak_memory() -> int:
    """The largest address space this process had, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmPeak:"))


def answer(request: dict[str, Any], guard: Guard, memory_limit: int) -> dict[str, Any]:
    """The reply to one request: {"status", "correct", "detail"}, and what its kind adds."""
    guard.refused.clear()
    try:
        reply = _grade(request, guard)
    except Exception as error:  # any error of a library is reported, and is never a verdict
        reply = {"status": "error", "correct": False, "detail": f"{type(error).__name__}: {error}"[:200]}
        # What a scorer from outside raises says nothing about this process, unless it ran out of memory or stack.
        if request["kind"] == "score" and not isinstance(error, (MemoryError, RecursionError)):
            reply["intact"] = True
    finally:
        guard.armed = False
    if guard.refused:
        event = guard.refused[0]
        detail = f"refused: {event}{AS_CODE if request['kind'] == 'score' and event in CODE_EVENTS else ''}"
        return {"status": "error", "correct": False, "detail": detail}
    # math_verify treats its own MemoryError as "not equal"; memory close to the limit reveals it.
    if request["kind"] in ("math", "reasoning_gym") and not reply["correct"] and _peak_memory() > memory_limit / 2:
        return {
            "status": "error",
            "correct": False,
            "detail": f"memory: close to the limit of {memory_limit >> 20} MiB",
        }
    return reply


def main(parent: int, seconds: float, memory_limit: int) -> None:
    """Answer requests until standard input ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output of a library is not a reply
    sys.setrecursionlimit(RECURSION_LIMIT)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    guard = Guard()
    print(json.dumps({"status": "ready"}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["kind"] == "prepare":
            _limit_time(None)
            reply = _prepare(request["needs"])
        else:
            _limit_time(seconds)
            reply = answer(request, guard, memory_limit)
        print(json.dumps(reply), file=replies, flush=True)


def _prepare(needs: str) -> dict[str, Any]:
    if needs == "math":
        from recipe.grading import verify

        verify.compare(r"\frac{1}{2}", "x+1")  # the first parse loads the grammar
    elif needs in answers.SCORERS or scorers.is_function(needs):
        try:
            scorers.load(needs)
        except scorers.ScorerError as error:
            return {"status": "refused", "detail": str(error)}
    else:
        reasoning_gym.scorer(needs)
    return {"status": "ready"}


def _limit_time(seconds: float | None) -> None:
    """Let the kernel kill this process after this much more processor time, in case the parent cannot."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = -1 if seconds is None else math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
