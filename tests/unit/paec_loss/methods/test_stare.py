"""STARE: the chosen tokens and weights by hand, the tracker over steps, the limits, every split."""

from __future__ import annotations

import json
import math

import pytest
import torch
from batches import (
    assert_any_split,
    assert_same_gradient,
    assert_six_digits,
    detached,
    gradient_weights,
    hand_batch,
    mini_batch_loss,
    random_batch,
    rollouts_of,
    toy_batch,
    update_of,
)

from paec_loss.method import clipped_surrogate
from paec_loss.methods.none import NoMethod
from paec_loss.methods.stare import STARE

RATIOS = [0.904837, 0.0, 1, 0.0, 1, 0.0, 1.030455]  # at the clip range of the tests, .2 on both sides
ON = {"positive": 1.1, "negative": 1.0}
BOTH = {"positive": 1.1, "negative": 0.9}
OFF = {"positive": 1.0, "negative": 1.0}


def factors(method: STARE, tokens, **signal: float) -> list[float]:
    """Factor of every token's advantage."""
    update = update_of(tokens, method, **signal)
    changed = method.token_advantages(tokens, method.prepare(detached(tokens), update), update)
    return (changed / tokens.advantages)[tokens.response_mask].tolist()


def rollouts(entropy: float, step: int = 1):
    return rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[2 * entropy], [0.0]], step=step)


def test_the_weighted_tokens_by_hand():
    """Surprisals .2 1.6 .5 .7 (A > 0) and .3 1.9 .02 (A < 0); a quarter, rounded up, is one token of each sign."""
    assert factors(STARE(top=0.25), toy_batch(), **ON) == [1, 1.1, 1, 1, 1, 1, 1]
    assert factors(STARE(top=0.25), toy_batch(), **BOTH) == [1, 1.1, 1, 1, 1, 0.9, 1]
    assert factors(STARE(top=0.5), toy_batch(), **BOTH) == [1, 1.1, 1, 1.1, 0.9, 0.9, 1]
    assert factors(STARE(top=1.0), toy_batch(), **BOTH) == [1.1] * 4 + [0.9] * 3
    assert factors(STARE(), toy_batch(), **OFF) == [1] * 7


def test_the_weight_multiplies_the_clipped_loss():
    expected = [w * f for w, f in zip(RATIOS, [1.1] * 4 + [0.9] * 3, strict=True)]
    assert_six_digits(gradient_weights(STARE(top=1.0), toy_batch(), **BOTH), expected)


def test_one_sign_only():
    tokens = hand_batch([[-1.0, -2.0, -3.0]], [[0.0, 0.0, 2.0]])
    assert mini_batch_loss(STARE(), tokens, **BOTH).item() == pytest.approx(-2.2 / 3, rel=1e-12)
    tokens = hand_batch([[-1.0, -2.0]], [[0.0, 0.0]])
    assert mini_batch_loss(STARE(), tokens, **BOTH).item() == 0


@pytest.mark.parametrize("top", [0.1, 0.3, 1.0])
def test_against_the_formula(top):
    logits, tokens = random_batch(lengths=(9, 1, 14, 3, 0, 8))
    inside = tokens.response_mask
    log_prob, advantages = tokens.log_prob.detach()[inside], tokens.advantages[inside]
    weight = torch.ones_like(advantages)
    for sign, value in ((1, 1.3), (-1, 0.6)):
        places = [i for i, a in enumerate(advantages.tolist()) if sign * a > 0]
        places.sort(key=lambda i: log_prob[i].item())
        for i in places[: max(1, math.ceil(top * len(places)))]:
            weight[i] = value
    expected = (weight * clipped_surrogate(tokens, update_of(tokens, NoMethod()).clip)[inside]).mean()
    loss = mini_batch_loss(STARE(top=top, variant="c2"), tokens, positive=1.3, negative=0.6)
    assert_same_gradient(loss, expected, logits)


def test_at_a_high_entropy_it_is_the_clipped_surrogate():
    _, tokens = random_batch()
    method = STARE(target=0.3, variant="c2")
    tracker = method.tracker()
    for entropy in (0.3, 0.5):
        assert tracker.observe(rollouts(entropy)) == {"entropy": entropy, **OFF}
        assert mini_batch_loss(method, tokens, **tracker.signal(1)) == mini_batch_loss(NoMethod(), tokens)
    tracker.observe(rollouts(0.2))
    assert tracker.signal(1) == BOTH
    assert mini_batch_loss(method, tokens, **tracker.signal(1)) != mini_batch_loss(NoMethod(), tokens)


@pytest.mark.parametrize("weights", ["fixed", "adaptive"])
@pytest.mark.parametrize("variant", ["o1", "c2"])
def test_a_nan_entropy_is_not_one_at_the_target(weights, variant):
    method = STARE(weights=weights, variant=variant)
    tracker = method.tracker()
    tracker.observe(rollouts(0.2))
    assert math.isnan(tracker.observe(rollouts(math.nan))["positive"])
    assert all(math.isnan(weight) for weight in tracker.signal(2).values())
    assert math.isnan(tracker.observe(rollouts(0.5))["positive"]), "and it does not vanish by itself"
    assert math.isnan(mini_batch_loss(method, toy_batch(), **tracker.signal(4)).item())


def test_only_c2_weights_the_negative_tokens():
    tracker = STARE().tracker()
    tracker.observe(rollouts(0.2))
    assert tracker.signal(1) == ON


def test_adaptive_weights_by_hand():
    tracker = STARE(weights="adaptive", variant="c2", weight_positive=1.0, weight_negative=0.985).tracker()
    seen = []
    for step, entropy in enumerate([0.5, 0.2, 0.2, 0.3, 0.2, 0.5, 0.2], start=1):
        tracker.observe(rollouts(entropy, step))
        seen.append(tuple(round(x, 9) for x in tracker.signal(step).values()))
    # W 1 1.01 1.02 1.02 1.03 1.02 1.03 and M .995 .985 .975 .975 .965 .975 .965; both 1 at or above the target
    assert seen == [(1, 1), (1.01, 0.985), (1.02, 0.975), (1, 1), (1.03, 0.965), (1, 1), (1.03, 0.965)]
    for step in range(100):
        tracker.observe(rollouts(0.1, step))
    assert tracker.signal(100) == {"positive": 1.5, "negative": 0.5}


def test_a_resumed_run_continues_where_it_was():
    method = STARE(weights="adaptive")
    whole, first, second = method.tracker(), method.tracker(), method.tracker()
    for entropy in (0.1, 0.2):
        whole.observe(rollouts(entropy))
        first.observe(rollouts(entropy))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.signal(3) == first.signal(3) != OFF
    assert second.observe(rollouts(0.1)) == whole.observe(rollouts(0.1))
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"positive": 1.1, "negative": 0.9},
        {"positive": 1.6, "negative": 0.9, "acting": True},
        {"positive": 1.1, "negative": 0.4, "acting": True},
        {"positive": float("nan"), "negative": 0.9, "acting": True},
        {"positive": 1.1, "negative": 0.9, "acting": 1.0},
        {"positive": 1.1, "negative": 0.9, "acting": True, "more": 0.0},
    ],
)
def test_a_state_that_no_run_has_written_is_refused(state):
    tracker = STARE().tracker()
    with pytest.raises(ValueError, match="stare state .* must be positive in"):
        tracker.load_state_dict(state)
    assert tracker.state_dict() == {"positive": 1.1, "negative": 0.9, "acting": False}


@pytest.mark.parametrize("method", [STARE(top=0.3), STARE(top=0.3, statistics_from="step")])
def test_the_gradient_does_not_depend_on_the_split(method):
    assert_any_split(method, **BOTH)


@pytest.mark.parametrize(
    "field, value",
    [("top", 0), ("weight_positive", 0.9), ("weight_negative", 1.1), ("target", -1), ("variant", "o2")],
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        STARE(**{field: value})
