"""Overlong penalty: the vector, the formula in its three parts, the limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import assert_by_group, random_rollouts, rollouts_of

from paec_loss.methods.overlong_penalty import OverlongPenalty


def test_equals_values_computed_by_hand():
    """L_max 10, b 4: 6 tokens and fewer cost nothing, 7 a quarter, 9 three quarters, 10 all."""
    rows = [[-1.0] * n for n in (10, 9, 7, 6, 1)]
    rollouts = rollouts_of([1.0, 1.0, 0.0, 1.0, 0.0], [0] * 5, rows, max_response_length=10)
    assert OverlongPenalty(buffer=0.4).rewards(rollouts).tolist() == [0.0, 0.25, -0.25, 1.0, 0.0]
    assert OverlongPenalty(buffer=0.4, weight=2).rewards(rollouts).tolist() == [-1.0, -0.5, -0.5, 1.0, 0.0]


def test_what_tools_wrote_counts_as_length():
    """9 columns of 10, five of them a tool's."""
    rollouts = rollouts_of([1.0], [0], [[-1.0] * 9], max_response_length=10)
    mask = torch.tensor([[True, True, False, False, False, False, False, True, True]])
    assert OverlongPenalty(buffer=0.4).rewards(replace(rollouts, response_mask=mask)).tolist() == [0.25]


def test_the_published_numbers():
    """16384 expected tokens and a buffer of 4096: 18432 are in the middle of it."""
    rollouts = rollouts_of([1.0] * 3, [0] * 3, [[-1.0] * n for n in (16384, 18432, 20480)], max_response_length=20480)
    assert OverlongPenalty().rewards(rollouts).tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)


@pytest.mark.parametrize("buffer", [0.3, 0.5, 1.0])
def test_against_the_formula(buffer):
    rollouts = random_rollouts(2)
    expected, longest, cache = [], 6, buffer * 6
    for reward, length in zip(rollouts.rewards.tolist(), rollouts.response_mask.sum(-1).tolist(), strict=True):
        if length <= longest - cache:
            expected.append(reward)
        elif length <= longest:
            expected.append(reward + ((longest - cache) - length) / cache)
        else:
            expected.append(reward - 1)
    found = OverlongPenalty(buffer=buffer).rewards(rollouts)
    assert found.tolist() == pytest.approx(expected, abs=1e-12) and found.dtype == rollouts.rewards.dtype
    assert len(set(expected)) > 3


def test_without_a_limit_or_a_weight_it_changes_nothing():
    rollouts = random_rollouts()
    assert torch.equal(OverlongPenalty(weight=0.0).rewards(rollouts), rollouts.rewards)
    assert torch.equal(OverlongPenalty().rewards(replace(rollouts, max_response_length=None)), rollouts.rewards)


def test_every_group_by_itself():
    assert_by_group(OverlongPenalty())


@pytest.mark.parametrize("field, value", [("buffer", 0), ("buffer", 1.5), ("weight", -1)])
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        OverlongPenalty(**{field: value})
