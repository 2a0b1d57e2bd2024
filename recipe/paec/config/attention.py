"""The actor's attention: flash-attn where it is installed or needed, else PyTorch's own (sdpa)."""

from __future__ import annotations

from importlib.util import find_spec

from omegaconf import DictConfig

from recipe.paec.common.repository import OF_CHECKOUT

KEY = "actor_rollout_ref.model.override_config.attn_implementation"
"""verl's key; `cluster.attention` is its value unless it is given."""
AUTO, FLASH, SDPA = "auto", "flash_attention_2", "sdpa"
OVER_RANKS = (FLASH, "flash_attention_3", "ulysses_sdpa")
"""Attention over the full sequence with Ulysses; with anything else each rank only attends within its own slice."""
REMEDY = f"compile it with FLASH_ATTN=1 bash launch/setup_env.sh gpu{OF_CHECKOUT}"


def has_flash_attn() -> bool:
    """Whether flash-attn 2 with its compiled kernels can be imported here."""
    return find_spec("flash_attn") is not None and find_spec("flash_attn_2_cuda") is not None


def name_of(config: DictConfig) -> str | None:
    """The configured attention, by transformers' name."""
    return config.actor_rollout_ref.model.override_config.get("attn_implementation")


def resolve(config: DictConfig) -> None:
    """Replace `auto`: flash-attn with Ulysses, which needs it, and where it is installed; sdpa elsewhere."""
    if name_of(config) == AUTO:
        flash = config.cluster.sequence_parallel > 1 or has_flash_attn()
        config.actor_rollout_ref.model.override_config.attn_implementation = FLASH if flash else SDPA


def check_config(config: DictConfig) -> list[str]:
    """Error for Ulysses with an attention that would give wrong results silently."""
    degree, name = config.cluster.sequence_parallel, name_of(config)
    if degree == 1 or name in OVER_RANKS:
        return []
    needed = f"{KEY}=ulysses_sdpa" if config.cluster.platform == "cpu" else f"{KEY}={FLASH}"
    return [
        f"cluster.sequence_parallel={degree} with attn_implementation={name} gives wrong results without an error: add "
        f"{needed}"
    ]
