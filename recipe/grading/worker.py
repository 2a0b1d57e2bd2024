"""`python -m recipe.grading.worker PARENT SECONDS BYTES`: a grader's process; `recipe.grading.pool` starts and ends it.

One JSON object a line on standard input, one a line on standard output:

    {"kind": "math", "gold", "answer", "both_ways"}                 recipe.grading.verify.compare
    {"kind": "reasoning_gym", "task", "gold", "answer"}             recipe.grading.reasoning_gym.score
    {"kind": "prepare", "task"}                                     import that task's scorer, without a limit of time

What it reads was written by a model, so it gives itself nothing to harm with: memory and processor time are limited by
the kernel, it dies with its parent, and while an answer is at hand an audit hook refuses to turn text into code (the
string parsing of sympy ends in Python's eval) or to start a process or a connection; then the verdict is an error.
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

from recipe.grading import reasoning_gym, verify

RECURSION_LIMIT = 3000
"""Enough for the grammar at about a hundred nested brackets; a deeper answer cannot be parsed."""
PR_SET_PDEATHSIG = 1
GENERATORS = ("dataclasses", "collections", "typing", "sympy.polys.monomials")
"""Modules that make code from text of their own: field names, annotations, the number of a polynomial's variables."""
_FORBIDDEN = (
    *(verify.TEXT_EVENT, "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"),
    *("socket.connect", "socket.bind"),
)


class _Guard:
    """The audit hook; a hook cannot be removed, so it is armed and disarmed. `refused` lists what it refused."""

    def __init__(self) -> None:
        self.armed = False
        self.refused: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and (event in _FORBIDDEN or _makes_code(event, arguments)):
            self.refused.append(event)
            raise RuntimeError(f"{event} is refused while an answer is graded")


def _makes_code(event: str, arguments: tuple[Any, ...]) -> bool:
    # Modules that sympy imports late are code from a file; code from text has a name such as <string>.
    if event == "compile":
        name = arguments[1]
    elif event == "exec":
        name = arguments[0].co_filename
    else:
        return False
    name = os.fsdecode(name) if name is not None else "<unknown>"
    if not name.startswith("<") or name.startswith("<frozen "):
        return False
    caller = sys._getframe(2)  # this function, the hook, and what called compile, exec or eval
    return caller.f_globals.get("__name__") not in GENERATORS


def _grade(request: dict[str, Any], guard: _Guard) -> dict[str, Any]:
    if request["kind"] == "math":
        guard.armed = True
        return verify.compare(request["gold"], request["answer"], request["both_ways"])
    scorer = reasoning_gym.scorer(request["task"])
    guard.armed = True
    return reasoning_gym.score(scorer, request["gold"], request["answer"])


def _peak_memory() -> int:
    """The largest address space this process had, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmPeak:"))


def answer(request: dict[str, Any], guard: _Guard, memory_limit: int) -> dict[str, Any]:
    """The reply to one request: {"status", "correct", "detail"}."""
    guard.refused.clear()
    try:
        reply = _grade(request, guard)
    except Exception as error:  # whatever a library raises is reported, never a verdict
        reply = {"status": "error", "correct": False, "detail": f"{type(error).__name__}: {error}"[:200]}
    finally:
        guard.armed = False
    if guard.refused:
        return {"status": "error", "correct": False, "detail": f"refused: {guard.refused[0]}"}
    # math_verify takes a MemoryError of its own for "not equal"; having come near the limit tells.
    if not reply["correct"] and _peak_memory() > memory_limit / 2:
        return {"status": "error", "correct": False, "detail": f"memory: near the limit of {memory_limit >> 20} MiB"}
    return reply


def main(parent: int, seconds: float, memory_limit: int) -> None:
    """Answer requests until standard input ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is not a reply
    sys.setrecursionlimit(RECURSION_LIMIT)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    guard = _Guard()
    verify.compare(r"\frac{1}{2}", "x+1")  # the first parse loads the grammar
    print(json.dumps({"status": "ready"}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["kind"] == "prepare":
            _limit_time(None)
            reasoning_gym.scorer(request["task"])
            reply = {"status": "ready"}
        else:
            _limit_time(seconds)
            reply = answer(request, guard, memory_limit)
        print(json.dumps(reply), file=replies, flush=True)


def _limit_time(seconds: float | None) -> None:
    """Let the kernel end this process after so much more processor time, should the parent not be there to do it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = -1 if seconds is None else math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
