"""The sections with a dataclass against the types of its fields, without conversion.

OmegaConf converts where it merges: "no" to false, "5" to 5, 1.9 to 1. The configuration keeps what was given, and the
text "no" is true.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Container, Mapping
from dataclasses import is_dataclass, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig

from recipe.paec.config.values import FLAG, NUMBER, WHOLE, Rule, as_text, check_values, closest

KINDS = {
    bool: FLAG,
    int: WHOLE,
    float: NUMBER,
    str: Rule(lambda v: isinstance(v, str), "must be text", remedy=as_text),
}
"""Type of a field -> its allowed values."""
SEVERAL = {int: "integers", str: "texts"}
"""Type of the items of a list or table -> their name."""
IN_TABLES: dict[Any, Callable[[Any], bool]] = {
    int: WHOLE.accepts,
    str: lambda v: isinstance(v, str | int | float),  # as text: cluster.env.OMP_NUM_THREADS=2
    Any: lambda v: True,
}
"""Type of the items of a table -> whether it takes one."""


def check_types(config: DictConfig, schema: type, name: str = "", told: Container[str] = ()) -> list[str]:
    """One sentence for every value of another type, and for every key that is no field.

    Args:
        schema: a dataclass.
        name: the key of its section, "" for all of `config`.
        told: keys whose value is known to be wrong.
    """
    prefix = f"{name}." if name else ""
    rules = {key: rule for key, rule in rules_of(schema, prefix).items() if key not in told}
    return check_values(config, rules) + _unknown_keys(config[name] if name else config, schema, prefix)


def rules_of(schema: type, prefix: str = "") -> dict[str, Rule]:
    """Key -> allowed values, for the fields of a dataclass and of the dataclasses in it."""
    found: dict[str, Rule] = {}
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind):
            found |= rules_of(kind, f"{prefix}{name}.")
        elif kind is not Any:
            found[prefix + name] = _rule_of(kind)
    return found


def _rule_of(kind: Any) -> Rule:
    if get_origin(kind) in (Union, types.UnionType):
        (other,) = (_rule_of(option) for option in get_args(kind) if option is not type(None))
        return replace(other, accepts=lambda v: v is None or other.accepts(v), says=f"{other.says}, or null")
    if get_origin(kind) is list:
        (of,) = get_args(kind)
        return Rule(
            lambda v: isinstance(v, list | ListConfig) and all(map(KINDS[of].accepts, v)),
            f"must be a list of {SEVERAL[of]}",
            remedy=_in_brackets,
        )
    if get_origin(kind) is dict:
        _, of = get_args(kind)
        return Rule(
            lambda v: isinstance(v, Mapping | DictConfig) and all(map(IN_TABLES[of], v.values())),
            "must be a table" + (f" of {SEVERAL[of]}" if of in SEVERAL else ""),
        )
    return KINDS[kind]


def _in_brackets(key: str, value: Any, given: str) -> str:
    return f": write {key}=[{given}]" if isinstance(value, str | int | float) else ""


def _unknown_keys(section: Any, schema: type, prefix: str) -> list[str]:
    found, fields = [], get_type_hints(schema)
    for name in section if isinstance(section, Mapping | DictConfig) else ():
        if name not in fields:
            hint = closest(name, list(fields), ": did you mean {}?") or f": its keys are {', '.join(fields)}"
            found.append(f"{prefix}{name}: {prefix.removesuffix('.')} has no such key{hint}")
        elif is_dataclass(fields[name]):
            found += _unknown_keys(section[name], fields[name], f"{prefix}{name}.")
    return found
