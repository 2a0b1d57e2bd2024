"""One file per method, under its name. `METHODS` finds them; `find` loads one by name or by import path."""

from __future__ import annotations

import importlib
import pkgutil

from paec_loss.method import Method


def _method_of(module_name: str) -> type[Method]:
    """The one Method that a module of this package defines; ImportError if it defines none or several."""
    module = importlib.import_module(f"{__name__}.{module_name}")
    own = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ImportError(
            f"{module.__name__} must define exactly one Method, but it defines {[c.__name__ for c in own]}"
        )
    return own[0]


METHODS: dict[str, type[Method]] = {
    name: _method_of(name) for _, name, _ in pkgutil.iter_modules(__path__) if not name.startswith("_")
}
"""Name -> class of every method in this package."""

NAMES: dict[type[Method], str] = {config: name for name, config in METHODS.items()}
"""Class -> name."""


def find(path: str) -> type[Method]:
    """The class of a method by its import path, `package.module.Class`.

    Raises:
        ValueError: the module or class does not exist, or is not a Method.
    """
    module_name, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"method.target={path}: cannot be imported ({error}): give package.module.Class") from None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"method.target={path}: must be a subclass of paec_loss.Method")
    return found
