"""Log files of a run: metrics.jsonl, one line per step; heartbeat.json, its position; failure.json, why it failed."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipe.paec.common.files import replace_file, write_json
from recipe.paec.common.records import METRICS_FILE, read_metrics

HEARTBEAT_FILE = "heartbeat.json"
FAILURE_FILE = "failure.json"
STOP_FILE = "stop"
"""Asks the trainer to save a checkpoint and stop after the current step."""


def _plain(value: Any) -> Any:
    """A JSON value: NumPy and torch scalars become numbers, NaN and inf become null."""
    number = value.item() if callable(getattr(value, "item", None)) else value
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number


def write_failure(directory: Path, kind: str, message: str) -> None:
    """Record the reason of a failure for the launcher, unless there is one: the first is the cause of the others."""
    if not (directory / FAILURE_FILE).exists():
        write_json(directory / FAILURE_FILE, {"type": kind, "message": message})


class Tail:
    """Reads a growing file of lines, each time from where the last reading ended.

    A last line that is cut off waits for the next reading. A file that was replaced, as a resumed run replaces its
    metrics, or that has become shorter is read from its beginning.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None
        self.offset = 0
        """Bytes that have been read as complete lines."""

    def read(self) -> tuple[list[str], bool]:
        """New complete lines, without their ends; and whether the first of them is the first of the file."""
        try:
            with open(self._path, "rb") as stream:
                about = os.fstat(stream.fileno())
                if about.st_ino != self._file or about.st_size < self.offset:
                    self._file, self.offset = about.st_ino, 0
                began = self.offset
                stream.seek(began)
                complete = stream.read().rpartition(b"\n")
        except FileNotFoundError:
            self._file, self.offset = None, 0
            return [], True
        self.offset = began + len(complete[0]) + len(complete[1])
        text = complete[0].decode("utf-8", errors="replace")
        return text.split("\n") if complete[1] else [], began == 0


def truncate_metrics(path: Path, last_step: int) -> None:
    """Drop the lines of steps after `last_step`, which a resumed run will repeat. Atomic."""
    kept = [record for record in read_metrics(path) if record["step"] <= last_step]
    replace_file(path, "".join(json.dumps(record) + "\n" for record in kept))


class MetricsFile:
    """verl tracking backend: appends `{"step": n, metric: value, ...}` to `metrics.jsonl`, then calls `written(it)`."""

    def __init__(self, directory: Path, written: Callable[[dict[str, Any]], None]):
        self._stream = open(directory / METRICS_FILE, "a", encoding="utf-8")
        self._written = written

    def log(self, data: dict[str, Any], step: int) -> None:
        record = {"step": int(step), **{key: _plain(value) for key, value in data.items()}}
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        self._written(record)

    def finish(self) -> None:
        self._stream.close()


class Heartbeat:
    """Heartbeat for the watchdog: the stage that has just begun, its step and the time."""

    def __init__(self, directory: Path):
        self._path = directory / HEARTBEAT_FILE

    def beat(self, stage: str, step: int) -> None:
        replace_file(self._path, json.dumps({"stage": stage, "step": step, "time": time.time()}))
