"""Entropy minimisation: the vectors, each reward token by token, what is ignored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods.entropy_min import EntropyMin

ENTROPY = [[0.3, 1.8, 0.9, 1.2], [0.7, 1.6, 0.1], []]
LOG_PROB = [[-0.1, -2.0, -0.5, -1.0], [-0.3, -1.5, -0.05], []]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("mean_entropy", [-1.05, -0.8]),
        ("entropy", [-4.2, -2.4]),
        ("log_prob", [-3.6, -1.85]),
        ("mean_log_prob", [-0.9, -1.85 / 3]),
    ],
)
def test_equals_values_computed_by_hand(reward, expected):
    rollouts = rollouts_of([1.0, 0.0, 1.0], [0, 0, 0], LOG_PROB, entropy=ENTROPY)
    got = EntropyMin(reward=reward).rewards(rollouts)
    torch.testing.assert_close(got, torch.tensor([*expected, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("reward", ["mean_entropy", "entropy", "log_prob", "mean_log_prob"])
def test_against_the_definition(reward):
    rollouts = random_rollouts(3)
    got = EntropyMin(reward=reward).rewards(rollouts).tolist()
    for i, length in enumerate(rollouts.lengths.tolist()):
        source = rollouts.log_prob[i] if "log_prob" in reward else rollouts.entropy[i]
        total = sum(source[:length].tolist()) * (1 if "log_prob" in reward else -1)
        expected = total / max(length, 1) if reward.startswith("mean") else total
        assert got[i] == pytest.approx(expected, rel=1e-12, abs=0)
    assert len(set(got)) == 9


def test_the_graded_reward_is_ignored():
    rollouts = random_rollouts()
    other = replace(rollouts, rewards=(1 - rollouts.rewards).float())
    first, second = EntropyMin().rewards(rollouts), EntropyMin().rewards(other)
    assert second.dtype == torch.float32 and torch.equal(first.float(), second)


def test_every_group_by_itself():
    assert_by_group(EntropyMin())


def test_bad_field_values_are_refused():
    with pytest.raises(ValueError, match="method.reward='total'"):
        EntropyMin(reward="total")
