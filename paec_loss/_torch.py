"""torch, imported at first use: a method's fields are read and checked without it."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("torch"), name)
