"""The doctor's checks of the environment: versions, plugins, GPUs, attention."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

from omegaconf import DictConfig

from recipe.paec.common import versions
from recipe.paec.common.gpus import gpu_count
from recipe.paec.common.repository import OF_CHECKOUT
from recipe.paec.config import attention
from recipe.paec.config.attention import FLASH, PACKED, REMEDY, name_of
from recipe.paec.doctor.report import Check


def check_installed(config: DictConfig) -> Check:
    """The attention of a GPU run, and whether it is installed."""
    name, there = name_of(config), attention.has_flash_attn()
    if name != FLASH or there:
        absent = f", because flash-attn is not installed ({REMEDY})" if name == PACKED and not there else ""
        return Check("attention", f"{name}{absent}")
    problem = (
        f"attn_implementation={FLASH} needs flash-attn, which is not installed: {REMEDY}, or set "
        f"cluster.attention=auto, which uses {PACKED} without it"
    )
    return Check("attention", f"{name}, which is not installed", (problem,))


def compiler(config: DictConfig) -> Check:
    """What Triton needs on a node of GPUs: it compiles a launcher in C at its first kernel, which is in the middle of
    a run (triton/runtime/build.py)."""
    chosen = config.cluster.env.get("CC", os.environ.get("CC"))
    found = shutil.which(chosen) if chosen else shutil.which("gcc") or shutil.which("clang")
    header, errors = Path(sysconfig.get_paths()["include"]) / "Python.h", []
    if found is None:
        wanted = f"CC={chosen}, which is not there" if chosen else "neither gcc nor clang is there"
        errors.append(f"Triton needs a C compiler, and {wanted}: install gcc, or set +cluster.env.CC=COMPILER")
    if not header.is_file():
        errors.append(
            f"Triton needs {header}, which is not there: install Python's headers (Debian: python3-dev), or use a "
            "Python that has them (uv, conda, pyenv)"
        )
    return Check("compiler", "missing" if errors else found, tuple(errors))


PLUGIN_GROUPS, PLUGIN_NAME = ("verl.plugins", "vllm.general_plugins"), "paec"
"""Entry-point groups in which this package must be found, and its name there."""


def check_versions() -> list[str]:
    """verl and vLLM against the pin, and the plugin's entry point."""
    errors = versions.pin_errors()
    for group in PLUGIN_GROUPS:
        if PLUGIN_NAME not in {point.name for point in entry_points(group=group)}:
            errors.append(
                f"the plugin {PLUGIN_NAME!r} is not installed (entry-point group {group}): "
                f"run launch/setup_env.sh {versions.stack()}{OF_CHECKOUT}, which installs this package"
            )
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and PLUGIN_NAME not in {name.strip() for name in policy.split(",")}:
        errors.append(
            f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading the plugin {PLUGIN_NAME!r}: unset it"
        )
    return errors


def check_cluster(config: DictConfig) -> list[str]:
    """vLLM's plugins, and GPUs of this node against `cluster.gpus_per_node`."""
    plugins = config.cluster.env.get("VLLM_PLUGINS", os.environ.get("VLLM_PLUGINS"))
    if plugins is not None and PLUGIN_NAME not in plugins.split(","):
        return [
            f"VLLM_PLUGINS={plugins} keeps vLLM from loading the plugin {PLUGIN_NAME!r}, through which it receives the "
            f"weights: add {PLUGIN_NAME} to VLLM_PLUGINS, or unset it"
        ]
    if config.cluster.platform == "cpu":
        if versions.stack() != "cpu":
            return [f"cluster=cpu needs the CPU build of vLLM: run launch/setup_env.sh cpu{OF_CHECKOUT}"]
        return []
    if config.cluster.platform != "cuda":
        return [f"cluster.platform={config.cluster.platform}: must be one of cuda, cpu"]
    errors = []
    if versions.stack() == "cpu":
        errors.append(
            "this environment has the CPU stack: create one for GPUs with VENV=.venv-gpu bash launch/setup_env.sh "
            f"gpu{OF_CHECKOUT}, and use it with VENV=.venv-gpu"
        )
    if config.cluster.ray_address is not None or config.cluster.nodes > 1:
        return errors  # the workers run on other nodes
    found, wanted = gpu_count(), config.cluster.gpus_per_node
    also = config.cluster.rollout_nodes * config.cluster.rollout_gpus_per_node
    if found < wanted + also:
        rollout = f" and {also} for rollout" if also else ""
        errors.append(
            f"GPUs: {found} found on this node, but cluster.gpus_per_node={wanted}{rollout}: start this on a "
            "node that has them, or lower cluster.gpus_per_node"
        )
    return errors
