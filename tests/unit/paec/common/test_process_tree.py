"""The process tree: exit codes and signals are passed on, and nothing is left of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest
from processes import gone

from recipe.paec.common.process_tree import KILL_WAIT, ProcessTree


def test_exit_code_of_the_child(tmp_path):
    tree = ProcessTree([sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log", {})
    assert tree.wait(lambda: None) == 7
    tree.end()


# A daemon of its own session whose parent has ended, deaf to SIGTERM, like some of Ray's; then what is asked for.
DAEMON = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
start = f"import subprocess, sys; d = subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True, "
start += "stdout=subprocess.PIPE); d.stdout.readline(); print('pid', d.pid, flush=True)"
subprocess.run([sys.executable, "-c", start], check=True)
"""


def daemon_of(log) -> int:
    deadline = time.monotonic() + 60
    while "pid" not in (text := log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return int(text.split()[-1])


def test_a_daemon_whose_parent_has_ended_is_still_ours(tmp_path):
    """Never looked at while its parent lived, and deaf to SIGTERM: killed after the grace."""
    tree = ProcessTree([sys.executable, "-c", DAEMON + "time.sleep(600)"], tmp_path / "log", {})
    daemon = daemon_of(tmp_path / "log")
    began = time.monotonic()
    tree.end(grace=1)
    assert gone(daemon)
    assert time.monotonic() - began < 1 + 2 * KILL_WAIT


def test_the_keeper_leaves_nothing_when_the_command_ends(tmp_path):
    tree = ProcessTree([sys.executable, "-c", DAEMON + "raise SystemExit(3)"], tmp_path / "log", {})
    assert tree.wait(lambda: None) == 3
    assert gone(daemon_of(tmp_path / "log"))
    tree.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_signal_of_the_command(tmp_path, number):
    kill = f"import os; os.kill(os.getpid(), {int(number)})"
    tree = ProcessTree([sys.executable, "-c", kill], tmp_path / "log", {})
    assert tree.wait(lambda: None) == -number
    tree.end()


def test_sigterm_is_forwarded_to_the_command(tmp_path):
    hears = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('pid', 0, flush=True)"
    tree = ProcessTree([sys.executable, "-c", hears + "; time.sleep(600)"], tmp_path / "log", {})
    daemon_of(tmp_path / "log")
    tree.process.terminate()
    assert tree.wait(lambda: None) == 9
    tree.end()


def test_sigkill_of_the_launcher_leaves_nothing(tmp_path):
    """Every process of the tree, daemons that were never looked at included, is gone soon."""
    log = tmp_path / "log"
    launcher = "import sys, time; from pathlib import Path; from recipe.paec.common.process_tree import ProcessTree\n"
    launcher += f"ProcessTree([sys.executable, '-c', {DAEMON + 'time.sleep(600)'!r}], Path({str(log)!r}), {{}})\n"
    process = subprocess.Popen([sys.executable, "-c", launcher + "time.sleep(600)"])
    daemon = daemon_of(log)
    family = psutil.Process(process.pid).children(recursive=True)
    assert daemon in {member.pid for member in family}
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while not all(gone(member.pid) for member in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.05)
