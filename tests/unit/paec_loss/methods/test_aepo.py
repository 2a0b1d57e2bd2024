"""AEPO: the two kinds of responses by hand, the temperature over steps, and the state."""

from __future__ import annotations

import json

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss.method import Sampling
from paec_loss.methods.aepo import AEPO
from paec_loss.stack import MethodStack


def test_advantages_by_hand():
    rollouts = rollouts_of(
        [1.0, 0.0, 1.0, 0.0, 0.5, -1.0],
        [0, 0, 1, 1, 1, 1],
        [[-1.0, -1.0], [-1.0], [-1.0], [-1.0, -1.0], [-1.0], [-1.0]],
        advantages=[0.7, -0.7, 1.5, -1.0, 0.3, -2.0],
        resampled=[False, False, True, True, True, True],
    )
    expected = [[0.7, 0.7], [-0.7, 0], [1, 0], [0, 0], [0.5, 0], [0, 0]]
    assert AEPO().advantages(rollouts).tolist() == expected
    expected = [[0.7, 0.7], [-0.7, 0], [0.25, 0], [0, 0], [0.125, 0], [0, 0]]
    assert AEPO(alpha=0.25).advantages(rollouts).tolist() == expected


def test_nothing_apart_is_the_estimators():
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]])
    assert AEPO().advantages(rollouts) is rollouts.advantages
    none = rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], resampled=[False, False])
    torch.testing.assert_close(AEPO().advantages(none), none.advantages, rtol=0, atol=0)


def test_the_temperature_follows_the_entropy_of_the_responses_not_apart():
    method = AEPO()
    tracker = method.tracker()

    def step(entropy: list[list[float]], apart: list[bool] | None) -> Sampling:
        log_prob = [[-1.0] * len(row) for row in entropy]
        observed = tracker.observe(rollouts_of([0.0, 0.0], [0, 1], log_prob, entropy=entropy, resampled=apart))
        assert observed == tracker.signal(4)
        return method.sampling(tracker.signal(4))

    assert method.sampling(tracker.signal(1)) == Sampling(0.25, 1.2)  # nothing known yet
    assert step([[0.5, 0.9], [9.0]], [False, True]) == Sampling(0.25, 1.2)  # 0.7
    assert tracker.signal(2) == {"entropy": pytest.approx(0.7, rel=1e-12)}
    assert step([[0.5, 0.9], [1.0]], None) == Sampling(0.25, 0.8)  # 0.8
    assert step([[0.75], [0.0]], [False, True]) == Sampling(0.25, 0.8)  # at the target: not below it
    assert step([[0.1], [0.1]], [True, True]) == Sampling(0.25, 0.8)  # nothing to measure: as before
    assert step([[0.0], []], [False, False]) == Sampling(0.25, 1.2)
    other = AEPO(target=0.01, share=0.5, temperature_high=2.0, temperature_low=1.0)
    assert other.sampling({"entropy": 0.005}) == Sampling(0.5, 2.0)
    assert other.sampling({"entropy": 0.02}) == Sampling(0.5, 1.0)


def test_in_a_stack():
    stack = MethodStack([AEPO()])
    (tracker,) = stack.trackers().values()
    rollouts = random_rollouts()
    tracker.observe(rollouts)
    own = rollouts.response_mask & ~rollouts.resampled[:, None]
    assert tracker.entropy == pytest.approx(rollouts.entropy[own].mean().item(), rel=1e-12)
    assert tracker.entropy != pytest.approx(rollouts.mean(rollouts.entropy), rel=1e-3)
    assert stack.sampling({"aepo": {"entropy": 0.9}}).temperature == 0.8
    assert stack.sampling({}).temperature == 1.2
    got = stack.advantages(rollouts)
    torch.testing.assert_close(got[~rollouts.resampled], rollouts.advantages[~rollouts.resampled], rtol=0, atol=0)
    assert got[7].tolist() == [1.0] * 4 + [0.0] * 5  # a positive reward, four tokens


def test_the_state():
    tracker, resumed = AEPO().tracker(), AEPO().tracker()
    resumed.load_state_dict(json.loads(json.dumps(tracker.state_dict())))
    assert resumed.signal(1) == {}
    tracker.observe(rollouts_of([0.0], [0], [[-1.0, -1.0]], entropy=[[0.1, 0.4]]))
    resumed.load_state_dict(json.loads(json.dumps(tracker.state_dict())))
    assert resumed.signal(2) == tracker.signal(2) == {"entropy": 0.25}


@pytest.mark.parametrize(
    "state", [{}, None, [], {"entropy": -0.1}, {"entropy": float("nan")}, {"entropy": "1"}, {"entropy": 0.1, "x": 1}]
)
def test_a_state_that_no_run_wrote(state):
    with pytest.raises(ValueError, match="invalid AEPO state .*: expected"):
        AEPO().tracker().load_state_dict(state)


@pytest.mark.parametrize(
    "field, value",
    [("target", 0), ("share", 0), ("share", 1.1), ("temperature_low", 1.3), ("temperature_high", 0), ("alpha", -1)],
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        AEPO(**{field: value})
