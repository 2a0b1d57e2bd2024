"""Which version of a method's own file a run was trained with: hashes of what is not in paec_loss."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from paec_loss import MethodStack


def hashes_of(stack: MethodStack) -> dict[str, str]:
    """Module -> SHA-256 of its file, for the classes of the methods, and their bases, that are not in paec_loss."""
    classes = {kind for method in stack.methods for kind in type(method).__mro__}
    modules = {kind.__module__ for kind in classes}
    own = [name for name in sorted(modules) if name.split(".")[0] not in (*sys.stdlib_module_names, "paec_loss")]
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name in own if (file := _file_of(name)).is_file()}


def changed(recorded: Mapping[str, str], now: Mapping[str, str]) -> Path | None:
    """The file of the first module whose two hashes differ; None if there is none."""
    different = (name for name, value in now.items() if recorded.get(name, value) != value)
    return next(map(_file_of, different), None)


def _file_of(module: str) -> Path:
    return Path(getattr(sys.modules[module], "__file__", None) or "")
