"""KL-Cov: the held tokens by hand, ties, the limits, every split, and verl's own on one micro-batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import assert_any_split, detached, hand_batch, isclose, mini_batch_loss, random_batch, rows, update_of

from paec_loss.methods.kl_cov import KLCov

LOG_PROB = [[-1.0, -2.0], [-5.0, -1.0, -1.0]]
ADVANTAGES = [[2.0, 2.0], [-1.0, -1.0, -1.0]]


def held(method: KLCov, tokens) -> torch.Tensor:
    update = update_of(tokens, method)
    return method.prepare(detached(tokens), update).among(tokens)


def test_the_held_tokens_by_hand():
    """mean A = 0.2, mean log p = -2: c = 1.8, 0, 3.6, -1.2, -1.2."""
    tokens = hand_batch(LOG_PROB, ADVANTAGES)
    assert held(KLCov(ratio=1e-9), tokens).tolist() == [[False] * 3, [True, False, False]]  # at least one
    assert held(KLCov(ratio=0.5), tokens).tolist() == [[True, False, False], [True, False, False]]  # floor(2.5)
    assert held(KLCov(ratio=0.6), tokens).tolist() == [[True, True, False], [True, False, False]]
    assert held(KLCov(ratio=1.0), tokens).tolist() == [[True, True, False], [True] * 3]


def test_the_loss_by_hand():
    """mean A = 1, mean log p = -2: c = 3, 0, 2. Ratios 2, 1, 1/2, so -A r = -8, 0, 0.5; the first is held."""
    two = math.log(2)
    tokens = hand_batch([[-1.0, -2.0, -3.0]], [[4.0, 0.0, -1.0]], old_log_prob=[[-1.0 - two, -2.0, -3.0 + two]])
    loss = mini_batch_loss(KLCov(ratio=0.34, beta=0.5), tokens)
    assert isclose(loss.item(), (-8 + 0.5 * two + 0 + 0.5) / 3)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.log_prob)
    expected = torch.tensor([[(-8 + 0.5) / 3, 0.0, 0.5 / 3]], dtype=torch.float64)  # d/dlogp: -A r + beta sign(log r)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_ties_are_broken_by_lot_to_the_exact_number():
    tokens = hand_batch([[-1.0] * 30, [-1.0] * 20], [[0.0] * 30, [0.0] * 20])
    method = KLCov(ratio=0.1)
    first = held(method, tokens)
    assert first.sum() == 5
    other = method.prepare(detached(tokens), update_of(tokens, method, step=4)).among(tokens)
    assert other.sum() == 5 and (other != first).any()


def test_the_number_does_not_hang_on_a_rounding_of_the_later_pass():
    _, tokens = random_batch(lengths=(40, 50, 60, 30, 20, 50))
    method = KLCov(ratio=0.03)
    context = method.prepare(detached(tokens), update_of(tokens, method))
    moved = tokens.statistics.map(lambda x: x + 1e-3)
    parts = [torch.tensor([4, 1]), torch.tensor([0, 2, 3, 5])]
    assert sum(context.among(rows(replace(tokens, statistics=moved), part)).sum() for part in parts) == 7


@pytest.mark.parametrize("method", [KLCov(ratio=0.2), KLCov(ratio=0.2, statistics_from="step")])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


def test_without_beta_it_is_the_surrogate_without_a_clip():
    logits, tokens = random_batch()
    loss = mini_batch_loss(KLCov(ratio=0.5, beta=0.0), tokens)
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    expected = -(ratio * tokens.advantages)[tokens.response_mask].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_on_policy_it_is_the_policy_gradient():
    logits, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    loss = mini_batch_loss(KLCov(ratio=0.5), tokens)
    expected = -(tokens.log_prob * tokens.advantages)[tokens.response_mask].mean()
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("ratio, beta", [(0.2, 1.0), (0.9, 0.3), (1e-9, 1.0)])
def test_equals_verls_implementation(ratio, beta):
    from verl.trainer.ppo.core_algos import compute_policy_loss_kl_cov
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig

    logits, tokens = random_batch()
    tokens = rows(tokens, torch.tensor([0, 1, 2, 3, 5]))
    own = PolicyLossConfig(loss_mode="kl_cov", kl_cov_ratio=ratio, ppo_kl_coef=beta)
    config = FSDPActorConfig(strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, policy_loss=own)
    inside = tokens.response_mask
    old, advantages = tokens.old_log_prob.where(inside, 0), tokens.advantages.where(inside, 0)
    expected, _ = compute_policy_loss_kl_cov(old, tokens.log_prob, advantages, inside, "token-mean", config)
    loss = mini_batch_loss(KLCov(ratio=ratio, beta=beta), tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("field, value", [("ratio", 0), ("ratio", 1.5), ("beta", -1), ("beta", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        KLCov(**{field: value})
