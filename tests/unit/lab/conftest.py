"""A small run of the laboratory: the quick start's policy, few prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recipe.lab.settings import Settings, settings_of
from recipe.lab.task import Task

SMALL = ("prompts=4", "mini_batch=2", "responses=4", "steps=2", "test_every=-1", "save_every=1")


@pytest.fixture(scope="session")
def small() -> Callable[..., Settings]:
    """small("method=siren", ...) -> a run of two steps with four prompts; the last value of a key counts."""
    return lambda *overrides: settings_of([*{o.partition("=")[0]: o for o in (*SMALL, *overrides)}.values()])


@pytest.fixture(scope="session")
def task(small) -> Task:
    """The quick start's data and tokenizer."""
    return Task(small().task, positions=512, length=32)


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
