"""verl's own policy losses on one micro-batch, for the methods that verl ships too."""

from __future__ import annotations

import torch
from batches import random_batch, rows, update_of
from torch import Tensor

from paec_loss.method import Method


def aggregated(losses: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Losses [B, R] of a mini-batch as verl's `loss_agg_mode` aggregates them: token-mean or seq-mean-token-mean."""
    if mode == "token-mean":
        return losses[mask].mean()
    assert mode == "seq-mean-token-mean"
    return torch.stack([row[inside].mean() for row, inside in zip(losses, mask, strict=True) if inside.any()]).mean()


def assert_verls_own(method: Method, loss_mode: str, agg: str = "token-mean", seed: int = 0, **config) -> None:
    """Loss and gradient of a method without `prepare` are those of verl's `loss_mode` with these actor fields."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig

    logits, tokens = random_batch(seed)
    tokens = rows(tokens, torch.tensor([0, 1, 2, 3, 5]))
    inside = tokens.response_mask
    actor = FSDPActorConfig(strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, **config)
    old, advantages = tokens.old_log_prob.where(inside, 0), tokens.advantages.where(inside, 0)
    expected, _ = get_policy_loss_fn(loss_mode)(old, tokens.log_prob, advantages, inside, agg, actor)
    losses = method.policy_loss(tokens, None, update_of(tokens, method))
    ours = aggregated(losses, inside, agg)
    # verl divides a response's sum by its length + 1e-8.
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (ours, expected))
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)
