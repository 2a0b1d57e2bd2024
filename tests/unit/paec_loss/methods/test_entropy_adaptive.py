"""Adaptive entropy control: the coefficient over steps by hand, its term, its state, every split."""

from __future__ import annotations

import json
import math

import pytest
import torch
from batches import assert_any_split, hand_batch, isclose, mini_batch_loss, random_batch, rollouts_of

from paec_loss.methods.entropy_adaptive import EntropyAdaptive
from paec_loss.methods.none import NoMethod


def rollouts(entropy: float, step: int = 1):
    """Two responses of 1 and 3 tokens with this mean token entropy."""
    rows = [[4 * entropy], [0.0, 0.0, 0.0]]
    return rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0] * 3], entropy=rows, step=step)


def test_the_coefficient_by_hand():
    """It starts at 0, moves after it has acted, stays in [0, max], and does not act above the target."""
    tracker = EntropyAdaptive(target=0.5, delta=0.25, max_coefficient=0.5).tracker()
    seen = []
    for step, entropy in enumerate([0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.25, 0.75, 0.75, 0.25], start=1):
        metrics = tracker.observe(rollouts(entropy, step))
        assert metrics == {"entropy": entropy, **tracker.signal(step)}
        seen.append(tracker.signal(step)["coefficient"])
    assert seen == [0, 0.25, 0.5, 0.5, 0, 0, 0, 0, 0, 0]
    tracker.observe(rollouts(0.25))
    assert tracker.signal(11) == {"coefficient": 0.25}


def test_at_the_target_the_bonus_acts_and_its_weight_falls():
    tracker = EntropyAdaptive(target=0.5, delta=0.25, max_coefficient=1.0).tracker()
    for _ in range(2):
        tracker.observe(rollouts(0.25))
    tracker.observe(rollouts(0.5))
    assert tracker.signal(3) == {"coefficient": 0.5}
    tracker.observe(rollouts(0.5))
    assert tracker.signal(4) == {"coefficient": 0.25}


def test_a_nan_entropy_is_not_one_above_the_target():
    tracker = EntropyAdaptive(target=0.5, delta=0.25, max_coefficient=1.0).tracker()
    for entropy in (0.25, 0.25):
        tracker.observe(rollouts(entropy))
    assert tracker.signal(2) == {"coefficient": 0.25}
    assert math.isnan(tracker.observe(rollouts(math.nan))["coefficient"]) and math.isnan(tracker.coefficient)
    assert math.isnan(tracker.observe(rollouts(0.25))["coefficient"]), "and it does not vanish by itself"


def test_the_term_by_hand():
    tokens = hand_batch([[-1.0, -2.0], [-5.0]], [[0.0, 0.0], [0.0]], entropy=[[0.3, 0.6], [0.6]])
    loss = mini_batch_loss(EntropyAdaptive(), tokens, coefficient=0.2)
    assert isclose(loss.item(), -0.1)
    (gradient,) = torch.autograd.grad(loss, tokens.statistics.entropy)
    expected = torch.tensor([[-0.2 / 3, -0.2 / 3], [-0.2 / 3, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_while_it_does_not_act_it_is_the_clipped_surrogate():
    _, tokens = random_batch()
    method = EntropyAdaptive()
    assert mini_batch_loss(method, tokens, **method.tracker().signal(1)) == mini_batch_loss(NoMethod(), tokens)


def test_the_gradient_does_not_depend_on_the_split():
    assert_any_split(EntropyAdaptive(), coefficient=0.7)


def test_a_resumed_run_continues_where_it_was():
    method = EntropyAdaptive(target=0.5, delta=0.001)
    whole, first, second = method.tracker(), method.tracker(), method.tracker()
    for entropy in (0.1, 0.2, 0.3):
        whole.observe(rollouts(entropy))
        first.observe(rollouts(entropy))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.signal(4) == first.signal(4) == {"coefficient": 0.002}
    assert second.observe(rollouts(0.4)) == whole.observe(rollouts(0.4)) == {"entropy": 0.4, "coefficient": 0.003}
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"coefficient": 0.001},
        {"coefficient": 0.001, "acting": 0.0, "more": 0.0},
        {"coefficient": 0.006, "acting": 0.0},
        {"coefficient": 0.001, "acting": -0.001},
        {"coefficient": float("nan"), "acting": 0.0},
        {"coefficient": "0.001", "acting": 0.0},
    ],
)
def test_a_state_that_no_run_has_written_is_refused(state):
    tracker = EntropyAdaptive().tracker()
    with pytest.raises(ValueError, match="entropy_adaptive state .* must be coefficient and acting"):
        tracker.load_state_dict(state)
    assert tracker.state_dict() == {"coefficient": 0.0, "acting": 0.0}


@pytest.mark.parametrize("field, value", [("target", -1), ("delta", float("nan")), ("max_coefficient", -0.1)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        EntropyAdaptive(**{field: value})
