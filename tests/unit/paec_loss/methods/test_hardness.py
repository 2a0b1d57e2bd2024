"""Hardness weighting: the vectors, the published form of the factor, groups that say nothing."""

from __future__ import annotations

import pytest
import torch
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods.hardness import Hardness


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [2.076, -0.692, -0.692, -0.692]),  # factor 1.384
        ([1.0, 1.0, 1.0, 0.0], [0.564, 0.564, 0.564, -1.692]),  # factor 1.128
        ([1.0, 1.0, 1.0, 1.0], [0.0] * 4),
        ([0.0, 0.0, 0.0, 0.0], [0.0] * 4),
    ],
)
def test_equals_values_computed_by_hand(rewards, expected):
    got = Hardness().advantages(rollouts_of(rewards, [0] * 4, [[-1.0]] * 4))[:, 0]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


def test_against_the_text():
    """(R - mu) (1.256 - 0.256 mu) on rewards -1 and 1, every token of a response alike, padding 0."""
    rollouts = random_rollouts(1)
    got = Hardness().advantages(rollouts)
    assert got.abs().max() > 1
    for i in range(9):
        group = [j for j in range(9) if rollouts.group_id[j] == rollouts.group_id[i] and rollouts.lengths[j] > 0]
        signed = [1.0 if rollouts.rewards[j] == 1 else -1.0 for j in group]
        mean = sum(signed) / len(signed)
        own = 1.0 if rollouts.rewards[i] == 1 else -1.0
        value = (own - mean) * (1.256 - 0.256 * mean)
        expected = [value if inside else 0.0 for inside in rollouts.response_mask[i].tolist()]
        assert got[i].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_without_weight_it_is_twice_dr_grpo():
    rollouts = rollouts_of([1.0, 0.0, 0.5, 1.0], [0, 0, 0, 1], [[-1.0]] * 4)
    assert Hardness(weight=0).advantages(rollouts)[:, 0].tolist() == [1.0, -1.0, 0.0, 0.0]


def test_every_group_by_itself():
    assert_by_group(Hardness())


@pytest.mark.parametrize("value", [-0.1, float("nan"), "x"])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.weight="):
        Hardness(weight=value)
