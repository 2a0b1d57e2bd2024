"""What the recorded rollouts say: how often responses to one prompt differ, and examples to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from recipe.paec.common.queue_keys import prompt_of

BUDGET = 64 << 20
"""Bytes of rollouts that are read for a report; of more, evenly spaced steps."""
EXAMPLE_STEPS, EXAMPLES, LONGEST = 5, 8, 4000
"""Steps from which examples are shown, examples of each step, characters of a text."""
PREFIX = "report/responses/"


@dataclass(frozen=True)
class Responses:
    """The rollouts of a run that were read."""

    statistics: Mapping[int, Mapping[str, float]]
    """Step -> quantity -> value."""
    examples: Mapping[int, tuple[Mapping[str, Any], ...]]
    """Step -> {input, output, score} of some responses, texts cut to LONGEST characters."""
    remarks: tuple[str, ...]


def response_columns(responses: Responses) -> list[dict[str, Any]]:
    """The statistics as records, `report/responses/<quantity>`."""
    return [
        {"step": step, **{PREFIX + name: value for name, value in found.items()}}
        for step, found in sorted(responses.statistics.items())
    ]


def read_responses(folder: Path, last_step: int | None) -> Responses | None:
    """The rollouts below a run's directory up to its last recorded step; None without any."""
    files = {int(path.stem): path for path in (folder / "rollouts").glob("*.jsonl") if path.stem.isdecimal()}
    steps = sorted(step for step in files if last_step is not None and step <= last_step)
    if not steps:
        return None
    sizes = [files[step].stat().st_size for step in steps]
    stride = max(1, -(-sum(sizes) // BUDGET))
    chosen = steps[::stride]
    remarks = []
    if stride > 1:
        remarks.append(
            f"rollouts/ holds {sum(sizes) >> 20} MiB, so only the responses of every {stride}th step are read"
        )
    statistics, examples, bad = {}, {}, 0
    shown = {chosen[i * (len(chosen) - 1) // max(EXAMPLE_STEPS - 1, 1)] for i in range(EXAMPLE_STEPS)}
    for step in chosen:
        rows = []
        for row in _rows(files[step]):
            if row is None:
                bad += 1
            else:
                rows.append(row)
        if rows:
            statistics[step] = statistics_of(rows)
            if step in shown:
                examples[step] = tuple(_cut(row) for row in _examples(rows))
    if bad:
        remarks.append(f"{bad} line(s) of the rollouts are not a response, and were left out")
    return Responses(statistics, examples, tuple(remarks))


def _rows(path: Path) -> Iterator[dict[str, Any] | None]:
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                row = json.loads(line)
                texts = isinstance(row["input"], str) and isinstance(row["output"], str)
                yield row if texts and isinstance(row["score"], int | float) else None
            except (ValueError, KeyError, TypeError, RecursionError):
                yield None


def statistics_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the responses of one step.

    Returns:
        mixed: share of the prompts whose responses do not all have the same score (the others have no group-relative
        advantage); distinct: different texts among the responses to a prompt, as a share of their number, mean over
        prompts; length_right and length_wrong: mean characters of responses of score 1, and of all others. The first
        two only if some prompt has several responses, the last two only if there are such responses.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        uid = row.get("uid")
        groups.setdefault(prompt_of(uid) if isinstance(uid, str) else row["input"], []).append(row)
    several = [group for group in groups.values() if len(group) > 1]
    found = {}
    if several:
        found["mixed"] = fmean(len({row["score"] for row in group}) > 1 for group in several)
        found["distinct"] = fmean(len({row["output"] for row in group}) / len(group) for group in several)
    for name, right in (("length_right", True), ("length_wrong", False)):
        lengths = [len(row["output"]) for row in rows if (row["score"] == 1) == right]
        if lengths:
            found[name] = fmean(lengths)
    return found


def _examples(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Right and wrong ones in turn, as far as there are both, each of another prompt where possible."""
    right, wrong = ([row for row in rows if (row["score"] == 1) == good] for good in (True, False))
    turns: list[dict[str, Any]] = []
    for i in range(max(len(right), len(wrong))):
        turns += right[i : i + 1] + wrong[i : i + 1]
    first, seen = [], set()
    for row in turns:
        if row["input"] not in seen:
            seen.add(row["input"])
            first.append(row)
    return (first + [row for row in turns if not any(row is other for other in first)])[:EXAMPLES]


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    def cut(text: str) -> str:
        return text if len(text) <= LONGEST else text[:LONGEST] + f"\n[{len(text) - LONGEST} more characters]"

    return {"input": cut(row["input"]), "output": cut(row["output"]), "score": row["score"]}
