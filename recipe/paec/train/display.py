"""What a run shows while it trains: in a terminal a display that is drawn anew, elsewhere plain lines.

This is the only place that draws with rich. A file or a pipe never gets an escape code or a carriage return. The
display has no thread of its own, and leaves signals and the input alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import IO, Any, Protocol

from omegaconf import DictConfig
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recipe.paec.common.console import say
from recipe.paec.run.metric_names import CUT_OFF, ENTROPY
from recipe.paec.run.summary import accuracy, anchored, drawings, is_training_step, step_line

INTERVAL = 1.0
"""Seconds between two drawings of the display, unless something new has come."""
RECENT = 20
"""Steps whose mean duration is used for the time that is left."""
CURVE_WIDTH, CURVE_HEIGHT = 60, 5
"""Columns and rows of each small drawing of entropies."""


class Shown(Protocol):
    """Where the progress of a run is shown; used in a `with` block."""

    def __enter__(self) -> Shown: ...

    def __exit__(self, *_: object) -> None: ...

    def stage(self, name: str, step: int, seconds: float, training: bool) -> None:
        """A stage has begun, so many seconds after the start; `training`: whether this start has trained a step."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A step of this start was recorded."""

    def warn(self, sentence: str) -> None:
        """A warning has begun to hold."""

    def refresh(self, warnings: Sequence[str]) -> None:
        """Called several times a second, with all warnings that hold."""


def shown_in(stream: IO[str], config: DictConfig, records: Sequence[Mapping[str, Any]]) -> Shown:
    """The display if `stream` is a terminal that can be drawn on, else plain lines.

    Args:
        config: of the run, resolved.
        records: those of earlier starts.
    """
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", ""):
        return TerminalDisplay(stream, config, records)
    return PlainLines(config.trainer.total_training_steps, records)


class PlainLines:
    """One line for each stage before training, each step, with the time that is left, and each warning."""

    def __init__(self, total: int, records: Sequence[Mapping[str, Any]] = ()):
        self._total, self._records = total, list(records)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stage(self, name: str, step: int, seconds: float, training: bool) -> None:
        """Printed until training has begun."""
        if not training:
            say(f"[{seconds:5.0f} s] {name}")

    def record(self, record: Mapping[str, Any]) -> None:
        """One line; the last step has no time left to say."""
        self._records.append(record)
        left = time_left(self._records, self._total)
        say(step_line(record, self._total) + (f"  {duration(left)} left" if left else ""))

    def warn(self, sentence: str) -> None:
        """One line."""
        say(f"warning: {sentence}")

    def refresh(self, warnings: Sequence[str]) -> None:
        """Nothing: lines stay."""


class TerminalDisplay:
    """A few lines at the bottom of a terminal, drawn anew in place; what is printed meanwhile appears above them."""

    def __init__(self, stream: IO[str], config: DictConfig, records: Sequence[Mapping[str, Any]]):
        self._config, self._records = config, list(records)
        self._total: int = config.trainer.total_training_steps
        self._stage, self._step, self._since = "starting", 0, time.monotonic()
        self._drawn = 0.0
        self._body: tuple[int, tuple[str, ...], RenderableType] | None = None
        self._live = Live(console=Console(file=stream), auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> TerminalDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def stage(self, name: str, step: int, seconds: float, training: bool) -> None:
        """Shown until the next one."""
        self._stage, self._step, self._since, self._drawn = name, step, time.monotonic(), 0.0

    def record(self, record: Mapping[str, Any]) -> None:
        """The display shows it; a line stays above it if the step has a validation."""
        self._records.append(record)
        self._drawn = 0.0
        if accuracy(record):
            say(step_line(record, self._total))

    def warn(self, sentence: str) -> None:
        """One line above the display, which stays."""
        say(f"warning: {sentence}")

    def refresh(self, warnings: Sequence[str]) -> None:
        """Draw, if something is new or a second has passed."""
        now = time.monotonic()
        if now - self._drawn < INTERVAL:
            return
        self._drawn = now
        if self._body is None or self._body[:2] != (len(self._records), tuple(warnings)):
            self._body = len(self._records), tuple(warnings), body(self._records, warnings, self._config)
        stage = f"{self._stage} of step {self._step}, {now - self._since:.0f} s"
        top = head(self._config.run.name, self._total, self._records, stage)
        self._live.update(Group(top, self._body[2]), refresh=True)


def head(name: str, total: int, records: Sequence[Mapping[str, Any]], stage: str) -> RenderableType:
    """The first line of the display: how far the run is, how long it will take, and what it is doing."""
    step, left = records[-1]["step"] if records else 0, time_left(records, total)
    line = Table.grid(padding=(0, 2))
    line.add_row(
        Text(name, style="bold"),
        f"step {step}/{total}",
        ProgressBar(total=total, completed=step, width=24),
        f"{duration(left)} left" if left is not None else "",
        Text(stage, style="dim"),
    )
    return line


def body(records: Sequence[Mapping[str, Any]], warnings: Sequence[str], config: Mapping[str, Any]) -> RenderableType:
    """What changes with a step: its numbers, the entropies drawn over the steps, the warnings that hold."""
    rows = [
        Text("  ").join(Text.assemble((f"{label} ", "dim"), value) for label, value in row)
        for row in numbers_of(records)
    ]
    curves = drawings(records, config, columns=CURVE_WIDTH, rows=CURVE_HEIGHT)
    drawn = [Text(line, no_wrap=True) for line in curves]
    return Group(*rows, *drawn, *(Text(f"warning: {sentence}", style="yellow") for sentence in warnings))


def numbers_of(records: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, str]]]:
    """Rows of (label, value): numbers of the last training step, and the last validation; only what was recorded."""
    trained = [record for record in records if is_training_step(record)]
    last = trained[-1] if trained else {}
    validated = next((record for record in reversed(records) if accuracy(record)), {})
    method = anchored(last) or ""
    rows = [
        [
            ("reward", "critic/score/mean", "{:.3f}"),
            ("length", "response_length/mean", "{:.1f}"),
            ("truncated", CUT_OFF, "{:.1%}"),
        ],
        [
            ("entropy", ENTROPY, "{:.4f}"),
            ("Hbar", method + "selected_entropy", "{:.4f}"),
            ("floor", method + "floor", "{:.4f}"),
            ("anchor", method + "anchor", "{:.4f}"),
        ],
        [
            ("host memory", "actor/perf/cpu_memory_used_gb", "{:.1f} GiB"),
            ("device memory", "actor/perf/max_memory_allocated_gb", "{:.1f} GiB"),
        ],
    ]
    found = [[(label, f.format(last[key])) for label, key, f in row if last.get(key) is not None] for row in rows]
    if last.get("perf/total_num_tokens") is not None and last.get("perf/time_per_step"):
        found[0].append(("tokens/s", f"{last['perf/total_num_tokens'] / last['perf/time_per_step']:.0f}"))
    found[2] = [entry for entry in found[2] if entry != ("device memory", "0.0 GiB")]  # on a CPU
    for key, value in accuracy(dict(validated)).items():
        found[2].append((f"{key.removeprefix('val/')} of step {validated['step']}", f"{value:.3f}"))
    return [row for row in found if row]


def time_left(records: Sequence[Mapping[str, Any]], total: int) -> float | None:
    """Seconds until the last step, by the mean duration of the last steps with their validations; None before one.

    The first step of a run, which fills caches, only counts as long as it is the only one.
    """
    trained = [record for record in records if record.get("timing_s/step") is not None]
    taken = [r["timing_s/step"] + (r.get("timing_s/testing") or 0.0) for r in (trained[1:] or trained)[-RECENT:]]
    return fmean(taken) * (total - records[-1]["step"]) if taken else None


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
