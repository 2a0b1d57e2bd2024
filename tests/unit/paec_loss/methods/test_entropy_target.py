"""Entropy target: both sides and the target itself by hand, the formula on a random batch, every split."""

from __future__ import annotations

import pytest
import torch
from batches import assert_any_split, hand_batch, isclose, mini_batch_loss, random_batch

from paec_loss.methods.entropy_target import EntropyTarget
from paec_loss.methods.none import NoMethod


@pytest.mark.parametrize("target, expected, slope", [(0.2, 0.6, 2 / 3), (0.5, 0.0, 0.0), (0.9, 0.8, -2 / 3)])
def test_equals_values_computed_by_hand(target, expected, slope):
    """Hbar = 0.5: coefficient 2 times the distance, and its gradient at every token."""
    tokens = hand_batch([[-1.0, -2.0], [-5.0]], [[0.0, 0.0], [0.0]], entropy=[[0.25, 0.75], [0.5]])
    loss = mini_batch_loss(EntropyTarget(coefficient=2.0, target=target), tokens)
    assert isclose(loss.item(), expected)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    torch.testing.assert_close(gradient[tokens.response_mask], torch.full((3,), slope).double(), rtol=1e-7, atol=0)
    assert gradient[~tokens.response_mask].abs().sum() == 0


@pytest.mark.parametrize("target", [0.1, 5.0])
def test_the_formula_on_a_random_batch(target):
    logits, tokens = random_batch()
    log_probs = logits - logits.logsumexp(-1, keepdim=True)
    entropy = -(log_probs.exp() * log_probs).sum(-1)[tokens.response_mask].mean()
    expected = mini_batch_loss(NoMethod(), tokens) + 0.3 * (entropy - target).abs()
    loss = mini_batch_loss(EntropyTarget(coefficient=0.3, target=target), tokens)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_without_coefficient_it_is_the_clipped_surrogate():
    _, tokens = random_batch()
    assert mini_batch_loss(EntropyTarget(coefficient=0.0), tokens) == mini_batch_loss(NoMethod(), tokens)


@pytest.mark.parametrize("target", [0.1, 5.0])
def test_the_gradient_does_not_depend_on_the_split(target):
    assert_any_split(EntropyTarget(coefficient=1.0, target=target))


@pytest.mark.parametrize("field, value", [("coefficient", -0.1), ("target", -1), ("target", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        EntropyTarget(**{field: value})
