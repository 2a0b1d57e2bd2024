"""Entropy bonus: by hand, the formula on a random batch, the limit, every split."""

from __future__ import annotations

import pytest
import torch
from batches import assert_any_split, hand_batch, isclose, mini_batch_loss, random_batch

from paec_loss.methods.entropy_bonus import EntropyBonus
from paec_loss.methods.none import NoMethod


@pytest.mark.parametrize("coefficient", [0.5, -0.5])
def test_equals_values_computed_by_hand(coefficient):
    """Hbar = (0.3 + 0.6 + 1.2) / 3 = 0.7."""
    tokens = hand_batch([[-1.0, -2.0], [-5.0]], [[0.0, 0.0], [0.0]], entropy=[[0.3, 0.6], [1.2]])
    loss = mini_batch_loss(EntropyBonus(coefficient=coefficient), tokens)
    assert isclose(loss.item(), -coefficient * 0.7)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    expected = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64) * -coefficient / 3
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_the_formula_on_a_random_batch():
    """The gradient of H in the logits, written out: -p_j (log p_j + H)."""
    logits, tokens = random_batch()
    loss = mini_batch_loss(EntropyBonus(coefficient=0.2), tokens) - mini_batch_loss(NoMethod(), tokens)
    (gradient,) = torch.autograd.grad(loss, logits)
    probability = logits.detach().softmax(-1)
    entropy = torch.special.entr(probability).sum(-1, keepdim=True)
    expected = 0.2 * probability * (probability.log() + entropy) / tokens.response_mask.sum()
    torch.testing.assert_close(gradient, expected * tokens.response_mask[..., None], rtol=1e-10, atol=1e-14)
    assert abs(loss.item() + 0.2 * entropy[..., 0][tokens.response_mask].mean().item()) < 1e-12


def test_without_coefficient_it_is_the_clipped_surrogate():
    _, tokens = random_batch()
    assert mini_batch_loss(EntropyBonus(coefficient=0.0), tokens) == mini_batch_loss(NoMethod(), tokens)


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(EntropyBonus(coefficient=1.0))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "0.1", None, True])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.coefficient="):
        EntropyBonus(coefficient=value)
