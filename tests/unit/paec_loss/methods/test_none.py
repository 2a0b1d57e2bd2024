"""The clipped surrogate alone: by hand, and verl's own."""

from __future__ import annotations

import math

import pytest
import torch
from batches import CLIP, assert_any_split, hand_batch, isclose, mini_batch_loss, random_batch, rows

from paec_loss.batch import MAX_LOG_RATIO, Clip
from paec_loss.method import clipped_surrogate
from paec_loss.methods.none import NoMethod


def test_equals_values_computed_by_hand():
    """Ratios 2, 1/2 and 4 with a clip to [0.8, 1.2] and at most 3 |A| where A < 0."""
    log_ratio = [math.log(2), math.log(0.5), math.log(4)]
    up, down = [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]
    tokens = hand_batch([log_ratio, log_ratio, [0.0]], [up, down, [2.0]], old_log_prob=[[0.0] * 3, [0.0] * 3, [0.0]])
    losses = clipped_surrogate(tokens, CLIP)[tokens.response_mask]
    expected = torch.tensor([-1.2, -0.5, -1.2, 2.0, 0.8, 3.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
    assert isclose(mini_batch_loss(NoMethod(), tokens).item(), 0.9 / 7)


def test_a_log_ratio_is_clamped():
    tokens = hand_batch([[0.0], [-50.0]], [[-1.0], [1.0]], old_log_prob=[[-50.0], [0.0]])
    losses = clipped_surrogate(tokens, Clip(0.2, 0.2, float("inf")))
    assert isclose(losses[0, 0].item(), math.exp(MAX_LOG_RATIO)) and isclose(losses[1, 0].item(), -math.exp(-20.0))


def test_equals_verls_implementation():
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
    from verl.workers.config import FSDPActorConfig

    logits, tokens = random_batch()
    tokens = rows(tokens, torch.tensor([0, 1, 2, 3, 5]))
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=3.0
    )
    inside = tokens.response_mask
    old, advantages = tokens.old_log_prob.where(inside, 0), tokens.advantages.where(inside, 0)
    expected, _ = compute_policy_loss_vanilla(old, tokens.log_prob, advantages, inside, "token-mean", config)
    loss = mini_batch_loss(NoMethod(), tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(NoMethod())


def test_it_has_no_fields():
    with pytest.raises(TypeError):
        NoMethod(coefficient=1.0)
