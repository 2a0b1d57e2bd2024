"""What does not fit, and overrides that would make it fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from recipe.paec.common.console import GIB
from recipe.paec.plan.formulas import estimate
from recipe.paec.plan.settings import Setup, chunk_size
from recipe.paec.plan.shapes import ModelShape

USABLE = 0.95
"""Usable share of a GPU's memory: an 80 GB H100 has 79.1 GiB, and some is lost to allocator fragmentation."""


def errors_of(shape: ModelShape, setup: Setup, gpu_memory: float) -> list[str]:
    """Why it does not fit, one sentence each."""
    found, usable = estimate(shape, setup, gpu_memory), USABLE * gpu_memory
    errors = [
        f"the {phase} needs {found.total(phase) / GIB:.1f} GiB, more than the usable {usable / GIB:.1f} GiB"
        for phase in found.phases
        if found.total(phase) > usable
    ]
    if found.kv_tokens < setup.max_model_len:
        errors.append(
            f"vLLM's KV cache has room for {max(found.kv_tokens, 0)} tokens, less than one sequence of "
            f"max_model_len={setup.max_model_len}"
        )
    return errors


def knobs(shape: ModelShape, setup: Setup) -> list[tuple[str, dict]]:
    """Overrides that could help, and the fields of Setup they change; cheap ones first."""
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    tokens, twice, double_tp = setup.tokens // 2, 2 * setup.sequence_parallel, 2 * setup.tensor_parallel
    halved = f"{actor}.ppo_max_token_len_per_gpu={tokens}"
    found: list[tuple[str, dict]] = []
    if tokens * setup.sequence_parallel >= setup.length:
        found.append((halved, {"tokens": tokens}))
    elif shape.heads % twice == 0 and setup.gpus_per_node % twice == 0:
        found.append((f"{halved} cluster.sequence_parallel={twice}", {"tokens": tokens, "sequence_parallel": twice}))
    for fraction in (round(setup.memory_fraction + step, 2) for step in (-0.1, -0.2, 0.1, 0.2)):
        if 0 < fraction < 0.9:
            found.append((f"{rollout}.gpu_memory_utilization={fraction}", {"memory_fraction": fraction}))
    if setup.gpus_per_node % double_tp == 0 and shape.heads % double_tp == 0:
        found.append((f"cluster.tensor_parallel={double_tp}", {"tensor_parallel": double_tp}))
    if setup.head_rows is None:
        found.append((f"{actor}.fsdp_config.fused_head=true", {"head_rows": chunk_size()}))
    if not setup.optimizer_offload:
        found.append((f"{actor}.fsdp_config.optimizer_offload=true", {"optimizer_offload": True}))
    if not setup.cpu_policy:
        found.append((f"{actor}.fsdp_config.offload_policy=true", {"cpu_policy": True}))
    if setup.shards == setup.nodes * setup.gpus_per_node:
        nodes = 2 * setup.nodes
        found.append((f"cluster.nodes={nodes}", {"nodes": nodes, "shards": nodes * setup.gpus_per_node}))
    return found


def remedy(shape: ModelShape, setup: Setup, gpu_memory: float) -> str:
    """The fewest overrides (at most three) that make everything fit, as one sentence."""
    for count in (1, 2, 3):
        for chosen in combinations(knobs(shape, setup), count):
            changes = {field: value for _, fields in chosen for field, value in fields.items()}
            if not errors_of(shape, replace(setup, **changes), gpu_memory):
                return f"it would fit with {' '.join(override for override, _ in chosen)}"
    return "no three of the usual overrides make it fit: use more GPUs, or shorter sequences"
