"""What the calculator reads of a configuration."""

from __future__ import annotations

from dataclasses import replace

from plan_cases import SEVEN

from recipe.paec.plan import settings


def test_setup_of_qwen7b(compose):
    assert settings.read_setup(compose("experiment=qwen7b")) == SEVEN
    other = compose(
        "experiment=qwen7b",
        "cluster=gpu_4x8",
        "actor_rollout_ref.actor.fsdp_config.fsdp_size=8",
        "actor_rollout_ref.actor.fsdp_config.fused_head=true",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype=bf16",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10000",
        "actor_rollout_ref.rollout.max_model_len=null",
        "model.context_length=0",
    )
    expected = replace(SEVEN, nodes=4, head_rows=1024, reduce_bytes=2, tokens=10000)
    assert settings.read_setup(other) == expected
