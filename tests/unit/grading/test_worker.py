"""A grader's process: its memory is limited, and it dies with its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from grader_processes import gone

from recipe.grading.pool import GraderPool


def test_a_memory_bomb_is_an_error():
    with GraderPool(workers=1, time_limit=60.0, memory_limit=500 << 20) as pool:
        verdict = pool.judge("math500", r"\boxed{2^{2^{30}}}", "5")
        assert (verdict.correct, verdict.status) == (False, "error")
        assert "emory" in verdict.detail
        assert pool.judge("math500", r"\boxed{1+x}", "x+1").correct


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()] + [
        int(pid)
        for task in Path(f"/proc/{parent}/task").iterdir()
        if task.name != str(parent)
        for pid in (task / "children").read_text().split()
    ]


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
