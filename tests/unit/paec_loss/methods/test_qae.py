"""QAE: the vectors, the quantile by its definition, groups that say nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from batches import assert_by_group, assert_six_digits, random_rollouts, rollouts_of

from paec_loss.methods.qae import QAE


def of_eight(right: int, quantile: float = 0.4) -> torch.Tensor:
    """[8] advantages of a group whose first responses are right."""
    rollouts = rollouts_of([1.0] * right + [0.0] * (8 - right), [0] * 8, [[-1.0]] * 8)
    return QAE(quantile=quantile).advantages(rollouts)[:, 0]


@pytest.mark.parametrize(
    ("right", "of_right", "of_wrong"),
    [
        (1, 2.828419, 0.0),
        (4, 1.870825, 0.0),
        (5, 0.0, -1.932180),  # the interpolated quantile of the released code is 0.8
        (6, 0.0, -2.160242),
        (8, 0.0, 0.0),
        (0, 0.0, 0.0),
    ],
)
def test_equals_values_computed_by_hand(right, of_right, of_wrong):
    assert_six_digits(of_eight(right), [of_right] * right + [of_wrong] * (8 - right))


def test_a_larger_quantile_reinforces_fewer_prompts():
    """At 0.4 four of eight right responses are reinforced; at 0.6 the wrong ones are suppressed instead."""
    assert_six_digits(of_eight(4, 0.6), [0.0] * 4 + [-1.870825] * 4)
    assert_six_digits(of_eight(3, 0.6), [1.932180] * 3 + [0.0] * 5)


def by_definition(rewards: list[float], quantile: Fraction) -> list[float]:
    """inf {x: F(x) >= K} by counting; the deviation from the pairwise differences."""
    n = len(rewards)
    baseline = min(x for x in rewards if Fraction(sum(r <= x for r in rewards), n) >= quantile)
    variance = sum((a - b) ** 2 for a in rewards for b in rewards) / (2 * n * (n - 1))
    return [(r - baseline) / (variance**0.5 + 1e-6) for r in rewards]


@pytest.mark.parametrize("percent", [1, 7, 25, 40, 50, 60, 75, 100])
def test_against_the_definition(percent):
    """Rewards of many values, groups in which percent * n / 100 is an integer, and one of 100 for 0.07 * 100 > 7."""
    generator = torch.Generator().manual_seed(percent)
    for n in (2, 4, 5, 100):
        rewards = torch.randint(0, 4, (n,), generator=generator).div(3.0).tolist()
        rewards[0], rewards[1] = 0.0, 1.0
        rollouts = rollouts_of(rewards, [0] * n, [[-1.0]] * n)
        expected = by_definition(rollouts.rewards.tolist(), Fraction(percent, 100))
        got = QAE(quantile=percent / 100).advantages(rollouts)[:, 0].tolist()
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert max(map(abs, got)) > 0.5


def test_every_group_by_itself():
    assert_by_group(QAE())


def test_limiting_cases():
    """One response, equal rewards and padding have no advantage; every token has its response's."""
    rollouts = rollouts_of([1.0, 1.0, 1.0, 0.0, 1.0], [0, 1, 1, 2, 2], [[-1.0], [-1.0], [], [-1.0, -1.0], [-1.0]])
    got = QAE().advantages(rollouts)
    assert got[:3].abs().max() == 0
    assert got[3].tolist() == [0.0, 0.0] and got[4, 0].item() == pytest.approx(1 / (0.5**0.5 + 1e-6)) and got[4, 1] == 0
    assert QAE().advantages(random_rollouts()).shape == (9, 9)


@pytest.mark.parametrize("value", [0, 1.1, -0.4, None])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.quantile="):
        QAE(quantile=value)
