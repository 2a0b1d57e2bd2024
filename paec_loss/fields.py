"""Fields of a method: default, meaning and range in one place, and one sentence for each bad value.

    @dataclass(frozen=True)
    class MyMethod(Method):
        alpha: float = non_negative(0.4, "weight of the entropy in the advantage")

`check_fields` uses them: it rejects values out of range and converts integers to float for float fields. A subclass
that gives a field another default, `alpha: float = 0.2`, keeps its meaning and range. The generated table of
docs/methods.md shows the same meanings. A number whose default is None may be None: its method decides what that is.

Other fields whose annotation is float, int, bool or str take values of that type.

A float field may be a schedule over trainer steps instead (`paec_loss.schedule`); all its values must be in the field's
range.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from typing import Any

from paec_loss.schedule import FORMS, Schedule, is_schedule, parsed

PLAIN: dict[str, tuple[Any, str]] = {
    "float": ((float, int), "a number"),
    "int": (int, "an integer"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
}
"""Annotation of a field that no function of this module made -> the types that it takes, in words too."""


def number(default: Any, meaning: str) -> Any:
    """Any finite number."""
    return _numeric(default, meaning, math.isfinite, "must be a finite number")


def positive(default: Any, meaning: str) -> Any:
    """A finite number > 0."""
    return _numeric(default, meaning, lambda v: 0 < v < math.inf, "must be > 0")


def non_negative(default: Any, meaning: str) -> Any:
    """A finite number >= 0."""
    return _numeric(default, meaning, lambda v: 0 <= v < math.inf, "must be >= 0")


def share(default: Any, meaning: str, remedy: str = "must be in (0, 1]") -> Any:
    """A number in (0, 1]; give `remedy` a fuller text if another field decides whether 1 is allowed."""
    return _numeric(default, meaning, lambda v: 0 < v <= 1, remedy)


def below_one(default: Any, meaning: str) -> Any:
    """A number in [0, 1)."""
    return _numeric(default, meaning, lambda v: 0 <= v < 1, "must be in [0, 1)")


def between(low: float, high: float, default: Any, meaning: str) -> Any:
    """A number in [low, high]; inf is one if `high` is inf."""
    return _numeric(default, meaning, lambda v: low <= v <= high, f"must be in [{low:g}, {high:g}]")


def whole(default: Any, meaning: str, at_least: int = 1) -> Any:
    """An integer >= `at_least`."""
    remedy = f"must be an integer >= {at_least}"
    return _field(default, meaning, accepts=lambda v: v >= at_least, remedy=remedy, kind=int)


def choice(options: Sequence[str], default: Any, meaning: str) -> Any:
    """One of `options`."""
    return _field(default, meaning, options=tuple(options), kind=str)


def words(default: Any, meaning: str) -> Any:
    """A list of non-empty strings, stored as a tuple."""
    return _field(default, meaning, remedy="must be a list of non-empty strings", kind=tuple)


def rules_of(config: Any) -> dict[str, Mapping[str, Any]]:
    """Meaning and range of each field of a dataclass (or an instance) that a function of this module made.

    The values are the fields' metadata; a field with another default in a subclass keeps that of its base class.
    """
    kind = config if isinstance(config, type) else type(config)
    bases = [base for base in kind.__mro__ if "__dataclass_fields__" in vars(base)]
    found = {f.name: f.metadata for base in reversed(bases) for f in fields(base) if "kind" in f.metadata}
    return {f.name: found[f.name] for f in fields(kind) if f.name in found}


def check_fields(config: Any) -> None:
    """Checks every field of a frozen dataclass, by its range or else by its annotation, and normalises its type.

    The text of a schedule is parsed, also in a field without annotation of PLAIN whose default is a number.

    Raises:
        ValueError: one sentence that names the field (as `method.<name>`), its value and the remedy.
    """
    ruled = rules_of(config)
    for name, rules in ruled.items():
        object.__setattr__(config, name, _checked(name, getattr(config, name), rules))
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name not in ruled and value is not f.default:
            annotation = f.type if isinstance(f.type, str) else getattr(f.type, "__name__", "")
            object.__setattr__(config, f.name, _plain(f.name, value, annotation, type(f.default) in (int, float)))


def check_choice(name: str, value: object, options: Sequence[str]) -> str:
    """`value` if it is one of `options`; otherwise ValueError with the closest one."""
    if isinstance(value, str) and value in options:
        return value
    close = difflib.get_close_matches(value, options, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"method.{name}={value!r}: must be one of {', '.join(options)}{hint}")


def check_number(name: str, value: object, accepts: Callable[[float], bool], remedy: str) -> float:
    """`value` as a float if it is a number that `accepts` allows (NaN never is); otherwise ValueError with `remedy`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"method.{name}={value!r}: must be a number, not {type(value).__name__}; it {remedy}")
    given = _float(name, value)
    if math.isnan(given) or not accepts(given):
        raise ValueError(f"method.{name}={value!r}: {remedy}")
    return given


def _float(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"method.{name}: too large for a float: give a smaller number") from None


def _numeric(default: Any, meaning: str, accepts: Callable[[float], bool], remedy: str) -> Any:
    return _field(default, meaning, accepts=accepts, remedy=remedy, kind=float, optional=default is None)


def _field(default: Any, meaning: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"meaning": meaning, **metadata})


def _checked(name: str, value: Any, rules: Any) -> Any:
    kind, meaning = rules["kind"], rules["meaning"]
    if value is None and rules.get("optional"):
        return None
    if kind is not float and is_schedule(value) and str(value).split(":")[0].strip() in FORMS:
        remedy = rules.get("remedy") or f"must be one of {', '.join(rules['options'])}"
        raise ValueError(f"method.{name}={value}: cannot follow a schedule: it {remedy}")
    if kind is float and is_schedule(value):
        return _in_range(name, _schedule(name, value), rules)
    if kind is str:
        return check_choice(name, value, rules["options"])
    if kind is float:
        return check_number(name, value, rules["accepts"], f"{rules['remedy']}; it is the {meaning}")
    if kind is tuple:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if not is_list or not all(isinstance(word, str) and word for word in value):
            raise ValueError(f"method.{name}={value!r}: {rules['remedy']}; it is the {meaning}")
        return tuple(value)
    if not isinstance(value, int) or isinstance(value, bool) or not rules["accepts"](value):
        raise ValueError(f"method.{name}={value!r}: {rules['remedy']}; it is the {meaning}")
    return value


def _plain(name: str, value: Any, annotation: str, has_number: bool) -> Any:
    """The value of a field that no function of this module made."""
    if is_schedule(value) and (annotation == "float" or (annotation not in PLAIN and has_number)):
        return _schedule(name, value)
    if annotation not in PLAIN:
        return value
    types, wanted = PLAIN[annotation]
    if not isinstance(value, types) or (isinstance(value, bool) and annotation != "bool"):
        raise ValueError(f"method.{name}={value!r}: must be {wanted}")
    return _float(name, value) if annotation == "float" else value


def _schedule(name: str, value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    try:
        return parsed(value)
    except ValueError as error:
        raise ValueError(f"method.{name}={value}: {error}") from None


def _in_range(name: str, schedule: Schedule, rules: Any) -> Schedule:
    """The schedule, if its first and last values are allowed; all others lie between them."""
    for value in (schedule.at(1), schedule.last):
        if not rules["accepts"](value):
            raise ValueError(f"method.{name}={schedule}: {value:g} {rules['remedy']}; it is the {rules['meaning']}")
    return schedule
