"""Attention over packed rows by PyTorch's SDPA, one sequence after the other, with or without Ulysses; no flash-attn.

transformers' `sdpa` keeps packed sequences apart by a mask: it computes all pairs of a micro-batch's tokens, and a mask
rules out PyTorch's flash kernel. verl's Ulysses (https://arxiv.org/abs/2309.14509) patches flash attention only; with
`sdpa` it runs but is silently wrong, because every rank then attends within its own slice. `packed_sdpa` takes the
lengths of the sequences from `position_ids`, which restart at 0 with each of them; with Ulysses it gathers sequences
and scatters heads before, and does the opposite after.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.distributed as dist
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from verl.utils.ulysses import gather_heads_scatter_seq, gather_seq_scatter_heads, get_ulysses_sequence_parallel_group

from recipe.paec.config.attention import PACKED

_seen = WeakTensorKeyDictionary()
"""Positions -> lengths: a pass has the same positions in all of its layers, and reading them waits for the GPU."""


def lengths_of(position_ids: torch.Tensor) -> list[int]:
    """Lengths of the sequences whose positions are packed into [1, S]; each restarts at 0.

    Raises:
        ValueError: they are not packed.
    """
    if position_ids.dim() != 2 or position_ids.shape[0] != 1:
        raise ValueError(f"positions of shape {list(position_ids.shape)}: {PACKED} supports packed rows only, [1, S]")
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    if not starts or starts[0]:
        raise ValueError("the first position is not 0: the row does not begin with a sequence")
    return [after - first for first, after in pairwise([*starts, position_ids.shape[-1]])]


def packed_sdpa(
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
    """transformers' attention interface: query, key, value [1, H, S/n, D] -> [1, S/n, H, D]; n ranks of Ulysses.

    Raises:
        ValueError: the rows are padded, or the heads cannot be divided over the ranks.
    """
    if position_ids is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError(f"{PACKED} supports packed rows only: set actor_rollout_ref.model.use_remove_padding=true")
    group = get_ulysses_sequence_parallel_group()
    ranks = 1 if group is None else dist.get_world_size(group)
    if ranks > 1:
        if query.shape[1] % ranks:
            raise ValueError(
                f"{query.shape[1]} attention heads cannot be divided evenly over {ranks} sequence-parallel ranks"
            )
        key, value = (repeat_kv(states, module.num_key_value_groups) for states in (key, value))
        query, key, value = (
            gather_seq_scatter_heads(states.transpose(1, 2).contiguous(), seq_dim=1, head_dim=2).transpose(1, 2)
            for states in (query, key, value)
        )
    lengths = _seen.get(position_ids)
    if lengths is None:
        lengths = _seen[position_ids] = lengths_of(_of_all_ranks(position_ids, group, ranks))
    sequences = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    grouped = query.shape[1] != key.shape[1]
    found = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in sequences
    ]
    output = torch.cat(found, dim=2).transpose(1, 2).contiguous()
    return gather_heads_scatter_seq(output, seq_dim=1, head_dim=2) if ranks > 1 else output, None


def _of_all_ranks(position_ids: torch.Tensor, group: dist.ProcessGroup | None, ranks: int) -> torch.Tensor:
    """[1, S] positions of the whole row from every rank's slice [1, S/n]."""
    if ranks == 1:
        return position_ids
    slices = [torch.empty_like(position_ids) for _ in range(ranks)]
    dist.all_gather(slices, position_ids.contiguous(), group=group)
    return torch.cat(slices, dim=-1)


AttentionInterface.register(PACKED, packed_sdpa)
