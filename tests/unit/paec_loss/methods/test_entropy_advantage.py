"""Entropy advantage: by hand, no gradient through it, the limits, every split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import assert_any_split, hand_batch, mini_batch_loss, random_batch, update_of

from paec_loss.methods.entropy_advantage import EntropyAdvantage
from paec_loss.methods.none import NoMethod

HAND = hand_batch(
    [[-1.0, -2.0, -3.0], [-1.0, -2.0], [-1.0]],
    [[1.0, 1.0, 1.0], [-1.0, -1.0], [0.0]],
    entropy=[[0.0, 0.5, 3.0], [0.5, 3.0], [3.0]],
)


def shaped(method: EntropyAdvantage, tokens=HAND) -> torch.Tensor:
    return method.token_advantages(tokens, None, update_of(tokens, method))


@pytest.mark.parametrize(
    "method, expected",
    [
        (EntropyAdvantage(), [1.0, 1.2, 1.5, -0.8, -0.5, 0.0]),
        (EntropyAdvantage(alpha=1.0), [1.0, 1.5, 1.5, -0.5, -0.5, 0.0]),
        (EntropyAdvantage(kappa=1.0), [1.0, 1.2, 2.0, -0.8, 0.0, 0.0]),
        (EntropyAdvantage(alpha=0.0), [1.0, 1.0, 1.0, -1.0, -1.0, 0.0]),
    ],
)
def test_equals_values_computed_by_hand(method, expected):
    values = shaped(method)
    assert not values.requires_grad
    torch.testing.assert_close(
        values[HAND.response_mask], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_the_formula_on_a_random_batch():
    logits, tokens = random_batch()
    loss = mini_batch_loss(EntropyAdvantage(alpha=0.3, kappa=1.5), tokens)
    probability = logits.softmax(-1).detach()
    entropy = torch.special.entr(probability).sum(-1)
    advantage = tokens.advantages + (0.3 * entropy).clamp(max=tokens.advantages.abs() / 1.5)
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    expected = -surrogate[tokens.response_mask].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", [EntropyAdvantage(alpha=0.0), EntropyAdvantage(kappa=1e300)])
def test_without_the_addition_it_is_the_clipped_surrogate(method):
    _, tokens = random_batch()
    assert mini_batch_loss(method, tokens) == mini_batch_loss(NoMethod(), tokens)


def test_equal_rewards_stay_without_effect():
    """|A| = 0 caps the addition at 0: a group whose rewards are all equal gives no gradient."""
    logits, tokens = random_batch()
    loss = mini_batch_loss(EntropyAdvantage(), replace(tokens, advantages=tokens.advantages * 0))
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(EntropyAdvantage())


@pytest.mark.parametrize("field, value", [("alpha", -0.1), ("alpha", float("nan")), ("kappa", 0)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        EntropyAdvantage(**{field: value})
