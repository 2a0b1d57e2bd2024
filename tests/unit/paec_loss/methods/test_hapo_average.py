"""HAPO's group average: the vector, the tokens one by one, the groups that keep the estimator's advantages."""

from __future__ import annotations

from statistics import fmean, pstdev

import pytest
import torch
from batches import assert_by_group, assert_six_digits, random_rollouts, rollouts_of

from paec_loss.methods.hapo import HAPO
from paec_loss.methods.hapo_average import HAPOAverage
from paec_loss.stack import MethodStack


def test_equals_values_computed_by_hand():
    """Rewards 1 and 0 with 2 and 6 tokens: mean 1/4, deviation sqrt(3)/4."""
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0] * 2, [-1.0] * 6])
    got = HAPOAverage().advantages(rollouts)
    assert_six_digits(got[:, 0], [1.732047, -0.577349])
    assert got[0, 2:].abs().max() == 0 and (got[1] == got[1, 0]).all()


def test_against_the_tokens():
    for seed in (1, 2, 3):
        rollouts = random_rollouts(seed)
        got = HAPOAverage().advantages(rollouts)
        kept = 0
        for p in (1, 4):
            group = [i for i in range(9) if rollouts.group_id[i] == p and rollouts.lengths[i] > 0]
            rewards = [rollouts.rewards[i].item() for i in group for _ in range(int(rollouts.lengths[i]))]
            mean, deviation = fmean(rewards), pstdev(rewards)
            expected = {i: (rollouts.rewards[i].item() - mean) / (deviation + 1e-6) for i in group}
            keeps = max(map(abs, expected.values())) >= 5
            kept += keeps
            for i in group:
                value = rollouts.advantages[i, 0].item() if keeps else expected[i]
                row = [value if inside else 0.0 for inside in rollouts.response_mask[i].tolist()]
                assert got[i].tolist() == pytest.approx(row, rel=1e-9, abs=1e-12)
        assert kept < 2


def test_a_group_with_a_large_advantage_keeps_the_estimators():
    """One right response of one token among 26: A = 5 there; of 25 it is sqrt(24) = 4.899."""
    for wrong, changed in ((25, False), (24, True)):
        rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0] * wrong], advantages=[0.7, -0.7])
        got = HAPOAverage(limit=4.95).advantages(rollouts)[:, 0]
        assert torch.equal(got, rollouts.advantages[:, 0]) == (not changed)
    assert got[0].item() == pytest.approx(24**0.5, rel=1e-5)


def test_limiting_cases():
    """Equal rewards have no advantage; one response keeps the estimator's; equal lengths are GRPO's, population."""
    rollouts = rollouts_of([1.0, 1.0, 1.0], [0, 0, 1], [[-1.0], [-1.0] * 3, [-1.0]], advantages=[0.5, 0.5, 0.5])
    assert HAPOAverage().advantages(rollouts)[:, 0].tolist() == [0.0, 0.0, 0.5]
    even = rollouts_of([1.0, 0.0, 0.0, 1.0], [0] * 4, [[-1.0, -1.0]] * 4)
    assert_six_digits(HAPOAverage().advantages(even)[:, 0], [0.999998, -0.999998, -0.999998, 0.999998])


def test_with_hapo():
    """It acts first, on the driver; hapo's own part sees its advantages."""
    stack = MethodStack([HAPO(), HAPOAverage()])
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0] * 2, [-1.0] * 6])
    assert torch.equal(stack.advantages(rollouts), HAPOAverage().advantages(rollouts))
    assert stack.acts_in_actor and stack.own_surrogate


def test_every_group_by_itself():
    assert_by_group(HAPOAverage())


@pytest.mark.parametrize("value", [0, -5.0, None])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.limit="):
        HAPOAverage(limit=value)
