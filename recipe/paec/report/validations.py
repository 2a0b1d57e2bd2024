"""How many samples of each problem were right at a validation, from the pipeline's files and the laboratory's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import prompt_of
from recipe.paec.common.records import PROBLEMS_FILE
from recipe.paec.report.runs import Run

RESPONSES = "validation"
"""Folder of a run of the pipeline with `<step>.jsonl`."""


def counts_of(run: Run, step: int, samples: int) -> dict[str, int]:
    """Problem -> how many of its samples were right at the validation of `step`, in the order of the names.

    A problem's name is the same in every run on the same data. A sample that was lost counts as wrong.

    Raises:
        UserError: nothing was recorded of that validation, or not this, with what is missing.
    """
    counts, responses = run.folder / PROBLEMS_FILE, run.folder / RESPONSES / f"{step}.jsonl"
    if counts.is_file():
        found = _of_laboratory(counts, run, step, samples)
    elif responses.is_file():
        found = _of_pipeline(responses)
    else:
        raise UserError(f"{run.name} has neither {RESPONSES}/{step}.jsonl nor {PROBLEMS_FILE}")
    if not found or max(found.values()) > samples:
        raise UserError(f"{run.name} has no {samples} samples of each problem at step {step}")
    return dict(sorted(found.items()))


def _of_laboratory(path: Path, run: Run, step: int, samples: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in _rows(path):
        try:
            if (row["step"], row["split"], row["samples"]) == (step, "validation", samples):
                found = {f"{run.setting('task')} {place}": int(c) for place, c in enumerate(row["correct"])}
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path} has a line that is not a validation's counts") from None
    return found


def _of_pipeline(path: Path) -> dict[str, int]:
    right: Counter[tuple[str, str, str]] = Counter()
    for row in _rows(path):
        try:
            right[prompt_of(row["uid"]), str(row["input"]), str(row["gts"])] += row["acc"] == 1
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path} has a line that is not a graded response") from None
    found: dict[str, int] = {}
    seen: Counter[tuple[str, str]] = Counter()  # several problems may have one prompt and reference
    for (_, prompt, truth), count in right.items():
        seen[prompt, truth] += 1
        found[f"{prompt}\n{truth}\n{seen[prompt, truth]}"] = count
    return found


def _rows(path: Path) -> Iterator[Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            yield from map(json.loads, filter(str.strip, stream))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON lines in UTF-8") from None
