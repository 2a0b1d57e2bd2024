"""DPPO: which tokens stay by hand, the formula token by token, verl's own, the limits, every split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from batches import (
    assert_any_split,
    assert_same_gradient,
    assert_six_digits,
    gradient_weights,
    hand_batch,
    mini_batch_loss,
    random_batch,
    toy_batch,
)
from verl_losses import assert_verls_own

from paec_loss.methods.dppo import DPPO

# Of the toy batch: p - p_old, and the binary KL.
MOVED = [-0.086107, 0.066561, 0, 0.128706, 0, -0.073562, 0.028969]
RATIOS = [0.904837, 1.491825, 1, 1.349859, 1, 0.670320, 1.030455]


@pytest.mark.parametrize(
    "low, high, gone",
    [
        (0.2, 0.2, []),
        (0.2, 0.1, [3]),
        (0.2, 0.06, [1, 3]),
        (0.074, 0.2, []),
        (0.073, 0.2, [5]),
        (0.01, 0.01, [1, 3, 5]),  # not the first, whose probability fell although A > 0
    ],
)
def test_total_variation_by_hand(low, high, gone):
    expected = [0.0 if i in gone else ratio for i, ratio in enumerate(RATIOS)]
    assert_six_digits(gradient_weights(DPPO(low=low, high=high), toy_batch()), expected)
    for i, moved in enumerate(MOVED):
        assert (i in gone) == (moved > high if i < 4 else moved < -low)


@pytest.mark.parametrize(
    "low, high, gone",
    [
        (0.2, 0.2, []),
        (0.2, 0.015130, [3]),
        (0.2, 0.015128, [1, 3]),  # the second token's KL is 0.015129
        (0.001, 0.001, [1, 3, 5]),
    ],
)
def test_kl_by_hand(low, high, gone):
    expected = [0.0 if i in gone else ratio for i, ratio in enumerate(RATIOS)]
    assert_six_digits(gradient_weights(DPPO(divergence="kl", low=low, high=high), toy_batch()), expected)


def test_the_loss_by_hand():
    """-r A log p of the kept tokens, over all tokens."""
    kept = [0.904837 * 0.2, 1.491825 * 1.6, 0.5, 0.0, -0.3, -0.670320 * 1.9, -1.030455 * 0.02]
    assert mini_batch_loss(DPPO(high=0.1), toy_batch()).item() == pytest.approx(sum(kept) / 7, abs=1e-6)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_the_weight_is_bounded_not_clipped(divergence, advantage):
    """p from 0.0001 to 0.01: a ratio of 100 that has moved 0.0099 of probability, 0.0354 nats of the binary KL."""
    tokens = hand_batch([[math.log(0.01)]], [[advantage]], old_log_prob=[[math.log(1e-4)]])
    assert gradient_weights(DPPO(divergence=divergence), tokens).item() == pytest.approx(20, rel=1e-12)
    wide = DPPO(divergence=divergence, max_ratio=1000)
    assert gradient_weights(wide, tokens).item() == pytest.approx(100, rel=1e-12)


@pytest.mark.parametrize("divergence, threshold", [("tv", 0.15), ("kl", 0.05)])
def test_the_threshold_is_that_of_the_divergence(divergence, threshold):
    """p rises from .5 by .149 and .151 (tv), by .154 and .156: a KL of .0498 and .0512 (kl)."""
    method = DPPO(divergence=divergence)
    given = DPPO(divergence=divergence, low=threshold, high=threshold)
    assert method._with_thresholds() == given == DPPO(divergence=divergence, low=threshold)._with_thresholds()
    assert replace(DPPO(divergence="kl" if divergence == "tv" else "tv"), divergence=divergence) == method
    near, far = {"tv": (0.149, 0.151), "kl": (0.154, 0.156)}[divergence]
    for p, weight in ((0.5 + near, 1.0 + 2 * near), (0.5 + far, 0.0)):
        tokens = hand_batch([[math.log(p)]], [[1.0]], old_log_prob=[[math.log(0.5)]])
        assert gradient_weights(method, tokens).item() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("now, old", [(0.0, 0.0), (0.0, -1e-12), (-1e-12, 0.0)])
def test_a_certain_token_is_kept(now, old):
    for advantage in (1.0, -1.0):
        tokens = hand_batch([[now]], [[advantage]], old_log_prob=[[old]])
        assert gradient_weights(DPPO(divergence="kl"), tokens).item() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
@pytest.mark.parametrize("low, high, most", [(0.02, 0.03, 20.0), (0.2, 0.2, 1.1)])
def test_against_the_formula(divergence, low, high, most):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    # The batch's noise would put some old probabilities above 1.
    tokens = replace(tokens, old_log_prob=tokens.old_log_prob.clamp_max(-1e-3))
    inside, total = tokens.response_mask, 0.0
    for taken, old, a in zip(
        tokens.log_prob[inside], tokens.old_log_prob[inside].tolist(), tokens.advantages[inside].tolist(), strict=True
    ):
        p, q = math.exp(taken.item()), math.exp(old)
        kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
        if divergence == "tv":
            kept = p - q <= high if a > 0 else q - p <= low
        else:
            kept = kl <= high or p <= q if a > 0 else kl <= low or p >= q
        if kept:
            total = total - min(p / q, most) * a * taken
    loss = mini_batch_loss(DPPO(divergence=divergence, low=low, high=high, max_ratio=most), tokens)
    assert_same_gradient(loss, total / inside.sum(), logits)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
@pytest.mark.parametrize("low, high, most", [(0.02, 0.03, 20.0), (0.2, 0.2, 1.1)])
def test_equals_verls_implementation(divergence, low, high, most):
    method = DPPO(divergence=divergence, low=low, high=high, max_ratio=most)
    fields = {"clip_ratio_low": low, "clip_ratio_high": high, "clip_ratio_c": most}
    assert_verls_own(method, f"dppo_{divergence}", **fields)
    assert_verls_own(method, f"dppo_{divergence}", "seq-mean-token-mean", **fields)


def test_on_policy_it_is_the_policy_gradient():
    logits, tokens = random_batch()
    tokens = replace(tokens, old_log_prob=tokens.log_prob.detach())
    for divergence in ("tv", "kl"):
        loss = mini_batch_loss(DPPO(divergence=divergence, low=0, high=0), tokens)
        assert_same_gradient(loss, -(tokens.log_prob * tokens.advantages)[tokens.response_mask].mean(), logits)


@pytest.mark.parametrize("method", [DPPO(), DPPO(low=0.01, high=0.01), DPPO(divergence="kl", low=0.01, high=0.01)])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method)


@pytest.mark.parametrize(
    "field, value", [("divergence", "js"), ("low", -0.1), ("high", float("nan")), ("max_ratio", 0)]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        DPPO(**{field: value})
