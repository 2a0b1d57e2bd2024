"""Position advantage: the bonus by hand, its cap, its sign, and the step from which it acts."""

from __future__ import annotations

import math

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss.methods.position_advantage import PositionAdvantage


def test_equals_values_computed_by_hand():
    """T = 2: positions 1/2 and 1, bonuses alpha/2 and alpha sigmoid(2) for steepness 4."""
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-1.0, -1.0], [-1.0]], advantages=[1.0, -2.0])
    end = 0.3 / (1 + math.exp(-2.0))
    expected = torch.tensor([[1 + 0.15, 1 + end], [-2 - end, 0]], dtype=torch.float64)
    got = PositionAdvantage(alpha=0.3, steepness=4.0).advantages(rollouts)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    # A bonus of at most 10 % of the token's own advantage.
    capped = PositionAdvantage(alpha=0.3, steepness=4.0, cap=0.1).advantages(rollouts)
    expected = torch.tensor([[1.1, 1.1], [-2.2, 0]], dtype=torch.float64)
    torch.testing.assert_close(capped, expected, rtol=1e-12, atol=0)


def test_against_the_definition():
    rollouts = random_rollouts()
    got = PositionAdvantage().advantages(rollouts)
    for i, row in enumerate(rollouts.response_mask):
        length = int(row.sum())
        for t in range(1, length + 1):
            a = rollouts.advantages[i, t - 1].item()
            bonus = min(0.1 / (1 + math.exp(-15 * (t / length - 0.5))), 0.5 * abs(a))
            assert got[i, t - 1].item() == pytest.approx(a + math.copysign(bonus, a) * (a != 0), rel=1e-12, abs=1e-15)
        assert (got[i, length:] == 0).all()


def test_limiting_cases():
    rollouts = random_rollouts()  # of step 3
    for unchanged in (PositionAdvantage(alpha=0.0), PositionAdvantage(start_step=4)):
        torch.testing.assert_close(unchanged.advantages(rollouts), rollouts.advantages, rtol=0, atol=0)
    acting = PositionAdvantage(start_step=3).advantages(rollouts)
    torch.testing.assert_close(acting, PositionAdvantage().advantages(rollouts), rtol=0, atol=0)
    alike = rollouts_of([1.0, 1.0], [0, 0], [[-1.0, -1.0], [-1.0]])  # equal rewards: advantage 0, no bonus
    assert PositionAdvantage().advantages(alike).abs().max() == 0


@pytest.mark.parametrize(
    "field, value", [("alpha", -1), ("cap", 0), ("cap", 1.5), ("start_step", 0), ("steepness", -1)]
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        PositionAdvantage(**{field: value})
