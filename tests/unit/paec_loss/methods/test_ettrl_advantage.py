"""ETTRL's advantage: the factor by hand, an independent version, groups without entropy."""

from __future__ import annotations

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss.methods.ettrl_advantage import ETTRLAdvantage


def test_equals_values_computed_by_hand():
    """Mean entropies 1 and 3, so 2 over the group: factors 3/2 and 1/2."""
    log_prob, entropy = [[-1.0, -1.0], [-1.0], [-1.0]], [[0.5, 1.5], [3.0], [9.0]]
    rollouts = rollouts_of([1.0, 0.0, 1.0], [0, 0, 1], log_prob, entropy=entropy, advantages=[2.0, -2.0, 1.0])
    assert ETTRLAdvantage().advantages(rollouts).tolist() == [[3, 3], [-1, 0], [1, 0]]


def test_more_than_twice_the_mean_changes_the_sign():
    """Entropies 9, 0, 0: the mean is 3 and the factors are -1, 2, 2."""
    rollouts = rollouts_of([0.0] * 3, [0] * 3, [[-1.0]] * 3, entropy=[[9.0], [0.0], [0.0]], advantages=[1.0, 1.0, -1.0])
    assert ETTRLAdvantage().advantages(rollouts)[:, 0].tolist() == [-1, 2, -2]


def test_against_the_definition():
    rollouts = random_rollouts()
    got = ETTRLAdvantage().advantages(rollouts)
    mean = [
        rollouts.entropy[i][rollouts.response_mask[i]].mean().item() if rollouts.lengths[i] else None for i in range(9)
    ]
    for i in range(9):
        group = [mean[j] for j in range(9) if rollouts.group_id[j] == rollouts.group_id[i] and mean[j] is not None]
        average = sum(group) / len(group)
        for t in range(rollouts.response_mask.shape[1]):
            inside = rollouts.response_mask[i, t]
            expected = rollouts.advantages[i, t].item() * (1 + (average - mean[i]) / average) if inside else 0.0
            assert got[i, t].item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert (got != rollouts.advantages).any()


def test_limiting_cases():
    alike = rollouts_of([1.0, 0.0, 0.0], [0, 0, 0], [[-1.0], [-1.0, -1.0], []], entropy=[[1.5], [1.0, 2.0], []])
    certain = rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[0.0], [0.0]])
    for rollouts in (alike, certain):
        assert rollouts.advantages.abs().max() > 0.5
        torch.testing.assert_close(ETTRLAdvantage().advantages(rollouts), rollouts.advantages, rtol=0, atol=0)
