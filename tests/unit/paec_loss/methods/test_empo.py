"""EMPO: shares by hand and by count, groups apart, padding."""

from __future__ import annotations

from batches import random_rollouts, rollouts_of

from paec_loss.methods.empo import EMPO


def test_equals_values_computed_by_hand():
    """Group 0 answers x, x, y, x; group 1 answers x, z: equal numbers of different groups are not the same answer."""
    rollouts = rollouts_of([0.0] * 6, [0, 0, 0, 1, 0, 1], [[-1.0]] * 6, answer_ids=[7, 7, 2, 7, 7, 9])
    assert EMPO().rewards(rollouts).tolist() == [0.75, 0.75, 0.25, 0.5, 0.75, 0.5]


def test_against_the_definition():
    rollouts = random_rollouts()
    got = EMPO().rewards(rollouts).tolist()
    expected = []
    for i in range(9):
        group = [j for j in range(9) if rollouts.group_id[j] == rollouts.group_id[i] and rollouts.lengths[j] > 0]
        same = [j for j in group if rollouts.answer_ids[j] == rollouts.answer_ids[i]]
        expected.append(len(same) / len(group) if i in group else 0.0)
    assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) < 1e-15
    assert len(set(expected)) > 3


def test_limiting_cases():
    """All agree: 1, whatever was graded; all differ: 1/G; a group of one: 1; padding has none and counts for none."""
    log_prob = [[-1.0], [-1.0], [-1.0], [-1.0, -2.0], [-1.0], []]
    rollouts = rollouts_of([0.0, 1.0, 1.0, 1.0, 0.0, 1.0], [0, 0, 1, 1, 2, 0], log_prob, answer_ids=[1, 1, 2, 3, 0, 1])
    assert EMPO().rewards(rollouts).tolist() == [1, 1, 0.5, 0.5, 1, 0]
    assert EMPO().rewards(rollouts).dtype == rollouts.rewards.dtype
