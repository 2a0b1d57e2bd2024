"""BAPO: the balance and the search by hand, the formula on a random batch, the limits, every split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    assert_same_gradient,
    detached,
    hand_batch,
    mini_batch_loss,
    random_batch,
    toy_batch,
    update_of,
)

from paec_loss.batch import Clip
from paec_loss.method import clipped_surrogate
from paec_loss.methods.bapo import BAPO, Bounds


def bounds(method: BAPO, tokens) -> Bounds:
    return method.prepare(detached(tokens), update_of(tokens, method))


@pytest.mark.parametrize(
    "fields, low, high, balance",
    [
        ({}, 0.6, 1.2, 1.593927),
        ({"high": 1.3}, 0.6, 1.3, 1.667980),
        ({"balance": 1.59}, 0.6, 1.2, 1.593927),
        # (.8, 1.2) has 1.520898, (.8, 1.3) 1.591560, (.8, 1.35) 1.626873: low is at its limit before high moves.
        ({"balance": 1.6, "max_low": 0.8}, 0.8, 1.35, 4.604696 / 2.830455),
        ({"balance": 1.6, "max_low": 0.6}, 0.6, 1.25, 4.404837 / 2.700775),
        # The ratios .904837 1.491825 1 1.349859 | 1 .670320 1.030455 at the published limits .9 and 3.
        ({"balance": 9.0}, 0.9, 3.0, 4.746521 / 2.930455),
        ({"balance": 9.0, "step": 0.15}, 0.9, 3.0, 4.746521 / 2.930455),
    ],
)
def test_the_search_by_hand(fields, low, high, balance):
    found = bounds(BAPO(**fields), toy_batch())
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.balance == pytest.approx(balance, abs=2e-6)


def test_the_bounds_that_are_tried():
    tried = BAPO(low=0.6, max_low=0.75, high=1.2, max_high=1.4, step=0.1)._search()
    assert [tuple(round(x, 12) for x in pair) for pair in tried] == [
        (0.6, 1.2),
        (0.7, 1.2),
        (0.75, 1.2),
        (0.75, 1.3),
        (0.75, 1.4),
    ]


@pytest.mark.parametrize(
    "advantages, low, high", [([0.0, 0.0], 0.6, 1.2), ([1.0, 0.0], 0.6, 1.2), ([0.0, -1.0], 0.9, 3.0)]
)
def test_one_sign_only(advantages, low, high):
    """Without negative tokens nothing moves; without positive ones everything does."""
    found = bounds(BAPO(), hand_batch([[-1.0, -1.0]], [advantages]))
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize("balance", [0.5, 1.0, 1.6, 30.0])
def test_against_the_formula(balance):
    logits, tokens = random_batch(seed=2, lengths=(9, 1, 14, 3, 0, 8))
    inside = tokens.response_mask
    ratios, advantages = (tokens.log_prob - tokens.old_log_prob)[inside].exp(), tokens.advantages[inside]
    low, high = 0.6, 1.2
    while True:
        good = sum(min(r, high) * a for r, a in zip(ratios.tolist(), advantages.tolist(), strict=True) if a > 0)
        bad = sum(max(r, low) * -a for r, a in zip(ratios.tolist(), advantages.tolist(), strict=True) if a < 0)
        if good / bad >= balance or (low > 0.89 and high > 2.99):
            break
        low, high = (low + 0.05, high) if low < 0.89 else (low, high + 0.05)
    loss = torch.maximum(-advantages * ratios, -advantages * ratios.clamp(low, high))
    loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * CLIP.dual_clip), loss)
    method = BAPO(balance=balance)
    found = bounds(method, tokens)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    torch.testing.assert_close(mini_batch_loss(method, tokens), loss.mean(), rtol=1e-9, atol=0)
    assert_same_gradient(
        mini_batch_loss(method, tokens),
        clipped_surrogate(tokens, Clip(1 - found.low, found.high - 1, CLIP.dual_clip))[inside].mean(),
        logits,
    )


def test_bounds_that_cannot_move_are_a_clip_range():
    logits, tokens = random_batch()
    method = BAPO(low=0.7, max_low=0.7, high=1.1, max_high=1.1, balance=50)
    expected = clipped_surrogate(tokens, Clip(0.3, 0.1, CLIP.dual_clip))[tokens.response_mask].mean()
    assert_same_gradient(mini_batch_loss(method, tokens), expected, logits)


def test_its_metrics():
    assert BAPO().metrics(Bounds(0.7, 1.2, 3.0), {}, None) == {"low": 0.7, "high": 1.2}


def test_on_policy_it_is_the_policy_gradient():
    logits, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    expected = -((tokens.log_prob - tokens.old_log_prob).exp() * tokens.advantages)[tokens.response_mask].mean()
    assert_same_gradient(mini_batch_loss(BAPO(), tokens), expected, logits)


@pytest.mark.parametrize("method", [BAPO(), BAPO(balance=50), BAPO(statistics_from="step")])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize(
    "field, value",
    [("low", 0), ("max_low", 0.5), ("high", 0.9), ("max_high", 1.1), ("step", 0), ("balance", float("nan"))],
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        BAPO(**{field: value})
