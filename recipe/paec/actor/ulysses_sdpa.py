"""Ulysses sequence parallelism around PyTorch's SDPA, for machines without flash-attn.

verl's Ulysses patches transformers' flash attention only; with `sdpa` it runs but is silently wrong, because every rank
then attends within its own slice. `ulysses_sdpa` does the same exchange (https://arxiv.org/abs/2309.14509) around SDPA:
sequences are gathered and heads scattered before, and back after. Packed sequences are kept apart by a mask made from
`position_ids`, which restart at 0 with every sequence. The mask is [S, S], so this is for short contexts.
"""

from __future__ import annotations

import torch
import torch.distributed
import torch.distributed as dist
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from verl.utils.ulysses import gather_heads_scatter_seq, gather_seq_scatter_heads, get_ulysses_sequence_parallel_group

NAME = "ulysses_sdpa"


def packed_causal_mask(position_ids: torch.Tensor) -> torch.Tensor:
    """[1, S] positions of packed sequences -> [1, 1, S, S] boolean mask, True where attention is allowed."""
    segment = (position_ids == 0).cumsum(-1)
    index = torch.arange(position_ids.shape[-1], device=position_ids.device)
    causal = index[:, None] >= index[None, :]
    return ((segment[:, :, None] == segment[:, None, :]) & causal)[:, None]


def ulysses_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query, key, value [1, H, S/n, D] -> [1, S/n, H, D]."""
    group = get_ulysses_sequence_parallel_group()
    if position_ids is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError(f"{NAME} supports packed inputs only: set actor_rollout_ref.model.use_remove_padding=true")
    if group is None:
        raise ValueError(f"{NAME} is for ulysses_sequence_parallel_size > 1: use attn_implementation=sdpa instead")
    ranks = dist.get_world_size(group)
    key = repeat_kv(key, module.num_key_value_groups)
    value = repeat_kv(value, module.num_key_value_groups)
    if query.shape[1] % ranks:
        raise ValueError(
            f"{query.shape[1]} attention heads cannot be divided evenly over {ranks} sequence-parallel ranks"
        )
    query, key, value = (
        gather_seq_scatter_heads(states.transpose(1, 2).contiguous(), seq_dim=1, head_dim=2).transpose(1, 2)
        for states in (query, key, value)
    )
    slices = [torch.empty_like(position_ids) for _ in range(ranks)]
    dist.all_gather(slices, position_ids.contiguous(), group=group)
    output = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=packed_causal_mask(torch.cat(slices, dim=-1)),
        dropout_p=dropout,
        scale=scaling,
    )
    return gather_heads_scatter_seq(output.transpose(1, 2).contiguous(), seq_dim=1, head_dim=2), None


AttentionInterface.register(NAME, ulysses_sdpa)
