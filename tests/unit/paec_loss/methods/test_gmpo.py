"""GMPO: the response's value by hand, the formula response by response, verl's own, the limits, every split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import (
    assert_any_split,
    assert_same_gradient,
    assert_six_digits,
    gradient_weights,
    hand_batch,
    random_batch,
    toy_batch,
    update_of,
)
from verl_losses import aggregated, assert_verls_own

from paec_loss.methods.gmpo import GMPO


def losses(method: GMPO, tokens) -> torch.Tensor:
    return method.policy_loss(tokens, None, update_of(tokens, method))


def test_equals_values_computed_by_hand():
    """Every token of a response has its value; at 0.2 the log-ratios 0.4 and 0.3 (A > 0) and -0.4 (A < 0) are cut."""
    tokens = toy_batch()
    inside = tokens.response_mask
    assert_six_digits(losses(GMPO(low=0.41, high=0.41), tokens)[inside], [-1.161834] * 4 + [0.883969] * 3)
    assert_six_digits(losses(GMPO(), tokens)[inside], [-1.161834] * 4 + [0.883969] * 3)
    narrow = GMPO(low=0.2, high=0.2)
    first, second = 1.077884, math.exp(-0.17 / 3)
    assert_six_digits(losses(narrow, tokens)[inside], [-first] * 4 + [second] * 3)
    assert_six_digits(gradient_weights(narrow, tokens), [first, 0, first, 0, second, 0, second])


def test_the_clip_is_on_the_pessimistic_side_only():
    """Log-ratios -1 and 1: with A > 0 the second is cut, with A < 0 the first."""
    tokens = hand_batch([[-1.0, 1.0]] * 2, [[1.0] * 2, [-1.0] * 2], old_log_prob=[[0.0] * 2] * 2)
    assert_six_digits(losses(GMPO(), tokens)[:, 0], [-math.exp(-0.3), math.exp(0.3)])


def reference(tokens, low: float, high: float) -> torch.Tensor:
    """The mean over responses, one token at a time: the product of the clipped ratios to the power 1 / length."""
    rows = []
    for taken, old, advantage, inside in zip(
        tokens.log_prob, tokens.old_log_prob, tokens.advantages, tokens.response_mask, strict=True
    ):
        if inside.any():
            a, product = advantage[0], torch.ones((), dtype=torch.float64)
            for ratio in (taken - old)[inside].exp():
                clipped = ratio.clamp(max=math.exp(high)) if a > 0 else ratio.clamp(min=math.exp(-low))
                product = product * clipped
            rows.append(-a * product ** (1 / int(inside.sum())))
    return torch.stack(rows).mean()


@pytest.mark.parametrize("low, high", [(0.4, 0.4), (0.1, 0.3)])
def test_against_the_formula(low, high):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    found = aggregated(losses(GMPO(low=low, high=high), tokens), tokens.response_mask, "seq-mean-token-mean")
    assert_same_gradient(found, reference(tokens, low, high), logits)


@pytest.mark.parametrize("low, high", [(0.4, 0.4), (0.1, 0.3)])
def test_equals_verls_implementation(low, high):
    method = GMPO(low=low, high=high)
    assert_verls_own(method, "geo_mean", "seq-mean-token-mean", clip_ratio_low=low, clip_ratio_high=high)


def test_on_policy_it_is_the_policy_gradient():
    _, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    weights = gradient_weights(GMPO(), tokens)
    torch.testing.assert_close(weights, torch.ones_like(weights), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [GMPO(), GMPO(low=0.05, high=0.05)])
def test_the_gradient_does_not_depend_on_the_split(method):
    """A response is never split; Ulysses ranks have complete responses (tests/unit/paec/actor/test_engine.py)."""
    assert_any_split(method)


@pytest.mark.parametrize("field, value", [("low", -0.1), ("high", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        GMPO(**{field: value})
