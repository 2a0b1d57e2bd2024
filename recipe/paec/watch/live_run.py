"""A run that is followed while it trains: its report as a page, and what has come since as data for that page."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import paec_loss
from recipe.paec.common.records import METRICS_FILE
from recipe.paec.report.command import content_of
from recipe.paec.report.facts import facts_of
from recipe.paec.report.page import Content, Live, render, round_values, rounded
from recipe.paec.report.responses import PREFIX
from recipe.paec.report.runs import Run, read_run, record_of, status_of
from recipe.paec.report.series import grouped, time_shares
from recipe.paec.run.log import Tail

SECONDS = 2.0
"""From one request of a page to the next."""


class LiveRun:
    """One run directory. metrics.jsonl is read from where the last reading ended.

    What a page has is named by a state, `<reading>.<records>.<structure>`: which reading of the file from its
    beginning, how many of its records, and a digest of which charts and metrics there are. A page whose state cannot
    be brought up to date by rows alone is told to load itself again. Methods may be called from several threads.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._tail = Tail(folder / METRICS_FILE)
        self._records: list[dict[str, Any]] = []
        self._reading = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._base = read_run(folder)
        self._structure: tuple[int, str, list[dict[str, Any]]] | None = None

    def page(self) -> str:
        """The report as it is now; raises UserError if the directory cannot be read."""
        with self._lock:
            self._read()
            self._base = read_run(self._folder)
            run = self._run()
            content = content_of([(None, run)])
            made = f"paec {paec_loss.__version__}, live: read at {time.strftime('%H:%M:%S')}"
            return render(content, made, Live(self._state(content), SECONDS))

    def update(self, state: str) -> dict[str, Any]:
        """What a page with this state lacks: {"reload": true}, or its new rows with what depends on all of them."""
        with self._lock:
            self._read()
            run = self._run()
            content = Content(groups=grouped([(None, run, None)])) if self._changed() else None
            new = self._state(content)
            reading, count, structure = (state.split(".") + ["", "", ""])[:3]
            if not count.isdecimal() or (reading, structure) != (self._reading, new.rpartition(".")[2]):
                return {"reload": True}
            assert self._structure is not None
            rows = self._records[int(count) :]
            shares = time_shares(self._records)[int(count) :] if rows else []
            return {
                "state": new,
                "made": f"paec {paec_loss.__version__}, live: read at {time.strftime('%H:%M:%S')}",
                "status": asdict(run.status),
                "rows": [
                    {key: rounded(value) for key, value in {**record, **of_step}.items()}
                    for record, of_step in zip(rows, shares, strict=True)
                ],
                "facts": [asdict(fact) for fact in facts_of(run)] if rows else [],
                "charts": self._structure[2] if rows else [],
            }

    def _read(self) -> None:
        lines, anew = self._tail.read()
        if anew and self._records:
            self._records, self._reading, self._structure = [], secrets.token_hex(4), None
        for line in lines:
            record = record_of(line)
            if record is None:
                continue
            if self._records and record["step"] <= self._records[-1]["step"]:
                self._records, self._reading = _merged(self._records, record), secrets.token_hex(4)
                self._structure = None
            else:
                self._records.append(record)

    def _run(self) -> Run:
        records = tuple(self._records)
        return replace(self._base, records=records, status=status_of(self._folder, records, self._base.config))

    def _changed(self) -> bool:
        return self._structure is None or self._structure[0] != len(self._records)

    def _state(self, content: Content | None) -> str:
        """The current state; `content` is needed where the records have changed since."""
        if content is not None:
            digest, own = structure_of(content)
            self._structure = len(self._records), digest, own
        assert self._structure is not None
        return f"{self._reading}.{len(self._records)}.{self._structure[1]}"


def _merged(records: Sequence[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Records with a step that was recorded again: the later line counts, as in the report."""
    found = {one["step"]: one for one in records} | {record["step"]: record}
    return [found[step] for step in sorted(found)]


def structure_of(content: Content) -> tuple[str, list[dict[str, Any]]]:
    """A digest of the metrics and of the charts over steps; and the other charts, whose values are their own.

    What comes from the rollouts is left out: it is read when a page is made, and stays.
    """
    charts = [chart for section in content.sections() for chart in section["charts"]]
    charts = [chart for chart in charts if not _of_rollouts(chart)]
    own = [chart for chart in charts if any("ys" in line for line in chart["series"])]
    for chart in own:
        round_values(chart)
    parts = [(chart["id"], [line["key"] for line in chart["series"]] if chart not in own else []) for chart in charts]
    keys = sorted(key for group in content.groups for key in group.columns if not key.startswith(PREFIX))
    return hashlib.sha256(repr((parts, keys)).encode()).hexdigest()[:16], own


def _of_rollouts(chart: dict[str, Any]) -> bool:
    return any(line["key"].startswith(PREFIX) for line in chart["series"])
