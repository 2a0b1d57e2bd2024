"""Shared by all tests: one thread each, and configurations composed as the command line does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import quick_composition
import torch

from recipe.paec.common import versions
from recipe.paec.config import resolve

if TYPE_CHECKING:
    from recipe.lab.settings import Settings
    from recipe.lab.task import Task

SMALL = ("prompts=4", "mini_batch=2", "responses=4", "steps=2", "test_every=-1", "save_every=1")
"""Overrides of a laboratory run that takes seconds."""

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests in the background: what they start must know Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if versions.stack() == "gpu":
        skip = pytest.mark.skip(reason="is about the CPU stack, and the GPU stack is installed")
        for item in items:
            if item.get_closest_marker("cpu_stack"):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def equal_choices_are_composed_once() -> Iterator[None]:
    with quick_composition.composing_once():
        yield


@pytest.fixture(scope="session")
def compose():
    """compose("method.rho=0.7", ...) -> the resolved configuration of that command line."""

    return lambda *overrides: resolve.resolved(resolve.composed(*overrides))


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory) -> Path:
    """An untrained tiny model and a small countdown data set, laid out like the quick start's."""
    from data_prep import countdown, tiny_model

    folder = tmp_path_factory.mktemp("tiny_files")
    tiny_model.build(folder / "model")
    countdown.write(folder / "data", train=64, validation=16)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """An empty folder for the quick start's data and model, which the first launch makes."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def small() -> Callable[..., Settings]:
    """small("method=siren", ...) -> a laboratory run of two steps, four prompts; the last value of a key counts."""
    from recipe.lab.settings import settings_of

    return lambda *overrides: settings_of([*{o.partition("=")[0]: o for o in (*SMALL, *overrides)}.values()])


@pytest.fixture(scope="session")
def task(small) -> Task:
    """The laboratory's data and tokenizer, which are the quick start's."""
    from recipe.lab.task import Task

    return Task(small().task, positions=512, length=32)
