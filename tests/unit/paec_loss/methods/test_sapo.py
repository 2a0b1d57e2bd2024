"""SAPO: gates and weights by hand, the formula token by token, verl's own, the limits, every split."""

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
    mini_batch_loss,
    random_batch,
    toy_batch,
    update_of,
)
from verl_losses import assert_verls_own

from paec_loss.methods.sapo import SAPO


def test_equals_values_computed_by_hand():
    tokens = toy_batch()
    gates = [1.904909, 2.482145, 2, 2.346333, 1.904762, 1.578335, 1.935214]
    losses = SAPO().policy_loss(tokens, None, update_of(tokens, SAPO()))
    assert_six_digits((-losses / tokens.advantages)[tokens.response_mask], gates)
    weights = [0.902792, 1.405126, 1, 1.309381, 1, 0.650633, 1.030191]
    assert_six_digits(gradient_weights(SAPO(), tokens), weights)


@pytest.mark.parametrize("advantage", [3.0, -3.0])
def test_far_from_one_a_token_has_hardly_a_gradient(advantage):
    tokens = hand_batch([[math.log(50.0), math.log(1e-9)]], [[advantage] * 2], old_log_prob=[[0.0] * 2])
    assert gradient_weights(SAPO(), tokens).abs().max() < 1e-8


@pytest.mark.parametrize("taus", [(1.0, 1.05), (3.0, 0.5)])
def test_against_the_formula(taus):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    inside, total = tokens.response_mask, 0.0
    ratios = (tokens.log_prob - tokens.old_log_prob)[inside].exp()
    for ratio, advantage in zip(ratios, tokens.advantages[inside].tolist(), strict=True):
        tau = taus[0] if advantage > 0 else taus[1]
        total = total - advantage * 4 / tau / (1 + torch.exp(-tau * (ratio - 1)))
    loss = mini_batch_loss(SAPO(tau_positive=taus[0], tau_negative=taus[1]), tokens)
    assert_same_gradient(loss, total / inside.sum(), logits)


@pytest.mark.parametrize("positive, negative", [(1.0, 1.05), (2.0, 4.0)])
def test_equals_verls_implementation(positive, negative):
    method = SAPO(tau_positive=positive, tau_negative=negative)
    assert_verls_own(method, "sapo", "seq-mean-token-mean", tau_pos=positive, tau_neg=negative)


def test_a_flat_gate_is_the_ratio_without_a_clip():
    """tau -> 0: f = 2 / tau + r - 1."""
    tokens = toy_batch()
    weights = gradient_weights(SAPO(tau_positive=1e-5, tau_negative=1e-5), tokens)
    ratios = tokens.log_ratio.detach().exp()[tokens.response_mask]
    torch.testing.assert_close(weights, ratios, rtol=1e-9, atol=0)


def test_on_policy_it_is_the_policy_gradient():
    _, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    weights = gradient_weights(SAPO(tau_positive=3.0), tokens)
    torch.testing.assert_close(weights, torch.ones_like(weights), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [SAPO(), SAPO(tau_positive=5.0, tau_negative=0.1)])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize("field, value", [("tau_positive", 0), ("tau_negative", -1), ("tau_negative", float("nan"))])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        SAPO(**{field: value})
