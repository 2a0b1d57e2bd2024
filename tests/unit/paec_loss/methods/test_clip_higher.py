"""Clip-higher: by hand, verl's own, the limit, every split."""

from __future__ import annotations

import math

import pytest
import torch
from batches import CLIP, assert_any_split, hand_batch, mini_batch_loss, random_batch, rows

from paec_loss.batch import Clip
from paec_loss.methods.clip_higher import ClipHigher
from paec_loss.methods.none import NoMethod


def test_equals_values_computed_by_hand():
    """Ratios 0.7, 1.25, 1.4 at [0.8, 1.28]: A = 1 is clipped at 1.28, A = -1 at 0.8."""
    log_ratio = [math.log(r) for r in (0.7, 1.25, 1.4)]
    tokens = hand_batch([log_ratio] * 2, [[1.0] * 3, [-1.0] * 3], old_log_prob=[[0.0] * 3] * 2)
    method = ClipHigher()
    assert method.clip(CLIP) == Clip(0.2, 0.28, 3.0)
    loss = mini_batch_loss(method, tokens)
    (gradient,) = torch.autograd.grad(loss, tokens.log_prob)
    expected = torch.tensor([[-0.7, -1.25, 0.0], [0.0, 1.25, 1.4]], dtype=torch.float64) / 6
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)
    assert math.isclose(loss.item(), (-0.7 - 1.25 - 1.28 + 0.8 + 1.25 + 1.4) / 6, rel_tol=1e-12)


def test_equals_verls_implementation():
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
    from verl.workers.config import FSDPActorConfig

    logits, tokens = random_batch()
    tokens = rows(tokens, torch.tensor([0, 1, 2, 3, 5]))
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=0.1, clip_ratio_high=0.4, clip_ratio_c=3.0
    )
    inside = tokens.response_mask
    old, advantages = tokens.old_log_prob.where(inside, 0), tokens.advantages.where(inside, 0)
    expected, _ = compute_policy_loss_vanilla(old, tokens.log_prob, advantages, inside, "token-mean", config)
    loss = mini_batch_loss(ClipHigher(clip_low=0.1, clip_high=0.4), tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_with_the_actors_range_it_is_the_clipped_surrogate():
    _, tokens = random_batch()
    own = mini_batch_loss(ClipHigher(clip_low=CLIP.low, clip_high=CLIP.high), tokens)
    assert own == mini_batch_loss(NoMethod(), tokens) != mini_batch_loss(ClipHigher(clip_high=1.0), tokens)


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(ClipHigher())


@pytest.mark.parametrize("field, value", [("clip_low", 1.1), ("clip_low", float("nan")), ("clip_high", -0.1)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        ClipHigher(**{field: value})
