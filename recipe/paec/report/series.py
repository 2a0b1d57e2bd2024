"""Metrics as columns over steps, and runs that differ only in their seed as one group: a mean between two bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recipe.paec.compare.evaluations import without_seed
from recipe.paec.compare.palette import places
from recipe.paec.report.responses import Responses, response_columns
from recipe.paec.report.runs import Run
from recipe.paec.report.settings import flat, is_place

STEP_TIME, STAGE = "timing_s/step", "timing_s/"
OUTSIDE = {"step", "testing"}
"""Timers that are not a part of a step: the step itself, and the validation after it."""
TIME, OTHER = "report/time/", "other"


@dataclass(frozen=True)
class Column:
    """One quantity over steps."""

    x: tuple[int, ...]
    """Steps at which it was recorded (in a group: by every run), ascending."""
    y: tuple[float | None, ...]
    """Values, in a group of several runs their mean; None where one is NaN or infinite."""
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    """Least and greatest value of the group's runs; None for one run."""


@dataclass(frozen=True)
class Group:
    """What is drawn in one colour: a run, or runs that differ only in their seed."""

    name: str
    runs: tuple[Run, ...]
    columns: Mapping[str, Column]
    place: int = 0
    """Of its colour and dashes, see `places`."""


def columns(records: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Metric -> its column, of one run."""
    found: dict[str, tuple[list[int], list[float | None]]] = {}
    for record in records:
        for key, value in record.items():
            if key != "step":
                x, y = found.setdefault(key, ([], []))
                x.append(record["step"])
                y.append(value)
    return {key: Column(tuple(x), tuple(y)) for key, (x, y) in found.items()}


def time_shares(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Of each record `report/time/<stage>`: the share of the step's time that each stage took.

    What no stage covers is `other`. A stage that only some steps have, such as a checkpoint, is 0 in the others; a
    record without the step's time has no shares.
    """
    shares = [_time_shares(record) for record in records]
    stages = list(dict.fromkeys(key for of_step in shares for key in of_step))
    return [{key: of_step.get(key, 0.0) for key in stages} if of_step else {} for of_step in shares]


def _time_shares(record: Mapping[str, Any]) -> dict[str, float]:
    total = record.get(STEP_TIME)
    if not total:
        return {}
    stages = {key.removeprefix(STAGE): value for key, value in record.items() if key.startswith(STAGE)}
    inside = {name: value for name, value in stages.items() if name not in OUTSIDE and "/" not in name and value}
    covered = sum(inside.values())
    # Stages that overlap (asynchronous trainers) are shares of their sum.
    whole = max(total, covered)
    return {f"{TIME}{name}": value / whole for name, value in {**inside, OTHER: whole - covered}.items()}


def merged(parts: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """The columns of several runs as means between bounds, at the steps that all of them recorded."""
    if len(parts) == 1:
        return dict(parts[0])
    result = {}
    for key in parts[0]:
        if not all(key in part for part in parts):
            continue
        values = [dict(zip(part[key].x, part[key].y, strict=True)) for part in parts]
        steps = sorted(set.intersection(*map(set, values)))
        if not steps:
            continue
        rows = [[of_run[step] for of_run in values] for step in steps]

        def over(function: Any, rows: list[list[float | None]] = rows) -> tuple[float | None, ...]:
            return tuple(None if None in row else function(row) for row in rows)

        result[key] = Column(tuple(steps), over(fmean), over(min), over(max))
    return result


def run_columns(run: Run, responses: Responses | None) -> dict[str, Column]:
    """All columns of a run: its metrics, and what is derived from its timers and rollouts."""
    shares = [{"step": r["step"], **s} for r, s in zip(run.records, time_shares(run.records), strict=True)]
    return {**columns(run.records), **columns(shares), **(columns(response_columns(responses)) if responses else {})}


def grouped(runs: Sequence[tuple[str | None, Run, Responses | None]]) -> list[Group]:
    """Runs, with the names given to them, in groups whose members differ only in their seed, in order.

    Runs are seeds of one method if they were given one name; without a name, if their recorded configurations differ
    in nothing but seed and place. Two runs of the same seed stay apart.
    """
    groups: list[list[tuple[str | None, Run, Responses | None]]] = []
    for name, run, responses in runs:
        for members in groups:
            other, first, _ = members[0]
            if (name and name == other) or (not name and not other and _same_but_seed(first, run, members)):
                members.append((name, run, responses))
                break
        else:
            groups.append([(name, run, responses)])
    labels = _distinct([members[0][0] or _label([run for _, run, _ in members]) for members in groups])
    # In the charts of one run, colours tell quantities apart.
    styles = places(labels, [members[0][1].method for members in groups]) if len(groups) > 1 else [0] * len(groups)
    return [
        Group(label, tuple(run for _, run, _ in members), merged([run_columns(run, r) for _, run, r in members]), place)
        for label, members, place in zip(labels, groups, styles, strict=True)
    ]


def _same_but_seed(first: Run, run: Run, members: Iterable[tuple[Any, Run, Any]]) -> bool:
    seeds = [member.setting("seed") for _, member, _ in members]
    seed = run.setting("seed")
    if seed is None or None in seeds or seed in seeds:
        return False

    def rest(of: Run) -> dict[str, Any]:
        entries = flat(of.config).items()
        return {k: v for k, v in entries if not is_place(k) and not k.endswith("seed")}

    return rest(first) == rest(run)


def _label(runs: Sequence[Run]) -> str:
    return without_seed(runs[0].name) if len(runs) > 1 else runs[0].name


def _distinct(labels: Sequence[str]) -> list[str]:
    """Labels of which no two are equal: the second of a name becomes `name (2)`."""
    found: list[str] = []
    for label in labels:
        number, new = 1, label
        while new in found:
            number += 1
            new = f"{label} ({number})"
        found.append(new)
    return found
