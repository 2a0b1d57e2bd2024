"""How many responses to each training prompt were right, step by step: `prompts.jsonl` in a run's directory.

A line for each step, `{"step": 5, "epoch": 1, "prompts": {data source: {index: [right, responses]}}}`, for the prompts
that the step trained on; `index` is `extra_info.index` of the row. Nothing is ever deleted from it, so it covers a run
of any length; a resumed run drops the steps after its checkpoint, as from the metrics (`run.log.truncate_metrics`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from recipe.paec.common.errors import UserError
from recipe.paec.common.records import read_metrics

PROMPTS_FILE = "prompts.jsonl"

Key = tuple[str, int]
"""(data source, `extra_info.index`) of a row."""
Counts = dict[int, tuple[int, int]]
"""Epoch -> (right responses, responses)."""


def append(run: Path, step: int, epoch: int, counts: Mapping[Key, tuple[int, int]]) -> None:
    """Append a step to the file.

    Args:
        run: directory of the run.
        step: trainer step.
        epoch: pass over the data, from 0, as `training/epoch` in the metrics.
        counts: (right responses, responses) of each prompt of the step.
    """
    prompts: dict[str, dict[str, list[int]]] = {}
    for (source, index), (right, responses) in sorted(counts.items()):
        prompts.setdefault(source, {})[str(index)] = [right, responses]
    line = json.dumps({"step": step, "epoch": epoch, "prompts": prompts}, separators=(",", ":"))
    with open(run / PROMPTS_FILE, "a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def read(run: Path) -> tuple[dict[Key, Counts], list[int]]:
    """What a run's file holds: the counts of each prompt, summed within an epoch, and the steps that are in it.

    Raises:
        UserError: the run has no such file, or one with a line of another form.
    """
    path = run / PROMPTS_FILE
    if not path.is_file():
        raise UserError(f"{path}: does not exist: give the folder of a run that was trained with this version")
    found: dict[Key, Counts] = {}
    steps: list[int] = []
    try:
        for record in read_metrics(path):
            steps.append(int(record["step"]))
            epoch = int(record["epoch"])
            for source, rows in record["prompts"].items():
                for index, (right, responses) in rows.items():
                    if not 0 <= right <= responses or responses < 1:
                        raise ValueError(f"{right} right of {responses} responses")
                    of_prompt = found.setdefault((source, int(index)), {})
                    before = of_prompt.get(epoch, (0, 0))
                    of_prompt[epoch] = before[0] + right, before[1] + responses
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path}, step {len(steps) or 1}: is not the counts of a step ({error!r}): restore the file from a copy, "
            "or train again"
        ) from None
    return found, steps
