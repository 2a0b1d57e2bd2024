"""Agentic AEPO: weights and the kept gradient by hand, the formula token by token, every split."""

from __future__ import annotations

import math

import pytest
import torch
from batches import CLIP, assert_any_split, detached, hand_batch, mini_batch_loss, random_batch, update_of

from paec_loss.methods.agentic_aepo import AgenticAEPO


def test_advantages_by_hand():
    """Entropies 1, 2 and 3: mean 2, sample deviation 1, z = -1, 0, 1."""
    tokens = hand_batch([[-1.0, -1.0], [-1.0]], [[2.0, 2.0], [-1.0]], entropy=[[1.0, 2.0], [3.0]])
    update = update_of(tokens, AgenticAEPO())
    context = AgenticAEPO().prepare(detached(tokens), update)
    found = AgenticAEPO().token_advantages(tokens, context, update)[tokens.response_mask]
    torch.testing.assert_close(found, torch.tensor([1.6, 2.0, -1.2], dtype=torch.float64))


@pytest.mark.parametrize(
    "ratio, advantage, loss, gradient",
    [
        (1.5, 2.0, -2.4, -2.4),  # clipped above: the surrogate's value, and 1 + high instead of 0
        (1e12, 2.0, -2.4, -2.4),  # also beyond the clamp of the log-ratio
        (1.1, 2.0, -2.2, -2.2),
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),  # clipped below: no gradient, as in the surrogate
        (1.5, -2.0, 3.0, 3.0),
        (4.0, -2.0, 6.0, 0.0),  # dual clip at 3
    ],
)
def test_loss_and_gradient_by_hand(ratio, advantage, loss, gradient):
    tokens = hand_batch([[math.log(ratio)]], [[advantage]], old_log_prob=[[0.0]], entropy=[[1.0]])
    update = update_of(tokens, AgenticAEPO())
    found = AgenticAEPO().policy_loss(tokens, None, update)[0, 0]
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert torch.autograd.grad(found, tokens.log_prob)[0].item() == pytest.approx(gradient, rel=1e-12)


def reference(tokens, weight: float) -> torch.Tensor:
    inside = tokens.response_mask
    entropy = tokens.entropy.detach()[inside]
    z = (entropy - entropy.mean()) / ((entropy - entropy.mean()).square().sum() / (len(entropy) - 1)).sqrt()
    ratios = (tokens.log_prob - tokens.old_log_prob)[inside].exp()
    total = 0.0
    for z_t, ratio, advantage in zip(z, ratios, tokens.advantages[inside], strict=True):
        advantage = advantage * (1 + weight * z_t)
        clipped = ratio.clamp(min=1 - CLIP.low)
        if ratio > 1 + CLIP.high:
            clipped = (1 + CLIP.high) * ratio / ratio.detach()
        loss = torch.maximum(-advantage * ratio, -advantage * clipped)
        total = total + (torch.minimum(loss, -advantage * CLIP.dual_clip) if advantage < 0 else loss)
    return total / len(ratios)


@pytest.mark.parametrize("weight", [0.2, -0.7])
def test_against_the_formula(weight):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    loss, expected = mini_batch_loss(AgenticAEPO(weight=weight), tokens), reference(tokens, weight)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("statistics_from", ["exact", "step"])
def test_the_gradient_does_not_depend_on_the_split(statistics_from):
    assert_any_split(AgenticAEPO(statistics_from=statistics_from))


def test_weight_zero_has_the_surrogates_value():
    _, tokens = random_batch()
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    plain = torch.minimum(ratio * tokens.advantages, ratio.clamp(0.8, 1.2) * tokens.advantages)
    loss = mini_batch_loss(AgenticAEPO(weight=0), tokens)
    torch.testing.assert_close(loss, -plain[tokens.response_mask].mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("entropy", [[[2.0, 2.0]], [[2.0]]])
def test_equal_entropies_and_a_single_token_change_nothing(entropy):
    tokens = hand_batch([[-1.0] * len(entropy[0])], [[1.5] * len(entropy[0])], entropy=entropy)
    assert mini_batch_loss(AgenticAEPO(), tokens).item() == -1.5


@pytest.mark.parametrize("value", [float("inf"), "0.2", True])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.weight="):
        AgenticAEPO(weight=value)
