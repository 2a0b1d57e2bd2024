"""Runs a Python process of this recipe to its end, with a Ray of its own if there is none, for whoever watches it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from recipe.paec.common.early import Early, environment_of
from recipe.paec.common.process_tree import GRACE, ProcessTree, printed
from recipe.paec.common.ray_access import private_ray

STOPPING = (signal.SIGTERM, signal.SIGINT)
"""What a scheduler or a person sends."""
MOST_OUTPUT = 1 << 20
"""Bytes of a process's output that are read for the reason of its failure."""


class StopSignals:
    """Calls `handler` for SIGTERM and Ctrl-C while the block runs, or until `restore`."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]):
        self._handler = handler
        self.before: dict[int, Any] = {}
        """The previous handlers, by signal; empty once restored."""

    def __enter__(self) -> StopSignals:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def take(self) -> None:
        """Have the handler called from now on."""
        self.before = {number: signal.signal(number, self._handler) for number in STOPPING}

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


class LastSign:
    """When a process last showed progress."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def seen(self) -> None:
        """There is one now."""
        self._at = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last one."""
        return time.monotonic() - self._at


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    output: str
    """The end of what it has printed, at most MOST_OUTPUT bytes."""
    peak_memory: int
    """Of its whole tree, bytes."""


def run_on_ray(
    module: str,
    file: Path,
    cluster: DictConfig,
    folder: Path,
    log: Path,
    tick: Callable[[], None],
    around: AbstractContextManager[object] | None = None,
    grace: float = GRACE,
    early: Early | None = None,
) -> Ended:
    """`python -m MODULE FILE`, with its output in a log, until it ends or `tick` raises; nothing of it is left then.

    Args:
        module: starts Ray, unless there is a cluster to join.
        file: its only argument.
        cluster: Hydra group `cluster`: the process's environment, and the Ray cluster.
        folder: where the token of a private Ray is kept.
        log: the output is appended to it.
        tick: called twice a second.
        around: entered when the process has started, and left before its tree is ended.
        grace: seconds from SIGTERM to SIGKILL for what is left of its tree.
        early: the same module, started before; it is used unless it has ended since.
    """
    start = log.stat().st_size if log.is_file() else 0
    with private_ray(cluster.ray_address, folder) as private:
        tree = early.begin(file, log, private) if early is not None else None
        if tree is None:
            tree = ProcessTree([sys.executable, "-m", module, str(file)], log, environment_of(cluster) | private)
        try:
            with around or nullcontext():
                code = tree.wait(tick)
        finally:
            tree.end(grace)
    return Ended(code, printed(log, start, MOST_OUTPUT), tree.peak_memory)
