"""A method of one's own, in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def own_method(tmp_path, monkeypatch) -> Iterator[Callable[[float], Path]]:
    """own_method(0.2) writes my_method.Mine, which scales advantages, for a new import of it; returns its file."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name in ("my_method", "my_base"):
            sys.modules.pop(name, None)

    def write(factor: float) -> Path:
        forget()
        (folder / "my_base.py").write_text("from paec_loss import Method\n\n\nclass Base(Method):\n    pass\n")
        (folder / "my_method.py").write_text(
            "from my_base import Base\n\n\nclass Mine(Base):\n"
            "    def token_advantages(self, tokens, context, update):\n"
            f"        return {factor} * tokens.advantages\n"
        )
        return folder / "my_method.py"

    yield write
    forget()
