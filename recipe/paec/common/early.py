"""Starts a process early: it imports its libraries while its configuration is still being checked.

The launcher opens `started_early` around its checks, and `begin` tells the process to go; the process calls
`wait_for_work` when it has imported what it can. If the checks fail, it is ended, and has done nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipe.paec.common.fork_server import forks, one_openmp
from recipe.paec.common.process_tree import ProcessTree

EARLY = "--early"
"""The argument, in place of a file, of a process that is to wait for its file."""


def environment_of(cluster: Any) -> dict[str, str]:
    """Environment of a process that starts Ray, by the Hydra group `cluster`; without that of a private Ray."""
    return inherited(cluster) | (one_openmp() if forks(cluster) else {})


def inherited(cluster: Any) -> dict[str, str]:
    """This process's environment, with that of the Hydra group `cluster`, as its platform can start with it."""
    env = {**os.environ, **cluster.env}
    if cluster.platform == "cuda":
        env.pop("ROCR_VISIBLE_DEVICES", None)  # Slurm may set it along with CUDA's, and verl refuses both together
    return env


@dataclass(frozen=True)
class Work:
    """What a process is told when it may begin."""

    file: str
    log: str
    output: str
    """What it has printed so far."""
    environment: dict[str, str]


class Early:
    """A process that was started early, until it begins its work."""

    def __init__(self, module: str, cluster: Any, output: Path):
        """Start `python -m MODULE --early`; `output` is a file for what it prints before it begins."""
        self._output = output
        command = [sys.executable, "-m", module, EARLY]
        self._tree: ProcessTree | None = ProcessTree(command, output, environment_of(cluster), heard=True)

    def begin(self, file: Path, log: Path, environment: dict[str, str]) -> ProcessTree | None:
        """Let it work on `file`, as if it had just been started; None if it has ended, or was already told to begin.

        Args:
            file: its argument.
            log: its output goes there from now on, and that of before comes first.
            environment: what it lacks.
        """
        tree, self._tree = self._tree, None
        if tree is None:
            return None
        work = Work(str(file), str(log.absolute()), str(self._output), environment)
        try:
            tree.process.stdin.write(json.dumps(asdict(work)).encode() + b"\n")
            tree.process.stdin.close()
        except OSError:  # it has ended; the log tells why
            tree.end(0)
            _append(self._output, log)
            return None
        return tree

    def end(self) -> None:
        """End it, unless it has begun."""
        if self._tree is not None:
            self._tree.end(0)


@contextmanager
def started_early(module: str, cluster: Any) -> Iterator[Early | None]:
    """A process that imports its libraries until it is told to begin; None if workers are not forked."""
    if not forks(cluster):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="paec-early-") as folder:
        early = Early(module, cluster, Path(folder) / "output")
        try:
            yield early
        finally:
            early.end()


def wait_for_work() -> str:
    """In the process: wait until it may begin; its file. Exits if it is not to begin at all."""
    message = sys.stdin.readline()
    if not message:
        sys.exit(0)
    work = Work(**json.loads(message))
    os.environ.update(work.environment)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _append(Path(work.output), Path(work.log))
    with open(work.log, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    return work.file


def _append(output: Path, log: Path) -> None:
    with open(log, "ab") as stream:
        stream.write(output.read_bytes())
