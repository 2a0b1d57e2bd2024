"""Starts the training process and watches it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from recipe.paec.common import folder_kinds
from recipe.paec.common.child import LastSign, StopSignals, run_on_ray
from recipe.paec.common.console import say
from recipe.paec.common.early import Early
from recipe.paec.common.errors import Stalled, UserError
from recipe.paec.common.ray_access import ray_ended
from recipe.paec.common.records import METRICS_FILE
from recipe.paec.config.methods import stack_of
from recipe.paec.run import mismatch
from recipe.paec.run.log import FAILURE_FILE, HEARTBEAT_FILE, STOP_FILE, Tail
from recipe.paec.run.summary import is_training_step
from recipe.paec.run.warning_signs import WarningSigns
from recipe.paec.train.alert import SIGNS, Alerts
from recipe.paec.train.display import shown_in

DRIVER = "recipe.paec.driver.process"
"""The training process."""
FULL_DISK = 64 << 20
"""Free bytes below which a failure is attributed to a full disk."""


class StopRequest:
    """SIGTERM or Ctrl-C in training: the first requests a checkpoint after this step, a second stops immediately.

    Before the first step of this start there is nothing to save, so the first one also stops it immediately.
    """

    def __init__(self, directory: Path, progress: Progress):
        self._file, self._progress = directory / STOP_FILE, progress
        self._signals = StopSignals(self._ask)
        self.code: int | None = None
        """Exit code of a run that was asked to stop, None if it was not."""

    def __enter__(self) -> StopRequest:
        self._file.unlink(missing_ok=True)
        self._signals.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.restore()
        self._file.unlink(missing_ok=True)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        ended = self._signals.before[number]
        self._signals.restore()
        if not self._progress.training:
            ended(number, frame)
        self.code = 128 + number
        self._file.touch()
        say(
            f"{signal.Signals(number).name}: stopping after this step, with a checkpoint; send it again to stop "
            "immediately"
        )


class Progress:
    """Shows new steps, stages and warnings, posts alerts, and notices when nothing comes."""

    def __init__(self, config: DictConfig, directory: Path, alerts: Alerts | None = None):
        self._metrics, self._heartbeat = Tail(directory / METRICS_FILE), directory / HEARTBEAT_FILE
        self._timeout, self._limit = config.run.stall_timeout, config.run.time_limit
        self._alerts = alerts or Alerts(None, config.run.name)
        self._resume = f"resume with {folder_kinds.RUN.same_command(config.run.fresh)}"
        self._signs = WarningSigns(
            own_sampling=stack_of(config).has("sampling"),
            curriculum=config.data.curriculum is not None,
            remedy=mismatch.remedy(config),
        )
        earlier = self._new_records()
        for record in earlier:
            self._signs.add(record)
        self.shown = shown_in(sys.stdout, config, earlier)
        self._stage: tuple[str, int] = ("starting", 0)
        self._stage_content = ""
        self._started, self._sign = time.monotonic(), LastSign()
        self.training = False
        """Whether this start has trained a step."""

    def _new_records(self) -> list[dict[str, Any]]:
        lines, _ = self._metrics.read()
        return [json.loads(line) for line in lines]

    def tick(self) -> None:
        """Show progress; raises Stalled after too long without any."""
        try:
            content = self._heartbeat.read_text(encoding="utf-8")
        except FileNotFoundError:
            content = ""
        if content != self._stage_content:
            self._stage_content = content
            self._sign.seen()
            beat = json.loads(content)
            self._stage = (beat["stage"], beat["step"])
            self.shown.stage(*self._stage, time.monotonic() - self._started, self.training)
        for record in self._new_records():
            self._sign.seen()
            self.training = self.training or is_training_step(record)
            self._alerts.step = record["step"]
            self.shown.record(record)
            for name, sentence in self._signs.add(record).items():
                self.shown.warn(sentence)
                if name in SIGNS:
                    self._alerts.post(SIGNS[name], sentence)
        self._alerts.complain()
        self.shown.refresh(list(self._signs.current.values()))
        if self._limit is not None and time.monotonic() - self._started > self._limit:
            raise Stalled(
                f"the training process was stopped after run.time_limit={self._limit:.0f} s, in stage "
                f"{self._stage[0]!r} of step {self._stage[1]}; {self._resume}"
            )
        if self._sign.silence > self._timeout:
            raise Stalled(
                f"no heartbeat for {self._sign.silence:.0f} s in stage {self._stage[0]!r} of step {self._stage[1]} "
                "(run.stall_timeout): the training process was stopped. A failed weight sync inside vLLM looks like "
                f"this; the log has the details; {self._resume}"
            )


def train(config: DictConfig, config_file: Path, alerts: Alerts, early: Early | None = None) -> tuple[int, int | None]:
    """Run the training process to its end, or until it is asked to stop; UserError if it fails.

    Args:
        config: resolved.
        config_file: where it was written.
        alerts: gets the events of its metrics.
        early: DRIVER, if it was started before.

    Returns:
        The peak memory of its tree in bytes; the exit code of a run that was asked to stop, else None.
    """
    directory = Path(config.run.directory)
    log = directory / "train.log"
    for stale in (FAILURE_FILE, HEARTBEAT_FILE):
        (directory / stale).unlink(missing_ok=True)
    progress = Progress(config, directory, alerts)
    stop = StopRequest(directory, progress)

    @contextmanager
    def watching() -> Iterator[None]:
        with stop, progress.shown:
            yield

    try:
        ended = run_on_ray(DRIVER, config_file, config.cluster, directory, log, progress.tick, watching(), early=early)
    except Stalled as stalled:
        raise Stalled(f"{stalled}\nlog: {log}") from None
    if ended.code != 0:
        errors = [failure_of(directory, ended.code, ended.output)]
        free = shutil.disk_usage(directory).free
        if free < FULL_DISK:
            errors.append(
                f"the disk of {directory} is full ({free >> 20} MiB left): free some space, and resume with "
                f"{folder_kinds.RUN.same_command(config.run.fresh)}"
            )
        raise UserError(*errors, f"the log with all tracebacks: {log}")
    return ended.peak_memory, stop.code


def failure_of(directory: Path, code: int, output: str = "") -> str:
    """One sentence on why the training process, which printed `output`, ended with `code`."""
    if lost := ray_ended(output):
        return lost
    try:
        failure = json.loads((directory / FAILURE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # missing, or truncated by a full disk
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        return f"the training process {how} and gave no reason (killed, or out of memory?)"
    return f"{failure['type']}: {failure['message'].splitlines()[-1] if failure['message'] else 'no message'}"
