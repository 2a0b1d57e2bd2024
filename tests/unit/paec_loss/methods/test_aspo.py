"""ASPO: weights by hand, the formula token by token, the limits, every split."""

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

from paec_loss.methods.aspo import ASPO


def test_equals_values_computed_by_hand():
    plain = ASPO(clip_uncertain=0.2, clip_certain=0.2)
    assert_six_digits(gradient_weights(plain, toy_batch()), [1.105171, 0, 1, 0, 1, 0, 1.030455])
    # Tokens 2 and 6 are uncertain: their range is wide enough here.
    wide = ASPO(clip_uncertain=0.5, clip_certain=0.2)
    assert_six_digits(gradient_weights(wide, toy_batch()), [1.105171, 0.670320, 1, 0, 1, 0.670320, 1.030455])


@pytest.mark.parametrize(
    "ratio, advantage, loss, gradient",
    [
        (0.5, 2.0, -4.0, -4.0),  # unlikely token of a good response: 1 / r
        (0.1, 2.0, -6.0, -6.0),  # at most 3, with its gradient
        (1e-12, 2.0, -6.0, -6.0),
        (1.1, 2.0, -2 / 1.1, -2 / 1.1),
        (1.5, 2.0, -2 / 1.2, 0.0),  # clipped above
        (0.5, -2.0, 1.6, 0.0),  # clipped below
        (1.5, -2.0, 3.0, 3.0),
        (4.0, -2.0, 6.0, 6.0),  # at most 3, with its gradient
        (1e12, -2.0, 6.0, 6.0),
    ],
)
def test_loss_and_gradient_by_hand(ratio, advantage, loss, gradient):
    tokens = hand_batch([[math.log(ratio)]], [[advantage]], old_log_prob=[[0.0]])
    found = ASPO().policy_loss(tokens, None, update_of(tokens, ASPO()))[0, 0]
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert torch.autograd.grad(found, tokens.log_prob)[0].item() == pytest.approx(gradient, rel=1e-12)


def reference(tokens, most: float, quantile: float, wide: float, narrow: float) -> torch.Tensor:
    total, count = 0.0, 0
    for i, inside in enumerate(tokens.response_mask):
        if not inside.any():
            continue
        entropy = tokens.entropy[i].detach()[inside]
        high = entropy > torch.quantile(entropy, quantile)
        rows = (tokens.log_prob[i], tokens.old_log_prob[i], tokens.advantages[i])
        for taken, old, a, is_high in zip(*(row[inside] for row in rows), high, strict=True):
            ratio, width = math.exp((taken - old).item()), wide if is_high else narrow
            count += 1
            if a > 0 and ratio > 1 + width:
                total = total - a / (1 + width)
            elif a < 0 and ratio < 1 - width:
                total = total - a * (1 - width)
            else:
                weight = min(1 / ratio if a > 0 else ratio, most)
                total = total - a * weight * (1 + taken - taken.detach())
    return total / count


@pytest.mark.parametrize("most, quantile, wide, narrow", [(3.0, 0.8, 0.4, 0.2), (1.1, 0.4, 0.1, 0.5)])
def test_against_the_formula(most, quantile, wide, narrow):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    method = ASPO(most, quantile, clip_uncertain=wide, clip_certain=narrow)
    assert_same_gradient(mini_batch_loss(method, tokens), reference(tokens, most, quantile, wide, narrow), logits)


def test_on_policy_it_is_the_policy_gradient():
    _, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    weights = gradient_weights(ASPO(), tokens)
    torch.testing.assert_close(weights, torch.ones_like(weights), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [ASPO(), ASPO(max_weight=1.0, quantile=0.3, clip_certain=0.01)])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize(
    "field, value", [("max_weight", 0), ("quantile", -1), ("clip_uncertain", 1.1), ("clip_certain", float("nan"))]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        ASPO(**{field: value})
