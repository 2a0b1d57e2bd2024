"""Responses drawn from the policy over a static KV cache; a prompt leaves the batch when its responses have ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.lab.policy import Policy, Prompts

LEAVE = 0.15
"""Share of the prompts that must have ended before the caches of the others are moved together."""
TOGETHER = 8
"""Responses to a prompt that share its columns of the cache. With more, most of the columns that each looks at are of
others; so a multiple of this is drawn as several prompts."""


@dataclass(frozen=True)
class Sampled:
    """Responses to P prompts, n each, padded on the right to the longest."""

    tokens: Tensor
    """[P, n, R] int64, the end of sequence included; 0 at padding."""
    inside: Tensor
    """[P, n, R] bool, True at response tokens."""
    logits: Tensor
    """[P, n, R, V] from which the tokens were drawn, before the temperature; arbitrary at padding."""


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Prompts,
    n: int,
    length: int,
    temperatures: Tensor,
    end: Tensor,
    generator: torch.Generator,
) -> Sampled:
    """n responses of at most `length` tokens to each prompt.

    Args:
        temperatures: [P], positive.
        end: [V] bool, True at tokens that end a response.
        generator: one uniform number a token is taken from it, whatever the responses are.
    """
    count = len(prompts.lengths)
    if n > TOGETHER and n % TOGETHER == 0:
        rows = torch.arange(count).repeat_interleave(n // TOGETHER)
        found = sample(policy, prompts[rows], TOGETHER, length, temperatures[rows], end, generator)
        parts = (found.tokens, found.inside, found.logits)
        return Sampled(*(values.unflatten(0, (count, -1)).flatten(1, 2) for values in parts))
    weights = policy.weights()
    past, bias = policy.encode(prompts, weights)
    uniform = torch.rand(length, count, n, generator=generator)
    tokens = torch.zeros(count, n, length, dtype=torch.int64)
    inside = torch.zeros(count, n, length, dtype=torch.bool)
    logits = torch.empty(count, n, length, policy.vocab_size)
    room = torch.empty(count, policy.key_heads, length * n, policy.head_dim)
    cache = [(torch.cat([k, room], 2), torch.cat([v, room], 2)) for k, v in past]
    own = torch.full((n, n), -torch.inf).fill_diagonal_(0.0).repeat(1, length)
    bias = torch.cat([bias.expand(-1, -1, -1, n, -1), own.expand(count, 1, 1, -1, -1)], -1)
    rows = torch.arange(count)  # of the prompts that are still in the batch
    last = prompts.ids.gather(1, prompts.lengths[:, None] - 1).expand(-1, n)
    running = torch.ones(count, n, dtype=torch.bool)
    for place in range(length):
        used = prompts.ids.shape[1] + n * (place + 1)
        positions = prompts.lengths[rows] - 1 + place
        x = policy.embedded(last)
        found = policy.head(policy.decode(x, positions, weights, cache, used, bias[..., :used]))
        last = drawn(found / temperatures[rows, None, None], uniform[place, rows])
        logits[rows, :, place], inside[rows, :, place] = found, running
        tokens[rows, :, place] = last.where(running, 0)
        running = running & ~end[last]
        going = running.any(-1)
        if not going.any():
            break
        if going.sum() <= (1 - LEAVE) * len(rows):
            cache = [(keys[going], values[going]) for keys, values in cache]
            rows, last, running, bias = rows[going], last[going], running[going], bias[going]
    longest = place + 1
    return Sampled(tokens[..., :longest], inside[..., :longest], logits[..., :longest, :])


def drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """[P, n] tokens from logits [P, n, V] by uniform numbers [P, n] in [0, 1): the inverse of the distribution."""
    mass = logits.softmax(-1).cumsum(-1)
    found = torch.searchsorted(mass, (uniform * mass[..., -1])[..., None], right=True)[..., 0]
    return found.clamp_max(mass.shape[-1] - 1)
