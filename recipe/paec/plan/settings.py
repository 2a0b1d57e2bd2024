"""The settings of a run that decide its memory."""

from __future__ import annotations

import json
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.config import attention

DTYPES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
"""Bytes of an element, by the names that verl and vLLM use."""
MODELLED = {
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.actor.fsdp_config.reshard_after_forward": True,
    "actor_rollout_ref.actor.fsdp_config.use_no_sync_for_gradient_accumulation": False,
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.use_fused_kernels": False,
    "actor_rollout_ref.model.enable_activation_offload": False,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.rollout.quantization": None,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "trainer.v1.trainer_mode": "paec_sync",
}
"""Settings that the formulas assume; with other values nothing is printed, because it would be wrong."""


@dataclass(frozen=True)
class Setup:
    """The settings that determine memory."""

    nodes: int
    gpus_per_node: int
    shards: int
    """GPUs that share one copy of parameters, gradients and optimizer states."""
    tensor_parallel: int
    sequence_parallel: int
    tokens: int
    """Tokens of a micro-batch on one GPU, its Ulysses share."""
    head_rows: int | None
    """Rows whose logits exist at the same time with the fused head; None: all."""
    dense_mask: bool
    """Attention is sdpa, which takes packed sequences with a mask [T, T]."""
    checkpointing: bool
    """Gradient checkpointing: only the input of each layer is kept."""
    parameter_bytes: int
    """Bytes of an element of the sharded parameters, gradients and Adam moments."""
    compute_bytes: int
    """Bytes of an element of gathered parameters, activations and logits."""
    reduce_bytes: int
    """Bytes of an element of the gradients while ranks sum them."""
    param_offload: bool
    """verl moves the parameters to the host between updates."""
    optimizer_offload: bool
    """verl moves the optimizer states to the host between updates."""
    cpu_policy: bool
    """FSDP2 keeps parameters, gradients and optimizer permanently on the host (offload_policy)."""
    reference: bool
    """There is a reference policy; verl keeps its parameters permanently on the host."""
    rollout_bytes: int
    """Bytes of an element of vLLM's weights, activations and KV cache."""
    memory_fraction: float
    """vLLM's share of the GPU (gpu_memory_utilization)."""
    sleeps: bool
    """vLLM frees weights and KV cache during updates (free_cache_engine)."""
    graphs: bool
    """vLLM captures CUDA graphs."""
    batched_tokens: int
    sequences: int
    """vLLM's max_num_batched_tokens and max_num_seqs."""
    max_model_len: int
    length: int
    """Longest prompt + response, tokens."""
    bucket: int
    """Bytes of the weight sync's bucket."""


def chunk_size() -> int:
    """Rows whose logits exist at the same time with fused_head, if head_chunk_size is not given."""
    from paec_loss.linear import CHUNK_SIZE  # imports torch

    return CHUNK_SIZE


def has_reference(config: DictConfig) -> bool:
    """Whether the run has a reference policy (FSDP2: its parameters are on the host, sharded)."""
    return bool(config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward)


def read_setup(config: DictConfig) -> Setup:
    """The Setup of a resolved configuration; UserError for settings that the formulas do not cover."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    errors = [
        f"{key}={OmegaConf.select(config, key)}: the plan only covers {key}={json.dumps(value)}"
        for key, value in MODELLED.items()
        if OmegaConf.select(config, key) != value
    ]
    if rollout.log_prob_max_token_len_per_gpu > actor.ppo_max_token_len_per_gpu:
        errors.append(
            "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu is more than the actor's "
            "ppo_max_token_len_per_gpu: the plan only covers log-prob passes that are no larger than the update"
        )
    if config.cluster.platform != "cuda":
        errors.append("the plan estimates GPU memory: add cluster=gpu_1x1, cluster=gpu_1x8 or cluster=gpu_4x8")
    fsdp, cluster = actor.fsdp_config, config.cluster
    names = {
        "fsdp_config.model_dtype": fsdp.model_dtype,
        **{f"fsdp_config.mixed_precision.{k}": fsdp.mixed_precision[k] for k in ("param_dtype", "reduce_dtype")},
        "rollout.dtype": rollout.dtype,
    }
    errors += [f"{key}={name}: must be one of {', '.join(DTYPES)}" for key, name in names.items() if name not in DTYPES]
    if errors:
        raise UserError(*errors)
    parameter_bytes, compute_bytes, reduce_bytes, rollout_bytes = (DTYPES[name] for name in names.values())
    gpus = cluster.nodes * cluster.gpus_per_node
    length = config.data.max_prompt_length + config.data.max_response_length
    return Setup(
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        shards=fsdp.fsdp_size if 0 < fsdp.fsdp_size < gpus else gpus,
        tensor_parallel=cluster.tensor_parallel,
        sequence_parallel=cluster.sequence_parallel,
        tokens=actor.ppo_max_token_len_per_gpu,
        head_rows=(fsdp.head_chunk_size or chunk_size()) if fsdp.fused_head else None,
        dense_mask=attention.name_of(config) == attention.SDPA,
        checkpointing=config.actor_rollout_ref.model.enable_gradient_checkpointing,
        parameter_bytes=parameter_bytes,
        compute_bytes=compute_bytes,
        reduce_bytes=reduce_bytes,
        param_offload=fsdp.param_offload,
        optimizer_offload=fsdp.optimizer_offload,
        cpu_policy=fsdp.offload_policy,
        reference=has_reference(config),
        rollout_bytes=rollout_bytes,
        memory_fraction=rollout.gpu_memory_utilization,
        sleeps=rollout.free_cache_engine,
        graphs=not rollout.enforce_eager,
        batched_tokens=rollout.max_num_batched_tokens,
        sequences=rollout.max_num_seqs,
        max_model_len=rollout.max_model_len or config.model.context_length or length,
        length=length,
        bucket=rollout.checkpoint_engine.update_weights_bucket_megabytes * 2**20,
    )
