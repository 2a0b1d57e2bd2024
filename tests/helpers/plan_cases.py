"""A setup of the memory calculator, and its page."""

from __future__ import annotations

from recipe.paec.common.repository import REPOSITORY
from recipe.paec.plan.settings import Setup

DOCUMENT = (REPOSITORY / "docs" / "plan.md").read_text(encoding="utf-8")
SEVEN = Setup(
    nodes=1,
    gpus_per_node=8,
    shards=8,
    tensor_parallel=1,
    sequence_parallel=1,
    tokens=8192,
    head_rows=None,
    dense_mask=False,
    checkpointing=True,
    parameter_bytes=4,
    compute_bytes=2,
    reduce_bytes=4,
    param_offload=False,
    optimizer_offload=False,
    cpu_policy=False,
    reference=False,
    rollout_bytes=2,
    memory_fraction=0.6,
    sleeps=True,
    graphs=True,
    batched_tokens=8192,
    sequences=256,
    max_model_len=4096,
    length=4096,
    bucket=2**31,
)
"""What experiment=qwen7b says, on one node with flash-attn."""
