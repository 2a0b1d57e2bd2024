"""Runs a command as a process tree that cannot outlive us or hang forever, and reports on it while it runs.

Between us and the command is a keeper (`keep`), the process that adopts every orphan below it: so the complete tree,
daemons included, stays known, and is killed immediately when we are.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from recipe.paec.common.errors import UserError

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL, in which Ray's actors and vLLM's engines release their shared memory."""
KILL_WAIT = 5.0
"""Seconds for killed processes to disappear, while the kernel frees their memory."""
PARENT_GONE = signal.SIGUSR2
"""The signal a keeper receives when the process that started it exits."""

LOOK_INTERVAL, LOOK_SHARE = 5.0, 200
"""Seconds between two looks at the memory of all processes, or this many times what a look takes if that is longer."""

NO_BARS = {name: "1" for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")}
"""Environment of a command whose output goes to a log, where a bar that overwrites itself is one endless line."""


def prctl(option: int, value: int) -> None:
    """Set a property of this process (prctl(2))."""
    ctypes.CDLL("libc.so.6", use_errno=True).prctl(option, value)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """For preexec_fn: the child receives this signal when the process that starts it exits for any reason."""
    # If the launcher is killed, no training process may be left that writes into the run directory.
    prctl(PR_SET_PDEATHSIG, number)


def printed(log: Path, since: int, most: int | None = None) -> str:
    """What was written to `log` after byte `since`; at most its last `most` bytes."""
    start = since if most is None else max(since, log.stat().st_size - most)
    with open(log, "rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", errors="replace")


class ProcessTree:
    """A child process and all its descendants.

    Args:
        command: of the child.
        log: its output is appended to it.
        env: its environment.
        heard: whether it reads from `process.stdin` what we write there; else there is nothing to read.
    """

    def __init__(self, command: list[str], log: Path, env: dict[str, str], heard: bool = False):
        self._log = open(log, "ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), *command],
            stdin=subprocess.PIPE if heard else subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**NO_BARS, **env},
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(PARENT_GONE),
        )
        # Descendants are remembered: if the keeper is killed, nothing else shows that they were ours.
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        self.peak_memory = 0

    def look(self) -> None:
        """Remember the descendants that exist now, and the largest sum of their proportional memory so far."""
        self.peak_memory = max(self.peak_memory, sum(_memory(member) for member in self._family()))

    def _family(self) -> list[psutil.Process]:
        try:
            tree = psutil.Process(self.process.pid)
            family = [tree, *tree.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        for member in family:
            try:
                self._seen[(member.pid, member.create_time())] = member
            except psutil.NoSuchProcess:
                continue
        return family

    def wait(self, on_tick: Callable[[], None], interval: float = 0.5) -> int:
        """Exit code of the child; `on_tick` is called while waiting, and may raise to end it."""
        due = 0.0
        while True:
            code = self.process.poll()
            if (began := time.monotonic()) >= due:
                self.look()
                due = began + max(LOOK_INTERVAL, LOOK_SHARE * (time.monotonic() - began))
            on_tick()
            if code is not None:
                return code
            time.sleep(interval)

    def end(self, grace: float = GRACE) -> None:
        """Terminate, then kill, whatever is left of the tree; at most `grace` + 2 `KILL_WAIT` seconds."""
        _end(self._below, grace)
        try:
            self.process.wait(KILL_WAIT)  # it exits by itself when nothing is left to keep
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _below(self) -> list[psutil.Process]:
        """The living processes of the tree below the keeper."""
        self._family()
        return [member for member in self._seen.values() if member.pid != self.process.pid and _lives(member)]


def _end(find: Callable[[], list[psutil.Process]], grace: float) -> None:
    """Terminate, then kill the processes that `find` finds, including those that appear in between."""
    asked: set[int] = set()
    began = time.monotonic()
    while (left := find()) and (passed := time.monotonic() - began) < grace + KILL_WAIT:
        for member in left:
            if passed >= grace:
                _signal(member, signal.SIGKILL)
            elif member.pid not in asked:
                _signal(member, signal.SIGTERM)
        asked |= {member.pid for member in left}
        time.sleep(0.05)


def _lives(member: psutil.Process) -> bool:
    """Whether a process is running; one that waits to be reaped is not."""
    try:
        return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_preparation(command: list[str]) -> None:
    """Create model and data (run.prepare_command), showing its progress; UserError if it fails."""
    if subprocess.run(command, check=False, preexec_fn=die_with_parent).returncode != 0:
        raise UserError(f"the preparation command failed: {shlex.join(command)}")


# ---- the keeper ------------------------------------------------------------------------------------------------------


def keep(parent: int, command: list[str]) -> None:
    """Run a command and exit like it, with its exit code or by its signal, when everything below it has exited.

    Orphans of the tree become our children. SIGTERM and SIGINT are forwarded to the command. When `parent`, the process
    that started us, exits, everything is killed.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    me, child = psutil.Process(), None

    def everything() -> list[psutil.Process]:
        _reap()
        return [member for member in me.children(recursive=True) if _lives(member)]

    def parent_gone(*_: object) -> None:
        _end(everything, grace=0)
        os._exit(1)

    def pass_on(number: int, _: object) -> None:
        if child is not None and child.returncode is None:
            os.kill(child.pid, number)

    signal.signal(PARENT_GONE, parent_gone)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    if os.getppid() != parent:
        os._exit(1)
    child = subprocess.Popen(command, preexec_fn=die_with_parent)
    ended = 0
    while ended != child.pid:
        ended, status = os.waitpid(-1, 0)
    child.returncode = code = os.waitstatus_to_exitcode(status)
    _end(everything, GRACE)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command's own core dump, if wanted, is already written
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _reap() -> None:
    """Reap orphans that have exited."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _signal(member: psutil.Process, number: int) -> None:
    try:
        member.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def _memory(member: psutil.Process) -> int:
    """Proportional set size: shared pages are counted once over all processes."""
    try:
        with open(f"/proc/{member.pid}/smaps_rollup", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return 0
    return 0


if __name__ == "__main__":
    keep(int(sys.argv[1]), sys.argv[2:])
