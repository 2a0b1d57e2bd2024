"""The methods that a configuration names: its `method`, and the additional ones (`also`)."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from omegaconf import DictConfig, OmegaConf

from paec_loss import Method, MethodStack
from paec_loss.methods import find
from recipe.paec.config.schema import RENAMED_FIELDS
from recipe.paec.config.values import closest


def method_nodes(config: DictConfig) -> list[dict[str, Any]]:
    """`{"_target_": import path, field: value, ...}` of each method, the run's first.

    `method=custom` has the import path twice, also as `class_path`, which is not a field.
    """
    sections = [config.method, *config.also.values()]
    nodes = []
    for section in sections:
        node = OmegaConf.to_container(section, resolve=True)
        custom = "class_path" in node and node["class_path"] == node["_target_"]
        nodes.append({name: value for name, value in node.items() if not (custom and name == "class_path")})
    return nodes


def stack_of(config: DictConfig) -> MethodStack:
    """The methods as one.

    Raises:
        ValueError, TypeError: one sentence on a method that cannot be found, a field, or a combination.
    """
    return MethodStack([_made(node) for node in method_nodes(config)])


def _made(node: dict[str, Any]) -> Method:
    fields = {name: value for name, value in node.items() if name != "_target_"}
    if not isinstance(node["_target_"], str) or not node["_target_"]:
        if isinstance(former := fields.get("target"), str):
            raise ValueError(f"method.target={former}: write method.class_path={former}, or method={former} alone")
        path = "null" if node["_target_"] is None else node["_target_"]
        raise ValueError(
            f"method.class_path={path}: method=custom needs the import path of your class, package.module.Class"
        )
    kind = find(node["_target_"])
    own = {f.name: f for f in dataclasses.fields(kind) if f.init}
    for name, value in fields.items():
        if name not in own:
            if (new := RENAMED_FIELDS.get(name)) in own:
                raise TypeError(f"method.{name}={value}: this field is now called method.{new}")
            if (hint := _of_init(kind, name) or _without_type(kind, name)) is not None:
                raise TypeError(f"method.{name}={value}: {hint}")
            hint = closest(name, list(own), ": did you mean {}? Its") or "; its"
            listed = f"{hint} fields are {', '.join(own)}" if own else ", nor any other"
            raise TypeError(f"method.{name}={value}: {kind.__name__} has no field {name}{listed}")
    for name, f in own.items():
        if name not in fields and f.default is f.default_factory is dataclasses.MISSING:
            raise TypeError(f"method.{name}: {kind.__name__} has no default for it: add method.{name}=...")
    return kind(**fields)


def _of_init(kind: type[Method], name: str) -> str | None:
    """What to say of a parameter of a class's own `__init__`, where the class has no such field; None if it is none."""
    parameter = inspect.signature(kind).parameters.get(name)
    if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    default = "0.1" if parameter.default is parameter.empty else repr(parameter.default)
    return (
        f"{name} is a parameter of the __init__ of {kind.__name__}, and no field: write @dataclass(frozen=True) above "
        f"the class and {name}: float = {default} in it, in place of the __init__"
    )


def _without_type(kind: type[Method], name: str) -> str | None:
    """What to say of a user's attribute without type annotation, which is not a field; None for anything else."""
    default = inspect.getattr_static(kind, name, None)
    if hasattr(Method, name) or default is None or callable(default) or isinstance(default, property):
        return None
    plain = type(default) in (bool, int, float, str)
    line = f"{name}: {type(default).__name__} = {default!r}" if plain else f"{name}: float = ..."
    return f"{name} of {kind.__name__} has no type, so it is not a field: write {line} in the class"
