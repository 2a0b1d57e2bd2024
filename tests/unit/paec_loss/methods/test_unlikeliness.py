"""Unlikeliness: the vector, ranks by counting, ties, what stays."""

from __future__ import annotations

import pytest
import torch
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods.unlikeliness import Unlikeliness

SUMS = [[-4.0, -6.0], [-40.0], [-5.0] * 4, [-29.0, -1.0]]  # -10, -40, -20, -30


def test_equals_values_computed_by_hand():
    rollouts = rollouts_of([1.0, 1.0, 0.0, 1.0], [0] * 4, SUMS)
    assert Unlikeliness().rewards(rollouts).tolist() == [0.8125, 1.0, 0.0, 0.9375]
    assert Unlikeliness(beta=1.0).rewards(rollouts).tolist() == [0.25, 1.0, 0.0, 0.75]
    assert torch.equal(Unlikeliness(beta=0.0).rewards(rollouts), rollouts.rewards)


def test_the_rank_by_the_mean_per_token_by_hand():
    """Means -1 -.5 -.9 -.6 over 4, 10, 5 and 8 tokens: sums -4 -5 -4.5 -4.8, which rank them the other way round."""
    means = [[-1.0] * 4, [-0.5] * 10, [-0.9] * 5, [-0.6] * 8]
    rollouts = rollouts_of([1.0] * 4, [0] * 4, means)
    assert Unlikeliness().rewards(rollouts).tolist() == [0.8125, 1.0, 0.875, 0.9375]
    assert Unlikeliness(rank_by="mean").rewards(rollouts).tolist() == [1.0, 0.8125, 0.9375, 0.875]


def test_against_the_definition():
    rollouts = random_rollouts(2)
    got = Unlikeliness(beta=0.6).rewards(rollouts).tolist()
    sums = [rollouts.log_prob[i][rollouts.response_mask[i]].sum().item() for i in range(9)]
    expected = []
    for i in range(9):
        group = [j for j in range(9) if rollouts.group_id[j] == rollouts.group_id[i] and rollouts.lengths[j] > 0]
        rank = sum(sums[j] < sums[i] for j in group) if i in group else 0
        expected.append(rollouts.rewards[i].item() * (1 - 0.6 * rank / len(group)))
    assert got == pytest.approx(expected, rel=1e-12)
    assert len(set(got)) > 3


def test_ties_and_padding():
    """Equal log-probs in the order of the batch; padding has no rank, and a negative reward shrinks too."""
    rollouts = rollouts_of([1.0, 1.0, -1.0, 1.0, 1.0], [0, 0, 0, 0, 1], [[-2.0], [-2.0], [-1.0, -1.0], [], [-9.0]])
    got = Unlikeliness(beta=0.75).rewards(rollouts)
    assert got.tolist() == [1.0, 0.75, -0.5, 1.0, 1.0] and got.dtype == rollouts.rewards.dtype


def test_every_group_by_itself():
    for rank_by in ("sum", "mean"):
        assert_by_group(Unlikeliness(rank_by=rank_by))


@pytest.mark.parametrize("value", [-0.1, 1.1, None])
def test_bad_field_values_are_refused(value):
    with pytest.raises(ValueError, match="method.beta="):
        Unlikeliness(beta=value)
