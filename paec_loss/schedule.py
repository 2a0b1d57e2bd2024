"""Numbers that change with the trainer step. Any field of a method that is a float may be one of these instead.

    EntropyBonus(coefficient=linear(0.01, 0.0, steps=200))
    EntropyBonus(coefficient="linear:0.01:0:200")            # the same, as on a command line

A value depends only on the step, so a resumed run has the same values.
"""

from __future__ import annotations

import difflib
import math
import sys
from typing import Any

FORMS = {
    "constant": "constant:VALUE",
    "linear": "linear:FROM:TO:STEPS",
    "cosine": "cosine:FROM:TO:STEPS",
    "warmup": "warmup:VALUE:STEPS",
}
"""Kind of schedule -> how it is written."""


class Schedule(float):
    """A number for every step; as a float, that of step 1. `Method.at` replaces schedules by a step's numbers.

    constant: `last`. linear: from `first` in step 1 evenly to `last` in step `steps` + 1, and `last` from then on.
    cosine: the same along half a cosine, slow at both ends. warmup: `last` * step / `steps`, and `last` from step
    `steps` on.
    """

    kind: str
    first: float
    last: float
    steps: int

    def __new__(cls, kind: str, first: float, last: float, steps: int) -> Schedule:
        schedule = super().__new__(cls, _value(kind, first, last, steps, 1))
        schedule.kind, schedule.first, schedule.last, schedule.steps = kind, first, last, steps
        return schedule

    def at(self, step: int) -> float:
        """The number in a trainer step, from 1."""
        return _value(self.kind, self.first, self.last, self.steps, step)

    @property
    def text(self) -> str:
        """As a command line writes it; equal schedules have equal texts."""
        numbers = [f"{number!r}" for number in (self.first, self.last)]
        if self.kind in ("constant", "warmup"):
            del numbers[0]
        return ":".join([self.kind, *numbers, *([] if self.kind == "constant" else [str(self.steps)])])

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.text == other.text

    def __ne__(self, other: object) -> bool:  # float has one of its own
        return not self == other

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule, (self.kind, self.first, self.last, self.steps)


def constant(value: float) -> Schedule:
    """`value` in every step."""
    return _made("constant", value, value, 1)


def linear(first: float, last: float, steps: int) -> Schedule:
    """From `first` in step 1 evenly to `last` after `steps` steps."""
    return _made("linear", first, last, steps)


def cosine(first: float, last: float, steps: int) -> Schedule:
    """From `first` in step 1 to `last` after `steps` steps, along half a cosine."""
    return _made("cosine", first, last, steps)


def warmup(value: float, steps: int) -> Schedule:
    """value / steps in step 1, then evenly up to `value` in step `steps`."""
    return _made("warmup", 0.0, value, steps)


def is_schedule(value: object) -> bool:
    """Whether a field's value is a schedule, or a text that looks like one: a word, a colon, and more.

    Blanks around the word do not count, as in `parsed`.
    """
    return isinstance(value, Schedule) or (
        isinstance(value, str) and ":" in value and value.split(":")[0].strip().isidentifier()
    )


def parsed(text: str) -> Schedule:
    """The schedule that a text of FORMS means.

    Raises:
        ValueError: an unknown kind, a wrong number of parts, or a part that is not a number in its range.
    """
    kind, *parts = (part.strip() for part in text.split(":"))
    if kind not in FORMS:
        close = difflib.get_close_matches(kind, FORMS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"there is no schedule {kind}: write {_any_of(list(FORMS.values()))}{hint}")
    names = FORMS[kind].split(":")[1:]
    if len(parts) != len(names):
        raise ValueError(f"must be written {FORMS[kind]}")
    numbers: dict[str, float | int] = {}
    for name, part in zip(names, parts, strict=True):
        try:
            numbers[name] = int(part) if name == "STEPS" else float(part)
        except ValueError:
            what = "an integer >= 1" if name == "STEPS" else "a number"
            raise ValueError(f"{name} in {FORMS[kind]} must be {what}, and is {part or 'empty'}") from None
    value = numbers.get("VALUE", 0.0)
    first = {"constant": value, "warmup": 0.0}.get(kind, numbers.get("FROM", 0.0))
    return _made(kind, first, numbers.get("TO", value), numbers.get("STEPS", 1))


def _made(kind: str, first: float, last: float, steps: Any) -> Schedule:
    """The schedule, if its numbers are finite and it has at least one step."""
    if not (isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1):
        raise ValueError(f"STEPS in {FORMS[kind]} must be an integer >= 1, and is {steps!r}")
    for number in (first, last):
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= sys.float_info.max:
            raise ValueError(f"{FORMS[kind]}: {number!r} is not a finite number")
    return Schedule(kind, float(first), float(last), steps)


def _value(kind: str, first: float, last: float, steps: int, step: int) -> float:
    if kind == "warmup":
        return last * min(max(step, 0) / steps, 1.0)
    share = min(max(step - 1, 0) / steps, 1.0)
    if kind == "constant" or share == 1:
        return last  # exactly, without rounding
    if kind == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return first + (last - first) * share


def _any_of(forms: list[str]) -> str:
    return f"{', '.join(forms[:-1])} or {forms[-1]}"
