"""Log files of a run: metrics.jsonl, one line per step; heartbeat.json, its position; failure.json, why it failed."""

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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; a half-written last line (killed run) is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


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
