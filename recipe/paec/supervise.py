"""Runs a command as a process tree that cannot outlive us or hang for ever, and reports on it meanwhile."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For preexec_fn: the child is killed when the process that starts it ends, however it ends."""
    # SIGKILL of the supervisor must not leave a training process behind that writes into the run directory.
    ctypes.CDLL("libc.so.6", use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def printed(log: Path, since: int, most: int | None = None) -> str:
    """What was written to `log` since it had so many bytes; the end of it, if that is more than `most`."""
    start = since if most is None else max(since, log.stat().st_size - most)
    with open(log, "rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", errors="replace")


class ProcessTree:
    """A child process, all its descendants, and their end."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]):
        self._log = open(log, "ab")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        # Descendants are remembered while they are still attached: Ray's daemons and vLLM's engines are re-parented
        # when the process that started them ends.
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        self.peak_memory = 0

    def look(self) -> None:
        """Remember the descendants that exist now, and the largest sum of their proportional memory so far."""
        try:
            tree = psutil.Process(self.process.pid)
            family = [tree, *tree.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in family:
            try:
                self._seen[(member.pid, member.create_time())] = member
            except psutil.NoSuchProcess:
                continue
        self.peak_memory = max(self.peak_memory, sum(_memory(member) for member in family))

    def wait(self, on_tick: Callable[[], None], interval: float = 0.5) -> int:
        """Exit code of the child; `on_tick` is called meanwhile and may raise to end it."""
        ticks = 0
        while True:
            code = self.process.poll()
            if ticks % 10 == 0:
                self.look()
            ticks += 1
            on_tick()
            if code is not None:
                return code
            time.sleep(interval)

    def end(self, grace: float = 10.0) -> None:
        """Terminate, then kill, whatever is left of the tree."""
        self.look()
        alive = [member for member in self._seen.values() if member.is_running()]
        for member in alive:
            _signal(member, signal.SIGTERM)
        _, alive = psutil.wait_procs(alive, timeout=grace)
        for member in alive:
            _signal(member, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=grace)
        self._log.close()


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
