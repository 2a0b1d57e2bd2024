"""CE-GPPO: the kept gradients by hand, the formula token by token, its cases, every split."""

from __future__ import annotations

import math

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    assert_same_gradient,
    assert_six_digits,
    gradient_weights,
    hand_batch,
    mini_batch_loss,
    random_batch,
    toy_batch,
    update_of,
)

from paec_loss.batch import Clip
from paec_loss.methods.agentic_aepo import AgenticAEPO
from paec_loss.methods.ce_gppo import CEGPPO
from paec_loss.methods.clip_higher import ClipHigher

GPPO = CEGPPO(beta_low=1, beta_high=1, clip_high=0.28)


@pytest.mark.parametrize(
    "method, expected",
    [
        (CEGPPO(clip_high=0.28), [0.904837, 1.28, 1, 1.28, 1, 0.6, 1.030455]),
        (GPPO, [0.904837, 1.28, 1, 1.28, 1, 0.8, 1.030455]),
        (CEGPPO(beta_low=0.5, beta_high=0.25, clip_high=0.28), [0.904837, 0.32, 1, 0.32, 1, 0.4, 1.030455]),
        (CEGPPO(beta_low=0, beta_high=0, clip_high=0.28), [0.904837, 0, 1, 0, 1, 0, 1.030455]),
    ],
)
def test_equals_values_computed_by_hand(method, expected):
    assert_six_digits(gradient_weights(method, toy_batch()), expected)


@pytest.mark.parametrize(
    "ratio, advantage, loss, gradient",
    [
        (1.5, 2.0, -2.56, -2.56 / 2),  # clipped above: the surrogate's value, beta_high (1 + high) |A|
        (1e12, 2.0, -2.56, -2.56 / 2),  # also beyond the clamp of the log-ratio
        (1e-12, -2.0, 1.6, 1.6 / 4),
        (0.5, -2.0, 1.6, 1.6 / 4),  # clipped below
        (0.5, 2.0, -1.0, -1.0),  # not clipped on this side
        (1.5, -2.0, 3.0, 3.0),
        (4.0, -2.0, 6.0, 0.0),  # dual clip at 3
    ],
)
def test_loss_and_gradient_by_hand(ratio, advantage, loss, gradient):
    method = CEGPPO(beta_low=0.25, beta_high=0.5, clip_high=0.28)
    tokens = hand_batch([[math.log(ratio)]], [[advantage]], old_log_prob=[[0.0]])
    found = method.policy_loss(tokens, None, update_of(tokens, method))[0, 0]
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert torch.autograd.grad(found, tokens.log_prob)[0].item() == pytest.approx(gradient, rel=1e-12)


def reference(tokens, beta_low: float, beta_high: float, low: float, high: float) -> torch.Tensor:
    """A loss with the published gradient -A g, one token at a time, and the clipped surrogate's value."""
    inside, total = tokens.response_mask, 0.0
    for taken, old, a in zip(
        tokens.log_prob[inside], tokens.old_log_prob[inside], tokens.advantages[inside].tolist(), strict=True
    ):
        r = math.exp(taken.item() - old.item())
        value, g = -min(r * a, min(max(r, 1 - low), 1 + high) * a), r
        if a < 0 and r < 1 - low:
            g = beta_low * (1 - low)
        if a > 0 and r > 1 + high:
            g = beta_high * (1 + high)
        if a < 0 and r > CLIP.dual_clip:
            value, g = -a * CLIP.dual_clip, 0.0
        total = total + value - a * g * (taken - taken.detach())
    return total / inside.sum()


@pytest.mark.parametrize("betas", [(0.75, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 0.3)])
@pytest.mark.parametrize("low, high", [(0.2, 0.28), (0.05, 0.1)])
def test_against_the_formula(betas, low, high):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    method = CEGPPO(*betas, clip_low=low, clip_high=high)
    assert_same_gradient(mini_batch_loss(method, tokens), reference(tokens, *betas, low, high), logits)


def test_without_the_betas_it_is_clip_higher():
    logits, tokens = random_batch()
    loss = mini_batch_loss(CEGPPO(beta_low=0, beta_high=0, clip_high=0.28), tokens)
    assert_same_gradient(loss, mini_batch_loss(ClipHigher(), tokens), logits)


def test_agentic_aepo_is_the_case_that_keeps_the_upper_side():
    logits, tokens = random_batch()
    loss = mini_batch_loss(CEGPPO(beta_low=0, beta_high=1, clip_high=0.2), tokens)
    assert_same_gradient(loss, mini_batch_loss(AgenticAEPO(weight=0), tokens), logits)


def test_the_range_is_its_own_and_the_dual_clip_the_runs():
    assert CEGPPO().clip(CLIP) == Clip(0.2, 0.2, 3.0)


@pytest.mark.parametrize("method", [CEGPPO(), GPPO, CEGPPO(clip_low=0.01, clip_high=0.01)])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize(
    "field, value", [("beta_low", -0.1), ("beta_high", float("inf")), ("clip_low", 1.1), ("clip_high", -1)]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        CEGPPO(**{field: value})
