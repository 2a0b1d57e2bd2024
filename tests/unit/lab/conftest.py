"""A small run of the laboratory: the quick start's policy, few prompts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recipe.lab.settings import Settings, settings_of
from recipe.lab.task import Task

SMALL = ("prompts=4", "mini_batch=2", "responses=4", "steps=2", "test_every=-1", "save_every=1")


@pytest.fixture(scope="session")
def small() -> Callable[..., Settings]:
    """small("method=siren", ...) -> settings of a run of two steps with four prompts."""
    return lambda *overrides: settings_of([*SMALL, *overrides])


@pytest.fixture(scope="session")
def task(small) -> Task:
    """The quick start's data and tokenizer."""
    return Task(small().task, positions=512, length=32)
