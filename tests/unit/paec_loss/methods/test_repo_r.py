"""REPO-R: factors by hand, the formula, the controller over steps, its state, every split."""

from __future__ import annotations

import json
import math

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    assert_same_gradient,
    mini_batch_loss,
    random_batch,
    rollouts_of,
    toy_batch,
    update_of,
)

from paec_loss.methods.none import NoMethod
from paec_loss.methods.repo_r import REPOR


def rollouts(entropy: float, step: int = 1):
    return rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[2 * entropy], [0.0]], step=step)


def factors(zeta: float) -> list[float]:
    tokens = toy_batch()
    changed = REPOR().token_advantages(tokens, None, update_of(tokens, REPOR(), zeta=zeta))
    assert not changed.requires_grad
    return (changed / tokens.advantages)[tokens.response_mask].tolist()


def test_factors_by_hand():
    """log p = -.2 -1.6 -.5 -.7 (A = 1) and -.3 -1.9 -.02 (A = -1)."""
    assert factors(0.1) == pytest.approx([1.02, 1.16, 1.05, 1.07, 0.97, 0.81, 0.998], rel=1e-12)
    assert factors(-0.1) == pytest.approx([0.98, 0.84, 0.95, 0.93, 1.03, 1.19, 1.002], rel=1e-12)
    # No advantage changes its sign.
    assert factors(1.0) == pytest.approx([1.2, 2.6, 1.5, 1.7, 0.7, 0, 0.98], rel=1e-12)
    assert factors(-1.0) == pytest.approx([0.8, 0, 0.5, 0.3, 1.3, 2.9, 1.02], rel=1e-12)
    assert factors(0.0) == [1.0] * 7


@pytest.mark.parametrize("zeta", [0.3, -0.2])
def test_against_the_formula(zeta):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    inside = tokens.response_mask
    a, log_prob = tokens.advantages[inside], tokens.log_prob[inside]
    good = (a * (1 - zeta * log_prob.detach())).clamp_min(0)
    bad = (a * (1 + zeta * log_prob.detach())).clamp_max(0)
    scaled = torch.where(a > 0, good, bad)
    ratio = (log_prob - tokens.old_log_prob[inside]).exp()
    gain = (ratio * scaled).minimum(ratio.clamp(0.8, 1.2) * scaled)
    gain = torch.where(scaled < 0, gain.maximum(CLIP.dual_clip * scaled), gain)
    assert_same_gradient(mini_batch_loss(REPOR(), tokens, zeta=zeta), -gain.mean(), logits)


def test_zeta_zero_is_the_clipped_surrogate():
    _, tokens = random_batch()
    method = REPOR(zeta=0.0)
    assert mini_batch_loss(method, tokens, **method.tracker().signal(1)) == mini_batch_loss(NoMethod(), tokens)


def test_a_fixed_zeta_is_the_field():
    tracker = REPOR(zeta=-0.2).tracker()
    assert tracker.observe(rollouts(0.9)) == {"entropy": 0.9, "zeta": -0.2} and tracker.signal(2) == {"zeta": -0.2}


def test_the_controller_by_hand():
    """Doubles to at most 1 below the target; above it halves to .125 and then changes its sign, and so back."""
    tracker = REPOR(controller="adaptive", zeta=0.5, min_zeta=0.125, max_zeta=1.0, target=0.3).tracker()
    seen = []
    for step, entropy in enumerate([0.1, 0.1, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1], start=1):
        tracker.observe(rollouts(entropy, step))
        seen.append(tracker.signal(step)["zeta"])
    assert seen == [1, 1, 1, 0.5, 0.25, 0.125, -0.125, -0.25, -0.125, 0.125, 0.25]


def test_a_nan_entropy_is_not_one_above_the_target():
    tracker = REPOR(controller="adaptive", zeta=0.5).tracker()
    assert math.isnan(tracker.observe(rollouts(math.nan))["zeta"])
    assert math.isnan(tracker.observe(rollouts(0.1))["zeta"]), "and it does not vanish by itself"
    fixed = REPOR(zeta=0.5).tracker()
    assert fixed.observe(rollouts(math.nan))["zeta"] == 0.5, "a fixed zeta follows no entropy"


def test_a_resumed_run_continues_where_it_was():
    method = REPOR(controller="adaptive")
    whole, first, second = method.tracker(), method.tracker(), method.tracker()
    for entropy in (0.1, 0.2):
        whole.observe(rollouts(entropy))
        first.observe(rollouts(entropy))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.signal(3) == first.signal(3) == {"zeta": 0.04}
    assert second.observe(rollouts(0.5)) == whole.observe(rollouts(0.5)) == {"entropy": 0.5, "zeta": 0.02}
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("state", [{}, {"zeta": 1.1}, {"zeta": float("nan")}, {"zeta": 1}, {"zeta": 0.1, "more": 0.0}])
def test_a_state_that_no_run_has_written_is_refused(state):
    tracker = REPOR(controller="adaptive").tracker()
    with pytest.raises(ValueError, match="repo_r state .* must be zeta, in"):
        tracker.load_state_dict(state)
    assert tracker.state_dict() == {"zeta": 0.01}


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(REPOR(), zeta=0.3)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"zeta": float("inf")}, "method.zeta=inf"),
        ({"min_zeta": 0}, "method.min_zeta=0: must be > 0"),
        ({"min_zeta": 2.0}, "method.min_zeta=2.0: must not be above method.max_zeta=1.0"),
        ({"controller": "on"}, "method.controller='on'"),
        ({"controller": "adaptive", "zeta": 0.0}, "method.zeta=0.0: with controller=adaptive its size must be in"),
    ],
)
def test_bad_field_values_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        REPOR(**fields)
