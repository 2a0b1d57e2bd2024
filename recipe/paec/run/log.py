"""What a run tells the outside: metrics.jsonl, one line a step; heartbeat.json, where it is; failure.json, why not."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipe.paec.common.files import replace_file, write_json

METRICS_FILE = "metrics.jsonl"
HEARTBEAT_FILE = "heartbeat.json"
FAILURE_FILE = "failure.json"
STOP_FILE = "stop"
"""Asks the trainer for a checkpoint and an end after the step it is in."""


def _plain(value: Any) -> Any:
    """A JSON value: NumPy and torch scalars become numbers, NaN and inf become null."""
    number = value.item() if callable(getattr(value, "item", None)) else value
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number


def write_failure(directory: Path, kind: str, message: str) -> None:
    """Leave the reason of a failure for the launcher, unless one is there: the first one is the cause of the others."""
    if not (directory / FAILURE_FILE).exists():
        write_json(directory / FAILURE_FILE, {"type": kind, "message": message})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; a half-written last line (killed run) is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def truncate_metrics(path: Path, last_step: int) -> None:
    """Drop the lines of steps after `last_step`, which a resumed run will do again. Atomic."""
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
    """A sign of life for the watchdog: the stage that has just begun, its step and the time."""

    def __init__(self, directory: Path):
        self._path = directory / HEARTBEAT_FILE

    def beat(self, stage: str, step: int) -> None:
        replace_file(self._path, json.dumps({"stage": stage, "step": step, "time": time.time()}))
