"""Trains the runs of a grid on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from recipe.paec.common.child import StopSignals
from recipe.paec.common.console import complain, say
from recipe.paec.common.process_tree import ProcessTree
from recipe.paec.grid.request import Grid
from recipe.paec.grid.runs import GridRun
from recipe.paec.grid.table import show_table, write_table

TRAIN = [sys.executable, "-m", "recipe.paec.train"]
"""The command that starts one run."""


class Stop:
    """Forwards SIGTERM and Ctrl-C to the training, which saves and stops; a second one stops it immediately."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal received, None if there was none."""
        self._child: subprocess.Popen | None = None
        self._signals = StopSignals(self._pass_on)

    def __enter__(self) -> Stop:
        self._signals.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.restore()

    def watch(self, child: subprocess.Popen) -> None:
        """Forward signals to this process from now on, including one that has just arrived."""
        self._child = child
        if self.number is not None:
            child.send_signal(self.number)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        if self._child is not None:
            self._child.send_signal(number)


def train(grid: Grid, run: GridRun, arguments: Sequence[str], log: Path, stop: Stop) -> str | None:
    """Start a training and show its output until it ends; returns why it failed, None if it is finished."""
    with open(log, "a+", encoding="utf-8", errors="replace") as stream:  # append, and only read what this start writes
        tree = ProcessTree([*TRAIN, f"experiment={grid.experiment}", *arguments], log, dict(os.environ))
        stop.watch(tree.process)
        printed: list[str] = []

        def show() -> None:
            if text := stream.read():
                printed.append(text)
                print(text, end="", flush=True)

        try:
            code = tree.wait(show)
        finally:
            tree.end()
    if code == 0 and run.finished():
        return None
    errors = [line.removeprefix("error: ") for line in "".join(printed).splitlines() if line.startswith("error: ")]
    return "; ".join(errors) or f"it ended with exit code {code} at step {run.step() or 0}, see {log}"


def training_time(run: GridRun, started: float) -> float:
    """Seconds that a run which has just ended spent on training.

    Creating model and data, which only the first run of a grid does, is over when a start writes its configuration.
    """
    file = run.directory / "config.yaml"
    return time.time() - max(started, file.stat().st_mtime if file.is_file() else started)


def train_all(grid: Grid, runs: Sequence[GridRun], folder: Path) -> int:
    """Train unfinished runs one after the other, rewriting the table after each; returns the exit code."""
    to_do = [run for run in runs if not run.done()]
    say(f"{len(runs)} runs of {grid.experiment}, {len(runs) - len(to_do)} of them done; table and logs in {folder}")
    failed: dict[Path, str] = {}
    seconds = trained = 0.0
    with Stop() as stop:
        for number, run in enumerate(to_do):
            before, started = run.step() or 0, time.time()
            minutes = seconds * sum(r.steps - (r.step() or 0) for r in to_do[number:]) / max(trained, 1) / 60
            left = f", about {minutes:.0f} min left" if trained else ""
            place = "" if run.step() is None else f", at step {run.step()} of {run.steps}"
            say(f"\n=== run {number + 1} of {len(to_do)}: {run.label}, seed {run.seed}{place}{left} ===")
            entry = next(entry for entry in grid.entries if entry.label == run.label)
            log = folder / f"{run.directory.name}.log"
            failure = train(grid, run, grid.arguments(entry, run.seed), log, stop)
            if stop.number is not None:
                break
            if failure is not None:
                failed[run.directory] = failure
                say(f"{run.label}, seed {run.seed} failed; continuing with the others")
            else:
                seconds, trained = seconds + training_time(run, started), trained + run.steps - before
            write_table(grid, runs, folder, failed)
    show_table(grid, runs, folder, failed)
    if stop.number is not None:
        say(f"stopped by {signal.Signals(stop.number).name}; the same command resumes")
        return 128 + stop.number
    for run in runs:
        if run.directory in failed:
            complain([f"{run.label}, seed {run.seed}: {failed[run.directory]}"])
    return 1 if failed else 0
