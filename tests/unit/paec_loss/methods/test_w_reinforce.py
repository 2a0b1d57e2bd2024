"""W-REINFORCE: by hand on a step's groups, the limits, NaN-free where a group's rewards are equal."""

from __future__ import annotations

import pytest
import torch
from batches import grpo, rollouts_of

from paec_loss.methods.w_reinforce import WReinforce

# Groups: two of four right, all right, one alone; the last response is padding.
REWARDS, PROMPT = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0, 0, 0, 0, 1, 1, 2, 0]
LOG_PROB = [[-1.0, -1.0], [-1.0], [-1.0, -1.0, -1.0], [-1.0], [-1.0], [-1.0, -1.0], [-1.0], []]


def test_equals_values_computed_by_hand():
    rollouts = rollouts_of([0.0] * 8, PROMPT, LOG_PROB, advantages=[2.0, -1.0, 0.5, -3.0, 0.0, 0.0, 4.0, 1.0])
    found = WReinforce().advantages(rollouts)
    expected = [[0.2, 0.2, 0], [-1.0, 0, 0], [0.05] * 3, [-3.0, 0, 0], [0] * 3, [0] * 3, [0.4, 0, 0], [0] * 3]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0, 2.0])
def test_on_grpos_advantages(weight):
    """Positive samples are the right ones; groups with equal rewards stay at 0."""
    rollouts = rollouts_of(REWARDS, PROMPT, LOG_PROB)
    found = WReinforce(positive_weight=weight).advantages(rollouts)
    one = grpo(torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64), torch.zeros(5))  # padding in its group
    for i, expected in enumerate([weight * one[0], one[1], weight * one[2], one[3], 0.0, 0.0, 0.0]):
        assert found[i, 0] == expected
    assert (found[0, 1], found[2, 2]) == (weight * one[0], weight * one[2])


def test_with_weight_one_nothing_changes():
    rollouts = rollouts_of(REWARDS, PROMPT, LOG_PROB)
    assert torch.equal(WReinforce(positive_weight=1).advantages(rollouts), rollouts.advantages)


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan"), True])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.positive_weight="):
        WReinforce(positive_weight=value)
