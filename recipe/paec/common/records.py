"""Records: the metrics of a run, and what must agree between runs, evaluations and scored files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe.paec.common.errors import UserError

METRICS_FILE = "metrics.jsonl"
"""In a run's directory: a line of JSON for each step."""
PROBLEMS_FILE = "problems.jsonl"
"""In the directory of a run of the laboratory: a line for each validation, the counts of every problem."""


def first_difference(recorded: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, in alphabetical order, in which two records differ, with both values; None if they agree.

    A key that is missing in one of them counts as None there.
    """
    for key in sorted(recorded.keys() | wanted.keys()):
        if recorded.get(key) != wanted.get(key):
            return key, recorded.get(key), wanted.get(key)
    return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; a half-written last line (killed run) is left out.

    Raises:
        UserError: another line is damaged.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [_record(path, number, line) for number, line in enumerate(lines[:-1], 1) if line]


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}, line {number}: is damaged ({error}): restore the file from a copy, or delete the line"
        ) from None
    return record
