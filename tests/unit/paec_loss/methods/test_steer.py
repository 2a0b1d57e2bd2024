"""STEER: weights by hand, both formulas on a random batch, tiny probabilities, the limits, every split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import assert_any_split, detached, hand_batch, isclose, mini_batch_loss, random_batch, update_of

from paec_loss.batch import Clip
from paec_loss.methods.clip_higher import ClipHigher
from paec_loss.methods.steer import STEER, Changes

HALF = math.log(0.5)
# On-policy, p = 1/2: Omega = A / 2 (ln 1/2 + H); H = ln 2 + 1 gives A / 2: 1, 0.5, 0.25, and 0 for H = ln 2.
HAND = hand_batch(
    [[HALF, HALF], [HALF], [HALF]],
    [[2.0, -1.0], [0.5], [2.0]],
    entropy=[[1 - HALF, 1 - HALF], [1 - HALF], [-HALF]],
)


def weights(method: STEER, tokens=HAND) -> torch.Tensor:
    """[N] factor of every token's advantage."""
    update = update_of(tokens, method)
    shaped = method.token_advantages(tokens, method.prepare(detached(tokens), update), update)
    return (shaped / tokens.advantages)[tokens.response_mask]


@pytest.mark.parametrize(
    "method, expected",
    [
        (STEER(), [0.8, 0.8**0.5, 0.8**0.25, 1.0]),
        (STEER(lambda_min=0.7), [0.7, 0.7**0.5, 0.7**0.25, 1.0]),
        (STEER(lambda_min=1.0), [1.0, 1.0, 1.0, 1.0]),
        (STEER(variant="linear"), [0.8, 1.0, 1.1, 1.2]),
        (STEER(variant="linear", lambda_min=0.5, lambda_max=0.9), [0.5, 0.7, 0.8, 0.9]),
    ],
)
def test_weights_by_hand(method, expected):
    torch.testing.assert_close(weights(method), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_range_is_at_least_a_fiftieth():
    """Omega = 0.01 and 0.005: half and a quarter of the way, not all of it."""
    small = replace(HAND, advantages=HAND.advantages / 100)
    expected = torch.tensor([0.8**0.5, 0.8**0.25, 0.8**0.125, 1.0], dtype=torch.float64)
    torch.testing.assert_close(weights(STEER(), small), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variant, least, most", [("exponential", 0.8, 1.0), ("linear", 0.8, 1.2)])
def test_a_change_beyond_the_measured_range_stays_within_the_bounds(variant, least, most):
    """With statistics_from=step an update is not where its range was measured."""
    method, update = STEER(variant=variant, statistics_from="step"), update_of(HAND, STEER())
    shaped = method.token_advantages(HAND, Changes(0.3, 0.4), update)
    found = (shaped / HAND.advantages)[HAND.response_mask]
    torch.testing.assert_close(found[[0, 1, 3]], torch.tensor([least, least, most]).double(), rtol=1e-7, atol=0)


def test_equal_changes():
    """Equal rewards: Omega = 0 everywhere; the weight is 1, or midway between the bounds."""
    tokens = replace(HAND, advantages=HAND.advantages * 0)
    for method in (STEER(), STEER(variant="linear")):
        assert mini_batch_loss(method, tokens).item() == 0
    single = hand_batch([[HALF]], [[2.0]], entropy=[[1.0]])
    assert isclose(weights(STEER(variant="linear", lambda_max=1.0), single).item(), 0.9)


def test_a_tiny_probability_is_finite():
    """p = e^-200 now and e^-190 at the start of the step: the ratio counts, e^-10, neither of the two."""
    tokens = hand_batch([[-200.0, HALF]], [[1.0, 0.0]], old_log_prob=[[-190.0, HALF]], entropy=[[0.0, 0.0]])
    method = STEER()
    assert isclose(method.prepare(detached(tokens), update_of(tokens, method)).most, math.exp(-10) * 200)
    assert torch.isfinite(mini_batch_loss(method, tokens))


@pytest.mark.parametrize("variant", ["exponential", "linear"])
def test_the_formula_on_a_random_batch(variant):
    logits, tokens = random_batch()
    advantage, inside = tokens.advantages, tokens.response_mask
    probability = tokens.log_prob.detach().exp()
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1).detach()
    omega = advantage / tokens.old_log_prob.exp() * probability * (1 - probability) * (probability.log() + entropy)
    size = omega.abs()
    least, most = size[inside].min(), size[inside].max()
    if variant == "exponential":
        weight = torch.exp(math.log(0.6) * size / max(most.item(), 0.02)).clamp(0.6, 1)
    else:
        weight = 1.3 - (size - least) * (1.3 - 0.6) / (most - least)
    ratio = (tokens.log_prob - tokens.old_log_prob).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.7, 1.4))
    loss = weight * torch.where(advantage < 0, torch.minimum(loss, -advantage * 1.1), loss)
    method = STEER(variant=variant, lambda_min=0.6, lambda_max=1.3, clip_low=0.3, clip_high=0.4, dual_clip=1.1)
    ours, theirs = mini_batch_loss(method, tokens), loss[inside].mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_with_weight_one_it_is_clip_higher_with_another_dual_clip():
    _, tokens = random_batch()
    assert STEER().clip(Clip(0.1, 0.1, 3.0)) == Clip(0.2, 0.28, 10.0)
    method = STEER(lambda_min=1.0, dual_clip=3.0)
    assert mini_batch_loss(method, tokens) == mini_batch_loss(ClipHigher(), tokens)


def test_an_infinite_dual_clip_is_none():
    """r = e^3 and A = -1: the loss is r without a dual clip, and 10 with the default."""
    method = STEER(dual_clip=math.inf, lambda_min=1.0)
    assert method.clip(Clip(0.1, 0.1, 3.0)) == Clip(0.2, 0.28, math.inf)
    tokens = hand_batch([[-1.0]], [[-1.0]], old_log_prob=[[-4.0]])
    assert isclose(mini_batch_loss(method, tokens).item(), math.exp(3))
    assert isclose(mini_batch_loss(STEER(lambda_min=1.0), tokens).item(), 10.0)
    for wrong in (-math.inf, math.nan, 0.5):
        with pytest.raises(ValueError, match=r"method.dual_clip=.*: must be in \[1, inf\]"):
            STEER(dual_clip=wrong)


@pytest.mark.parametrize("method", [STEER(), STEER(variant="linear"), STEER(statistics_from="step")])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize(
    "field, value",
    [("variant", "exponent"), ("lambda_min", 0), ("lambda_min", 1.5), ("lambda_max", 0.5), ("dual_clip", 0.5)],
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        STEER(**{field: value})
