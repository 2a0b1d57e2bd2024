"""PPL advantage: the factor by hand, outliers, the clamp, groups of one and of equal perplexity."""

from __future__ import annotations

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss.methods.ppl_advantage import PPLAdvantage


def test_equals_values_computed_by_hand():
    """Log-perplexities 1 and 3: mean 2, population deviation 1, so z = -1 and 1."""
    rollouts = rollouts_of([1.0, 0.0], [0, 0], [[-0.5, -1.5], [-3.0]], advantages=[2.0, -2.0])
    expected = torch.tensor([[2 * 1.1, 2 * 1.1], [-2 * 0.9, 0]], dtype=torch.float64)
    torch.testing.assert_close(PPLAdvantage(alpha=0.1).advantages(rollouts), expected, rtol=1e-7, atol=0)
    expected = torch.tensor([[2 * 1.05, 2 * 1.05], [-2 * 0.95, 0]], dtype=torch.float64)
    torch.testing.assert_close(PPLAdvantage(alpha=0.1, width=0.05).advantages(rollouts), expected, rtol=1e-7, atol=0)


def test_an_outlier_is_in_no_statistic():
    """1, 2, 3, 2 and 5: the quartiles are 2 and 3, so 5 > 4.5 is out; the rest has mean 2 and deviation sqrt(1/2)."""
    log_prob = [[-1.0], [-2.0], [-3.0], [-2.0], [-5.0]]
    rollouts = rollouts_of([0.0] * 5, [0] * 5, log_prob, advantages=[1.0] * 5)
    expected = torch.tensor([1 + 0.02 * 2**0.5, 1, 1 - 0.02 * 2**0.5, 1, 1 - 0.06 * 2**0.5], dtype=torch.float64)
    torch.testing.assert_close(PPLAdvantage(alpha=0.02).advantages(rollouts)[:, 0], expected, rtol=1e-7, atol=0)


def test_against_the_definition():
    rollouts = random_rollouts()
    got = PPLAdvantage(alpha=0.15).advantages(rollouts)
    assert got[~rollouts.response_mask].abs().max() == 0
    for p in (1, 2, 4):
        rows = [i for i in range(9) if rollouts.group_id[i] == p and rollouts.response_mask[i].any()]
        value = {
            i: -sum(rollouts.log_prob[i][rollouts.response_mask[i]].tolist()) / int(rollouts.lengths[i]) for i in rows
        }
        ordered = sorted(value.values())

        def quartile(q, ordered=ordered):
            place = q * (len(ordered) - 1)
            low = ordered[int(place)]
            return low + (place - int(place)) * (ordered[min(int(place) + 1, len(ordered) - 1)] - low)

        reach = 1.5 * (quartile(0.75) - quartile(0.25))
        usual = [v for v in ordered if quartile(0.25) - reach <= v <= quartile(0.75) + reach]
        mean = sum(usual) / len(usual)
        deviation = (sum((v - mean) ** 2 for v in usual) / len(usual)) ** 0.5
        for i in rows:
            factor = min(max(1 - 0.15 * (value[i] - mean) / (deviation + 1e-8), 0.8), 1.2)
            assert got[i, 0].item() == pytest.approx(rollouts.advantages[i, 0].item() * factor, rel=1e-10)
    assert (got != rollouts.advantages).any()


def test_limiting_cases():
    rollouts = random_rollouts()
    for unchanged in (PPLAdvantage(alpha=0.0), PPLAdvantage(width=0.0)):
        torch.testing.assert_close(unchanged.advantages(rollouts), rollouts.advantages, rtol=0, atol=0)
    alike = rollouts_of([0.0] * 3, [0, 0, 1], [[-1.0, -2.0], [-1.5], [-9.0]], advantages=[1.0, -1.0, 2.0])
    torch.testing.assert_close(PPLAdvantage(alpha=1.0).advantages(alike), alike.advantages, rtol=1e-12, atol=0)


@pytest.mark.parametrize("field, value", [("alpha", -0.1), ("width", 1.5), ("width", -0.1), ("alpha", "x")])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        PPLAdvantage(**{field: value})
