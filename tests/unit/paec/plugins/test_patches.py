"""A name that verl no longer has is an error at once."""

from __future__ import annotations

from types import ModuleType

import pytest

from recipe.paec.common import versions
from recipe.paec.plugins import patches


def test_a_name_is_replaced_by_what_is_made_of_it():
    module = ModuleType("verl.some_module")
    module.double = lambda x: 2 * x
    patches._replace(module, "double", lambda original: lambda x: original(x) + 1)
    assert module.double(3) == 7


def test_a_name_that_is_gone_is_named_with_the_version_it_was_written_for():
    module = ModuleType("verl.some_module")
    expected = f"verl.some_module.double does not exist: .*patches.py was written for verl {versions.pinned('verl')}$"
    with pytest.raises(AttributeError, match=expected):
        patches._replace(module, "double", lambda original: original)
    assert not hasattr(module, "double")


def test_cpu_offload_without_pinned_memory():
    made = patches._without_pinning(lambda pin_memory: ("policy", pin_memory))
    assert made == ("policy", False) == patches._without_pinning(lambda pin_memory: ("policy", pin_memory), True)
