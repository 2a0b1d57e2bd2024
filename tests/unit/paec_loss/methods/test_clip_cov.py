"""Clip-Cov: the candidates by hand, the limits, every split, and verl's own on one micro-batch."""

from __future__ import annotations

import pytest
import torch
from batches import SPLITS, assert_any_split, detached, hand_batch, mini_batch_loss, random_batch, rows, update_of

from paec_loss.methods.clip_cov import ClipCov

LOG_PROB = [[-1.0, -2.0], [-5.0, -1.0, -1.0]]
ADVANTAGES = [[2.0, 2.0], [-1.0, -1.0, -1.0]]


def dropped(method: ClipCov, tokens) -> torch.Tensor:
    update = update_of(tokens, method)
    context = method.prepare(detached(tokens), update)
    return (method.token_advantages(tokens, context, update) == 0) & tokens.response_mask


def test_candidates_by_hand():
    """mean A = 0.2, mean log p = -2: c = 1.8, 0, 3.6, -1.2, -1.2."""
    tokens = hand_batch(LOG_PROB, ADVANTAGES)
    assert dropped(ClipCov(ratio=1.0), tokens).tolist() == [[True, False, False], [True, False, False]]
    assert dropped(ClipCov(ratio=1.0, lower=2.0), tokens).tolist() == [[False] * 3, [True, False, False]]
    assert dropped(ClipCov(ratio=1.0, upper=3.0), tokens).tolist() == [[True, False, False], [False] * 3]
    assert dropped(ClipCov(ratio=1.0, lower=4.0), tokens).sum() == 0
    assert dropped(ClipCov(ratio=1e-9), tokens).sum() == 1  # at least one


def test_a_clipped_token_is_no_candidate():
    old = [[-2.0, -2.0], [-5.0, -1.0, -1.0]]  # r = e for the first: beyond 2, and A > 0
    tokens = hand_batch(LOG_PROB, ADVANTAGES, old_log_prob=old)
    assert dropped(ClipCov(ratio=1.0), tokens).tolist() == [[False] * 3, [True, False, False]]


def test_the_number_is_that_of_the_mini_batch():
    _, tokens = random_batch(lengths=(40, 50, 60, 30, 20, 50))
    method = ClipCov(ratio=0.03, lower=0.05)
    assert dropped(method, tokens).sum() == 7  # floor(0.03 * 250)
    chosen = [method.prepare(detached(tokens), update_of(tokens, method, step=step)).chosen for step in (3, 3, 4)]
    assert torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[0], chosen[2])


@pytest.mark.parametrize(
    "method", [ClipCov(ratio=0.2, lower=0.1), ClipCov(ratio=0.2, lower=0.1, statistics_from="step")]
)
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


def test_without_candidates_it_is_the_clipped_surrogate():
    logits, tokens = random_batch()
    loss = mini_batch_loss(ClipCov(lower=98, upper=99, clip_low=0.2, clip_high=0.28), tokens)
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    surrogate = torch.minimum(ratio * tokens.advantages, ratio.clamp(0.8, 1.28) * tokens.advantages)
    expected = -surrogate[tokens.response_mask].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits, retain_graph=True), torch.autograd.grad(expected, logits), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("ratio", [1.0, 0.9])
def test_equals_verls_implementation(ratio):
    """One micro-batch and all candidates dropped, so that the random choice is none: verl's loss and gradient."""
    from verl.trainer.ppo.core_algos import compute_policy_loss_clip_cov
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig

    logits, tokens = random_batch()
    tokens = rows(tokens, torch.tensor([0, 1, 2, 3, 5]))
    own = PolicyLossConfig(loss_mode="clip_cov", clip_cov_ratio=ratio, clip_cov_lb=0.3, clip_cov_ub=5.0)
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=1.0, clip_ratio_high=1.0, policy_loss=own
    )
    inside = tokens.response_mask
    expected, _ = compute_policy_loss_clip_cov(
        tokens.old_log_prob.where(inside, 0),
        tokens.log_prob,
        tokens.advantages.where(inside, 0),
        inside,
        "token-mean",
        config,
    )
    method = ClipCov(ratio=ratio, lower=0.3)
    assert 1 < dropped(method, tokens).sum() < inside.sum() / 2
    loss = mini_batch_loss(method, tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_the_splits_cover_the_batch():
    assert all(sorted(sum(parts, [])) == list(range(6)) for parts in SPLITS)


@pytest.mark.parametrize("field, value", [("ratio", 0), ("ratio", 1.5), ("lower", 5.0), ("upper", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        ClipCov(**{field: value})
