"""The actor's attention: flash-attn where it is installed, else PyTorch's own (packed_sdpa, sdpa)."""

from __future__ import annotations

from importlib.util import find_spec

from omegaconf import DictConfig

from recipe.paec.common.repository import OF_CHECKOUT

KEY = "actor_rollout_ref.model.override_config.attn_implementation"
"""verl's key; `cluster.attention` is its value unless it is given."""
AUTO, FLASH, SDPA = "auto", "flash_attention_2", "sdpa"
PACKED = "packed_sdpa"
"""recipe.paec.actor.packed_sdpa: SDPA of one sequence after the other."""
OVER_RANKS = (FLASH, "flash_attention_3", PACKED)
"""Attention over the full sequence with Ulysses; with anything else each rank only attends within its own slice."""
REMEDY = f"compile it with FLASH_ATTN=1 bash launch/setup_env.sh gpu{OF_CHECKOUT}"


def has_flash_attn() -> bool:
    """Whether flash-attn 2 with its compiled kernels can be imported here."""
    return find_spec("flash_attn") is not None and find_spec("flash_attn_2_cuda") is not None


def name_of(config: DictConfig) -> str | None:
    """The configured attention, by transformers' name."""
    return config.actor_rollout_ref.model.override_config.get("attn_implementation")


def resolve(config: DictConfig) -> None:
    """Replace `auto`: flash-attn where it is installed; elsewhere packed_sdpa, or sdpa for padded rows."""
    model = config.actor_rollout_ref.model
    if name_of(config) == AUTO:
        without = PACKED if model.use_remove_padding else SDPA
        flash = config.cluster.platform == "cuda" and has_flash_attn()
        model.override_config.attn_implementation = FLASH if flash else without


def check_config(config: DictConfig) -> list[str]:
    """Errors for an attention that does not take the rows it would get, or would give wrong results silently."""
    degree, name = config.cluster.sequence_parallel, name_of(config)
    errors = []
    if name == PACKED and not config.actor_rollout_ref.model.use_remove_padding:
        errors.append(
            f"attn_implementation={PACKED} supports packed rows only: set "
            f"actor_rollout_ref.model.use_remove_padding=true, or {KEY}={SDPA}"
        )
    if degree > 1 and name not in OVER_RANKS:
        errors.append(
            f"cluster.sequence_parallel={degree} with attn_implementation={name} gives wrong results without an error: "
            f"add {KEY}={PACKED}, or {FLASH} where flash-attn is installed"
        )
    return errors
