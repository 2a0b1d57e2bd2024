"""CISPO: weights and losses by hand, the formula token by token, verl's own, the limits, every split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
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
from verl_losses import assert_verls_own

from paec_loss.batch import Clip
from paec_loss.methods.cispo import CISPO

NARROW = CISPO(clip_low=0.2, clip_high=0.28)


def test_equals_values_computed_by_hand():
    tokens = toy_batch()
    assert_six_digits(gradient_weights(NARROW, tokens), [0.904837, 1.28, 1, 1.28, 1, 0.8, 1.030455])
    losses = NARROW.policy_loss(tokens, None, update_of(tokens, NARROW))[tokens.response_mask]
    assert_six_digits(losses, [0.180967, 2.048, 0.5, 0.896, -0.3, -1.52, -0.020609])
    assert_six_digits(mini_batch_loss(NARROW, tokens), 0.254908)
    assert_six_digits(mini_batch_loss(CISPO(), tokens), 0.345510)


@pytest.mark.parametrize("ratio, weight", [(1e-3, 1e-3), (4.9, 4.9), (6.0, 5.0), (1e12, 5.0)])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_weights_are_bounded_above_only(ratio, weight, advantage):
    """A gradient is never 0, also beyond the clamp of the log-ratio."""
    tokens = hand_batch([[math.log(ratio)]], [[advantage]], old_log_prob=[[0.0]])
    assert gradient_weights(CISPO(), tokens).item() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("low, high", [(0.2, 0.28), (1.0, 4.0), (0.05, 0.0)])
def test_against_the_formula(low, high):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    inside, total = tokens.response_mask, 0.0
    for taken, old, advantage in zip(
        tokens.log_prob[inside], tokens.old_log_prob[inside], tokens.advantages[inside], strict=True
    ):
        weight = min(max(math.exp(taken.item() - old.item()), 1 - low), 1 + high)
        total = total - weight * advantage * taken
    loss = mini_batch_loss(CISPO(clip_low=low, clip_high=high), tokens)
    assert_same_gradient(loss, total / inside.sum(), logits)


@pytest.mark.parametrize("low, high", [(0.1, 0.3), (1.0, 4.0)])
def test_equals_verls_implementation(low, high):
    method = CISPO(clip_low=low, clip_high=high)
    assert_verls_own(method, "cispo", clip_ratio_low=low, clip_ratio_high=high)
    assert_verls_own(method, "cispo", "seq-mean-token-mean", clip_ratio_low=low, clip_ratio_high=high)


def test_without_a_range_it_is_reinforce():
    logits, tokens = random_batch()
    loss = mini_batch_loss(CISPO(clip_low=0, clip_high=0), tokens)
    assert_same_gradient(loss, -(tokens.log_prob * tokens.advantages)[tokens.response_mask].mean(), logits)


def test_on_policy_it_is_the_policy_gradient():
    logits, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    loss = mini_batch_loss(CISPO(), tokens)
    assert_same_gradient(loss, -(tokens.log_prob * tokens.advantages)[tokens.response_mask].mean(), logits)


def test_the_range_is_its_own():
    assert CISPO().clip(CLIP) == Clip(1.0, 4.0, float("inf"))


@pytest.mark.parametrize("method", [CISPO(), NARROW])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize("field, value", [("clip_low", 1.1), ("clip_low", float("nan")), ("clip_high", -0.1)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        CISPO(**{field: value})
