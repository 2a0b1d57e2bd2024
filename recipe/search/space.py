"""The settings of a method that a search may try: the values of its knobs, each of which the method itself accepts."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from paec_loss import MethodStack
from recipe.paec.common.errors import UserError

Value = None | bool | int | float | str
Params = dict[str, Value]
"""Field of a method -> its value in one setting."""
RANGE_KEYS = ("low", "high", "log", "int")
SPECIAL = "\"' \t\n,:=[]{}()$\\"
"""Characters that text in an override would need quotes for."""


@dataclass(frozen=True)
class Choices:
    """The values of a list."""

    values: tuple[Value, ...]

    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def count(self) -> float:
        """How many there are."""
        return len(self.values)

    def holds(self, value: Value) -> bool:
        """Whether it has this value."""
        return value in self.values

    def written(self) -> list[Value]:
        """As in the file of a search."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """The numbers in [low, high]."""

    low: float
    high: float
    log: bool
    """Whether the logarithm is drawn uniformly, instead of the number."""
    whole: bool
    """Whether only integers are drawn."""

    def ends(self) -> tuple[Value, ...]:
        """Its first and its last number; all others are between them."""
        return self.low, self.high

    def count(self) -> float:
        """How many numbers there are, inf for all real ones."""
        return self.high - self.low + 1 if self.whole else math.inf

    def holds(self, value: Value) -> bool:
        """Whether it has this value."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))

    def written(self) -> dict[str, Value]:
        """As in the file of a search."""
        return {"low": self.low, "high": self.high, "log": self.log, "int": self.whole}


Knob = Choices | Range


def knob_of(place: str, written: Any) -> Knob:
    """The knob that a file describes.

    Args:
        place: its name in errors, such as methods.paec.rho_min.
        written: a list of values, or {low, high} with log and int.

    Raises:
        UserError: it is neither, or its numbers contradict each other.
    """
    if isinstance(written, Mapping):
        return _range(place, written)
    if not isinstance(written, Sequence) or isinstance(written, str):
        raise UserError(f"{place}={written}: must be a list of values, or a range {{low: 0.1, high: 1}}")
    if not written:
        raise UserError(f"{place}: the list is empty: name the values to try, or leave the field out")
    for value in written:
        if not isinstance(value, Value):
            raise UserError(f"{place}: {value} cannot be tried: a value is a number, text, true, false or null")
        if isinstance(value, str) and (not value or set(value) & set(SPECIAL)):
            raise UserError(
                f"{place}: {value!r} cannot be tried: text must not have spaces, quotes, brackets or any of ,:="
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{place}: {value} cannot be tried: a number must be finite")
    if twice := [value for value in written if list(written).count(value) > 1]:
        raise UserError(f"{place}: {plain(twice[0])} occurs twice: leave one out")
    return Choices(tuple(written))


def _range(place: str, written: Mapping[str, Any]) -> Range:
    if (unknown := next((key for key in written if key not in RANGE_KEYS), None)) is not None:
        raise UserError(f"{place}.{unknown}: a range has only low, high, log and int")
    for key in ("low", "high"):
        value = written.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{place}.{key}={value}: must be a number: a range is {{low: 0.1, high: 1}}")
    flags = {key: written.get(key, False) for key in ("log", "int")}
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{place}.{key}={value}: must be true or false")
    low, high = written["low"], written["high"]
    if flags["int"]:
        for key, value in (("low", low), ("high", high)):
            if value != int(value):
                raise UserError(f"{place}.{key}={value}: must be an integer, or leave int: true out")
    if low >= high:
        raise UserError(f"{place}: low={low} must be below high={high}")
    if flags["log"] and low <= 0:
        raise UserError(f"{place}.low={low}: must be > 0 with log: true, or leave log out")
    kind = int if flags["int"] else float
    return Range(kind(low), kind(high), log=flags["log"], whole=flags["int"])


@dataclass(frozen=True)
class Space:
    """The settings of one method."""

    method: str
    default: Params
    """Its value of each knob if nothing is set."""
    knobs: Mapping[str, Knob]

    def count(self) -> float:
        """How many settings there are, the default among them; inf for a range of real numbers."""
        return math.prod(knob.count() for knob in self.knobs.values())

    def grid(self) -> list[Params]:
        """All settings, the default first; the last knob varies fastest. Only for lists."""
        found = _product({name: knob.ends() for name, knob in self.knobs.items()})
        return [self.default, *(params for params in found if params != self.default)]

    def written(self) -> dict[str, Any]:
        """Knobs and defaults as plain values."""
        return {name: {"values": knob.written(), "default": self.default[name]} for name, knob in self.knobs.items()}


def space_of(name: str, knobs: Mapping[str, Knob], stack: MethodStack) -> Space:
    """The settings of a method, all of which it accepts; a list that lacks the default gets it as its first value.

    For a range its ends are tried, in every combination with the ends and values of the other knobs.

    Args:
        name: of the method in the file of the search.
        knobs: field -> values.
        stack: the methods of a run with nothing set; the first is the one that is searched.

    Raises:
        UserError: one sentence for each field that the method does not have, and value that it does not accept.
    """
    method = stack.methods[0]
    known = [f.name for f in fields(method)]
    errors = [f"methods.{name}.{field}: {_no_field(name, field, known)}" for field in knobs if field not in known]
    if errors:
        raise UserError(*errors)
    accepted: dict[str, Knob] = {}
    for field, knob in knobs.items():
        found = []
        for value in knob.ends():
            try:
                found.append(getattr(replace(method, **{field: value}), field))
            except (ValueError, TypeError) as error:
                errors.append(f"methods.{name}: {error}")
        default = getattr(method, field)
        if not isinstance(default, Value):
            errors.append(f"methods.{name}.{field}: cannot be searched: its default is {default}, not a single value")
        elif isinstance(knob, Range) and not knob.holds(default):
            errors.append(
                f"methods.{name}.{field}: its default {default} is not in the range from {knob.low:g} to "
                f"{knob.high:g}, and the default is always the first trial: widen the range, or list the values"
            )
        elif isinstance(knob, Choices):
            knob = Choices(tuple(found) if default in found else (default, *found))
        accepted[field] = knob
    if errors:
        raise UserError(*dict.fromkeys(errors))
    for params in _product({field: knob.ends() for field, knob in accepted.items()}):
        try:
            MethodStack([replace(method, **params), *stack.methods[1:]])
        except (ValueError, TypeError) as error:
            errors.append(f"methods.{name}: {text_of(params)}: {error}")
    if errors:
        raise UserError(errors[0])
    return Space(name, {field: getattr(method, field) for field in knobs}, accepted)


def _no_field(name: str, field: str, known: Sequence[str]) -> str:
    if not known:
        return f"{name} has no fields: write {name}: {{}}"
    close = difflib.get_close_matches(field, known, n=1)
    return f"{name} has no such field{f': did you mean {close[0]}?' if close else ''} (its fields: {', '.join(known)})"


def _product(values: Mapping[str, Sequence[Value]]) -> list[Params]:
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def text_of(params: Params) -> str:
    """`rho_min=0.7, top_p=0.9`; "no knob" for a method without one."""
    return ", ".join(f"{field}={plain(value)}" for field, value in params.items()) or "no knob"


def plain(value: Value) -> str:
    """A value as an override has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else repr(value)


def overrides_of(params: Params) -> list[str]:
    """The overrides of a setting: method.rho_min=0.7."""
    return [f"method.{field}={plain(value)}" for field, value in params.items()]
