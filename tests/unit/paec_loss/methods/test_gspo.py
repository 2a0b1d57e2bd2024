"""GSPO: the response's ratio by hand, the formula response by response, verl's own, the limits, every split."""

from __future__ import annotations

import math
from dataclasses import replace

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
from verl_losses import aggregated, assert_verls_own

from paec_loss.batch import Clip
from paec_loss.methods.gspo import GSPO

FIRST, SECOND = 1.161834, 0.883969  # exp(0.6 / 4), exp(-0.37 / 3)


def test_equals_values_computed_by_hand():
    """All tokens of a response have the same weight; the whole response is clipped."""
    tokens = toy_batch()
    wide = GSPO(clip_low=0.5, clip_high=0.5)
    assert_six_digits(gradient_weights(wide, tokens), [FIRST] * 4 + [SECOND] * 3)
    losses = wide.policy_loss(tokens, None, update_of(tokens, wide))[tokens.response_mask]
    assert_six_digits(losses, [-FIRST] * 4 + [SECOND] * 3)
    assert gradient_weights(GSPO(clip_low=0.5, clip_high=0.16), tokens)[:4].tolist() == [0] * 4
    assert gradient_weights(GSPO(clip_low=0.11, clip_high=0.5), tokens)[4:].tolist() == [0] * 3
    assert gradient_weights(GSPO(), tokens).tolist() == [0] * 7


def reference(tokens, low: float, high: float, mode: str) -> torch.Tensor:
    """The published objective with s itself, whose gradient reaches every token through the mean."""
    rows = []
    for taken, old, advantage, inside in zip(
        tokens.log_prob, tokens.old_log_prob, tokens.advantages, tokens.response_mask, strict=True
    ):
        if inside.any():
            s, a = (taken - old)[inside].mean().exp(), advantage[0]
            rows.append((-torch.minimum(s * a, s.clamp(1 - low, 1 + high) * a), int(inside.sum())))
    if mode == "token-mean":
        return sum(loss * count for loss, count in rows) / sum(count for _, count in rows)
    return sum(loss for loss, _ in rows) / len(rows)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean"])
@pytest.mark.parametrize("low, high", [(3e-4, 4e-4), (0.05, 0.1), (0.5, 0.5)])
def test_against_the_formula(low, high, mode):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    method = GSPO(clip_low=low, clip_high=high)
    losses = method.policy_loss(tokens, None, update_of(tokens, method))
    assert_same_gradient(aggregated(losses, tokens.response_mask, mode), reference(tokens, low, high, mode), logits)


@pytest.mark.parametrize("agg", ["token-mean", "seq-mean-token-mean"])
@pytest.mark.parametrize("low, high", [(3e-4, 4e-4), (0.1, 0.2)])
def test_equals_verls_implementation(low, high, agg):
    method = GSPO(clip_low=low, clip_high=high)
    assert_verls_own(method, "gspo", agg, clip_ratio_low=low, clip_ratio_high=high)


def test_a_response_of_one_token_is_clipped_by_its_ratio():
    """As PPO, but for the dual clip: r = 4 with A < 0 keeps its gradient."""
    method = GSPO(clip_low=0.2, clip_high=0.2)
    for ratio, advantage, weight in ((1.1, 2.0, 1.1), (1.3, 2.0, 0.0), (0.7, -2.0, 0.0), (4.0, -2.0, 4.0)):
        tokens = hand_batch([[math.log(ratio)]], [[advantage]], old_log_prob=[[0.0]])
        assert gradient_weights(method, tokens).item() == pytest.approx(weight, rel=1e-12)


def test_on_policy_it_is_the_policy_gradient():
    logits, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    loss = mini_batch_loss(GSPO(), tokens)
    expected = -((tokens.log_prob - tokens.old_log_prob).exp() * tokens.advantages)[tokens.response_mask].mean()
    assert_same_gradient(loss, expected, logits)


def test_the_range_is_its_own():
    assert GSPO().clip(CLIP) == Clip(3e-4, 4e-4, float("inf"))


@pytest.mark.parametrize("method", [GSPO(), GSPO(clip_low=0.2, clip_high=0.2)])
def test_the_gradient_does_not_depend_on_the_split(method):
    """A response is never split; Ulysses ranks have complete responses (tests/unit/paec/actor/test_engine.py)."""
    assert_any_split(method)


@pytest.mark.parametrize("field, value", [("clip_low", 1.1), ("clip_high", float("nan")), ("clip_high", -0.1)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        GSPO(**{field: value})
