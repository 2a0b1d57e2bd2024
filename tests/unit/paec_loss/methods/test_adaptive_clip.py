"""Adaptive clip: the bound over steps and the weights by hand, the surrogate, its state, every split."""

from __future__ import annotations

import json
import math

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
    rollouts_of,
    toy_batch,
)

from paec_loss.methods.adaptive_clip import AdaptiveClip


def rollouts(entropy: float, step: int = 1):
    return rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[2 * entropy], [0.0]], step=step)


def test_the_bound_by_hand():
    """Up below the target, down above it, still at it, in [0, max]."""
    tracker = AdaptiveClip(target=0.3, change=0.25, max_extra=0.6).tracker()
    seen = []
    for step, entropy in enumerate([0.5, 0.2, 0.2, 0.3, 0.2, 0.4, 0.2, 0.5, 0.5, 0.5], start=1):
        assert tracker.observe(rollouts(entropy, step)) == {"entropy": entropy, **tracker.signal(step)}
        seen.append(tracker.signal(step)["extra"])
    assert seen == pytest.approx([0, 0.25, 0.5, 0.5, 0.6, 0.35, 0.6, 0.35, 0.1, 0], abs=1e-12)


def test_a_nan_entropy_is_not_one_at_the_target():
    tracker = AdaptiveClip().tracker()
    tracker.observe(rollouts(0.2))
    assert math.isnan(tracker.observe(rollouts(math.nan))["extra"])
    assert math.isnan(tracker.observe(rollouts(0.5))["extra"]), "and it does not vanish by itself"
    assert math.isnan(mini_batch_loss(AdaptiveClip(), toy_batch(), **tracker.signal(4)).item())


def test_the_clip_range_by_hand():
    """e = .2: ratios in [.8, 1.25 + k]; r = .904837 1.491825 1 1.349859 (A > 0) and 1 .670320 1.030455."""
    free = [0.904837, 1.491825, 1, 1.349859, 1, 0, 1.030455]
    assert_six_digits(gradient_weights(AdaptiveClip(clip_low=0.2), toy_batch(), extra=0.25), free)
    one = [0.904837, 0, 1, 1.349859, 1, 0, 1.030455]
    assert_six_digits(gradient_weights(AdaptiveClip(clip_low=0.2), toy_batch(), extra=0.2), one)
    both = [0.904837, 0, 1, 0, 1, 0, 1.030455]
    assert_six_digits(gradient_weights(AdaptiveClip(clip_low=0.2), toy_batch(), extra=0.0), both)
    # The defaults: [.4, 2.5 + k]
    assert_six_digits(gradient_weights(AdaptiveClip(), toy_batch(), extra=0.0), [*free[:5], 0.670320, 1.030455])


def test_the_loss_at_the_bound_and_the_dual_clip():
    tokens = hand_batch([[2.0, 2.0]], [[1.0, -1.0]], old_log_prob=[[0.0, 0.0]])  # r = 7.389
    assert mini_batch_loss(AdaptiveClip(), tokens, extra=1.0).item() == pytest.approx((-3.5 + 3.0) / 2, rel=1e-12)


def test_against_the_formula():
    logits, tokens = random_batch()
    inside, method = tokens.response_mask, AdaptiveClip(clip_low=0.15)
    ratio, advantages = (tokens.log_prob - tokens.old_log_prob)[inside].exp(), tokens.advantages[inside]
    clipped = ratio.clamp(0.85, 1 / 0.85 + 0.1)
    gain = (ratio * advantages).minimum(clipped * advantages)
    gain = gain.maximum(advantages * CLIP.dual_clip).where(advantages < 0, gain)
    assert_same_gradient(mini_batch_loss(method, tokens, extra=0.1), -gain.mean(), logits)


def test_a_resumed_run_continues_where_it_was():
    whole, first, second = (AdaptiveClip().tracker() for _ in range(3))
    for entropy in (0.1, 0.2):
        whole.observe(rollouts(entropy))
        first.observe(rollouts(entropy))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.signal(3) == first.signal(3) == {"extra": 0.5}
    assert second.observe(rollouts(0.1)) == whole.observe(rollouts(0.1)) == {"entropy": 0.1, "extra": 0.75}
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "state", [{}, {"extra": -0.1}, {"extra": 2.6}, {"extra": float("nan")}, {"extra": 1}, {"extra": 0.5, "more": 0.0}]
)
def test_a_state_that_no_run_has_written_is_refused(state):
    tracker = AdaptiveClip().tracker()
    with pytest.raises(ValueError, match="adaptive_clip state .* must be extra, in"):
        tracker.load_state_dict(state)
    assert tracker.state_dict() == {"extra": 0.0}


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(AdaptiveClip(clip_low=0.1), extra=0.05)


@pytest.mark.parametrize(
    "field, value", [("clip_low", 1.0), ("change", -0.1), ("max_extra", -1), ("target", float("nan"))]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        AdaptiveClip(**{field: value})
