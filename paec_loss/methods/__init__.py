"""One file per method, under its name. `METHODS` finds them; `find` loads one by name or by import path."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import traceback

from paec_loss.hooks import HOOKS
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
        ValueError: the module cannot be imported, or has no such class, or it is not a Method.
        TypeError: the class is not what its author thinks: a misspelt hook, or none, or fields without @dataclass.
    """
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"method.class_path={path}: cannot be imported: give package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except TypeError as error:
        plain = "cannot inherit non-frozen dataclass from a frozen one" in str(error)
        text = "write @dataclass(frozen=True) above this class" if plain else str(error)
        raise TypeError(f"method.class_path={path}: {_place(error)}{text}") from None
    except Exception as error:  # whatever the module's own code raises
        raise ValueError(f"method.class_path={path}: cannot be imported {_why(error, module_name)}") from None
    if (found := getattr(module, class_name, None)) is None:
        close = difflib.get_close_matches(class_name, vars(module), n=1)
        hint = f"did you mean {module_name}.{close[0]}?" if close else "give package.module.Class"
        raise ValueError(f"method.class_path={path}: {module_name} has no {class_name}: {hint}")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"method.class_path={path}: must be a subclass of paec_loss.Method")
    check_own(found, f"method.class_path={path}")
    return found


def _place(error: Exception) -> str:
    """File and line where an import failed, for another class of the module may have; "" if none had begun."""
    frames = traceback.extract_tb(error.__traceback__)
    file = next((frame.filename for frame in reversed(frames) if frame.name == "<module>"), None)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{file}, line {lines[-1]}: " if lines else ""


def _why(error: Exception, module_name: str) -> str:
    """`(what an import raised, and where): the remedy`."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
        return f"({error}): write package.module.Class, and add the folder that holds the package to PYTHONPATH"
    if isinstance(error, SyntaxError):  # its text has the file's name alone
        code = (error.text or "").strip()
        return f"({error.filename}, line {error.lineno}: {error.msg}: {code!r}): correct the file"
    remedy = "install what it imports, or correct the import" if isinstance(error, ImportError) else "correct the file"
    return f"({_place(error)}{type(error).__name__}: {' '.join(str(error).split())}): {remedy}"


def check_own(kind: type[Method], where: str) -> None:
    """TypeError, which begins with `where`, for a user's class that would train with other fields, or as plain GRPO."""
    if kind in NAMES:
        return
    for one in kind.__mro__:
        fields = [name for name, of in inspect.get_annotations(one).items() if "ClassVar" not in str(of)]
        if fields and issubclass(one, Method) and "__dataclass_fields__" not in vars(one):
            raise TypeError(
                f"{where}: {one.__name__} has fields ({', '.join(fields)}): write "
                "@dataclass(frozen=True) above the class"
            )
    acting = [hook for hook in HOOKS if hook != "token_weights"]
    overrides = any(getattr(kind, hook) is not getattr(Method, hook) for hook in acting)
    if not overrides and "curriculum" not in kind.needs:
        raise TypeError(
            f"{where}: overrides no hook, so it would train plain GRPO: override one of "
            f"{', '.join(acting)} (docs/methods.md)"
        )
